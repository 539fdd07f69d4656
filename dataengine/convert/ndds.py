"""NDDS folders as DREAM (ICRA 2020) publishes and trains on them.

`NNNNNN.rgb.png|jpg`, `NNNNNN.json`, `_camera_settings.json`, `_object_settings.json`; ours add `NNNNNN.depth.mm.16.png`.
Synthetic sets are in CENTIMETRES and their object frame has OpenCV-like axes (x right, y down, z forward of the object):
`R_cam_base = R(quaternion_xyzw) · BASE_AXES`. Real sets are in metres and state the base frame itself. The camera frame is
OpenCV's. `pose_transform` follows the row-vector convention in Unreal's left-handed object axes, translation in the last row.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import camera_settings, disk
from dataengine.convert.common import blank_rows, by_clip, depth_image, finite, image_size, place_keypoints, require, stack_images
from dataengine.convert.common import keypoint_links as links_of_keypoints
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera, se3
from dataengine.record.video import Names, Video

BASE_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""URDF base axes (x forward, y left, z up) → axes of an NDDS object (x right, y down, z forward)."""
UNREAL_AXES = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""Unreal's left-handed object axes (x forward, y right, z up) → axes of an NDDS object."""
OUTSIDE_PX = [-999.999, -999.999]
CENTIMETRES_BEYOND = 10.0
"""A robot's points have a median distance below this in metres and above it in centimetres."""
ROBOT_CLASS_ID = 255
FALLBACK_NOTE = "no camera settings in the folder: took fx = fy = 320 and the image centre, as RoboPose does"
DEPTH_UNITS_M = {".depth.mm.16.png": 1e-3, ".depth.cm.16.png": 1e-2}


# ---- export ----------------------------------------------------------------------------------------------------------


def export_ndds(videos: Iterable[Video], out: Path) -> int:
    """Write all frames into one flat folder, as DREAM reads it; returns the number of videos.

    Rendered videos are written the synthetic way (centimetres, NDDS axes), real ones the real way (metres, base axes).
    ConvertError: not an empty folder, cameras that differ, rendered and real mixed, unknown labels.
    """
    disk.new_folder(out)
    number, count, sources = 0, 0, set()
    for video in videos:
        camera_settings.write_settings(video, out)
        name = robot_class(video)
        disk.write_json(out / "_object_settings.json", _object_settings(name))
        sources.add(video.source)
        if len(sources) > 1:
            raise ConvertError("an NDDS folder is either synthetic (centimetres) or real (metres); export rendered and real videos apart")
        for f in range(video.frame_count):
            _write_frame(video, f, out / f"{number:06d}", name)
            number += 1
        count += 1
    return count


def robot_class(video: Video) -> str:
    """DREAM's class is the robot's name, which also begins its link names."""
    return str(video.scene.get("robot", {}).get("name") or (video.names.links or video.names.keypoints or ("robot",))[0].split("_")[0])


def _object_settings(name: str) -> dict[str, Any]:
    exported = {"class": name, "segmentation_class_id": ROBOT_CLASS_ID, "fixed_model_transform": np.eye(4).tolist()}
    return {"exported_object_classes": [name], "exported_objects": [exported]}


def _write_frame(video: Video, f: int, stem: Path, name: str) -> None:
    disk.write_png(Path(f"{stem}.rgb.png"), require(video, "rgb", "NDDS")[f])
    if "depth_z" in video.images or "depth_sim" in video.images:
        millimetres = np.rint(depth_image(video, "NDDS")[1][f].astype(np.float64) * 1000)
        disk.write_png(Path(f"{stem}.depth.mm.16.png"), np.where(millimetres < 65536, millimetres, 0).astype(np.uint16))
    if "mask_link" in video.images:
        disk.write_png(Path(f"{stem}.cs.png"), np.where(video.images["mask_link"][f] > 0, ROBOT_CLASS_ID, 0).astype(np.uint8))
    row = video.frames[f]
    scale = 100.0 if video.source == "rendered" else 1.0
    T = np.asarray(finite(row["T_cam_base"], "the robot's pose"))
    R = T[:3, :3] @ BASE_AXES.T if video.source == "rendered" else T[:3, :3]
    pose = np.eye(4)
    pose[:3, :3], pose[3, :3] = (R @ UNREAL_AXES if video.source == "rendered" else R).T, scale * T[:3, 3]
    w, x, y, z = se3.quaternion_wxyz(R).tolist()
    points = np.asarray(finite(row["keypoints_cam_m"], "a keypoint")).reshape(-1, 3)
    robot = {
        "class": name, "visibility": 1, "location": (scale * T[:3, 3]).tolist(), "quaternion_xyzw": [x, y, z, w],
        "pose_transform": pose.tolist(),
        "keypoints": [
            {"name": n, "location": (scale * p).tolist(), "projected_location": px.tolist() if np.isfinite(px).all() else OUTSIDE_PX}
            for n, p, px in zip(video.names.keypoints, points, row["keypoints_px"], strict=True)
        ],
    }  # fmt: skip
    positions = finite(row["joint_position"], "a joint position")
    joints = [{"name": n, "position": q} for n, q in zip(video.names.joints, positions, strict=True)]
    disk.write_json(Path(f"{stem}.json"), {"camera_data": {}, "objects": [robot], "sim_state": {"joints": joints}})


