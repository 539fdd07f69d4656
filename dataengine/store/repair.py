"""Put a damaged dataset right: the store says what must be rendered again, takes the result, and ends at the old digest.

Only what cannot be derived is rendered: a lost record is written anew from its shard, a lost manifest from the records.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dataengine.errors import StoreError
from dataengine.store.commits import CommitRecord, commit_bytes, make_manifest, shard_name
from dataengine.store.curate import origin_of, unit_files
from dataengine.store.files import json_bytes
from dataengine.store.packs import Files, build_pack, digest_of_bytes
from dataengine.store.repository import Repository
from dataengine.store.structure import check_structure, verify_older, verify_units
from dataengine.store.verify import NOT_READABLE
from dataengine.store.versions import HEADS, MAIN, MANIFESTS, advance, read_log, sealed, trusted_entries

Render = Callable[[str, dict[str, Any], list[int]], Repository]
"""(spec digest, spec, videos) → a scratch dataset that holds those videos, rendered again."""


@dataclass(frozen=True)
class Repaired:
    """What a repair did."""

    rendered: tuple[str, ...]
    """Units that were rendered again."""
    rewritten: tuple[str, ...]
    """Files that were derived from others."""
    manifest: str
    """Digest of the current version, which is what it was before the damage."""


def repair(repository: Repository, render: Render) -> Repaired:
    """Mend every damaged unit and record. Raises StoreError when a render gives another result, or the head is lost.

    Files are replaced one by one by what they should be; a repair that is interrupted is simply run again.
    """
    entries = trusted_entries(repository.backend)
    rewritten: list[str] = []
    damaged = verify_units(repository)
    known = {e["unit"]: e for e in entries}
    # A unit that only its broken record knows is no unit: without the record it is pending, and a render makes it.
    lost = [unit for unit in damaged if unit not in known]
    repository.backend.delete([f"commits/{unit}.json" for unit in lost])
    suspects = {e["unit"]: e for e in entries if e["unit"] in damaged or e["unit"] not in set(repository.units())}
    intact = {unit: files for unit, e in suspects.items() if (files := _intact_files(repository, e)) is not None}
    broken = {unit: e for unit, e in suspects.items() if unit not in intact}
    fresh = intact | _render_all(repository, broken.values(), render)
    for shard in sorted({e["shard"] for e in suspects.values()}):
        members = [e for e in entries if e["shard"] == shard]
        _mend_shard(repository, shard, _whole_shard(repository, members, fresh))
    rewritten += _mend_older(repository, known, fresh)
    for unit, entry in suspects.items():
        if _write_record(repository, entry, fresh.get(unit)):
            rewritten.append(f"commits/{unit}.json")
    rewritten += _mend_versions(repository, entries)
    left = [f for f in check_structure(repository) if f.file == "dataset.json"]
    if left:
        raise StoreError(f"{repository.where}/dataset.json is damaged and cannot be derived from anything; restore it from a copy")
    rewritten += [f"commits/{unit}.json removed" for unit in lost]
    return Repaired(tuple(broken), tuple(rewritten), read_log(repository.backend)[-1]["manifest"])


def _intact_files(repository: Repository, entry: Mapping[str, Any]) -> Files | None:
    """The unit's files where they are what its digest names, whatever else may lie beside them; else None."""
    try:
        files = unit_files(repository, entry)
        if digest_of_bytes(files) == entry["digest"]:
            return files
        wanted = repository.record(entry["unit"]).files
        files = {name: files[name] for name in wanted}
        return files if digest_of_bytes(files) == entry["digest"] else None
    except NOT_READABLE:
        return None


def _render_all(repository: Repository, entries: Iterable[Mapping[str, Any]], render: Render) -> dict[str, Files]:
    """{unit: files} of the entries, rendered again, one call per spec; each checked against its digest."""
    jobs: dict[str, dict[int, Mapping[str, Any]]] = {}
    for entry in entries:
        digest, video = origin_of(repository, entry)
        jobs.setdefault(digest, {})[video] = entry
    specs = repository.specs() if jobs else {}
    found = {}
    for digest, wanted in jobs.items():
        if digest not in specs:
            raise StoreError(f"{repository.where}: the spec {digest[:12]} of the damaged videos is not stored; restore them from a copy")
        made = render(digest, specs[digest], sorted(wanted))
        for record in made.records().values():
            entry = wanted.get(record.video)
            if entry is not None:
                found[entry["unit"]] = _checked(entry, unit_files(made, record.__dict__))
    return found


