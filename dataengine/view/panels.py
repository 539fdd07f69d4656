"""What can be shown of a video: one named panel per modality or combination, drawn for one frame at any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataengine.errors import RecordError, unknown_name
from dataengine.record.video import Video
from dataengine.view import colour
from dataengine.view.palette import BACKGROUND, Rgb
from dataengine.view.skeleton import draw_keypoints

Draw = Callable[[Video, int, tuple[float, float]], Rgb]


@dataclass(frozen=True)
class Panel:
    """One kind of picture: its label, the modalities it needs, how to draw it at the stored size."""

    name: str
    label: str
    note: str
    needs: tuple[str, ...]
    draw: Draw


def _of(v: Video, name: str, f: int) -> np.ndarray:
    return v.images[name][f]


def _rgb(v: Video, f: int) -> Rgb | None:
    return _of(v, "rgb", f) if "rgb" in v.images else None


PANELS: tuple[Panel, ...] = (
    Panel("rgb", "RGB", "", ("rgb",), lambda v, f, r: _of(v, "rgb", f)),
    Panel("skeleton", "Keypoints", "filled = seen, hollow = hidden", ("rgb",), lambda v, f, r: _of(v, "rgb", f)),
    Panel("ir_left", "IR left", "", ("ir_left",), lambda v, f, r: colour.grey(_of(v, "ir_left", f))),
    Panel("ir_right", "IR right", "", ("ir_right",), lambda v, f, r: colour.grey(_of(v, "ir_right", f))),
    Panel("depth_z", "Depth, true", "", ("depth_z",), lambda v, f, r: colour.depth(_of(v, "depth_z", f), r)),
    Panel(
        "depth_sim", "Depth, sensor", "hatched = none", ("depth_sim",),
        lambda v, f, r: colour.depth(_of(v, "depth_sim", f), r),
    ),
    Panel(
        "depth_error", "Depth error", "sensor − true", ("depth_sim", "depth_z"),
        lambda v, f, r: colour.depth_error(_of(v, "depth_sim", f), _of(v, "depth_z", f)),
    ),
    Panel("normals", "Normals", "camera axes", ("normals",), lambda v, f, r: colour.normals(_of(v, "normals", f))),
    Panel("mask_link", "Links", "visible", ("mask_link",), lambda v, f, r: colour.link_mask(_of(v, "mask_link", f))),
    Panel(
        "mask_object", "Objects", "visible", ("mask_object",),
        lambda v, f, r: colour.object_mask(_of(v, "mask_object", f)),
    ),
    Panel(
        "amodal_robot", "Robot, amodal", "orange = hidden", ("amodal_robot", "mask_link"),
        lambda v, f, r: colour.amodal_robot(_of(v, "amodal_robot", f), _of(v, "mask_link", f), _rgb(v, f)),
    ),
    Panel(
        "amodal_objects", "Objects, amodal", "striped = hidden", ("amodal_objects", "mask_object"),
        lambda v, f, r: colour.amodal_objects(_of(v, "amodal_objects", f), _of(v, "mask_object", f), _rgb(v, f)),
    ),
    Panel("nocs", "NOCS", "x y z = red green blue", ("nocs",), lambda v, f, r: colour.nocs(_of(v, "nocs", f))),
)  # fmt: skip
NAMES = tuple(p.name for p in PANELS)


def panel(name: str) -> Panel:
    """Look one up. RecordError names the known ones."""
    for p in PANELS:
        if p.name == name:
            return p
    raise RecordError(unknown_name("panel", name, NAMES))


def available(video: Video, names: tuple[str, ...] = NAMES) -> tuple[Panel, ...]:
    """The panels among ``names`` whose modalities the video has, in the order of ``names``."""
    return tuple(p for p in map(panel, names) if all(need in video.images for need in p.needs))


def clip_range_m(video: Video) -> tuple[float, float]:
    """Depth range (near, far) of the whole clip, true and measured together."""
    return colour.depth_range_m(*(video.images[n] for n in ("depth_z", "depth_sim") if n in video.images))


def draw(video: Video, frame: int, name: str, range_m: tuple[float, float] | None = None, width_px: int | None = None) -> Rgb:
    """One panel of one frame, at the stored size or resized to ``width_px`` (area-averaged when smaller)."""
    import cv2

    p = panel(name)
    missing = [need for need in p.needs if need not in video.images]
    if missing:
        raise RecordError(f"panel '{name}' needs the modality {missing[0]}; this video has {', '.join(video.images)}")
    picture = p.draw(video, frame, range_m or clip_range_m(video))
    scale = 1.0 if width_px is None else width_px / picture.shape[1]
    if scale != 1.0:
        size = (round(picture.shape[1] * scale), max(1, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST), np.uint8)
    if name == "skeleton":
        row = video.frames[frame]
        picture = draw_keypoints(picture, row["keypoints_px"], row["keypoint_state"], video.names, scale)
    return picture


def blank(video: Video, width_px: int) -> Rgb:
    """Stand-in for a panel that a video lacks."""
    h, w = video.size
    return np.full((max(1, round(h * width_px / max(w, 1))), width_px, 3), BACKGROUND, np.uint8)
