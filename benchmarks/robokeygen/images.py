"""The whole pipeline on rendered images of the cross-camera protocol, and its speed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from training.ablations import CAMERAS, Levels
from training.evaluate import evaluate, write
from training.predict import predict_dataset
from training.predictor import RobotPoseEstimator
from training.synthetic import Trial


def commands(root: Path, videos: int = 334) -> list[str]:
    """What renders the three sets: 334 videos of 3 frames are about 1000 frames per camera."""
    settings = f"--set videos={videos} --set render.quality=draft --set modalities=[rgb,mask_link]"
    return [f"dataengine render {preset} --out {root / preset} {settings}" for preset in CAMERAS]


def measure(estimator: RobotPoseEstimator, root: Path, out: Path, split: str | None, limit: int | None) -> tuple[Levels, int]:
    """Single-frame and online figures at each camera, reports below `out`; and the least number of frames of a camera.

    With a `limit` frames are spread over the videos and have no neighbours, so nothing is measured online.
    """
    levels, frames = Levels(), []
    for preset, fov in CAMERAS.items():
        for online in (False, True) if limit is None else (False,):
            truth, estimates, timed = predict_dataset(estimator, str(root / preset), split, limit, online)
            label = f"{'online' if online else 'single frame'}, {fov:g}°"
            levels.add(label, Trial(truth, estimates, 1e3 * float(timed.cpu_s.mean())))
            write(evaluate(truth, estimates, speed=timed.speed()), out / f"{preset}{'_online' if online else ''}")
            frames.append(len(truth))
    return levels, min(frames)


def measure_speed(estimator: RobotPoseEstimator, dataset: Path, videos: int) -> dict[str, Any]:
    """{"single frame": …, "online": …} of `speed_bench.measure`, and how busy the machine was."""
    from benchmarks.robokeygen import speed_bench

    clips = speed_bench.read_clips(str(dataset), videos)
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    return found | {("online" if online else "single frame"): speed_bench.measure(estimator, clips, online) for online in (False, True)}


def as_row(levels: Levels) -> dict[str, Any]:
    """The parts of a row that levels fill."""
    return {"metric": levels.metric, "ci95": levels.ci95, "details": levels.details}
