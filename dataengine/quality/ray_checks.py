"""Blender's ids, depth and normals against an independent Embree ray cast of the same scene."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dataengine.raycast.views import LabelView, render_labels
from dataengine.record.modalities import DEPTH_QUANTUM_M
from dataengine.record.video import Video
from dataengine.scene.world import RayWorld

MAX_RIM_MISMATCH = 2e-4
"""Share of pixels on an outline whose id may differ (at least 5): pixel centres within float rounding of an edge. Measured: 1e-5."""

MAX_INTERIOR = 2
"""Pixels away from every outline whose id may differ. Measured: 0."""

DEPTH_M, DEPTH_RELATIVE, MAX_DEPTH_BAD = 3e-4, 1e-4, 1e-3
"""Where the ids agree: 99 % within the tolerance of 0.3 mm + 0.01 % of the depth + quantum, at most 0.1 % beyond ten times
that (rims of a part before itself). Relative, since both renderers are float32: a floor seen at 17 m differs by up to 1 mm."""

SMOOTH_RANGE_M, SMOOTH_FACTOR, MAX_SMOOTH_WRONG = 0.02, 2.0, 1.3e-5
"""Where depth varies by less than 2 cm over 3 × 3 pixels of one part: at most this share of all pixels beyond twice the tolerance,
3 pixels of 640 × 360 and 4 of 640 × 480."""

NORMAL_MEDIAN_DEG = 8.0
"""Shading normals differ from the geometric ones on smooth-shaded meshes, but not at large …"""

MAX_AVERTED = 3e-4
"""… and not by more than 100°, but for this share of the pixels away from outlines (at least 5). Measured: 1e-5."""

_NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class CastFrame:
    """One frame seen by rays: link and instance ids as in the masks, and `rim`, the pixels next to another part's."""

    view: LabelView
    link: NDArray[np.intp]
    instance: NDArray[np.intp]
    rim: NDArray[np.bool_]


def cast_frame(video: Video, world: RayWorld, f: int) -> CastFrame:
    """Cast with the record's intrinsics and camera pose, not the scene's."""
    row, (height, width) = video.frames[f], video.size
    view = render_labels(world.posed(f), row["K"], row["T_world_cam"], width, height)
    part = (view.mesh_index + 1).astype(np.uint16)
    rim = cv2.dilate(part, _NEIGHBOURS) != cv2.erode(part, _NEIGHBOURS)
    link, instance = (np.append(ids, 0)[view.mesh_index] for ids in (world.link_of_mesh + 1, world.instance_of_mesh))
    return CastFrame(view, link, instance, rim)


def check_frame(video: Video, world: RayWorld, f: int) -> Iterator[tuple[str, list[str]]]:
    """(check name, messages) for one frame."""
    images = video.images
    if not {"depth_z", "mask_link", "mask_object"} <= images.keys():
        return
    cast = cast_frame(video, world, f)
    same = (cast.link == images["mask_link"][f]) & (cast.instance == images["mask_object"][f])
    yield "ids against rays", _ids(~same, cast.rim)
    yield "depth against rays", _depth(images["depth_z"][f], cast, same)
    if "normals" in images:
        yield "normals against rays", _normals(images["normals"][f], cast, same & (cast.view.depth_z_m > 0))


def _ids(wrong: NDArray[np.bool_], rim: NDArray[np.bool_]) -> list[str]:
    on_rim, inside = int((wrong & rim).sum()), int((wrong & ~rim).sum())
    allowed = max(5, int(MAX_RIM_MISMATCH * wrong.size))
    out = [f"{on_rim} ids on outlines differ (allowed {allowed})"] if on_rim > allowed else []
    return out + ([f"{inside} ids away from outlines differ (allowed {MAX_INTERIOR})"] if inside > MAX_INTERIOR else [])


def _depth(depth_z_m: NDArray, cast: CastFrame, same: NDArray[np.bool_]) -> list[str]:
    true_m = cast.view.depth_z_m
    surface = same & (true_m > 0)
    if not surface.any():
        return []
    excess = np.abs(depth_z_m - true_m) / (DEPTH_M + DEPTH_QUANTUM_M + DEPTH_RELATIVE * true_m)
    p99, bad = float(np.percentile(excess[surface], 99)), float((excess[surface] > 10).mean())
    fine = p99 <= 1 and bad <= MAX_DEPTH_BAD
    out = [] if fine else [f"99 % within {p99:.2f} times the tolerance, {bad:.3%} beyond ten times"]
    smooth = surface & ~cast.rim & (cv2.dilate(true_m, _NEIGHBOURS) - cv2.erode(true_m, _NEIGHBOURS) < SMOOTH_RANGE_M)
    wrong = int((excess[smooth] > SMOOTH_FACTOR).sum())
    return out + (
        [f"{wrong} pixels of smooth surfaces are off by more than {SMOOTH_FACTOR:g} times the tolerance"]
        if wrong > max(1, round(MAX_SMOOTH_WRONG * excess.size))
        else []
    )


def _normals(normals: NDArray[np.int8], cast: CastFrame, surface: NDArray[np.bool_]) -> list[str]:
    if not surface.any():
        return []
    stored = normals.astype(np.float32) / 127
    length = np.linalg.norm(stored, axis=-1)
    cosine = (stored * cast.view.normal_cam).sum(-1) / np.maximum(length, 1e-6)
    median_deg = float(np.degrees(np.arccos(np.clip(np.median(cosine[surface]), -1, 1))))
    unit = float(((length[surface] > 0.97) & (length[surface] < 1.03)).mean())
    inside = surface & ~cast.rim
    averted, allowed = int((cosine[inside] < np.cos(np.radians(100))).sum()), max(5, int(MAX_AVERTED * inside.sum()))
    out = [] if median_deg <= NORMAL_MEDIAN_DEG else [f"median angle to the ray-cast normals {median_deg:.1f}°"]
    out += [f"{averted} normals point away from the ray-cast ones (allowed {allowed})"] if averted > allowed else []
    return out + ([] if unit > 0.999 else [f"only {unit:.2%} of the normals have unit length"])
