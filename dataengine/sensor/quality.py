"""How good a measured disparity map is: noise, bias, fill, sub-pixel locking, width of occlusion shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import SensorError

OUTLIER_PX = 1.0
"""Errors beyond this many native pixels are wrong matches, not noise; they are counted apart."""
BINS = 16


@dataclass(frozen=True, eq=False)
class DisparityStatistics:
    """Errors measured − true in native px.

    rms_px, bias_px: root mean square and mean of the errors within ±1 px. mad_px: 1.4826 × median absolute deviation of
    all errors. outliers: share of the measurements beyond ±1 px. fill: share of the asked pixels that were measured.
    fraction_histogram (16,): of the measured fractional disparities, mean 1; divide by that of the true ones to see locking.
    """

    rms_px: float
    bias_px: float
    mad_px: float
    outliers: float
    fill: float
    fraction_histogram: NDArray[np.float64]
    pixels: int


def disparity_statistics(measured_px: NDArray, true_px: NDArray, mask: NDArray[np.bool_] | None = None) -> DisparityStatistics:
    """Compare disparities (H, W) in native px over ``mask`` (default: wherever the true one is finite).

    Where nothing was measured, fill is 0 and the errors are NaN.
    """
    if measured_px.shape != true_px.shape or (mask is not None and mask.shape != true_px.shape):
        raise SensorError(f"disparity maps differ in shape: measured {measured_px.shape}, true {true_px.shape}")
    asked = np.isfinite(true_px) if mask is None else mask & np.isfinite(true_px)
    if not asked.any():
        raise SensorError("no pixel to score: the mask leaves no pixel with a true disparity")
    valid = asked & np.isfinite(measured_px)
    measured, true = measured_px[valid].astype(np.float64), true_px[valid].astype(np.float64)
    error = measured - true
    close = error[np.abs(error) <= OUTLIER_PX]
    return DisparityStatistics(
        rms_px=float(np.sqrt(np.mean(close**2))) if close.size else float("nan"),
        bias_px=float(close.mean()) if close.size else float("nan"),
        mad_px=float(1.4826 * np.median(np.abs(error - np.median(error)))) if error.size else float("nan"),
        outliers=1 - close.size / max(error.size, 1),
        fill=float(valid.sum() / asked.sum()),
        fraction_histogram=fraction_histogram(measured),
        pixels=int(asked.sum()),
    )


def fraction_histogram(disparity_px: NDArray, bins: int = BINS) -> NDArray[np.float64]:
    """Histogram (bins,) of the fractional parts, mean 1. Bins are centred on 0, 1/bins, … so that steps fall evenly."""
    values = np.asarray(disparity_px)[np.isfinite(disparity_px)]
    index = np.floor(np.mod(values, 1.0) * bins + 0.5).astype(np.intp) % bins
    return np.bincount(index, minlength=bins) * bins / max(len(index), 1)


def expected_shadow_px(focal_px: float, baseline_m: float, near_m: float, far_m: float) -> float:
    """Width f·b·(1/z₁ − 1/z₂) of the strip that only one eye sees beside an edge at z₁ in front of a wall at z₂."""
    return focal_px * baseline_m * (1 / near_m - 1 / far_m)


def shadow_width_px(measured_px: NDArray, edge_column_px: float, rows: slice, max_width_px: int = 200) -> float:
    """Median width (output px) over rows of the hole to the left of a vertical edge at ``edge_column_px``.

    Counted leftwards from the edge to the first run of three measured pixels; measured pixels inside the hole count as hole.
    """
    valid = np.isfinite(measured_px[rows])
    edge = round(edge_column_px)
    if not 3 <= edge <= valid.shape[1]:
        raise SensorError(f"edge column {edge_column_px} lies outside the image of width {valid.shape[1]}")
    left = valid[:, max(edge - max_width_px, 0) : edge][:, ::-1]
    run = left[:, :-2] & left[:, 1:-1] & left[:, 2:]
    widths = np.where(run.any(axis=1), run.argmax(axis=1), left.shape[1])
    return float(np.median(widths))
