"""Measurements of whole runs: scaling, memory, forecast, infrared paths, start-up, a fresh clone, kills."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
PRESET = "simrgbd_franka"
SMALL = ("frames=1", "camera.width=320", "camera.height=180", "render.quality=draft")
"""Overrides that make a video cheap where only the machinery is measured."""


def run_videos(work: Path, overrides: Sequence[str], videos: Sequence[int], workers: int, name: str) -> Any:
    """Render these videos of the preset into a new dataset with `workers` local processes; the driver's Result."""
    from rich.console import Console

    from dataengine.commands.render import make_executor, open_dataset_of
    from dataengine.config.loader import load_spec
    from dataengine.render.driver import Callbacks, run_units
    from dataengine.render.progress import Progress
    from dataengine.worker import load_ready_robot

    with (work / f"{name}.log").open("w") as log:
        console = Console(file=log)
        spec = load_spec(PRESET, [*overrides, f"videos={max(videos) + 1}"])
        load_ready_robot(spec)
        shutil.rmtree(work / name, ignore_errors=True)
        dataset = open_dataset_of(spec, work / name, console)
        callbacks = Callbacks(request=lambda video: {"video": video, "dataset": str(dataset.path.resolve())})
        progress = Progress(len(videos), 0, spec.frames, None, console)
        return run_units(list(videos), make_executor(spec, workers, serial=True), spec.limits, progress, callbacks)


def measure_workers(work: Path, videos: int = 12) -> dict[str, Any]:
    """Throughput of 1 and of 2 pinned workers at `train` quality: workers over the mean wall time of a video beside each other.

    That is the rate of a long run; `whole_run_per_s` counts these few videos with the wait for the last one too.
    """
    rate, whole = {}, {}
    for workers in (1, 2):
        result = run_videos(work, ["render.quality=train"], range(videos), workers, f"workers {workers}")
        rate[workers] = workers / statistics.mean(c.wall_s for c in result.costs.values())
        whole[workers] = len(result.receipts) / (result.wall_s - result.startup_s)
    return {
        "videos": videos,
        "per_s": {str(k): v for k, v in rate.items()},
        "whole_run_per_s": {str(k): v for k, v in whole.items()},
        "ratio": rate[2] / rate[1],
    }


def measure_memory(work: Path, videos: int = 300) -> dict[str, Any]:
    """Peak resident memory of every video in one worker's life (one zygote, one fork per video)."""
    result = run_videos(work, SMALL, range(videos), 1, "memory")
    peaks = [result.costs[video].peak_rss_mb for video in sorted(result.costs)]
    blocks = [float(np.median(peaks[i : i + 30])) for i in range(0, len(peaks) - 29, 30)]
    after = blocks[1:]
    return {
        "videos": len(peaks),
        "median_mb_per_30_videos": blocks,
        "drift_after_30": max(abs(b / after[0] - 1) for b in after),
        "slope_mb_per_100_videos": float(np.polyfit(range(30, len(peaks)), peaks[30:], 1)[0] * 100),
    }


def measure_forecast(work: Path, videos: int = 60, pilot: int = 16, workers: int = 2) -> dict[str, Any]:
    """Forecast from a pilot against what all the videos then took."""
    from dataengine.render.plan import forecast, pilot_of, pilot_videos

    overrides = ["render.quality=draft"]
    measured = pilot_of(run_videos(work, overrides, pilot_videos(videos, pilot), workers, "pilot"))
    expected = forecast(measured, videos, 1, workers)
    result = run_videos(work, overrides, range(videos), workers, "all of the plan")
    actual = {
        "wall_s": result.wall_s,
        "cpu_hours": sum(c.cpu_s for c in result.costs.values()) / 3600,
        "bytes": sum(r["bytes"] for r in result.receipts.values()),
    }
    said = {"wall_s": expected.wall_s.expected, "cpu_hours": expected.cpu_hours.expected, "bytes": expected.bytes.expected}
    return {"videos": videos, "pilot": pilot, "forecast": said, "actual": actual, "error": {k: said[k] / actual[k] - 1 for k in said}}


