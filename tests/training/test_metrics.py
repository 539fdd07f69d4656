import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from training import metrics
from training.metrics import PROTOCOLS, Points, Protocol, area, published, summarise

BY_NAME = {p.name: p for p in PROTOCOLS}
W, H = 640, 360


# ---- slow literal oracles: one Python loop per threshold, nothing shared with what they judge --------------------------


def literal_area(errors: list[float], denominator: int, maximum: float, step: float, strict: bool) -> float:
    fractions = []
    for i in range(round(maximum / step)):
        threshold = i * step
        passed = 0
        for e in errors:
            if e < threshold or (e == threshold and not strict):
                passed += 1
        fractions.append(passed / denominator)
    pieces = [(a + b) / 2 * step for a, b in zip(fractions, fractions[1:], strict=False)]
    return math.fsum(pieces) / maximum


def literal_add(estimate: np.ndarray, truth: np.ndarray, used: list[bool]) -> float | None:
    total, count = 0.0, 0
    for e, t, use in zip(estimate.tolist(), truth.tolist(), used, strict=True):
        if not use:
            continue
        distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(e, t, strict=True)))
        if math.isnan(distance):
            return None
        total, count = total + distance, count + 1
    return total / count if count else None


def literal_scores(p: Points, maximum_m: float, maximum_px: float, rule: str, detected_only: bool) -> tuple[float, float]:
    errors_m, errors_px, possible, keypoints = [], [], 0, 0
    assert p.detected_px is not None
    for f in range(len(p.truth_m)):
        detected = [not any(map(math.isnan, uv)) for uv in p.detected_px[f].tolist()]
        add = literal_add(p.estimate_m[f], p.truth_m[f], detected if detected_only else [True] * len(detected))
        if add is not None:
            errors_m.append(add)
        in_image = 0
        for k, (u, v) in enumerate(p.truth_px[f].tolist()):
            if 0 < u < p.width[f] and 0 < v < p.height[f]:
                in_image += 1
            if 0 <= u <= p.width[f] and 0 <= v <= p.height[f]:
                keypoints += 1
                if detected[k]:
                    du, dv = p.detected_px[f][k] - p.truth_px[f][k]
                    errors_px.append(math.sqrt(du * du + dv * dv))
        possible += in_image >= 4
    denominator = {"all": len(p.truth_m), "possible": possible, "found": len(errors_m)}[rule]
    return literal_area(errors_m, denominator, maximum_m, 1e-5, False), literal_area(errors_px, keypoints, maximum_px, 0.01, True)


def scene(seed: int, frames: int = 9, keypoints: int = 7, scale_m: float = 0.05) -> Points:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(frames, keypoints, 3)) + [0, 0, 3]
    px = rng.uniform([-80, -60], [W + 80, H + 60], (frames, keypoints, 2))
    px[0, 0] = (0.0, 10.0)  # on the border: counted by PCK, not by the number of keypoints in the image
    estimate = truth + rng.normal(size=truth.shape) * rng.choice([0.1, 1, 3], (frames, 1, 1)) * scale_m
    estimate[rng.random(frames) < 0.2] = np.nan
    detected = px + rng.normal(size=px.shape) * 4
    detected[rng.random((frames, keypoints)) < 0.25] = np.nan
    return Points(truth, px, estimate, detected, np.full(frames, W), np.full(frames, H))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "maximum_m", "maximum_px", "rule", "detected_only"),
    [
        ("RoboKeyGen", 0.1, 20, "all", False),
        ("RoboKeyGen, failures dropped", 0.1, 20, "found", False),
        ("DREAM", 0.1, 20, "possible", True),
        ("SGTAPose", 0.06, 12, "possible", True),
    ],
)
def test_protocols_equal_slow_literal_oracles(
    name: str, maximum_m: float, maximum_px: float, rule: str, detected_only: bool, seed: int
) -> None:
    points = scene(seed)
    got = published(points, BY_NAME[name])
    add_auc, pck_auc = literal_scores(points, maximum_m, maximum_px, rule, detected_only)
    assert abs(got.add_auc - add_auc) < 1e-12
    assert abs(got.pck_auc - pck_auc) < 1e-12
    assert got.add_auc > 0 and got.pck_auc > 0


def test_errors_on_a_threshold_count_as_the_scripts_count_them() -> None:
    errors = [0.0, 1e-5, 0.03, 7 * 1e-5, 0.02, 0.09999, 0.1]
    for strict in (False, True):
        wanted = literal_area(errors, len(errors), 0.1, 1e-5, strict)
        assert abs(area(errors, len(errors), 0.1, 1e-5, strict) - wanted) < 1e-12


def test_known_values_of_the_published_scripts() -> None:
    """A perfect estimator does not score 1; a constant 2 cm is 0.80 or 0.667; DREAM's score can exceed 1."""
    perfect = scene(0)
    perfect = replace(perfect, estimate_m=perfect.truth_m, detected_px=perfect.truth_px)
    scores = published(perfect, BY_NAME["RoboKeyGen"])
    assert scores.add_auc == pytest.approx(0.9999, abs=1e-12)
    assert scores.pck_auc == pytest.approx(0.99925, abs=1e-12)
    shifted = replace(perfect, estimate_m=perfect.truth_m + [0.02, 0, 0], truth_px=np.full_like(perfect.truth_px, 50.0))
    assert published(shifted, BY_NAME["DREAM"]).add_auc == pytest.approx(0.80, abs=2e-4)
    assert published(shifted, BY_NAME["SGTAPose"]).add_auc == pytest.approx(0.667, abs=1e-3)
    twelve = scene(1, frames=12)
    px = np.full_like(twelve.truth_px, 50.0)
    px[:2, 3:] = -50.0  # two frames have three keypoints in the image
    twelve = replace(twelve, estimate_m=twelve.truth_m, detected_px=px, truth_px=px)
    assert published(twelve, BY_NAME["DREAM"]).add_auc == pytest.approx(1.19988, abs=1e-9)


