"""Throughput of the loader from a bucket 30 ms away, cold and warm, against local disk: `remote(videos, work)`.

Run as a program, `python benchmarks/store_remote.py DATASET`, it reads one epoch and prints samples per second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

DELAY_S = 0.03
BATCH = 32
COLUMNS = ("rgb", "depth_sim", "mask_link", "mask_object", "K", "T_cam_base", "joint_position")
FRAMES_PER_VIDEO = 60


def epoch(location: str) -> float:
    """Samples per second of one shuffled epoch, from the first batch asked for to the last one had."""
    from dataengine.store.catalogue import open_catalogue
    from dataengine.store.iterator import Batches, View

    batches = Batches([open_catalogue(location)], View(COLUMNS), BATCH, seed=1)
    begin = time.perf_counter()
    samples = sum(len(b["frame"]) for b in batches)
    return samples / (time.perf_counter() - begin)


@contextmanager
def served(folder: Path, delay_s: float) -> Iterator[dict[str, str]]:
    """Variables that make `s3://bench/…` the folder, behind a server with this delay."""
    command = [sys.executable, str(ROOT / "benchmarks" / "range_server.py"), str(folder), str(delay_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        yield {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    finally:
        server.terminate()
        server.wait(10)


def remote(videos: Sequence, work: Path, rounds: int = 8) -> dict[str, float]:
    """Best samples per second of several rounds taken in turns: {local, cold, warm}. `videos`: record.video.Video."""
    from benchmarks.store_measures import lengthened
    from dataengine.store.dataset import open_or_create

    folder = work / "remote" / "data"
    shutil.rmtree(folder, ignore_errors=True)
    dataset = open_or_create(folder, {"name": "bench", "codecs": "train"}, "0" * 64, "bench", planned=len(videos))
    for number, video in enumerate(videos):
        dataset.add(number, lengthened(video, FRAMES_PER_VIDEO), "train")
    dataset.write_manifest()
    best = {"local": 0.0, "cold": 0.0, "warm": 0.0}

    def measured(location: str, home: Path, variables: dict[str, str]) -> float:
        command = [sys.executable, str(Path(__file__)), location]
        environment = os.environ | variables | {"HOME": str(home)}
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

    with served(folder.parent, DELAY_S) as variables:
        for number in range(rounds):
            home = work / "remote" / f"home {number}"
            best["local"] = max(best["local"], measured(str(folder), home, {}))
            for kind in ("cold", "warm"):  # the second reading finds what the first one left
                best[kind] = max(best[kind], measured("s3://bench/data", home, variables))
            shutil.rmtree(home, ignore_errors=True)
    return best


if __name__ == "__main__":
    print(epoch(sys.argv[1]))
