"""The samples of one version of a dataset: single frames, or clips of frames at a fixed distance."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """Samples 0 … len - 1 in natural order. Plain values: pickle it, fork it. `version` is the manifest's digest."""

    location: str
    version: str
    split: str | None
    clip: Clip
    units: tuple[Mapping[str, Any], ...]
    first: np.ndarray = field(repr=False, compare=False)
    """(units + 1,) number of the first sample of every unit, then their total."""

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def identity(self) -> str:
        """What the samples are: the version, the split and the clip."""
        return f"{self.version}|{self.split}|{self.clip.length},{self.clip.stride},{self.clip.hop}"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first video's images."""
        height, width = self.units[0]["size"]
        return height, width

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(unit, first frame) of every sample, (n,) int64 each."""
        unit = np.searchsorted(self.first, samples, "right") - 1
        return unit, (samples - self.first[unit]) * self.clip.hop

    def open(self, unit: int) -> ShardReader:
        """Reader of a unit, in its own shard or in a pack, here or in a bucket."""
        # Not at the top: a bucket's modules are not needed to read a folder.
        from dataengine.store.repository import open_repository

        if "://" in self.location:
            return open_repository(self.location).reader(self.units[unit])
        from dataengine.store.packs import open_unit

        return open_unit(Path(self.location), self.units[unit])


def open_catalogue(location: str | Path, split: str | None = None, version: str = "main", clip: Clip | None = None) -> Catalogue:
    """Samples of a version (branch, tag or digest) of the dataset at `location`. Raises StoreError, also where none is left."""
    from dataengine.store.repository import open_repository

    return catalogue_of(str(location), open_repository(location).manifest(version), split, clip)


def catalogue_of(location: str, manifest: Mapping[str, Any], split: str | None = None, clip: Clip | None = None) -> Catalogue:
    """Samples of a manifest at hand. Raises StoreError for an unknown split, or where no video is long enough."""
    clip = clip or Clip()
    if split is not None and split not in manifest["splits"]:
        raise StoreError(f"{location}: " + unknown_name("split", split, manifest["splits"]))
    kept = ("unit", "video", "shard", "start", "frames", "size")
    units = tuple({k: e[k] for k in kept if k in e} for e in manifest["units"] if split is None or e["split"] == split)
    counts = clip.count(np.array([e["frames"] for e in units], np.int64))
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if first[-1] == 0:
        where = location if split is None else f"{location}, split {split},"
        raise StoreError(f"{where} holds no sample of {clip.length} frames at a distance of {clip.stride}; choose shorter clips")
    return Catalogue(location, manifest["digest"], split, clip, units, first)


def identity_of(catalogues: tuple[Catalogue, ...], repeats: tuple[Any, ...]) -> str:
    """Digest (hex, 16 digits) of what is drawn from: data and weights, wherever they lie."""
    text = "\n".join(f"{c.identity}|{r}" for c, r in zip(catalogues, repeats, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
