"""What is recorded of one committed video, and the manifest that folds all of them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dataengine.errors import StoreError
from dataengine.store.files import json_bytes, read_json
from dataengine.store.shard import SCHEMA_VERSION, ShardReader, digest_of_files, file_digests

_IN_MANIFEST = ("unit", "video", "split", "shard", "digest", "bytes", "frames", "size")


@dataclass(frozen=True)
class CommitRecord:
    """One unit of a dataset. `size` is (height, width) in px; `files` {path in the shard: (bytes, sha256)}.

    `stats` is free (timings, coverage) and belongs to this attempt; everything else is a function of the video.
    `origin`: (spec digest, video) of a video that came from another dataset, None for the dataset's own.
    """

    unit: str
    video: int
    split: str
    shard: str
    digest: str
    bytes: int
    frames: int
    size: tuple[int, int]
    files: dict[str, tuple[int, str]]
    stats: dict[str, Any] = field(default_factory=dict)
    origin: tuple[str, int] | None = None


def unit_name(video: int) -> str:
    """Name of the unit that holds video `video`."""
    return f"video-{video:06d}"


def shard_name(unit: str, digest: str) -> str:
    """Folder name of a unit's shard."""
    return f"{unit}-{digest[:12]}"


def describe_shard(directory: Path, video: int, split: str, stats: dict[str, Any] | None = None) -> CommitRecord:
    """The record that commits the shard in `directory` (staged or published) as video `video`."""
    files = file_digests(directory)
    digest = digest_of_files(files)
    unit = unit_name(video)
    with ShardReader(directory) as reader:
        frames, size = reader.frame_count, reader.size
    total = sum(size_bytes for size_bytes, _ in files.values())
    return CommitRecord(unit, video, split, shard_name(unit, digest), digest, total, frames, size, files, stats or {})


def commit_bytes(record: CommitRecord) -> bytes:
    """Content of a commit file, with a checksum; inverse of `parse_commit`."""
    content = {key: value for key, value in asdict(record).items() if key != "origin" or value is not None}
    return json_bytes(content | {"checksum": _checksum(content)})


def read_commit(path: Path) -> CommitRecord:
    """Record of a commit file. Raises StoreError when it is missing or damaged."""
    return _record(read_json(path, "the commit record of a video; run the render again, which renders it anew"), path.stem, str(path))


def parse_commit(data: bytes, unit: str, where: str) -> CommitRecord:
    """Record from the content of a commit file. Raises StoreError when it is damaged."""
    try:
        raw = json.loads(data)
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        raise StoreError(f"{where} is damaged (not JSON); run `ds repair`")
    return _record(raw, unit, where)


def entry_of(record: CommitRecord) -> dict[str, Any]:
    """What a manifest says of a unit."""
    entry = {key: getattr(record, key) for key in _IN_MANIFEST} | {"size": list(record.size)}
    return entry if record.origin is None else entry | {"origin": list(record.origin)}


def fold(name: str, spec_digest: str, records: Iterable[CommitRecord], placed: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Manifest of `records`. `placed`: {unit: entry} of an older manifest, whose entry stays where its content is the same,
    since it may have been moved into a pack."""
    entries = [entry_of(r) for r in records]
    old = placed or {}
    same = (old[e["unit"]] if _same_content(old.get(e["unit"]), e) else e for e in entries)
    return make_manifest(name, spec_digest, list(same))


def make_manifest(name: str, spec_digest: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Manifest: units sorted by name, splits, totals and `digest`, the SHA-256 of the rest as canonical JSON. No times."""
    ordered = sorted(entries, key=lambda e: e["unit"])
    splits: dict[str, list[int]] = {}
    for entry in ordered:
        splits.setdefault(entry["split"], []).append(entry["video"])
    content = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "spec_digest": spec_digest,
        "units": ordered,
        "splits": splits,
        "frames": sum(e["frames"] for e in ordered),
        "bytes": sum(e["bytes"] for e in ordered),
    }
    return content | {"digest": manifest_digest(content)}


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 (hex) of a manifest without its own `digest` key."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json_bytes(content, indent=None)).hexdigest()


def _same_content(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    return old is not None and (old["digest"], old["split"]) == (new["digest"], new["split"])


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json_bytes(content, indent=None)).hexdigest()


def _record(raw: dict[str, Any], unit: str, where: str) -> CommitRecord:
    damaged = f"{where} is damaged ({{}}); run the render again, which renders the video anew"
    content = {key: value for key, value in raw.items() if key != "checksum"}
    if "checksum" in raw and raw["checksum"] != _checksum(content):
        raise StoreError(damaged.format("its checksum does not fit"))
    try:
        height, width = content["size"]
        files = {name: (int(count), str(sha)) for name, (count, sha) in content["files"].items()}
        origin = (str(content["origin"][0]), int(content["origin"][1])) if "origin" in content else None
        record = CommitRecord(**(content | {"size": (height, width), "files": files, "origin": origin}))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(damaged.format(repr(error))) from None
    if record.unit != unit or record.digest != digest_of_files(files):
        raise StoreError(damaged.format("unit or digest does not fit"))
    return record
