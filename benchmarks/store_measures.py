"""The measurements of store_bench.py that need no other environment than the project's."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.store_peers import READS, Ours
from benchmarks.store_samples import FIELDS, cpu_ms, mirrored, shards_in
from dataengine.record.modalities import modality
from dataengine.record.video import Video
from dataengine.store.catalogue import open_catalogue
from dataengine.store.codecs import Half, Window, codecs_for, parse_chain
from dataengine.store.commits import make_manifest, unit_name
from dataengine.store.files import json_bytes
from dataengine.store.iterator import Batches, View
from dataengine.store.shard import ShardReader, read_shard, write_shard
from dataengine.store.shard_file import open_array, write_array

ROOT = Path(__file__).resolve().parents[1]


def prepare(dataset: Path, work: Path) -> list[Video]:
    """Shards of the mirrored frames in three kinds of codecs under `work`: train, portable, zstd."""
    if not dataset.exists():
        subprocess.run([sys.executable, "-m", "dataengine.cli", "render", "hello", "--serial", "--out", str(dataset)], check=True)
    catalogue = open_catalogue(dataset)
    videos = [v for unit in range(len(catalogue.units)) for v in mirrored(catalogue.open(unit).video())]
    for number, video in enumerate(videos):
        for profile in ("train", "portable"):
            write_shard(work / profile / f"{number:04d}", video, profile)
        for name in FIELDS:
            reader = ShardReader(work / "train" / f"{number:04d}").array(name)
            info = reader.info
            values = video.images[name] if name in video.images else reader.read_many(range(len(reader)))
            (work / "zstd" / f"{number:04d}").mkdir(parents=True, exist_ok=True)
            plain = type(info)(info.shape, info.dtype, codecs_for("mask", info.dtype), info.fill, {}, info.axes)
            write_array(work / "zstd" / f"{number:04d}" / name, plain, values)
        (work / "zstd" / f"{number:04d}" / "zarr.json").write_bytes((work / "train" / f"{number:04d}" / "zarr.json").read_bytes())
    return videos


def against_zarr(work: Path, kind: str, rounds: int) -> tuple[dict[str, float], int]:
    """(CPU ms per sample of direct, floor, zarr singly, and `direct 4`, `zarr 4` without the second mask; number of samples)."""
    import zarr

    from dataengine.store.zarr_io import register_jpeg

    register_jpeg()
    ours = Ours(work / kind)
    arrays = [{n: zarr.open_array(str(shard / n), mode="r") for n in FIELDS} for shard in shards_in(work / kind)]
    four = tuple(n for n in FIELDS if n != "mask_object")

    def singly(names: tuple[str, ...]) -> int:
        for i in ours.draws:
            place = ours.places[i]
            for name in names:
                arrays[place.shard][name][place.frame]
        return READS

    bodies = {"direct": ours.direct, "floor": ours.floor, "zarr": lambda: singly(FIELDS)}
    bodies |= {"direct 4": lambda: ours.direct(four), "zarr 4": lambda: singly(four)}
    return cpu_ms(bodies, rounds), len(ours.places)


def against_oindex(videos: list[Video], work: Path, rounds: int) -> dict[str, float]:
    """One long array per field, as oindex works on one array: 32 random frames at once."""
    import zarr

    from dataengine.store.zarr_io import register_jpeg

    register_jpeg()
    names = [n for n in FIELDS if n in videos[0].images]
    folder = work / "long"
    folder.mkdir()
    for name in names:
        values = np.concatenate([v.images[name] for v in videos] * 3)[:100]
        info = ShardReader(work / "train" / "0000").array(name).info
        write_array(folder / name, type(info)(values.shape, info.dtype, info.codecs, info.fill, {}, info.axes), values)
    ours = {n: open_array(folder / n) for n in names}
    theirs = {n: zarr.open_array(str(folder / n), mode="r") for n in names}
    chosen = np.random.default_rng(1).permutation(len(ours[names[0]]))[:32]

    def direct() -> int:
        for name in names:
            ours[name].read_many(chosen.tolist())
        return len(chosen)

    def oindex() -> int:
        for name in names:
            theirs[name].oindex[chosen]
        return len(chosen)

    return cpu_ms({"direct": direct, "oindex": oindex}, rounds)


def parts_of_rgb(work: Path, rounds: int) -> dict[str, float]:
    """CPU ms of a whole colour image, its half size, a random 224×224 window and a 256×256 one, through the reader."""
    ours = Ours(work / "train")
    arrays = [r.array("rgb") for r in ours.readers]
    height, width = arrays[0].info.shape[1:3]
    rng = np.random.default_rng(2)

    def window(side: int) -> Callable[[], int]:
        places = [Window(int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side, side) for _ in ours.draws]

        def body() -> int:
            for i, part in zip(ours.draws, places, strict=True):
                arrays[ours.places[i].shard].read(ours.places[i].frame, part=part)
            return READS

        return body

    def whole(part: Half | None) -> Callable[[], int]:
        def body() -> int:
            for i in ours.draws:
                arrays[ours.places[i].shard].read(ours.places[i].frame, part=part)
            return READS

        return body

    side = min(224, height, width)
    return cpu_ms(
        {"whole": whole(None), "half": whole(Half(True)), "crop": window(side), "crop 256": window(min(256, height, width))}, rounds
    )


def sizes(videos: list[Video], work: Path) -> dict[str, float]:
    """Bytes per frame: `all` of a shard, `raw` arrays, `training` fields' files; `psnr_db` of rgb.

    Raises AssertionError where anything but colour and infrared differs by a bit.
    """
    total = {"all": 0, "training": 0, "raw": 0}
    errors = []
    for video, shard in zip(videos, shards_in(work / "train"), strict=True):
        back = read_shard(shard)
        for name, images in video.images.items():
            exact = back.images[name].tobytes() == images.tobytes()
            assert exact or modality(name).codec == "image", f"{name} is not exact"
            total["raw"] += images.nbytes
        errors.append(np.mean((back.images["rgb"].astype(float) - video.images["rgb"]) ** 2))
        total["raw"] += video.frames.nbytes
        total["all"] += sum(p.stat().st_size for p in shard.rglob("*") if p.is_file())
        total["training"] += sum(p.stat().st_size for name in FIELDS for p in (shard / name).iterdir())
    frames = sum(v.frame_count for v in videos)
    return {k: v / frames for k, v in total.items()} | {"psnr_db": float(10 * np.log10(255**2 / np.mean(errors)))}


def writing(videos: list[Video], work: Path, rounds: int, frames: int) -> dict[str, float]:
    """CPU ms per frame of the writer, files and fsync included, and of encoding alone; for a video of so many frames."""
    few = [lengthened(videos[0], frames)] * (48 // frames)
    count = sum(v.frame_count for v in few)
    number = iter(range(10**6))

    def write() -> int:
        for video in few:
            write_shard(work / f"written {frames}" / f"{next(number)}", video, "train")
        return count

    def encode() -> int:
        for video in few:
            for name, images in video.images.items():
                chain = parse_chain(codecs_for(modality(name).codec, images.dtype, images.ndim == 4, "train"))
                for image in images:
                    chain.encode(image)
        return count

    return cpu_ms({"write": write, "encode": encode}, max(2, rounds // 2))


def lengthened(video: Video, frames: int) -> Video:
    """The video's frames over and over."""
    again = np.arange(frames) % video.frame_count
    return replace(video, images={n: a[again] for n, a in video.images.items()}, frames=video.frames[again])


