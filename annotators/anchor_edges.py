"""The posed robot's outline against the edges of the photograph itself, where no mask is given.

From every point of the believed outline the nearest strong edge is sought along the outline's normal (Harris and Stennett 1990, RAPID;
Drummond and Cipolla 2002). What is found is sometimes a poster or a shadow: such points disagree with their neighbours and lose their
weight in the solve. Needs a pose that is right to a few pixels, which clicks give.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

STEP_PX = 0.5
SMOOTH_PX = 1.0
LEAST_SLOPE = 4.0
"""Grey levels per pixel, after smoothing: weaker edges are noise."""
CONTEXT_PX = 3.0


def outline_points(mask: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Pixels (n, 2) just inside a silhouette (H, W), its outward unit normals (n, 2), and how far out along them the edge lies (n,).

    The edge is where the silhouette, smoothed like the photograph, falls through one half: good to a tenth of a pixel on a smooth outline.
    """
    import cv2

    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=[1]) > 0
    v, u = np.nonzero(mask & ~inner)
    margin = 2 * CONTEXT_PX
    height, width = mask.shape
    on = (u >= margin) & (v >= margin) & (u < width - margin) & (v < height - margin)
    px = np.stack([u[on], v[on]], -1)
    px = px[rng.choice(len(px), min(count, len(px)), replace=False)]
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), SMOOTH_PX)
    wide = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2 * SMOOTH_PX)
    slope = np.stack([cv2.Sobel(wide, cv2.CV_32F, 1, 0), cv2.Sobel(wide, cv2.CV_32F, 0, 1)], -1)[px[:, 1], px[:, 0]]
    normal = -slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-9)
    along = np.arange(-1.0, 2.01, STEP_PX)
    values = sample(soft, px[:, None] + along[:, None] * normal[:, None])
    below = np.argmax(values < 0.5, axis=1)
    rows = np.arange(len(px))
    before, after = values[rows, below - 1], values[rows, below]
    good = (below > 0) & (before > after)
    out = along[below - 1] + STEP_PX * (before - 0.5) / np.maximum(before - after, 1e-9)
    return px[good], normal[good], out[good]


def edges_along(grey: Array, at_px: Array, normal: Array, gate_px: float) -> Array:
    """How far along its normal (n, 2) each point (n, 2) has the strongest edge within the gate, favouring near ones: (n,), nan for none."""
    import cv2

    soft = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), SMOOTH_PX)
    along = np.arange(-gate_px - STEP_PX, gate_px + 1.5 * STEP_PX, STEP_PX)
    profile = sample(soft, at_px[:, None] + along[:, None] * normal[:, None])
    slope = np.abs(np.gradient(profile, STEP_PX, axis=1))
    peak = (slope[:, 1:-1] >= slope[:, :-2]) & (slope[:, 1:-1] > slope[:, 2:]) & (slope[:, 1:-1] > LEAST_SLOPE)
    score = np.where(peak, slope[:, 1:-1] * np.exp(-0.5 * (2 * along[1:-1] / gate_px) ** 2), 0.0)
    best = np.argmax(score, axis=1) + 1
    rows = np.arange(len(at_px))
    a, b, c = (slope[rows, best + k] for k in (-1, 0, 1))
    shift = 0.5 * (a - c) / np.minimum(a - 2 * b + c, -1e-9)  # vertex of the parabola through three slopes
    return np.where(score[rows, best - 1] > 0, along[best] + STEP_PX * shift, np.nan)


def sample(image: Array, px: Array) -> Array:
    """Bilinear values of an image at pixels (…, 2), borders repeated: (…)."""
    import cv2

    flat = px.reshape(-1, 1, 2).astype(np.float32)
    return cv2.remap(image, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(px.shape[:-1])
