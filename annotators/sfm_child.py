"""The process that runs COLMAP for `annotators.sfm`: `python -m annotators.sfm_child FOLDER`.

Stages leave their result in the folder (database, models, track) and are skipped when they are there. Every stage gives the same result
whether it ran through or was killed and started again: pictures are registered in order before anything else, all random numbers are
seeded per call, everything runs on one thread. Progress goes to standard output, one JSON object a line; CPU seconds per stage, over
all runs, to `cost.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import se3

from . import sfm_checks, sfm_colmap, sfm_covariance, sfm_pairs
from .sfm_colmap import Features, Model

_BLOCK_VIEWS = 8
_BLOCK_PAIRS = 40
_PNP_KEYFRAMES = 4
Report = Callable[[str, float], None]


class Job:
    """One request: where things lie, and what was asked."""

    def __init__(self, folder: Path, report: Report) -> None:
        request: dict[str, Any] = json.loads((folder / "request.json").read_text())
        self.folder, self.report = folder, report
        self.database, self.images, self.masks = folder / "database.db", folder / "images", folder / "masks"
        self.names: list[str] = request["names"]
        self.keyframes: list[int] = request["keyframes"]
        self.K = np.asarray(request["K"], float)
        self.distortion = None if request["distortion"] is None else np.asarray(request["distortion"], float)
        self.mapper: str = request["mapper"]
        self.seed: int = request["seed"]
        self.track = folder / request["track"]

    def key_names(self) -> list[str]:
        return [self.names[k] for k in self.keyframes]


def main() -> int:
    """Entry point of the child; the exit code is 0 also for a refused capture."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sfm_colmap.quiet()

    cost, spent = folder / "cost.json", [0.0]

    def report(stage: str, share: float) -> None:
        sys.stdout.write(json.dumps({"stage": stage, "share": share}) + "\n")
        sys.stdout.flush()
        so_far = json.loads(cost.read_text()) if cost.is_file() else {}
        so_far[stage] = so_far.get(stage, 0.0) + time.process_time() - spent[0]
        spent[0] = time.process_time()
        part = cost.with_suffix(".part")
        part.write_text(json.dumps(so_far))
        part.replace(cost)

    solve(Job(folder, report))
    return 0


def solve(job: Job) -> None:
    """All stages in order; leaves `track.npz` behind, with a refusal or with poses."""
    register(job)
    extract(job, job.keyframes, "features")
    match_keyframes(job)
    features = Features(job.database, job.names)
    try:
        refusal, parallax = check_matches(job, features)
        if refusal:
            return save(job, {"refusal": refusal})
        models = {name: run_mapper(job, name) for name in (("incremental", "global") if job.mapper == "auto" else (job.mapper,))}
        name, model = choose(models)
        refusal = None
        if model is None:
            refusal = sfm_checks.refuse_model(0, len(job.keyframes), np.empty(0), parallax)
        else:
            angles = sfm_checks.triangulation_angles_deg(model.T_world_cam, model.points, model.obs_point, model.obs_pose)
            refusal = sfm_checks.refuse_model(len(model.views), len(job.keyframes), angles, parallax)
        if refusal or model is None:
            wrong = focal_doubt(job, features, model, measured(features, model)) if model is not None else {}
            return save(job, {"refusal": refusal or "", "mapper": name, "doubts": json.dumps(wrong)})
        pose_rest_and_save(job, features, name, model, cross_check(models, name))
    finally:
        features.close()


def register(job: Job) -> None:
    """Give every picture its number in the database; an unfinished database is begun anew."""
    if (job.folder / "registered").is_file():
        return
    for path in job.folder.glob("database.db*"):
        path.unlink()
    sfm_colmap.import_views(job.database, job.images, job.names, sfm_colmap.camera_parameters(job.K, job.distortion))
    (job.folder / "registered").touch()


def extract(job: Job, views: Sequence[int], stage: str) -> None:
    """Features of the views, block by block."""
    names = [job.names[k] for k in views]
    for at in range(0, len(names), _BLOCK_VIEWS):
        sfm_colmap.extract(job.database, job.images, job.masks, names[at : at + _BLOCK_VIEWS])
        job.report(stage, min(1.0, (at + _BLOCK_VIEWS) / len(names)))


def match(job: Job, pairs: Sequence[tuple[int, int]], stage: str) -> None:
    """Verified matches of pairs of views, block by block."""
    for at in range(0, len(pairs), _BLOCK_PAIRS):
        block = [(job.names[i], job.names[j]) for i, j in pairs[at : at + _BLOCK_PAIRS]]
        sfm_colmap.match(job.database, block, job.folder / "pairs.txt", job.seed)
        job.report(stage, min(1.0, (at + _BLOCK_PAIRS) / len(pairs)))


def match_keyframes(job: Job) -> None:
    """Neighbours in time and loop closures among the keyframes."""
    features = Features(job.database, job.names)
    signatures = sfm_pairs.vlad([features.descriptors(k) for k in job.keyframes], np.random.default_rng(job.seed))
    features.close()
    pairs = sorted({*sfm_pairs.sequential_pairs(len(job.keyframes)), *sfm_pairs.loop_pairs(signatures)})
    match(job, [(job.keyframes[i], job.keyframes[j]) for i, j in pairs], "matches")


