"""How far estimates are from the truth, and the three published ways to make one number of it. numpy only, 1.26 and 2.

Shapes: F frames, N keypoints, J joints. Lengths in m, angles in rad, pixels with centres at integers. An estimate that
holds a NaN is a failure: its ADD is NaN, and every score counts it as a miss unless it says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ADD_STEP_M = 1e-5
PCK_STEP_PX = 0.01
Z95 = 1.959963984540054
"""Half width of a normal's central 95 % in standard deviations."""


# ---- errors ----------------------------------------------------------------------------------------------------------


def distances(estimate: ArrayLike, truth: ArrayLike) -> Array:
    """Euclidean distances: (..., D) and (..., D) → (...); NaN where a coordinate is NaN or infinite."""
    difference = np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)
    difference = np.where(np.isfinite(difference), difference, np.nan)
    return np.sqrt((difference**2).sum(-1))


def add_m(estimate_m: ArrayLike, truth_m: ArrayLike, used: ArrayLike | None = None) -> Array:
    """Average distance per frame, (F, N, 3) → (F,): ADD of Hinterstoisser et al. 2012 over keypoints in the camera frame.

    `used` (F, N) restricts it to some keypoints, as DREAM does to the detected ones. NaN: a keypoint is NaN, or none is used.
    """
    each = distances(estimate_m, truth_m)
    weight = np.ones(each.shape, bool) if used is None else np.asarray(used, bool)
    count = weight.sum(1)
    total = np.where(weight, each, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def angle_difference_rad(a: ArrayLike, b: ArrayLike) -> Array:
    """|a - b| on the circle, 0 … π: two positions of a revolute joint a whole turn apart put the link in the same place."""
    return np.abs(np.remainder(np.asarray(a, np.float64) - np.asarray(b, np.float64) + np.pi, 2 * np.pi) - np.pi)


def rotation_error_rad(estimate: ArrayLike, truth: ArrayLike) -> Array:
    """Angle between rotation matrices (..., 3, 3), from the chord: exact near 0, where arccos of the trace is not."""
    chord = np.sqrt(((np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)) ** 2).sum((-2, -1)))
    return 2 * np.arcsin(np.clip(chord / math.sqrt(8), 0, 1))


# ---- area under the curve ----------------------------------------------------------------------------------------------


def trapezoid(values: ArrayLike, step: float) -> float:
    """Integral over equidistant values by the trapezoidal rule; numpy 2 renamed its own."""
    v = np.asarray(values, np.float64)
    return float((v.sum() - (v[0] + v[-1]) / 2) * step) if v.size > 1 else 0.0


def curve(errors: ArrayLike, denominator: float, maximum: float, step: float, strict: bool = False) -> tuple[Array, Array]:
    """Thresholds 0, step, … below `maximum` and the share of `errors` at or below each (`strict`: below); NaN never is."""
    thresholds = np.arange(0, maximum, step)
    e = np.asarray(errors, np.float64).ravel()
    counts = np.searchsorted(np.sort(e[~np.isnan(e)]), thresholds, side="left" if strict else "right")
    return thresholds, counts / denominator


def area(errors: ArrayLike, denominator: float, maximum: float, step: float, strict: bool = False) -> float:
    """Area under `curve` over `maximum`; NaN when there is nothing to count. A perfect estimator scores 1 - step / maximum
    (strict: half a step less), since the last threshold is `maximum` - step: so the published scripts have it."""
    if denominator <= 0:
        return math.nan
    return trapezoid(curve(errors, denominator, maximum, step, strict)[1], step) / maximum


def frame_scores(errors: ArrayLike, maximum: float = 0.1, step: float = ADD_STEP_M) -> Array:
    """(F,) each frame's own area, so that their mean is `area` of all: what confidence intervals need. 0 for a failure."""
    e = np.asarray(errors, np.float64)
    passed = len(np.arange(0, maximum, step)) - np.searchsorted(np.arange(0, maximum, step), np.where(np.isnan(e), np.inf, e), side="left")
    # The last threshold has half a weight, and so has the first, which only a perfect estimate passes.
    return np.where(passed > 0, passed - 0.5 - 0.5 * (e == 0), 0.0) * step / maximum


