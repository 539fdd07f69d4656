import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from dataengine.errors import StoreError
from tests.store.synthetic import new_dataset, synthetic_video
from training.data import Loader, Samples, Tensors

COLUMNS = ("rgb", "depth_sim", "K", "T_cam_base")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A rendered one of 21 frames and a real one of 9."""
    out = []
    for k, (source, counts) in enumerate((("rendered", (8, 6, 7)), ("real", (4, 5)))):
        dataset = new_dataset(tmp_path_factory.mktemp(source) / "d", str(k) * 64)
        for i, frames in enumerate(counts):
            dataset.add(i, replace(synthetic_video(10 * k + i, frames, modalities=COLUMNS[:2]), source=source), "train")
        dataset.write_manifest()
        out.append(dataset.path)
    return out


def digest(batch: Tensors) -> str:
    return hashlib.sha256(b"".join(name.encode() + batch[name].numpy().tobytes() for name in sorted(batch))).hexdigest()


def test_rendered_and_real_mix(datasets: list[Path]) -> None:
    loader = Loader(datasets, COLUMNS, 4, repeats=(1, 2), workers=2)
    batches = list(loader)
    assert len(batches) == 10 and isinstance(batches[0]["rgb"], torch.Tensor)
    seen = [(int(d), int(v), int(f)) for b in batches for d, v, f in zip(b["dataset"], b["video"], b["frame"], strict=True)]
    rendered = [s for s in seen if s[0] == 0]
    assert sorted(rendered) == [(0, v, f) for v, n in enumerate((8, 6, 7)) for f in range(n)]
    assert sorted(s for s in seen if s[0] == 1) == sorted(2 * [(1, v, f) for v, n in enumerate((4, 5)) for f in range(n)])
    for b in batches:
        assert torch.equal(b["real"], b["dataset"] == 1)
    for row, (k, v, f) in zip(batches[0]["rgb"], seen, strict=False):
        video = synthetic_video(10 * k + v, ((8, 6, 7), (4, 5))[k][v], modalities=COLUMNS[:2])
        assert np.array_equal(row.numpy(), video.images["rgb"][f])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_batches(datasets: list[Path], start_method: str) -> None:
    wanted = [digest(b) for b in Loader(datasets, COLUMNS, 4)]
    for workers in (1, 3) if start_method == "fork" else (2,):
        loader = Loader(datasets, COLUMNS, 4, workers=workers, start_method=start_method)
        assert [digest(b) for b in loader] == wanted
        assert loader.state_dict()["epoch"] == 1


def test_the_state_is_of_what_was_handed_out_not_of_what_was_read_ahead(datasets: list[Path]) -> None:
    wanted = [digest(b) for b in Loader(datasets, COLUMNS, 4, seed=5)]
    loader = Loader(datasets, COLUMNS, 4, seed=5, workers=2)
    got = []
    for b in loader:
        got.append(digest(b))
        if len(got) == 3:
            break
    other = Loader(datasets, COLUMNS, 4, seed=5, workers=1)
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert len(other) == 5
    assert got + [digest(b) for b in other] == wanted
    with pytest.raises(StoreError, match="this loader draws from"):
        Loader(datasets[:1], COLUMNS, 4, seed=5).load_state_dict(loader.state_dict())


def test_map_style_with_torch_s_own_samplers(datasets: list[Path]) -> None:
    samples = Samples(Loader(datasets, COLUMNS, 4, crop=(6, 6)).batches)
    assert len(samples) == 30
    assert int(samples[0]["frame"]) == 0 and not samples[0]["real"] and samples[29]["real"]
    generator = torch.Generator().manual_seed(0)
    batched = DataLoader(samples, batch_size=7, sampler=RandomSampler(samples, generator=generator), num_workers=2)
    got = {(int(d), int(v), int(f)) for b in batched for d, v, f in zip(b["dataset"], b["video"], b["frame"], strict=True)}
    assert len(got) == 30
    assert torch.equal(samples[7]["window"], samples.__getitems__([3, 7])[1]["window"])
    assert len(list(BatchSampler(range(30), 7, False))) == 5
    for index in (-1, 30):
        with pytest.raises(IndexError):
            samples[index]


TRAINER = """
import hashlib, json, os, sys
from pathlib import Path
from training.data import Loader
log, world, workers, *paths = sys.argv[1:]
log, world = Path(log), int(world)
ranks = [Loader(paths, ("rgb", "depth_sim", "K"), 5, seed=3, crop=(8, 8), rank=r, world=world, workers=int(workers)) for r in range(world)]
lines = log.read_text().splitlines() if log.exists() else []
if lines:
    for rank in ranks:
        rank.load_state_dict(json.loads(lines[-1])["state"])
with open(log, "a") as file:
    while ranks[0].state_dict()["epoch"] < 3:
        for parts in zip(*ranks, strict=True):
            names = sorted(parts[0])
            content = b"".join(p[n].numpy().tobytes() for n in names for p in parts)
            entry = {"batch": hashlib.sha256(content).hexdigest(), "state": ranks[0].state_dict()}
            file.write(json.dumps(entry) + "\\n")
            file.flush()
            os.fsync(file.fileno())
"""


def train(log: Path, world: int, workers: int, datasets: list[Path]) -> subprocess.Popen:
    arguments = [str(log), str(world), str(workers), *map(str, datasets)]
    return subprocess.Popen([sys.executable, "-c", TRAINER, *arguments], cwd=ROOT, start_new_session=True)


@pytest.mark.slow
def test_sigkill_and_other_numbers_of_ranks_and_workers(datasets: list[Path], tmp_path: Path) -> None:
    """Seven workers are killed, three go on: the log is that of a run that nobody disturbed."""
    assert train(tmp_path / "calm", 1, 0, datasets).wait(120) == 0
    wanted = [json.loads(line)["batch"] for line in (tmp_path / "calm").read_text().splitlines()]
    assert len(wanted) == 18
    log = tmp_path / "storm"
    for world, workers, until in ((1, 7, 4), (1, 3, 8), (4, 0, 12), (2, 1, 15)):
        process = train(log, world, workers, datasets)
        deadline = time.monotonic() + 100
        while not (log.exists() and len(log.read_text().splitlines()) >= until) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = log.read_text()
    log.write_text(text[: text.rfind("\n") + 1])  # a line that was being written when the kill came is not a checkpoint
    assert train(log, 1, 3, datasets).wait(120) == 0
    assert [json.loads(line)["batch"] for line in log.read_text().splitlines()] == wanted


GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden}:
            raise ImportError(name + " must not be imported here")
sys.meta_path.insert(0, Guard())
"""


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        (
            "training.data",
            {"zarr", "pydantic", "h5py", "ray", "cv2", "scipy", "trimesh", "bpy", "matplotlib", "av", "numba", "PIL", "yaml"},
        ),
        ("dataengine.store.iterator", {"torch", "zarr", "pydantic", "h5py", "ray", "cv2", "scipy", "trimesh", "obstore", "yaml"}),
    ],
)
def test_reading_needs_few_packages(module: str, forbidden: set[str], datasets: list[Path]) -> None:
    read = """
from dataengine.store.catalogue import open_catalogue
from dataengine.store.iterator import Batches, View
assert len(next(iter(Batches([open_catalogue(sys.argv[1])], View(("rgb", "K")), 4)))["rgb"]) == 4
"""
    code = GUARD.format(forbidden=sorted(forbidden)) + f"import {module}\n" + read
    subprocess.run([sys.executable, "-c", code, str(datasets[0])], check=True, cwd=ROOT)
