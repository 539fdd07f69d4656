"""From light to 8 bits: the sRGB curve against literals and Pillow's ICC profile, noise against what was asked for."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageCms

from dataengine.render.develop import develop, srgb_from_linear
from dataengine.scene.spec import ImageEffects

PLAIN = ImageEffects(exposure_ev=0.0, view_transform="Standard", noise=0.0, shot_noise=0.0, motion_blur=0.0)


def effects(**changes: float) -> ImageEffects:
    return PLAIN.model_copy(update=changes)


def flat(value: float, size: int = 256) -> np.ndarray:
    return np.full((size, size, 3), value, np.float32)


def linear_from_srgb(encoded: np.ndarray) -> np.ndarray:
    """Inverse of IEC 61966-2-1, written from its own formula."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(
    ("linear", "grey"),
    [(0.0, 0), (0.18, 118), (0.2140411, 127.5), (0.5, 188), (0.7, 218), (1.0, 255), (2.0, 255), (-0.1, 0), (0.001, 3), (0.0031308, 10)],
)
def test_known_values(linear: float, grey: float) -> None:
    """Photographers' 18 % grey is 118; half of the code values is 21.4 % of the light."""
    assert srgb_from_linear(np.float32(linear)) * 255 == pytest.approx(grey, abs=0.5)


def test_curve_is_the_inverse_of_the_decoding() -> None:
    codes = np.arange(256) / 255
    assert_allclose(srgb_from_linear(linear_from_srgb(codes)), codes, atol=1e-6)


def test_all_code_values_survive_developing() -> None:
    codes = np.arange(256)
    light = np.repeat(linear_from_srgb(codes / 255).astype(np.float32)[:, None], 3, 1)[None]
    assert_array_equal(develop(light, PLAIN, np.random.default_rng(0))[0, :, 1], codes)


def test_curve_against_an_icc_profile() -> None:
    """Little CMS encodes L* of neutral greys through its own sRGB profile."""
    lightness = np.arange(0, 256, 5, dtype=np.uint8)
    lab = Image.merge("LAB", [Image.fromarray(np.broadcast_to(c, (1, len(lightness))).astype(np.uint8)) for c in (lightness, 128, 128)])
    to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(lab, to_rgb)
    assert converted is not None
    L = lightness / 255 * 100
    luminance = np.where(L > 8, ((L + 16) / 116) ** 3, L / 903.3)  # CIE 1976, Y / Yn
    ours = np.rint(srgb_from_linear(luminance) * 255)
    assert np.abs(np.asarray(converted)[0, :, 1] - ours).max() <= 1


@pytest.mark.parametrize("stops", [-2.0, 1.0])
def test_exposure_counts_in_stops(stops: float) -> None:
    developed = develop(flat(0.2, 4), effects(exposure_ev=stops), np.random.default_rng(0))
    assert_array_equal(developed, np.rint(srgb_from_linear(flat(0.2 * 2**stops, 4)) * 255).astype(np.uint8))


@pytest.mark.parametrize(("signal", "read", "shot"), [(0.3, 0.02, 0.0), (0.6, 0.0, 0.03), (0.3, 0.01, 0.03), (0.15, 0.01, 0.03)])
def test_noise_variance_in_linear_light(signal: float, read: float, shot: float) -> None:
    """variance = read² + shot² · signal, before the curve; measured after undoing it, with rounding to 8 bits on top."""
    developed = develop(flat(signal), effects(noise=read, shot_noise=shot), np.random.default_rng(1)) / 255
    light = linear_from_srgb(developed)
    code = srgb_from_linear(np.float32(signal))
    slope = (linear_from_srgb(code + 0.002) - linear_from_srgb(code - 0.002)) / 0.004
    rounding = (slope / 255) ** 2 / 12
    assert light.mean() == pytest.approx(signal, abs=5e-4)
    assert light.var() == pytest.approx(read**2 + shot**2 * signal + rounding, rel=0.03)


def test_noise_is_independent_between_pixels_and_channels() -> None:
    noisy = develop(flat(0.4), effects(noise=0.03), np.random.default_rng(2)).astype(float)
    noisy -= noisy.mean((0, 1))
    channels = np.corrcoef(noisy.reshape(-1, 3).T)
    neighbours = np.corrcoef(noisy[:, :-1, 0].ravel(), noisy[:, 1:, 0].ravel())
    assert np.abs(channels - np.eye(3)).max() < 0.02
    assert abs(neighbours[0, 1]) < 0.02


def test_the_stream_decides() -> None:
    first, again, other = (develop(flat(0.4, 8), effects(noise=0.03), np.random.default_rng(s)) for s in (3, 3, 4))
    assert_array_equal(first, again)
    assert (first != other).any()


def test_without_noise_the_stream_is_not_touched() -> None:
    rng = np.random.default_rng(5)
    develop(flat(0.4, 8), PLAIN, rng)
    assert rng.random() == np.random.default_rng(5).random()
