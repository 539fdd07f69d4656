"""Datasets from datasets: append, subset, merge. Nothing is decoded; on one disk nothing is even copied, but hard-linked."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataengine.errors import StoreError
from dataengine.store.backend import LocalBackend, copy_object
from dataengine.store.commits import CommitRecord, unit_name
from dataengine.store.files import json_bytes
from dataengine.store.packs import Files, unpack
from dataengine.store.repository import Repository, create_repository, next_index, renumbered
from dataengine.store.selection import Choice
from dataengine.store.versions import sealed

FOREIGN = 1_000_000
"""Videos taken over into a dataset that is rendered get numbers from here on; those below are its own spec's."""


def append(target: Repository, source: Repository, version: str = "main", choose: Choice | None = None) -> dict[str, Any]:
    """Add the videos of `source` to `target` as a new version; returns the manifest. What is there already is left out.

    Raises StoreError: not compatible; another content for a video of the same spec.
    """
    taken = source.manifest(version)
    chosen = [e for e in taken["units"] if choose is None or choose(e)]
    if not chosen:
        raise StoreError(f"{source.where}: no video is chosen; `ds log` and `inspect` show what there is")
    current = target.records()
    if current:
        check_compatible(target, source, _entry_of(target, next(iter(current))), chosen[0])
    added = _take(target, source, chosen, current)
    return target.snapshot("append", f"{added} videos of {source.name} {taken['digest'][:12]}")


def subset(source: Repository, out: str | Path, choose: Choice, what: str, version: str = "main") -> Repository:
    """New dataset of the chosen videos under their old numbers. `what`: the condition in words, for the record."""
    taken = source.manifest(version)
    chosen = [e for e in taken["units"] if choose(e)]
    if not chosen:
        raise StoreError(f"no video of {source.where} fits ({what}); it has {len(taken['units'])} in splits {', '.join(taken['splits'])}")
    derived = {"verb": "subset", "of": [{"name": source.name, "manifest": taken["digest"]}], "where": what}
    target = create_repository(out, source.name, source.spec, source.spec_digest, derived)
    known = target.records()
    for entry in chosen:
        if entry["unit"] not in known:
            _transfer(target, source, entry, _record_of(source, entry))
    _keep_specs(target, source, chosen)
    target.snapshot("subset", f"{len(chosen)} of {len(taken['units'])} videos of {source.name} {taken['digest'][:12]}: {what}")
    return target


def merge(sources: Sequence[Repository], out: str | Path, name: str) -> Repository:
    """New dataset of all videos of several, renumbered from 0 in the order given. Raises StoreError where they do not fit."""
    if len(sources) < 2:
        raise StoreError("give at least two datasets to merge")
    manifests = [s.manifest() for s in sources]
    first = sources[0], manifests[0]["units"][0]
    for source, manifest in zip(sources[1:], manifests[1:], strict=True):
        check_compatible(first[0], source, first[1], manifest["units"][0])
    parts = [{"name": s.name, "manifest": m["digest"]} for s, m in zip(sources, manifests, strict=True)]
    spec = {"merged": parts}
    digest = hashlib.sha256(json_bytes(spec, indent=None)).hexdigest()
    target = create_repository(out, name, spec, digest, {"verb": "merge", "of": parts})
    for source, manifest in zip(sources, manifests, strict=True):
        _take(target, source, manifest["units"], target.records())
    target.snapshot("merge", ", ".join(f"{p['name']} {p['manifest'][:12]}" for p in parts))
    return target


def check_compatible(a: Repository, b: Repository, of_a: Mapping[str, Any], of_b: Mapping[str, Any]) -> None:
    """Raise StoreError unless samples of both can be in one batch: same modalities and types, same joints and keypoints."""
    ours, theirs = schema_of(a, of_a), schema_of(b, of_b)
    for what in ours:
        if ours[what] != theirs[what]:
            raise StoreError(f"{b.name} does not fit {a.name}: its {what} are {theirs[what]}, here they are {ours[what]}")


