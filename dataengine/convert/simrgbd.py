"""SimRGBD-Franka (RoboKeyGen, ICRA 2024) in its released layout, and the layout of its real test sets.

Synthetic: `<scene 5 digits>/<frame 4 digits>_<suffix>` with color.png, ir_l.png, ir_r.png, depth_60.exr (metres; 60 is a Blender
frame number), simDepthImage.exr (metres in three channels, invalid −0.001), mask.exr (float32 red = part id / 255, background 1)
and meta.json. Real: `<sequence>/NNNNNN.png`, `.npy` (depth, MILLIMETRES), `.json`, `_mask.exr` (robot red > 0, background 0).

Part ids: Link0…Link7 = 1…8, panda_hand 9, fingers 10 and 11; `p_cam = R2C_mat · p_link + location_wrt_cam`, OpenCV camera axes.
A layout of three-frame videos: a new one starts at every third frame number.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import camera_settings, disk
from dataengine.convert.common import finite, require
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera, se3
from dataengine.record.video import Video
from dataengine.robot.keypoints import PANDA_SETS

PARTS = {
    **{f"Link{i}": f"panda_link{i}" for i in range(8)},
    "panda_hand": "panda_hand", "panda_finger_joint1": "panda_leftfinger", "panda_finger_joint2": "panda_rightfinger",
}  # fmt: skip
"""Name in the files → URDF link, in the order of the part ids 1 … 11."""
LINKS = tuple(PARTS.values())
REAL_PARTS = 9
POINTS_3N = tuple((f"{link}@{','.join(f'{1e3 * v:g}' for v in o)}mm" if any(o) else link, link, o) for link, o in PANDA_SETS["simrgbd14"])
"""`joints_3n_fixed_42`: our keypoint name, link, offset in that link's frame (m)."""
INVALID_M = -0.001
BACKGROUND = 255
OUTSIDE_PX = [-999.999, -999.999]
PUBLISHED_K = camera.intrinsics(502.30, 502.30, 319.5, 179.5)
"""For 640×360: the authors' answer to issue 2 of their repository, as the release's `_camera_settings.json` is empty."""
FALLBACK_NOTE = (
    "no camera settings in the folder (the release's file is empty): took the published fx = fy = 502.30, cx = 319.5, cy = 179.5 "
    "of 640×360, rescaled to the images"
)
COLOURS = {"rgb": "color.png", "ir_left": "ir_l.png", "ir_right": "ir_r.png"}


def export_simrgbd(videos: Iterable[Video], out: Path) -> int:
    """Write videos of a Panda; returns how many. Rendered ones get the synthetic layout, real ones the real layout.

    ConvertError: not an empty folder, not a Panda, a modality missing, cameras that differ (the layout has one for all).
    """
    disk.new_folder(out)
    count = 0
    for video in videos:
        where = out / (f"{count:05d}" if video.source == "rendered" else f"{count + 1}_sequence")
        links = _part_links(video)
        top = out if video.source == "rendered" else where
        camera_settings.write_settings(video, top)
        for f in range(video.frame_count):
            if video.source == "rendered":
                _write_synthetic(video, links, f, where / f"{f:04d}_", count)
            else:
                _write_real(video, links, f, where, count)
        count += 1
    return count


def _part_links(video: Video) -> list[int]:
    """Index into the video's links of each part; all eleven, or the first nine where a real video has no fingers."""
    wanted = LINKS if video.source == "rendered" else LINKS[:REAL_PARTS]
    missing = [name for name in wanted if name not in video.names.links]
    if missing:
        raise ConvertError(f"the SimRGBD layout holds the Franka Panda with hand; this video's robot has no link {missing[0]}")
    return [video.names.links.index(name) for name in LINKS if name in video.names.links]


def _write_synthetic(video: Video, links: list[int], f: int, prefix: Path, scene: int) -> None:
    for name, suffix in COLOURS.items():
        if name in video.images or name == "rgb":
            disk.write_png(Path(f"{prefix}{suffix}"), require(video, name, "SimRGBD")[f])
    depth = require(video, "depth_z", "SimRGBD")[f]
    disk.write_grey_exr(Path(f"{prefix}depth_60.exr"), depth)
    if "depth_sim" in video.images:
        measured = video.images["depth_sim"][f]
        disk.write_grey_exr(Path(f"{prefix}simDepthImage.exr"), np.where(measured > 0, measured, np.float32(INVALID_M)))
    disk.write_grey_exr(Path(f"{prefix}mask.exr"), _part_image(video, links, f, BACKGROUND))
    disk.write_json(Path(f"{prefix}meta.json"), [_meta(video, links, f, scene)], indent=4)


