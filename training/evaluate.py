"""The evaluator: estimates against the truth, as report.json and one HTML page.

python -m training.evaluate out/estimates.npz out/cross --split test --out out/evaluation    # estimates at hand
dataengine evaluate out/pose out/cross --split test                                          # a trained pipeline
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import DataEngineError, StoreError
from dataengine.record import report as record
from dataengine.record.frame_table import KEYPOINT_VISIBLE
from training import metrics
from training.slices import axis_values, number, score_of, slice_table, values_of, video_numbers
from training.truth import SYNTHETIC, Estimates, Truth, load_estimates, matched, truth_of_dataset

if TYPE_CHECKING:
    from dataengine.view.evaluation import Picture

Array = NDArray[np.float64]
WORST = 24
LEVELS = (0.5, 0.9)
"""Probabilities of the regions whose coverage is measured; 0.9 is the one that the benchmark asks for."""


@dataclass(frozen=True)
class Evaluation:
    """The report and what its page draws beyond it."""

    report: record.Report
    truth: Truth
    estimates: Estimates
    errors_m: Array
    bound_add_m: Array | None
    """(F, S) draws of the ADD of an estimator on the Cramér–Rao bound."""


def evaluate(truth: Truth, estimates: Estimates, bound_add_m: ArrayLike | None = None, speed: record.Speed | None = None) -> Evaluation:
    """Judge estimates. `bound_add_m` (F, S): draws of the ADD of an efficient estimator, `training.crlb.Bound.draw_add_m`.

    Raises StoreError when there is nothing to judge or the frames differ, RobotError for other keypoints or joints.
    """
    if not len(truth):
        raise StoreError(f"{truth.location or 'the truth'}: no frames to judge; choose a split that has some")
    estimates = matched(estimates, truth)
    errors_m = metrics.add_m(estimates.keypoints_m, truth.keypoints_m)
    bound = None if bound_add_m is None else np.asarray(bound_add_m, np.float64)
    report = record.Report(
        version=record.VERSION,
        subject=record.Subject(estimates.name, estimates.source, estimates.digest, dict(estimates.settings)),
        data=_data(truth),
        environment=environment(),
        overall=score_of(errors_m, video_numbers(truth)),
        protocols=protocol_scores(truth, estimates),
        slices=slice_table(truth, errors_m),
        joints=joint_scores(truth, estimates),
        pose=pose_score(truth, estimates),
        efficiency=None if bound is None else efficiency(errors_m, bound),
        calibration=calibration(truth, estimates),
        speed=speed,
        worst=worst_cases(truth, errors_m),
    )
    return Evaluation(report, truth, estimates, errors_m, bound)


def protocol_scores(truth: Truth, estimates: Estimates) -> tuple[record.ProtocolScore, ...]:
    """The published protocols, all of them."""
    points = metrics.Points(
        truth.keypoints_m, truth.keypoints_px, estimates.keypoints_m, estimates.detected_px, truth.size[:, 0], truth.size[:, 1]
    )
    scores = (metrics.published(points, p) for p in metrics.PROTOCOLS)
    return tuple(
        record.ProtocolScore(
            s.protocol, number(s.add_auc), s.add_maximum_m, number(s.pck_auc), s.pck_maximum_px, s.denominator, s.found, s.note
        )
        for s in scores
    )


def joint_scores(truth: Truth, estimates: Estimates) -> tuple[record.JointScore, ...]:
    """Errors of the joints that were estimated, in the robot's order."""
    if estimates.joints is None:
        return ()
    columns = [truth.joint_names.index(n) for n in estimates.joint_names]
    errors = metrics.joint_errors(estimates.joints, truth.joints[:, columns], estimates.joint_names, truth.sliding)
    out = []
    for name, error in errors.items():
        found = error[np.isfinite(error)]
        if not found.size:  # fingers, say, which no keypoint tells of
            continue
        values = (np.median(found), found.mean(), np.quantile(found, 0.95))
        out.append(record.JointScore(name, "m" if name in truth.sliding else "rad", *(number(float(v)) for v in values)))
    return tuple(out)


