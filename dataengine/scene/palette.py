"""Colours of things and of light, linear RGB."""

from __future__ import annotations

import colorsys

import numpy as np

from dataengine.scene.spec import Vector

HUES: dict[str, tuple[str, ...]] = {
    "metal": ("d9dadb", "c4c6c8", "a9abad", "c9b79c", "b8895f", "8f9296"),
    "plastic": ("c8452f", "2f6fae", "3c8c62", "e0a63a", "e8e4dc", "2d2f33", "7a5c9e", "d97f4a", "5aa3a8", "8c8f94"),
    "wood": ("c9a06d", "a97c50", "7f5a3a", "dcc195", "5f4331", "b98e62"),
    "fabric": ("6d7f93", "a3574f", "8a8f7a", "d6cdbd", "3f4a5a", "b58a5c", "5f7a6a", "8d7a94"),
    "ceramic": ("efece4", "dfe3e2", "5b7f95", "b9583f", "87a08c", "2f3a44", "d8b15f"),
    "stone": ("b7b2a8", "8b8a87", "cfc8ba", "6e6a66", "a5978a", "dad7d0"),
    "paint": ("f0ede6", "dcd6c8", "b9c4c9", "8fa3a0", "c9a08a", "6f7f8c", "e3d6b8", "a9b39a"),
    "glass": ("f4f8f6", "dff0ea", "e9eef6"),
}
"""sRGB colours per kind of material, muted as in a lab or a kitchen."""


def hex_to_linear(text: str) -> Vector:
    """`"ff8000"` (sRGB) → linear RGB."""
    c = np.array([int(text[k : k + 2], 16) for k in (0, 2, 4)]) / 255
    return _vector(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))


def jittered(color: Vector, rng: np.random.Generator, hue: float = 0.02, saturation: float = 0.15, value: float = 0.2) -> Vector:
    """The colour with its HSV components moved by up to the given amounts (hue absolute, the others relative)."""
    h, s, v = colorsys.rgb_to_hsv(*color)
    dh, ds, dv = rng.uniform(-1, 1, 3) * (hue, saturation, value)
    return _vector(colorsys.hsv_to_rgb((h + dh) % 1.0, float(np.clip(s * (1 + ds), 0, 1)), float(np.clip(v * (1 + dv), 0.005, 0.95))))


def muted(color: Vector) -> Vector:
    """Half way to a light grey of its own brightness."""
    grey = 0.15 + 0.6 * float(np.mean(color))
    return mixed(color, (grey, grey, grey), 0.5)


def scaled(color: Vector, factor: float) -> Vector:
    """Brighter or darker, clipped to 0…0.95."""
    return _vector(np.clip(np.asarray(color) * factor, 0.0, 0.95))


def mixed(a: Vector, b: Vector, share_of_b: float) -> Vector:
    """a + (b − a)·share."""
    return _vector(np.asarray(a) * (1 - share_of_b) + np.asarray(b) * share_of_b)


def light_color(temperature_k: float, neutral_k: float = 5200.0, adaptation: float = 0.6) -> Vector:
    """Colour of a lamp of mean 1, as a camera balanced for `neutral_k` sees it.

    Planck's law at the sRGB primaries' dominant wavelengths (611, 549, 464 nm), relative to the neutral temperature;
    `adaptation` is the share of the cast that automatic white balance takes out.
    """
    c2_m_k = 1.438777e-2
    wavelength_m = np.array([611e-9, 549e-9, 464e-9])

    def planck(t: float) -> np.ndarray:
        return 1.0 / np.expm1(c2_m_k / (wavelength_m * t))

    cast = planck(temperature_k) / planck(neutral_k)
    cast = (cast / cast.mean()) ** (1 - adaptation)
    return _vector(cast / cast.mean())


def _vector(values: object) -> Vector:
    a = np.asarray(values, float)
    return float(a[0]), float(a[1]), float(a[2])
