"""The QA page of an annotation: one HTML file, opened from disk, that shows whether to believe the labels, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annotators import qa_pictures, qa_plots
from annotators.types import Capture, Click, Flag, Solution
from dataengine.record.video import Video
from dataengine.store import files
from dataengine.view import colour

Array = np.ndarray

SHOWN_FRAMES = 4
"""So many frames, evenly spread, are shown with residual maps."""
RESIDUAL_MM = 20.0
"""Depth residuals beyond this show full colour; measured surfaces farther than RESIDUAL_CUT_M from the robot are something else."""
RESIDUAL_CUT_M = 0.05
UNCERTAIN_MM = 10.0


@dataclass(frozen=True, eq=False)
class Checks:
    """Per frame of the capture (N,), nan where there is nothing to measure: IoU with the given mask, median absolute depth residual and
    bias on the robot in mm, keypoint standard deviation in mm."""

    iou: Array
    depth_mm: Array
    bias_mm: Array
    sigma_mm: Array


def measure(capture: Capture, solution: Solution, video: Video, progress: Callable[[int], None] | None = None) -> Checks:
    """Compare the labels with what was given: masks and depth."""
    n = len(capture.frames)
    iou, depth_mm, bias_mm = (np.full(n, np.nan) for _ in range(3))
    index = {name: f for f, name in enumerate(video.scene["files"])}
    for i, name in enumerate(capture.frames):
        f = index.get(name)
        if f is not None:
            posed = posed_mask(video, f)
            if capture.mask is not None:
                given = capture.mask(i)
                iou[i] = (posed & given).sum() / max((posed | given).sum(), 1)
            residual = depth_residual_m(video, f, solution.depth_scale)
            if residual is not None and np.isfinite(residual).any():
                depth_mm[i] = 1e3 * np.nanmedian(np.abs(residual))
                bias_mm[i] = 1e3 * np.nanmedian(residual)
        if progress is not None:
            progress(i)
    trace = np.trace(solution.keypoint_covariance, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        sigma = 1e3 * np.sqrt(np.median(trace, axis=-1) / 3)
    return Checks(iou, depth_mm, bias_mm, np.where(np.isfinite(sigma), sigma, np.nan))


def depth_residual_m(video: Video, f: int, depth_scale: float) -> Array | None:
    """Measured less posed depth (H,W) on the visible robot, the sensor's scale taken out; nan elsewhere. None without depth."""
    if "depth_sim" not in video.images:
        return None
    measured, posed = video.images["depth_sim"][f].astype(float) / depth_scale, video.images["depth_z"][f].astype(float)
    difference = measured - posed
    good = (video.images["mask_link"][f] > 0) & (measured > 0) & (posed > 0) & (np.abs(difference) < RESIDUAL_CUT_M)
    return np.where(good, difference, np.nan)


