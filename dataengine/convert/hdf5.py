"""BlenderProc's HDF5 containers: one file per frame, `N.hdf5`, here one folder of them per video.

Datasets as BlenderProc writes them: colors, depth (m), normals (0.5 + 0.5·n, camera axes x right, y up, z back), nocs (0…1),
instance_segmaps with instance_attribute_maps (JSON), cam_states (JSON; `cam2world_matrix` of a camera looking along −z).
What BlenderProc has no name for is added under ours: the other modalities by name and the group `labels` with one dataset per
column of the frame table, so that our own export reads back bit by bit.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import NO_NAMES, blank_rows, by_clip, depth_or_none, image_size, objects_of, stack_images
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera
from dataengine.record.frame_table import describe, from_description
from dataengine.record.modalities import NAMES
from dataengine.record.video import Names, Video
from dataengine.store import files

LINK_IDS = 256
"""instance_segmaps: objects keep their ids (255 table, 254 room), robot link k is LINK_IDS + k."""
GL_AXES = np.array([1.0, -1.0, -1.0])
RENAMED = {"rgb": "colors", "depth_z": "depth"}
ABOUT = ("source", "names", "scene", "provenance", "rejection", "notes")
MAX_OBJECT = 255


# ---- export ----------------------------------------------------------------------------------------------------------


def export_hdf5(videos: Iterable[Video], out: Path) -> int:
    """Write `NNNNNN/F.hdf5`; everything a video holds; returns how many videos."""
    disk.new_folder(out)
    count = 0
    for video in videos:
        for f in range(video.frame_count):
            path = out / f"{count:06d}" / f"{f}.hdf5"
            with files.reported(path):
                path.parent.mkdir(exist_ok=True)
                try:
                    with h5py.File(path, "w") as file:
                        _write_frame(file, video, f)
                except RuntimeError as error:  # HDF5 tells a full disk so when it closes a file
                    raise ConvertError(f"{path} cannot be written: {error}; check free space and permissions") from None
        count += 1
    return count


def _write_frame(file: Any, video: Video, f: int) -> None:
    for name, stack in video.images.items():
        image = stack[f]
        if name == "normals":
            image = (0.5 + 0.5 * GL_AXES * image / 127).astype(np.float32)
        elif name == "nocs":
            image = (image / 65535).astype(np.float32)
        elif name in ("mask_link", "mask_object"):
            continue
        file.create_dataset(RENAMED.get(name, name), data=image, compression="gzip")
    if masks := [name for name in ("mask_object", "mask_link") if name in video.images]:
        file.create_dataset("instance_segmaps", data=_segmentation(video, f), compression="gzip")
        _write_json(file, "instance_attribute_maps", _attributes(video))
        file["instance_segmaps"].attrs["holds"] = masks
    row = video.frames[f]
    if np.isfinite(row["T_world_cam"]).all():
        state = {"cam_K": row["K"].tolist(), "cam2world_matrix": camera.blender_camera_matrix(row["T_world_cam"]).tolist()}
        _write_json(file, "cam_states", [state | {"name": "camera"}])
    labels = file.create_group("labels")
    for column in row.dtype.names or ():
        labels.create_dataset(column, data=row[column])
    about = {"source": video.source, "names": asdict(video.names), "scene": video.scene, "provenance": video.provenance}
    about |= {
        "rejection": video.rejection,
        "notes": video.notes,
        "frame_dtype": describe(video.frames.dtype),
        "modalities": list(video.images),
    }
    _write_json(labels, "about", about)


def _write_json(file: Any, name: str, value: Any) -> None:
    file.create_dataset(name, data=np.bytes_(json.dumps(value).encode()))


def _segmentation(video: Video, f: int) -> Array:
    out = np.zeros(video.size, np.uint16)
    if "mask_object" in video.images:
        out[:] = video.images["mask_object"][f]
    if "mask_link" in video.images:
        link = video.images["mask_link"][f]
        out[link > 0] = LINK_IDS + link[link > 0].astype(np.uint16) - 1
    return out


def _attributes(video: Video) -> list[dict[str, Any]]:
    """category_id: 0 surroundings, 1 robot, 2… the objects' categories in alphabetical order."""
    things = objects_of(video)
    categories = sorted({t["category"] for t in things})
    rows = [{"idx": 0, "category_id": 0, "name": "background"}]
    rows += [{"idx": k + 1, "category_id": 2 + categories.index(t["category"]), "name": t["name"]} for k, t in enumerate(things)]
    rows += [{"idx": 254, "category_id": 0, "name": "room"}, {"idx": 255, "category_id": 0, "name": "table"}]
    return rows + [{"idx": LINK_IDS + k, "category_id": 1, "name": name} for k, name in enumerate(video.names.links)]


# ---- import ----------------------------------------------------------------------------------------------------------


