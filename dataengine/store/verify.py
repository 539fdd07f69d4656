"""Is a stored shard still what was written? Every damage located by file, field and frame."""

import os
from dataclasses import dataclass
from pathlib import Path

from dataengine.errors import DataEngineError
from dataengine.record.modalities import TABLE, concrete_shape, modality
from dataengine.store.codecs import crc32c
from dataengine.store.shard import FRAMES, ShardReader, file_digests
from dataengine.store.shard_file import CorruptShard

NOT_READABLE = (DataEngineError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""What reading an array may raise when its metadata is damaged: a codec's options, a dtype or a size that make no sense."""


@dataclass(frozen=True)
class Finding:
    """One damage: path of the file within the shard, array and frame where they apply, and what is wrong."""

    file: str
    field: str
    frame: int | None
    what: str

    def __str__(self) -> str:
        place = f"{self.field} frame {self.frame}" if self.frame is not None else self.field
        return f"{self.file} ({place}): {self.what}" if place else f"{self.file}: {self.what}"


def verify_shard(directory: Path, decode: bool = True) -> list[Finding]:
    """Check a shard by itself: layout, sizes against the table, indices, and (with `decode`) every frame's crc32c and decoding.

    What `zarr.json` files say has no checksum of its own: compare `compare_files` with the recorded digests for that.
    """
    reader = ShardReader(directory)
    try:
        stored = (*reader.modalities, FRAMES)
        _ = reader.names, reader.frame_count, reader.size
    except NOT_READABLE as error:
        return [Finding("zarr.json", "", None, str(error) or repr(error))]
    findings = [f for name in stored for f in _verify_array(reader, name, decode)]
    expected = {"zarr.json"} | {f"{name}/zarr.json" for name in stored} | {f"{name}/{_data_file(reader, name)}" for name in stored}
    for path in sorted(p for p in directory.rglob("*") if not p.is_dir()):
        relative = path.relative_to(directory).as_posix()
        if relative not in expected:
            findings.append(Finding(relative, "", None, "a file that belongs to no array"))
    reader.close()
    return findings


def compare_files(directory: Path, recorded: dict[str, tuple[int, str]], hashes: bool = True) -> list[Finding]:
    """Files against their recorded sizes and, with `hashes`, sha256 digests: no changed byte goes unseen."""
    if not directory.is_dir():
        return [Finding(".", "", None, "the shard's folder is missing")]
    if hashes:
        actual = file_digests(directory)
    else:
        paths = (p for p in directory.rglob("*") if not p.is_dir())
        actual = {p.relative_to(directory).as_posix(): (p.stat().st_size, "") for p in paths}
    findings = []
    for name in sorted(recorded.keys() | actual.keys()):
        field = name.split("/")[0] if "/" in name else ""
        if name not in actual:
            findings.append(Finding(name, field, None, "missing"))
        elif name not in recorded:
            findings.append(Finding(name, field, None, "not part of the shard"))
        elif actual[name][0] != recorded[name][0]:
            findings.append(Finding(name, field, None, f"{actual[name][0]} bytes, recorded {recorded[name][0]}"))
        elif hashes and actual[name][1] != recorded[name][1]:
            findings.append(Finding(name, field, None, "content differs from the recorded sha256"))
    return findings


def check_indices(directory: Path, recorded: dict[str, tuple[int, str]], frames: int) -> list[Finding]:
    """The crc32c of every data file's index, and nothing else: one short read per array, for a quick look at many shards."""
    findings = []
    tail = 16 * frames + 4
    for name in recorded:
        field, _, file = name.rpartition("/")
        if not file.startswith("c."):
            continue
        try:
            with open(directory / name, "rb") as data:
                data.seek(-tail, os.SEEK_END)
                index = data.read()
        except OSError as error:
            findings.append(Finding(name, field, None, f"its index cannot be read ({error.strerror})"))
            continue
        if crc32c(index[:-4]) != int.from_bytes(index[-4:], "little"):
            findings.append(Finding(name, field, None, "the index fails its crc32c"))
    return findings


def _verify_array(reader: ShardReader, name: str, decode: bool) -> list[Finding]:
    try:
        array = reader.array(name)
    except CorruptShard as error:
        return [Finding(f"{name}/{Path(error.file).name}", name, error.frame, error.what)]
    except NOT_READABLE as error:
        return [Finding(f"{name}/zarr.json", name, None, str(error) or repr(error))]
    findings = []
    data = f"{name}/{array.info.data_file}"
    try:
        findings += _wrong_shape(reader, name)
    except NOT_READABLE as error:
        findings.append(Finding(f"{name}/zarr.json", name, None, f"does not describe this video ({error})"))
    if array.unused_bytes():
        findings.append(Finding(data, name, None, f"{array.unused_bytes()} bytes belong to no frame"))
    for frame in range(len(array)) if decode else ():
        try:
            array.read(frame)
        except CorruptShard as error:
            findings.append(Finding(data, name, error.frame, error.what))
        except NOT_READABLE as error:
            findings.append(Finding(f"{name}/zarr.json", name, None, str(error) or repr(error)))
            break
    return findings


def _wrong_shape(reader: ShardReader, name: str) -> list[Finding]:
    """An array that does not fit the table, the number of frames, or the size of the other images."""
    info = reader.array(name).info
    if name == FRAMES:
        want, dtype = (reader.frame_count, reader.row_dtype.itemsize), "uint8"
    else:
        m = modality(name)
        want, dtype = (reader.frame_count, *concrete_shape(m, *reader.size)), m.dtype
    if info.shape == want and info.dtype == dtype:
        return []
    return [Finding(f"{name}/zarr.json", name, None, f"says {info.dtype}{info.shape}, should be {dtype}{want}")]


def _data_file(reader: ShardReader, name: str) -> str:
    try:
        return reader.array(name).info.data_file
    except NOT_READABLE:  # reported already; the axes of a table entry tell the name
        axes = 2 if name == FRAMES else 1 + next((len(m.shape) for m in TABLE if m.name == name), 0)
        return ".".join(["c"] + ["0"] * axes)