def measure_infrared(work: Path, videos: int = 5, samples: tuple[int, int] = (16, 64)) -> dict[str, Any]:
    """Depth on the robot from the fast infrared pair and from the path-traced one: same scenes, dots, noise and matcher.

    A quarter of the image at full focal length. Path tracing adds an error of its own whose variance falls as 1/samples, so the
    converged error follows from two sample counts n and 4n: e∞² = e₄ₙ² − (eₙ² − e₄ₙ²)/3.
    """
    window = ["frames=1", "render.quality=draft", "camera.preset=free", "camera.fx_px=502.3", "camera.width=320", "camera.height=180"]
    few, many = samples
    paths = {"fast": ["depth_sensor.ir=fast"]}
    paths |= {f"cycles {n}": ["depth_sensor.ir=cycles", f"depth_sensor.ir_samples={n}"] for n in samples}
    out: dict[str, dict[str, float]] = {}
    for name, sensor in paths.items():
        run_videos(work, [*window, *sensor, "depth_sensor.speckle=0.25"], range(videos), 2, f"infrared {name}")
        out[name] = depth_on_robot(work / f"infrared {name}", videos)
    noisy, clean = out[f"cycles {few}"]["median_m"], out[f"cycles {many}"]["median_m"]
    converged = max(clean**2 - (noisy**2 - clean**2) / (many / few - 1), 0.0) ** 0.5
    ratio = {"valid": out["fast"]["valid"] / out[f"cycles {many}"]["valid"], "median_m": out["fast"]["median_m"] / converged}
    return {"videos": videos, "samples": list(samples), "paths": out, "converged_median_m": converged, "ratio": ratio}


def depth_on_robot(folder: Path, videos: int) -> dict[str, float]:
    """Share of the robot's pixels with a measurement, and the error of those, over all videos of a dataset."""
    from dataengine.store.dataset import open_dataset

    dataset = open_dataset(folder)
    errors, total = [], 0
    for video in range(videos):
        images = dataset.reader(video).video(("depth_z", "depth_sim", "mask_link")).images
        truth, seen = images["depth_z"].astype(np.float64), images["depth_sim"].astype(np.float64)
        robot = (images["mask_link"] > 0) & (truth > 0)
        total += int(robot.sum())
        errors.append(np.abs(seen - truth)[robot & (seen > 0)])
    error = np.concatenate(errors)
    return {"valid": len(error) / total, "median_m": float(np.median(error)), "p90_m": float(np.quantile(error, 0.9))}


def measure_help(_work: Path, repeats: int = 9) -> dict[str, Any]:
    """Seconds of `dataengine --help`."""
    command = [str(Path(sys.executable).parent / "dataengine"), "--help"]
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return {"median_s": statistics.median(times), "fastest_s": min(times)}


def measure_clone(_work: Path) -> dict[str, Any]:
    """`make setup`, then `make render`, in a fresh clone with the package cache as it is."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
        seconds = {}
        for target in ("setup", "render"):
            begin = time.perf_counter()
            subprocess.run(["make", "-s", target], cwd=folder, check=True, capture_output=True, env=environment)
            seconds[target] = time.perf_counter() - begin
        rendering_s = json.loads((Path(folder) / "out" / "hello" / "status.json").read_text())["elapsed_s"]
    return {"setup_s": seconds["setup"], "render_s": seconds["render"], "rendering_s": rendering_s, "all_s": sum(seconds.values())}


def measure_kills(work: Path, videos: int = 60, kills: int = 72) -> dict[str, Any]:
    """Random SIGKILLs over a run with Ray, and undisturbed runs with 1, 2 and 4 workers, by manifest digest.

    More kills are planned than the 60 that are wanted: the last ones come after the last video.
    """
    from dataclasses import asdict

    from benchmarks import kill_storm
    from dataengine.store.dataset import open_dataset

    binary = str(Path(sys.executable).parent / "dataengine")
    small = [option for override in (*SMALL, f"videos={videos}") for option in ("--set", override)]

    def command(name: str, *mode: str) -> list[str]:
        return [binary, "render", PRESET, "--out", str(work / name), "--no-report", *mode, *small]

    digests = {}
    for workers in (1, 2, 4):
        name = f"undisturbed {workers}"
        subprocess.run(command(name, "--serial", "--workers", str(workers)), check=True, capture_output=True)
        digests[str(workers)] = open_dataset(work / name).manifest()["digest"]
    shutil.rmtree(work / "storm", ignore_errors=True)
    target, kinds = work / "storm", kill_storm.KINDS
    attack = command("storm", "--workers", "2")
    storm = kill_storm.storm(attack, target, videos, kills, kinds, seed=0, pause_s=2.0, patience_s=30.0, wait_s=3600.0)
    kill_storm.audit(work / "storm", storm)
    faults = kill_storm.verdict(storm, videos, sorted(set(digests.values())))
    return {"videos": videos, "digests": digests, "storm": asdict(storm), "faults": faults}
