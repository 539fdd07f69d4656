"""Where a dataset lives: a folder or a bucket, behind the few operations that the commit protocol needs.

Keys are relative paths with `/`. Two operations carry all guarantees: `put_new` (create-if-absent, exactly one racer wins)
and `swap` (replace only what was read). A reader never sees half an object.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dataengine.errors import StoreError
from dataengine.store import files

PROBE = ".conditional-write-test"
"""Prefix of the objects by which a store's conditional writes are tested."""


class Missing(StoreError):
    """No object has this key."""

    def __init__(self, where: str, key: str) -> None:
        super().__init__(f"{where} has no {key}")


@dataclass(frozen=True)
class Item:
    """One stored object. `modified_s`: seconds since 1970."""

    key: str
    size: int
    modified_s: float


class Backend(Protocol):
    """A place for objects. Every method raises StoreError with one clear line when the place fails."""

    @property
    def where(self) -> str:
        """The place as the user named it."""
        ...

    def get(self, key: str) -> bytes:
        """Whole object. Raises Missing."""
        ...

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        """(content, tag for `swap`), None when there is no such object."""
        ...

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of an object as (start, length) each. Raises Missing."""
        ...

    def get_tail(self, key: str, length: int) -> bytes:
        """The last `length` bytes, or all where there are fewer. Raises Missing."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a new object, durable on return; False when the key is taken."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store an object whatever is there."""
        ...

    def swap(self, key: str, tag: str | None, data: bytes) -> bool:
        """Replace the object that carried `tag` (None: create); False when it has changed meanwhile."""
        ...

    def items(self, prefix: str) -> list[Item]:
        """Objects whose key starts with `prefix`, sorted by key."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those already gone are fine."""
        ...


@dataclass(frozen=True)
class LocalBackend:
    """A folder. Plain value: pickle it, fork it."""

    root: Path

    @property
    def where(self) -> str:
        return str(self.root)

    def get(self, key: str) -> bytes:
        with self._read(key):
            return (self.root / key).read_bytes()

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        try:
            data = self.get(key)
        except Missing:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with self._read(key), open(self.root / key, "rb") as file:
            return [os.pread(file.fileno(), length, start) for start, length in ranges]

    def get_tail(self, key: str, length: int) -> bytes:
        with self._read(key), open(self.root / key, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return os.pread(file.fileno(), length, max(0, size - length))

    def put_new(self, key: str, data: bytes) -> bool:
        return files.create_once(self._place(key), data, self._scratch())

    def put(self, key: str, data: bytes) -> None:
        files.replace(self._place(key), data, self._scratch())

    def swap(self, key: str, tag: str | None, data: bytes) -> bool:
        path = self._place(key)
        with _locked(path.parent):  # the system releases it when the process dies
            now = self.get_tagged(key)
            if (now[1] if now else None) != tag:
                return False
            files.replace(path, data, self._scratch())
            return True

    def items(self, prefix: str) -> list[Item]:
        folder = self.root / prefix.rpartition("/")[0]
        found = []
        for path in folder.rglob("*") if folder.is_dir() else ():
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix):
                try:
                    about = path.lstat()
                except FileNotFoundError:  # removed while we listed
                    continue
                if not path.is_dir():
                    found.append(Item(key, about.st_size, max(about.st_mtime, about.st_ctime)))
        return sorted(found, key=lambda item: item.key)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self.root / key
            with files.reported(path):
                path.unlink(missing_ok=True)
                for folder in path.relative_to(self.root).parents:
                    if len(folder.parts) < 2 or any((self.root / folder).iterdir()):
                        break
                    (self.root / folder).rmdir()

    def link(self, source: Path, key: str) -> bool:
        """Give an immutable file of the same disk a second name, put-if-absent; copies where links are not possible."""
        path = self._place(key)
        with files.reported(path):
            try:
                os.link(source, path)
            except FileExistsError:
                return False
            except OSError:
                return self.put_new(key, source.read_bytes())
            files.sync(path.parent)
            return True

    def _place(self, key: str) -> Path:
        path = self.root / key
        with files.reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _scratch(self) -> Path:
        scratch = self.root / "staging"
        with files.reported(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    @contextmanager
    def _read(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(self.where, key) from None
        except OSError as error:
            raise StoreError(f"{self.root / key}: {error.strerror or error}; check the disk") from error


def open_backend(location: str | Path) -> Backend:
    """Backend of a folder, or of `s3://bucket/prefix`. Raises StoreError for another scheme."""
    text = str(location)
    scheme, colon, _ = text.partition("://")
    if not colon:
        return LocalBackend(Path(text))
    if scheme != "s3":
        raise StoreError(f"{text}: unknown kind of store '{scheme}'; give a folder or s3://BUCKET/PREFIX")
    from dataengine.store.remote import open_bucket

    return open_bucket(text)


def is_remote(location: str | Path) -> bool:
    """Whether a location names an object store."""
    return "://" in str(location)


def copy_object(source: Backend, key: str, target: Backend, new_key: str) -> bool:
    """Copy one immutable object, put-if-absent; on one disk by a hard link. False when the key was taken."""
    if isinstance(source, LocalBackend) and isinstance(target, LocalBackend):
        if not (source.root / key).is_file():
            raise Missing(source.where, key)
        return target.link(source.root / key, new_key)
    return target.put_new(new_key, source.get(key))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with files.reported(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with files.reported(folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
