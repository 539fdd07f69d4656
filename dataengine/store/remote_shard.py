"""Units of a dataset that is not on this machine: the same reader, its bytes fetched by ranges.

A shard file's index is one short read at its end, a frame one range; `prefetch` gets the frames of all arrays at once.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from dataengine.errors import StoreError
from dataengine.record.modalities import NAMES
from dataengine.store.backend import Missing
from dataengine.store.codecs import Decayed, Part, part_shape
from dataengine.store.packs import ArraySlice, split_index
from dataengine.store.range_cache import NotKept, RangeCache
from dataengine.store.shard import FRAMES, SCHEMA_VERSION, ShardReader, newer_schema
from dataengine.store.shard_file import MISSING, ArrayInfo, CorruptShard, parse_array
from dataengine.store.versions import parse_object


class RemoteArray:
    """Frames of one array through a cache, with the interface of the local array reader."""

    def __init__(self, cache: RangeCache, folder: str, ask: bool = True) -> None:
        self.cache, self.folder = cache, folder
        where = f"{cache.where}/{folder}/zarr.json"
        self.info: ArrayInfo = _parsed(_get(cache, f"{folder}/zarr.json", ask), where)
        self.key = f"{folder}/{self.info.data_file}"
        count = len(self)
        try:
            tail = cache.get_tail(self.key, 16 * count + 4, ask)
        except Missing:
            raise self._corrupt(None, "the data file is missing") from None
        index = split_index(tail, count)
        if index is None:
            cache.drop(self.key)
            raise self._corrupt(None, "the index fails its crc32c")
        self.index = index

    def __len__(self) -> int:
        return self.info.shape[0]

    def range_of(self, frame: int) -> tuple[int, int]:
        """(start, length) of a frame's bytes."""
        return self.index[frame]

    def read(self, frame: int, out: np.ndarray | None = None, part: Part | None = None) -> np.ndarray:
        """Frame `frame` in 0 … F-1, or a part of it. Raises CorruptShard, StoreError. Damage in the cache is fetched once more."""
        if not 0 <= frame < len(self):
            raise StoreError(f"{self.folder}: frame {frame} does not exist; there are {len(self)}, counted from 0")
        whole = self.info.shape[1:]
        result = np.empty(whole if part is None else part_shape(part, whole), self.info.dtype) if out is None else out
        if self.index[frame][0] == MISSING:
            result[...] = self.info.fill
            return result
        try:
            self._decode(frame, result, part)
        except Decayed:
            self.cache.drop(self.key)
            try:
                self._decode(frame, result, part)
            except Decayed as error:
                raise self._corrupt(frame, str(error)) from None
        return result

    def read_many(self, frames: Iterable[int]) -> np.ndarray:
        """(n, …) stack of the given frames, fetched together."""
        chosen = list(frames)
        self.cache.views(self.key, [self.index[f] for f in chosen if self.index[f][0] != MISSING])
        out = np.empty((len(chosen), *self.info.shape[1:]), self.info.dtype)
        for row, frame in zip(out, chosen, strict=True):
            self.read(frame, row)
        return out

    def _decode(self, frame: int, out: np.ndarray, part: Part | None) -> None:
        (encoded,) = self.cache.views(self.key, [self.index[frame]])
        if part is None:
            self.info.chain.decode(encoded, out)
        else:
            self.info.chain.decode_part(encoded, part, self.info.shape[1:], out)

    def _corrupt(self, frame: int | None, what: str) -> CorruptShard:
        return CorruptShard(f"{self.cache.where}/{self.key}", self.folder.rpartition("/")[2], frame, what)


GROUP = ""


class RemoteShardReader(ShardReader):
    """One unit behind a cache, in its own shard or in a pack."""

    def __init__(self, cache: RangeCache, entry: dict[str, Any]) -> None:
        self.cache, self.entry = cache, entry
        self.shard = f"shards/{entry['shard']}"
        self.own = f"{self.shard}/{entry['unit']}" if "start" in entry else self.shard
        self._group: dict[str, Any] | None = None
        self._opening = {name: Lock() for name in (GROUP, *NAMES, FRAMES)}
        super().__init__(Path(self.own))

    def __getstate__(self) -> Any:
        return self.cache, self.entry

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)

    @property
    def attributes(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Attributes of the unit's group."""
        return self._about()

    def array(self, name: str) -> Any:
        if name in self._arrays:
            return self._arrays[name]
        if name not in (*NAMES, FRAMES):
            return super().array(name)
        try:
            return self._open(name)
        except StoreError:
            if name == FRAMES or name in self.modalities:
                raise
            return super().array(name)  # says what there is

    def has(self, frames: Iterable[int], modalities: Iterable[str]) -> bool:
        """Whether the given frames of the given modalities and the labels lie in the cache already; asks nobody."""
        names, chosen = (*modalities, FRAMES), list(frames)
        try:
            return all(self.cache.has(*self._ranges(self._open(n, False), chosen)) for n in names) and bool(self._about(False))
        except NotKept:
            return False

    def prefetch(self, frames: Iterable[int], modalities: Iterable[str] | None = None) -> None:
        """Bring the given frames of the given modalities (None: all) and the labels into the cache, all at once."""
        names, chosen = (*(self.modalities if modalities is None else modalities), FRAMES), list(frames)
        about = self.cache.pool().submit(self._about)
        list(self.cache.pool().map(lambda name: self.cache.views(*self._ranges(self.array(name), chosen)), names))
        about.result()

    def _about(self, ask: bool = True) -> dict[str, Any]:
        with self._opening[GROUP]:
            if self._group is not None:
                return self._group
            where = f"{self.cache.where}/{self.own}/zarr.json"
            found = parse_object(_get(self.cache, f"{self.own}/zarr.json", ask), where).get("attributes", {})
            version = found.get("schema_version")
            if not isinstance(version, int):
                raise StoreError(f"{where} is not a shard of this project (no schema_version)")
            if version > SCHEMA_VERSION:
                raise StoreError(newer_schema(Path(self.own), version))
            self._group = found
            return found

    def _open(self, name: str, ask: bool = True) -> Any:
        """Reader of an array; two threads that want the same one ask the store once."""
        with self._opening[name]:
            if name not in self._arrays:
                if name == FRAMES or "start" not in self.entry:
                    found: Any = RemoteArray(self.cache, f"{self.own}/{name}", ask)
                else:
                    whole = RemoteArray(self.cache, f"{self.shard}/{name}", ask)
                    found = ArraySlice(whole, self.entry["start"], self.entry["frames"])
                self._arrays[name] = found
            return self._arrays[name]

    def _ranges(self, array: Any, frames: Iterable[int]) -> tuple[str, list[tuple[int, int]]]:
        """(key, ranges) of the given frames of an array."""
        whole, start = (array.array, array.start) if isinstance(array, ArraySlice) else (array, 0)
        ranges = [whole.range_of(start + f) for f in frames]
        return whole.key, [r for r in ranges if r[0] != MISSING]


@lru_cache(maxsize=64)
def _parsed(data: bytes, where: str) -> ArrayInfo:
    """Arrays of one modality have equal metadata in many shards."""
    return parse_array(parse_object(data, where), where)


def _get(cache: RangeCache, key: str, ask: bool) -> bytes:
    try:
        return cache.get(key, ask)
    except Missing as error:
        raise StoreError(f"{error}; the shard is not complete, run `ds verify`") from None
