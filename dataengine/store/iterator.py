"""Batches for training, as numpy arrays: random access to every frame, any place of any epoch at once, nothing shared.

`Batches.read` is a pure function of (data, seed, epoch, place); ranks and workers only choose which places they read. So
a run that was killed goes on bit-identically with another number of machines, processes and workers.
"""

import os
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from dataengine.errors import StoreError, unknown_name
from dataengine.record.modalities import NAMES, modality
from dataengine.store.catalogue import Catalogue, identity_of
from dataengine.store.codecs import Half, Part, Window
from dataengine.store.labels import Labels
from dataengine.store.order import Order
from dataengine.store.shard import FRAMES, ShardReader

Batch = dict[str, np.ndarray]
IDS = ("dataset", "video", "frame", "real", "seed")
"""Always in a batch: where a sample comes from, whether it is real, and random bits of its own for augmentation."""

CONNECTIONS = 16
"""Units of a bucket that a courier fetches at a time."""

AHEAD = 2
"""Batches from a bucket that travel at a time, the one that is waited for among them."""

OPEN_FILES = 512
"""Bound of the files that one process holds open; systems often allow 1024."""


Lacking = list[tuple[Any, list[int]]]
"""Readers of units in buckets, and frames of each."""


@dataclass(frozen=True)
class View:
    """What is read of a sample.

    `columns`: modalities and columns of the frame table. `half`: images at half size. `crop`: (height, width) of a window
    of the images, anywhere at random or in the middle (`centred`). K, keypoints_px and keypoint_state follow the image.
    `objects`: columns per object are filled up with NaN (or 0) to so many, as batches need equal shapes.
    """

    columns: tuple[str, ...]
    half: bool = False
    crop: tuple[int, int] | None = None
    centred: bool = False
    objects: int | None = None

    def __post_init__(self) -> None:
        if self.half and self.crop:
            raise StoreError("a view is either a crop or of half size, not both; choose one")
        if len(set(self.columns)) != len(self.columns) or not self.columns:
            raise StoreError(f"columns {list(self.columns)}; name at least one, each once")

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(c for c in self.columns if c in NAMES)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(c for c in self.columns if c not in NAMES)


