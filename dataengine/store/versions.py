"""Versions of a dataset: immutable manifests under their digest, branches that move by compare-and-swap, fixed tags.

    manifests/<digest>.json    what a version holds; never changes
    refs/heads/<branch>.json   the branch's log, oldest first; its last entry is the current version
    refs/tags/<tag>.json       one manifest digest, created once
    manifest.json              copy of the current manifest of `main`, for tools that read one file

A manifest says nothing about time or place, so equal contents have equal digests; the log says when and by which verb.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dataengine.errors import StoreError, unknown_name
from dataengine.store.backend import Backend, Missing
from dataengine.store.commits import manifest_digest
from dataengine.store.files import json_bytes
from dataengine.store.shard import SCHEMA_VERSION, newer_schema

MAIN = "main"
HEADS, TAGS, MANIFESTS = "refs/heads/", "refs/tags/", "manifests/"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TRIES = 50


@dataclass(frozen=True)
class Change:
    """How one manifest differs from another: sorted units."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Same unit, other content or split."""
    moved: tuple[str, ...]
    """Same content in another shard, as after compaction."""

    @property
    def empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.moved)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with a `checksum` over the rest; inverse of `unsealed`."""
    rest = {k: v for k, v in content.items() if k != "checksum"}
    return rest | {"checksum": hashlib.sha256(json_bytes(rest, indent=None)).hexdigest()}


def is_sealed(content: dict[str, Any]) -> bool:
    """Whether the checksum fits."""
    return sealed(content) == content


def store_manifest(backend: Backend, manifest: dict[str, Any]) -> str:
    """Put a manifest under its digest; returns the digest."""
    digest = manifest["digest"]
    backend.put_new(f"{MANIFESTS}{digest}.json", json_bytes(manifest))
    return digest


def read_manifest(backend: Backend, version: str = MAIN) -> dict[str, Any]:
    """Manifest of a branch, tag, digest or unique beginning of one (6 characters at least). Raises StoreError."""
    return load_manifest(backend, resolve(backend, version))


def load_manifest(backend: Backend, digest: str) -> dict[str, Any]:
    """Manifest of a whole digest, checked. Raises StoreError when it is missing, damaged or of a newer release."""
    key = f"{MANIFESTS}{digest}.json"
    try:
        manifest = parse_object(backend.get(key), f"{backend.where}: {key}")
    except Missing:
        raise StoreError(f"{backend.where}: version {digest[:12]} is no longer stored; `ds log` lists those that are") from None
    if manifest.get("schema_version", 0) > SCHEMA_VERSION:
        raise StoreError(newer_schema(key, manifest["schema_version"]))
    if manifest.get("digest") != digest or manifest_digest(manifest) != digest:
        raise StoreError(f"{backend.where}: {key} is damaged (its digest does not fit); run `ds repair`")
    return manifest


def trusted_entries(backend: Backend) -> list[dict[str, Any]]:
    """Units of `main`; where its branch or manifest is damaged, of manifest.json. Raises StoreError when both are damaged.

    Empty for a dataset without a version.
    """
    try:
        log = read_log(backend)
        if log:
            return load_manifest(backend, log[-1]["manifest"])["units"]
    except StoreError as error:
        problem: StoreError | None = error
    else:
        problem = None
    found = backend.get_tagged("manifest.json")
    try:
        copy = parse_object(found[0], "manifest.json") if found else {}
    except StoreError as error:
        copy, problem = {}, problem or error
    if copy and copy.get("digest") == manifest_digest(copy):
        return copy["units"]
    if problem is None and not copy:
        return []
    first = problem or f"{backend.where}: manifest.json is damaged (its digest does not fit)"
    raise StoreError(f"{first}; no intact manifest says what the dataset held: restore it from a copy") from problem


def resolve(backend: Backend, version: str) -> str:
    """Digest of a branch, a tag, a digest, or the unique beginning of one. Raises StoreError naming what there is."""
    if _NAME.fullmatch(version) and (log := read_log(backend, version)):
        return log[-1]["manifest"]
    found = tags(backend)
    if version in found:
        return found[version]
    if re.fullmatch(r"[0-9a-f]{6,64}", version):
        hits = [d for d in digests(backend) if d.startswith(version)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise StoreError(f"{version} is the beginning of {len(hits)} versions; give more characters")
    names = [*branches(backend), *found]
    if not names:
        raise StoreError(f"{backend.where} has no version yet; run the render again, which writes one")
    raise StoreError(f"{backend.where}: " + unknown_name("version", version, names))


def digests(backend: Backend) -> list[str]:
    """Digests of all stored manifests."""
    return [i.key[len(MANIFESTS) : -5] for i in backend.items(MANIFESTS) if i.key.endswith(".json")]


def branches(backend: Backend) -> list[str]:
    """Names of the branches."""
    return [i.key[len(HEADS) : -5] for i in backend.items(HEADS) if i.key.endswith(".json")]


def tags(backend: Backend) -> dict[str, str]:
    """{tag: manifest digest}."""
    keys = [i.key for i in backend.items(TAGS) if i.key.endswith(".json")]
    return {key[len(TAGS) : -5]: _ref(backend.get(key), f"{backend.where}: {key}")["manifest"] for key in keys}


def read_log(backend: Backend, branch: str = MAIN) -> list[dict[str, Any]]:
    """Entries {manifest, verb, note, when, units, frames, bytes} of a branch, oldest first; empty when there is no such branch."""
    return _read_ref(backend, f"{HEADS}{branch}.json")[0]


def tag(backend: Backend, name: str, version: str = MAIN) -> str:
    """Create a tag; returns the digest it stands for. Raises StoreError for a bad name, or one taken for another version."""
    _check_name(name)
    if name in branches(backend):
        raise StoreError(f"{name} is a branch; choose another name for the tag")
    digest = resolve(backend, version)
    load_manifest(backend, digest)
    key = f"{TAGS}{name}.json"
    if not backend.put_new(key, json_bytes(sealed({"manifest": digest}))):
        taken = _ref(backend.get(key), f"{backend.where}: {key}")["manifest"]
        if taken != digest:
            raise StoreError(f"tag {name} stands for version {taken[:12]} already; tags do not move, choose another name")
    return digest


def advance(
    backend: Backend, build: Callable[[dict[str, Any] | None], dict[str, Any]], verb: str, note: str = "", branch: str = MAIN
) -> dict[str, Any]:
    """Move a branch to `build(current manifest or None)` by compare-and-swap; returns the new manifest.

    When another writer was first, `build` is called again with what that one wrote: nobody's work is lost. A manifest
    equal to the current one adds no entry to the log.
    """
    _check_name(branch)
    key = f"{HEADS}{branch}.json"
    for _ in range(TRIES):
        log, mark = _read_ref(backend, key)
        manifest = build(load_manifest(backend, log[-1]["manifest"]) if log else None)
        store_manifest(backend, manifest)
        moves = not log or log[-1]["manifest"] != manifest["digest"]
        if not moves or backend.swap(key, mark, json_bytes(sealed({"log": [*log, _entry(manifest, verb, note)]}))):
            if branch == MAIN:
                _copy_head(backend)
            return manifest
    raise StoreError(f"{backend.where}: branch {branch} moved {TRIES} times while we tried to move it; try again when fewer write")


def forget(backend: Backend, branch: str, drop: set[str]) -> None:
    """Take versions out of a branch's log; the current one always stays."""
    key = f"{HEADS}{branch}.json"
    for _ in range(TRIES):
        log, mark = _read_ref(backend, key)
        kept = [e for e in log[:-1] if e["manifest"] not in drop] + log[-1:]
        if kept == log or backend.swap(key, mark, json_bytes(sealed({"log": kept}))):
            return
    raise StoreError(f"{backend.where}: branch {branch} keeps moving; try again when fewer write")


