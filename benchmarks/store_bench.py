"""Measures what docs/benchmarks/store.md shows of reading, writing and loading: `python benchmarks/store_bench.py [DATASET]`.

Input: any rendered dataset (default out/hello, rendered when missing); its frames and their mirror images become the samples.
Times are CPU time of one process, and every ratio is of figures taken in turns in one process. The peers run in an
environment of their own, .venv-peers, made here at the first run; `--no-peers` leaves them out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.store_measures import against_oindex, against_zarr, million, parts_of_rgb, prepare, resuming, sizes, writing  # noqa: E402
from benchmarks.store_remote import remote  # noqa: E402
from benchmarks.store_samples import FIELDS  # noqa: E402

PEERS = ("webdataset==1.0.2", "pylance==14.0.2", "pyarrow==25.0.0", "torch==2.13.0", "h5py>=3.10", "transformers<5")
PEERS_TOO = ("pillow", "brotli", "python-snappy", "zstd", "xxhash", "tqdm", "pyyaml", "requests", "catalogue")
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
        met = "yes" if self.met else "**no**"
        return f"| {self.what} | {self.found:.4g} {self.unit} | {sign} {self.bar:g} {self.unit} | {met} | {self.note} |"


def peers(work: Path, rounds: int) -> dict[str, dict[str, float]]:
    """{peer: {direct, floor, peer: CPU ms per sample}} and {hdf5: {hdf5: {all, training: bytes per frame}}}."""
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


def proofs() -> list[Row]:
    """What the slow tests prove: they are run here, and a row tells what they found."""
    flips = "tests/store/test_repair.py::test_a_thousand_flipped_bits"
    kills = "tests/store/test_remote_kills.py::test_three_hundred_kills_over_every_point"
    rows = []
    for test, what, found, bar, note in (
        (flips, "random bit flips found and located", 1000, 1000, "anywhere in a dataset: by size and by file"),
        (f"{kills}[folder]", "SIGKILLs without a lost, doubled or torn video, folder", 300, 300, "over every named fail point"),
        (f"{kills}[bucket]", "SIGKILLs without a lost, doubled or torn video, bucket", 300, 300, "moto; over every named fail point"),
    ):
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", test]
        passed = subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
        rows.append(Row(what, found if passed else 0, bar, True, f"{note}: `{test.rpartition('/')[2]}`", ""))
    return rows


def measure(dataset: Path, work: Path, rounds: int, with_peers: bool) -> tuple[list[Row], list[str]]:
    """Rows of the table, and remarks."""
    videos = prepare(dataset, work)
    jpeg, count = against_zarr(work, "train", rounds)
    zstd, _ = against_zarr(work, "zstd", rounds)
    batch = against_oindex(videos, work, max(2, rounds // 2))
    rgb = parts_of_rgb(work, rounds)
    size = sizes(videos, work)
    writes = {frames: writing(videos, work, rounds, frames) for frames in (48, 3)}
    resume_ms, wrong = resuming(dataset)
    start = million(work)
    far = remote(videos, work)
    ms = "CPU ms per sample"

    def against(found: dict[str, float], name: str) -> str:
        return f"{found[name]:.2f} against {found['direct']:.2f} {ms}"

    def kilobytes(a: float, b: float) -> str:
        return f"{a / 1e3:.0f} of {b / 1e3:.0f} kB per frame"

    floor = f"{jpeg['direct']:.2f}, floor {jpeg['floor']:.2f} {ms}"
    crop_256 = f"{rgb['crop']:.2f} CPU ms; 256×256: {rgb['whole'] / rgb['crop 256']:.2f} ×"
    worlds = f"wall time to the first batch's samples; {20 - wrong} of 20 random worlds bit-identical"
    rows = [
        Row("random read of all training fields: the decode-only floor over it", jpeg["floor"] / jpeg["direct"], 0.95, True, floor),
        Row("zarr-python single reads, JPEG mix, over ours", jpeg["zarr"] / jpeg["direct"], 3, True, against(jpeg, "zarr")),
        Row("zarr-python single reads, zstd, over ours", zstd["zarr"] / zstd["direct"], 5, True, against(zstd, "zarr")),
        Row("zarr-python `oindex` of 32 over ours", batch["oindex"] / batch["direct"], 20, True, against(batch, "oindex")),
        Row("RGB: whole over half resolution", rgb["whole"] / rgb["half"], 1.6, True, f"{rgb['whole']:.2f}, {rgb['half']:.2f} CPU ms"),
        Row("RGB: whole over a random 224×224 crop", rgb["whole"] / rgb["crop"], 2.5, True, crop_256),
        Row("store size over raw, all modalities", size["all"] / size["raw"], 0.25, False, kilobytes(size["all"], size["raw"])),
        Row("RGB quality", size["psnr_db"], 38, True, "depth, masks, normals, coordinates compared bit by bit", "dB"),
        Row("resume from a state", resume_ms, 50, False, worlds, "ms"),
        Row("start-up, 1 M samples in 10 000 videos: time", start["s"], 1, False, "bare process to a batch's places, with imports", "s"),
        Row("start-up, 1 M samples: peak memory", start["mb"], 64, False, "whole process, Python and numpy included", "MB"),
    ]
    for kind, bar in (("warm", 0.95), ("cold", 0.70)):
        detail = f"{far[kind]:.0f} against {far['local']:.0f} samples per s of wall time; batches of 32 from our own range server"
        rows.append(Row(f"loading from a bucket 30 ms away, {kind} cache, over local disk", far[kind] / far["local"], bar, True, detail))
    rows += proofs()
    for frames, w in writes.items():
        detail = f"{w['write']:.1f}, {w['encode']:.1f} CPU ms per frame, all modalities"
        rows.append(Row(f"direct writer over encoding alone, videos of {frames} frames", w["write"] / w["encode"], 1.15, False, detail))
    for name, f, bar in (("JPEG mix", jpeg, 3), ("zstd", zstd, 5)):
        detail = f"{f['zarr 4']:.2f} against {f['direct 4']:.2f} {ms}"
        rows.append(Row(f"the same without mask_object: zarr-python, {name}, over ours", f["zarr 4"] / f["direct 4"], bar, True, detail))
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
        for kind, label in (("training", "training fields"), ("all", "all modalities, with the record of the scene")):
            theirs = found["hdf5"][kind]
            what = f"store size over BlenderProc-style gzip HDF5, {label}"
            rows.append(Row(what, size[kind] / theirs, 0.42, False, kilobytes(size[kind], theirs)))
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
* Half resolution reads the half-size image that the codec stores behind each frame (about a seventh of its bytes).
"""
    return head + table + notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", nargs="?", type=Path, default=ROOT / "out" / "hello")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "store.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, remarks = measure(args.dataset, Path(folder), args.rounds, not args.no_peers)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page(rows, remarks))
    for row in rows:
        sys.stdout.write(row.markdown() + "\n")


if __name__ == "__main__":
    main()