class Batches:
    """Batches of `batch` samples over all ranks together; rank `rank` of `world` reads its share of each.

    `repeats`: per dataset, how often each of its samples comes in an epoch (default 1: exactly once). Iterating goes to
    the end of the epoch and leaves the state at the beginning of the next. Any batch size goes with any world size.
    """

    def __init__(
        self,
        catalogues: Sequence[Catalogue],
        view: View,
        batch: int,
        seed: int = 0,
        repeats: Sequence[float | Fraction] | None = None,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        if not catalogues:
            raise StoreError("no dataset given; name at least one")
        if batch < 1 or not 0 <= rank < world:
            raise StoreError(f"batch {batch}, rank {rank} of {world}: a batch holds 1 or more samples, ranks count from 0")
        if len({c.clip.length for c in catalogues}) > 1:
            raise StoreError("datasets are read in clips of different lengths; batches need one length")
        weights = tuple(Fraction(str(r)) for r in (repeats if repeats is not None else [1] * len(catalogues)))
        if len(weights) != len(catalogues):
            raise StoreError(f"{len(weights)} weights given for {len(catalogues)} datasets; give one each")
        self.catalogues, self.view = tuple(catalogues), view
        self.batch, self.rank, self.world, self.drop_last = batch, rank, world, drop_last
        self.order = Order(identity_of(self.catalogues, weights), tuple(len(c) for c in catalogues), weights, seed, shuffle)
        self.epoch = self.place = 0
        self.reset()

    # ---- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Where the next batch starts; JSON of less than 200 bytes, the same on every rank."""
        return self.state_at(self.epoch, self.place)

    def state_at(self, epoch: int, place: int) -> dict[str, Any]:
        """State before the sample at `place` of an epoch."""
        return {"data": self.order.identity, "seed": self.order.seed, "epoch": epoch, "place": place}

    def load(self, state: dict[str, Any]) -> None:
        """Go to a state. Raises StoreError when it belongs to other data, weights or another seed."""
        try:
            data, seed, epoch, place = state["data"], state["seed"], int(state["epoch"]), int(state["place"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"not a loader's state ({error!r}); give what state() returned") from None
        if (data, seed) != (self.order.identity, self.order.seed):
            raise StoreError(
                f"the state is of data {data} with seed {seed}, this loader draws from {self.order.identity} with seed {self.order.seed}; "
                "open the same versions, splits and weights, or begin anew"
            )
        if epoch < 0 or not 0 <= place <= self.order.length(epoch):
            raise StoreError(f"the state names place {place} of epoch {epoch}, which does not exist")
        self.epoch, self.place = epoch, place

    # ---- reading -------------------------------------------------------------------------------------------------

    def steps(self, epoch: int, place: int = 0) -> Iterator[tuple[int, int]]:
        """(start, stop) of the batches from `place` to the end of an epoch, over all ranks."""
        length = self.order.length(epoch)
        for start in range(place, length, self.batch):
            if start + self.batch <= length or not self.drop_last:
                yield start, min(start + self.batch, length)

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """This rank's part of the places start … stop - 1; the parts of all ranks in order are the whole."""
        n = stop - start
        return start + n * self.rank // self.world, start + n * (self.rank + 1) // self.world

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        steps = list(self.steps(epoch, self.place))
        for (_, stop), batch in zip(steps, self.read_each(epoch, steps), strict=True):
            self.epoch, self.place = self.after(epoch, stop)  # a state taken while the batch is in use is the one after it
            yield batch

    def read_each(self, epoch: int, steps: Sequence[tuple[int, int]]) -> Iterator[Batch]:
        """This rank's share of each step, in order. From a bucket, the next ones travel while one is decoded and used."""
        if not any(c.remote for c in self.catalogues):
            for step in steps:
                yield self.read(epoch, *self.share(*step))
            return
        self._own()
        with ThreadPoolExecutor(AHEAD) as couriers:
            coming: deque[Future | None] = deque()  # None: nothing lacked
            for k, step in enumerate(steps):
                for later in steps[k + len(coming) : k + AHEAD]:
                    lacking = self._lacking(*self.order.take(epoch, *self.share(*later)))
                    coming.append(couriers.submit(self._fetch, lacking) if lacking else None)
                if (fetched := coming.popleft()) is not None:
                    fetched.result()
                yield self.read(epoch, *self.share(*step))

    def after(self, epoch: int, stop: int) -> tuple[int, int]:
        """(epoch, place) that follows a batch: an epoch that is used up is never the state."""
        return (epoch + 1, 0) if next(self.steps(epoch, stop), None) is None else (epoch, stop)

    def read(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples at the places start … stop - 1 of an epoch."""
        dataset, sample = self.order.take(epoch, start, stop)
        return self.gather(dataset, sample, self.order.noise(epoch, start, stop))

    def gather(self, dataset: np.ndarray, sample: np.ndarray, noise: np.ndarray) -> Batch:
        """Given samples, (n,) each, as one batch: {column: (n, …)}, in clips (n, length, …). Raises CorruptShard, StoreError."""
        self._own()
        n, clip = len(sample), self.catalogues[0].clip.length
        out = self._empty(n * clip)
        windows = self._windows(noise)
        if lacking := self._lacking(dataset, sample):
            self._fetch(lacking)
        for k, catalogue in enumerate(self.catalogues):
            mine = np.flatnonzero(dataset == k)
            units, first = catalogue.locate(sample[mine])
            steps = np.arange(clip) * catalogue.clip.stride
            for row, unit, start in zip(mine.tolist(), units.tolist(), first.tolist(), strict=True):
                self._read_sample(out, row, (k, unit), start + steps, None if windows is None else windows[row])
        out |= {"dataset": np.repeat(dataset, clip).astype(np.int32), "seed": np.repeat(noise >> np.uint64(1), clip).astype(np.int64)}
        if windows is not None:
            out["window"] = np.repeat(np.array([[w.top, w.left, w.height, w.width] for w in windows], np.int32).reshape(-1, 4), clip, 0)
        if self._squeeze:
            return out
        per_sample = ("dataset", "seed", "video", "real", "window")
        return {
            name: a.reshape(n, clip, *a.shape[1:])[:, 0] if name in per_sample else a.reshape(n, clip, *a.shape[1:])
            for name, a in out.items()
        }

    def reset(self) -> None:
        """Close every shard; they are opened again when needed."""
        self._pid = os.getpid()
        self._readers: OrderedDict[tuple[int, int], ShardReader] = OrderedDict()
        self._real: dict[tuple[int, int], bool] = {}
        self._labels: Labels | None = None
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": OrderedDict(), "_labels": None, "_shapes": None, "_pid": -1}

    # ---- parts ---------------------------------------------------------------------------------------------------

    @property
    def _squeeze(self) -> bool:
        return self.catalogues[0].clip.length == 1

    def _own(self) -> None:
        """Open nothing twice, share nothing: after a fork, what the parent has open may hold threads and locks."""
        if os.getpid() != self._pid:
            self.reset()

    def _reader(self, key: tuple[int, int]) -> ShardReader:
        reader = self._readers.get(key)
        if reader is not None:
            self._readers.move_to_end(key)
            return reader
        reader = self._readers[key] = self.catalogues[key[0]].open(key[1])
        while len(self._readers) > max(4, OPEN_FILES // (len(self.view.images) + 1)):
            self._readers.popitem(last=False)[1].close()
        return reader

    def _lacking(self, dataset: np.ndarray, sample: np.ndarray) -> Lacking:
        """Of the given samples, what lies in a bucket and not in the cache yet."""
        unknown = self._shapes is None and self.catalogues[0].remote  # `_empty` will look at the first video
        wanted: dict[tuple[int, int], list[int]] = {(0, 0): []} if unknown else {}
        for k, catalogue in enumerate(self.catalogues):
            if catalogue.remote:
                steps = np.arange(catalogue.clip.length) * catalogue.clip.stride
                for unit, start in np.stack(catalogue.locate(sample[dataset == k]), 1).tolist():
                    wanted.setdefault((k, unit), []).extend((start + steps).tolist())
        readers: list[tuple[Any, list[int]]] = [(self._reader(key), frames) for key, frames in wanted.items()]
        return [(reader, frames) for reader, frames in readers if not reader.has(frames, self.view.images)]

    def _fetch(self, lacking: Lacking) -> None:
        """Bring it into the cache, all at once: one waits for a server, not for each answer."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda item: item[0].prefetch(item[1], self.view.images), lacking))

    def _empty(self, rows: int) -> Batch:
        """Arrays to fill; what the first dataset's first video has is what every sample must have."""
        if self._shapes is None or self._labels is None:
            reader = self._reader((0, 0))
            missing = [c for c in self.view.images if c not in reader.modalities]
            if missing:
                raise StoreError(f"{self.catalogues[0].location}: " + unknown_name("modality", missing[0], reader.modalities))
            self._labels = Labels(self.view.labels, reader.row_dtype, self.view.objects)
            self._shapes = {c: self._image_shape(reader.array(c).info.shape[1:]) for c in self.view.images}
        images = {c: np.empty((rows, *shape), modality(c).dtype) for c, shape in self._shapes.items()}
        ids = {"video": np.empty(rows, np.int32), "frame": np.empty(rows, np.int32), "real": np.empty(rows, np.bool_)}
        return images | self._labels.empty(rows) | ids

    def _image_shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        if self.view.half:
            return (-(-whole[0] // 2), -(-whole[1] // 2), *whole[2:])
        return (*(self.view.crop or whole[:2]), *whole[2:])

    def _windows(self, noise: np.ndarray) -> list[Window] | None:
        """A window per sample. Datasets may differ in size, so the place is drawn as a fraction and fitted when read."""
        if self.view.crop is None:
            return None
        sizes = {c.size for c in self.catalogues}
        h, w = self.view.crop
        room = min(s[0] for s in sizes) - h, min(s[1] for s in sizes) - w
        if min(h, w) < 1 or min(room) < 0:
            raise StoreError(f"a crop of {w}×{h} does not fit into images of {' and '.join(f'{x}×{y}' for y, x in sorted(sizes))}")
        if self.view.centred:
            return [Window(room[0] // 2, room[1] // 2, h, w)] * len(noise)
        tops = (noise >> np.uint64(32)) % np.uint64(room[0] + 1)
        lefts = (noise & np.uint64(0xFFFFFFFF)) % np.uint64(room[1] + 1)
        return [Window(top, left, h, w) for top, left in zip(tops.tolist(), lefts.tolist(), strict=True)]

    def _read_sample(self, out: Batch, row: int, key: tuple[int, int], frames: np.ndarray, window: Window | None) -> None:
        assert self._labels is not None
        reader = self._reader(key)
        clip = len(frames)
        rows = range(row * clip, (row + 1) * clip)
        for name in self.view.images:
            part: Part | None = Half(modality(name).codec == "image") if self.view.half else window
            array = reader.array(name)
            target = out[name]
            if part is None and array.info.shape[1:] != target.shape[1:]:
                raise StoreError(f"{reader.directory}: images of {array.info.shape[1:3]}, others have {target.shape[1:3]}; give crop=")
            for i, frame in zip(rows, frames.tolist(), strict=True):
                if part is None:
                    array.read(frame, target[i])
                else:
                    array.read(frame, target[i], part=part)
        here = slice(rows.start, rows.stop)
        if self.view.labels:
            raw = reader.array(FRAMES).read_many(frames.tolist()).view(reader.row_dtype)[:, 0]
            image: Part | None = Half(True) if self.view.half else window
            self._labels.fill(out, here, raw, image, str(reader.directory))
        out["video"][here] = self.catalogues[key[0]].units[key[1]]["video"]
        out["frame"][here] = frames
        if key not in self._real:  # known for every video from then on: the group's metadata is long
            self._real[key] = reader.attributes["source"] == "real"
        out["real"][here] = self._real[key]