# ---- import ----------------------------------------------------------------------------------------------------------


def import_ndds(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Frames of one NDDS folder, or of every such folder below, in clips of `frames_per_video` (default 30).

    Synthetic or real is told by the keypoints' distance: see CENTIMETRES_BEYOND. Frames of synthetic sets are independent scenes.
    ConvertError names the file that does not fit.
    """
    found = sorted((p for p in disk.source_folder(folder).rglob("*.json") if p.stem[:1].isdigit()), key=disk.natural)
    if not found:
        raise ConvertError(f"{folder} holds no NNNNNN.json: not an NDDS or DREAM folder")
    for clip in by_clip(found, frames_per_video or 30, lambda before, path: before.parent != path.parent):
        yield _video(clip, folder)


def _video(paths: list[Path], top: Path) -> Video:
    notes: list[str] = []
    labels = [_read_labels(path) for path in paths]
    keypoints = tuple(str(k["name"]) for k in labels[0]["robot"].get("keypoints", []))
    joints = tuple(str(j["name"]).split("/")[-1] for j in labels[0]["joints"])
    links, of_link, offsets = links_of_keypoints(keypoints)
    names = Names(joints, links, keypoints, of_link, offsets, ())
    images = stack_images([_images(path) for path in paths], paths[0].parent)
    size = image_size(images, paths[0].parent)
    rows = blank_rows(names, len(paths))
    rows["K"] = _intrinsics(paths[0].parent, top, size, notes)
    try:
        points = np.array([[k["location"] for k in label["robot"].get("keypoints", [])] for label in labels], float)
        synthetic = bool(np.nanmedian(np.linalg.norm(points, axis=-1)) > CENTIMETRES_BEYOND) if points.size else False
        points = points.reshape(len(paths), len(keypoints), 3) / (100 if synthetic else 1)
        pixels = np.array([[k["projected_location"] for k in label["robot"].get("keypoints", [])] for label in labels], float)
        for row, label in zip(rows, labels, strict=True):
            _fill(row, label, synthetic)
    except (KeyError, ValueError, TypeError) as error:
        raise ConvertError(f"{paths[0].parent}: {paths[0].name} … {paths[-1].name} differ in their labels: {error}") from None
    pixels = np.where(points[..., 2:] > 0, pixels.reshape(*points.shape[:2], 2), np.nan)
    place_keypoints(rows, points, size, pixels)
    scene = {"format": "ndds", "origin": paths[0].parent.relative_to(top).as_posix(), "files": [p.stem for p in paths], "objects": []}
    scene |= {"robot": {"name": labels[0]["robot"].get("class", "")}}
    notes.append("read as a synthetic set: centimetres" if synthetic else "read as a real set: metres")
    kind = "rendered" if synthetic else "real"
    if "depth" in images:
        images["depth_z" if synthetic else "depth_sim"] = images.pop("depth")
    return Video(kind, names, images, rows, scene, {"imported_from": "NDDS"}, notes={"import": notes}).check()


def _read_labels(path: Path) -> dict[str, Any]:
    """The robot is the first object with keypoints, or the first."""
    data = disk.read_json(path)
    objects = data.get("objects") if isinstance(data, dict) else None
    if not objects:
        raise ConvertError(f"{path} is no NDDS label: it lists no 'objects'")
    robot = next((o for o in objects if o.get("keypoints")), objects[0])
    return {"robot": robot, "joints": data.get("sim_state", {}).get("joints", [])}


def _fill(row: Any, label: dict[str, Any], synthetic: bool) -> None:
    robot = label["robot"]
    T = row["T_cam_base"]
    if "location" in robot:
        T[:3, 3], T[3] = np.array(robot["location"], float) / (100 if synthetic else 1), (0, 0, 0, 1)
    if any(robot.get("quaternion_xyzw", ())):
        x, y, z, w = robot["quaternion_xyzw"]
        R = se3.rotation_from_quaternion([w, x, y, z])
        T[:3, :3] = R @ BASE_AXES if synthetic else R
    row["joint_position"] = [j["position"] for j in label["joints"]]


def _images(path: Path) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for suffix in (".rgb.png", ".rgb.jpg", ".png", ".jpg"):
        if (image := path.with_name(path.stem + suffix)).is_file():
            out["rgb"] = disk.read_image(image, colour=True).astype(np.uint8)
            break
    for suffix, unit_m in DEPTH_UNITS_M.items():
        if (image := path.with_name(path.stem + suffix)).is_file():
            out["depth"] = (disk.read_image(image, colour=False).astype(np.float64) * unit_m).astype(np.float32)
            break
    return out


def _intrinsics(folder: Path, top: Path, size: tuple[int, int], notes: list[str]) -> Array:
    K = camera_settings.find_intrinsics(folder, top, size)
    if K is None:
        notes.append(FALLBACK_NOTE)
        return camera.intrinsics(320.0, 320.0, size[1] / 2, size[0] / 2)
    return K