def write_page(
    path: Path, capture: Capture, solution: Solution, clicks: Sequence[Click], flags: Sequence[Flag], spreads: dict[str, Any],
    video: Video, progress: Callable[[int], None] | None = None,
) -> Path:  # fmt: skip
    """Write the page. `flags` are those of the capture itself; the solution brings its own. `spreads`: see `spread_rows`."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    checks = measure(capture, solution, video, progress)
    loader = ChoiceLoader([PackageLoader("annotators"), PackageLoader("dataengine.view")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    bad = ~np.asarray(solution.accepted, bool)
    text = environment.get_template("qa.html.j2").render(
        capture=capture,
        solution=solution,
        flags=[*flags, *solution.flags],
        accepted=int(np.sum(solution.accepted)),
        sigma_mm=_median(checks.sigma_mm[~bad]),
        iou=_median(checks.iou),
        depth_mm=_median(checks.depth_mm),
        movie=qa_pictures.movie_uri(video) if video.frame_count else "",
        pictures=pictures(capture, solution, video),
        plots=plots(checks, bad),
        trajectory=qa_plots.trajectory_svg(*_way(solution), bad) if video.frame_count else "",
        scales=qa_plots.scales_svg(solution.scales, solution.metres_per_unit) if solution.scales else "",
        spreads=spread_rows(spreads),
        clicks=click_rows(clicks, solution),
        frames=frame_rows(capture, solution, checks),
    )
    with files.reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return path


def plots(checks: Checks, bad: Array) -> list[tuple[str, Any]]:
    """(title, SVG) of each measure that this capture has."""
    found = [
        ("Keypoint standard deviation, mm", checks.sigma_mm, "mm", UNCERTAIN_MM),
        ("Overlap with the given mask, IoU", checks.iou, "IoU", None),
        ("Depth residual on the robot, median |mm|", checks.depth_mm, "mm", None),
    ]
    return [(title, qa_plots.series_svg(v, bad, unit, limit)) for title, v, unit, limit in found if np.isfinite(v).any()]


def pictures(capture: Capture, solution: Solution, video: Video) -> list[dict[str, str]]:
    """Photograph with outline, depth residual and mask difference of a few frames, as data URIs."""
    rows = []
    number = {name: i for i, name in enumerate(capture.frames)}
    for f in sorted({int(k) for k in np.linspace(0, video.frame_count - 1, SHOWN_FRAMES).round()} if video.frame_count else ()):
        i = number[video.scene["files"][f]]
        row = {"name": f"frame {i}", "overlay": qa_pictures.jpeg_uri(qa_pictures.overlay(video, f))}
        residual = depth_residual_m(video, f, solution.depth_scale)
        if residual is not None:
            posed = video.images["depth_z"][f]
            shown = colour.depth_error(np.where(np.isfinite(residual), posed + np.nan_to_num(residual), 0), posed, RESIDUAL_MM / 1e3)
            row["depth"] = qa_pictures.jpeg_uri(shown)
        if capture.mask is not None:
            row["mask"] = qa_pictures.jpeg_uri(qa_pictures.mask_difference(posed_mask(video, f), capture.mask(i), video.images["rgb"][f]))
        rows.append(row)
    return rows


def posed_mask(video: Video, f: int) -> Array:
    """(H,W) bool: the posed robot's silhouette, whatever stands before it."""
    return video.images["amodal_robot"][f] > 0


def spread_rows(spreads: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of {"odd_even": {base_mm, base_deg, keypoints_mm}, "leave_one_out": {…}}; what is missing shows a dash."""
    titles = {"odd_even": "odd against even clicked frames", "leave_one_out": "one click left out (from clicks alone), largest change"}
    columns = ("base_mm", "base_deg", "keypoints_mm")
    return [{"name": titles.get(k, k), **{c: v.get(c) for c in columns}} for k, v in spreads.items() if isinstance(v, dict) and v]


def click_rows(clicks: Sequence[Click], solution: Solution) -> list[dict[str, Any]]:
    """Per landmark: how often it was clicked, median residual in px, how many of its clicks disagree with all others."""
    residual = np.linalg.norm(solution.click_residual_px, axis=1)
    rows = []
    for name in dict.fromkeys(c.landmark for c in clicks):
        mine = np.array([c.landmark == name for c in clicks])
        wrong = [clicks[k].frame for k in np.flatnonzero(mine & ~solution.click_inlier)]
        rows.append({"name": name, "count": int(mine.sum()), "median_px": float(np.median(residual[mine])), "wrong": wrong})
    return sorted(rows, key=lambda r: -r["median_px"])


def frame_rows(capture: Capture, solution: Solution, checks: Checks) -> list[dict[str, Any]]:
    """One row per frame: name, verdict, numbers."""
    return [
        {
            "number": i, "name": name, "accepted": bool(solution.accepted[i]), "reason": solution.reasons[i],
            "sigma_mm": checks.sigma_mm[i], "iou": checks.iou[i], "depth_mm": checks.depth_mm[i], "bias_mm": checks.bias_mm[i],
        }
        for i, name in enumerate(capture.frames)
    ]  # fmt: skip


def _way(solution: Solution) -> tuple[Array, Array]:
    eyes = solution.T_world_cam[:, :3, 3]
    bases = solution.T_world_base[:, :3, 3]
    return eyes, np.nanmedian(bases, axis=0)


def _median(values: Array) -> float | None:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else None
