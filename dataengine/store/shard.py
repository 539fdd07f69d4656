"""One video as one zarr v3 group on disk: write, read lazily, digest.

`zarr.json` of the group holds everything that is said once per video; one array per modality holds the images, and the
array `frames` the structured label rows as raw bytes, with their dtype in its attributes, so that any zarr tool reads them.
Equal videos give byte-identical folders: no times, no machine names, canonical JSON, one-threaded codecs.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.errors import RecordError, StoreError, unknown_name
from dataengine.record.frame_table import COLUMNS, describe, from_description
from dataengine.record.modalities import DEPTH_QUANTUM_M, TABLE, modality
from dataengine.record.video import Names, Video
from dataengine.store.codecs import Part, codecs_for
from dataengine.store.files import json_bytes, read_json, reported, sync_tree, write_new
from dataengine.store.shard_file import ArrayInfo, ArrayReader, open_array, write_array

SCHEMA_VERSION = 1
"""Of shard and dataset folders; a reader refuses a newer one."""

FRAMES = "frames"
"""Name of the array of label rows."""


def write_shard(directory: Path, video: Video, profile: str = "portable") -> None:
    """Write a video into `directory` (new or empty), every file and folder synced to disk.

    `profile`: one of `codecs.PROFILES`; depth, masks and labels are bit-exact in all of them.
    Raises RecordError (the video breaks the table), DiskFull, StoreError.
    """
    if video.check().frame_count == 0:
        raise RecordError("a video without frames cannot be stored; render at least 1 frame")
    with reported(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise StoreError(f"{directory} is not empty; a shard is written into a new folder")
    with reported(directory):
        for m in TABLE:
            if m.name in video.images:
                images = video.images[m.name]
                write_array(directory / m.name, _image_info(m.name, images.shape, profile), images)
        rows = _packed(video.frames)
        raw = rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
        write_array(directory / FRAMES, _frames_info(rows.dtype, len(rows), profile), raw)
        # Compact: with indentation, Python's encoder takes longer than compressing a frame.
        write_new(directory / "zarr.json", [json_bytes(_group(video, profile), indent=None)])
    sync_tree(directory)


def read_shard(directory: Path, modalities: Iterable[str] | None = None, frames: Iterable[int] | None = None) -> Video:
    """Video of a shard; `modalities` and `frames` (indices, in the wanted order) select parts, None means all."""
    with ShardReader(directory) as reader:
        return reader.video(modalities, frames)


class ShardReader:
    """Lazy access to one shard. Nothing is opened before it is asked for; may be forked and pickled."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._arrays: dict[str, ArrayReader] = {}

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> Path:
        return self.directory

    def __setstate__(self, state: Path) -> None:
        self.__init__(state)

    def close(self) -> None:
        """Let go of the memory maps; the next read opens them again."""
        self._arrays.clear()

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Of the group: schema_version, frame_count, size, profile, modalities, source, names, scene, provenance, rejection, notes."""
        where = self.directory / "zarr.json"
        found = read_json(where, "not a shard, or a damaged one; run the render again, which replaces damaged videos")
        attributes = found.get("attributes", {})
        version = attributes.get("schema_version")
        if not isinstance(version, int):
            raise StoreError(f"{self.directory} is a zarr group but not a shard of this project (no schema_version)")
        if version > SCHEMA_VERSION:
            raise StoreError(newer_schema(self.directory, version))
        return attributes

    @cached_property
    def names(self) -> Names:
        n = self.attributes["names"]
        return Names(
            tuple(n["joints"]),
            tuple(n["links"]),
            tuple(n["keypoints"]),
            tuple(n["keypoint_links"]),
            tuple((x, y, z) for x, y, z in n["keypoint_offsets_m"]),
            tuple(n["objects"]),
        )

    @property
    def scene(self) -> dict[str, Any]:
        return self.attributes["scene"]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Stored image modalities, in table order."""
        return tuple(self.attributes["modalities"])

    @property
    def frame_count(self) -> int:
        return self.attributes["frame_count"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width); (0, 0) when there are no images."""
        height, width = self.attributes["size"]
        return height, width

    def array(self, name: str) -> ArrayReader:
        """Reader of one array (a stored modality, or `frames`). Raises StoreError naming those stored."""
        reader = self._arrays.get(name)
        if reader is None:
            if not (self.directory / name / "zarr.json").exists() and name != FRAMES and name not in self.modalities:
                raise StoreError(f"{self.directory}: " + unknown_name("modality", name, self.modalities))
            reader = self._arrays[name] = open_array(self.directory / name)
        return reader

    def read(self, modality: str, frame: int, part: Part | None = None) -> np.ndarray:
        """One image or a part of it, (h, w) or (h, w, C), of the modality's dtype."""
        return self.array(modality).read(frame, part=part)

    def frames(self, frames: Iterable[int] | None = None) -> np.ndarray:
        """(n,) structured rows of `record.frame_table`."""
        reader = self.array(FRAMES)
        raw = reader.read_many(range(len(reader)) if frames is None else frames)
        return raw.view(self.row_dtype).reshape(len(raw))

    def video(self, modalities: Iterable[str] | None = None, frames: Iterable[int] | None = None) -> Video:
        """The in-memory record, or the asked part of it."""
        a = self.attributes
        chosen = list(range(self.frame_count)) if frames is None else list(frames)
        wanted = self.modalities if modalities is None else tuple(modalities)
        return Video(
            source=a["source"],
            names=self.names,
            images={name: self.array(name).read_many(chosen) for name in wanted},
            frames=self.frames(chosen),
            scene=a["scene"],
            provenance=a["provenance"],
            rejection=a["rejection"],
            notes=a["notes"],
        )

    @cached_property
    def row_dtype(self) -> np.dtype:
        """Dtype of the label rows."""
        return from_description(self.array(FRAMES).info.attributes["dtype"])


