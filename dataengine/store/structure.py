"""Does a dataset hang together? Everything but the insides of shards: records, versions, counts, schema, orphans.

Together with the shards' own checks (`verify`, `packs`) every bit of a dataset is covered: data files by crc32c per frame
and sha256 per file, records, refs and heads by a checksum, manifests by their digest, all JSON by its canonical form.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dataengine.errors import DataEngineError, StoreError
from dataengine.store.backend import LocalBackend
from dataengine.store.commits import CommitRecord, entry_of, manifest_digest, parse_commit, unit_name
from dataengine.store.curate import schema_of
from dataengine.store.dataset import Dataset
from dataengine.store.files import json_bytes
from dataengine.store.packs import digest_of_bytes, verify_packs
from dataengine.store.repository import Repository
from dataengine.store.verify import NOT_READABLE, Finding, compare_files, verify_shard
from dataengine.store.versions import HEADS, MAIN, MANIFESTS, TAGS, is_sealed, load_manifest, parse_object, read_log, trusted_entries

ORPHAN = "orphaned: no commit and no version refers to it; `ds gc` removes it"


def verify_units(repository: Repository, full: bool = True) -> dict[str, tuple[Finding, ...]]:
    """{unit: findings} of every damaged committed unit, in a folder or a bucket (whose units are fetched one by one)."""
    if isinstance(repository.backend, LocalBackend):
        return Dataset(repository.backend.root, repository.name, repository.spec, repository.spec_digest).verify(full)
    moved = {e["unit"]: e for e in _entries(repository) if "start" in e}
    found: dict[str, tuple[Finding, ...]] = {}
    for pack in sorted({e["shard"] for e in moved.values()}):
        members = [e for e in moved.values() if e["shard"] == pack]
        with tempfile.TemporaryDirectory(prefix="dataengine-verify-") as scratch:
            _fetch(repository, pack, Path(scratch))
            found |= {unit: tuple(f) for unit, f in verify_packs(Path(scratch), members, full).items()}
    for unit in repository.units():
        if findings := _verify_remote_unit(repository, unit, unit in moved):
            found[unit] = (*found.get(unit, ()), *findings)
    return dict(sorted(found.items()))


def check_structure(repository: Repository) -> list[Finding]:
    """Findings about everything around the shards; empty when all is well. Orphans are findings whose text is `ORPHAN`."""
    backend = repository.backend
    found = _check_json(repository, "dataset.json", sealed_if="checksum")
    records: dict[str, CommitRecord] = {}
    for unit in repository.units():
        key = f"commits/{unit}.json"
        data = backend.get(key)
        try:
            records[unit] = parse_commit(data, unit, key)
        except StoreError as error:
            found.append(Finding(key, "", None, str(error)))
            continue
        if not _canonical(data):
            found.append(Finding(key, "", None, "is not in the form that we write"))
        found += _check_record(records[unit], key)
    found += [f for i in backend.items("specs/") for f in _check_json(repository, i.key, sealed_if=None)]
    found += [f for p in (HEADS, TAGS) for i in backend.items(p) for f in _check_json(repository, i.key, sealed_if=None)]
    manifests = {}
    for item in backend.items(MANIFESTS):
        try:
            manifest = parse_object(backend.get(item.key), item.key)
        except StoreError as error:
            found.append(Finding(item.key, "", None, str(error)))
            continue
        digest = item.key[len(MANIFESTS) : -5]
        if manifest.get("digest") != digest or manifest_digest(manifest) != digest or not _canonical(backend.get(item.key)):
            found.append(Finding(item.key, "", None, "the manifest's digest does not fit"))
        else:
            manifests[digest] = manifest
    return found + _check_versions(repository, manifests, records) + _check_shards(repository, manifests, records)


def verify_older(repository: Repository) -> dict[str, tuple[dict[str, Any], Finding]]:
    """{shard: (entry, finding)} of damaged shards that only older versions or tags use, as after compaction."""
    backend = repository.backend
    current = {e["shard"] for e in _entries(repository)}
    older: dict[str, dict[str, Any]] = {}
    for item in backend.items(MANIFESTS):
        try:
            manifest = load_manifest(backend, item.key[len(MANIFESTS) : -5])
        except StoreError:  # reported by the structural check
            continue
        older |= {e["shard"]: e for e in manifest["units"] if e["shard"] not in current}
    found = {}
    for shard, entry in sorted(older.items()):
        prefix = f"shards/{shard}/"
        files = {i.key[len(prefix) :]: backend.get(i.key) for i in backend.items(prefix)}
        if not files:
            continue  # missing shards are reported by the structural check
        if digest_of_bytes(files)[:12] != shard[-12:]:
            found[shard] = entry, Finding(f"shards/{shard}", "", None, f"{entry['unit']} as an older version holds it is damaged")
    return found


def check_schema(repository: Repository, entries: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Units whose modalities, types, joints or keypoints differ from the first one's."""
    first: dict[str, Any] | None = None
    found = []
    for entry in entries:
        try:
            schema = schema_of(repository, entry)
        except NOT_READABLE as error:
            found.append(Finding(f"shards/{entry['shard']}", "", None, f"cannot be read: {error}"))
            continue
        first = first or schema
        differs = [what for what in schema if schema[what] != first[what]]
        if differs:
            found.append(Finding(f"shards/{entry['shard']}", "", None, f"its {differs[0]} differ from those of the first unit"))
    return found


