"""Checks on the images alone: masks, object coordinates, infrared pair, exposure, duplicates."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import camera, se3
from dataengine.quality.infrared_checks import infrared
from dataengine.record.video import Video

EDGE_SHARE = 0.002
"""Share of a mask's pixels that may disagree at its rim, where a pixel centre falls within float rounding of an edge."""

TABLE_ID, ROOM_ID = 255, 254
"""Ids of table and room in `mask_object`."""

MIN_MEASURED = 500
"""With fewer pixels measured nothing is said about the depth camera."""

MAX_BLACK, MAX_BLOWN = 0.98, 0.9
"""Share of black (≤ 2) or blown (≥ 254 in every channel) pixels above which a colour frame is useless."""


def masks(video: Video, f: int) -> list[str]:
    """Link and object masks disjoint; each visible mask inside its amodal mask."""
    out, images = [], video.images
    link, objects = images.get("mask_link"), images.get("mask_object")
    if link is not None and objects is not None and ((link[f] > 0) & (objects[f] > 0)).any():
        out.append(f"{int(((link[f] > 0) & (objects[f] > 0)).sum())} pixels belong to both a link and an object")
    if link is not None and int(link[f].max()) > len(video.names.links):
        out.append(f"link id {int(link[f].max())} but the robot has {len(video.names.links)} links")
    if objects is not None:
        unknown = np.setdiff1d(objects[f], [*range(len(video.names.objects) + 1), TABLE_ID, ROOM_ID])
        out += [f"object id {unknown[0]} but there are {len(video.names.objects)} objects"] if len(unknown) else []
    if link is not None and "amodal_robot" in images:
        out += _inside("robot", link[f] > 0, images["amodal_robot"][f] > 0)
    if objects is not None and "amodal_objects" in images:
        for k, name in enumerate(video.names.objects):
            out += _inside(name, objects[f] == k + 1, (images["amodal_objects"][f] >> np.uint32(k)) & 1 > 0)
    return out


def _inside(name: str, visible: NDArray[np.bool_], amodal: NDArray[np.bool_]) -> list[str]:
    stray = int((visible & ~amodal).sum())
    allowed = max(3, int(EDGE_SHARE * visible.sum()))
    return [] if stray <= allowed else [f"{name}: {stray} visible pixels outside its amodal mask (allowed {allowed})"]


def depth_and_ids(video: Video, f: int) -> list[str]:
    """Every labelled pixel has a depth, every pixel with a depth a label."""
    images = video.images
    if not {"depth_z", "mask_link", "mask_object"} <= images.keys():
        return []
    labelled = (images["mask_link"][f] > 0) | (images["mask_object"][f] > 0)
    contradiction = int((labelled != (images["depth_z"][f] > 0)).sum())
    return [f"{contradiction} pixels have a label without depth or depth without a label"] if contradiction > 3 else []


def object_coordinates(video: Video, f: int) -> list[str]:
    """NOCS × size through the object's pose gives the true depth back."""
    images = video.images
    if not {"nocs", "depth_z", "mask_object"} <= images.keys() or not video.names.objects or "objects" not in video.scene:
        return []
    row, ids = video.frames[f], images["mask_object"][f]
    size = {o["instance_id"]: np.array(o["size_m"]) for o in video.scene["objects"]}
    out = []
    for k, name in enumerate(video.names.objects):
        mask = ids == k + 1
        if not mask.any():
            continue
        p_object = (images["nocs"][f][mask] / 65535 - 0.5) * size[k + 1]
        p_cam = se3.transform(row["T_cam_object"][k], p_object)
        v, u = np.nonzero(mask)
        error_px = np.abs(camera.project(row["K"], p_cam) - np.stack([u, v], -1)).max()
        error_m = np.abs(p_cam[:, 2] - images["depth_z"][f][mask]).max()
        if not (error_px < 0.5 and error_m < 2e-3):
            out.append(f"{name}: object coordinates lie {error_px:.2f} px and {error_m * 1e3:.1f} mm off the surface")
    return out


def measured_depth(video: Video, f: int) -> list[str]:
    """What the depth camera measures is the scene's depth: by the median, within half a pixel of disparity and 3 %."""
    images = video.images
    if not {"depth_sim", "depth_z"} <= images.keys() or "depth_sensor" not in video.scene:
        return []
    measured, true = images["depth_sim"][f], images["depth_z"][f]
    both = (measured > 0) & (true > 0)
    if both.sum() < MIN_MEASURED:
        return []
    sensor = video.scene["depth_sensor"]
    focal_px = float(video.frames[f]["K"][0, 0]) * sensor["native_scale"]
    allowed = 0.5 * true[both] ** 2 / (focal_px * sensor["baseline_m"]) + 0.03 * true[both]
    excess = float(np.median(np.abs(measured[both] - true[both]) / allowed))
    return [] if excess <= 1 else [f"half of the measured depth is off by more than {excess:.1f} times what is allowed"]


def exposure(video: Video, f: int) -> list[str]:
    """Not black, not blown."""
    if "rgb" not in video.images:
        return []
    rgb = video.images["rgb"][f]
    black, blown = float((rgb.max(-1) <= 2).mean()), float((rgb.min(-1) >= 254).mean())
    out = [f"{black:.0%} of the picture is black"] if black > MAX_BLACK else []
    return out + ([f"{blown:.0%} of the picture is blown out"] if blown > MAX_BLOWN else [])


def duplicates(video: Video) -> list[str]:
    """No two successive colour frames are the same picture."""
    rgb = video.images.get("rgb")
    if rgb is None:
        return []
    return [f"frames {f - 1} and {f} are identical" for f in range(1, len(rgb)) if np.array_equal(rgb[f - 1], rgb[f])]


FRAME_CHECKS: dict[str, Callable[[Video, int], list[str]]] = {
    "masks": masks,
    "depth and ids": depth_and_ids,
    "object coordinates": object_coordinates,
    "infrared pair": infrared,
    "measured depth": measured_depth,
    "exposure": exposure,
}