def test_side_bands_and_least_keypoints() -> None:
    points = scene(2)
    px = np.full_like(points.truth_px, 100.0)  # within 140 px of the left border
    banded: Protocol = replace(BY_NAME["SGTAPose"], side_band_px=140.0)
    assert published(replace(points, truth_px=px), BY_NAME["SGTAPose"]).denominator == 9
    got = published(replace(points, truth_px=px), banded)
    assert got.denominator == 0 and math.isnan(got.add_auc) and math.isnan(got.pck_auc)


def test_without_2d_there_is_no_pck() -> None:
    got = published(replace(scene(0), detected_px=None), BY_NAME["DREAM"])
    assert math.isnan(got.pck_auc) and got.add_auc > 0


errors_strategy = st.lists(st.one_of(st.floats(0, 0.3), st.just(math.nan)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(errors_strategy)
def test_auc_is_the_mean_of_frame_scores_and_of_one_minus_capped_error(errors: list[float]) -> None:
    e = np.array(errors)
    score = area(e, e.size, 0.1, 1e-5)
    assert score == pytest.approx(metrics.frame_scores(e).mean(), abs=1e-12)
    capped = 1 - np.minimum(np.where(np.isnan(e), 0.1, e), 0.1).mean() / 0.1
    assert score == pytest.approx(capped, abs=1.6e-4)


@settings(max_examples=40, deadline=None)
@given(errors_strategy, st.floats(0, 0.05))
def test_a_worse_estimate_never_scores_better(errors: list[float], more: float) -> None:
    e = np.array(errors)
    assert area(e + more, e.size, 0.1, 1e-5) <= area(e, e.size, 0.1, 1e-5) + 1e-12


def test_failures_are_counted() -> None:
    s = summarise([0.01, 0.02, math.nan, math.inf])
    assert (s.frames, s.failures) == (4, 2)
    assert s.auc == pytest.approx((0.9 + 0.8) / 4, abs=1e-4)
    assert s.median_m == math.inf and s.mean_m == pytest.approx(0.015)
    assert summarise([0.01, 0.02, math.nan]).median_m == pytest.approx(0.02)
    empty = summarise([])
    assert empty.frames == 0 and math.isnan(empty.auc) and math.isnan(empty.median_m)
    lost = summarise([math.nan] * 3)
    assert lost.auc == 0 and lost.median_m == math.inf and math.isnan(lost.mean_m)


def test_confidence_interval_covers_and_knows_of_videos() -> None:
    rng = np.random.default_rng(0)
    hits = {"frames": 0, "videos": 0}
    for _ in range(300):
        scores = np.repeat(rng.normal(0.7, 0.1, 40), 5) + rng.normal(0, 0.02, 200)  # frames of a video are nearly alike
        for kind, groups in (("frames", None), ("videos", np.repeat(np.arange(40), 5))):
            low, high = metrics.mean_ci95(scores, groups)
            hits[kind] += low <= 0.7 <= high
    assert 270 <= hits["videos"] <= 297
    assert hits["frames"] < 240  # what taking them as independent would claim
    assert all(map(math.isnan, metrics.mean_ci95([0.5])))


def test_angles_go_around() -> None:
    got = metrics.angle_difference_rad([3.1, 0.2, -1.0], [-3.1, 0.1, -1.0])
    assert np.allclose(got, [2 * math.pi - 6.2, 0.1, 0.0])
    errors = metrics.joint_errors([[3.1, 7.0]], [[-3.1, 0.0]], ("turning", "sliding"), ("sliding",))
    assert errors["sliding"][0] == 7.0 and errors["turning"][0] < 0.1


def test_rotation_error_against_scipy() -> None:
    a, b = Rotation.random(50, random_state=0), Rotation.random(50, random_state=1)
    assert np.allclose(metrics.rotation_error_rad(a.as_matrix(), b.as_matrix()), (a.inv() * b).magnitude(), atol=1e-9)
    tiny = Rotation.from_rotvec([1e-9, 0, 0])
    assert metrics.rotation_error_rad(tiny.as_matrix(), np.eye(3)) == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("dof", [1, 2, 3, 6, 13, 45])
@pytest.mark.parametrize("level", [0.05, 0.5, 0.9, 0.999])
def test_chi2_quantile_against_scipy(dof: int, level: float) -> None:
    assert metrics.chi2_quantile(level, dof) == pytest.approx(chi2.ppf(level, dof), rel=1e-9)


def test_coverage_of_right_and_wrong_covariances() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(20_000, 3, 3))
    covariance = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(3)
    error = np.einsum("fij,fj->fi", np.linalg.cholesky(covariance), rng.normal(size=(20_000, 3)))
    share, count = metrics.coverage(error, covariance)
    assert count == 20_000 and share == pytest.approx(0.9, abs=0.007)
    assert metrics.coverage(error, covariance / 4)[0] < 0.6
    covariance[:10] = np.nan
    covariance[10:20] = -np.eye(3)
    assert metrics.coverage(error, covariance)[1] == 20_000 - 20
    assert metrics.coverage(error[:5], covariance[:5])[1] == 0
