"""Each modality as a picture: arrays in the units of the table of modalities → uint8 sRGB (H, W, 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.view.palette import BACKGROUND, Rgb, apply_map, blend, hatch, link_colours, object_colours, stripe_period_px

DEPTH_MAP, ERROR_MAP = "turbo_r", "RdBu_r"
"""Near is warm. Measured too far is red, too near is blue."""
ERROR_LIMIT_M = 0.020
VISIBLE_COLOUR, HIDDEN_COLOUR = (74, 163, 255), (255, 138, 61)
"""Seen and hidden part of an amodal silhouette."""


def grey(image: NDArray[np.uint8]) -> Rgb:
    """Infrared (H, W) as it is stored, on three channels."""
    return np.repeat(image[..., None], 3, -1)


def depth_range_m(*depths_m: ArrayLike, low: float = 1.0, high: float = 98.0) -> tuple[float, float]:
    """(near, far) percentiles of all valid depths of a clip together, widened to 5 cm steps; (0, 1) without any.

    One range for true and measured depth and for all frames, so that equal colours mean equal depths.
    """
    valid = [d[d > 0] for d in (np.asarray(x)[..., ::2, ::2] for x in depths_m)]
    values = np.concatenate([v.ravel() for v in valid]) if valid else np.zeros(0)
    if not values.size:
        return 0.0, 1.0
    near, far = np.percentile(values, [low, high])
    step = 0.05
    near, far = np.floor(near / step) * step, np.ceil(far / step) * step
    return float(near), float(max(far, near + step))


def depth(depth_z_m: ArrayLike, range_m: tuple[float, float]) -> Rgb:
    """Depth (H, W) in m; 0 (none) is hatched.

    Colours are spaced evenly in inverse depth: equal steps are equal disparities, the scale on which a depth
    camera measures, and a far wall does not use up the colours of the robot.
    """
    z = np.asarray(depth_z_m, np.float64)
    near, far = max(range_m[0], 1e-3), range_m[1]
    inverse = 1 / np.maximum(z, 1e-3)
    return hatch(apply_map(inverse, 1 / near, 1 / far, DEPTH_MAP), z <= 0)


def depth_error_m(depth_sim_m: ArrayLike, depth_z_m: ArrayLike) -> NDArray[np.float64]:
    """Measured − true (H, W) in m; nan where either is missing."""
    sim, true = np.asarray(depth_sim_m, np.float64), np.asarray(depth_z_m, np.float64)
    return np.where((sim > 0) & (true > 0), sim - true, np.nan)


def depth_error(depth_sim_m: ArrayLike, depth_z_m: ArrayLike, limit_m: float = ERROR_LIMIT_M) -> Rgb:
    """Measured − true, white at 0, red too far, blue too near, clipped at ± ``limit_m``; hatched where one is missing."""
    error = depth_error_m(depth_sim_m, depth_z_m)
    return hatch(apply_map(error, -limit_m, limit_m, ERROR_MAP), np.isnan(error))


def normals(stored: NDArray[np.int8]) -> Rgb:
    """Normals as stored (camera axes x right, y down, z forward, × 127) in the usual colours.

    Shown in OpenGL axes (x right, y up, z towards the viewer) as n · 0.5 + 0.5: facing the camera is light blue.
    """
    n = stored.astype(np.float64) / 127 * (1, -1, -1)
    colour = np.round(np.clip(n * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
    return hatch(colour, ~stored.any(-1))


def link_mask(ids: NDArray[np.uint8]) -> Rgb:
    """`mask_link` (H, W): one colour per link, the same in every picture."""
    return link_colours()[ids]


def object_mask(ids: NDArray[np.uint8]) -> Rgb:
    """`mask_object` (H, W): one colour per object, table and room muted."""
    return object_colours()[ids]


def nocs(coordinates: NDArray[np.uint16]) -> Rgb:
    """Object coordinates (H, W, 3), x y z as red green blue; elsewhere the background."""
    colour = np.round(coordinates / 65535 * 255).astype(np.uint8)
    return np.where(coordinates.any(-1)[..., None], colour, np.array(BACKGROUND, np.uint8))


def amodal_robot(amodal: ArrayLike, mask_link: ArrayLike, rgb: Rgb | None = None) -> Rgb:
    """Robot silhouette over a dimmed photograph: seen part blue, hidden part orange and striped, outline white."""
    whole, seen = np.asarray(amodal) > 0, np.asarray(mask_link) > 0
    out = faded(rgb, whole.shape)
    out = blend(out, VISIBLE_COLOUR, 0.62 * (whole & seen))
    out = blend(out, HIDDEN_COLOUR, stripes(whole & ~seen))
    return blend(out, (255, 255, 255), outline(whole))


def amodal_objects(bits: ArrayLike, mask_object: ArrayLike, rgb: Rgb | None = None) -> Rgb:
    """Every object's silhouette over a dimmed photograph: seen part filled, hidden part striped, outlined."""
    sets, ids = np.asarray(bits, np.uint32), np.asarray(mask_object)
    out = faded(rgb, ids.shape)
    for k in range(32):
        whole = (sets >> np.uint32(k)) & np.uint32(1) > 0
        if not whole.any():
            continue
        colour, seen = object_colours()[k + 1], ids == k + 1
        out = blend(out, colour, 0.66 * (whole & seen))
        out = blend(out, colour, stripes(whole & ~seen))
        out = blend(out, blend(colour[None, None], (255, 255, 255), 0.35)[0, 0], outline(whole))
    return out


def faded(rgb: Rgb | None, shape: tuple[int, ...]) -> Rgb:
    """Dark grey version of a photograph to draw on; the plain background without one."""
    if rgb is None:
        return np.full((*shape, 3), BACKGROUND, np.uint8)
    luma = rgb @ np.array([0.2126, 0.7152, 0.0722])
    return grey(np.round(luma * 0.5 + 12).astype(np.uint8))


def stripes(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Opacity of a striped fill of ``mask`` (H, W)."""
    v, u = np.indices(mask.shape)
    period_px = stripe_period_px(mask.shape[1])
    return np.where(mask, np.where((u - v) % period_px < period_px // 2, 0.85, 0.35), 0.0)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of ``mask`` (H, W) with a 4-neighbour outside it; the image border counts as inside."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