def pose_score(truth: Truth, estimates: Estimates) -> record.PoseScore | None:
    """Error of the base's pose over the frames with an estimate."""
    if estimates.T_cam_base is None:
        return None
    found = np.isfinite(estimates.T_cam_base).all((1, 2))
    a, b = estimates.T_cam_base[found], truth.T_cam_base[found]
    shift = metrics.distances(a[:, :3, 3], b[:, :3, 3])
    turn = metrics.rotation_error_rad(a[:, :3, :3], b[:, :3, :3])
    return record.PoseScore(number(metrics.median(shift)), number(metrics.median(turn)))


def efficiency(errors_m: Array, bound_add_m: Array) -> record.Efficiency:
    """ADD² (F,) over its expectation by the bound's draws (F, S), frame by frame."""
    counted = np.isfinite(errors_m) & np.isfinite(bound_add_m).all(1)
    if not counted.any():
        return record.Efficiency(0, None, None, None, None, None)
    drawn = bound_add_m[counted]
    expected = (drawn**2).mean(1)
    ratio = errors_m[counted] ** 2 / expected
    of_bound = np.median(drawn**2 / expected[:, None])
    auc = metrics.area(drawn, drawn.size, 0.1, metrics.ADD_STEP_M)
    values = (np.median(ratio), ratio.mean(), of_bound, np.median(drawn), auc)
    return record.Efficiency(int(counted.sum()), *(number(float(v)) for v in values))


def calibration(truth: Truth, estimates: Estimates) -> tuple[record.Calibration, ...]:
    """Coverage of the stated keypoint covariances."""
    if estimates.covariance_m2 is None:
        return ()
    error = estimates.keypoints_m - truth.keypoints_m
    out = []
    for level in LEVELS:
        covered, count = metrics.coverage(error, estimates.covariance_m2, level)
        out.append(record.Calibration("keypoints_cam_m", level, number(covered), count))
    return tuple(out)


def worst_cases(truth: Truth, errors_m: Array, count: int = WORST) -> tuple[record.WorstCase, ...]:
    """Frames with the largest error, failures first; at most two of a video, as neighbours fail alike."""
    order = np.argsort(-np.where(np.isnan(errors_m), np.inf, errors_m), kind="stable")
    values, videos = axis_values(truth), video_numbers(truth)
    taken: dict[int, int] = {}
    out: list[record.WorstCase] = []
    for row in order.tolist():
        if len(out) == count:
            break
        video = int(videos[row])
        taken[video] = taken.get(video, 0) + 1
        if taken[video] <= 2:
            dataset, number_, frame = truth.ids[row].tolist()
            out.append(record.WorstCase(dataset, number_, frame, number(float(errors_m[row])), values_of(values, row)))
    return tuple(out)


def environment() -> record.Environment:
    """This revision, machine and these versions."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    threads = os.cpu_count() or 1
    try:
        import torch
    except ImportError:  # reports of stored predictions need no torch
        pass
    else:
        versions["torch"] = torch.__version__
        threads = torch.get_num_threads()
    return record.Environment(commit(), machine(), threads, versions)


def commit() -> str:
    """Short revision of this code, + when it has been changed; empty outside a checkout."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    head = git("rev-parse", "--short", "HEAD")
    return head + ("+" if head and git("status", "--porcelain", "--untracked-files=no", "--", "training", "dataengine") else "")


def machine() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _data(truth: Truth) -> record.Data:
    return record.Data(
        location=truth.location,
        identity=truth.identity,
        split=truth.split,
        robot=truth.robot,
        keypoint_set=truth.keypoint_set,
        keypoints=truth.keypoint_names,
        frames=len(truth),
        videos=int(video_numbers(truth).max()) + 1,
        skipped=dict(truth.skipped),
    )


# ---- output ----------------------------------------------------------------------------------------------------------------


