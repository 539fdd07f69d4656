"""Omni6DPose's SOPE (and ROPE) layout, as its package `cutoop` reads it.

`<folder>/FFFF_color.png`, `_depth.exr` (true, m), `_depth_syn.exr` (simulated stereo, m), `_mask.exr` (float32 red = mask id / 255,
0 and 255 are background), `_coord.png` (RGB = object point / length + 0.5, blue 1 − z), `_ir_l.png`, `_ir_r.png`, `_meta.json`;
`obj_meta.json` at the root. Poses are metres, OpenCV camera, quaternions w first. The length that scales coordinates is the
diagonal of the bounding box in our exports; on import it is measured, where depth allows. Normals are left out: the frame of the
published ones is not documented.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import NO_NAMES, blank_rows, by_clip, depth_or_none, finite, image_size, objects_of, require, stack_images
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera, se3
from dataengine.record.video import Video

NONE = 255
MAX_OBJECTS = 253
REAL_SETS = ("real", "rope")
NO_SYMMETRY = {"any": False, "x": "none", "y": "none", "z": "none"}
WORLD_IS_CAMERA = "camera pose unknown: world poses are camera poses"
IMAGES = {"ir_left": "ir_l.png", "ir_right": "ir_r.png", "depth_z": "depth.exr", "depth_sim": "depth_syn.exr"}


# ---- export ----------------------------------------------------------------------------------------------------------


def export_sope(videos: Iterable[Video], out: Path) -> int:
    """Write one folder `train/NNNNNN` per video, and `obj_meta.json`; returns how many.

    ConvertError: not an empty folder; rgb, mask_object, nocs or depth missing; objects of unknown size or pose.
    """
    disk.new_folder(out)
    classes: dict[str, dict[str, Any]] = {}
    objects: dict[str, dict[str, Any]] = {}
    count = 0
    for video in videos:
        things = objects_of(video)
        for k, thing in enumerate(things):
            thing["size_m"] = np.array(finite(np.array(thing["size_m"]), "an object's size"))
            thing["oid"] = f"dataengine-{thing['category']}-{count:06d}-{k + 1:03d}"
            label = classes.setdefault(
                thing["category"], {"name": thing["category"], "label": len(classes) + 1, "instance_ids": [], "stat": {}}
            )
            label["instance_ids"].append(thing["oid"])
            objects[thing["oid"]] = _object_info(thing, label["label"])
        for f in range(video.frame_count):
            _write_frame(video, things, classes, f, out / "train" / f"{count:06d}" / f"{f:04d}_", count)
        count += 1
    disk.write_json(out / "obj_meta.json", {"class_list": list(classes.values()), "instance_dict": objects})
    return count


def _object_info(thing: dict[str, Any], label: int) -> dict[str, Any]:
    tag = {"datatype": "train", "sceneChanger": False, "symmetry": NO_SYMMETRY, "materialOptions": [], "upAxis": ["z"]}
    return {
        "object_id": thing["oid"], "source": "dataengine", "name": thing["name"], "obj_path": "", "tag": tag, "class_label": label,
        "class_name": thing["category"], "dimensions": thing["size_m"].tolist(),
    }  # fmt: skip


def _write_frame(video: Video, things: list[dict[str, Any]], classes: dict[str, Any], f: int, prefix: Path, number: int) -> None:
    disk.write_png(Path(f"{prefix}color.png"), require(video, "rgb", "SOPE")[f])
    measured = video.source == "real"
    depth = require(video, "depth_sim" if measured else "depth_z", "SOPE")
    disk.write_grey_exr(Path(f"{prefix}depth.exr"), depth[f])
    for name, suffix in IMAGES.items():
        if name in video.images and name.startswith("ir"):
            disk.write_png(Path(f"{prefix}{suffix}"), video.images[name][f])
    if "depth_sim" in video.images and not measured:
        disk.write_grey_exr(Path(f"{prefix}depth_syn.exr"), video.images["depth_sim"][f])
    ids = require(video, "mask_object", "SOPE")[f]
    mask = np.where((ids > 0) & (ids <= len(things)), ids, NONE)
    disk.write_grey_exr(Path(f"{prefix}mask.exr"), (mask / 255).astype(np.float32))
    disk.write_png(Path(f"{prefix}coord.png"), _encode(require(video, "nocs", "SOPE")[f], ids, things))
    disk.write_json(Path(f"{prefix}meta.json"), _meta(video, things, classes, f, number))


def _encode(nocs: Array, ids: Array, things: list[dict[str, Any]]) -> Array:
    out = np.zeros(nocs.shape, np.uint8)
    for k, thing in enumerate(things):
        here = ids == k + 1
        unit = (nocs[here] / 65535 - 0.5) * thing["size_m"] / np.linalg.norm(thing["size_m"]) + 0.5
        unit[:, 2] = 1 - unit[:, 2]
        out[here] = np.rint(unit * 255).astype(np.uint8)
    return out


def _meta(video: Video, things: list[dict[str, Any]], classes: dict[str, Any], f: int, number: int) -> dict[str, Any]:
    """Every field that `cutoop.image_meta.ImageMetaData` asks for."""
    row, (height, width) = video.frames[f], video.size
    K = np.asarray(finite(row["K"], "the camera matrix"))
    known = np.isfinite(row["T_world_cam"]).all()
    T_world_cam = row["T_world_cam"] if known else np.eye(4)
    objects = {}
    for k, thing in enumerate(things):
        if not (video.images["mask_object"][f] == k + 1).any():
            continue  # a list of visible objects, its description says
        T = np.asarray(finite(row["T_cam_object"][k], "an object's pose"))
        world = T_world_cam @ T
        about = {
            "oid": thing["oid"], "class_name": thing["category"], "class_label": classes[thing["category"]]["label"], "instance_path": "",
            "scale": [1.0, 1.0, 1.0], "is_background": False, "bbox_side_len": thing["size_m"].tolist(),
        }  # fmt: skip
        objects[f"{k + 1}_{thing['oid']}"] = {
            "meta": about, "quaternion_wxyz": se3.quaternion_wxyz(T[:3, :3]).tolist(), "translation": T[:3, 3].tolist(), "is_valid": True,
            "id": len(objects) + 1, "material": [], "world_quaternion_wxyz": se3.quaternion_wxyz(world[:3, :3]).tolist(),
            "world_translation": world[:3, 3].tolist(),
        }  # fmt: skip
    pose = {"quaternion": se3.quaternion_wxyz(T_world_cam[:3, :3]).tolist(), "translation": T_world_cam[:3, 3].tolist()}
    intrinsics = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "width": width, "height": height}
    view = {"scene_obj_path": "", "background_image_path": "", "background_depth_path": "", "distances": [], "kind": "dataengine"}
    return {
        "objects": objects, "camera": pose | {"intrinsics": intrinsics} | view,
        "scene_dataset": "real" if video.source == "real" else "dataengine", "env_param": {}, "face_up": True, "concentrated": False,
        "comments": "" if known else WORLD_IS_CAMERA, "runtime_seed": number, "baseline_dis": 0, "emitter_dist_l": 0,
    }  # fmt: skip


# ---- import ----------------------------------------------------------------------------------------------------------


def import_sope(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Every folder of NNNN_meta.json with NNNN_color.png, in clips of `frames_per_video` (default 30)."""
    found = sorted(disk.source_folder(folder).rglob("*_meta.json"), key=disk.natural)
    found = [p for p in found if p.with_name(p.name.replace("_meta.json", "_color.png")).is_file()]
    if not found:
        raise ConvertError(f"{folder} holds no NNNN_meta.json with NNNN_color.png: not a SOPE or ROPE folder")
    for clip in by_clip(found, frames_per_video or 30, lambda before, path: before.parent != path.parent):
        yield _video(clip, folder)