def check_matches(job: Job, features: Features) -> tuple[str | None, float]:
    """Refusal for want of texture or parallax, and the largest parallax of a pair, px."""
    key = job.keyframes
    counts = np.array([len(features.keypoints(k)) for k in key])
    linked = np.array([len(features.matches(a, b)) for a, b in zip(key, key[1:], strict=False)])
    refusal = sfm_checks.refuse_features(counts, linked)
    if refusal:
        return refusal, 0.0
    parallax, turned = [], 0.0
    for i, j in sfm_pairs.sequential_pairs(len(key)):
        found = features.matches(key[i], key[j])
        if len(found) >= sfm_checks.MIN_MATCHES:
            a = features.rays(features.keypoints(key[i])[found[:, 0]])
            b = features.rays(features.keypoints(key[j])[found[:, 1]])
            parallax.append(sfm_checks.rotation_residual_px(a, b, float(job.K[0, 0])))
            turned = max(turned, float(np.degrees(np.median(np.arctan(np.linalg.norm((a - b)[:, :2], axis=1))))))
    return sfm_checks.refuse_parallax(np.asarray(parallax), turned), max(parallax, default=0.0)


def run_mapper(job: Job, name: str) -> Model | None:
    """The largest model of one mapper over the keyframes, polished; None when it finds none. Kept in `models/NAME`."""
    import pycolmap

    done, part = job.folder / "models" / name, job.folder / "models" / f"{name}.part"
    if not done.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        count = [0]

        def step() -> None:
            count[0] += 1
            job.report(f"mapping ({name})", min(1.0, count[0] / len(job.keyframes)))

        (part / "runs").mkdir()
        run = sfm_colmap.run_incremental if name == "incremental" else sfm_colmap.run_global
        best = sfm_colmap.largest(run(job.database, job.images, part / "runs", job.key_names(), job.seed, step))
        if best is not None:
            sfm_colmap.polish(best)
            (part / "best").mkdir()
            best.write(part / "best")
        job.report(f"mapping ({name})", 1.0)
        shutil.rmtree(part / "runs")
        part.replace(done)
    return sfm_colmap.read_model(pycolmap.Reconstruction(done / "best"), job.names) if (done / "best").is_dir() else None


def choose(models: dict[str, Model | None]) -> tuple[str, Model | None]:
    """The model that poses most keyframes; on a near tie (one keyframe in twenty) the incremental one, which outliers disturb less."""
    sizes = {name: 0 if model is None else len(model.views) for name, model in models.items()}
    most = max(sizes.values())
    name = next(name for name in models if sizes[name] >= 0.95 * most)
    return name, models[name]


def cross_check(models: dict[str, Model | None], chosen: str) -> dict[str, float]:
    """Disagreement of the chosen model with the other one over the keyframes both pose; empty when only one mapper ran."""
    others = [model for name, model in models.items() if name != chosen]
    model = models[chosen]
    if not others or model is None:
        return {}
    if others[0] is None:
        return {"posed_share": 0.0}
    both = np.intersect1d(model.views, others[0].views)
    first = model.T_world_cam[np.searchsorted(model.views, both)]
    second = others[0].T_world_cam[np.searchsorted(others[0].views, both)]
    return {**sfm_checks.disagreement(first, second), "posed_share": len(both) / len(model.views)}


def pose_rest_and_save(job: Job, features: Features, name: str, model: Model, cross: dict[str, float]) -> None:
    """Covariances of the keyframes, absolute poses of the other views, all into the track file."""
    seen = measured(features, model)
    uv, sigma = seen.uv_px, seen.sigma_px
    cross = {**cross, "noise_px": seen.noise_px, "shared_errors": seen.shared}
    total, structure = sfm_covariance.bundle_covariance(job.K, model.T_world_cam, model.points, model.obs_point, model.obs_pose, sigma)
    rows = [(int(v), model.T_world_cam[k], total[k]) for k, v in enumerate(model.views)]
    observed = [np.column_stack([model.obs_point, model.views[model.obs_pose]])]
    pixels = [uv]
    job.report("covariance", 1.0)
    for view, T, covariance, own, points in rest_poses(job, features, model, structure, sigma):
        rows.append((view, T, covariance))
        observed.append(np.column_stack([points, np.full(len(points), view)]))
        pixels.append(features.keypoints(view)[own])
    save(
        job,
        {
            "refusal": "",
            "mapper": name,
            "views": np.array([row[0] for row in rows]),
            "T_world_cam": np.stack([row[1] for row in rows]),
            "covariance": np.stack([row[2] for row in rows]),
            "points": model.points,
            "obs": np.concatenate(observed),
            "obs_uv_px": np.concatenate(pixels) - sfm_colmap.PIXEL_CENTRE_PX,
            "mean_reprojection_px": float(np.linalg.norm(seen.residual_px, axis=1).mean()),
            "cross_check": json.dumps(cross),
            "doubts": json.dumps({**texture_doubt(np.concatenate(observed)), **focal_doubt(job, features, model, seen)}),
        },
    )


