"""Kinect v1 against the closed form of Nguyen et al. 2012, and its geometry."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dataengine.errors import SensorError
from dataengine.sensor.kinect_v1 import KinectV1, axial_sigma_m, lateral_sigma_px, simulate_kinect_v1

K = np.array([[585.0, 0, 159.5], [0, 585.0, 119.5], [0, 0, 1]])
SHAPE = (240, 320)
PLAIN = KinectV1(steps_per_px=0, lateral=False, shadow=False)


def plane(z: float, slant_rad: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(depth, normals) of a plane through (0, 0, z) turned about y."""
    normal = np.array([np.sin(slant_rad), 0, -np.cos(slant_rad)])
    x = (np.arange(SHAPE[1]) - K[0, 2]) / K[0, 0]
    depth = normal[2] * z / (normal[0] * x + normal[2])
    depth[(depth < 0) | (depth > 50)] = 0
    return np.broadcast_to(depth, SHAPE).copy(), np.broadcast_to(normal, (*SHAPE, 3)).copy()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_formula_at_published_values() -> None:
    assert axial_sigma_m([1, 2, 3], 0.2) == pytest.approx([0.0018840, 0.0060640, 0.0140440])
    angle = np.radians(75)
    assert axial_sigma_m(1.0, angle) - axial_sigma_m(1.0, 0.2) == pytest.approx(0.0001 * angle**2 / (np.pi / 2 - angle) ** 2)
    assert lateral_sigma_px(0.0) == pytest.approx(0.8)
    assert lateral_sigma_px(np.pi / 4) == pytest.approx(0.835)


@pytest.mark.parametrize("z", [0.8, 1.5, 3.0])
@pytest.mark.parametrize("settings", [PLAIN, KinectV1(lateral=False, shadow=False), KinectV1()])
def test_noise_of_a_wall_is_the_formula_also_when_quantised(z: float, settings: KinectV1) -> None:
    depth, normals = plane(z)
    measured = simulate_kinect_v1(depth, normals, K, rng(), settings)
    error = (measured - depth)[:, 60:-10]
    assert (measured[:, 60:-10] > 0).all()
    assert error.std() == pytest.approx(float(axial_sigma_m(z, 0.1)), rel=0.04)
    assert abs(error.mean()) < 0.1 * error.std()


def test_slanted_wall_has_the_grazing_term_and_no_noise_from_lateral_shifts() -> None:
    depth, normals = plane(1.0, np.radians(68))
    middle = np.s_[:, 150:170]
    errors = [
        (simulate_kinect_v1(depth, normals, K, rng(), KinectV1(steps_per_px=0, shadow=False, lateral=lateral)) - depth)[middle]
        for lateral in (False, True)
    ]
    for error in errors:
        assert error.std() == pytest.approx(float(axial_sigma_m(depth[middle].mean(), np.radians(68))), rel=0.06)


def test_depth_is_one_of_the_disparity_steps() -> None:
    measured = simulate_kinect_v1(*plane(2.0), K, rng())
    steps = 585 * 0.075 * 8 / measured[measured > 0].astype(np.float64)
    assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_edges_jitter_sideways_by_the_lateral_sigma() -> None:
    depth, normals = plane(1.0)
    depth[:, 160:] = 2.0
    measured = simulate_kinect_v1(depth, normals, K, rng(), KinectV1(steps_per_px=0, shadow=False))
    wrong = (measured < 1.5) != (depth < 1.5)
    columns = np.flatnonzero(wrong.any(axis=0))
    assert columns.min() >= 160 - 5
    assert columns.max() < 160 + 5
    # The first column behind the edge takes the other surface when its rounded N(0, 0.8) shift is at least 1.
    assert wrong[:, 160].mean() == pytest.approx(0.266, abs=0.09)


def test_shadow_of_the_projector_has_its_width_and_side() -> None:
    depth, normals = plane(2.0)
    depth[:, 160:] = 1.0
    measured = simulate_kinect_v1(depth, normals, K, rng(), KinectV1(lateral=False))
    hole = np.flatnonzero((measured == 0).mean(axis=0) > 0.5)
    assert hole.max() == 159
    assert len(hole) == pytest.approx(585 * 0.075 * (1 / 1.0 - 1 / 2.0), abs=2)


def test_range_and_grazing_limits() -> None:
    for z, seen in ((0.3, False), (0.6, True), (4.5, True), (6.0, False)):
        assert (simulate_kinect_v1(*plane(z), K, rng(), PLAIN) > 0).all() == seen
    assert (simulate_kinect_v1(*plane(1.0, np.radians(85)), K, rng(), PLAIN)[:, 155:165] == 0).all()
    empty = simulate_kinect_v1(np.zeros(SHAPE), np.zeros((*SHAPE, 3)), K, rng())
    assert empty.dtype == np.float32
    assert not empty.any()


def test_same_seed_same_bits_and_inputs_untouched() -> None:
    depth, normals = plane(1.2)
    before = depth.copy(), normals.copy()
    first, second, other = (simulate_kinect_v1(depth, normals, K, rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.array_equal(before[0], depth)
    assert np.array_equal(before[1], normals)


@pytest.mark.parametrize(
    ("depth", "normals", "says"),
    [
        (np.ones(5), np.zeros((5, 3)), "must be an image"),
        (np.full((4, 4), np.nan), np.zeros((4, 4, 3)), "use 0 where there is no surface"),
        (np.full((4, 4), -1.0), np.zeros((4, 4, 3)), "negative"),
        (np.ones((4, 4)), np.zeros((4, 5, 3)), r"must be \(4, 4, 3\)"),
        (np.ones((4, 4)), np.full((4, 4, 3), np.inf), "normals_cam contains"),
    ],
)
def test_bad_input(depth: NDArray, normals: NDArray, says: str) -> None:
    with pytest.raises(SensorError, match=says):
        simulate_kinect_v1(depth, normals, K, rng())


def test_bad_settings() -> None:
    with pytest.raises(SensorError, match="min_depth_m < max_depth_m"):
        KinectV1(min_depth_m=3, max_depth_m=2)
    with pytest.raises(SensorError, match=r"focal_px is -1"):
        KinectV1(focal_px=-1)
