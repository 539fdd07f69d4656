"""Measures what docs/benchmarks/store.md shows of reading, writing and loading: `python benchmarks/store_bench.py [DATASET]`.

Input: any rendered dataset (default out/hello, rendered when missing); its frames and their mirror images become the samples.
Times are CPU time of one process, and every ratio is of figures taken in turns in one process. The peers run in an
environment of their own, .venv-peers, made here at the first run; `--no-peers` leaves them out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.store_peers import READS, Ours  # noqa: E402
from benchmarks.store_samples import FIELDS, cpu_ms, mirrored, shards_in  # noqa: E402
from dataengine.record.modalities import modality  # noqa: E402
from dataengine.record.video import Video  # noqa: E402
from dataengine.store.catalogue import open_catalogue  # noqa: E402
from dataengine.store.codecs import Half, Window, codecs_for, parse_chain  # noqa: E402
from dataengine.store.commits import make_manifest, unit_name  # noqa: E402
from dataengine.store.files import json_bytes  # noqa: E402
from dataengine.store.iterator import Batches, View  # noqa: E402
from dataengine.store.shard import ShardReader, read_shard, write_shard  # noqa: E402
from dataengine.store.shard_file import write_array  # noqa: E402

PEERS = ("webdataset==1.0.2", "pylance==14.0.2", "pyarrow==25.0.0", "torch==2.13.0", "h5py>=3.10", "transformers<5")
PEERS_TOO = ("brotli", "python-snappy", "zstd", "xxhash", "tqdm", "pyyaml", "requests", "catalogue")
OURS = ("numpy>=1.26.4,<2", "numcodecs>=0.16", "google-crc32c>=1.5", "simplejpeg>=1.9")
NO_DEPENDENCIES = "mosaicml-streaming==0.13.0"  # declares torchvision, cloud SDKs and more that local reading does not use


@dataclass(frozen=True)
class Row:
    """A line of the table: what, measured, the bar, whether it is met."""

    what: str
    found: float
    bar: float
    at_least: bool
    note: str
    unit: str = "×"

    @property
    def met(self) -> bool:
        return self.found >= self.bar if self.at_least else self.found <= self.bar

    def markdown(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"| {self.what} | {self.found:.3g} {self.unit} | {sign} {self.bar:g} {self.unit} | {'yes' if self.met else '**no**'} | {self.note} |"


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


def against_zarr(work: Path, kind: str, rounds: int) -> tuple[dict[str, float], float]:
    """(CPU ms per sample of direct, floor, zarr singly, batch = zarr `oindex` of 32; samples)."""
    import zarr

    from dataengine.store.zarr_io import register_jpeg

    register_jpeg()
    ours = Ours(work / kind)
    arrays = [{n: zarr.open_array(str(shard / n), mode="r") for n in FIELDS} for shard in shards_in(work / kind)]

    def singly() -> int:
        for i in ours.draws:
            place = ours.places[i]
            for name in FIELDS:
                arrays[place.shard][name][place.frame]
        return READS

    return cpu_ms({"direct": ours.direct, "floor": ours.floor, "zarr": singly}, rounds), len(ours.places)


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
    from dataengine.store.shard_file import open_array

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


def sizes(videos: list[Video], work: Path) -> tuple[float, float, float]:
    """(train bytes per frame, raw bytes per frame, PSNR of rgb in dB). Raises AssertionError where depth or masks differ."""
    stored = raw = frames = 0
    errors = []
    for video, shard in zip(videos, shards_in(work / "train"), strict=True):
        back = read_shard(shard)
        for name, images in video.images.items():
            exact = back.images[name].tobytes() == images.tobytes()
            assert exact or modality(name).codec == "image", f"{name} is not exact"
            raw += images.nbytes
        errors.append(np.mean((back.images["rgb"].astype(float) - video.images["rgb"]) ** 2))
        raw += video.frames.nbytes
        stored += sum(p.stat().st_size for p in shard.rglob("*") if p.is_file())
        frames += video.frame_count
    return stored / frames, raw / frames, float(10 * np.log10(255**2 / np.mean(errors)))


def writing(videos: list[Video], work: Path, rounds: int) -> dict[str, float]:
    """CPU ms per frame of the writer, files and fsync included, and of encoding alone; for videos of 48 frames.

    The presets' videos have 3 (`hello`) to hundreds of frames; what a video costs once is shared by its frames.
    """
    few = [lengthened(videos[0], 48)]
    count = sum(v.frame_count for v in few)
    number = iter(range(10**6))

    def write() -> int:
        for video in few:
            write_shard(work / "written" / f"{next(number)}", video, "train")
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
    command = [sys.executable, str(Path(__file__).resolve()), "--start-up", str(folder)]
    found = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
    return {key: min(f[key] for f in found) for key in found[0]}


def start_up(folder: Path) -> None:
    """Body of `million`, in a process of its own; prints JSON."""
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
    os.execve(
        sys.executable, [sys.executable, "-c", code, str(folder)], os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    )


def peers(work: Path, rounds: int) -> dict[str, dict[str, float]]:
    """{peer: {direct, floor, peer: CPU ms per sample}} and {hdf5: {hdf5: bytes per frame}}."""
    python = _peers_python()
    found = {}
    for name, kind in (("webdataset", "train"), ("lance", "train"), ("mds", "train"), ("hdf5", "portable")):
        (work / name).mkdir()
        command = [str(python), str(ROOT / "benchmarks" / "store_peers.py"), name, str(work / kind), str(work / name), str(rounds)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _peers_python() -> Path:
    folder, python = ROOT / ".venv-peers", ROOT / ".venv-peers" / "bin" / "python"
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        (folder / ".gitignore").write_text("*\n")
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, *PEERS, *PEERS_TOO, *OURS], check=True)
        subprocess.run([*install, "--no-deps", NO_DEPENDENCIES], check=True)
        (folder / ".ready").touch()
    return python


def measure(dataset: Path, work: Path, rounds: int, with_peers: bool) -> tuple[list[Row], list[str]]:
    """Rows of the table, and remarks."""
    videos = prepare(dataset, work)
    jpeg, count = against_zarr(work, "train", rounds)
    zstd, _ = against_zarr(work, "zstd", rounds)
    batch = against_oindex(videos, work, max(2, rounds // 2))
    rgb = parts_of_rgb(work, rounds)
    stored, raw, psnr = sizes(videos, work)
    write = writing(videos, work, rounds)
    resume_ms, wrong = resuming(dataset)
    start = million(work)
    ms = "CPU ms per sample"
    rows = [
        Row("random read of all training fields, decode-only floor over it", jpeg["floor"] / jpeg["direct"], 0.95, True, f"{jpeg['direct']:.2f}, floor {jpeg['floor']:.2f} {ms}"),
        Row("zarr-python single reads, JPEG mix, over ours", jpeg["zarr"] / jpeg["direct"], 3, True, f"{jpeg['zarr']:.2f} against {jpeg['direct']:.2f} {ms}"),
        Row("zarr-python single reads, zstd, over ours", zstd["zarr"] / zstd["direct"], 5, True, f"{zstd['zarr']:.2f} against {zstd['direct']:.2f} {ms}"),
        Row("zarr-python `oindex` of 32 over ours", batch["oindex"] / batch["direct"], 20, True, f"{batch['oindex']:.1f} against {batch['direct']:.2f} {ms}"),
        Row("RGB: whole over half resolution", rgb["whole"] / rgb["half"], 1.6, True, f"{rgb['whole']:.2f}, {rgb['half']:.2f} CPU ms"),
        Row("RGB: whole over a random 224×224 crop", rgb["whole"] / rgb["crop"], 2.5, True, f"{rgb['crop']:.2f} CPU ms; 256×256: {rgb['whole'] / rgb['crop 256']:.2f} ×"),
        Row("store size over raw, all modalities", stored / raw, 0.25, False, f"{stored / 1e3:.0f} of {raw / 1e3:.0f} kB per frame"),
        Row("RGB quality", psnr, 38, True, "depth, masks, normals, coordinates compared bit by bit", "dB"),
        Row("direct writer over encoding alone", write["write"] / write["encode"], 1.15, False, f"{write['write']:.1f}, {write['encode']:.1f} CPU ms per frame of a video of 48, all modalities"),
        Row("resume from a state", resume_ms, 50, False, f"wall time to the first batch's samples; {20 - wrong} of 20 random worlds bit-identical", "ms"),
        Row("start-up, 1 M samples in 10 000 videos: time", start["s"], 1, False, "bare process to the places of a batch, imports included", "s"),
        Row("start-up, 1 M samples: peak memory", start["mb"], 64, False, "whole process, Python and numpy included", "MB"),
    ]  # fmt: skip
    remarks = [
        f"{count} samples (rendered frames and their mirror images), {videos[0].size[1]}×{videos[0].size[0]}; fields {', '.join(FIELDS)}."
    ]
    if with_peers:
        found = peers(work, rounds)
        for name, label, bar in (
            ("webdataset", "WebDataset, sequential", 0.85),
            ("lance", "Lance `take`", 0.75),
            ("mds", "MosaicML streaming", 1.0),
        ):
            f = found[name]
            rows.append(
                Row(f"ours, random, over {label}", f["direct"] / f[name], bar, False, f"{f['direct']:.2f} against {f[name]:.2f} {ms}")
            )
        rows.append(
            Row(
                "store size over BlenderProc-style gzip HDF5",
                stored / found["hdf5"]["hdf5"],
                0.42,
                False,
                f"{found['hdf5']['hdf5'] / 1e3:.0f} kB per frame",
            )
        )
    return rows, remarks


def page(rows: list[Row], remarks: list[str]) -> str:
    """docs/benchmarks/store.md."""
    head = "# The store: reading, writing, loading\n\nMade by `make bench-store`. CPU time of one process (user and system, all threads), "
    head += "the least of several rounds taken in turns; a bar that is missed says so.\n\n" + "\n".join(remarks) + "\n\n"
    table = "| measure | found | must | met | detail |\n|---|---|---|---|---|\n" + "\n".join(r.markdown() for r in rows)
    notes = """

How it is measured:
* *Floor*: the same chunks, their bytes in memory already, decoded without checksums into the same buffers.
* *Peers* hold the same encoded bytes and decode them with the same functions; ours runs beside each in the same process.
  So the figures compare containers. Our JPEGs carry restart markers, which costs every reader about 5 % of their decoding.
* mosaicml-streaming runs with an empty stand-in for torchvision, which it imports but does not use here.
* *zstd*: every field as plain zstd. *JPEG mix*: the profile `train`.
* Half resolution reads the half-size image that the codec stores behind each frame (about a fifth of the frame's bytes).
"""
    return head + table + notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", nargs="?", type=Path, default=ROOT / "out" / "hello")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "store.md")
    parser.add_argument("--start-up", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start_up:
        start_up(args.start_up)
    with tempfile.TemporaryDirectory() as folder:
        rows, remarks = measure(args.dataset, Path(folder), args.rounds, not args.no_peers)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page(rows, remarks))
    for row in rows:
        sys.stdout.write(row.markdown() + "\n")


if __name__ == "__main__":
    main()