def mean_ci95(scores: ArrayLike, groups: ArrayLike | None = None) -> tuple[float, float]:
    """95 % interval of a mean: normal, clustered by `groups` (F,), as frames of one video are no independent samples.

    Variance: sum over groups of (sum of deviations)² · G / (G - 1) / F² (Cameron & Miller 2015, sec. II). One group: NaN.
    """
    s = np.asarray(scores, np.float64)
    _, member = np.unique(np.arange(s.size) if groups is None else np.asarray(groups), return_inverse=True)
    sums = np.bincount(member.ravel(), s - s.mean()) if s.size else np.zeros(0)
    if sums.size < 2:
        return math.nan, math.nan
    half = Z95 * math.sqrt((sums**2).sum() * sums.size / (sums.size - 1)) / s.size
    return float(s.mean() - half), float(s.mean() + half)


# ---- the published protocols -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """What a published script does with the ADD of every frame.

    `denominator`: "all" frames; frames that are "possible", with at least `least_keypoints` true keypoints strictly
    inside the image; only those "found". The ADD is over `detected` keypoints or over all.
    """

    name: str
    add_maximum_m: float
    pck_maximum_px: float
    denominator: Literal["all", "possible", "found"]
    detected_only: bool
    note: str
    least_keypoints: int = 4
    side_band_px: float = 0.0
    """Columns at the left and right that count as outside the image."""


_DROPPED = "as in the authors' repository: frames without a number leave the denominator, so giving up costs nothing"
_DREAM = "denominator: frames with 4 or more true keypoints in the image; found frames need not be among them, so it can exceed 1"
PROTOCOLS: tuple[Protocol, ...] = (
    Protocol("RoboKeyGen", 0.1, 20.0, "all", False, "every frame counts, a failure is a miss; ADD over all keypoints"),
    Protocol("RoboKeyGen, failures dropped", 0.1, 20.0, "found", False, _DROPPED),
    Protocol("DREAM", 0.1, 20.0, "possible", True, _DREAM + "; ADD over detected keypoints"),
    Protocol("SGTAPose", 0.06, 12.0, "possible", True, "as DREAM, but up to 6 cm and 12 px: not comparable with the others"),
)


@dataclass(frozen=True)
class PublishedScores:
    """One protocol's numbers. AUC 0–1 (DREAM's may exceed 1)."""

    protocol: str
    add_auc: float
    add_maximum_m: float
    pck_auc: float
    pck_maximum_px: float
    denominator: int
    found: int
    note: str


def inside(points_px: ArrayLike, width: ArrayLike, height: ArrayLike, side_band_px: float = 0.0, strict: bool = True) -> NDArray[np.bool_]:
    """Which points (F, N, 2) lie within 0 … width, 0 … height ((F,) or scalar), bounds excluded or not, as the scripts test it."""
    u, v = np.moveaxis(np.asarray(points_px, np.float64), -1, 0)
    w, h = (np.asarray(size, np.float64).reshape(-1, 1) for size in (width, height))
    left, right = side_band_px, w - side_band_px
    if strict:
        return (u > left) & (u < right) & (v > 0) & (v < h)
    return (u >= left) & (u <= right) & (v >= 0) & (v <= h)


@dataclass(frozen=True)
class Points:
    """True and estimated keypoints of F frames. `detected_px` (F, N, 2), NaN = not detected; None: nothing in 2D to judge."""

    truth_m: Array
    truth_px: Array
    estimate_m: Array
    detected_px: Array | None
    width: NDArray[np.int64]
    height: NDArray[np.int64]


def published(points: Points, protocol: Protocol) -> PublishedScores:
    """Scores as that protocol's script computes them."""
    detected = None if points.detected_px is None else np.isfinite(points.detected_px).all(-1)
    errors_m = add_m(points.estimate_m, points.truth_m, detected if protocol.detected_only else None)
    in_image = inside(points.truth_px, points.width, points.height, protocol.side_band_px)
    found = int(np.isfinite(errors_m).sum())
    denominator = {"all": len(errors_m), "found": found, "possible": int((in_image.sum(1) >= protocol.least_keypoints).sum())}[
        protocol.denominator
    ]
    return PublishedScores(
        protocol.name,
        area(errors_m, denominator, protocol.add_maximum_m, ADD_STEP_M),
        protocol.add_maximum_m,
        pck_auc(points, protocol),
        protocol.pck_maximum_px,
        denominator,
        found,
        protocol.note,
    )


