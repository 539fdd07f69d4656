"""Time-of-flight depth of the Azure Kinect kind: amplitude-modulated continuous wave (AMCW), simulated from phasors.

Each surface point returns a phasor A·exp(j 4π f r / c) with A = albedo · cos θ / r². A pixel adds the phasors of its
footprint, which is what makes flying pixels at depth edges; four taps measure it with shot and read noise (Lange & Seitz
2001); several modulation frequencies are unwrapped jointly; dark, saturated and contradictory pixels are dropped.

Not modelled: light that arrives over other surfaces (multipath), phase wiggling, motion between taps, temperature drift,
lens scattering, the hexagonal illumination of the real device. Its true modulation frequencies are not published; the
three here give its range and, with the photon budget, its stated noise (σ ≤ 17 mm to 3.86 m at 15 % reflectance).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import SensorError
from dataengine.sensor.incidence import checked_depth_and_normals, incidence_cosine, viewing_rays

SPEED_OF_LIGHT_M_S = 299_792_458.0


@dataclass(frozen=True)
class AzureTof:
    """Modulation, photon budget and rejection rules.

    frequencies_hz: whole numbers, highest first; one alone wraps at c/2f, several at c/2gcd. photons: signal electrons
    per tap of a white wall at 1 m. contrast: modulation contrast. ambient: background light on a white surface, relative.
    read_e: read noise in electrons. full_e: electrons at which a tap saturates. min_signal_e: smallest modulated signal.
    footprint_px: Gaussian sigma of a pixel's footprint. max_disagreement_m: weighted deviation of the frequencies from
    their mean. Range in metres.
    """

    frequencies_hz: tuple[int, ...] = (200_000_000, 160_000_000, 50_000_000)
    photons: float = 17_000.0
    contrast: float = 0.8
    ambient: float = 0.005
    read_e: float = 20.0
    full_e: float = 120_000.0
    min_signal_e: float = 80.0
    footprint_px: float = 0.6
    max_disagreement_m: float = 0.03
    min_range_m: float = 0.25
    max_range_m: float = 5.5

    def __post_init__(self) -> None:
        if not self.frequencies_hz or any(int(f) != f or f <= 0 for f in self.frequencies_hz):
            raise SensorError(f"AzureTof.frequencies_hz is {self.frequencies_hz}; give positive whole numbers of hertz")
        numbers = (self.photons, self.contrast, self.full_e, self.max_disagreement_m)
        if not all(0 < value < np.inf for value in numbers):
            raise SensorError("AzureTof needs positive, finite photons, contrast, full_e and max_disagreement_m")
        if not 0 <= self.min_range_m < self.max_range_m:
            raise SensorError(f"AzureTof range {self.min_range_m}..{self.max_range_m} m is empty; give min < max")
        if min(self.ambient, self.read_e, self.min_signal_e, self.footprint_px) < 0:
            raise SensorError("AzureTof.ambient, read_e, min_signal_e and footprint_px must not be negative")

    @property
    def unambiguous_m(self) -> float:
        """Range at which all frequencies together wrap around."""
        return SPEED_OF_LIGHT_M_S / (2 * gcd(*(int(f) for f in self.frequencies_hz)))


def range_sigma_m(signal: ArrayLike, background: ArrayLike, frequency_hz: float, settings: AzureTof) -> NDArray[np.float64]:
    """σ_r = c / (4√2 π f) · √(N_B + read²) / (contrast · N_A) of one frequency (Lange & Seitz 2001, eq. 6).

    signal, background: A and A + ambient in units of a white wall at 1 m; N = photons · these.
    """
    electrons = settings.photons * np.asarray(background, np.float64)
    modulated = settings.contrast * settings.photons * np.asarray(signal, np.float64)
    return SPEED_OF_LIGHT_M_S / (4 * np.sqrt(2) * np.pi * frequency_hz) * np.sqrt(electrons + settings.read_e**2) / modulated


def simulate_azure_tof(
    depth_z_m: ArrayLike,
    normals_cam: ArrayLike,
    albedo: ArrayLike,
    K: ArrayLike,
    rng: np.random.Generator,
    settings: AzureTof | None = None,
) -> NDArray[np.float32]:
    """Measured depth_z_m (H, W) float32, 0 = none, of a true one with normals_cam (H, W, 3) and infrared albedo (H, W)."""
    chosen = settings or AzureTof()
    depth, normals, intrinsics = checked_depth_and_normals(depth_z_m, normals_cam, K)
    reflectance = np.asarray(albedo, np.float64)
    if reflectance.shape != depth.shape or not ((reflectance >= 0) & (reflectance <= 1)).all():
        raise SensorError(f"albedo must be an image {depth.shape} of values 0..1, got shape {reflectance.shape}")
    rays = viewing_rays(intrinsics, (depth.shape[0], depth.shape[1]))
    stretch = np.linalg.norm(rays, axis=-1)
    range_m = depth * stretch
    reflectance = np.where(depth > 0, reflectance, 0.0)
    amplitude = reflectance * incidence_cosine(rays, normals) / np.maximum(range_m, 1e-3) ** 2
    background = _footprint(amplitude + chosen.ambient * reflectance, chosen.footprint_px)
    electrons = chosen.photons * background
    sigma = np.sqrt(2 * (electrons + chosen.read_e**2))
    ranges, weakest = [], np.full(depth.shape, np.inf)
    for frequency in chosen.frequencies_hz:
        phase = 4 * np.pi * frequency / SPEED_OF_LIGHT_M_S * range_m
        # A pair of opposite taps: its sum, and so its noise, does not depend on the phase.
        i, q = (
            2 * chosen.photons * chosen.contrast * _footprint(amplitude * part, chosen.footprint_px)
            + sigma * rng.standard_normal(depth.shape)
            for part in (np.cos(phase), np.sin(phase))
        )
        ranges.append(np.mod(np.arctan2(q, i) / (2 * np.pi), 1.0) * SPEED_OF_LIGHT_M_S / (2 * frequency))
        weakest = np.minimum(weakest, np.hypot(i, q) / 2)
    measured, disagreement = unwrap(np.stack(ranges), chosen)
    usable = (weakest >= chosen.min_signal_e) & (electrons * (1 + chosen.contrast) <= chosen.full_e)
    usable &= (disagreement <= chosen.max_disagreement_m) & (measured >= chosen.min_range_m) & (measured <= chosen.max_range_m)
    return np.where(usable, measured / stretch, 0.0).astype(np.float32)


def unwrap(wrapped_m: NDArray[np.float64], settings: AzureTof) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Joint range (H, W) of wrapped ranges (F, H, W), and how far the frequencies disagree (m).

    Every wrap count of the first frequency up to the range limit is tried. Weights f² are the inverse variances at equal
    signal; the count with the smallest weighted variance wins and the weighted mean is the answer.
    One frequency alone stays wrapped.
    """
    periods = [SPEED_OF_LIGHT_M_S / (2 * f) for f in settings.frequencies_hz]
    weights = np.square(np.asarray(settings.frequencies_hz, np.float64))
    weights /= weights.sum()
    best, cost = np.zeros(wrapped_m.shape[1:]), np.full(wrapped_m.shape[1:], np.inf)
    reach = min(settings.unambiguous_m, settings.max_range_m + periods[0])
    for turns in range(max(round(reach / periods[0]), 1)):
        candidate = wrapped_m[0] + turns * periods[0]
        mean, square = np.zeros_like(candidate), np.zeros_like(candidate)
        for other, period, weight in zip(wrapped_m[1:], periods[1:], weights[1:], strict=True):
            residual = other - candidate
            residual -= period * np.rint(residual / period)
            mean += weight * residual
            square += weight * residual**2
        variance = square - mean**2
        better = variance < cost
        cost = np.where(better, variance, cost)
        best = np.where(better, candidate + mean, best)
    return best, np.sqrt(np.maximum(cost, 0))


def _footprint(image: NDArray[np.float64], sigma_px: float) -> NDArray[np.float64]:
    """Mean over the pixel's footprint: Gaussian weights on 5 x 5 pixels."""
    if sigma_px == 0:
        return image
    return np.asarray(cv2.GaussianBlur(np.ascontiguousarray(image), (5, 5), sigma_px, borderType=cv2.BORDER_REPLICATE), np.float64)
