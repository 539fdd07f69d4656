"""Packs: many units' shards in one, without decoding a frame.

    shards/pack-<digest12>/zarr.json          group; its attributes list the units: name, first frame, number of frames
    shards/pack-<digest12>/<modality>/…       one array over all frames of all units: their inner chunks, one after another
    shards/pack-<digest12>/<unit>/…           the unit's own zarr.json and array `frames`, unchanged

A pack is an ordinary zarr v3 hierarchy. It holds every byte that the units' shards were made of, so a unit's digest can
still be computed from it, and the unit taken out again unchanged.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.errors import StoreError
from dataengine.store.codecs import crc32c
from dataengine.store.files import json_bytes
from dataengine.store.shard import FRAMES, SCHEMA_VERSION, ShardReader, digest_of_files, shard_digest
from dataengine.store.shard_file import MISSING, CorruptShard, open_array
from dataengine.store.verify import NOT_READABLE, Finding

Files = dict[str, bytes]
"""{path in a shard: content}."""

Recorded = Mapping[str, tuple[int, str]]
"""{path in a shard: (bytes, sha256)}."""


class ArraySlice:
    """Frames `start` … `start + count - 1` of a longer array, with the interface of an array reader."""

    def __init__(self, array: Any, start: int, count: int) -> None:
        self.array, self.start, self.count = array, start, count
        self.info = array.info

    def __len__(self) -> int:
        return self.count

    def read(self, frame: int, *args: Any, **options: Any) -> np.ndarray:
        """As the whole array's `read`, counted from this slice's start."""
        self._check(frame)
        return self.array.read(self.start + frame, *args, **options)

    def read_many(self, frames: Iterable[int], *args: Any, **options: Any) -> np.ndarray:
        """As the whole array's `read_many`."""
        chosen = list(frames)
        for frame in chosen:
            self._check(frame)
        return self.array.read_many([self.start + frame for frame in chosen], *args, **options)

    def _check(self, frame: int) -> None:
        if not 0 <= frame < self.count:
            raise StoreError(f"frame {frame} does not exist; there are {self.count}, counted from 0")


class PackedReader(ShardReader):
    """One unit of a pack, as if it had a shard of its own."""

    def __init__(self, pack: Path, unit: str, start: int) -> None:
        super().__init__(pack / unit)
        self.pack, self.unit, self.start = pack, unit, start

    def __getstate__(self) -> Any:
        return self.pack, self.unit, self.start

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)

    def array(self, name: str) -> Any:
        if name == FRAMES or name in self._arrays or name not in self.modalities:
            return super().array(name)
        found = ArraySlice(open_array(self.pack / name), self.start, self.frame_count)
        self._arrays[name] = found  # pyright: ignore[reportArgumentType]
        return found


def open_unit(root: Path, entry: Mapping[str, Any]) -> ShardReader:
    """Reader of a unit of a local dataset from its manifest entry, in its own shard or in a pack."""
    shard = root / "shards" / entry["shard"]
    return PackedReader(shard, entry["unit"], entry["start"]) if "start" in entry else ShardReader(shard)


def kind_of_shard(files: Mapping[str, bytes]) -> str:
    """What must be equal for shards to share a pack: every image array's metadata but the number of frames."""
    metadata = [[name, _with_frames(data, 0).decode()] for name, data in sorted(files.items()) if _is_image_metadata(name)]
    return hashlib.sha256(json_bytes(metadata, indent=None)).hexdigest()


