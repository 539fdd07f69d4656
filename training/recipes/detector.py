"""Training the detector: a recipe for `training.loop`, and its presets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.config import Config, LoopConfig, OptimConfig
from training.detector import Detector, DetectorConfig, detection_errors, detection_loss, fit_calibration
from training.detector_data import FrameBatches, has_split, keypoint_rows, open_frames, read_frames, stored_names
from training.distributed import Ranks
from training.models.backbone import EncoderShape
from training.models.mask_head import intersection_over_union
from training.views import PLAIN, ViewDraw, draw_views


@dataclass(frozen=True)
class DetectorTask:
    """``data``: datasets; ``split``: trained on ("" for all); ``validation``: split measured on ("" for none), up to ``frames``, of the
    first dataset that has it."""

    data: tuple[str, ...] = ()
    split: str = "train"
    validation: str = "val"
    frames: int = 200
    workers: int = 0
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    views: ViewDraw = field(default_factory=ViewDraw)


class DetectorRecipe:
    """What `training.loop` asks for. Opening it reads the first video of each dataset."""

    def __init__(self, task: DetectorTask) -> None:
        self.task = task
        self._probe = FrameBatches(task.data, 1, task.detector.keypoint_set, task.split or None)
        self._validation: dict[str, Tensor] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        config = self.task.detector
        return {
            "recipe": "detector",
            "robot": self._probe.robot,
            "keypoint_set": config.keypoint_set,
            "keypoints": list(self._probe.keypoints),
        }

    def model(self, generator: torch.Generator) -> nn.Module:
        with torch.random.fork_rng([]):
            torch.manual_seed(generator.initial_seed())
            # Weights stay contiguous: a fused optimizer reads a checkpoint's moments in memory order. Inputs alone decide the layout.
            return Detector(self.task.detector, len(self._probe.keypoints))

    def data(self, ranks: Ranks, batch: int) -> FrameBatches:
        task = self.task
        return FrameBatches(
            task.data, batch * ranks.world, task.detector.keypoint_set, task.split or None, 0, ranks.rank, ranks.world, task.workers
        )

    def loss(self, model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(generator.device.type, enabled=False):
            views = draw_views(batch, self.task.detector.size, self.task.views, generator)
        predicted = model(views.images.contiguous(memory_format=torch.channels_last), views.last_px)
        with torch.autocast(generator.device.type, enabled=False):
            parts = detection_loss(predicted, views, self.task.detector.sigma_px)
        return parts.pop("loss"), parts

    def validate(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """On crops around the true robot, without a prior. Fits the model's covariance calibration on the way.

        A few videos may all be in the split that is trained on: then nothing is measured, and `frames` 0 says so.
        """
        if not self.task.validation:
            return {}
        kept_back = [d for d in self.task.data if has_split(d, self.task.validation)]
        if not kept_back:
            return {"frames": 0.0}
        if self._validation is None:
            self._validation = self._kept_back(kept_back[0])
        return measure_crops(model, self._validation, self.task.detector, ranks.device)

    def _kept_back(self, location: str) -> dict[str, Tensor]:
        catalogue = open_frames(location, self.task.validation)
        rows = keypoint_rows(stored_names(catalogue), self.task.detector.keypoint_set, self._probe.robot)
        return read_frames(catalogue, rows, self.task.frames)


def measure_crops(
    model: nn.Module, frames: dict[str, Tensor], config: DetectorConfig, device: torch.device, batch: int = 32
) -> dict[str, float]:
    """Errors of a detector on crops around the true robot; sets its calibration to the one that fits these frames best."""
    generator = torch.Generator(device).manual_seed(0)
    errors, variances, distances, overlaps = [], [], [], []
    columns = ("rgb", "mask_link", "keypoints_px", "keypoint_state")
    for start in range(0, len(frames["rgb"]), batch):
        part = {name: frames[name][start : start + batch].to(device) for name in columns}
        views = draw_views(part, config.size, PLAIN, generator)
        with torch.no_grad():
            predicted = model(views.images.contiguous(memory_format=torch.channels_last))
        error, variance, distance = detection_errors(predicted, views, config.sigma_px)
        errors.append(error)
        variances.append(variance)
        distances.append(distance)
        overlaps.append(intersection_over_union(predicted.mask, views.mask))
    error, variance, distance = torch.cat(errors).flatten(), torch.cat(variances).flatten(), torch.cat(distances)
    if len(error) >= 30:
        calibration = model.get_buffer("calibration")
        calibration.copy_(torch.tensor(fit_calibration(variance, error)))
    return {
        "median_px": float(distance.median()),
        "mean_px": float(distance.mean()),
        "within_5px": float((distance < 5).float().mean()),
        "axis_sigma_px": float(error.abs().median() / 0.6745),
        "mask_iou": float(torch.cat(overlaps).mean()),
    }


SMALL, TINY = EncoderShape(), EncoderShape((16, 32, 64, 96, 128), (1, 1, 1, 1), 48)
LARGE = EncoderShape((48, 96, 192, 384, 512), (2, 3, 4, 2), 96)
STILL = ViewDraw(whole=0.3, empty=0.0, zoom=0.05, shift=0.03, turn_rad=0.0, photometric=0.0, cut_out=0.0, backgrounds=0.0)


def detector_config(preset: str, data: Sequence[str], keypoint_set: str = "panda15") -> Config:
    """Settings by name. `small`: 2 CPU cores, 15 minutes; `overfit`: 12 frames, 2 minutes; `gpu`: one H200-class card, 30 minutes."""
    tasks = {
        "small": DetectorTask(tuple(data), detector=DetectorConfig(keypoint_set), views=ViewDraw(prior_drop=0.5)),
        "overfit": DetectorTask(tuple(data), "", "", detector=DetectorConfig(keypoint_set, encoder=TINY), views=STILL),
        "gpu": DetectorTask(tuple(data), workers=12, detector=DetectorConfig(keypoint_set, 256, encoder=LARGE, token_width=256)),
    }
    schedules = {
        "small": (OptimConfig(2e-3, weight_decay=0.05, warmup=100, ema=0.998), LoopConfig(3000, 24, amp="bf16", validate_every=500)),
        "overfit": (OptimConfig(3e-3, warmup=20, ema=0.95), LoopConfig(160, 12, amp="bf16", log_every=20)),
        "gpu": (
            OptimConfig(2e-3, weight_decay=0.05, warmup=1000, ema=0.9995),
            LoopConfig(20_000, 256, amp="bf16", validate_every=2000, save_every=2000, check_every=50),
        ),
    }
    return Config("detector", tasks[preset], *schedules[preset])