def pck_auc(points: Points, protocol: Protocol) -> float:
    """Area under the share of true keypoints in the image (bounds included) that are found closer than t, t < maximum."""
    if points.detected_px is None:
        return math.nan
    counted = inside(points.truth_px, points.width, points.height, protocol.side_band_px, strict=False)
    errors_px = distances(points.detected_px, points.truth_px)[counted]
    return area(errors_px, errors_px.size, protocol.pck_maximum_px, PCK_STEP_PX, strict=True)


# ---- summaries -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """ADD of a set of frames. `median_m` counts failures as infinite; `mean_m` is of the frames found."""

    frames: int
    failures: int
    auc: float
    auc_ci95: tuple[float, float]
    median_m: float
    mean_m: float


def summarise(errors_m: ArrayLike, groups: ArrayLike | None = None) -> Summary:
    """AUC@0.1 m over all frames, its 95 % interval, median and mean; NaN where undefined, infinite median when most fail."""
    e = np.asarray(errors_m, np.float64)
    found = np.isfinite(e)
    return Summary(
        int(e.size),
        int((~found).sum()),
        area(e[found], e.size, 0.1, ADD_STEP_M),
        mean_ci95(frame_scores(np.where(found, e, np.nan)), groups),
        median(np.where(found, e, np.inf)),
        float(e[found].mean()) if found.any() else math.nan,
    )


def median(values: ArrayLike) -> float:
    """Median that may be infinite; NaN of nothing. (np.median of two infinities is NaN.)"""
    v = np.sort(np.asarray(values, np.float64).ravel())
    if not v.size:
        return math.nan
    low, high = v[(v.size - 1) // 2], v[v.size // 2]
    return float(low if low == high else (low + high) / 2)


def joint_errors(estimate: ArrayLike, truth: ArrayLike, names: tuple[str, ...], sliding: tuple[str, ...] = ()) -> Mapping[str, Array]:
    """{joint: (F,) absolute error}, rad on the circle, m for `sliding` joints. NaN for failures."""
    e, t = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    return {n: np.abs(e[:, j] - t[:, j]) if n in sliding else angle_difference_rad(e[:, j], t[:, j]) for j, n in enumerate(names)}


# ---- calibration ---------------------------------------------------------------------------------------------------------


def mahalanobis_squared(error: ArrayLike, covariance: ArrayLike) -> Array:
    """e^T C^-1 e: (..., D), (..., D, D) → (...). NaN where the covariance is not finite or not positive definite."""
    e, c = np.asarray(error, np.float64), np.asarray(covariance, np.float64)
    usable = np.isfinite(c).all((-2, -1)) & np.isfinite(e).all(-1)
    safe = np.where(usable[..., None, None], c, np.eye(c.shape[-1]))
    usable &= np.linalg.eigvalsh(safe)[..., 0] > 0
    safe = np.where(usable[..., None, None], safe, np.eye(c.shape[-1]))
    solved = np.linalg.solve(safe, np.where(usable[..., None], e, 0.0)[..., None])[..., 0]
    return np.where(usable, (solved * np.where(usable[..., None], e, 0.0)).sum(-1), np.nan)


def chi2_quantile(level: float, dof: int) -> float:
    """x with P(chi²_dof ≤ x) = level, by bisection of the regularised incomplete gamma function's series (DLMF 8.11.4)."""
    half = dof / 2

    def cdf(x: float) -> float:
        term = total = 1 / half
        k = 0
        while term > 1e-17 * total:
            k += 1
            term *= x / 2 / (half + k)
            total += term
        return total * math.exp(half * math.log(x / 2) - x / 2 - math.lgamma(half))

    low, high = 1e-12, 10.0 * dof + 100.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle) < level else (low, middle)
    return (low + high) / 2


def coverage(error: ArrayLike, covariance: ArrayLike, level: float = 0.9) -> tuple[float, int]:
    """Share of errors (..., D) within their covariance's `level` ellipsoid, and of how many; unusable covariances are left out."""
    squared = mahalanobis_squared(error, covariance)
    counted = np.isfinite(squared)
    if not counted.any():
        return math.nan, 0
    return float((squared[counted] <= chi2_quantile(level, np.shape(error)[-1])).mean()), int(counted.sum())