def _write_real(video: Video, links: list[int], f: int, folder: Path, scene: int) -> None:
    stem = f"{f:06d}"
    disk.write_png(folder / f"{stem}.png", require(video, "rgb", "SimRGBD")[f])
    millimetres = require(video, "depth_sim", "SimRGBD")[f].astype(np.float64) * 1000
    disk.write_npy(folder / f"{stem}.npy", millimetres)
    if "mask_link" in video.images:
        disk.write_grey_exr(folder / f"{stem}_mask.exr", _part_image(video, links, f, 0))
    disk.write_json(folder / f"{stem}.json", [_meta(video, links[:REAL_PARTS], f, scene)], indent=4)


def _part_image(video: Video, links: list[int], f: int, background: int) -> Array:
    """(H,W) float32: part id / 255."""
    table = np.full(256, background)
    for part, link in enumerate(links):
        table[link + 1] = part + 1
    ids = require(video, "mask_link", "SimRGBD")[f]
    if not np.isin(ids, [0, *(link + 1 for link in links)]).all():
        raise ConvertError("mask_link shows a link that the SimRGBD layout has no part id for")
    return (table[ids] / 255).astype(np.float32)


def _meta(video: Video, links: list[int], f: int, scene: int) -> dict[str, Any]:
    row, synthetic = video.frames[f], video.source == "rendered"
    T = row["T_cam_link"]
    keypoints, parts = [], list(PARTS)
    for part, link in enumerate(links):
        position = T[link, :3, 3]
        entry: dict[str, Any] = {
            "Name": parts[part], "Part ID": str(part + 1), "scale": [1.0, 1.0, 1.0],
            "location_wrt_cam": finite(position, f"the position of {LINKS[part]}"),
        }  # fmt: skip
        if synthetic:
            entry["projected_location"] = _pixel(row["K"], position)
        if synthetic or part == 0:
            rotation = T[link] if synthetic else row["T_cam_base"]
            entry["R2C_mat"] = finite(rotation[:3, :3], f"the rotation of {LINKS[part]}")
        keypoints.append(entry)
    points = _points_3n(video, f)
    return {
        "SCENE_NUM": scene, "FRAME NUM": f, "ROBOT NAME": "Franka_Emika_Panda", "keypoints": keypoints,
        "joints": _joints(video, f),
        "joints_3n_fixed_42": [{"Name": f"panda_joint_3n_{k + 1}", "location_wrt_cam": p} for k, p in enumerate(points)],
    }  # fmt: skip


def _joints(video: Video, f: int) -> list[dict[str, Any]]:
    """Eight joints with the origin of the link that each moves; a real file has seven and angles only."""
    row, names = video.frames[f], video.names
    out = []
    for name, position in zip(names.joints, finite(row["joint_position"], "a joint position"), strict=True):
        moved = "panda_leftfinger" if "finger" in name else name.replace("joint", "link")
        entry: dict[str, Any] = {"Name": name, "position": position}
        if video.source == "rendered":
            entry["location_wrt_cam"] = row["T_cam_link"][names.links.index(moved), :3, 3].tolist()
        out.append(entry)
    return out if video.source == "rendered" else out[:7]


def _points_3n(video: Video, f: int) -> list[list[float]]:
    row, names = video.frames[f], video.names
    points = []
    for name, link, offset in POINTS_3N:
        if name in names.keypoints:
            point = row["keypoints_cam_m"][names.keypoints.index(name)]
        else:
            point = se3.transform(row["T_cam_link"][names.links.index(link)], np.array([offset]))[0]
        points.append(finite(point, f"the position of {name}"))
    return points


def _pixel(K: Array, point: Array) -> list[float]:
    px = camera.project(K, point)
    return px.tolist() if np.isfinite(px).all() else OUTSIDE_PX
