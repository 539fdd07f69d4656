"""From a photo to 2D keypoints: a first look at the whole image, then a crop around the robot; or straight around the last frame's."""

from dataclasses import dataclass

import numpy as np
import torch

from training.crops import box_around, crop_photo, similarity, to_crop, to_image, whole_view
from training.detector import Detections, Detector, Predicted, detections
from training.errors import TrainingError
from training.models.backbone import fold_norms
from training.models.simcc import CELL

MARGIN = 1.25
"""Sides of the crop over the keypoints' extent, as in training."""
SURE = 0.2
"""Confidence above which a keypoint says where the robot is."""


@dataclass(frozen=True)
class Found:
    """One frame in image pixels, see `training.detector.Detections` for units: numpy, without the batch axis.

    ``A`` (3, 3) image → crop; ``mask`` (S/4, S/4) probability of the robot in the crop; ``looks`` passes of the network.
    """

    points_px: np.ndarray
    covariance_px2: np.ndarray
    confidence: np.ndarray
    seen: np.ndarray
    robot: float
    A: np.ndarray
    mask: np.ndarray
    looks: int


class Finder:
    """A trained detector made ready for single photos; bfloat16 where ``half`` (the decoding stays float32)."""

    def __init__(self, detector: Detector, half: bool = True, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        detector = detector.eval().requires_grad_(False).to(self.device)
        fold_norms(detector)
        self.detector: Detector = detector.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.config, self.half = detector.config, half
        self.calibration = detector.calibration.float().cpu()
        if half:
            # Weights once, instead of at every pass as autocast would.
            for part in (self.detector.encoder, self.detector.mask):
                part.to(torch.bfloat16)
            self.detector.robot.to(torch.bfloat16)
            self.detector.keypoints.map.to(torch.bfloat16)
            self.detector.keypoints.summary.to(torch.bfloat16)

    def find(self, image_rgb: np.ndarray, last_px: np.ndarray | None = None) -> Found:
        """Keypoints in a photo (H, W, 3) uint8, given those of the last frame (N, 2) px, nan where unknown, if there was one.

        Raises TrainingError for something that is no photo. A photo without a robot gives low confidences.
        """
        image = photo_tensor(image_rgb)
        if last_px is not None and np.isfinite(last_px).all(-1).sum() >= 3:
            last = torch.from_numpy(np.asarray(last_px, np.float64))
            found = self._look(image, self._around(last, torch.isfinite(last).all(-1)), last, 1)
            if found.robot > 0.5 and np.median(found.confidence) > SURE:
                return found
        height, width = image.shape[:2]
        size = self.config.size
        first = self._look(image, whole_view(height, width, size), None, 1)
        A = self._second_window(first, height, width)
        # The first look's points are no prior for the second: it would trust them too much (measured: 37 px against 30 px).
        return first if A is None else self._look(image, A, None, 2)

    def _look(self, image: torch.Tensor, A: torch.Tensor, last: torch.Tensor | None, looks: int) -> Found:
        crop = crop_photo(image, A, self.config.size)
        prior = None if last is None else to_crop(last, A).float()[None].to(self.device)
        predicted = self.predict(crop, prior)
        out = detections(predicted, A[None], self.config.sigma_px, self.calibration)
        return _found(out, predicted, A, looks)

    @torch.inference_mode()
    def predict(self, crops: torch.Tensor, last_px: torch.Tensor | None = None) -> Predicted:
        """The network on crops (B, 3, S, S); float32 outputs on the CPU."""
        kind = torch.bfloat16 if self.half else torch.float32
        out = self.detector(crops.to(self.device, kind).contiguous(memory_format=torch.channels_last), last_px)
        k = out.keypoints
        k.x, k.y, k.heat, k.presence = (v.float().cpu() for v in (k.x, k.y, k.heat, k.presence))
        return Predicted(k, out.mask.float().cpu(), out.robot.float().cpu())

    def _around(self, points_px: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        centre, side = box_around(points_px[None], used[None], MARGIN)
        return similarity(centre[0], side[0], self.config.size)

    def _second_window(self, first: Found, height: int, width: int) -> torch.Tensor | None:
        """Around the keypoints that the first look is sure of and the mask it saw; None where there is neither."""
        points, sure = torch.from_numpy(first.points_px), torch.from_numpy(first.confidence > SURE)
        rows, columns = np.nonzero(first.mask > 0.5)
        if len(rows) >= 4:
            # Single cells far off do not count.
            low, high = np.percentile(np.stack([columns, rows], 1), [2, 98], axis=0)
            cells = torch.from_numpy(np.stack([low, high]) * CELL + (CELL - 1) / 2)
            corners = to_image(cells, torch.from_numpy(first.A))
            points, sure = torch.cat([points, corners]), torch.cat([sure, torch.ones(2, dtype=torch.bool)])
        if int(sure.sum()) < 2:
            return None
        limit = torch.tensor([width - 1.0, height - 1.0], dtype=torch.float64)
        return self._around(torch.minimum(points.clamp_min(0), limit), sure)


def photo_tensor(image_rgb: np.ndarray) -> torch.Tensor:
    """Checked (H, W, 3) uint8. TrainingError says what was given instead."""
    image = np.asarray(image_rgb)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 16:
        raise TrainingError(
            f"an image of {image.dtype}{image.shape} was given; give RGB as uint8 (height, width, 3), 16 pixels or more a side"
        )
    return torch.from_numpy(np.ascontiguousarray(image))


def _found(out: Detections, predicted: Predicted, A: torch.Tensor, looks: int) -> Found:
    return Found(
        out.points_px[0].numpy(),
        out.covariance_px2[0].numpy(),
        out.confidence[0].double().numpy(),
        out.seen[0].double().numpy(),
        float(out.robot[0]),
        A.numpy(),
        torch.sigmoid(predicted.mask[0]).numpy(),
        looks,
    )