def import_hdf5(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Every folder of N.hdf5 files as one video, or as several of `frames_per_video`; BlenderProc's own files or ours.

    Of BlenderProc's files: colors, depth, normals, nocs, instance_segmaps and cam_states; of stereo pairs the left image.
    """
    found = sorted((p for p in disk.source_folder(folder).rglob("*.hdf5") if p.stem.isdigit()), key=disk.natural)
    if not found:
        raise ConvertError(f"{folder} holds no N.hdf5: not an output folder of BlenderProc")
    for clip in by_clip(found, frames_per_video, lambda before, path: before.parent != path.parent):
        yield _video(clip, folder)


def _video(paths: list[Path], top: Path) -> Video:
    where = paths[0].parent
    frames = [_read(path) for path in paths]
    images = stack_images([frame["images"] for frame in frames], where)
    image_size(images, where)
    about = frames[0]["about"]
    if about is None:
        return _foreign(frames, images, top, where)
    try:
        rows = np.zeros(len(frames), from_description(about["frame_dtype"]))
        for row, frame in zip(rows, frames, strict=True):
            for column in rows.dtype.names or ():
                row[column] = frame["labels"][column]
        axes: dict[str, Any] = {k: tuple(tuple(v) if isinstance(v, list) else v for v in values) for k, values in about["names"].items()}
        images = {name: images[name] for name in about["modalities"]}
        return Video(names=Names(**axes), images=images, frames=rows, **{k: about[k] for k in ABOUT if k != "names"}).check()
    except (KeyError, TypeError, ValueError) as error:
        raise ConvertError(f"{where}: the files are not of one video: {type(error).__name__} {error}") from None


def _read(path: Path) -> dict[str, Any]:
    """Images by modality, JSON parts, labels."""
    try:
        with h5py.File(path, "r") as opened:
            file: Any = opened
            out: dict[str, Any] = {k: _read_json(file, k) for k in ("cam_states", "instance_attribute_maps")}
            labels = file.get("labels")
            ours = isinstance(labels, h5py.Group)
            out["labels"] = {k: v[()] for k, v in labels.items()} if ours else {}
            out["about"] = _read_json(labels, "about") if ours else None
            held = list(file["instance_segmaps"].attrs.get("holds", ())) if "instance_segmaps" in file else []
            out["images"] = _images({k: v[()] for k, v in file.items() if isinstance(v, h5py.Dataset) and v.ndim >= 2}, held)
            return out
    except (OSError, ValueError) as error:
        raise ConvertError(f"{path} is not an HDF5 file that can be read: {error}") from None


def _read_json(file: Any, name: str) -> Any:
    return json.loads(bytes(file[name][()]).rstrip(b"\0")) if name in file else None


def _images(data: dict[str, Array], held: list[str]) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for key, array in data.items():
        if key in ("colors", "depth", "normals", "nocs", "instance_segmaps") and array.ndim == (
            4 if key in ("colors", "normals", "nocs") else 3
        ):
            array = array[0]  # BlenderProc stacks a stereo pair; its left camera is the camera
        if key == "colors":
            out["rgb"] = array[..., :3].astype(np.uint8)
        elif key == "depth":
            out["depth_z"] = depth_or_none(array)
        elif key == "normals":
            out["normals"] = np.rint((np.asarray(array[..., :3], float) - 0.5) * 2 * 127 * GL_AXES).astype(np.int8)
        elif key == "nocs":
            out["nocs"] = np.rint(np.clip(np.asarray(array[..., :3], float), 0, 1) * 65535).astype(np.uint16)
        elif key == "instance_segmaps":
            if held or array.max(initial=0) <= MAX_OBJECT:
                out["mask_object"] = np.where(array < LINK_IDS, array, 0).astype(np.uint8)
            if "mask_link" in held:
                out["mask_link"] = np.where(array >= LINK_IDS, array - (LINK_IDS - 1), 0).astype(np.uint8)
        elif key in NAMES:
            out[key] = array
    return out


def _foreign(frames: list[dict[str, Any]], images: dict[str, Array], top: Path, where: Path) -> Video:
    names = {int(a["idx"]): str(a.get("name", f"instance {a['idx']}")) for a in frames[0]["instance_attribute_maps"] or [] if int(a["idx"])}
    count = max((k for k in names if k < 254), default=0)
    objects = tuple(names.get(k, f"instance {k}") for k in range(1, count + 1))
    named = replace(NO_NAMES, objects=objects)
    rows = blank_rows(named, len(frames))
    for row, frame in zip(rows, frames, strict=True):
        for state in (frame["cam_states"] or [])[:1]:
            row["K"] = state["cam_K"]
            row["T_world_cam"] = camera.blender_camera_matrix(state["cam2world_matrix"])  # the change of axes is its own inverse
    things = [{"instance_id": k + 1, "name": name, "category": name} for k, name in enumerate(objects)]
    scene = {"format": "hdf5", "origin": where.relative_to(top).as_posix(), "objects": things}
    return Video("rendered", named, images, rows, scene, {"imported_from": "BlenderProc HDF5"}).check()