def write(evaluation: Evaluation, folder: str | Path, command: str = "") -> tuple[Path, Path]:
    """report.json and report.html in a folder; returns both paths. The page shows the dataset's photos where it has any."""
    from dataengine.view.evaluation import Curve, write_evaluation

    folder = Path(folder)
    curves = [Curve(evaluation.report.subject.name, evaluation.errors_m)]
    if evaluation.bound_add_m is not None:
        curves.append(Curve("Cramér–Rao bound", evaluation.bound_add_m.ravel(), "bound"))
    page = write_evaluation(folder / "report.html", evaluation.report, curves, pictures(evaluation), command)
    return record.write(evaluation.report, folder / "report.json"), page


def pictures(evaluation: Evaluation) -> list[Picture]:
    """The worst frames for the page's gallery."""
    from dataengine.view.evaluation import Picture

    truth = evaluation.truth
    rows = {tuple(i): row for row, i in enumerate(truth.ids.tolist())}
    out = []
    for case in evaluation.report.worst:
        row = rows[(case.dataset, case.video, case.frame)]
        width, height = truth.size[row].tolist()
        guess = projected(evaluation.estimates.keypoints_m[row], truth.K[row])
        seen = truth.state[row] == KEYPOINT_VISIBLE
        out.append(Picture(_photo(truth, case), width, height, truth.keypoints_px[row], guess, seen, truth.edges))
    return out


def projected(points_m: Array, K: Array) -> Array:
    """(N, 3), (3, 3) → (N, 2) px; NaN behind the camera."""
    z = np.where(points_m[:, 2:] > 0, points_m[:, 2:], np.nan)
    return (points_m @ K.T)[:, :2] / z


def _photo(truth: Truth, case: record.WorstCase) -> str:
    """Data URI of a frame's photo; "" for scenes without one."""
    from dataengine.store.catalogue import open_catalogue
    from dataengine.view.pixels import webp_uri

    locations = truth.location.split(", ")
    if not truth.identity or truth.location == SYNTHETIC or case.dataset >= len(locations):
        return ""
    catalogue = open_catalogue(locations[case.dataset], truth.split or None)
    unit = next(i for i, u in enumerate(catalogue.units) if u["video"] == case.video)
    with catalogue.open(unit) as reader:
        return webp_uri(reader.read("rgb", case.frame), 80) if "rgb" in reader.modalities else ""


# ---- predictors ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """Seconds per frame of each call: wall and CPU of the process, and the wall time of reading the image."""

    wall_s: Array
    cpu_s: Array
    decode_s: Array

    def speed(self, warm_up: int = 3) -> record.Speed | None:
        """Frames per second after the first few, which build caches. None when nothing is left."""
        wall, cpu, decode = (v[warm_up:] for v in (self.wall_s, self.cpu_s, self.decode_s))
        if not wall.size:
            return None
        return record.Speed(wall.size, 1 / float((wall + decode).mean()), 1 / float(wall.mean()), float(cpu.mean()) * 1e3)


# ---- command line ------------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m training.evaluate", description="Judge stored estimates of a dataset; needs no torch.")
    p.add_argument("estimates", type=Path, help=".npz of training.truth.save_estimates")
    p.add_argument("dataset", help="folder of the dataset")
    p.add_argument("--split", help="default: all of it")
    p.add_argument("--limit", type=int, help="so many frames, evenly spread, as when they were estimated")
    p.add_argument("--out", type=Path, default=Path("out/evaluation"), help="folder for report.json and report.html")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 for bad input with one line that says what."""
    given = parser().parse_args(arguments)
    try:
        estimates = load_estimates(given.estimates)
        truth = truth_of_dataset(given.dataset, given.split, estimates.keypoint_names, limit=given.limit)
        command = "python -m training.evaluate " + shlex.join(arguments if arguments is not None else sys.argv[1:])
        report_path, page_path = write(evaluate(truth, estimates), given.out, command)
    except DataEngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{report_path} {page_path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
