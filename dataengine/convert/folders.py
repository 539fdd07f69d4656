"""Plain folders: `video-NNNNNN/<modality>/FFFFFF.png|exr` and `video-NNNNNN/labels.json`. Loses nothing, opens in any viewer.

8- and 16-bit images are PNG as they are; depth is float32 EXR (metres), bit sets uint32 EXR, both in channel Y, which OpenCV
reads, too; normals are 8-bit PNG of value + 128. `labels.json` holds the frame table column by column, with nan as null, and
all the rest of the record.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import NO_NAMES, blank_rows, by_clip, depth_or_none, image_size, stack_images
from dataengine.convert.disk import Array, ConvertError
from dataengine.record.frame_table import describe, from_description
from dataengine.record.modalities import TABLE, modality
from dataengine.record.video import Names, Video

LABELS = "labels.json"
FORMAT = "dataengine plain folder"
SCHEMA_VERSION = 1
NORMAL_ZERO = 128
REST = ("source", "names", "scene", "provenance", "rejection", "notes")


# ---- export ----------------------------------------------------------------------------------------------------------


def export_folders(videos: Iterable[Video], out: Path) -> int:
    """Write one folder per video; returns how many. ConvertError: not an empty folder."""
    disk.new_folder(out)
    count = 0
    for video in videos:
        folder = out / f"video-{count:06d}"
        for name, stack in video.images.items():
            for f, image in enumerate(stack):
                _write_image(folder / name / f"{f:06d}", name, image)
        about = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "modalities": list(video.images),
            "frame_dtype": describe(video.frames.dtype),
        }
        about |= {"source": video.source, "names": asdict(video.names), "scene": video.scene, "provenance": video.provenance}
        about |= {"rejection": video.rejection, "notes": video.notes}
        columns = {name: _without_nan(video.frames[name].tolist()) for name in video.frames.dtype.names or ()}
        disk.write_json(folder / LABELS, about | {"frames": columns}, indent=1)
        count += 1
    return count


def _write_image(stem: Path, name: str, image: Array) -> None:
    if image.dtype in (np.float32, np.uint32):
        disk.write_exr(stem.with_suffix(".exr"), {"Y": image})
    elif name == "normals":
        disk.write_png(stem.with_suffix(".png"), (image.astype(np.int16) + NORMAL_ZERO).astype(np.uint8))
    else:
        disk.write_png(stem.with_suffix(".png"), image)


def _without_nan(value: Any) -> Any:
    """nan → null; infinities, which are no label, too."""
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- import ----------------------------------------------------------------------------------------------------------


def import_folders(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Every folder with a `labels.json`; where there is none, folders named after modalities, as videos without labels.

    `frames_per_video` cuts unlabelled sequences (default: one video per folder). ConvertError names the file that does not fit.
    """
    labelled = sorted((p.parent for p in disk.source_folder(folder).rglob(LABELS)), key=disk.natural)
    if labelled:
        yield from (_labelled(path) for path in labelled)
        return
    names = {m.name for m in TABLE}
    parents = sorted({p.parent for p in folder.rglob("*") if p.is_dir() and p.name in names}, key=disk.natural)
    if not parents:
        raise ConvertError(f"{folder} holds no {LABELS} and no folder named after a modality, such as rgb or depth_z")
    for parent in parents:
        stems = sorted({p.stem for name in names for p in (parent / name).glob("*") if p.is_file()}, key=lambda s: disk.natural(Path(s)))
        for clip in by_clip(stems, frames_per_video, lambda before, stem: False):
            yield _unlabelled(parent, clip, folder)


def _labelled(folder: Path) -> Video:
    path = folder / LABELS
    about = disk.read_json(path)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ConvertError(f"{path} is not the label file of a {FORMAT}")
    if about.get("schema_version") != SCHEMA_VERSION:
        raise ConvertError(f"{path} has schema {about.get('schema_version')}, this release reads {SCHEMA_VERSION}; use a newer release")
    try:
        rows = _rows(about["frames"], from_description(about["frame_dtype"]))
        stems = [f"{f:06d}" for f in range(len(rows))]
        images = {name: np.stack([_read_image(folder / name, stem, name) for stem in stems]) for name in about["modalities"]}
        axes: dict[str, Any] = {k: tuple(tuple(v) if isinstance(v, list) else v for v in values) for k, values in about["names"].items()}
        return Video(names=Names(**axes), images=images, frames=rows, **{k: about[k] for k in REST if k != "names"}).check()
    except (KeyError, TypeError, ValueError) as error:
        raise ConvertError(f"{path} is not a whole label file: {type(error).__name__} {error}") from None


def _rows(columns: dict[str, Any], dtype: np.dtype) -> Array:
    rows = np.zeros(len(next(iter(columns.values()))), dtype)
    for name, values in columns.items():
        base = dtype[name].base
        read = np.array(values, float) if base.kind == "f" else np.array(values, base)  # null becomes nan
        rows[name] = read.reshape(rows[name].shape)
    return rows


def _read_image(folder: Path, stem: str, name: str) -> Array:
    m = modality(name)
    path = next((p for p in (folder / f"{stem}{s}" for s in (".png", ".exr", ".jpg", ".npy")) if p.is_file()), None)
    if path is None:
        raise ConvertError(f"{folder} holds no {stem}.png or {stem}.exr")
    if path.suffix == ".npy":
        image = disk.read_npy(path)
    elif path.suffix == ".exr":
        channels = disk.read_exr(path)
        image = channels.get("Z", channels.get("Y", channels.get("R")))
        if image is None:
            raise ConvertError(f"{path} has the channels {', '.join(channels)}; one must be Z, Y or R")
        image = depth_or_none(image) if m.dtype == "float32" else image
    else:
        image = disk.read_image(path, colour=len(m.shape) == 3)
        if name == "normals":
            image = (image.astype(np.int16) - NORMAL_ZERO).astype(np.int8)
    if image.dtype != np.dtype(m.dtype):
        raise ConvertError(f"{path} holds {image.dtype}, {name} is {m.dtype} ({m.unit}): write it so")
    return image


def _unlabelled(parent: Path, stems: list[str], top: Path) -> Video:
    present = [m.name for m in TABLE if (parent / m.name).is_dir()]
    images = stack_images([{name: _read_image(parent / name, stem, name) for name in present} for stem in stems], parent)
    image_size(images, parent)
    ids = int(images["mask_object"][images["mask_object"] < 254].max(initial=0)) if "mask_object" in images else 0
    objects = tuple(f"object {k + 1}" for k in range(ids))
    names = replace(NO_NAMES, objects=objects)
    things = [{"instance_id": k + 1, "name": n, "category": n} for k, n in enumerate(objects)]
    scene = {"format": "folders", "origin": parent.relative_to(top).as_posix(), "files": stems, "objects": things}
    return Video("real", names, images, blank_rows(names, len(stems)), scene, {"imported_from": "folders"}).check()