def newer_schema(path: Path, version: int) -> str:
    """What to say of a folder that a newer release wrote."""
    return f"{path} has schema version {version}, this release reads up to {SCHEMA_VERSION}; update dataengine"


def file_digests(directory: Path) -> dict[str, tuple[int, str]]:
    """{path relative to the shard: (bytes, sha256)} of every file, sorted."""
    found = {}
    for path in sorted(p for p in directory.rglob("*") if not p.is_dir()):
        data = path.read_bytes()
        found[path.relative_to(directory).as_posix()] = (len(data), hashlib.sha256(data).hexdigest())
    return dict(sorted(found.items()))


def shard_digest(directory: Path) -> str:
    """SHA-256 (hex) of the sorted list of (relative path, size, sha256): the identity of a shard's content."""
    return digest_of_files(file_digests(directory))


def digest_of_files(files: dict[str, tuple[int, str]]) -> str:
    """Digest of what `file_digests` returns."""
    rows = [[name, size, sha] for name, (size, sha) in sorted(files.items())]
    return hashlib.sha256(json_bytes(rows, indent=None)).hexdigest()


def _group(video: Video, profile: str) -> dict[str, Any]:
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "frame_count": video.frame_count,
        "size": list(video.size),
        "profile": profile,
        "modalities": [m.name for m in TABLE if m.name in video.images],
        "source": video.source,
        "names": asdict(video.names),
        "scene": video.scene,
        "provenance": video.provenance,
        "rejection": video.rejection,
        "notes": video.notes,
    }
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _image_info(name: str, shape: tuple[int, ...], profile: str) -> ArrayInfo:
    m = modality(name)
    attributes: dict[str, Any] = {"unit": m.unit, "frame": m.frame, "fill": m.fill, "meaning": m.meaning}
    if m.dtype == "float32":
        # Every multiple of the quantum in the range is a float32 exactly.
        attributes |= {"quantum": DEPTH_QUANTUM_M, "valid_range": [DEPTH_QUANTUM_M, DEPTH_QUANTUM_M * 2**24]}
    dtype = np.dtype(m.dtype)
    axes = ("frame", "y", "x", "channel")[: len(shape)]
    return ArrayInfo(shape, dtype, codecs_for(m.codec, dtype, len(shape) == 4, profile), m.fill, attributes, axes)


def _frames_info(dtype: np.dtype, count: int, profile: str) -> ArrayInfo:
    assert dtype.names is not None
    said = {c.name: {"unit": c.unit, "frame": c.frame, "meaning": c.meaning} for c in COLUMNS if c.name in dtype.names}
    meaning = "one structured row per frame as raw bytes; `dtype` lists name, numpy type and shape of its columns, packed"
    attributes = {"dtype": describe(dtype), "columns": said, "meaning": meaning}
    raw = np.dtype("uint8")
    return ArrayInfo((count, dtype.itemsize), raw, codecs_for("table", raw, profile=profile), 0, attributes, ("frame", "byte"))


def _packed(rows: np.ndarray) -> np.ndarray:
    """Rows without padding, as `frame_table.describe` can say them."""
    if rows.ndim != 1 or rows.dtype.names is None:
        raise RecordError(f"frames: got {rows.dtype}{rows.shape}, need (F,) rows of frame_table.frame_dtype")
    return np.ascontiguousarray(rows, from_description(describe(rows.dtype)))
