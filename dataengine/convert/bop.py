"""BOP datasets, scene-wise (Hodaň et al., https://bop.felk.cvut.cz): one folder per scene, here one per video.

    models/models_info.json, models/obj_NNNNNN.ply       millimetres
    train_pbr|test/SSSSSS/scene_camera.json              cam_K, depth_scale (pixel · depth_scale = mm), cam_R_w2c, cam_t_w2c (mm)
    train_pbr|test/SSSSSS/scene_gt.json                  per instance obj_id, cam_R_m2c, cam_t_m2c (mm)
    train_pbr|test/SSSSSS/scene_gt_info.json             bbox_obj, bbox_visib (x, y, w, h), px_count_all|valid|visib, visib_fract
    …/rgb/IIIIII.png, depth/IIIIII.png (16 bit), mask/IIIIII_GGGGGG.png (silhouette), mask_visib/IIIIII_GGGGGG.png

Matrices row by row; model origin = centre of its bounding box; OpenCV camera. The robot is not part of the format.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import disk
from dataengine.convert.bop_models import Models
from dataengine.convert.common import blank_rows, by_clip, depth_image, finite, image_size, objects_of, require, stack_images
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import se3
from dataengine.record.video import Names, Video

FINEST_MM = 0.1
NO_BOX = [-1, -1, -1, -1]
MAX_INSTANCES, MAX_SILHOUETTES = 253, 32


# ---- export ----------------------------------------------------------------------------------------------------------


def export_bop(videos: Iterable[Video], out: Path) -> int:
    """Write one BOP scene per video, rendered ones below train_pbr, real ones below test; returns how many.

    Depth is rounded to `depth_scale` (0.1 mm, coarser where the scene is deeper than 6.5 m).
    ConvertError: not an empty folder, rgb, depth, mask_object or amodal_objects missing, unknown poses.
    """
    disk.new_folder(out)
    models, count = Models(), 0
    for video in videos:
        split = "train_pbr" if video.source == "rendered" else "test"
        _write_scene(video, out / split / f"{count:06d}", models)
        if count == 0:
            _write_camera(video, out)
        count += 1
    models.write(out / "models")
    return count


def _write_camera(video: Video, out: Path) -> None:
    K, (height, width) = video.frames["K"][0], video.size
    values = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "depth_scale": _depth_scale(depth_image(video, "BOP")[1])}
    disk.write_json(out / "camera.json", {k: float(v) for k, v in values.items()} | {"width": width, "height": height})


def _depth_scale(depth_m: Array) -> float:
    """Millimetres per step, such that the deepest pixel fits into 16 bits."""
    steps = math.ceil(float(depth_m.max(initial=0.0)) * 1000 / 65535 / FINEST_MM - 1e-9)
    return round(FINEST_MM * max(1, steps), 6)


def _write_scene(video: Video, folder: Path, models: Models) -> None:
    numbers = [models.number(thing) for thing in objects_of(video)]
    _, depth = depth_image(video, "BOP")
    scale_mm = _depth_scale(depth)
    cameras, poses, infos = {}, {}, {}
    for f in range(video.frame_count):
        row = video.frames[f]
        disk.write_png(folder / "rgb" / f"{f:06d}.png", require(video, "rgb", "BOP")[f])
        steps = np.rint(depth[f].astype(np.float64) * 1000 / scale_mm).astype(np.uint16)
        disk.write_png(folder / "depth" / f"{f:06d}.png", steps)
        cameras[f] = {"cam_K": _flat(row["K"], "K"), "depth_scale": scale_mm}
        if np.isfinite(row["T_world_cam"]).all():
            cameras[f] |= _pose(se3.inverse(row["T_world_cam"]), "w2c")
        poses[f] = [{"obj_id": n} | _pose(T, "m2c") for n, T in zip(numbers, row["T_cam_object"], strict=True)]
        infos[f] = [_write_masks(video, f, k, folder, steps > 0) for k in range(len(numbers))]
    for name, content in (("camera", cameras), ("gt", poses), ("gt_info", infos)):
        disk.write_json(folder / f"scene_{name}.json", {str(k): v for k, v in content.items()})


def _flat(matrix: Array, what: str) -> list[float]:
    return np.ravel(finite(matrix, what)).tolist()


def _pose(T: Array, frames: str) -> dict[str, list[float]]:
    return {f"cam_R_{frames}": _flat(T[:3, :3], "an object's pose"), f"cam_t_{frames}": _flat(1000 * T[:3, 3], "an object's pose")}


def _write_masks(video: Video, f: int, k: int, folder: Path, valid: Array) -> dict[str, Any]:
    visible = require(video, "mask_object", "BOP")[f] == k + 1
    if k >= MAX_SILHOUETTES:
        raise ConvertError(f"amodal_objects holds {MAX_SILHOUETTES} silhouettes; this video has object {k + 1}")
    whole = (require(video, "amodal_objects", "BOP")[f] >> np.uint32(k)) & 1 > 0
    for kind, image in (("mask", whole), ("mask_visib", visible)):
        disk.write_png(folder / kind / f"{f:06d}_{k:06d}.png", image.astype(np.uint8) * 255)
    pixels = int(whole.sum())
    return {
        "bbox_obj": box_of(whole), "bbox_visib": box_of(visible),
        "px_count_all": pixels, "px_count_valid": int((whole & valid).sum()), "px_count_visib": int(visible.sum()),
        "visib_fract": float(visible.sum() / pixels) if pixels else 0.0,
    }  # fmt: skip


def box_of(mask: Array) -> list[int]:
    """[x, y, width, height] of the pixels set; BOP's −1 four times when there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return list(NO_BOX)
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


