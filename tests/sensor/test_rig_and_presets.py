"""Rig geometry, sensor names, the statistics, and what they say about bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataengine.errors import DataEngineError, SensorError
from dataengine.geometry.camera import project
from dataengine.sensor.presets import PRESETS, sensor_preset, stereo_rig
from dataengine.sensor.quality import disparity_statistics, expected_shadow_px, fraction_histogram, shadow_width_px
from dataengine.sensor.rig import StereoRig

K = np.array([[462.0, 0, 319.5], [0, 462.0, 179.5], [0, 0, 1]])


def test_native_pixels_of_one_output_pixel_average_to_it() -> None:
    rig = StereoRig(K, 640, 360)
    point = np.array([0.2, -0.1, 1.3])
    assert np.allclose(project(rig.native_K, point), 2 * project(K, point) + 0.5)
    assert (rig.native_width, rig.native_height, rig.native_focal_px) == (1280, 720, 924.0)


@given(st.floats(0.3, 8.0), st.floats(0.02, 0.2))
def test_disparity_is_the_difference_of_the_two_projections(z: float, baseline: float) -> None:
    rig = StereoRig(K, 640, 360, baseline_m=baseline)
    left, right = project(rig.native_K, [0.1, 0.1, z]), project(rig.native_K, [0.1 - baseline, 0.1, z])
    assert left[0] - right[0] == pytest.approx(rig.disparity_of_1m_px / z)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"K": np.eye(4)}, "3x3"),
        ({"K": np.diag([-1.0, 1, 1])}, "positive"),
        ({"K": K + np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]])}, "skew"),
        ({"width": 4}, "at least 16"),
        ({"baseline_m": 0.0}, "baseline_m is 0.0"),
        ({"baseline_m": np.nan}, "baseline_m"),
        ({"projector_x_m": np.inf}, "projector_x_m"),
        ({"native_scale": 5}, "1, 2, 3 and 4"),
    ],
)
def test_bad_rig(change: dict, says: str) -> None:
    with pytest.raises(DataEngineError, match=says):
        StereoRig(**{"K": K, "width": 640, "height": 360, **change})


def test_presets_are_consistent() -> None:
    assert set(PRESETS) == {"d415", "d435", "azure_kinect", "kinect_v1"}
    for preset in PRESETS.values():
        assert 0 < preset.min_depth_m < preset.max_depth_m
        assert preset.native_K[0, 2] == (preset.native_width - 1) / 2
        assert (preset.baseline_m > 0) == (preset.principle != "time_of_flight")
    rig = stereo_rig("d415", K, 640, 360)
    assert rig.native_focal_px == sensor_preset("d415").native_focal_px == 924.0
    assert rig.disparity_of_1m_px == pytest.approx(924 * 0.055)


def test_unknown_and_unsuitable_sensors() -> None:
    with pytest.raises(SensorError, match="did you mean 'd435'"):
        sensor_preset("d436")
    with pytest.raises(SensorError, match="no stereo rig; use one of d415, d435"):
        stereo_rig("azure_kinect", K, 640, 360)


def test_statistics_of_known_errors() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(10, 60, (200, 200))
    measured = true + rng.normal(0.02, 0.07, true.shape)
    measured[:20] = np.nan
    measured[20:40] += 5.0
    stats = disparity_statistics(measured, true)
    assert stats.fill == pytest.approx(0.9)
    assert stats.outliers == pytest.approx(20 / 180)
    assert stats.bias_px == pytest.approx(0.02, abs=2e-3)
    assert stats.rms_px == pytest.approx(np.hypot(0.02, 0.07), rel=0.03)
    half = np.zeros_like(true, bool)
    half[100:] = True
    assert disparity_statistics(measured, true, half).fill == 1.0
    with pytest.raises(SensorError, match="differ in shape"):
        disparity_statistics(measured[1:], true)
    with pytest.raises(SensorError, match="no pixel to score"):
        disparity_statistics(measured, np.full_like(true, np.nan))
    nothing = disparity_statistics(np.full_like(true, np.nan), true)
    assert nothing.fill == 0
    assert np.isnan(nothing.rms_px)


def test_histogram_shows_locking() -> None:
    flat = np.linspace(10, 40, 100_000)
    assert np.allclose(fraction_histogram(flat), 1, atol=0.02)
    locked = flat - 0.1 * np.sin(2 * np.pi * flat) / (2 * np.pi) * 5
    assert fraction_histogram(locked).max() > 1.3


def test_shadow_width_counts_the_hole_left_of_the_edge() -> None:
    disparity = np.ones((50, 100), np.float32)
    disparity[:, 40:52] = np.nan
    disparity[::2, 45] = 1.0  # a lone match inside the hole does not end it
    assert shadow_width_px(disparity, 52, slice(10, 40)) == 12
    assert shadow_width_px(disparity, 30, slice(10, 40)) == 0
    assert expected_shadow_px(462, 0.055, 0.6, 1.2) == pytest.approx(21.175)
    with pytest.raises(SensorError, match="outside the image"):
        shadow_width_px(disparity, 300, slice(0, 5))
