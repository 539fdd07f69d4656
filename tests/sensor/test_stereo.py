"""The matcher against analytic walls, shifted textures and occlusions, in native pixels of a D415."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sensor_bench import d415_rig, in_both_images, locking_histogram, plane, sensed_wall, shadow_table, wall_scene
from dataengine.errors import SensorError
from dataengine.sensor.ir import IrNoise, IrSurface, render_ir_pair
from dataengine.sensor.quality import disparity_statistics
from dataengine.sensor.rig import StereoRig
from dataengine.sensor.stereo import MatchSettings, disparity_to_depth, match_stereo
from dataengine.sensor.stereo_kernels import bspline_prefilter_rows, drop_hidden, spline_weights

RIG = d415_rig()
SMALL = StereoRig(np.array([[150.0, 0, 99.5], [0, 150.0, 59.5], [0, 0, 1]]), 200, 120)


@pytest.mark.parametrize(
    ("distance", "slant", "axis"), [(0.5, 0, 0), (2.0, 0, 0), (0.5, 45, 90), (1.0, 45, 90), (2.0, 45, 90), (1.2, 45, 0)]
)
def test_walls_are_measured_like_by_a_d415(distance: float, slant: float, axis: float) -> None:
    stats = disparity_statistics(*sensed_wall(RIG, IrNoise(), wall_scene(distance, slant, axis), 0.5, 11))
    assert 0.05 <= stats.rms_px <= 0.09
    assert abs(stats.bias_px) <= 0.01
    assert stats.fill >= 0.99
    assert stats.outliers < 1e-3


def test_noise_level_is_the_speckle_and_not_the_matcher() -> None:
    rms = [
        disparity_statistics(*sensed_wall(RIG, IrNoise(speckle=s), wall_scene(1.0, 45, 90), 0.5, 3)).rms_px for s in (0.0, 0.12, 0.25, 0.35)
    ]
    assert rms[0] < 0.03
    assert rms == sorted(rms)
    assert rms[3] / rms[2] == pytest.approx(0.35 / 0.25, rel=0.15)


def test_no_sub_pixel_locking() -> None:
    histogram = locking_histogram(RIG, IrNoise(), walls=4)
    assert histogram.min() > 0.96
    assert histogram.max() < 1.04


def test_occlusion_shadows_have_the_width_of_the_geometry() -> None:
    for row in shadow_table(RIG, IrNoise()):
        assert row["measured_px"] == pytest.approx(row["expected_px"], abs=2.0)


def textures(shift_px: float, rig: StereoRig = SMALL) -> tuple[np.ndarray, np.ndarray]:
    """A band-limited random texture and itself shifted left by shift_px, exactly (in the Fourier domain)."""
    width = 2 * rig.native_width
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(rig.native_height, width)), (0, 0), 1.0)
    phase = np.exp(2j * np.pi * np.fft.fftfreq(width) * shift_px)
    moved = np.fft.ifft(np.fft.fft(noise, axis=1) * phase, axis=1).real
    grey = [np.clip(128 + 200 * x[:, : rig.native_width], 0, 255).astype(np.uint8) for x in (noise, moved)]
    return grey[0], grey[1]


@pytest.mark.parametrize("shift", [7.0, 12.25, 12.5, 17.83])
def test_any_shifted_texture_is_matched_not_only_ours(shift: float) -> None:
    disparity = match_stereo(*textures(shift), SMALL, MatchSettings(quantum_px=0.0))
    inner = disparity[10:-10, 25:-10]
    assert np.isfinite(inner).mean() > 0.99
    assert np.nanmedian(inner) == pytest.approx(shift, abs=0.01)
    assert np.nanstd(inner) < 0.03


@pytest.mark.parametrize("scale", [1, 3])
def test_other_native_scales(scale: int) -> None:
    rig = StereoRig(np.array([[150.0, 0, 99.5], [0, 150.0, 59.5], [0, 0, 1]]), 200, 120, native_scale=scale)
    disparity = match_stereo(*textures(9.4, rig), rig, MatchSettings(quantum_px=0.0, min_depth_m=0.2))
    assert disparity.shape == (120, 200)
    assert np.nanmedian(disparity) == pytest.approx(9.4, abs=0.02)


def test_images_may_be_views_of_other_arrays() -> None:
    left, right = textures(12.25)
    flipped = [np.ascontiguousarray(image[::-1])[::-1] for image in (left, right)]
    assert np.array_equal(match_stereo(flipped[0], flipped[1], SMALL), match_stereo(left, right, SMALL), equal_nan=True)


def test_disparities_come_in_steps_of_a_32nd() -> None:
    disparity = match_stereo(*textures(12.3), SMALL)
    valid = disparity[np.isfinite(disparity)]
    assert np.array_equal(valid * 32, np.rint(valid * 32))


def test_result_does_not_depend_on_opencv_threads() -> None:
    pair = textures(12.3)
    threads = cv2.getNumThreads()
    try:
        results = []
        for count in (1, 2, 4):
            cv2.setNumThreads(count)
            results.append(match_stereo(*pair, SMALL))
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(results[0], other, equal_nan=True) for other in results[1:])


SAME_BITS = """
import hashlib, numpy as np
from benchmarks.sensor_bench import d415_rig, wall_scene
from dataengine.sensor.ir import IrNoise, IrSurface, render_ir_pair
from dataengine.sensor.stereo import match_stereo
pair = render_ir_pair(wall_scene(1.0, 45, 30), [IrSurface(0.5, 0.4)], d415_rig(), np.eye(4), [], IrNoise(), np.random.default_rng(1))
d = match_stereo(pair.left, pair.right, d415_rig())
print(hashlib.sha256(pair.left.tobytes() + pair.right.tobytes() + d.tobytes()).hexdigest())
"""


def test_another_process_gives_the_same_bits() -> None:
    surfaces = [IrSurface(0.5, 0.4)]
    pair = render_ir_pair(wall_scene(1.0, 45, 30), surfaces, RIG, np.eye(4), [], IrNoise(), np.random.default_rng(1))
    here = hashlib.sha256(pair.left.tobytes() + pair.right.tobytes() + match_stereo(pair.left, pair.right, RIG).tobytes())
    there = subprocess.run([sys.executable, "-c", SAME_BITS], capture_output=True, text=True, check=True)
    assert there.stdout.split()[-1] == here.hexdigest()


def test_dark_and_far_surfaces_lose_pixels_gradually() -> None:
    def fill(albedo: float, distance: float) -> float:
        measured, true, _ = sensed_wall(RIG, IrNoise(), wall_scene(distance, 0, 0), albedo, 2)
        return disparity_statistics(measured, true, in_both_images(RIG, true)).fill

    by_distance = [fill(0.03, d) for d in (1.0, 4.0, 6.0, 8.0)]
    assert by_distance[0] > 0.99
    assert by_distance[0] > by_distance[1] > by_distance[2] + 0.1
    assert by_distance[3] < 0.05
    assert fill(0.5, 8.0) > 0.9
    assert fill(0.5, 8.0) > fill(0.1, 8.0) > by_distance[3]


def test_nothing_to_match_gives_nothing() -> None:
    grey = np.full((SMALL.native_height, SMALL.native_width), 90, np.uint8)
    assert np.isnan(match_stereo(grey, grey, SMALL)).all()
    random = np.random.default_rng(0).integers(0, 255, (2, *grey.shape), dtype=np.uint8)
    assert np.isfinite(match_stereo(random[0], random[1], SMALL)).mean() < 0.02


def test_mirror_leaves_a_hole() -> None:
    from dataengine.raycast.scene import RayScene

    scene = RayScene([plane(), plane(0.3)])
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, 2, 3] = 1.0, 0.9
    scene.pose(poses)
    surfaces = [IrSurface(0.5), IrSurface(0.5, dropout=True)]
    pair = render_ir_pair(scene, surfaces, RIG, np.eye(4), [], IrNoise(), np.random.default_rng(0))
    disparity = match_stereo(pair.left, pair.right, RIG)
    assert np.isfinite(disparity[130:230, 260:380]).mean() < 0.05
    assert np.isfinite(disparity[:60, 100:]).mean() > 0.99


@given(st.lists(st.floats(0.5, 127.0), min_size=1, max_size=20))
def test_depth_is_the_inverse_of_disparity(values: list[float]) -> None:
    disparity = np.array([[*values, np.nan, 0.0, -1.0]], np.float32)
    depth = disparity_to_depth(disparity, RIG)
    assert depth.dtype == np.float32
    assert np.allclose(depth[0, :-3] * disparity[0, :-3], RIG.disparity_of_1m_px, rtol=1e-5)
    assert (depth[0, -3:] == 0).all()


def test_spline_passes_through_its_samples() -> None:
    signal = np.random.default_rng(0).uniform(0, 255, (3, 60)).astype(np.float32)
    coefficients = signal.copy()
    bspline_prefilter_rows(coefficients)
    at_knots = (coefficients[:, :-2] + 4 * coefficients[:, 1:-1] + coefficients[:, 2:]) / 6
    assert np.allclose(at_knots, signal[:, 1:-1], atol=1e-2)
    for t in (0.0, 0.3, 0.99):
        assert sum(spline_weights(t)) == pytest.approx(1)
    assert np.allclose(spline_weights(0.5), np.array([1, 23, 23, 1]) / 48)


def test_hidden_pixels_are_dropped_behind_a_near_surface() -> None:
    disparity = np.full((1, 60), 4.0, np.float32)
    disparity[0, 30:40] = 20.0  # covers columns 20..30 of the right image at scale 1, where 24..34 of the wall land
    drop_hidden(disparity, 1, 1.5)
    lost = np.flatnonzero(np.isnan(disparity[0]))
    assert lost.tolist() == list(range(14, 24))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: match_stereo(np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8), SMALL), r"left .* needs uint8 \(240, 400\)"),
        (lambda: match_stereo(*(np.zeros((240, 400)),) * 2, SMALL), "float64"),
        (lambda: MatchSettings(block_px=4), "odd block"),
        (lambda: MatchSettings(min_depth_m=0.0), "min_depth_m"),
        (lambda: MatchSettings(min_correlation=-1), "min_correlation"),
    ],
)
def test_bad_input(make, says: str) -> None:
    with pytest.raises(SensorError, match=says):
        make()
