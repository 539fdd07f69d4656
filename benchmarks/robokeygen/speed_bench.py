"""How long each stage takes from a 640 × 480 photo to a pose, one frame after the other as from a camera.

python -m benchmarks.robokeygen.speed_bench CHECKPOINT DATASET [--out FILE.json] [--threads 2]

Frames of the dataset's videos are brought to 640 × 480 (with K), encoded as JPEG, and read back frame by frame. Wall times
depend on what else the machine does, so CPU time of the process is given too; the slowest stages of a run are the medians.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 480
PASSES = 4
"""A clip of few frames is shown to and fro so often."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("dataset")
    parser.add_argument("--lifter")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--videos", type=int, default=8)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    from training.predictor import RobotPoseEstimator

    estimator = RobotPoseEstimator.load(given.checkpoint, given.lifter)
    clips = read_clips(given.dataset, given.videos)
    row = {
        "machine": platform.processor() or platform.machine(),
        "threads": given.threads,
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
        "multiply_adds_g": network_cost(estimator),
        "single frame": measure(estimator, clips, online=False),
        "online": measure(estimator, clips, online=True),
    }
    text = json.dumps(row, indent=1)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0


def read_clips(dataset: str, videos: int) -> list[tuple[list[bytes], np.ndarray]]:
    """(JPEG files, K) of videos at 640 × 480."""
    from dataengine.store.catalogue import open_catalogue

    catalogue = open_catalogue(dataset)
    clips = []
    for unit in range(min(videos, len(catalogue.units))):
        with catalogue.open(unit) as reader:
            count = catalogue.units[unit]["frames"]
            shown = [letterbox(reader.read("rgb", f)) for f in range(count)]
            K = np.array(reader.frames([0])["K"][0])
        height, width = catalogue.size
        K = fitted_camera(K, width, height)
        to_and_fro = [*shown, *shown[-2:0:-1]] * PASSES
        clips.append(([encode(image) for image in to_and_fro], K))
    return clips


def fitted_camera(K: np.ndarray, width: int, height: int) -> np.ndarray:
    """K of the image brought to 640 × 480 as `letterbox` does."""
    from dataengine.geometry.camera import crop_intrinsics, resize_intrinsics

    scale = min(WIDTH / width, HEIGHT / height)
    small = resize_intrinsics(K, scale, scale)
    return crop_intrinsics(small, -((WIDTH - round(width * scale)) // 2), -((HEIGHT - round(height * scale)) // 2))


def letterbox(image: np.ndarray) -> np.ndarray:
    """The image within 640 × 480, black around."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    size = round(width * scale), round(height * scale)
    small = image if size == (width, height) else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    top, left = (HEIGHT - size[1]) // 2, (WIDTH - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out


def encode(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    return file.getvalue()


def decode(file: bytes) -> np.ndarray:
    import simplejpeg

    return simplejpeg.decode_jpeg(file)


def measure(estimator: Any, clips: list[tuple[list[bytes], np.ndarray]], online: bool) -> dict[str, Any]:
    """Medians over frames (ms, and CPU ms), frames per second with and without decoding, and how frames were started."""
    samples: list[dict[str, float]] = []
    modes: dict[str, int] = {}
    for files, K in clips:
        last = None
        for number, file in enumerate(files):
            wall, cpu = time.perf_counter(), time.process_time()
            image = decode(file)
            middle, cpu_middle = time.perf_counter(), time.process_time()
            last = estimator(image, K, last if online else None)
            end, cpu_end = time.perf_counter(), time.process_time()
            if number == 0:
                continue  # caches fill, and online there is no last frame yet
            name = last.mode or last.status
            modes[name] = modes.get(name, 0) + 1
            stages = {f"{stage}_ms": 1e3 * spent for stage, spent in last.seconds.items()}
            samples.append(
                {"decode_ms": 1e3 * (middle - wall), "pose_ms": 1e3 * (end - middle), "pose_cpu_ms": 1e3 * (cpu_end - cpu_middle)}
                | {"decode_cpu_ms": 1e3 * (cpu_middle - cpu)}
                | stages
            )
    names = sorted({name for sample in samples for name in sample})
    medians = {name: float(np.median([s.get(name, 0.0) for s in samples])) for name in names}
    pose, reading = (float(np.mean([s[name] for s in samples])) for name in ("pose_ms", "decode_ms"))
    busy = float(np.mean([s["pose_cpu_ms"] + s["decode_cpu_ms"] for s in samples]))
    return {
        "frames": len(samples),
        "started": modes,
        "median": {k: round(v, 2) for k, v in medians.items()},
        "fps_without_decode": round(1e3 / pose, 1),
        "fps_with_decode": round(1e3 / (pose + reading), 1),
        "fps_by_cpu_time": round(1e3 / busy, 1),
    }


def network_cost(estimator: Any) -> float:
    """Multiply-adds of one look, in 10⁹."""
    import torch

    from training.detector import Detector
    from training.models.backbone import multiply_adds

    config = estimator.finder.config
    size = config.size
    return round(multiply_adds(Detector(config, len(estimator.chain)).eval(), [torch.zeros(1, 3, size, size)]) / 1e9, 3)


if __name__ == "__main__":
    raise SystemExit(main())
