"""Through which frames of a capture the camera did not move, whatever moved in front of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annotators.types import Capture

Array = np.ndarray

POINTS = 400
RESTING_PX = 1.5
"""A point that moved less, in an image of REFERENCE_WIDTH_PX, may be a resting one: on weak texture tracking is no better."""
BACK_PX = 0.5
"""A point counts as followed when it comes back to within this distance."""
DRIFT_PX = 0.2
"""The median of the resting points, which is known far better than one of them, moved less."""
REFERENCE_WIDTH_PX = 640
RESTING_SHARE = 0.5
"""Of the points that can be followed, at least: a robot that moves covers less than half of a useful picture."""
FEWEST_RESTING = 15
"""With fewer resting points, images are compared pixel by pixel."""
CHANGED_LEVELS, CHANGED_SHARE = 8.0, 0.1
"""So many levels between smoothed pixels are a change; fewer changed pixels are somebody who moves, not the camera."""
LOCAL_PX = 8.0
NOISE_LEVELS = 3.0
"""Contrast below this is the image's noise and is not amplified."""
LEAST_CORNER = 4e-3
"""Smaller eigenvalue of a corner's normal matrix in images of contrast, per pixel (OpenCV's measure); noise stays below."""
FEWEST_FRAMES = 4
"""Shorter rests are no segment: a hand that turns round stands still for a moment."""


def static_segments(capture: Capture, progress: Callable[[int], None] | None = None) -> tuple[tuple[int, int], ...]:
    """Half-open frame ranges, in order and disjoint, through which the camera stood still.

    Every frame is compared with the first of its segment, so a slow drift ends a segment. Corners outside the robot's mask (where
    there is one) are followed by pyramidal Lucas–Kanade (Bouguet 2001), forward and back, in images of local contrast, which lamps
    and exposure do not change; the camera rests while at least half of what can be followed stays where it is and its median does
    too. `progress(i)` is called after each frame.
    """
    count = len(capture.frames)
    found: list[tuple[int, int]] = []
    start = 0
    reference = _Reference(capture, 0)
    for i in range(1, count + 1):
        if i == count or not reference.rests(capture.rgb(i)):
            if i - start >= min(FEWEST_FRAMES, count):
                found.append((start, i))
            start, reference = i, _Reference(capture, i) if i < count else reference
        if progress is not None:
            progress(i - 1)
    return tuple(found)


def contrast(rgb: Array) -> Array:
    """(H,W,3) → (H,W) uint8: brightness less its local mean, over the local standard deviation (at least NOISE_LEVELS)."""
    import cv2

    grey = cv2.GaussianBlur(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    high = grey - cv2.GaussianBlur(grey, (0, 0), LOCAL_PX)
    spread = np.sqrt(cv2.GaussianBlur(high * high, (0, 0), 2 * LOCAL_PX) + NOISE_LEVELS**2)
    return np.clip(128 + 42 * high / spread, 0, 255).astype(np.uint8)


class _Reference:
    """One frame's corners, for comparing others with it."""

    def __init__(self, capture: Capture, i: int) -> None:
        import cv2

        self.rgb = capture.rgb(i)
        self.image = contrast(self.rgb)
        self.unit_px = self.image.shape[1] / REFERENCE_WIDTH_PX
        free = np.full(self.image.shape, 255, np.uint8)
        if capture.mask is not None:
            robot = capture.mask(i).astype(np.uint8)
            free[cv2.dilate(robot, np.ones((15, 15), np.uint8)) > 0] = 0
        corners = cv2.goodFeaturesToTrack(self.image, POINTS, 0.02, 8, mask=free)
        self.points = np.zeros((0, 1, 2), np.float32) if corners is None else corners

    def rests(self, rgb: Array) -> bool:
        """Whether the camera stood in this image where it stood in the reference."""
        moved, good = follow(self.image, contrast(rgb), self.points, BACK_PX * self.unit_px)
        flow = (moved - self.points)[good, 0] / self.unit_px
        resting = flow[np.linalg.norm(flow, axis=1) < RESTING_PX]
        if len(flow) < FEWEST_RESTING:
            return changed_share(self.rgb, rgb) < CHANGED_SHARE
        if len(resting) < max(RESTING_SHARE * len(flow), FEWEST_RESTING):
            return False
        return bool(np.linalg.norm(np.median(resting, axis=0)) < DRIFT_PX)


def changed_share(before: Array, after: Array) -> float:
    """Share of the pixels (H,W,3) that differ by more than noise."""
    import cv2

    smooth = [cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), 2.0).astype(np.float32) for image in (before, after)]
    return float((np.abs(smooth[0] - smooth[1]).max(-1) > CHANGED_LEVELS).mean())


def follow(before: Array, after: Array, points: Array, slack_px: float) -> tuple[Array, Array]:
    """Points (P,1,2) of the grey image `before` in `after`, and which of them (P,) come back to within `slack_px`."""
    import cv2

    if len(points) == 0:
        return points, np.zeros(0, bool)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)
    options = {"winSize": (15, 15), "maxLevel": 3, "criteria": criteria, "minEigThreshold": LEAST_CORNER}
    there, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
    good = (ok[:, 0] > 0) & (ok_back[:, 0] > 0) & (np.linalg.norm(back - points, axis=-1)[:, 0] < slack_px)
    return there, good