def _check_record(record: CommitRecord, key: str) -> list[Finding]:
    wrong = []
    if record.unit != unit_name(record.video):
        wrong.append(f"video {record.video} is not unit {record.unit}")
    if record.bytes != sum(size for size, _ in record.files.values()):
        wrong.append(f"says {record.bytes} bytes, its files have {sum(size for size, _ in record.files.values())}")
    if record.shard.rpartition("-")[2] != record.digest[:12]:
        wrong.append(f"shard {record.shard} is not named after digest {record.digest[:12]}")
    return [Finding(key, "", None, what) for what in wrong]


def _check_versions(repository: Repository, manifests: Mapping[str, dict[str, Any]], records: Mapping[str, CommitRecord]) -> list[Finding]:
    """The current version against the commit records, unit by unit, and manifest.json against the current version."""
    key = f"{HEADS}{MAIN}.json"
    try:
        log = read_log(repository.backend)
    except StoreError:  # reported where refs are checked
        return []
    if not log:
        return [Finding(key, "", None, "missing: no version was written yet")] if manifests else []
    head = log[-1]["manifest"]
    if head not in manifests:
        stored = any(i.key == f"{MANIFESTS}{head}.json" for i in repository.backend.items(MANIFESTS))
        return [] if stored else [Finding(f"{MANIFESTS}{head}.json", "", None, "missing, but it is the current version")]
    found = []
    copied = repository.backend.get_tagged("manifest.json")
    if copied is None or copied[0] != json_bytes(manifests[head]):
        found.append(Finding("manifest.json", "", None, "is not a copy of the current version"))
    in_manifest = {e["unit"]: e for e in manifests[head]["units"]}
    for unit in sorted(in_manifest.keys() - set(repository.units())):
        found.append(Finding(f"commits/{unit}.json", "", None, "missing, but the current version holds the unit"))
    for unit, record in records.items():
        if unit not in in_manifest:
            found.append(Finding(f"commits/{unit}.json", "", None, "committed, but not in the current version; run the render again"))
            continue
        want, have = entry_of(record), in_manifest[unit]
        differs = [k for k in want if k != "shard" and want[k] != have.get(k)]
        if differs:
            found.append(Finding(f"commits/{unit}.json", "", None, f"{differs[0]} differs from the current version's"))
    return found


def _check_shards(repository: Repository, manifests: Mapping[str, dict[str, Any]], records: Mapping[str, CommitRecord]) -> list[Finding]:
    """Shards that are missing for a version, and shards that nothing needs."""
    there = {i.key.split("/")[1] for i in repository.backend.items("shards/")}
    used = {e["shard"]: e["unit"] for m in manifests.values() for e in m["units"]}
    missing = [Finding(f"shards/{s}", "", None, f"missing; a version needs it for {used[s]}") for s in sorted(used.keys() - there)]
    committed = {r.shard for r in records.values()}
    orphans = sorted(there - used.keys() - committed) if len(records) == len(repository.units()) else []
    return missing + [Finding(f"shards/{s}", "", None, ORPHAN) for s in orphans]


def _check_json(repository: Repository, key: str, sealed_if: str | None) -> list[Finding]:
    """A sealed JSON file: readable, canonical, checksum right (`sealed_if`: only where it has this key)."""
    data = repository.backend.get(key)
    try:
        content = parse_object(data, key)
    except StoreError as error:
        return [Finding(key, "", None, str(error))]
    if not _canonical(data) or ((sealed_if is None or sealed_if in content) and not is_sealed(content)):
        return [Finding(key, "", None, "the checksum does not fit")]
    return []


def _canonical(data: bytes) -> bool:
    """Whether JSON is exactly as we write it, so that no bit is free to change."""
    try:
        return json_bytes(parse_object(data, "")) == data
    except DataEngineError:
        return False


def _entries(repository: Repository) -> list[dict[str, Any]]:
    try:
        return trusted_entries(repository.backend)
    except StoreError:  # reported by the structural check
        return []


def _fetch(repository: Repository, shard: str, scratch: Path) -> Path:
    for item in repository.backend.items(f"shards/{shard}/"):
        path = scratch / item.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(repository.backend.get(item.key))
    return scratch / "shards" / shard


def _verify_remote_unit(repository: Repository, unit: str, packed: bool) -> list[Finding]:
    try:
        record = repository.record(unit)
    except StoreError as error:
        return [Finding(f"commits/{unit}.json", "", None, str(error))]
    if packed:
        return []
    with tempfile.TemporaryDirectory(prefix="dataengine-verify-") as scratch:
        folder = _fetch(repository, record.shard, Path(scratch))
        changed = compare_files(folder, record.files)
        inside = verify_shard(folder) if folder.is_dir() else []
    located = {f.file for f in inside}
    return inside + [f for f in changed if f.file not in located]
