"""The store's peers, run in an environment of their own: `python store_peers.py WEBDATASET|LANCE|MDS|HDF5 FOLDER ROUNDS`.

Every container holds the same encoded bytes of the same samples and decodes them with the same functions into the same
kind of buffers, so that the figures compare containers. Our reader runs beside each of them, in the same process.
Prints JSON: {name: CPU ms per sample}.
"""

import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.store_samples import FIELDS, buffers, cpu_ms, decode, decoders, payload, places, shards_in
from dataengine.store.shard import FRAMES, ShardReader, read_shard

READS = 192


class Ours:
    """The samples of our shards, and random reads of them."""

    def __init__(self, folder: Path) -> None:
        self.readers = [ShardReader(s) for s in shards_in(folder)]
        self.places = places(self.readers)
        images = {n: b for n, b in buffers(self.readers[0]).items() if n != FRAMES}
        self.buffers = [buffers(r) | images for r in self.readers]  # rows of labels differ in length
        self.chains = decoders(self.readers[0])
        self.samples = [payload(self.readers[p.shard], p.frame) for p in self.places]
        self.draws = np.random.default_rng(0).integers(len(self.places), size=READS).tolist()

    def direct(self, fields: tuple[str, ...] = FIELDS) -> int:
        for i in self.draws:
            place = self.places[i]
            reader = self.readers[place.shard]
            for name in fields:
                reader.array(name).read(place.frame, self.buffers[place.shard][name])
        return READS

    def decode(self, i: int, data: dict[str, Any]) -> None:
        """Encoded fields of sample i into its buffers."""
        decode(self.chains, data, self.buffers[self.places[i].shard])

    def floor(self) -> int:
        for i in self.draws:
            self.decode(i, self.samples[i])
        return READS


def webdataset(ours: Ours, work: Path) -> Callable[[], int]:
    """One tar, read from its beginning to its end."""
    import webdataset as wds

    path = work / "samples.tar"
    with wds.TarWriter(str(path)) as sink:
        for key, sample in enumerate(ours.samples * 4):
            sink.write({"__key__": f"{key:06d}"} | {f"{name}.bin": data for name, data in sample.items()})

    def body() -> int:
        count = 0
        for sample in wds.WebDataset(str(path), shardshuffle=False):
            ours.decode(count % len(ours.samples), {name: sample[f"{name}.bin"] for name in FIELDS})
            count += 1
        return count

    return body


def lance(ours: Ours, work: Path) -> Callable[[], int]:
    """`take` of one row at a time."""
    import lance as format
    import pyarrow

    table = pyarrow.table({name: pyarrow.array([s[name] for s in ours.samples], pyarrow.large_binary()) for name in FIELDS})
    dataset = format.write_dataset(table, str(work / "samples.lance"))

    def body() -> int:
        for i in ours.draws:
            row = dataset.take([i])
            ours.decode(i, {name: np.frombuffer(row[name][0].as_buffer(), np.uint8) for name in FIELDS})
        return READS

    return body


def mds(ours: Ours, work: Path) -> Callable[[], int]:
    """Random samples of a local StreamingDataset."""
    _pretend_torchvision()
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(work / "mds"), columns=dict.fromkeys(FIELDS, "bytes")) as out:
        for sample in ours.samples:
            out.write(sample)
    dataset = StreamingDataset(local=str(work / "mds"), shuffle=False, batch_size=1)

    def body() -> int:
        for i in ours.draws:
            ours.decode(i, dataset[i])
        return READS

    return body


def hdf5_bytes(folder: Path, work: Path) -> dict[str, float]:
    """Bytes per frame of BlenderProc's writer: a file per frame, every array gzip-compressed as h5py does by default.

    `all` modalities and `training` fields, both with the row of labels.
    """
    import h5py

    total, count = {"all": 0, "training": 0}, 0
    for shard in shards_in(folder):
        video = read_shard(shard)
        for frame in range(video.frame_count):
            for kind in total:
                path = work / "frame.hdf5"
                with h5py.File(path, "w") as file:
                    for name, images in video.images.items():
                        if kind == "all" or name in FIELDS:
                            file.create_dataset(name, data=images[frame], compression="gzip")
                    file.create_dataset(FRAMES, data=np.frombuffer(video.frames[frame].tobytes(), np.uint8), compression="gzip")
                total[kind] += path.stat().st_size
            count += 1
    return {kind: size / count for kind, size in total.items()}


def _pretend_torchvision() -> None:
    """mosaicml-streaming imports torchvision for datasets of its own that we do not use; its wheel needs a CUDA torch."""

    class Empty(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        module = sys.modules[name] = Empty(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None), []


def main() -> None:
    peer, folder, work, rounds = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    if peer == "hdf5":
        print(json.dumps(hdf5_bytes(folder, work)))
        return
    ours = Ours(folder)
    body = {"webdataset": webdataset, "lance": lance, "mds": mds}[peer](ours, work)
    print(json.dumps(cpu_ms({"direct": ours.direct, "floor": ours.floor, peer: body}, rounds)))


if __name__ == "__main__":
    main()