def _video(paths: list[Path], top: Path) -> Video:
    metas = [_read_meta(path) for path in paths]
    seen = {(o["mask_id"], o["meta"]["oid"]): o["meta"] for meta in metas for o in meta["objects"]}
    keys = sorted(seen)
    # ids stay as they are where the format's 1, 2, … allow it
    last = max((value for value, _ in keys), default=0)
    keep = len({value for value, _ in keys}) == len(keys) and last <= MAX_OBJECTS
    number = {key: key[0] if keep else n + 1 for n, key in enumerate(keys)}
    count = max(number.values(), default=0)
    if count > MAX_OBJECTS:
        raise ConvertError(f"{paths[0].parent} has {count} objects; mask_object holds {MAX_OBJECTS}, import fewer frames per video")
    about: list[dict[str, Any]] = [{"instance_id": n + 1, "name": f"unseen.{n + 1}", "category": "unseen"} for n in range(count)]
    for key, meta in ((key, seen[key]) for key in keys):
        size = {"size_m": [float(v) for v in meta["bbox_side_len"]]}
        about[number[key] - 1] |= {"name": key[1], "category": meta["class_name"]} | size
    named = replace(NO_NAMES, objects=tuple(a["name"] for a in about))
    rows = blank_rows(named, len(paths))
    real = str(metas[0].get("scene_dataset", "")).lower() in REAL_SETS or any(part.lower() in REAL_SETS for part in paths[0].parts[-4:])
    frames = []
    for row, path, meta in zip(rows, paths, metas, strict=True):
        numbers = {o["mask_id"]: number[o["mask_id"], o["meta"]["oid"]] for o in meta["objects"]}
        _fill(row, meta, numbers)
        frames.append(_images(path, row, numbers, about, real))
    images = stack_images(frames, paths[0].parent)
    image_size(images, paths[0].parent)
    scene = {"format": "sope", "origin": paths[0].parent.relative_to(top).as_posix(), "objects": about}
    return Video("real" if real else "rendered", named, images, rows, scene, {"imported_from": "Omni6DPose"}).check()