def schema_of(repository: Repository, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree between datasets that are read as one."""
    with repository.reader(entry) as reader:
        names = reader.names
        return {
            "modalities": ", ".join(f"{m} {reader.array(m).info.dtype}" for m in reader.modalities),
            "joints": ", ".join(names.joints),
            "keypoints": ", ".join(names.keypoints),
        }


def unit_files(repository: Repository, entry: Mapping[str, Any]) -> Files:
    """Every file of a unit's own shard, also of one that lies in a pack."""
    prefix = f"shards/{entry['shard']}/"
    files = {i.key[len(prefix) :]: repository.backend.get(i.key) for i in repository.backend.items(prefix)}
    return unpack(files, entry["unit"], entry["start"], entry["frames"]) if "start" in entry else files


def _take(target: Repository, source: Repository, entries: Sequence[Mapping[str, Any]], current: Mapping[str, CommitRecord]) -> int:
    """Commit `entries` of `source` in `target` under free numbers; returns how many were new."""
    held = {r.origin: r.digest for r in current.values() if r.origin} | {
        (target.spec_digest, r.video): r.digest for r in current.values() if not r.origin
    }
    units = list(current)
    added = 0
    for entry in entries:
        origin = origin_of(source, entry)
        if origin in held:
            if held[origin] != entry["digest"]:
                raise StoreError(f"{target.where} holds {entry['unit']} of {source.name} with other content; append to another dataset")
            continue
        own = origin[0] == target.spec_digest and target.derived is None
        index = entry["video"] if own else next_index(units, 0 if target.derived else FOREIGN)
        record = _record_of(source, entry)
        if not own:
            record = renumbered(record, index, origin)
        _transfer(target, source, entry, record)
        units.append(unit_name(index))
        added += 1
    _keep_specs(target, source, entries)
    return added


def origin_of(repository: Repository, entry: Mapping[str, Any]) -> tuple[str, int]:
    """(spec digest, video) that an entry was rendered from."""
    given = entry.get("origin")
    return (given[0], given[1]) if given else (repository.spec_digest, entry["video"])


def _record_of(source: Repository, entry: Mapping[str, Any]) -> CommitRecord:
    record = source.record(entry["unit"])
    if record.digest == entry["digest"] and record.split == entry["split"]:
        return record
    files = {n: (len(d), hashlib.sha256(d).hexdigest()) for n, d in unit_files(source, entry).items()}
    fields = {k: entry[k] for k in ("unit", "video", "split", "digest", "bytes", "frames")}
    origin = tuple(entry["origin"]) if "origin" in entry else None
    shard = f"{entry['unit']}-{entry['digest'][:12]}"
    return CommitRecord(**fields, shard=shard, size=(entry["size"][0], entry["size"][1]), files=files, origin=origin)


def _transfer(target: Repository, source: Repository, entry: Mapping[str, Any], record: CommitRecord) -> None:
    """Publish a unit's files in `target` and commit it."""
    linkable = isinstance(target.backend, LocalBackend) and isinstance(source.backend, LocalBackend) and "start" not in entry
    if linkable:
        for name in record.files:
            copy_object(source.backend, f"shards/{entry['shard']}/{name}", target.backend, f"shards/{record.shard}/{name}")
    else:
        files = unit_files(source, entry)
        missing = record.files.keys() - files.keys()
        changed = [n for n, (_, sha) in record.files.items() if n in files and hashlib.sha256(files[n]).hexdigest() != sha]
        if missing or changed:
            raise StoreError(f"{source.where}: {entry['unit']} is damaged ({[*missing, *changed][0]}); run `ds repair` on it first")
        target.publish(record.shard, files)
    target.commit(record)


def _keep_specs(target: Repository, source: Repository, entries: Sequence[Mapping[str, Any]]) -> None:
    """Store the specs that the taken videos were rendered from, so that they can be rendered again."""
    wanted = {origin_of(source, e)[0] for e in entries} - {target.spec_digest}
    for digest, spec in source.specs().items():
        if digest in wanted:
            target.backend.put_new(f"specs/{digest}.json", json_bytes(sealed({"spec": spec})))


def _entry_of(repository: Repository, unit: str) -> dict[str, Any]:
    for entry in repository.manifest()["units"]:
        if entry["unit"] == unit:
            return entry
    from dataengine.store.commits import entry_of

    return entry_of(repository.record(unit))
