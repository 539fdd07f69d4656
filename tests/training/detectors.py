"""Small detectors, batches and datasets for tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dataengine.record.video import Names, Video
from tests.store.synthetic import new_dataset, synthetic_video
from training import checkpoint
from training.config import Config
from training.detector import Detector, DetectorConfig
from training.models.backbone import EncoderShape
from training.recipes.detector import DetectorTask

MICRO = DetectorConfig("stored", 64, 1.5, EncoderShape((8, 8, 16, 16, 16), (1, 1, 1, 1), 16), 32)
HEIGHT, WIDTH = 72, 96
PLACES = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.1), (0.05, 0.0, 0.0), (0.0, 0.05, 0.0))


def labelled_video(seed: int, frames: int = 3, modalities: tuple[str, ...] = ("rgb", "mask_link")) -> Video:
    """A bright square on a dark ground is the robot; its corners are the keypoints a, b, c, d."""
    rng = np.random.default_rng(seed)
    video = synthetic_video(seed, frames, (HEIGHT, WIDTH), modalities)
    ground = rng.integers(0, 100, (frames, 1, 1, 3))
    rgb, mask = (ground * np.ones((1, HEIGHT, WIDTH, 1))).astype(np.uint8), np.zeros((frames, HEIGHT, WIDTH), np.uint8)
    rows = video.frames.copy()
    for f in range(frames):
        left, top, side = int(rng.integers(8, 50)), int(rng.integers(8, 30)), int(rng.integers(18, 32))
        rgb[f, top : top + side + 1, left : left + side + 1] = (230, 120, 40)
        mask[f, top : top + side + 1, left : left + side + 1] = 1
        corners = np.array([[left, top], [left + side, top], [left, top + side], [left + side, top + side]], float)
        rows["keypoints_px"][f], rows["keypoint_state"][f] = corners, (2, 2, 2, 1)
        rows["K"][f] = [[80, 0, (WIDTH - 1) / 2], [0, 80, (HEIGHT - 1) / 2], [0, 0, 1]]
    images = video.images | {name: a for name, a in (("rgb", rgb), ("mask_link", mask)) if name in modalities}
    names = Names(video.names.joints, video.names.links, video.names.keypoints, (0, 3, 5, 8), PLACES, video.names.objects)
    return replace(video, images=images, frames=rows, names=names, provenance={"robot": {"name": "panda"}})


def labelled_dataset(path: Path, videos: int = 4, splits: tuple[str, ...] = ("train", "train", "train", "val"), **how) -> Path:
    dataset = new_dataset(path / "d")
    for i in range(videos):
        dataset.add(i, labelled_video(i, **how), splits[i])
    dataset.write_manifest()
    return dataset.path


def labelled_batch(count: int = 6) -> dict[str, torch.Tensor]:
    """As `training.detector_data.select` gives it."""
    video = labelled_video(0, count)
    batch = {name: torch.from_numpy(video.images[name]) for name in ("rgb", "mask_link")}
    return batch | {name: torch.from_numpy(video.frames[name].copy()) for name in ("keypoints_px", "keypoint_state")}


def save_detector(path: Path, identity: dict, config: DetectorConfig = MICRO) -> Path:
    """An untrained one as a checkpoint."""
    torch.manual_seed(0)
    detector = Detector(config, len(identity["keypoints"]))
    checkpoint.write(path, {"ema": detector.state_dict()}, Config("detector", DetectorTask(detector=config)).as_dict(), identity, 1)
    return path
