"""The samples of one version of a dataset: single frames, or clips of frames at a fixed distance."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.errors import StoreError, unknown_name
from dataengine.store.shard import ShardReader


@dataclass(frozen=True)
class Clip:
    """`length` frames, every `stride`-th; a clip starts at every `hop`-th frame. Clips never cross videos."""

    length: int = 1
    stride: int = 1
    hop: int = 1

    def __post_init__(self) -> None:
        if min(self.length, self.stride, self.hop) < 1:
            raise StoreError(f"{self} is no clip; length, stride and hop are 1 or more")

    def count(self, frames: np.ndarray) -> np.ndarray:
        """Clips in videos of so many frames."""
        return np.maximum(0, (frames - 1 - (self.length - 1) * self.stride) // self.hop + 1)


@dataclass(frozen=True)
class Catalogue:
    """Samples 0 … len - 1 in natural order. Plain values: pickle it, fork it.

    `content` is a digest of the chosen videos' names and contents, which a manifest states. Two versions with the same
    videos have the same, as before and after compaction, here and in a bucket.
    """

    location: str
    content: str
    clip: Clip
    units: tuple[Mapping[str, Any], ...]
    first: np.ndarray = field(repr=False, compare=False)
    """(units + 1,) number of the first sample of every unit, then their total."""

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def identity(self) -> str:
        """What the samples are: the videos and the clip."""
        return f"{self.content}|{self.clip.length},{self.clip.stride},{self.clip.hop}"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first video's images."""
        height, width = self.units[0]["size"]
        return height, width

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(unit, first frame) of every sample, (n,) int64 each."""
        unit = np.searchsorted(self.first, samples, "right") - 1
        return unit, (samples - self.first[unit]) * self.clip.hop

    @property
    def remote(self) -> bool:
        """Whether the dataset lies in a bucket."""
        return "://" in self.location

    def open(self, unit: int) -> ShardReader:
        """Reader of a unit, in its own shard or in a pack, here or in a bucket."""
        if self.remote:
            repository, cache = _bucket(self.location, os.getpid())
            return repository.reader(self.units[unit], cache)
        # Not at the top: it is needed only when something is read.
        from dataengine.store.packs import open_unit

        return open_unit(Path(self.location), self.units[unit])


@lru_cache(maxsize=16)
def _bucket(location: str, process: int) -> tuple[Any, Any]:
    """(repository, cache) of a dataset in a bucket; connections belong to the process that made them."""
    from dataengine.store.repository import open_cache, open_repository

    repository = open_repository(location)
    return repository, open_cache(repository.backend)


def open_catalogue(location: str | Path, split: str | None = None, version: str = "main", clip: Clip | None = None) -> Catalogue:
    """Samples of a version (branch, tag or digest) of the dataset at `location`. Raises StoreError, also where none is left."""
    # Not at the top: readers of catalogues at hand do without.
    from dataengine.store.repository import open_repository

    text = str(location)
    repository = _bucket(text, os.getpid())[0] if "://" in text else open_repository(location)
    return catalogue_of(text, repository.manifest(version), split, clip)


def catalogue_of(location: str, manifest: Mapping[str, Any], split: str | None = None, clip: Clip | None = None) -> Catalogue:
    """Samples of a manifest at hand. Raises StoreError for an unknown split, or where no video is long enough."""
    clip = clip or Clip()
    if split is not None and split not in manifest["splits"]:
        raise StoreError(f"{location}: " + unknown_name("split", split, manifest["splits"]))
    kept = ("unit", "video", "shard", "start", "frames", "size")
    chosen = [e for e in manifest["units"] if split is None or e["split"] == split]
    units = tuple({k: e[k] for k in kept if k in e} for e in chosen)
    counts = clip.count(np.array([e["frames"] for e in units], np.int64))
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if first[-1] == 0:
        where = location if split is None else f"{location}, split {split},"
        raise StoreError(f"{where} holds no sample of {clip.length} frames at a distance of {clip.stride}; choose shorter clips")
    content = hashlib.sha256("\n".join(f"{e['unit']} {e['digest']}" for e in chosen).encode()).hexdigest()
    return Catalogue(location, content, clip, units, first)


def identity_of(catalogues: tuple[Catalogue, ...], repeats: tuple[Any, ...]) -> str:
    """Digest (hex, 16 digits) of what is drawn from: data and weights, wherever they lie."""
    text = "\n".join(f"{c.identity}|{r}" for c, r in zip(catalogues, repeats, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
