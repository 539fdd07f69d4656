"""The infrared pair against the true depth."""

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import camera
from dataengine.record.video import Video

MAX_CONTRAST = 0.9
"""The eyes' difference at the true disparity over that one pixel beside it. Measured: 0.3–0.45."""

MAX_OFFSET_PX = 0.3
"""Where the difference is least, from a V through −1, 0, +1 px; occlusion makes it a little lopsided. Measured: ≤ 0.05."""

MIN_PIXELS = 1000
"""With fewer pixels seen by both eyes nothing can be said."""


def infrared(video: Video, f: int) -> list[str]:
    """The right eye, shifted by the true disparity, resembles the left one more than shifted wrongly."""
    images = video.images
    if not {"ir_left", "ir_right", "depth_z"} <= images.keys() or "depth_sensor" not in video.scene:
        return []
    K, baseline_m = video.frames[f]["K"], float(video.scene["depth_sensor"]["baseline_m"])
    disparity_px = camera.disparity_from_depth(images["depth_z"][f], K[0, 0], baseline_m)
    left, right = images["ir_left"][f].astype(float), images["ir_right"][f].astype(float)
    nearer, true, farther = (_difference(left, right, disparity_px, shift) for shift in (-1.0, 0.0, 1.0))
    if np.isnan([nearer, true, farther]).any():
        return []
    if max(nearer, farther) == 0.0:
        return ["infrared pair is blank"]
    beside = min(nearer, farther)
    if true > MAX_CONTRAST * beside:
        return [f"infrared pair disagrees with the depth: difference {true:.1f} grey levels at the true disparity, {beside:.1f} beside it"]
    offset_px = 0.5 * (nearer - farther) / (max(nearer, farther) - true)
    return [] if abs(offset_px) <= MAX_OFFSET_PX else [f"infrared pair is off the true disparity by {offset_px:.2f} px"]


def _difference(left: NDArray, right: NDArray, disparity_px: NDArray, shift_px: float) -> float:
    """Mean grey difference between left and the right eye sampled at u − d − shift; nan when too little is visible."""
    v, u = np.mgrid[0 : left.shape[0], 0 : left.shape[1]]
    x = u - disparity_px - shift_px
    good = np.isfinite(x) & (x >= 0) & (x <= left.shape[1] - 2)
    if good.sum() < MIN_PIXELS:
        return float("nan")
    x0 = np.floor(x[good]).astype(int)
    t = x[good] - x0
    sampled = right[v[good], x0] * (1 - t) + right[v[good], x0 + 1] * t
    return float(np.abs(sampled - left[good]).mean())
