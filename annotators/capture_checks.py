"""Quality control of a capture before anything is solved: blur, exposure, doubled and missing frames, intrinsics, clock, depth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annotators.capture_spec import CaptureError, CaptureSpec
from annotators.types import Capture, Flag

Array = np.ndarray

WINDOW = 7
"""A frame is compared with so many neighbours on each side."""
SOFT = 0.35
"""Sharpness below this share of the neighbours' median is blur."""
ALL_SOFT = 0.02
"""Fine over coarse contrast below this in most frames: the whole capture is out of focus. Sharp pictures have 0.1 and more."""
BRIGHT, DARK = 250, 8
MOST_BRIGHT, MOST_DARK = 0.3, 0.7
JUMP = 0.35
"""Mean brightness off the neighbours' median by this share is a jump of the exposure."""
GAP = 1.6
"""A step in time longer than this many median steps has lost frames."""
LEAST_DEPTH = 0.2
OFF_CENTRE = 0.1
FOV_DEG = (20.0, 130.0)
ASPECT = 0.03


def inspect(capture: Capture, progress: Callable[[int], None] | None = None) -> list[Flag]:
    """All that is wrong with a capture at first sight. Reads every frame once; `progress(i)` is called after each."""
    rows = []
    for i in range(len(capture.frames)):
        rows.append(_measure(capture, i))
        if progress is not None:
            progress(i)
    table = np.array(rows)
    flags = [*_blur(table), *_exposure(table), *_doubled(capture, table), *_missing(capture), *_clock(capture), *_intrinsics(capture)]
    return flags + (_depth(table) if capture.depth_z_m is not None else [])


def _measure(capture: Capture, i: int) -> tuple[float, ...]:
    """(sharpness, fine over coarse contrast, mean level, share too bright, share too dark, checksum, share with depth)."""
    import zlib

    import cv2

    rgb = np.ascontiguousarray(capture.rgb(i))
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    free = ~capture.mask(i) if capture.mask is not None else np.ones(grey.shape, bool)
    fine = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.8), cv2.CV_32F)
    coarse = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 3.2), cv2.CV_32F) * 16
    sharp, base = float(fine[free].var()), float(coarse[free].var())
    filled = float((capture.depth_z_m(i) > 0).mean()) if capture.depth_z_m is not None else 1.0
    low, high = float((grey <= DARK).mean()), float((grey >= BRIGHT).mean())
    return sharp, sharp / max(base, 1e-6), float(grey.mean()), high, low, float(zlib.crc32(rgb.tobytes())), filled


def around(values: Array) -> Array:
    """Median of each value's neighbours (WINDOW on each side, without itself), (N,)."""
    out = []
    for i in range(len(values)):
        near = np.r_[values[max(i - WINDOW, 0) : i], values[i + 1 : i + 1 + WINDOW]]
        out.append(np.median(near) if len(near) else values[i])
    return np.array(out)


def _numbers(chosen: Array) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _blur(table: Array) -> list[Flag]:
    soft = table[:, 0] < SOFT * around(table[:, 0])
    flags = [Flag("blur", f"{soft.sum()} frames are much less sharp than their neighbours", _numbers(soft))] if soft.any() else []
    if np.median(table[:, 1]) < ALL_SOFT:
        flags.append(Flag("blur", "the whole capture is out of focus or shaken; fine detail is missing", tuple(range(len(table)))))
    return flags


def _exposure(table: Array) -> list[Flag]:
    flags = []
    usual = around(table[:, 2])
    cases = (
        (table[:, 3] > MOST_BRIGHT, "are overexposed"),
        (table[:, 4] > MOST_DARK, "are nearly black"),
        (np.abs(table[:, 2] - usual) > JUMP * np.maximum(usual, 1), "differ much in brightness from their neighbours"),
    )
    for found, what in cases:
        if found.any():
            flags.append(Flag("exposure", f"{found.sum()} frames {what}", _numbers(found)))
    return flags


def _doubled(capture: Capture, table: Array) -> list[Flag]:
    same = np.r_[False, np.diff(table[:, 5]) == 0]
    return [Flag("duplicate", f"{same.sum()} frames are copies of the frame before", _numbers(same))] if same.any() else []


def _missing(capture: Capture) -> list[Flag]:
    """Gaps in the numbers of the frames' names."""
    import re

    numbers = [re.findall(r"\d+", name) for name in capture.frames]
    if not all(numbers):
        return []
    steps = np.diff([int(n[-1]) for n in numbers])
    usual = int(np.median(steps)) if len(steps) else 1
    after = np.r_[False, steps > usual]
    if usual <= 0 or not after.any():
        return []
    lost = int(sum(steps[steps > usual] / usual - 1))
    return [Flag("missing_frames", f"{lost} frames are missing by the numbers of the files", _numbers(after))]


def _clock(capture: Capture) -> list[Flag]:
    steps = np.diff(capture.times_s)
    usual = float(np.median(steps)) if len(steps) else 1.0
    late = np.r_[False, steps > GAP * usual]
    if not late.any():
        return []
    return [Flag("timestamps", f"{late.sum()} steps in time are longer than {GAP} times the usual {usual * 1e3:.1f} ms", _numbers(late))]


def _intrinsics(capture: Capture) -> list[Flag]:
    K, (width, height) = capture.K, capture.size
    flags = []
    off = np.abs((K[:2, 2] + 0.5) / (width, height) - 0.5)
    if off.max() > OFF_CENTRE:
        flags.append(Flag("intrinsics", f"the principal point is {100 * off.max():.0f} % of the image off its centre; is K right?"))
    fov = float(np.degrees(2 * np.arctan(width / 2 / K[0, 0])))
    if not FOV_DEG[0] <= fov <= FOV_DEG[1]:
        flags.append(Flag("intrinsics", f"K means a horizontal field of view of {fov:.0f}°; is it of another resolution?"))
    if abs(K[0, 0] / K[1, 1] - 1) > ASPECT:
        flags.append(Flag("intrinsics", f"fx and fy differ by {100 * abs(K[0, 0] / K[1, 1] - 1):.1f} %; pixels are square in most cameras"))
    return flags


def _depth(table: Array) -> list[Flag]:
    none, few = table[:, 6] == 0, (table[:, 6] > 0) & (table[:, 6] < LEAST_DEPTH)
    flags = [Flag("depth_missing", f"{none.sum()} frames have no depth", _numbers(none))] if none.any() else []
    if few.any():
        text = f"{few.sum()} frames have depth in less than {100 * LEAST_DEPTH:.0f} % of the image"
        flags.append(Flag("depth_missing", text, _numbers(few)))
    return flags


def refuse_hopeless(spec: CaptureSpec, capture: Capture, static: tuple[tuple[int, int], ...]) -> None:
    """CaptureError for a capture from which nothing can be solved: one view all along, joints unknown, no depth and no masks."""
    still = sum(end - start for start, end in static) == len(capture.frames) and len(static) == 1
    if still and spec.joints_mode.startswith("unknown") and capture.depth_z_m is None and capture.mask is None:
        raise CaptureError(
            f"{capture.name}: the camera never moves, joint angles are unknown and there is neither depth nor masks: one view does not "
            "tell size from distance; give a joint log, depth or masks, or move the camera"
        )