def diff(old: dict[str, Any], new: dict[str, Any]) -> Change:
    """What `new` changes of `old`."""
    a, b = ({u["unit"]: u for u in m["units"]} for m in (old, new))
    both = sorted(a.keys() & b.keys())
    changed = [u for u in both if (a[u]["digest"], a[u]["split"]) != (b[u]["digest"], b[u]["split"])]
    moved = [u for u in both if u not in set(changed) and a[u] != b[u]]
    return Change(tuple(sorted(b.keys() - a.keys())), tuple(sorted(a.keys() - b.keys())), tuple(changed), tuple(moved))


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises StoreError."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{what} is damaged ({error}); run `ds repair`, or restore it from a copy") from None
    if not isinstance(value, dict):
        raise StoreError(f"{what} is damaged (not a JSON object); run `ds repair`, or restore it from a copy")
    return value


def _ref(data: bytes, what: str) -> dict[str, Any]:
    content = parse_object(data, what)
    if not is_sealed(content):
        raise StoreError(f"{what} is damaged (its checksum does not fit); run `ds repair`, or restore it from a copy")
    return content


def _read_ref(backend: Backend, key: str) -> tuple[list[dict[str, Any]], str | None]:
    found = backend.get_tagged(key)
    return (_ref(found[0], f"{backend.where}: {key}")["log"], found[1]) if found else ([], None)


def _entry(manifest: dict[str, Any], verb: str, note: str) -> dict[str, Any]:
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    totals = {"units": len(manifest["units"]), "frames": manifest["frames"], "bytes": manifest["bytes"]}
    return {"manifest": manifest["digest"], "verb": verb, "note": note, "when": when} | totals


def _copy_head(backend: Backend) -> None:
    """Write manifest.json; again if the branch moved meanwhile, so that the last writer leaves the newest."""
    while True:
        found = backend.get_tagged(f"{HEADS}{MAIN}.json")
        assert found is not None
        head = _ref(found[0], HEADS + MAIN)["log"][-1]["manifest"]
        data = backend.get(f"{MANIFESTS}{head}.json")
        now = backend.get_tagged("manifest.json")
        if now is None or now[0] != data:
            backend.put("manifest.json", data)
        if backend.get_tagged(f"{HEADS}{MAIN}.json") == found:
            return


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or re.fullmatch(r"[0-9a-f]{6,64}", name):
        raise StoreError(f"'{name}' cannot name a version; use letters, digits, . _ - (and not something that looks like a digest)")