def build_pack(units: Mapping[str, Files]) -> tuple[str, Files, dict[str, int]]:
    """Pack whole shards of one kind, in the given order: (name, files, {unit: first frame}). Raises StoreError for damage."""
    out: Files = {}
    starts: dict[str, int] = {}
    counts: dict[str, int] = {}
    for unit, files in units.items():
        starts[unit] = sum(counts.values())
        counts[unit] = int(json.loads(files["zarr.json"])["attributes"]["frame_count"])
        out |= {f"{unit}/{name}": data for name, data in files.items() if name == "zarr.json" or name.startswith(f"{FRAMES}/")}
    first = next(iter(units.values()))
    for name in [n for n in first if _is_image_metadata(n)]:
        data_name = _data_name(name, first)
        chunks = [chunk for unit, files in units.items() for chunk in split_chunks(files[data_name], counts[unit], f"{unit}/{data_name}")]
        out[name] = _with_frames(first[name], len(chunks))
        out[data_name] = join_chunks(chunks)
    listed = [{"unit": unit, "start": starts[unit], "frames": counts[unit]} for unit in units]
    attributes = {"schema_version": SCHEMA_VERSION, "packed": listed}
    out["zarr.json"] = json_bytes({"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return f"pack-{digest_of_bytes(out)[:12]}", out, starts


def unpack(pack: Mapping[str, bytes], unit: str, start: int, frames: int) -> Files:
    """The files of one unit's own shard, byte for byte as they were before packing. Raises StoreError for damage."""
    out = {name[len(unit) + 1 :]: data for name, data in pack.items() if name.startswith(f"{unit}/")}
    for name in [n for n in pack if n.count("/") == 1 and _is_image_metadata(n)]:
        if name.split("/")[0].startswith("video-"):
            continue
        data_name = _data_name(name, pack)
        metadata = json.loads(pack[name])
        chunks = split_chunks(pack[data_name], metadata["shape"][0], data_name)
        out[name] = _with_frames(pack[name], frames)
        out[data_name] = join_chunks(chunks[start : start + frames])
    return dict(sorted(out.items()))


def digest_of_bytes(files: Mapping[str, bytes]) -> str:
    """Digest of a shard from its files' contents; equals `shard_digest` of the folder."""
    return digest_of_files({name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()})


def split_index(tail: bytes, count: int) -> list[tuple[int, int]] | None:
    """(offset, length) per frame from the end of a shard file of `count` frames; None when it fails its crc32c."""
    tail = tail[-(16 * count + 4) :]
    if len(tail) < 16 * count + 4 or crc32c(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        return None
    return [(offset, length) for offset, length in np.frombuffer(tail[:-4], "<u8").reshape(count, 2).tolist()]


def split_chunks(data: bytes, count: int, where: str) -> list[bytes]:
    """Encoded inner chunks of a shard file of `count` frames. Raises StoreError for a damaged or incomplete one."""
    rows = split_index(data, count)
    if rows is None:
        raise StoreError(f"{where}: the index fails its crc32c; run `ds verify` and `ds repair` first")
    if any(offset == MISSING for offset, _ in rows):
        raise StoreError(f"{where}: a frame was never written; run `ds verify` and `ds repair` first")
    return [data[offset : offset + length] for offset, length in rows]


def join_chunks(chunks: list[bytes]) -> bytes:
    """Shard file of encoded inner chunks: the chunks, the index, its crc32c."""
    length = np.asarray([len(c) for c in chunks], "<u8")
    index = np.stack([np.cumsum(length) - length, length], 1).astype("<u8").tobytes()
    return b"".join([*chunks, index, crc32c(index).to_bytes(4, "little")])


def verify_packs(
    root: Path, entries: Iterable[Mapping[str, Any]], full: bool = True, recorded: Mapping[str, Recorded] | None = None
) -> dict[str, list[Finding]]:
    """{unit: findings} of packed units, damaged ones only. Damage of what units share is reported for each of them.

    `recorded`: {unit: files} of the commit records, by which a damaged file is told where no frame tells.
    """
    by_pack: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        by_pack.setdefault(entry["shard"], []).append(entry)
    found: dict[str, list[Finding]] = {}
    for name, members in by_pack.items():
        folder = root / "shards" / name
        if not folder.is_dir():
            found |= {e["unit"]: [Finding(".", "", None, f"the folder of {name} is missing")] for e in members}
        elif full and shard_digest(folder)[:12] != name[-12:]:
            found |= _locate(folder, members, recorded or {})
        elif not full:
            found |= {e["unit"]: hits for e in members if (hits := _open_all(folder, e))}
    return found


def _locate(folder: Path, members: list[Mapping[str, Any]], recorded: Mapping[str, Recorded]) -> dict[str, list[Finding]]:
    """The whole pack differs from its digest: which units are hit? All of them where no frame tells."""
    found = {e["unit"]: _open_all(folder, e) or _read_all(folder, e, recorded.get(e["unit"], {})) for e in members}
    hit = {unit: findings for unit, findings in found.items() if findings}
    shared = Finding("zarr.json", "", None, f"the metadata of {folder.name} differs from what was written")
    return hit or {unit: [shared] for unit in found}


def _open_all(folder: Path, entry: Mapping[str, Any]) -> list[Finding]:
    reader = PackedReader(folder, entry["unit"], entry["start"])
    try:
        for name in (*reader.modalities, FRAMES):
            if len(reader.array(name)) != entry["frames"]:
                return [Finding(f"{name}/zarr.json", name, None, "holds another number of frames than recorded")]
    except CorruptShard as error:
        return [Finding(error.file.removeprefix(f"{folder}/"), error.field, error.frame, error.what)]
    except NOT_READABLE as error:
        return [Finding("zarr.json", "", None, str(error) or repr(error))]
    return []


def _read_all(folder: Path, entry: Mapping[str, Any], recorded: Recorded) -> list[Finding]:
    """Every frame, every byte of the unit's own files."""
    findings = []
    reader = PackedReader(folder, entry["unit"], entry["start"])
    for name in (*reader.modalities, FRAMES):
        array = reader.array(name)
        for frame in range(entry["frames"]):
            try:
                array.read(frame)
            except CorruptShard as error:
                findings.append(Finding(f"{name}/{array.info.data_file}", name, frame, error.what))
            except NOT_READABLE as error:
                findings.append(Finding(f"{name}/zarr.json", name, None, str(error) or repr(error)))
                break
    if findings:
        return findings
    pack = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}
    try:
        files = unpack(pack, entry["unit"], entry["start"], entry["frames"])
    except NOT_READABLE as error:
        return [Finding("zarr.json", "", None, str(error) or repr(error))]
    if digest_of_bytes(files) == entry["digest"]:
        return []
    differ = [n for n, (_, sha) in recorded.items() if n not in files or hashlib.sha256(files[n]).hexdigest() != sha]
    shared = Finding(f"{entry['unit']}/zarr.json", "", None, "metadata or labels differ from what was recorded")
    return [Finding(_in_pack(entry, n), n.rpartition("/")[0], None, "differs from what was recorded") for n in differ] or [shared]


def _in_pack(entry: Mapping[str, Any], name: str) -> str:
    """Where a unit's file is in its pack."""
    return f"{entry['unit']}/{name}" if name == "zarr.json" or name.startswith(f"{FRAMES}/") else name


def _is_image_metadata(name: str) -> bool:
    return name.endswith("/zarr.json") and not name.startswith(f"{FRAMES}/") and name.count("/") == 1


def _data_name(metadata_name: str, files: Mapping[str, bytes]) -> str:
    folder = metadata_name.removesuffix("zarr.json")
    (name,) = (n for n in files if n.startswith(folder) and n != metadata_name)
    return name


def _with_frames(metadata: bytes, count: int) -> bytes:
    """Metadata of the same array with another number of frames, written as it was: on one line or on many."""
    parsed = json.loads(metadata)
    indent = 2 if json_bytes(parsed) == metadata else None
    parsed["shape"][0] = count
    parsed["chunk_grid"]["configuration"]["chunk_shape"][0] = count
    return json_bytes(parsed, indent)