def _read_meta(path: Path) -> dict[str, Any]:
    """The meta file with its objects as a list that carries `mask_id`; older files hold them by `<mask id>_<name>`."""
    meta = disk.read_json(path)
    try:
        if isinstance(meta["objects"], dict):
            meta["objects"] = [o | {"mask_id": int(k.split("_")[0])} for k, o in meta["objects"].items()]
        for o in meta["objects"]:
            if (
                not {"quaternion_wxyz", "translation", "mask_id"} <= o.keys()
                or not {"oid", "class_name", "bbox_side_len"} <= o["meta"].keys()
            ):
                raise KeyError("an object's pose or meta")
        meta["K"] = camera.intrinsics(*(float(meta["camera"]["intrinsics"][k]) for k in ("fx", "fy", "cx", "cy")))
        return meta
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConvertError(f"{path} is not an Omni6DPose meta file: {type(error).__name__} {error}") from None


def _pose(o: dict[str, Any], world: bool = False) -> Array:
    prefix = "world_" if world else ""
    return se3.make(se3.rotation_from_quaternion(o[f"{prefix}quaternion_wxyz"]), o[f"{prefix}translation"])


def _fill(row: Any, meta: dict[str, Any], numbers: dict[int, int]) -> None:
    row["K"] = meta["K"]
    for o in meta["objects"]:
        row["T_cam_object"][numbers[o["mask_id"]] - 1] = _pose(o)
    # World poses of the objects give the camera's without any convention of camera axes; they must agree about it.
    cameras = [_pose(o, world=True) @ se3.inverse(_pose(o)) for o in meta["objects"] if o.get("world_quaternion_wxyz")]
    if cameras and meta.get("comments") != WORLD_IS_CAMERA and np.abs(np.array(cameras) - cameras[0]).max() < 1e-3:
        row["T_world_cam"] = cameras[0]


def _images(path: Path, row: Any, numbers: dict[int, int], about: list[dict[str, Any]], real: bool) -> dict[str, Array]:
    prefix = str(path).removesuffix("meta.json")
    out = {"rgb": disk.read_image(Path(f"{prefix}color.png"), colour=True).astype(np.uint8)}
    for name, suffix in IMAGES.items():
        if (file := Path(f"{prefix}{suffix}")).is_file():
            measured = "depth_sim" if real and name == "depth_z" else name
            is_exr = suffix.endswith("exr")
            out[measured] = depth_or_none(disk.exr_channel(file, "R")) if is_exr else disk.read_image(file, colour=False).astype(np.uint8)
    if (file := Path(f"{prefix}mask.exr")).is_file():
        table = np.zeros(256, np.uint8)
        for value, k in numbers.items():
            table[value] = k
        ids = np.rint(disk.exr_channel(file, "R") * 255)  # rounding mends half-float files
        out["mask_object"] = table[np.clip(ids, 0, 255).astype(np.uint8)]
        if (coord := Path(f"{prefix}coord.png")).is_file():
            depth = out.get("depth_sim" if real else "depth_z")
            out["nocs"] = _decode(disk.read_image(coord, colour=True), out["mask_object"], depth, row, about)
    return out


def _decode(coord: Array, ids: Array, depth: Array | None, row: Any, about: list[dict[str, Any]]) -> Array:
    out = np.zeros(coord.shape, np.uint16)
    points = None if depth is None or depth.shape != ids.shape else camera.backproject(row["K"], depth)
    for k, thing in enumerate(about):
        here = ids == k + 1
        if not here.any() or "size_m" not in thing:
            continue
        unit = coord[here] / 255.0
        unit[:, 2] = 1 - unit[:, 2]
        unit -= 0.5
        size = np.array(thing["size_m"])
        length = float(np.linalg.norm(size))
        if points is not None and depth is not None:
            length = _length(unit, points[here][:], depth[here] > 0, row["T_cam_object"][k], length)
        out[here] = np.rint(np.clip(unit * length / size + 0.5, 0, 1) * 65535).astype(np.uint16)
    return out


def _length(unit: Array, points: Array, valid: Array, T: Array, diagonal: float) -> float:
    """What the coordinates were divided by: the metres of the seen points over their coordinates; the diagonal where that is unclear."""
    if valid.sum() < 12:
        return diagonal
    own = np.linalg.norm(se3.transform(se3.inverse(T), points[valid]), axis=1)
    ratio = own / np.maximum(np.linalg.norm(unit[valid], axis=1), 1e-3)
    low, middle, high = np.percentile(ratio, (25, 50, 75))
    return float(middle) if high - low < 0.1 * middle and abs(middle / diagonal - 1) > 0.03 else diagonal