def resuming(dataset: Path) -> tuple[float, int]:
    """(ms of wall time from a saved state to the first batch's samples, worst of many; mismatches over random worlds)."""
    catalogue = open_catalogue(dataset)
    view, rng = View(("depth_sim", "K")), np.random.default_rng(3)
    wrong, worst = 0, 0.0
    for _ in range(20):
        batch, seed, world, cut = int(rng.integers(1, 8)), int(rng.integers(99)), int(rng.integers(1, 8)), int(rng.integers(0, 5))
        calm = Batches([catalogue], view, batch, seed)
        wanted = [b for _ in range(2) for b in calm]
        stream = Batches([catalogue], view, batch, seed)
        for _ in zip(range(cut), stream, strict=False):
            pass
        ranks = [Batches([catalogue], view, batch, seed, rank=r, world=world) for r in range(world)]
        for rank in ranks:
            start = time.perf_counter()
            rank.load(json.loads(json.dumps(stream.state())))
            epoch, place = rank.epoch, rank.place
            rank.order.take(epoch, *rank.share(*next(rank.steps(epoch, place))))
            worst = max(worst, time.perf_counter() - start)
        done = min(cut, len(list(calm.steps(0))))
        parts = [next(iter(rank)) for rank in ranks]
        whole = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
        wrong += any(whole[n].tobytes() != wanted[done][n].tobytes() for n in whole)
    return worst * 1e3, wrong


def million(work: Path) -> dict[str, float]:
    """Seconds from a bare process to the first batch's places, and peak memory, of 10 000 videos of 100 frames."""
    folder = work / "million"
    (folder).mkdir()
    entry = {"split": "train", "bytes": 10**7, "frames": 100, "size": [360, 640]}
    units = [entry | {"unit": unit_name(i), "video": i, "digest": f"{i:064x}", "shard": f"{unit_name(i)}-{i:012x}"} for i in range(10_000)]
    (folder / "manifest.json").write_bytes(json_bytes(make_manifest("million", "0" * 64, units)))
    head = {"format": "dataengine dataset", "schema_version": 1, "name": "million", "spec": {}, "spec_digest": "0" * 64}
    (folder / "dataset.json").write_bytes(json_bytes(head))
    code = (
        "import time; start = time.perf_counter()\n"
        "import sys, json, re\n"
        "from dataengine.store.catalogue import open_catalogue\n"
        "from dataengine.store.iterator import Batches, View\n"
        "b = Batches([open_catalogue(sys.argv[1])], View(('rgb', 'K')), 64)\n"
        "b.load(b.state_at(3, 500_000)); b.order.take(3, 500_000, 500_064)\n"
        "assert b.order.length(0) == 1_000_000\n"
        "seconds = time.perf_counter() - start\n"
        "peak_kb = int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "print(json.dumps({'s': seconds, 'mb': peak_kb / 1024}))\n"
    )
    command, alone = [sys.executable, "-c", code, str(folder)], os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    found = [json.loads(subprocess.run(command, check=True, capture_output=True, env=alone).stdout) for _ in range(3)]
    return {key: min(f[key] for f in found) for key in found[0]}
