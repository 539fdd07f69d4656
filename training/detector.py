"""The detector: one encoder whose features tell where the robot is and, to a fraction of a pixel, where its keypoints are."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from training.crops import covariance_to_image, pixel_scale, to_image
from training.models.backbone import Encoder, EncoderShape
from training.models.mask_head import MaskHead, mask_loss
from training.models.simcc import KeypointHead, KeypointLogits, axis_loss, calibrated, decode
from training.views import Views


@dataclass(frozen=True)
class DetectorConfig:
    """``size``: pixels of the square input; ``sigma_px``: of the labels, in the crop; the rest are widths."""

    keypoint_set: str = "panda15"
    size: int = 192
    sigma_px: float = 1.5
    encoder: EncoderShape = EncoderShape()
    token_width: int = 192


@dataclass
class Predicted:
    """Outputs of one pass: keypoints, logits (B, S/4, S/4) of the robot's mask, logit (B,) that a robot is in view."""

    keypoints: KeypointLogits
    mask: torch.Tensor
    robot: torch.Tensor


@dataclass
class Detections:
    """In image pixels: ``points_px`` (B, N, 2), ``covariance_px2`` (B, N, 2, 2); probabilities that

    the point is found there, ``confidence`` (B, N), is seen, ``seen`` (B, N), and that a robot is in view, ``robot`` (B,).
    """

    points_px: torch.Tensor
    covariance_px2: torch.Tensor
    confidence: torch.Tensor
    seen: torch.Tensor
    robot: torch.Tensor


class Detector(nn.Module):
    """(B, 3, S, S) normalised crops, last frame's points (B, N, 2) in crop pixels (nan: unknown) → `Predicted`."""

    def __init__(self, config: DetectorConfig, keypoints: int) -> None:
        super().__init__()
        self.config = config
        channels = config.encoder.neck
        self.encoder = Encoder(config.encoder)
        self.mask = MaskHead(channels)
        self.keypoints = KeypointHead(keypoints, channels, config.size, config.token_width)
        self.robot = nn.Linear(2 * channels, 1)
        self.calibration: torch.Tensor
        # Fitted after training, see `fit_calibration`; saved with the weights.
        self.register_buffer("calibration", torch.tensor([1.0, 0.25]))

    def forward(self, images: torch.Tensor, last_px: torch.Tensor | None = None) -> Predicted:
        fine, deep = self.encoder(images)
        summary = torch.cat([deep.mean((2, 3)), deep.amax((2, 3))], 1)
        return Predicted(self.keypoints(fine, deep, last_px), self.mask(fine).float(), self.robot(summary)[:, 0].float())


def detection_loss(predicted: Predicted, views: Views, sigma_px: float) -> dict[str, torch.Tensor]:
    """Terms of the loss and their sum ``loss``: keypoints that lie in the crop (hidden ones too), presence, mask, robot."""
    weight = views.inside.float()
    inside = torch.where(views.inside[..., None], views.points_px, 0.0)
    axes = axis_loss(predicted.keypoints.x, inside[..., 0], sigma_px) + axis_loss(predicted.keypoints.y, inside[..., 1], sigma_px)
    place = (axes * weight).sum() / weight.sum().clamp_min(1)
    wanted = torch.stack([views.inside, views.seen], -1).float()
    presence = F.binary_cross_entropy_with_logits(predicted.keypoints.presence, wanted)
    mask = mask_loss(predicted.mask, views.mask)
    robot = F.binary_cross_entropy_with_logits(predicted.robot, views.robot.float())
    total = place + 0.5 * presence + mask + 0.2 * robot
    return {"loss": total, "place": place.detach(), "presence": presence.detach(), "mask": mask.detach(), "robot": robot.detach()}


def detections(predicted: Predicted, A: torch.Tensor, sigma_px: float, calibration: torch.Tensor) -> Detections:
    """Outputs for crops A (B, 3, 3) in pixels of the images they were taken from.

    Confidence of a point: probability that it lies in the crop, times that near the peak of both axes, times that of a robot.
    """
    found = decode(predicted.keypoints, sigma_px)
    covariance = calibrated(found.covariance_px2, *calibration.tolist())
    robot, presence = torch.sigmoid(predicted.robot), torch.sigmoid(predicted.keypoints.presence)
    confidence = presence[..., 0] * found.mass * robot[:, None]
    points = to_image(found.points_px.double(), A)
    return Detections(points, covariance_to_image(covariance.double(), A), confidence, presence[..., 1], robot)


def fit_calibration(variance_px2: torch.Tensor, error_px: torch.Tensor, cut: float = 0.05) -> tuple[float, float]:
    """(factor, floor): a·v + b that best explains errors (M,) per axis whose predicted variance (M,) was v, in crop pixels.

    Maximum likelihood of N(0, a·v + b) on a grid; the ``cut`` largest errors are left out, they are for the robust loss.
    """
    rows = torch.arange(0, len(error_px), max(1, len(error_px) // 4000))  # thousands say enough
    error, variance = error_px.cpu()[rows].double(), variance_px2.cpu()[rows].double()
    kept = error.abs() <= torch.quantile(error.abs(), 1 - cut)
    v, e2 = variance[kept], error[kept] ** 2
    factors = torch.logspace(-1.5, 2.5, 41, dtype=torch.float64)
    floors = torch.logspace(-3, 3, 46, dtype=torch.float64)
    a, b = (g.reshape(-1, 1) for g in torch.meshgrid(factors, floors, indexing="ij"))
    s = a * v + b
    best = int((torch.log(s) + e2 / s).mean(1).argmin())
    return float(a[best]), float(b[best])


def detection_errors(predicted: Predicted, views: Views, sigma_px: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(errors, uncalibrated variances, image errors): per axis (M, 2) px of the crop, px² of it, and (M,) px of the image."""
    found = decode(predicted.keypoints, sigma_px)
    error = (found.points_px - views.points_px)[views.inside]
    variance = torch.diagonal(found.covariance_px2, dim1=-2, dim2=-1)[views.inside]
    scale = pixel_scale(views.A).to(error.dtype)[:, None].expand(views.inside.shape)[views.inside]
    return error, variance, error.norm(dim=-1) / scale
