"""Repack unit shards into packs of a given size, without decoding: fewer, larger objects, and no digest of content changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dataengine.errors import StoreError
from dataengine.store.curate import unit_files
from dataengine.store.packs import Files, build_pack, digest_of_bytes, kind_of_shard, unpack
from dataengine.store.repository import Repository

TARGET_BYTES = 64_000_000


@dataclass(frozen=True)
class Compaction:
    """What was repacked."""

    packs: int
    units: int
    bytes: int
    manifest: str
    """Digest of the version that uses the packs."""


def compact(repository: Repository, target_bytes: int = TARGET_BYTES) -> Compaction:
    """Put units that have a shard of their own into packs of about `target_bytes`, as a new version of `main`.

    Units of one split lie together. A unit that is alone in its kind, or larger than the target, stays as it is. The old
    shards stay until `collect_garbage` finds that no version needs them. Raises StoreError for a damaged unit.
    """
    manifest = repository.manifest()
    replaced: dict[str, dict[str, Any]] = {}
    packs = size = 0
    for group in _groups(repository, manifest["units"], target_bytes):
        name, files, starts = build_pack({entry["unit"]: content for entry, content in group})
        for entry, _ in group:
            back = unpack(files, entry["unit"], starts[entry["unit"]], entry["frames"])
            if digest_of_bytes(back) != entry["digest"]:
                raise StoreError(f"{entry['unit']} is damaged, or of a layout that cannot be packed; run `ds verify`")
            replaced[entry["unit"]] = {**entry, "shard": name, "start": starts[entry["unit"]]}
        repository.publish(name, files)
        packs, size = packs + 1, size + sum(map(len, files.values()))
    if not packs:
        return Compaction(0, 0, 0, manifest["digest"])
    after = repository.snapshot("compact", f"{len(replaced)} videos in {packs} packs of up to {target_bytes / 1e6:g} MB", replaced)
    return Compaction(packs, len(replaced), size, after["digest"])


def _groups(repository: Repository, entries: list[Mapping[str, Any]], target_bytes: int) -> Iterator[list[tuple[Mapping[str, Any], Files]]]:
    """Units to pack together, their files in memory: at most one group per kind of shard and split at a time."""
    open_groups: dict[tuple[str, str], list[tuple[Mapping[str, Any], Files]]] = {}
    for entry in entries:
        if "start" in entry or entry["bytes"] >= target_bytes:
            continue
        files = unit_files(repository, entry)
        key = entry["split"], kind_of_shard(files)
        group = open_groups.setdefault(key, [])
        if group and sum(e["bytes"] for e, _ in group) + entry["bytes"] > target_bytes:
            if len(group) > 1:
                yield group
            group = open_groups[key] = []
        group.append((entry, files))
    yield from (g for g in open_groups.values() if len(g) > 1)
