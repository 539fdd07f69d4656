"""What moves in front of a camera that does not: the first, model-free mask of the robot and of people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .types import Capture

_SAMPLES = 15
_MIN_RANGE_LEVELS = 12.0
_NOISE_FACTOR = 8.0


def sample_frames(segment: tuple[int, int], samples: int = _SAMPLES) -> list[int]:
    """At most `samples` frame numbers, evenly spread over the half-open range `segment`, ends included."""
    first, end = segment
    return sorted({int(i) for i in np.linspace(first, end - 1, min(samples, end - first)).round()})


def gray(capture: Capture, frame: int) -> NDArray[np.uint8]:
    """Luma of one frame, (H, W)."""
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(capture.rgb(frame)), cv2.COLOR_RGB2GRAY), np.uint8)


def motion_mask(capture: Capture, segment: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (H, W) that changed during a static-camera segment (half-open frame range); true = something moved there.

    The range of the smoothed luma over time is compared with the image's own noise (the median pixel's range is noise as long as
    less than half of the picture moves). A robot that stands still during the segment is not seen.
    """
    return changed_pixels(np.stack([gray(capture, i) for i in sample_frames(segment)]))


def changed_pixels(stack: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`motion_mask` of luma images (T, H, W) that are already in memory."""
    import cv2

    if len(stack) < 2:
        return np.zeros(stack.shape[1:], bool)
    smooth = np.stack([cv2.GaussianBlur(image, (5, 5), 0).astype(np.float32) for image in stack])
    spread = smooth.max(0) - smooth.min(0)
    limit = max(_MIN_RANGE_LEVELS, _NOISE_FACTOR * float(np.median(spread)))
    moved = (spread > limit).astype(np.uint8)
    moved = cv2.morphologyEx(moved, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    moved = cv2.morphologyEx(moved, cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8))
    return np.asarray(cv2.dilate(moved, np.ones((9, 9), np.uint8)), bool)
