"""A bounded cache on local disk before a slow Backend: immutable objects in blocks, least recently used go first.

Many processes may share one folder: blocks appear by rename, and a block that vanishes is fetched again. What is read is
checked by the chunks' own crc32c, so a damaged block is found like any other damage; `drop` removes an object's blocks.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dataengine.errors import StoreError
from dataengine.store.backend import Backend

BLOCK = 1 << 18
"""Bytes per block: a few frames; neighbours are fetched together."""

CONNECTIONS = 16


class RangeCache:
    """Read-only view of `backend` that keeps up to `limit_bytes` in `folder`. For keys whose content never changes."""

    def __init__(self, backend: Backend, folder: Path, limit_bytes: int, block: int = BLOCK) -> None:
        if limit_bytes < block:
            raise StoreError(f"a cache of {limit_bytes} bytes is too small; give at least {block}")
        self.backend, self.folder, self.limit_bytes, self.block = backend, Path(folder), limit_bytes, block
        self._used: int | None = None
        self._pool: ThreadPoolExecutor | None = None

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
        """Parts of an object; blocks that are missing come in one request per run of neighbours."""
        folder = self._folder_of(key)
        wanted = sorted({b for start, length in ranges for b in range(start // self.block, -(-(start + length) // self.block))})
        held = {b: data for b in wanted if (data := _read(folder / str(b))) is not None}
        if missing := [b for b in wanted if b not in held]:
            runs = _runs(missing)
            asked = [(first * self.block, count * self.block) for first, count in runs]
            for (first, _), data in zip(runs, self.backend.get_ranges(key, asked), strict=True):
                for i in range(0, max(len(data), 1), self.block):
                    piece = data[i : i + self.block]
                    held[first + i // self.block] = piece
                    self._keep(folder / str(first + i // self.block), piece)
        return [self._cut(held, start, length) for start, length in ranges]

    def fetch(self, wanted: Iterable[tuple[str, Sequence[tuple[int, int]]]]) -> list[list[bytes]]:
        """`get_ranges` of many objects at once, over several connections."""
        jobs = list(wanted)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(CONNECTIONS)
        return list(self._pool.map(lambda job: self.get_ranges(*job), jobs))

    def drop(self, key: str) -> None:
        """Forget an object, for example because what came from the cache does not decode."""
        shutil.rmtree(self._folder_of(key), ignore_errors=True)
        self._used = None

    def used_bytes(self) -> int:
        """Size of the cache now."""
        return sum(size for _, size, _ in self._blocks())

    # ---- parts -------------------------------------------------------------------------------------------------

    def _whole(self, key: str, name: str, fetch) -> bytes:
        path = self._folder_of(key) / name
        data = _read(path)
        if data is None:
            data = fetch()
            self._keep(path, data)
        return data

    def _cut(self, held: dict[int, bytes], start: int, length: int) -> bytes:
        first, last = start // self.block, (start + length - 1) // self.block
        joined = b"".join(held[b] for b in range(first, last + 1)) if length else b""
        return joined[start - first * self.block :][:length]

    def _folder_of(self, key: str) -> Path:
        name = hashlib.sha256(f"{self.where}/{key}".encode()).hexdigest()[:32]
        return self.folder / name[:2] / name

    def _keep(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError:  # a full disk or a folder that another process evicted: the cache only saves time
            temporary.unlink(missing_ok=True)
            return
        if self._used is None:
            self._used = self.used_bytes()
        else:
            self._used += len(data)
        if self._used > self.limit_bytes:
            self._evict()

    def _evict(self) -> None:
        """Remove the least recently read blocks, down to nine tenths of the limit."""
        blocks = sorted(self._blocks())
        used = sum(size for _, size, _ in blocks)
        for _, size, path in blocks:
            if used <= 0.9 * self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            used -= size
        self._used = used

    def _blocks(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path) of every block."""
        found = []
        for path in self.folder.glob("*/*/*"):
            try:
                about = path.stat()
            except FileNotFoundError:
                continue
            found.append((about.st_mtime, about.st_size, path))
        return found


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
        os.utime(path)
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
