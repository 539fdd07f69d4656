"""Did something other than the robot move? Free-space violations between depth images of known pose.

A surface that one frame saw must not be see-through in another. Where it is, over a patch of some size and on neither frame's robot,
a thing was there and is gone; the other direction finds where it came to. What is
hidden from one view by something in front of it is no evidence.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annotators.types import Array, Capture, Flag
from dataengine.geometry import camera, se3

GAP_M, GAP_SHARE = 0.025, 0.02
"""A measured surface must be this far, plus this share of its distance, behind the one remembered."""
PATCH_M2 = 6e-4
"""Smallest area of a vanished surface: 2.5 cm by 2.5 cm."""
FRAMES = 6
ROBOT_MARGIN_PX = 9
STEP = 2


def moved_object(capture: Capture, T_world_cam: Array, robot: Callable[[int], Array]) -> tuple[Flag, ...]:
    """A flag `object_moved` with the frames after the move, or nothing. `T_world_cam` metric (NaN: no pose); `robot(i)` (H, W) bool.

    Looks at six frames spread over the capture; needs depth, and says nothing without.
    """
    posed = np.flatnonzero(np.isfinite(T_world_cam[:, 0, 0]))
    if capture.depth_z_m is None or len(posed) < 2:
        return ()
    frames = posed[np.linspace(0, len(posed) - 1, min(FRAMES, len(posed))).astype(int)]
    views = [(_masked(capture, int(frame), robot), capture.depth_z_m(int(frame))) for frame in frames]
    n = len(frames)
    gone = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                gone[i, j] = vanished_area(capture.K, views[i][0], T_world_cam[frames[i]], *views[j], T_world_cam[frames[j]])
    seen = gone > PATCH_M2
    # A move between k-1 and k shows between frames on either side of it and between no two on the same side.
    across = np.array([_share(seen[:k, k:], seen[k:, :k]) - _share(seen[:k, :k], seen[k:, k:]) for k in range(1, n)])
    best = int(np.argmax(across)) + 1
    if across[best - 1] < 0.3:
        return ()
    area = float(np.median(gone[:best, best:][seen[:best, best:]])) if seen[:best, best:].any() else float(gone.max())
    text = f"something of {1e4 * area:.0f} cm² moved between frames {frames[best - 1]} and {frames[best]}"
    return (Flag("object_moved", text, tuple(range(int(frames[best]), len(capture.frames)))),)


def _share(*blocks: Array) -> float:
    values = np.concatenate([block.ravel() for block in blocks])
    return float(values.mean()) if len(values) else 0.0


def _masked(capture: Capture, frame: int, robot: Callable[[int], Array]) -> Array:
    """Depth without the robot and a margin around it."""
    import cv2

    assert capture.depth_z_m is not None
    size = 2 * ROBOT_MARGIN_PX + 1
    near = cv2.dilate(robot(frame).astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    return np.where(near, 0, capture.depth_z_m(frame)).astype(np.float32)


def vanished_area(K: Array, depth_a: Array, T_world_a: Array, masked_b: Array, depth_b: Array, T_world_b: Array) -> float:
    """Area in m² of the largest patch of A's surfaces (robot left out) that B looks through; `masked_b` is B without its robot."""
    import cv2

    z = depth_a[::STEP, ::STEP].astype(float)
    v, u = np.nonzero(z > 0)
    value = z[v, u]
    points = np.stack([(u * STEP - K[0, 2]) / K[0, 0] * value, (v * STEP - K[1, 2]) / K[1, 1] * value, value], axis=-1)
    in_b = se3.transform(se3.inverse(T_world_b) @ T_world_a, points)
    ahead = in_b[:, 2] > 0.1
    uv = np.rint(camera.project(K, np.where(ahead[:, None], in_b, (0.0, 0.0, 1.0)))).astype(int)
    height, width = depth_b.shape
    inside = ahead & (uv[:, 0] > 0) & (uv[:, 1] > 0) & (uv[:, 0] < width - 1) & (uv[:, 1] < height - 1)
    rows, columns = np.where(inside, uv[:, 1], 1), np.where(inside, uv[:, 0], 1)
    # The nearest measured surface of the neighbourhood: an edge that is one pixel off must not count.
    near = cv2.erode(np.where(masked_b > 0, masked_b, np.float32(0)), np.ones((5, 5), np.uint8))
    measured = near[rows, columns]
    through = inside & (measured > 0) & (measured - in_b[:, 2] > GAP_M + GAP_SHARE * in_b[:, 2])
    image = np.zeros(z.shape, np.uint8)
    image[v[through], u[through]] = 1
    image = cv2.morphologyEx(image, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, label = cv2.connectedComponents(image, connectivity=4)
    if count < 2:
        return 0.0
    pixel = np.where(z > 0, (z * STEP) ** 2 / (K[0, 0] * K[1, 1]), 0.0)
    return float(np.bincount(label.ravel(), pixel.ravel())[1:].max())
