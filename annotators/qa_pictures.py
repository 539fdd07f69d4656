"""Pictures of the QA page: the posed robot's outline over the photographs, depth residuals, given against posed masks."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataengine.record.video import Video
from dataengine.view.movie import frame_rate, write_mp4
from dataengine.view.palette import link_colours

Array = np.ndarray

MOST_FRAMES = 240
"""A longer video shows every second, third … frame."""
WIDEST_PX = 960


def outlines(link_id: Array) -> Array:
    """(H,W) bool: pixels beside one of another link, two pixels wide."""
    edge = np.zeros(link_id.shape, bool)
    down, right = link_id[1:] != link_id[:-1], link_id[:, 1:] != link_id[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def overlay(video: Video, f: int) -> Array:
    """The photograph with every link's outline, slightly tinted inside, keypoints as dots (H,W,3)."""
    import cv2

    rgb, ids = video.images["rgb"][f], video.images["mask_link"][f]
    colours = link_colours()[ids]
    out = np.where((ids > 0)[..., None], (0.8 * rgb + 0.2 * colours), rgb).astype(np.uint8)
    edge = outlines(ids)
    out[edge] = np.where((ids[edge] > 0)[:, None], colours[edge], 255)
    row = video.frames[f]
    for (u, v), state in zip(row["keypoints_px"], row["keypoint_state"], strict=True):
        if state:
            at = (int(round(u * 8)), int(round(v * 8)))
            cv2.circle(out, at, 3 * 8, (255, 255, 255) if state == 2 else (160, 160, 160), -1 if state == 2 else 1, cv2.LINE_AA, 3)
    if not row["accepted"]:
        out[:6], out[-6:], out[:, :6], out[:, -6:] = (210, 60, 50), (210, 60, 50), (210, 60, 50), (210, 60, 50)
    return out


def movie_uri(video: Video) -> str:
    """The overlay of all frames as an mp4 in a data URI; rejected frames have a red border."""
    step = -(-video.frame_count // MOST_FRAMES)

    def frames() -> Iterator[Array]:
        for f in range(0, video.frame_count, step):
            yield _narrow(overlay(video, f))

    with tempfile.TemporaryDirectory() as folder:
        rate = min(max(frame_rate(video) / step, 2.0), 30.0)
        data = write_mp4(Path(folder) / "overlay.mp4", frames(), rate).read_bytes()
    return "data:video/mp4;base64," + base64.b64encode(data).decode()


def mask_difference(posed: Array, given: Array, rgb: Array) -> Array:
    """Green where both say robot, red where only the posed robot is, blue where only the given mask is (H,W,3)."""
    out = (0.35 * rgb + 0.65 * 255 * 0.5).astype(np.uint8)
    for where, colour in ((posed & given, (110, 190, 120)), (posed & ~given, (214, 60, 50)), (given & ~posed, (50, 100, 220))):
        out[where] = (0.3 * rgb[where] + 0.7 * np.array(colour)).astype(np.uint8)
    return out


def jpeg_uri(rgb: Array, quality: int = 85) -> str:
    """A picture as a data URI, at most WIDEST_PX / 2 wide."""
    import cv2

    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(_narrow(rgb, WIDEST_PX // 2)[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _narrow(rgb: Array, most: int = WIDEST_PX) -> Array:
    import cv2

    height, width = rgb.shape[:2]
    if width <= most:
        return rgb
    return cv2.resize(rgb, (most, round(height * most / width)), interpolation=cv2.INTER_AREA)
