"""How far a picture is from the truth when the truth is only known through noisy path-traced references.

PSNR. Let T be the true picture, A = T + a and B = T + b two references whose errors a, b are independent of each other and
have mean zero. Then for any picture X that is independent of a and b

    E[(X - A)(X - B)] = (X - T)² - (X - T)(E[a] + E[b]) + E[a] E[b] = (X - T)²,

so the mean of that product over the pixels is an unbiased estimate of the mean squared error; reference noise does not enter,
where (X - (A + B)/2)² would add var(a)/2.

That needs references without bias *in the space of the metric*. sRGB encoding and clipping bend: the mean of f(T + noise) is
not f(T) but f(T) + var f''/2 + …, and the variance falls as 1/samples. So each of A and B is made of two independent renders
r₁, r₂ of the same number of samples and taken as 2 f((r₁ + r₂)/2) - (f(r₁) + f(r₂))/2: the terms in 1/samples cancel (Quenouille's
jackknife, 1956).

SSIM (Wang et al. 2004, 7 × 7 windows as scikit-image's default). `ssim` compares with the mean of A and B. `ssim_debiased` replaces the
reference's own variance by the covariance of A and B, which are the same thing for a clean reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter
from skimage.metrics import structural_similarity

WHITE = 255.0
WINDOW_PX = 7

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """psnr_db from the debiased mean squared error `mse` (8-bit units²); SSIM against the mean reference and debiased."""

    mse: float
    psnr_db: float
    ssim: float
    ssim_debiased: float


def srgb_8bit(rgb_linear: ArrayLike, exposure_ev: float = 0.0) -> Image:
    """Scene-linear (…,3) → sRGB in 0…255, not rounded (IEC 61966-2-1; Blender's Standard view is the same curve)."""
    x = np.clip(np.asarray(rgb_linear, np.float64)[..., :3] * 2.0**exposure_ev, 0.0, 1.0)
    return WHITE * np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def reference_half(render_1: ArrayLike, render_2: ArrayLike, exposure_ev: float = 0.0) -> Image:
    """One reference from two independent scene-linear renders, free of the curve's first-order bias (see the module's text)."""
    r1, r2 = np.asarray(render_1, np.float64), np.asarray(render_2, np.float64)
    whole = srgb_8bit((r1 + r2) / 2, exposure_ev)
    return 2 * whole - (srgb_8bit(r1, exposure_ev) + srgb_8bit(r2, exposure_ev)) / 2


def references(renders: Sequence[ArrayLike], exposure_ev: float = 0.0) -> tuple[Image, Image]:
    """References (A, B) from four independent scene-linear renders of equally many samples."""
    first, second, third, fourth = renders
    return reference_half(first, second, exposure_ev), reference_half(third, fourth, exposure_ev)


def mean_squared_error(image: ArrayLike, a: Image, b: Image) -> float:
    """Debiased mean squared error in 8-bit units²; noise can make it slightly negative for a near-perfect image."""
    x = np.asarray(image, np.float64)
    return float(np.mean((x - a) * (x - b)))


def psnr_db(mse: float) -> float:
    """Peak signal-to-noise ratio of 8-bit images; infinite when the error is within the references' noise."""
    return float(10 * np.log10(WHITE**2 / mse)) if mse > 0 else float("inf")


def ssim(image: ArrayLike, a: Image, b: Image) -> float:
    """scikit-image's mean SSIM against the mean of the references."""
    return float(structural_similarity(np.asarray(image, np.float64), (a + b) / 2, channel_axis=2, data_range=WHITE))


def ssim_debiased(image: ArrayLike, a: Image, b: Image) -> float:
    """Mean SSIM in which var(reference) = cov(A, B) and cov(image, reference) = mean of the two: reference noise cancels."""
    x = np.asarray(image, np.float64)
    mx, ma, mb = (_window_mean(i) for i in (x, a, b))
    bessel = WINDOW_PX**2 / (WINDOW_PX**2 - 1)
    xx = bessel * (_window_mean(x * x) - mx * mx)
    ab = bessel * (_window_mean(a * b) - ma * mb)
    xr = bessel * (_window_mean(x * (a + b) / 2) - mx * (ma + mb) / 2)
    c1, c2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2
    luminance = (mx * (ma + mb) + c1) / (mx * mx + ma * mb + c1)
    structure = (2 * xr + c2) / np.maximum(xx + ab + c2, c2 / 2)  # cov(A, B) may come out below zero where nothing varies
    edge = WINDOW_PX // 2
    return float(np.mean((luminance * structure)[edge:-edge, edge:-edge]))


def compare(image: ArrayLike, a: Image, b: Image) -> Quality:
    """All figures of an 8-bit (or unrounded) image (H,W,3) against references A and B."""
    mse = mean_squared_error(image, a, b)
    return Quality(mse, psnr_db(mse), ssim(image, a, b), ssim_debiased(image, a, b))


def mean_quality(each: Sequence[Quality]) -> Quality:
    """Over frames: the PSNR of the mean squared error, the mean of the SSIMs."""
    mse = float(np.mean([q.mse for q in each]))
    return Quality(mse, psnr_db(mse), float(np.mean([q.ssim for q in each])), float(np.mean([q.ssim_debiased for q in each])))


def _window_mean(image: Image) -> Image:
    return uniform_filter(image, (WINDOW_PX, WINDOW_PX, 1))
