"""A textured room corner ray-cast exactly (three planes, smooth noise): pictures whose camera poses are known."""

from functools import lru_cache

import cv2
import numpy as np

from annotators.types import Capture
from dataengine.geometry import se3

SIZE = (320, 240)
K = np.array([[300.0, 0.0, 159.5], [0.0, 300.0, 119.5], [0.0, 0.0, 1.0]])
_PLANES = ((0, -1.0), (1, -0.8), (2, 0.0))  # axis, offset: two walls and the floor of a corner seen from +x +y +z


@lru_cache(maxsize=4)
def texture(seed: int, contrast: float = 1.0) -> np.ndarray:
    """Smooth noise with detail at several scales, 0 … 255."""
    rng = np.random.default_rng(seed)
    out = sum(cv2.GaussianBlur(rng.normal(size=(1024, 1024)), (0, 0), s) * s for s in (2.5, 5.0, 12.0))
    return np.clip(128 + contrast * 50 * out / np.std(out), 0, 255).astype(np.float32)


def picture(T_world_cam: np.ndarray, contrast: float = 1.0) -> np.ndarray:
    """RGB picture (H, W, 3) uint8 of the corner, 2×2 samples a pixel."""
    w, h = SIZE
    u, v = np.meshgrid((np.arange(2 * w) + 0.5) / 2 - 0.5, (np.arange(2 * h) + 0.5) / 2 - 0.5)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) @ T_world_cam[:3, :3].T
    eye, best, luma = T_world_cam[:3, 3], np.full(u.shape, np.inf), np.zeros(u.shape, np.float32)
    for axis, offset in _PLANES:
        distance = (offset - eye[axis]) / np.where(np.abs(rays[..., axis]) < 1e-9, 1e-9, rays[..., axis])
        hit = eye + distance[..., None] * rays
        a, b = (hit[..., k] * 300.0 + 512.0 for k in range(3) if k != axis)
        where = a.astype(np.float32), b.astype(np.float32)
        seen = cv2.remap(texture(axis, contrast), *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        nearer = (distance > 0) & (distance < best)
        best[nearer], luma[nearer] = distance[nearer], seen[nearer]
    small = cv2.resize(luma, SIZE, interpolation=cv2.INTER_AREA).round().astype(np.uint8)
    return np.repeat(small[..., None], 3, axis=-1)


def arc(count: int, width_m: float = 0.7) -> np.ndarray:
    """Poses (count, 4, 4) sideways past the corner, looking into it."""
    along = np.linspace(-width_m / 2, width_m / 2, count)
    eyes = np.stack([0.3 - along, 0.3 + along, 0.8 + 0.1 * np.sin(6 * along)], -1)
    return np.stack([se3.look_at(eye, (-0.7, -0.5, 0.2 + 0.1 * s)) for eye, s in zip(eyes, along, strict=True)])


def turning(count: int) -> np.ndarray:
    """Poses (count, 4, 4) that only turn."""
    return np.stack([se3.look_at((0.3, 0.3, 0.8), (-0.7 + a, -0.5 - a, 0.2)) for a in np.linspace(-0.25, 0.25, count)])


def capture(pictures: list[np.ndarray]) -> Capture:
    """A capture of pictures in memory."""
    names = tuple(f"{i}.png" for i in range(len(pictures)))
    return Capture("corner", names, SIZE, K, np.arange(len(pictures)) / 10.0, lambda i: pictures[i], "panda")
