"""Parts of the data by what they show: an axis is a number per frame, a slice an interval of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE
from dataengine.record.report import AXES, JOINT_AXIS, Score, Slice
from training.metrics import summarise
from training.truth import Truth

Array = NDArray[np.float64]
FEW = 6
"""Up to so many different values (cameras, say) get a slice each."""
PARTS = 4
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Bounds for axes that are shares."""


def axis_values(truth: Truth) -> dict[str, Array]:
    """{axis: (F,)} for the axes of `record.report.AXES` and every joint position; NaN where undefined."""
    centre = truth.keypoints_m.mean(1)
    inside = truth.state != KEYPOINT_OUTSIDE
    rotation, translation = truth.T_cam_base[:, :3, :3], truth.T_cam_base[:, :3, 3]
    camera = -np.einsum("fji,fj->fi", rotation, translation)
    values = {
        "fov_deg": np.degrees(2 * np.arctan(truth.size[:, 0] / (2 * truth.K[:, 0, 0]))),
        "distance_m": np.linalg.norm(centre, axis=1),
        "hidden": (truth.state == KEYPOINT_OCCLUDED).sum(1) / np.maximum(inside.sum(1), 1),
        "outside": 1 - inside.mean(1),
        "elevation_deg": np.degrees(np.arctan2(camera[:, 2], np.linalg.norm(camera[:, :2], axis=1))),
    }
    return values | {JOINT_AXIS + name: truth.joints[:, j] for j, name in enumerate(truth.joint_names)}


def slice_table(truth: Truth, errors_m: Array) -> tuple[Slice, ...]:
    """Scores of every non-empty slice of every axis, axes in order, slices upwards."""
    units = {a.name: a.unit for a in AXES} | {JOINT_AXIS + n: "m" if n in truth.sliding else "rad" for n in truth.joint_names}
    videos = video_numbers(truth)
    return tuple(
        Slice(axis, units[axis], low, high, score_of(errors_m[rows], videos[rows]))
        for axis, values in axis_values(truth).items()
        for low, high, rows in intervals(values, units[axis])
    )


def intervals(values: Array, unit: str) -> Iterator[tuple[float, float, NDArray[np.int64]]]:
    """(low, high, rows) of the non-empty intervals [low, high) that fit an axis; the last includes its upper end."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return
    edges = _edges(finite, unit)
    for k, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        last = k == len(edges) - 2
        rows = np.flatnonzero((values >= low) & ((values <= high) if last else (values < high)))
        if rows.size:
            yield float(low), float(high), rows


def _edges(values: Array, unit: str) -> list[float]:
    """Bounds: fixed ones for shares, halfway between few different values, else equal steps rounded to what one can read."""
    if unit == "0–1":
        return list(SHARES)
    low, high = float(values.min()), float(values.max())
    span = high - low
    if span <= 1e-3 * max(abs(low), abs(high)):
        return [low, high]
    groups = np.unique(np.round((values - low) / span * 100)) / 100 * span + low
    if len(groups) <= FEW:
        digits, inner = 2, (groups[1:] + groups[:-1]) / 2
    else:
        digits = max(0, int(np.ceil(1 - np.log10(span / PARTS))))
        inner = np.linspace(low, high, PARTS + 1)[1:-1]
    scale = 10.0**digits
    return [float(np.floor(low * scale) / scale), *(inner.round(digits) + 0.0).tolist(), float(np.ceil(high * scale) / scale)]


def video_numbers(truth: Truth) -> NDArray[np.int64]:
    """(F,) number of each frame's video among all datasets."""
    _, number = np.unique(truth.ids[:, :2], axis=0, return_inverse=True)
    return number.ravel()


def score_of(errors_m: Array, videos: NDArray[np.int64]) -> Score:
    """Summary as the report has it: null for what is no number."""
    s = summarise(errors_m, videos)
    low, high = s.auc_ci95
    interval = (max(low, 0.0), min(high, 1.0)) if np.isfinite([low, high]).all() else None
    return Score(s.frames, s.failures, number(s.auc), interval, number(s.median_m), number(s.mean_m))


def number(value: float) -> float | None:
    """A finite float, else None."""
    return float(value) if np.isfinite(value) else None


def values_of(values: Mapping[str, Array], row: int) -> dict[str, float]:
    """One frame's finite values, rounded for reading."""
    return {name: round(float(v[row]), 4) for name, v in values.items() if np.isfinite(v[row])}
