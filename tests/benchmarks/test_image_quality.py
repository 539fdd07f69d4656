"""The metrics recover errors that are known by construction, whatever the references' noise."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from benchmarks import image_quality as iq

SHAPE = (180, 240, 3)


def picture(rng: np.random.Generator) -> np.ndarray:
    """A smooth scene-linear picture within 0.05…0.8 with some texture."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    waves = [0.4 + 0.25 * np.sin(x / a) * np.cos(y / b) for a, b in ((17, 23), (9, 31), (29, 11))]
    return np.clip(np.stack(waves, -1) + 0.04 * rng.standard_normal(SHAPE), 0.05, 0.8)


@pytest.mark.parametrize("sigma_x", [0.7, 3.0, 9.0])
@pytest.mark.parametrize("sigma_ref", [0.0, 5.0, 15.0])
def test_known_error_is_recovered_through_noisy_references(sigma_x: float, sigma_ref: float) -> None:
    rng = np.random.default_rng(1)
    truth = iq.srgb_8bit(picture(rng))
    x, a, b = (truth + s * rng.standard_normal(SHAPE) for s in (sigma_x, sigma_ref, sigma_ref))
    n = truth.size
    # var[(e-a)(e-b)] for independent zero-mean Gaussians: 2 σx⁴ + 2 σx² σr² + σr⁴
    error = np.sqrt((2 * sigma_x**4 + 2 * sigma_x**2 * sigma_ref**2 + sigma_ref**4) / n)
    assert iq.mean_squared_error(x, a, b) == pytest.approx(sigma_x**2, abs=4 * error)


def test_plain_error_against_the_mean_reference_would_be_biased() -> None:
    rng = np.random.default_rng(2)
    truth = iq.srgb_8bit(picture(rng))
    x, a, b = (truth + s * rng.standard_normal(SHAPE) for s in (2.0, 8.0, 8.0))
    naive = np.mean((x - (a + b) / 2) ** 2)
    assert naive == pytest.approx(4 + 32, rel=0.03)
    assert iq.mean_squared_error(x, a, b) == pytest.approx(4, abs=0.6)


def test_jackknife_takes_the_bias_of_the_curve_out() -> None:
    rng = np.random.default_rng(3)
    linear = np.full((400, 400, 3), 0.05)
    truth = iq.srgb_8bit(linear).mean()
    one, two = (linear * rng.gamma(5, 1 / 5, linear.shape) for _ in range(2))
    plain = iq.srgb_8bit((one + two) / 2).mean() - truth
    corrected = iq.reference_half(one, two).mean() - truth
    assert plain < -0.8  # the curve is concave: noise darkens
    assert abs(corrected) < 0.05 * abs(plain)


def test_references_take_four_renders() -> None:
    rng = np.random.default_rng(4)
    linear = picture(rng)
    a, b = iq.references([linear] * 4, exposure_ev=0.5)
    np.testing.assert_allclose(a, iq.srgb_8bit(linear, 0.5))
    np.testing.assert_allclose(a, b)


def test_srgb_known_values() -> None:
    out = iq.srgb_8bit([[0.0, 0.0031308, 0.2140411], [1.0, 7.0, -1.0]])
    np.testing.assert_allclose(out, [[0, 10.3148, 127.5], [255, 255, 0]], atol=0.01)
    assert iq.srgb_8bit([0.5, 0.5, 0.5], 1.0)[0] == pytest.approx(255)


def test_ssim_equals_scikit_image_and_debiased_agrees_on_clean_references() -> None:
    rng = np.random.default_rng(5)
    truth = iq.srgb_8bit(picture(rng))
    x = truth + 6 * rng.standard_normal(SHAPE)
    expected = structural_similarity(x, truth, channel_axis=2, data_range=255)
    assert iq.ssim(x, truth, truth) == pytest.approx(expected, abs=1e-9)
    assert iq.ssim_debiased(x, truth, truth) == pytest.approx(expected, abs=1e-3)


def test_debiased_ssim_hardly_feels_reference_noise() -> None:
    rng = np.random.default_rng(6)
    truth = iq.srgb_8bit(picture(rng))
    x = truth + 4 * rng.standard_normal(SHAPE)
    a, b = (truth + 6 * rng.standard_normal(SHAPE) for _ in range(2))
    clean = iq.ssim(x, truth, truth)
    assert abs(iq.ssim_debiased(x, a, b) - clean) < 0.3 * abs(iq.ssim(x, a, b) - clean)


def test_mean_over_frames_averages_errors_not_decibels() -> None:
    frames = [iq.Quality(1.0, iq.psnr_db(1.0), 0.9, 0.91), iq.Quality(9.0, iq.psnr_db(9.0), 0.7, 0.71)]
    out = iq.mean_quality(frames)
    assert out.psnr_db == pytest.approx(10 * np.log10(255**2 / 5))
    assert out.ssim == pytest.approx(0.8)


def test_perfect_picture_has_infinite_psnr() -> None:
    truth = iq.srgb_8bit(picture(np.random.default_rng(7)))
    assert iq.compare(truth, truth, truth).psnr_db == float("inf")