# ---- import ----------------------------------------------------------------------------------------------------------


def import_bop(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Scenes of a BOP dataset, split or single scene folder, in clips of `frames_per_video` (default 30) images.

    Depth is `depth_z` where a split's name says synthetic (pbr, synt, render), else the sensor's `depth_sim`. Objects without a
    mask file stay out of mask_object.
    """
    scenes = sorted((p.parent for p in disk.source_folder(folder).rglob("scene_camera.json")), key=disk.natural)
    if not scenes:
        raise ConvertError(f"{folder} holds no scene_camera.json: not a BOP dataset in scene-wise form")
    for scene in scenes:
        cameras = disk.read_json(scene / "scene_camera.json")
        poses = disk.read_json(scene / "scene_gt.json") if (scene / "scene_gt.json").exists() else {}
        infos = disk.read_json(scene / "scene_gt_info.json") if (scene / "scene_gt_info.json").exists() else {}
        names = _model_names(scene)
        for clip in by_clip(sorted(cameras, key=int), frames_per_video or 30, lambda before, image: False):
            try:
                yield _video(scene, folder, {i: (cameras[i], poses.get(i, []), infos.get(i)) for i in clip}, names)
            except (KeyError, ValueError, TypeError) as error:
                raise ConvertError(f"{scene}: the scene_*.json files are not as BOP states them: {type(error).__name__} {error}") from None


def _model_names(scene: Path) -> dict[int, str]:
    for top in scene.parents[:2]:
        for info in sorted(top.glob("models*/models_info.json")):
            return {int(k): str(v["name"]) for k, v in disk.read_json(info).items() if "name" in v}
    return {}


def _video(scene: Path, top: Path, frames: dict[str, tuple[Any, list[Any], list[Any] | None]], named: dict[int, str]) -> Video:
    instances: dict[tuple[int, int], int] = {}
    at = {}
    for image, (_, gts, _) in frames.items():
        seen: dict[int, int] = {}
        for g, gt in enumerate(gts):
            key = (int(gt["obj_id"]), seen.get(int(gt["obj_id"]), 0))
            seen[key[0]] = key[1] + 1
            at[image, g] = instances.setdefault(key, len(instances))
    if len(instances) > MAX_INSTANCES:
        raise ConvertError(
            f"{scene} has {len(instances)} instances in one clip; mask_object holds {MAX_INSTANCES}, import fewer frames per video"
        )
    split = scene.parent.name.lower()
    rendered = any(word in split for word in ("pbr", "synt", "render"))
    images = stack_images([_images(scene, i, frames[i], at, rendered) for i in frames], scene)
    image_size(images, scene)
    labels = [f"{named.get(n, f'obj_{n:06d}')}.{k}" for n, k in instances]
    names = Names((), (), (), (), (), tuple(labels))
    rows = blank_rows(names, len(frames))
    for row, (image, (cam, gts, infos)) in zip(rows, frames.items(), strict=True):
        row["K"] = np.reshape(cam["cam_K"], (3, 3))
        if "cam_R_w2c" in cam:
            row["T_world_cam"] = se3.inverse(_matrix(cam, "w2c"))
        for g, gt in enumerate(gts):
            row["T_cam_object"][at[image, g]] = _matrix(gt, "m2c")
            if infos:
                row["object_visibility"][at[image, g]] = infos[g]["visib_fract"]
    things = [
        {"instance_id": i + 1, "name": labels[i], "category": named.get(n, f"obj_{n:06d}"), "bop_obj_id": n}
        for i, (n, _) in enumerate(instances)
    ]
    about = {"format": "bop", "origin": scene.relative_to(top).as_posix(), "images": [int(i) for i in frames], "objects": things}
    return Video("rendered" if rendered else "real", names, images, rows, about, {"imported_from": "BOP"}).check()


def _matrix(entry: dict[str, Any], frames: str) -> Array:
    return se3.make(np.reshape(entry[f"cam_R_{frames}"], (3, 3)), np.array(entry[f"cam_t_{frames}"], float) / 1000)


def _images(scene: Path, image: str, frame: tuple[Any, list[Any], Any], at: dict[tuple[str, int], int], rendered: bool) -> dict[str, Array]:
    out: dict[str, Array] = {}
    stem = f"{int(image):06d}"
    for path in (scene / kind / f"{stem}{suffix}" for kind in ("rgb", "gray") for suffix in (".png", ".jpg", ".tif")):
        if path.is_file() and "rgb" not in out:
            out["rgb"] = disk.read_image(path, colour=True).astype(np.uint8)
    if (path := scene / "depth" / f"{stem}.png").is_file():
        depth_mm = disk.read_image(path, colour=False).astype(np.float64) * float(frame[0]["depth_scale"])
        out["depth_z" if rendered else "depth_sim"] = (depth_mm / 1000).astype(np.float32)
    for g in range(len(frame[1])):
        instance = at[image, g]
        for kind, name, dtype in (("mask_visib", "mask_object", np.uint8), ("mask", "amodal_objects", np.uint32)):
            path = scene / kind / f"{stem}_{g:06d}.png"
            if not path.is_file() or (name == "amodal_objects" and instance >= MAX_SILHOUETTES):
                continue
            mask = disk.read_image(path, colour=False) > 0
            labels = out.setdefault(name, np.zeros(mask.shape, dtype))
            labels[mask] = labels[mask] | np.uint32(1 << instance) if name == "amodal_objects" else instance + 1
    return out
