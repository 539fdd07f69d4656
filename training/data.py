"""Datasets of the store as PyTorch datasets. Needs torch, numpy and the shard codecs' wheels; no zarr, no Ray.

loader = Loader(["out/rendered", "out/real"], columns=("rgb", "depth_sim", "K", "T_cam_base"), batch=64, repeats=(1, 4), workers=8)
loader.load_state_dict(torch.load("last.pt")["loader"])     # in the middle of an epoch, with any number of ranks and workers
for batch in loader:                                        # the rest of this epoch; the next `for` is the next epoch
    ...
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from dataengine.store.catalogue import Catalogue, Clip, open_catalogue
from dataengine.store.iterator import Batch, Batches, View

Tensors = dict[str, torch.Tensor]


def to_tensors(batch: Batch) -> Tensors:
    """The same numbers as tensors, without a copy."""
    return {name: torch.from_numpy(array) for name, array in batch.items()}


class Samples(Dataset[Tensors]):
    """Map-style: sample i in natural order, first dataset first, for samplers of your own. Crops are a function of (seed, i)."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.bounds = np.cumsum([0, *(len(c) for c in batches.catalogues)])

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, index: int) -> Tensors:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensors]:
        """Many at once, which is what DataLoader asks for."""
        chosen = np.asarray(indices, np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"samples 0 to {len(self) - 1} exist")
        dataset = np.searchsorted(self.bounds, chosen, "right") - 1
        noise = np.concatenate([self.batches.order.noise(0, int(i), int(i) + 1) for i in chosen])
        batch = to_tensors(self.batches.gather(dataset, chosen - self.bounds[dataset], noise))
        return [{name: tensor[i] for name, tensor in batch.items()} for i in range(len(chosen))]


class Stream(IterableDataset[Tensors]):
    """Iterable: whole batches of this rank from the loader's place to the end of its epoch; workers take turns.

    Give it to `DataLoader(…, batch_size=None)`, which returns the batches in order whatever the number of workers.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensors]:
        b, epoch = self.batches, self.batches.epoch
        worker = get_worker_info()
        turn, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        mine = list(b.steps(epoch, b.place))[turn::workers]
        yield from map(to_tensors, b.read_each(epoch, mine))


class Loader:
    """Epochs of batches over one or more datasets, resumable at any batch.

    `batch` counts the samples of all ranks together; `state_dict` describes the batches that were handed out, not those
    that workers read ahead, and goes with any number of ranks and workers. There is no state but that: nothing is shared
    between processes, and nothing needs cleaning up after a kill.
    """

    def __init__(
        self,
        datasets: Sequence[str | Path | Catalogue],
        columns: Sequence[str],
        batch: int,
        split: str | None = None,
        clip: Clip | None = None,
        half: bool = False,
        crop: tuple[int, int] | None = None,
        centred: bool = False,
        objects: int | None = None,
        workers: int = 0,
        start_method: str | None = None,
        pin_memory: bool = False,
        **options: Any,
    ) -> None:
        """`options`: repeats, seed, rank, world, shuffle, drop_last of `store.iterator.Batches`; the rest of its `View`."""
        catalogues = [d if isinstance(d, Catalogue) else open_catalogue(d, split, clip=clip) for d in datasets]
        self.batches = Batches(catalogues, View(tuple(columns), half, crop, centred, objects), batch, **options)
        # Connections to a bucket do not survive fork.
        self.start_method = start_method or ("spawn" if any(c.remote for c in catalogues) else None)
        self.workers, self.pin_memory = workers, pin_memory

    def __len__(self) -> int:
        """Batches left in this epoch."""
        return sum(1 for _ in self.batches.steps(self.batches.epoch, self.batches.place))

    def __iter__(self) -> Iterator[Tensors]:
        b = self.batches
        epoch = b.epoch
        steps = list(b.steps(epoch, b.place))
        start = self.start_method if self.workers else None
        loader = DataLoader(Stream(b), batch_size=None, num_workers=self.workers, pin_memory=self.pin_memory, multiprocessing_context=start)
        for (_, stop), batch in zip(steps, loader, strict=True):
            b.epoch, b.place = b.after(epoch, stop)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch starts; JSON of less than 200 bytes, equal on all ranks."""
        return self.batches.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last batch before `state_dict` was called. Raises StoreError for other data or another seed."""
        self.batches.load(state)
