"""A dataset wherever it lives: read, commit and version it, in a folder or in a bucket, by one protocol.

    1. the shard is staged on local disk, synced and read back          dies here: nothing happened
    2. its files are published put-if-absent under the shard's digest    dies here: unreferenced files, collected later
    3. the commit record is created if absent                           from here on the unit is the shard's
    4. the commits are folded into a manifest, the branch moves by CAS   from here on readers see it

Each step may be repeated; any number of writers may race on one unit, and the first record counts.
"""

import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataengine.errors import StoreError
from dataengine.record.video import Video
from dataengine.store.backend import Backend, LocalBackend, Missing, is_remote, open_backend
from dataengine.store.commits import (
    CommitRecord,
    commit_bytes,
    describe_shard,
    entry_of,
    fold,
    make_manifest,
    parse_commit,
    shard_name,
    unit_name,
)
from dataengine.store.dataset import FORMAT, Dataset, check_head, open_dataset, open_or_create
from dataengine.store.files import json_bytes
from dataengine.store.packs import open_unit
from dataengine.store.range_cache import RangeCache
from dataengine.store.remote_shard import RemoteShardReader
from dataengine.store.shard import SCHEMA_VERSION, ShardReader, write_shard
from dataengine.store.verify import verify_shard
from dataengine.store.versions import MAIN, advance, parse_object, read_log, read_manifest, sealed

CONNECTIONS = 8
CACHE_BYTES = 8 << 30