def _checked(entry: Mapping[str, Any], files: Files) -> Files:
    digest = digest_of_bytes(files)
    if digest != entry["digest"]:
        raise StoreError(
            f"{entry['unit']} came out with digest {digest[:12]}, recorded {entry['digest'][:12]}: this installation renders it "
            "differently; repair with the versions that its record names (`dataengine ds card` lists them)"
        )
    return files


def _whole_shard(repository: Repository, members: list[dict[str, Any]], fresh: Mapping[str, Files]) -> Files:
    """The files that a shard or pack should have."""
    if not any("start" in e for e in members):
        return fresh[next(e["unit"] for e in members if e["unit"] in fresh)]
    ordered = sorted(members, key=lambda e: e["start"])
    name, files, _ = build_pack({e["unit"]: fresh.get(e["unit"]) or unit_files(repository, e) for e in ordered})
    if name != members[0]["shard"]:
        raise StoreError(f"{members[0]['shard']} cannot be put together again (it becomes {name}); restore it from a copy")
    return files


def _mend_shard(repository: Repository, shard: str, files: Files) -> None:
    prefix = f"shards/{shard}/"
    for name, data in files.items():
        held = repository.backend.get_tagged(prefix + name)
        if held is None or held[0] != data:
            repository.backend.put(prefix + name, data)
    repository.backend.delete([i.key for i in repository.backend.items(prefix) if i.key[len(prefix) :] not in files])


def _mend_older(repository: Repository, known: Mapping[str, Mapping[str, Any]], fresh: Mapping[str, Files]) -> list[str]:
    """Shards of older versions from the current version's copy of the same content, where it has one."""
    mended = []
    for shard, (entry, _) in verify_older(repository).items():
        now = known.get(entry["unit"])
        if "start" not in entry and now is not None and now["digest"] == entry["digest"]:
            _mend_shard(repository, shard, fresh.get(entry["unit"]) or unit_files(repository, now))
            mended.append(f"shards/{shard}")
    return mended


def _write_record(repository: Repository, entry: Mapping[str, Any], files: Files | None) -> bool:
    """Write a unit's commit record anew unless it is fine; its statistics are lost."""
    try:
        if repository.record(entry["unit"]).digest == entry["digest"]:
            return False
    except StoreError:
        pass
    content = files if files is not None else unit_files(repository, entry)
    table = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(content.items())}
    fields = {key: entry[key] for key in ("unit", "video", "split", "digest", "bytes", "frames")}
    origin = (entry["origin"][0], entry["origin"][1]) if "origin" in entry else None
    record = CommitRecord(
        **fields, shard=shard_name(entry["unit"], entry["digest"]), size=(entry["size"][0], entry["size"][1]), files=table, origin=origin
    )
    repository.backend.put(f"commits/{record.unit}.json", commit_bytes(record))
    return True


def _mend_versions(repository: Repository, entries: list[dict[str, Any]]) -> list[str]:
    """Manifest, branch and manifest.json of the current version, where they are damaged."""
    backend, mended = repository.backend, []
    manifest = make_manifest(repository.name, repository.spec_digest, entries)
    key = f"{MANIFESTS}{manifest['digest']}.json"
    for path in (key, "manifest.json"):
        held = backend.get_tagged(path)
        if held is None or held[0] != json_bytes(manifest):
            backend.put(path, json_bytes(manifest))
            mended.append(path)
    try:
        log = read_log(backend)
        broken = not log
    except StoreError:
        log, broken = [], True
    if broken:
        backend.put(f"{HEADS}{MAIN}.json", json_bytes(sealed({"log": []})))
        log = []
    if not log or log[-1]["manifest"] != manifest["digest"]:
        advance(backend, lambda _: manifest, "repair", "the branch's log was lost" if broken else "")
        mended.append(f"{HEADS}{MAIN}.json")
    return mended
