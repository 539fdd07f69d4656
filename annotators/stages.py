"""Stage files of an annotation: each finished stage is one file that names the inputs it was made from, written at once or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from annotators.types import CameraTrack, Flag, ScaleEstimate, Solution
from dataengine.store import files

T = TypeVar("T", CameraTrack, Solution)


def key_of(*parts: Any) -> str:
    """SHA-256 (hex) of plain values and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def key_of_files(paths: Iterable[Path]) -> str:
    """Key of files by name, size and time of change: reading gigabytes again would take longer than the work that is saved."""
    return key_of([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(paths)])


def load_json(path: Path, key: str) -> Any | None:
    """What `save_json` wrote under this key; None for another key, no file or a damaged one."""
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return stored.get("value") if isinstance(stored, dict) and stored.get("key") == key else None


def save_json(path: Path, key: str, value: Any) -> None:
    """Write a plain value under a key. StoreError when the disk refuses; what stood there before stays."""
    _replace(path, (json.dumps({"key": key, "value": value}) + "\n").encode())


def save(path: Path, key: str, value: CameraTrack | Solution) -> None:
    """Write a track or a solution: arrays as they are, the rest as JSON inside."""
    import io

    arrays, plain = {}, {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if isinstance(item, np.ndarray):
            arrays[field.name] = item
        else:
            plain[field.name] = dataclasses_to_plain(item)
    buffer = io.BytesIO()
    np.savez(buffer, __meta__=np.array(json.dumps({"key": key, "plain": plain})), **arrays)
    _replace(path, buffer.getvalue())


def load(path: Path, key: str, kind: type[T]) -> T | None:
    """The inverse of `save`; None for another key, no file or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as data:
            meta = json.loads(str(data["__meta__"]))
            arrays = {name: data[name] for name in data.files if name != "__meta__"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if meta["key"] != key:
        return None
    return kind(**arrays, **{name: _revive(name, item) for name, item in meta["plain"].items()})


def once(path: Path, key: str, kind: type[T], make: Callable[[], T]) -> T:
    """The stage's result: from its file, or made now and written."""
    found = load(path, key, kind)
    if found is None:
        found = make()
        save(path, key, found)
    return found


def dataclasses_to_plain(item: Any) -> Any:
    """Lists, dicts and numbers of a value that may hold the flags and scales of `annotators.types`."""
    if isinstance(item, Flag | ScaleEstimate):
        return dataclasses.asdict(item)
    if isinstance(item, tuple | list):
        return [dataclasses_to_plain(v) for v in item]
    return item.item() if isinstance(item, np.generic) else item


def _revive(name: str, item: Any) -> Any:
    if name == "flags":
        return tuple(Flag(f["kind"], f["text"], tuple(f["frames"])) for f in item)
    if name == "scales":
        return tuple(ScaleEstimate(**s) for s in item)
    if isinstance(item, list):
        return tuple(tuple(v) if isinstance(v, list) else v for v in item)
    return item


def _replace(path: Path, data: bytes) -> None:
    """Write beside it, then rename: a kill leaves the old file or the new one."""
    with files.reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        part.replace(path)
