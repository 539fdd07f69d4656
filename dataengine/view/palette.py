"""Colour tables: perceptual maps, colours of ids, hatching. sRGB uint8 everywhere."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rgb = NDArray[np.uint8]

BACKGROUND = (23, 25, 30)
"""Behind id masks and coordinate maps."""
HATCH_DARK, HATCH_LIGHT = (42, 44, 50), (78, 81, 90)
"""Stripes that mean "no value here"."""
GOLDEN_TURN = 0.381966
"""1 − 1/φ of a turn between neighbouring ids: successive hues never come close to each other."""
TABLE_ID, ROOM_ID = 255, 254
TABLE_COLOUR, ROOM_COLOUR = (112, 105, 96), (62, 68, 80)


@lru_cache(maxsize=8)
def colour_map(name: str) -> Rgb:
    """(256, 3) table of one of matplotlib's maps; turbo without its near-black ends."""
    from matplotlib import colormaps

    ends = (0.06, 0.95) if name.startswith("turbo") else (0.0, 1.0)
    table = np.round(colormaps[name](np.linspace(*ends, 256))[:, :3] * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def apply_map(values: ArrayLike, low: float, high: float, name: str) -> Rgb:
    """Numbers (...,) → colours (..., 3); ``low`` maps to the first colour, ``high`` to the last, beyond is clipped."""
    unit = (np.asarray(values, np.float64) - low) / (high - low)
    return colour_map(name)[np.clip(np.nan_to_num(unit) * 255 + 0.5, 0, 255).astype(np.uint8)]


def srgb_from_oklch(lightness: ArrayLike, chroma: ArrayLike, turn: ArrayLike) -> Rgb:
    """OKLCH (lightness 0…1, chroma, hue in turns) → sRGB uint8, out of gamut clipped (Ottosson 2020, "Oklab")."""
    L, C, h = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (lightness, chroma, turn)))
    a, b = C * np.cos(2 * np.pi * h), C * np.sin(2 * np.pi * h)
    lms = np.stack([L + 0.3963377774 * a + 0.2158037573 * b,
                    L - 0.1055613458 * a - 0.0638541728 * b,
                    L - 0.0894841775 * a - 1.2914855480 * b], -1) ** 3  # fmt: skip
    to_linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                          [-1.2684380046, 2.6097574011, -0.3413193965],
                          [-0.0041960863, -0.7034186147, 1.7076147010]])  # fmt: skip
    linear = np.clip(lms @ to_linear.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


@lru_cache(maxsize=1)
def link_colours() -> Rgb:
    """(256, 3) colour of each value of `mask_link`; 0 is the background. A link keeps its colour in every picture."""
    return _id_colours(first_turn=0.69, chroma=0.145)


@lru_cache(maxsize=1)
def object_colours() -> Rgb:
    """(256, 3) colour of each value of `mask_object`: objects bright, table and room muted, 0 the background."""
    table = _id_colours(first_turn=0.14, chroma=0.125).copy()
    table[TABLE_ID], table[ROOM_ID] = TABLE_COLOUR, ROOM_COLOUR
    table.setflags(write=False)
    return table


def _id_colours(first_turn: float, chroma: float) -> Rgb:
    k = np.arange(255)
    lightness = np.array([0.74, 0.62, 0.83])[k % 3]
    table = np.concatenate([[BACKGROUND], srgb_from_oklch(lightness, chroma, first_turn + k * GOLDEN_TURN)])
    table = table.astype(np.uint8)
    table.setflags(write=False)
    return table


def hatch(image: Rgb, where: ArrayLike) -> Rgb:
    """Copy of ``image`` (H, W, 3) with diagonal dark grey stripes over ``where`` (H, W), wide enough to survive in a thumbnail."""
    mask = np.asarray(where, bool)
    period_px = stripe_period_px(mask.shape[1])
    v, u = np.indices(mask.shape)
    stripe = ((u + v) % period_px < period_px // 3)[..., None]
    pattern = np.where(stripe, *(np.array(tone, np.uint8) for tone in (HATCH_LIGHT, HATCH_DARK)))
    return np.where(mask[..., None], pattern, image)


def stripe_period_px(width_px: int) -> int:
    """Distance of stripes in a picture of this width."""
    return max(6, width_px // 50)


def blend(image: Rgb, colour: ArrayLike, alpha: ArrayLike) -> Rgb:
    """``image`` (H, W, 3) mixed with ``colour`` ((3,) or (H, W, 3)) by ``alpha`` ((H, W) or scalar, 0…1)."""
    a = np.asarray(alpha, np.float64)
    a = a[..., None] if a.ndim == 2 else a
    return np.round(image * (1 - a) + np.asarray(colour, np.float64) * a).astype(np.uint8)
