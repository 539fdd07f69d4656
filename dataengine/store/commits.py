"""What is recorded of one committed video, and the manifest that folds all of them."""

import hashlib
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
    """Content of a commit file; inverse of `read_commit`."""
    return json_bytes(asdict(record))


def read_commit(path: Path) -> CommitRecord:
    """Record of a commit file. Raises StoreError when it is missing or damaged."""
    raw = read_json(path, "the commit record of a video; run the render again, which renders it anew")
    try:
        height, width = raw["size"]
        files = {name: (int(count), str(sha)) for name, (count, sha) in raw["files"].items()}
        record = CommitRecord(**(raw | {"size": (height, width), "files": files}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is damaged ({error!r}); run the render again, which renders the video anew") from None
    if record.unit != path.stem or record.digest != digest_of_files(files):
        raise StoreError(f"{path} is damaged (unit or digest does not fit); run the render again, which renders the video anew")
    return record


def fold(name: str, spec_digest: str, records: Iterable[CommitRecord]) -> dict[str, Any]:
    """Manifest: units sorted by name, splits, totals and `digest`, the SHA-256 of the rest as canonical JSON. No times."""
    ordered = sorted(records, key=lambda r: r.unit)
    splits: dict[str, list[int]] = {}
    for r in ordered:
        splits.setdefault(r.split, []).append(r.video)
    content = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "spec_digest": spec_digest,
        "units": [{key: getattr(r, key) for key in _IN_MANIFEST} | {"size": list(r.size)} for r in ordered],
        "splits": splits,
        "frames": sum(r.frames for r in ordered),
        "bytes": sum(r.bytes for r in ordered),
    }
    return content | {"digest": manifest_digest(content)}


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 (hex) of a manifest without its own `digest` key."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json_bytes(content, indent=None)).hexdigest()
