"""A bounded cache on local disk before a slow Backend: immutable objects by blocks, least recently used objects go first.

    <folder>/<2>/<hash>/blocks    a sparse file that readers map: a byte per block, 1 when it is complete, then the object's
                                  bytes as far as they were fetched
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
from threading import Lock, RLock

import numpy as np

from dataengine.errors import StoreError
from dataengine.store.backend import Backend

BLOCK = 1 << 18
"""Bytes per block: a few frames; neighbours are fetched together."""

CONNECTIONS = 64
OPEN_OBJECTS = 192
"""Two file descriptors each; systems often allow 1024."""

MARKS = 1 << 16
"""Length of the marks: objects of up to 16 GB."""

OVERHEAD_BYTES = 16384
LOOK_AGAIN_S = 5.0
"""How long a mapped object is trusted to be still in the cache before it is marked as used again."""


class NotKept(StoreError):
    """It is not in the cache, and the store was not to be asked."""


class _Mapped:
    """One object's file, held open: what another process evicts meanwhile stays valid here."""

    def __init__(self, folder: Path, block: int) -> None:
        self.folder, self.block = folder, block
        folder.mkdir(parents=True, exist_ok=True)
        self.file = os.open(folder / "blocks", os.O_RDWR | os.O_CREAT, 0o644)
        if os.fstat(self.file).st_size < MARKS:
            os.pwrite(self.file, b"\0", MARKS - 1)  # truncating could cut off what another process has just written
        self._map()
        self.fetching = Lock()
        self.looked_s = time.monotonic()

    def __del__(self) -> None:
        if os is not None and hasattr(self, "file"):  # os is gone when the interpreter ends
            os.close(self.file)

    def lacks(self, blocks: Iterable[int]) -> list[int]:
        """Those that are not complete; what other processes complete counts at once."""
        return [b for b in blocks if b >= MARKS - 1 or not self.map[b]]

    def keep(self, number: int, data: memoryview) -> None:
        """Write one block and mark it."""
        if number >= MARKS - 1:
            raise OSError("an object too large for the cache")
        os.pwrite(self.file, data, MARKS + number * self.block)
        os.pwrite(self.file, b"\1", number)

    def view(self, start: int, length: int) -> np.ndarray:
        """Bytes of complete blocks, without a copy."""
        if MARKS + start + length > len(self.bytes):
            self._map()
        return self.bytes[MARKS + start : MARKS + start + length]

    def _map(self) -> None:
        self.map = mmap.mmap(self.file, 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self.map, np.uint8)

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

    def get(self, key: str, ask: bool = True) -> bytes:
        """Whole object. Raises NotKept instead of asking the store where it may not `ask`."""
        return self._whole(key, "whole", ask, lambda: self.backend.get(key))

    def get_tail(self, key: str, length: int, ask: bool = True) -> bytes:
        """The last `length` bytes. Raises NotKept instead of asking the store where it may not `ask`."""
        return self._whole(key, f"tail{length}", ask, lambda: self.backend.get_tail(key, length))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of an object as bytes."""
        return [view.tobytes() for view in self.views(key, ranges)]

    def views(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Parts of an object as uint8 arrays that lie in the cache; blocks that are missing come in one request."""
        try:
            held = self._object(key)
        except OSError:  # no space, or not writable: the cache only saves time
            return [np.frombuffer(data, np.uint8) for data in self.backend.get_ranges(key, ranges)]
        blocks = sorted(_blocks(ranges, self.block))
        if held.lacks(blocks):
            with held.fetching:  # who comes second finds what the first one brought
                missing = _runs(held.lacks(blocks))
                fetched = self.backend.get_ranges(key, [(first * self.block, count * self.block) for first, count in missing])
                try:
                    for (first, _), data in zip(missing, map(memoryview, fetched), strict=True):
                        for i in range(0, len(data), self.block):
                            held.keep(first + i // self.block, data[i : i + self.block])
                except OSError:
                    return [np.frombuffer(data, np.uint8) for data in self.backend.get_ranges(key, ranges)]
            self._count(sum(map(len, fetched)))
        return [held.view(start, length) for start, length in ranges]

    def has(self, key: str, ranges: Iterable[tuple[int, int]]) -> bool:
        """Whether these parts lie in the cache; asks nobody."""
        try:
            return not self._object(key).lacks(_blocks(ranges, self.block))
        except OSError:
            return False

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

    def _whole(self, key: str, name: str, ask: bool, fetch: Callable[[], bytes]) -> bytes:
        path = self._folder_of(key) / name
        data = _read(path)
        if data is None and not ask:
            raise NotKept(f"{self.where}/{key} is not in the cache")
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
    """Take an object out of the cache: at once for who looks for it; who has it open keeps it."""
    gone = folder.with_name(f".gone.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        os.rename(folder, gone)
    except OSError:  # another process was first
        return
    shutil.rmtree(gone, ignore_errors=True)


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data


def _blocks(ranges: Iterable[tuple[int, int]], block: int) -> set[int]:
    """Numbers of the blocks that hold these (start, length)."""
    return {b for start, length in ranges if length for b in range(start // block, -(-(start + length) // block))}


def _runs(blocks: list[int]) -> list[tuple[int, int]]:
    """Sorted block numbers as (first, count) of neighbours."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and runs[-1][0] + runs[-1][1] == block:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs
