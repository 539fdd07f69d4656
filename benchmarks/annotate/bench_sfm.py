"""Camera poses against exact truth: our solver and COLMAP alone on the same rendered captures, with cost and calibration.

`python -m benchmarks.annotate.bench_sfm CLIPS WORK [--mapper auto]`: CLIPS holds one folder per capture (`capture.yaml`, `truth.json`).
Finished captures are not run again. Writes WORK/sfm.json and WORK/sfm.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from annotators.capture import load_capture
from annotators.sfm import solve_cameras
from annotators.sfm_checks import rotation_angle_deg, similarity
from annotators.static_camera import static_segments
from annotators.types import CameraTrack, Capture
from dataengine.geometry import se3

Array = np.ndarray


def main() -> None:
    """Run all captures, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--mapper", default="auto")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for truth in sorted(given.clips.glob("*/truth.json")):
        rows.append(run_clip(truth.parent, given.work / truth.parent.name, given.mapper))
        (given.work / "sfm.json").write_text(json.dumps(rows, indent=1))
        (given.work / "sfm.md").write_text(table(rows))


def run_clip(clip: Path, work: Path, mapper: str) -> dict[str, Any]:
    """Scores of one capture; kept in WORK/<capture>/result.json."""
    done = work / f"result_{mapper}.json"
    if done.is_file():
        return json.loads(done.read_text())
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _, capture = load_capture(clip / "capture.yaml")
    truth = np.asarray(json.loads((clip / "truth.json").read_text())["T_world_cam"], float)
    static = static_segments(capture)
    before, wall = cpu_s(), time.perf_counter()
    track = solve_cameras(capture, work / "ours", static, capture.mask, mapper=mapper)  # type: ignore[arg-type]
    row: dict[str, Any] = {"capture": clip.name, "frames": len(capture.frames), "static": list(static), "refusal": track.refusal}
    row["cpu_s"], row["wall_s"] = cpu_s() - before, time.perf_counter() - wall
    row["stages_cpu_s"] = json.loads((work / "ours" / "cost.json").read_text())
    row["keyframes"] = len(json.loads((work / "ours" / "request.json").read_text())["keyframes"])
    if track.refusal is None:
        row["ours"] = relative_errors(track.T_world_cam, truth, track.posed)
        row["coverage"] = coverage(track, truth)
        row["cross_check"], row["mapper"] = track.cross_check, track.mapper
    before = cpu_s()
    poses, posed = colmap_alone(capture, work / "alone")
    row["alone"] = relative_errors(poses, truth, posed) if posed.sum() >= 3 else {"posed": int(posed.sum())}
    row["alone_cpu_s"] = cpu_s() - before
    done.write_text(json.dumps(row))
    return row


def cpu_s() -> float:
    """CPU time of this process and its finished children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def colmap_alone(capture: Capture, folder: Path) -> tuple[Array, Array]:
    """Poses (N, 4, 4) and which exist (N,) of the plain pipeline."""
    (folder / "images").mkdir(parents=True)
    for i in range(len(capture.frames)):
        cv2.imwrite(str(folder / "images" / f"{i:06d}.png"), capture.rgb(i)[..., ::-1])
    (folder / "camera.json").write_text(json.dumps({"K": np.asarray(capture.K).tolist()}))
    with (folder / "log").open("wb") as log:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.annotate.colmap_alone", str(folder)]
        subprocess.run(command, env=env, stdout=log, stderr=log, check=False)
    poses, posed = np.full((len(capture.frames), 4, 4), np.nan), np.zeros(len(capture.frames), bool)
    if (folder / "poses.npz").is_file():
        with np.load(folder / "poses.npz") as found:
            poses[found["frames"]], posed[found["frames"]] = found["T_world_cam"], True
    return poses, posed


def relative_errors(T: Array, truth: Array, posed: Array) -> dict[str, float]:
    """Errors of the relative pose of every pair of posed frames that are apart in truth.

    One global scale makes the poses metric: the median ratio of true to found distance over all pairs, which single outliers do not move.
    """
    kept = np.flatnonzero(posed)
    i, j = np.triu_indices(len(kept), 1)
    real = se3.inverse(truth[kept][i]) @ truth[kept][j]
    apart = np.linalg.norm(real[:, :3, 3], axis=1) > 1e-6
    found = se3.inverse(T[kept][i]) @ T[kept][j]
    length = np.linalg.norm(found[apart, :3, 3], axis=1)
    found[:, :3, 3] *= np.median(np.linalg.norm(real[apart, :3, 3], axis=1) / np.maximum(length, 1e-12))
    shift_mm = 1e3 * np.linalg.norm(found[apart, :3, 3] - real[apart, :3, 3], axis=1)
    turn = rotation_angle_deg(np.swapaxes(found[apart, :3, :3], -1, -2) @ real[apart, :3, :3])
    return {
        "posed": len(kept),
        "median_mm": float(np.median(shift_mm)),
        "p95_mm": float(np.percentile(shift_mm, 95)),
        "median_deg": float(np.median(turn)),
        "p95_deg": float(np.percentile(turn, 95)),
    }


def coverage(track: CameraTrack, truth: Array) -> dict[str, float]:
    """Share of the six error components of each pose inside ± 1 standard deviation, and the normalised error squared per component.

    Truth is brought to the track's gauge by the similarity that minimises the sum of all squared components (the track's unit is the
    median depth, so lengths and angles weigh alike): the gauge in which the covariances are stated. One view per static segment counts.
    """
    repeated = np.zeros(len(truth), bool)
    for first, end in track.static_segments:
        repeated[first + 1 : end] = True
    kept = np.flatnonzero(track.posed & ~repeated)
    errors = gauge_errors(track.T_world_cam[kept], truth[kept])
    covariance = track.covariance[kept]
    inside = np.abs(errors) < np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    nees = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(covariance), errors) / 6
    return {"inside_68": float(inside.mean()), "nees_median": float(np.median(nees)), "nees_mean": float(nees.mean())}


def gauge_errors(T: Array, truth: Array) -> Array:
    """Errors [rho, phi] (n, 6) of poses against truth after the best similarity in the sense of all components."""
    from scipy.optimize import least_squares

    s, R, t = similarity(truth[:, :3, 3], T[:, :3, 3])
    start = truth.copy()
    start[:, :3, 3] = s * start[:, :3, 3] @ R.T + t
    start[:, :3, :3] = R @ start[:, :3, :3]

    def errors(x: Array) -> Array:
        moved = start.copy()
        turn = cv2.Rodrigues(x[:3])[0]
        moved[:, :3, 3] = np.exp(x[6]) * start[:, :3, 3] @ turn.T + x[3:6]
        moved[:, :3, :3] = turn @ start[:, :3, :3]
        relative = se3.inverse(T) @ moved
        phi = np.stack([cv2.Rodrigues(np.ascontiguousarray(r))[0][:, 0] for r in relative[:, :3, :3]])
        return np.concatenate([relative[:, :3, 3], phi], -1).ravel()

    return errors(least_squares(errors, np.zeros(7)).x).reshape(-1, 6)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| capture | posed | ours mm (p95) | ours deg (p95) | alone posed | alone mm (p95) | alone deg (p95) "
        "| 68 % holds | CPU-s ours (per keyframe + cross-check) | CPU-s alone | mappers apart |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        check = r["stages_cpu_s"].get("mapping (global)", 0.0) if r.get("mapper") == "incremental" else 0.0
        cost = f"{r['cpu_s']:.0f} ({(r['cpu_s'] - check) / r['keyframes']:.2f} + {check / r['keyframes']:.2f}) | {r['alone_cpu_s']:.0f}"
        alone = numbers(r["alone"], r["frames"])
        if r["refusal"]:
            lines.append(f"| {r['capture']} | refused: {r['refusal']} | | | {alone} | | {cost} | |")
            continue
        apart = r["cross_check"]
        checked = f"{100 * apart['translation_share']:.2f} %, {apart['rotation_deg']:.3f} deg" if "rotation_deg" in apart else ""
        inside = f"{100 * r['coverage']['inside_68']:.0f} %"
        lines.append(f"| {r['capture']} | {numbers(r['ours'], r['frames'])} | {alone} | {inside} | {cost} | {checked} |")
    return "\n".join(lines) + "\n"


def numbers(errors: dict[str, float], frames: int) -> str:
    """Three cells: posed, millimetres, degrees."""
    if "median_mm" not in errors:
        return f"{errors['posed']:.0f}/{frames} | |"
    shift = f"{errors['median_mm']:.2f} ({errors['p95_mm']:.2f})"
    return f"{errors['posed']:.0f}/{frames} | {shift} | {errors['median_deg']:.3f} ({errors['p95_deg']:.3f})"


if __name__ == "__main__":
    main()
