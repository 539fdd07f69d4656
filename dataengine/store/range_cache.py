"""A bounded cache on local disk before a slow Backend: immutable objects by blocks, least recently used objects go first.

    <folder>/<2>/<hash>/data      the object's bytes as far as they were fetched, a sparse file that readers map
    <folder>/<2>/<hash>/have/<n>  block n of it is complete
    <folder>/<2>/<hash>/whole …   small objects and ends of objects

A warm read is therefore a memory map, as of a local file. Many processes may share one folder: a block counts once it is
marked, and an object that another process evicts stays mapped until the next look. What is read is checked by the chunks'
own crc32c, so a damaged block is found like any other damage; `drop` removes an object.
"""

import hashlib
import mmap
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import RLock

import numpy as np

from dataengine.errors import StoreError
from dataengine.store.backend import Backend

BLOCK = 1 << 18
"""Bytes per block: a few frames; neighbours are fetched together."""

CONNECTIONS = 32
OPEN_OBJECTS = 64
OVERHEAD_BYTES = 16384
LOOK_AGAIN_S = 5.0
"""How long a mapped object is trusted to be still in the cache before it is marked as used again."""


class _Mapped:
    """One object's sparse file and marks, held open: what another process evicts meanwhile stays valid here."""

    def __init__(self, folder: Path, block: int) -> None:
        self.folder, self.block = folder, block
        folder.mkdir(parents=True, exist_ok=True)
        self.marks = self.file = -1
        # All relative to one open folder, marks before data, since eviction removes a folder's marks before its data.
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(FileExistsError):
                os.mkdir("have", dir_fd=place)
            self.marks = os.open("have", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
            self.file = os.open("data", os.O_RDWR | os.O_CREAT, 0o644, dir_fd=place)
        finally:
            os.close(place)
        self.present: set[int] = set()
        self.bytes = np.empty(0, np.uint8)
        self.looked_s = time.monotonic()

    def __del__(self) -> None:
        for descriptor in (self.marks, self.file):
            if descriptor >= 0 and os is not None:  # os is gone when the interpreter ends
                os.close(descriptor)

    def lacks(self, blocks: Iterable[int]) -> list[int]:
        """Those that are not complete."""
        return [b for b in blocks if b not in self.present and not self._is_marked(b)]

    def keep(self, number: int, data: bytes) -> None:
        """Write one block and mark it."""
        os.pwrite(self.file, data, number * self.block)
        os.close(os.open(str(number), os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=self.marks))
        self.present.add(number)

    def _is_marked(self, number: int) -> bool:
        try:
            os.stat(str(number), dir_fd=self.marks)
        except FileNotFoundError:
            return False
        self.present.add(number)
        return True

    def view(self, start: int, length: int) -> np.ndarray:
        """Bytes of complete blocks, without a copy."""
        if start + length > len(self.bytes):
            size = os.fstat(self.file).st_size
            self.bytes = np.frombuffer(mmap.mmap(self.file, size, access=mmap.ACCESS_READ), np.uint8) if size else self.bytes
        return self.bytes[start : start + length]

    def is_current(self) -> bool:
        """Whether the object is still in the cache; looks rarely, and marks it as used then."""
        now = time.monotonic()
        if now - self.looked_s < LOOK_AGAIN_S:
            return True
        self.looked_s = now
        try:
            os.utime(self.folder)
        except OSError:
            return False
        return os.fstat(self.file).st_nlink > 0


class RangeCache:
    """Read-only view of `backend` that keeps up to `limit_bytes` in `folder`. For keys whose content never changes."""

    def __init__(self, backend: Backend, folder: Path, limit_bytes: int, block: int = BLOCK) -> None:
        if limit_bytes < block:
            raise StoreError(f"a cache of {limit_bytes} bytes is too small; give at least {block}")
        self.backend, self.folder, self.limit_bytes, self.block = backend, Path(folder), limit_bytes, block
        self._used: int | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._open: OrderedDict[str, _Mapped] = OrderedDict()
        self._lock = RLock()

    def __getstate__(self) -> tuple[Backend, Path, int, int]:
        return self.backend, self.folder, self.limit_bytes, self.block

    def __setstate__(self, state: tuple[Backend, Path, int, int]) -> None:
        self.__init__(*state)

    @property
    def where(self) -> str:
        return self.backend.where

    def get(self, key: str) -> bytes:
        """Whole object."""
        return self._whole(key, "whole", lambda: self.backend.get(key))

    def get_tail(self, key: str, length: int) -> bytes:
        """The last `length` bytes."""
        return self._whole(key, f"tail{length}", lambda: self.backend.get_tail(key, length))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of an object as bytes."""
        return [view.tobytes() for view in self.views(key, ranges)]

    def views(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Parts of an object as uint8 arrays that lie in the cache; blocks that are missing come in one request."""
        wanted = [r for r in ranges if r[1] > 0]
        try:
            held = self._object(key)
        except OSError:  # no space, or not writable: the cache only saves time
            return [np.frombuffer(data, np.uint8) for data in self.backend.get_ranges(key, ranges)]
        blocks = sorted({b for start, length in wanted for b in range(start // self.block, -(-(start + length) // self.block))})
        if missing := held.lacks(blocks):
            runs = _runs(missing)
            fetched = self.backend.get_ranges(key, [(first * self.block, count * self.block) for first, count in runs])
            try:
                for (first, _), data in zip(runs, fetched, strict=True):
                    for i in range(0, len(data), self.block):
                        held.keep(first + i // self.block, data[i : i + self.block])
            except OSError:
                return [np.frombuffer(data, np.uint8) for data in self.backend.get_ranges(key, ranges)]
            self._count(sum(map(len, fetched)))
        return [held.view(start, length) for start, length in ranges]

    def fetch(self, wanted: Iterable[tuple[str, Sequence[tuple[int, int]]]]) -> list[list[np.ndarray]]:
        """`views` of many objects at once, over several connections."""
        return list(self.pool().map(lambda job: self.views(*job), list(wanted)))

    def pool(self) -> ThreadPoolExecutor:
        """Threads that wait for the store."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(CONNECTIONS)
            return self._pool

    def drop(self, key: str) -> None:
        """Forget an object, for example because what came from the cache does not decode."""
        with self._lock:
            self._open.pop(key, None)
        _remove(self._folder_of(key))
        self._used = None

    def used_bytes(self) -> int:
        """Disk space of the cache now."""
        return sum(size for _, size, _ in self._objects())

    # ---- parts -------------------------------------------------------------------------------------------------

    def _whole(self, key: str, name: str, fetch: Callable[[], bytes]) -> bytes:
        path = self._folder_of(key) / name
        data = _read(path)
        if data is None:
            data = fetch()
            temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(data)
                os.replace(temporary, path)
                self._count(len(data))
            except OSError:
                with suppress(OSError):
                    temporary.unlink()
        return data

    def _object(self, key: str) -> _Mapped:
        with self._lock:
            held = self._open.get(key)
            if held is None or not held.is_current():
                held = self._open[key] = _Mapped(self._folder_of(key), self.block)
            self._open.move_to_end(key)
            while len(self._open) > OPEN_OBJECTS:
                self._open.popitem(last=False)
            return held

    def _folder_of(self, key: str) -> Path:
        name = hashlib.sha256(f"{self.where}/{key}".encode()).hexdigest()[:32]
        return self.folder / name[:2] / name

    def _count(self, added: int) -> None:
        with self._lock:
            # More than is used, for folders and marks; a count that passes the limit is taken anew.
            self._used = self.used_bytes() if self._used is None else self._used + added + OVERHEAD_BYTES
            if self._used > self.limit_bytes:
                self._used = self.used_bytes()
            if self._used > self.limit_bytes:
                self._evict()

    def _evict(self) -> None:
        """Remove the least recently used objects, down to nine tenths of the limit."""
        objects = sorted(self._objects())
        used = sum(size for _, size, _ in objects)
        gone = set()
        for _, size, folder in objects:
            if used <= 0.9 * self.limit_bytes:
                break
            _remove(folder)
            gone.add(folder)
            used -= size
        for key in [k for k, held in self._open.items() if held.folder in gone]:
            del self._open[key]
        self._used = used

    def _objects(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes on disk, folder) of every object."""
        found = []
        for folder in self.folder.glob("*/*"):
            try:
                size = sum(p.stat().st_blocks * 512 for p in folder.iterdir())
                found.append((folder.stat().st_mtime, size, folder))
            except OSError:  # evicted by another process
                continue
        return found


def _remove(folder: Path) -> None:
    """Take an object out of the cache: at once for who looks for it, marks before data for who has it open."""
    gone = folder.with_name(f".gone.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        os.rename(folder, gone)
    except OSError:  # another process was first
        return
    shutil.rmtree(gone / "have", ignore_errors=True)
    shutil.rmtree(gone, ignore_errors=True)


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data


def _runs(blocks: list[int]) -> list[tuple[int, int]]:
    """Sorted block numbers as (first, count) of neighbours."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and runs[-1][0] + runs[-1][1] == block:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs
