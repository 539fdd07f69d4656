"""What the benchmarks of camera solving measure, on poses with known errors."""

import dataclasses

import numpy as np
import pytest

from annotators.sfm import refused
from benchmarks.annotate import bench_sfm, tabletop
from dataengine.geometry import se3
from tests.annotators import sfm_scene as scene


def moved(T: np.ndarray, size: float) -> np.ndarray:
    """The same poses in another world and unit."""
    G = se3.make(se3.rotation_from_axis_angle((0.6, 0.0, 0.8), 0.7), (3.0, -1.0, 2.0))
    out = G @ T
    out[:, :3, 3] *= size
    return out


def test_a_similarity_costs_nothing_and_one_wild_camera_does_not_spoil_the_scale():
    truth = scene.arc(12)
    found = moved(truth, 0.04)
    perfect = bench_sfm.relative_errors(found, truth, np.ones(12, bool))
    assert perfect["posed"] == 12
    assert max(perfect["p95_mm"], perfect["p95_deg"]) < 1e-6
    found[5, :3, 3] += 9.0
    assert bench_sfm.relative_errors(found, truth, np.ones(12, bool))["median_mm"] < 1e-6
    found[5] = np.nan
    assert bench_sfm.relative_errors(found, truth, np.isfinite(found[:, 0, 0]))["p95_mm"] < 1e-6


def test_relative_errors_measure_a_shift_and_a_turn():
    truth = scene.arc(3)
    found = truth.copy()
    found[1, :3, :3] = found[1, :3, :3] @ se3.rotation_from_axis_angle((0.0, 0.0, 1.0), np.radians(0.5))
    found[1, 2, 3] += 0.002
    scores = bench_sfm.relative_errors(found, truth, np.ones(3, bool))
    assert scores["median_deg"] == pytest.approx(0.5, rel=1e-6)
    assert 0.5 < scores["median_mm"] < 6.0


@pytest.mark.parametrize(("stated", "inside"), [(1.0, 0.68), (0.2, 0.16), (5.0, 1.0)])
def test_coverage_tells_honest_covariances_from_others(stated, inside):
    rng = np.random.default_rng(0)
    truth, n, sigma = scene.arc(60), 60, 1e-3
    found = moved(truth, 1.0)
    for T in found:
        xi = rng.normal(0, sigma, 6)
        T[:] = T @ se3.make(se3.rotation_from_axis_angle(xi[3:] / np.linalg.norm(xi[3:]), np.linalg.norm(xi[3:])), xi[:3])
    covariance = np.broadcast_to((stated * sigma) ** 2 * np.eye(6), (n, 6, 6))
    frames = scene.capture([np.zeros((1, 1, 3), np.uint8)] * n)
    track = dataclasses.replace(refused(frames, (), ""), T_world_cam=found, covariance=covariance, posed=np.ones(n, bool))
    scores = bench_sfm.coverage(track, truth)
    assert scores["inside_68"] == pytest.approx(inside, abs=0.06)
    assert scores["nees_mean"] == pytest.approx(1 / stated**2, rel=0.15)


def test_a_board_seen_from_true_poses_agrees_with_its_planes_and_a_turned_camera_shows():
    T = scene.arc(9)
    normal, point = np.array([0.0, 0.0, 1.0]), np.array([-0.6, -0.5, 0.1])
    inverse = se3.inverse(T)
    planes = [(se3.transform(S, point[None])[0], S[:3, :3] @ normal) for S in inverse]
    rows, board = tabletop.propagated(T, planes)
    assert abs(board @ normal) == pytest.approx(1.0)
    assert np.abs(rows).max() < 1e-4
    turned = T.copy()
    turned[4, :3, :3] = T[4, :3, :3] @ se3.rotation_from_axis_angle((1.0, 0.0, 0.0), np.radians(1.0))
    rows, _ = tabletop.propagated(turned, planes)
    assert rows[4][0] == pytest.approx(1.0 - 1.0 / 9, abs=0.15)
    assert rows[4][0] == max(row[0] for row in rows)


def test_planes_are_fitted_through_outliers():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1, 1, (400, 2)), rng.normal(0, 1e-3, 400)])
    points[:60, 2] += rng.uniform(0.1, 0.5, 60)
    _, normal = tabletop.fit_plane(points)
    assert abs(normal[2]) > np.cos(np.radians(0.2))
    angle, distance = tabletop.against(
        np.array([0.0, 0.0, 1.01]), np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, -1.0])
    )
    assert (angle, distance) == pytest.approx((0.0, 10.0))


def test_the_table_has_one_row_a_capture():
    good = {"posed": 9, "median_mm": 0.2, "p95_mm": 0.4, "median_deg": 0.01, "p95_deg": 0.02}
    row = {
        "capture": "a", "frames": 9, "refusal": None, "ours": good, "alone": {"posed": 1}, "coverage": {"inside_68": 0.7}, "cpu_s": 30.0,
        "keyframes": 10, "alone_cpu_s": 60.0, "mapper": "incremental", "stages_cpu_s": {"mapping (global)": 12.0},
        "cross_check": {"translation_share": 0.001, "rotation_deg": 0.02},
    }  # fmt: skip
    text = bench_sfm.table([row, {**row, "refusal": "rotation only"}])
    assert "9/9 | 0.20 (0.40) | 0.010 (0.020) | 1/9 | | | 70 % | 30 (1.80 + 1.20) | 60" in text
    assert "refused: rotation only" in text
    assert {line.count("|") for line in text.splitlines()} == {12}
