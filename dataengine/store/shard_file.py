"""One array of frames ↔ one zarr v3 shard file, byte for byte, without zarr.

An array is a folder with `zarr.json` and one data file: its single chunk is a shard (codec `sharding_indexed`) whose
inner chunks are the frames, one each, followed by an index of (offset, length) per frame and the index's crc32c.
Any frame is therefore one range read, and a writer can stream.
Source: zarr v3 core specification and sharding codec specification, version 1.0.
"""

import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.errors import StoreError
from dataengine.store.codecs import Chain, Decayed, Part, crc32c, parse_chain, part_shape
from dataengine.store.files import json_bytes, read_json, write_new

MISSING = 2**64 - 1
"""Offset and length in the index of a frame that was never written; it reads as the fill value."""

INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


class CorruptShard(StoreError):
    """Damaged bytes, located: the file, the array (`field`), and the frame where it is one frame only."""

    def __init__(self, file: str, field: str, frame: int | None, what: str) -> None:
        super().__init__(file, field, frame, what)
        self.file, self.field, self.frame, self.what = file, field, frame, what

    def __str__(self) -> str:
        frame = "" if self.frame is None else f" frame {self.frame}"
        return f"{self.file}: {self.field}{frame} is damaged ({self.what}); run the render again, which replaces damaged videos"


@dataclass(frozen=True)
class ArrayInfo:
    """What `zarr.json` of one array says. `shape` is (F, …); `codecs` the inner codecs' metadata."""

    shape: tuple[int, ...]
    dtype: np.dtype
    codecs: list[dict[str, Any]]
    fill: float = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    axes: tuple[str, ...] | None = None

    @cached_property
    def chain(self) -> Chain:
        return parse_chain(self.codecs)

    @property
    def data_file(self) -> str:
        """Name of the data file: the key of chunk (0, 0, …) with separator "."."""
        return ".".join(["c"] + ["0"] * len(self.shape))

    def metadata(self) -> dict[str, Any]:
        """Content of `zarr.json`."""
        sharding = {"chunk_shape": [1, *self.shape[1:]], "codecs": self.codecs, "index_codecs": INDEX_CODECS, "index_location": "end"}
        names = {} if self.axes is None else {"dimension_names": list(self.axes)}
        return names | {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.shape)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": float(self.fill) if self.dtype.kind == "f" else int(self.fill),
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": self.attributes,
        }