@dataclass(frozen=True)
class Measured:
    """The keyframes' observations: pixels (O, 2), residuals (O, 2), noise of one coordinate, the factor by which shared errors raise
    variances."""

    uv_px: NDArray[np.float64]
    residual_px: NDArray[np.float64]
    noise_px: float
    shared: float

    @property
    def sigma_px(self) -> float:
        """Noise that, taken as independent, gives honest variances."""
        return self.noise_px * float(np.sqrt(self.shared))


def measured(features: Features, model: Model) -> Measured:
    """What the model's keyframes saw, and how well it fits."""
    uv = np.empty((len(model.obs_pose), 2))
    for pose, view in enumerate(model.views):
        here = model.obs_pose == pose
        uv[here] = features.keypoints(int(view))[model.obs_keypoint[here]]
    predicted, _, _ = sfm_covariance.jacobians(np.eye(3), model.T_world_cam[model.obs_pose], model.points[model.obs_point])
    residual = np.asarray(features.camera.img_from_cam(np.concatenate([predicted, np.ones((len(uv), 1))], -1)), float) - uv
    noise = sfm_covariance.residual_sigma_px(residual, 6 * len(model.views) + 3 * len(model.points))
    lasting = sfm_covariance.correlation_in_tracks(residual, model.obs_point, model.obs_pose)
    shared = sfm_covariance.correlation_in_pictures(residual, model.obs_pose, uv, 0.08 * float(uv[:, 0].max()))
    return Measured(uv, residual, float(noise), float(lasting * shared))


def texture_doubt(observed: NDArray[np.int64]) -> dict[str, str]:
    """`texture` and the reason, where few points carry the poses. `observed` (point, view) of all posed views."""
    told = sfm_checks.weak_texture(np.unique(observed[:, 1], return_counts=True)[1])
    return {} if told is None else {"texture": told}


def focal_doubt(job: Job, features: Features, model: Model, seen: Measured) -> dict[str, str]:
    """`intrinsics` and the reason, where the pictures ask for another focal length."""
    straight = features.rays(seen.uv_px)[:, :2] @ job.K[:2, :2].T + job.K[:2, 2]
    focal = sfm_covariance.focal_correction(
        job.K, model.T_world_cam, model.points, model.obs_point, model.obs_pose, straight, seen.sigma_px
    )
    told = sfm_checks.wrong_focal(*focal, float(job.K[0, 0]))
    return {} if told is None else {"intrinsics": told}


def rest_poses(job: Job, features: Features, model: Model, structure: NDArray[np.float64], sigma_px: float):
    """Yield (view, T_world_cam, covariance, feature numbers, point numbers) of every view that is no posed keyframe and can be posed.

    The covariance is that of the view's own measurements plus what the nearest keyframe inherits from uncertain points.
    """
    posed = [int(v) for v in model.views]
    rest = [v for v in range(len(job.names)) if v not in set(posed)]
    extract(job, [v for v in rest if v not in set(job.keyframes)], "features of the rest")
    near = {v: sfm_pairs.nearest_keyframes(v, posed, _PNP_KEYFRAMES) for v in rest}
    match(job, [(v, k) for v in rest for k in near[v]], "matches of the rest")
    point_at = {(int(model.views[p]), int(k)): int(x) for p, k, x in zip(model.obs_pose, model.obs_keypoint, model.obs_point, strict=True)}
    for number, view in enumerate(rest):
        found = sfm_colmap.absolute_pose(features, view, near[view], point_at, model.points, job.seed)
        job.report("poses of the rest", (number + 1) / len(rest))
        if found is None:
            continue
        T, own, points = found
        covariance = sfm_covariance.pose_covariance(job.K, T, model.points[points], sigma_px)
        inherited = carry(structure[posed.index(near[view][0])], model.T_world_cam[posed.index(near[view][0])], T)
        yield view, T, covariance + inherited, own, points


def carry(covariance: NDArray[np.float64], T_world_from: NDArray[np.float64], T_world_to: NDArray[np.float64]) -> NDArray[np.float64]:
    """A pose covariance (6, 6) of one camera expressed at another one that moves rigidly with it (adjoint of SE(3))."""
    relative = se3.inverse(T_world_to) @ T_world_from
    R, t = relative[:3, :3], relative[:3, 3]
    cross = np.array([[0.0, -t[2], t[1]], [t[2], 0.0, -t[0]], [-t[1], t[0], 0.0]])
    adjoint = np.block([[R, cross @ R], [np.zeros((3, 3)), R]])
    return adjoint @ covariance @ adjoint.T


def save(job: Job, values: dict[str, Any]) -> None:
    """Write the track file whole or not at all."""
    part = job.track.with_suffix(".part.npz")
    np.savez(part, **values)
    part.replace(job.track)
    job.report("done", 1.0)


def _leave_with_parent() -> None:
    """Standard input ends when the parent is gone, however it went: then nobody waits for us."""
    sys.stdin.read()
    os._exit(70)


if __name__ == "__main__":
    raise SystemExit(main())