@dataclass(frozen=True)
class Repository:
    """An open dataset, local or remote. Plain values: pickle it into workers."""

    backend: Backend
    name: str
    spec: dict[str, Any]
    spec_digest: str
    derived: dict[str, Any] | None = None
    """How a subset or merge came about; None for a dataset that is rendered or imported."""

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        return self.backend.where

    def manifest(self, version: str = MAIN) -> dict[str, Any]:
        """Manifest of a branch, tag or digest. A folder of an older release, without branches, has its manifest.json."""
        if version == MAIN and isinstance(self.backend, LocalBackend) and not read_log(self.backend):
            return open_dataset(self.backend.root).manifest()
        return read_manifest(self.backend, version)

    def records(self, known: Mapping[str, dict[str, Any]] | None = None) -> dict[str, CommitRecord]:
        """{unit: commit record}, sorted; units in `known` are left out, as their entries are at hand."""
        units = [u for u in self.units() if u not in (known or {})]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return dict(zip(units, pool.map(self.record, units), strict=True))

    def units(self) -> list[str]:
        """Names of the committed units, sorted."""
        names = (i.key.rpartition("/")[2] for i in self.backend.items("commits/"))
        return sorted(n[:-5] for n in names if n.startswith("video-") and n.endswith(".json"))

    def record(self, unit: str) -> CommitRecord:
        """Commit record of a unit. Raises StoreError when there is none, or a damaged one."""
        key = f"commits/{unit}.json"
        return parse_commit(self.backend.get(key), unit, f"{self.where}/{key}")

    def reader(self, entry: Mapping[str, Any], cache: RangeCache | None = None) -> ShardReader:
        """Reader of one unit of a manifest. Remote ones need a cache: see `open_cache`."""
        if isinstance(self.backend, LocalBackend):
            return open_unit(self.backend.root, entry)
        return RemoteShardReader(cache or open_cache(self.backend), dict(entry))

    def specs(self) -> dict[str, dict[str, Any]]:
        """{digest: spec} of this dataset and of those whose videos it took over."""
        keys = [i.key for i in self.backend.items("specs/")]
        return {self.spec_digest: self.spec} | {k[6:-5]: parse_object(self.backend.get(k), k)["spec"] for k in keys}

    # ---- writing -----------------------------------------------------------------------------------------------

    def add(self, index: int, video: Video, split: str, stats: dict[str, Any] | None = None, reproducible: bool = True) -> CommitRecord:
        """Stage, read back, publish and commit one video; returns the winning record. Steps 1 to 3 of the protocol.

        Raises StoreError when another writer committed other content and renders are `reproducible`.
        """
        if isinstance(self.backend, LocalBackend):
            return Dataset(self.backend.root, self.name, self.spec, self.spec_digest).add(index, video, split, stats, reproducible)
        with tempfile.TemporaryDirectory(prefix="dataengine-stage-") as folder:
            staged = Path(folder) / "shard"
            write_shard(staged, video, str(self.spec.get("codecs", "portable")))
            record = describe_shard(staged, index, split, stats)
            if findings := verify_shard(staged):
                raise StoreError(f"{record.unit}: what was written does not read back: {findings[0]}; check the disk")
            self.publish(record.shard, {name: (staged / name).read_bytes() for name in record.files})
        return self.commit(record, reproducible)

    def publish(self, shard: str, files: Mapping[str, bytes]) -> None:
        """Put the files of a shard in place, put-if-absent; the shard's name tells their content."""

        def one(name: str) -> None:
            key = f"shards/{shard}/{name}"
            if not self.backend.put_new(key, files[name]):
                self.backend.put(key, files[name])  # the same bytes: fresh again, so that no garbage collection takes them

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(one, files))

    def commit(self, record: CommitRecord, reproducible: bool = True) -> CommitRecord:
        """Create the unit's commit record if absent; returns the winner's."""
        key = f"commits/{record.unit}.json"
        if self.backend.put_new(key, commit_bytes(record)):
            return record
        winner = self.record(record.unit)
        if winner.digest != record.digest and reproducible:
            raise StoreError(
                f"{record.unit} was rendered twice with different results: digest {winner.digest[:12]} is committed, the new "
                f"one is {record.digest[:12]}; the renderer is not deterministic on this machine"
            )
        return winner

    def snapshot(self, verb: str, note: str = "", replaced: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        """Fold the commits into a new version of `main` by compare-and-swap; returns the manifest.

        Records of units that the current version has are not read again. `replaced`: {unit: entry} to use where the
        current version says the same of the unit's content (as after packing).
        """

        def build(current: dict[str, Any] | None) -> dict[str, Any]:
            held = {e["unit"]: e for e in current["units"]} if current else {}
            for unit, entry in (replaced or {}).items():
                if unit in held and held[unit]["digest"] == entry["digest"] and held[unit]["split"] == entry["split"]:
                    held[unit] = entry
            there = set(self.units())
            kept = [e for unit, e in held.items() if unit in there]
            return make_manifest(self.name, self.spec_digest, kept + [entry_of(r) for r in self.records(held).values()])

        return advance(self.backend, build, verb, note)

    def adopt(self) -> None:
        """Give a folder of an older release, which has no branches yet, its first version."""
        if isinstance(self.backend, LocalBackend) and not read_log(self.backend) and self.units():
            fresh = fold(self.name, self.spec_digest, self.records().values())
            advance(self.backend, lambda _: fresh, "adopt", "first version of a folder that had none")


def open_repository(location: str | Path, write: bool = False) -> Repository:
    """Open a dataset in a folder or bucket. `write`: test first that the place honours conditional writes. Raises StoreError."""
    if not is_remote(location):
        dataset = open_dataset(location)
        repository = Repository(LocalBackend(dataset.path), dataset.name, dataset.spec, dataset.spec_digest, dataset.derived)
        if write:
            repository.adopt()
        return repository
    backend = open_backend(location)
    try:
        head = parse_object(backend.get("dataset.json"), f"{backend.where}/dataset.json")
    except Missing:
        raise StoreError(f"{backend.where} is not a dataset: it holds no dataset.json") from None
    check_head(head, backend.where)
    if write:
        check_writes(backend)
    return Repository(backend, head["name"], head["spec"], head["spec_digest"], head.get("derived"))


def create_repository(
    location: str | Path, name: str, spec: dict[str, Any], digest: str, derived: dict[str, Any] | None = None
) -> Repository:
    """Create a dataset, or open the one of exactly this spec. Raises StoreError as `open_or_create`."""
    if not is_remote(location):
        dataset = open_or_create(location, spec, digest, name, derived=derived)
        return Repository(LocalBackend(dataset.path), name, spec, digest, derived)
    backend = open_backend(location)
    check_writes(backend)
    head = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "name": name, "spec": spec, "spec_digest": digest}
    content = head if derived is None else head | {"derived": derived}
    backend.put_new("dataset.json", json_bytes(sealed(content)))
    found = open_repository(location)
    if (found.spec_digest, found.derived) != (digest, derived):
        raise StoreError(f"{backend.where} holds dataset '{found.name}' of spec {found.spec_digest[:12]}; choose another place")
    return found


def check_writes(backend: Backend) -> None:
    """Raise StoreError where a store does not honour conditional writes."""
    check = getattr(backend, "check_conditional_writes", None)
    if check is not None:
        check()


def open_cache(backend: Backend, folder: Path | None = None, limit_bytes: int = CACHE_BYTES) -> RangeCache:
    """Cache of a remote dataset's immutable objects; `folder` defaults to the user's cache directory."""
    return RangeCache(backend, folder or Path.home() / ".cache" / "dataengine" / "objects", limit_bytes)


def next_index(units: Iterable[str], base: int) -> int:
    """First free video number from `base` on."""
    numbers = [int(u.removeprefix("video-")) for u in units]
    return max([base - 1, *(n for n in numbers if n >= base)]) + 1


def renumbered(record: CommitRecord, index: int, origin: tuple[str, int], split: str | None = None) -> CommitRecord:
    """The record of the same content as another unit."""
    unit = unit_name(index)
    return replace(record, unit=unit, video=index, split=split or record.split, shard=shard_name(unit, record.digest), origin=origin)