def parse_array(metadata: dict[str, Any], where: str) -> ArrayInfo:
    """ArrayInfo from the content of `zarr.json`. Raises StoreError for a layout other than the one described above."""
    try:
        shape = tuple(metadata["shape"])
        (outer,) = metadata["codecs"]
        sharding = outer["configuration"]
        key = metadata["chunk_key_encoding"]
        found = {
            "zarr_format": metadata["zarr_format"],
            "node_type": metadata["node_type"],
            "codec": outer["name"],
            "chunk_shape": tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
            "inner chunk_shape": tuple(sharding["chunk_shape"]),
            "chunk_key_encoding": (key["name"], key.get("configuration", {}).get("separator", "/")),
            "index_location": sharding.get("index_location", "end"),
            "index_codecs": [c["name"] for c in sharding["index_codecs"]],
        }
        info = ArrayInfo(
            shape,
            np.dtype(metadata["data_type"]),
            sharding["codecs"],
            float(metadata["fill_value"]),
            metadata.get("attributes", {}),
            tuple(metadata["dimension_names"]) if metadata.get("dimension_names") else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{where}: not the metadata of an array of frames ({error!r})") from None
    ours = {
        "zarr_format": 3,
        "node_type": "array",
        "codec": "sharding_indexed",
        "chunk_shape": shape,
        "inner chunk_shape": (1, *shape[1:]),
        "chunk_key_encoding": ("default", "."),
        "index_location": "end",
        "index_codecs": ["bytes", "crc32c"],
    }
    for key_name, want in ours.items():
        if found[key_name] != want:
            raise StoreError(f"{where}: {key_name} is {found[key_name]}, this reader needs {want}; convert it with zarr")
    return info


def shard_parts(info: ArrayInfo, frames: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The shard file of `frames` (info.shape[0] arrays of shape info.shape[1:]), in pieces, index last."""
    lengths = []
    for frame in frames:
        if frame.dtype != info.dtype or frame.shape != info.shape[1:]:
            raise StoreError(f"frame {len(lengths)} is {frame.dtype}{frame.shape}, the array holds {info.dtype}{info.shape[1:]}")
        encoded = info.chain.encode(frame)
        lengths.append(len(encoded))
        yield encoded
    if len(lengths) != info.shape[0]:
        raise StoreError(f"{len(lengths)} frames given for an array of {info.shape[0]}")
    length = np.asarray(lengths, "<u8")
    index = np.stack([np.cumsum(length) - length, length], 1).astype("<u8").tobytes()
    yield index
    yield crc32c(index).to_bytes(4, "little")


def write_array(folder: Path, info: ArrayInfo, frames: Iterable[np.ndarray]) -> None:
    """Write `zarr.json` and the data file into a new folder. Not synced."""
    folder.mkdir()
    # Compact: Python's encoder with indentation takes a twentieth of the time of writing a short video.
    write_new(folder / "zarr.json", [json_bytes(info.metadata(), indent=None)])
    write_new(folder / info.data_file, shard_parts(info, frames))


def open_array(folder: Path) -> "ArrayReader":
    """Reader of one array folder. Raises StoreError (missing, another layout) or CorruptShard."""
    where = folder / "zarr.json"
    try:
        return ArrayReader(folder, _parse_bytes(where.read_bytes()))
    except (OSError, StoreError, ValueError) as error:
        if isinstance(error, CorruptShard):
            raise
    # Again, slowly, for an error that names the file.
    metadata = read_json(where, "a shard's array lost its metadata; run the render again, which replaces damaged videos")
    return ArrayReader(folder, parse_array(metadata, str(where)))


@lru_cache(maxsize=64)
def _parse_bytes(data: bytes) -> ArrayInfo:
    """Arrays of one modality have equal metadata in thousands of shards."""
    return parse_array(json.loads(data), "zarr.json")


class ArrayReader:
    """Random access to the frames of one array: mmap, index parsed and checked once, one frame decoded per call.

    Read-only memory maps may be used after `fork`; `spawn` and Ray pickle the folder, and the copy maps it anew.
    """

    def __init__(self, folder: Path, info: ArrayInfo) -> None:
        self.folder, self.info = folder, info
        self._open()

    def __len__(self) -> int:
        return self.info.shape[0]

    def __getstate__(self) -> tuple[Path, ArrayInfo]:
        return self.folder, self.info

    def __setstate__(self, state: tuple[Path, ArrayInfo]) -> None:
        self.folder, self.info = state
        self._open()

    def read(self, frame: int, out: np.ndarray | None = None, part: Part | None = None) -> np.ndarray:
        """Frame `frame` in 0 … F-1, or a part of it, into `out` where given (C-contiguous). Raises CorruptShard, StoreError."""
        if not 0 <= frame < len(self):
            raise StoreError(f"{self.folder}: frame {frame} does not exist; there are {len(self)}, counted from 0")
        whole = self.info.shape[1:]
        result = np.empty(whole if part is None else part_shape(part, whole), self.info.dtype) if out is None else out
        offset, length = self._index[frame].tolist()
        if offset == MISSING:
            result[...] = self.info.fill
            return result
        try:
            if part is None:
                self.info.chain.decode(self._bytes[offset : offset + length], result)
            else:
                self.info.chain.decode_part(self._bytes[offset : offset + length], part, whole, result)
        except Decayed as error:
            raise self._corrupt(frame, str(error)) from None
        return result

    def read_many(self, frames: Iterable[int]) -> np.ndarray:
        """(n, …) stack of the given frames."""
        chosen = list(frames)
        out = np.empty((len(chosen), *self.info.shape[1:]), self.info.dtype)
        for row, frame in zip(out, chosen, strict=True):
            self.read(frame, row)
        return out

    def _open(self) -> None:
        path = self.folder / self.info.data_file
        count = len(self)
        tail = 16 * count + 4
        try:
            with open(path, "rb") as file:
                self._bytes = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except FileNotFoundError:
            raise self._corrupt(None, "the data file is missing") from None
        except ValueError:  # an empty file cannot be mapped
            raise self._corrupt(None, "the data file is empty") from None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; check the disk") from error
        if len(self._bytes) < tail:
            raise self._corrupt(None, f"{len(self._bytes)} bytes, too short for its index")
        index = self._bytes[-tail:-4]
        if crc32c(index) != int.from_bytes(self._bytes[-4:].tobytes(), "little"):
            raise self._corrupt(None, "the index fails its crc32c")
        self._index = index.view("<u8").reshape(count, 2)
        room = len(self._bytes) - tail
        offset, length = self._index.T
        outside = (offset != MISSING) & ((offset > room) | (length > room) | (offset + length > room))
        if outside.any():
            raise self._corrupt(int(np.argmax(outside)), "the index points outside the file")

    def unused_bytes(self) -> int:
        """Bytes that belong to no frame and not to the index; 0 in what we write."""
        offset, length = self._index.T
        return len(self._bytes) - 16 * len(self) - 4 - int(length[offset != MISSING].sum())

    def _corrupt(self, frame: int | None, what: str) -> CorruptShard:
        return CorruptShard(str(self.folder / self.info.data_file), self.folder.name, frame, what)
