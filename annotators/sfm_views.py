"""The pictures structure from motion works on: one per moving frame, one averaged picture per static segment, and which are keyframes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import DataEngineError

from .motion_mask import changed_pixels, gray, sample_frames
from .types import Capture

MaskOf = Callable[[int], NDArray]
_FLOW_WIDTH_PX = 320
_MASK_MARGIN_PX = 9
MIN_KEYFRAMES = 40
KEYFRAME_STEP = (0.01, 0.05)
"""Smallest and largest median image motion between keyframes, share of the picture's width."""


class SfmError(DataEngineError):
    """Camera poses that could not be computed for a reason other than the capture: a wrong option, a crash, a folder in use."""


def view_ranges(count: int, static: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Half-open frame ranges that share one picture: each static segment is one view, every other frame its own.

    Raises `SfmError` for segments that overlap or leave the capture.
    """
    views, at = [], 0
    for first, end in sorted(static):
        if not at <= first < end <= count:
            raise SfmError(f"static segment {first}:{end} overlaps another or leaves the capture of {count} frames; give disjoint ranges")
        views += [(i, i + 1) for i in range(at, first)] + [(first, end)]
        at = end
    return views + [(i, i + 1) for i in range(at, count)]


def view_picture(capture: Capture, view: tuple[int, int], masks: MaskOf | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Luma (H, W) and what to leave out (H, W, true = ignore; None = nothing) of one view.

    A static view is the temporal median of up to 15 frames, which also lowers noise; what moved in it is left out.
    """
    import cv2

    frames = sample_frames(view)
    stack = np.stack([gray(capture, i) for i in frames])
    ignore = changed_pixels(stack)
    if masks is not None:
        margin = np.ones((_MASK_MARGIN_PX, _MASK_MARGIN_PX), np.uint8)
        for i in frames:
            given = np.asarray(masks(i), bool)
            if given.shape != ignore.shape:
                sizes = f"{given.shape[::-1]} (width, height), the images are {ignore.shape[::-1]}"
                raise SfmError(f"mask of frame {i} is {sizes}; give masks at the size of the images")
            ignore |= cv2.dilate(given.astype(np.uint8), margin).astype(bool)
    picture = stack[0] if len(stack) == 1 else np.median(stack, axis=0).round().astype(np.uint8)
    return picture, ignore if ignore.any() else None


def flow_step(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Median image motion between two pictures as a share of the width (pyramidal Lucas–Kanade, Bouguet 2000); 1 if tracking fails."""
    import cv2

    corners = cv2.goodFeaturesToTrack(before, 150, 0.01, 8)
    if corners is None:
        return 1.0
    moved, status, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners), winSize=(15, 15), maxLevel=4)
    kept = status.ravel() == 1
    if kept.sum() < 8:
        return 1.0
    return float(np.median(np.linalg.norm((moved - corners)[kept, 0], axis=-1)) / before.shape[1])


def keyframes_from_flow(steps: Sequence[float]) -> list[int]:
    """View numbers to reconstruct from, given the motion between consecutive views (len(steps) = views − 1).

    A keyframe is taken whenever the path of image motion has grown by one step; the step adapts so that short paths still get about
    40 keyframes. First and last view always count.
    """
    path = np.concatenate([[0.0], np.cumsum(steps)])
    step = float(np.clip(path[-1] / MIN_KEYFRAMES, *KEYFRAME_STEP))
    chosen, due = [0], step
    for view in range(1, len(path)):
        if path[view] >= due - 1e-12 or view == len(path) - 1:
            chosen.append(view)
            due = path[view] + step
    return chosen


def write_views(
    capture: Capture, views: Sequence[tuple[int, int]], folder: Path, masks: MaskOf | None, report: Callable[[float], None]
) -> tuple[list[int], str]:
    """Write `images/NNNNNN.png` and `masks/NNNNNN.png.png` (COLMAP's naming, 0 = ignore) of every view; return keyframes and a digest.

    Files whose content is already there are left alone. The digest covers all pixels and masks.
    """
    import cv2

    digest, steps, before = hashlib.sha256(), [], None
    for number, view in enumerate(views):
        picture, ignore = view_picture(capture, view, masks)
        digest.update(picture.tobytes())
        digest.update(b"" if ignore is None else np.packbits(ignore).tobytes())
        name = view_name(view)
        _write_png(folder / "images" / name, picture)
        keep = np.full(picture.shape, 255, np.uint8) if ignore is None else np.where(ignore, 0, 255).astype(np.uint8)
        _write_png(folder / "masks" / f"{name}.png", keep)  # for every view: the library drops all features of one without
        height = picture.shape[0] * _FLOW_WIDTH_PX // picture.shape[1]
        small = np.asarray(cv2.resize(picture, (_FLOW_WIDTH_PX, height), interpolation=cv2.INTER_AREA), np.uint8)
        if before is not None:
            steps.append(flow_step(before, small))
        before = small
        report((number + 1) / len(views))
    return keyframes_from_flow(steps), digest.hexdigest()


def view_name(view: tuple[int, int]) -> str:
    """File name of a view's picture: its first frame."""
    return f"{view[0]:06d}.png"


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    import cv2

    data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
