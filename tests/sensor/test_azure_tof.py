"""Time of flight against closed forms: noise, wrap-around, mixed pixels, dark and saturated surfaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dataengine.errors import SensorError
from dataengine.sensor.azure_tof import SPEED_OF_LIGHT_M_S, AzureTof, range_sigma_m, simulate_azure_tof, unwrap

K = np.array([[250.0, 0, 79.5], [0, 250.0, 59.5], [0, 0, 1]])
SHAPE = (120, 160)
EXACT = AzureTof(photons=1e12, full_e=1e15, read_e=0.0, min_signal_e=0.0)
SINGLE = AzureTof(frequencies_hz=(100_000_000,), footprint_px=0.0, min_signal_e=0.0, max_range_m=10.0)


def measure(depth: NDArray, albedo: float = 1.0, chosen: AzureTof | None = None, seed: int = 0, normal=(0.0, 0.0, -1.0)) -> NDArray:
    normals = np.broadcast_to(np.array(normal), (*depth.shape, 3))
    return simulate_azure_tof(depth, normals, np.full(depth.shape, albedo), K, np.random.default_rng(seed), chosen)


def wall(z: float) -> NDArray[np.float64]:
    return np.full(SHAPE, z)


@pytest.mark.parametrize("z", [0.4, 1.0, 2.3, 3.8, 5.0])
def test_without_noise_the_depth_is_exact_over_the_whole_range(z: float) -> None:
    measured = measure(wall(z), chosen=EXACT)
    # The footprint mixes slightly different ranges of the same wall: microns, but more at the image's border.
    assert np.abs(measured - z)[3:-3, 3:-3].max() < 2e-5 * max(z, 1)


@pytest.mark.parametrize(("z", "albedo"), [(1.0, 1.0), (1.0, 0.2), (2.5, 0.6)])
def test_noise_follows_lange_and_seitz(z: float, albedo: float) -> None:
    centre = np.s_[55:65, 75:85]
    samples = np.concatenate([(measure(wall(z), albedo, SINGLE, s) - z)[centre].ravel() for s in range(30)])
    wrapped = np.mod(samples + 0.75, SPEED_OF_LIGHT_M_S / 2e8) - 0.75
    signal = albedo / z**2
    expected = range_sigma_m(signal, signal + SINGLE.ambient * albedo, 1e8, SINGLE)
    assert wrapped.std() == pytest.approx(float(expected), rel=0.05)
    assert abs(wrapped.mean()) < 0.1 * wrapped.std()


def test_stated_noise_of_the_device() -> None:
    dark = measure(wall(3.8), 0.15)
    valid = dark > 0
    assert valid[40:80, 60:100].mean() > 0.8
    assert np.std(dark[valid] - 3.8) < 0.017
    near = measure(wall(1.0), 0.8)
    assert np.std(near - 1.0) < 0.0015


def test_one_frequency_wraps_at_half_its_wavelength() -> None:
    period = SPEED_OF_LIGHT_M_S / 2e8
    assert SINGLE.unambiguous_m == pytest.approx(period)
    centre = measure(wall(2.0), chosen=SINGLE)[58:62, 78:82]
    assert centre.mean() == pytest.approx(2.0 - period, abs=0.01)
    assert AzureTof().unambiguous_m == pytest.approx(SPEED_OF_LIGHT_M_S / 2e7)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.05, 5.5), st.floats(-0.03, 0.03), st.floats(-0.1, 0.1))
def test_frequencies_unwrap_any_range_with_small_errors(true_m: float, error_160_m: float, error_50_m: float) -> None:
    frequencies = np.array(AzureTof().frequencies_hz, float)
    errors = np.array([0.0, error_160_m, error_50_m])
    wrapped = np.mod(true_m + errors, SPEED_OF_LIGHT_M_S / (2 * frequencies)).reshape(3, 1, 1)
    joint, disagreement = unwrap(wrapped, AzureTof())
    weights = frequencies**2 / (frequencies**2).sum()
    mean = weights @ errors
    assert joint[0, 0] == pytest.approx(true_m + mean, abs=1e-9)
    assert disagreement[0, 0] == pytest.approx(np.sqrt(weights @ (errors - mean) ** 2), abs=1e-7)


def test_flying_pixels_lie_between_the_two_surfaces() -> None:
    depth = wall(1.0)
    depth[:, 80:] = 1.2
    measured = measure(depth, chosen=EXACT)
    between = (measured > 1.01) & (measured < 1.19)
    columns = np.flatnonzero(between.any(axis=0))
    assert len(columns) >= 2
    assert columns.min() >= 78
    assert columns.max() <= 82
    assert np.median(measured[:, :75]) == pytest.approx(1.0, abs=1e-3)
    sharp = measure(depth, chosen=AzureTof(photons=1e12, full_e=1e15, read_e=0, min_signal_e=0, footprint_px=0))
    assert np.abs(sharp - depth).max() < 1e-4


def test_mixed_pixel_is_the_phase_of_the_phasor_sum() -> None:
    chosen = AzureTof(frequencies_hz=(50_000_000,), photons=1e14, full_e=1e18, read_e=0, min_signal_e=0, footprint_px=0.6)
    depth = np.full(SHAPE, 1.0)
    depth[:, 80:] = 1.5
    measured = measure(depth, chosen=chosen)[60, 79]
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.6**2))
    weights /= weights.sum()
    rays = np.hypot(1, (np.arange(77, 82) - K[0, 2]) / K[0, 0])
    ranges = depth[60, 77:82] * rays
    phasors = weights / rays / ranges**2 * np.exp(4j * np.pi * 5e7 / SPEED_OF_LIGHT_M_S * ranges)
    expected = np.angle(phasors.sum()) * SPEED_OF_LIGHT_M_S / (4 * np.pi * 5e7)
    assert measured == pytest.approx(expected / rays[2], abs=2e-4)


def test_dark_far_and_grazing_surfaces_vanish_gradually() -> None:
    fill = [(measure(wall(3.5), albedo) > 0).mean() for albedo in (0.6, 0.15, 0.08, 0.04, 0.0)]
    assert fill == sorted(fill, reverse=True)
    assert fill[0] > 0.99
    assert fill[-1] == 0
    grazing = (np.sin(1.5), 0.0, -np.cos(1.5))
    assert (measure(wall(2.0), 0.3, normal=grazing) > 0)[:, 70:90].mean() < (measure(wall(2.0), 0.3) > 0)[:, 70:90].mean()


def test_too_near_saturates_and_too_far_is_out_of_range() -> None:
    assert not measure(wall(0.27)).any()
    assert (measure(wall(0.27), 0.2)[50:70, 70:90] > 0).all()
    assert not measure(wall(5.8)).any()
    assert not measure(np.zeros(SHAPE)).any()


def test_same_seed_same_bits() -> None:
    assert np.array_equal(measure(wall(1.0), seed=3), measure(wall(1.0), seed=3))
    assert not np.array_equal(measure(wall(1.0), seed=3), measure(wall(1.0), seed=4))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: measure(wall(1.0), 1.5), "albedo must be an image"),
        (lambda: measure(wall(np.nan)), "depth_z_m contains"),
        (lambda: AzureTof(frequencies_hz=()), "frequencies_hz"),
        (lambda: AzureTof(frequencies_hz=(1.5,)), "whole numbers"),
        (lambda: AzureTof(photons=0), "photons"),
        (lambda: AzureTof(min_range_m=3, max_range_m=2), "is empty"),
        (lambda: AzureTof(read_e=-1), "must not be negative"),
    ],
)
def test_bad_input(make, says: str) -> None:
    with pytest.raises(SensorError, match=says):
        make()
