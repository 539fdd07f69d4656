"""How well a detector finds keypoints in whole photos: as a stranger would use it, and given the last frame."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from training.finder import Finder, Found

PCK_LIMIT_PX = 20.0


def find_all(finder: Finder, frames: Mapping[str, Tensor], priors_px: np.ndarray | None = None) -> list[Found]:
    """Every photo of ``frames["rgb"]``; ``priors_px`` (F, N, 2) stands for the last frame."""
    return [finder.find(rgb.numpy(), None if priors_px is None else priors_px[i]) for i, rgb in enumerate(frames["rgb"])]


def disturbed(points_px: np.ndarray, sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    """Truth of this frame as a stand-in for the last frame's estimate: the whole robot and each point moved."""
    shift = rng.normal(size=(len(points_px), 1, 2)) + rng.normal(size=points_px.shape)
    return points_px + sigma_px * shift


def pck_auc(error_px: np.ndarray, limit_px: float = PCK_LIMIT_PX) -> float:
    """Area under the share of keypoints within a distance, 0 to ``limit_px``, in percent; exact, nan counts as a miss."""
    return float(100 * np.clip(1 - np.nan_to_num(error_px, nan=np.inf) / limit_px, 0, 1).mean())


def measure_found(found: list[Found], frames: Mapping[str, Tensor]) -> dict[str, float]:
    """Over keypoints inside the image (px of the image): errors, PCK, 90 % coverage of the covariances, the confidence's worth."""
    points = np.stack([f.points_px for f in found])
    inside = frames["keypoint_state"].numpy() > 0
    seen = frames["keypoint_state"].numpy() == 2
    error = points - frames["keypoints_px"].numpy()
    distance = np.linalg.norm(error, axis=-1)
    squared = np.einsum("fni,fnij,fnj->fn", error, np.linalg.inv(np.stack([f.covariance_px2 for f in found])), error)
    confidence = np.stack([f.confidence for f in found])
    sure = inside & (confidence > 0.5)
    return {
        "frames": float(len(found)),
        "keypoints": float(inside.sum()),
        "pck_auc_20px": pck_auc(distance[inside]),
        "pck_5px": float(100 * (distance[inside] < 5).mean()),
        "pck_10px": float(100 * (distance[inside] < 10).mean()),
        "median_px": float(np.median(distance[inside])),
        "median_seen_px": float(np.median(distance[seen])) if seen.any() else float("nan"),
        "axis_sigma_px": float(np.median(np.abs(error[inside])) / 0.6745),
        "coverage_90": float(100 * (squared[inside] < 4.605).mean()),
        "sure_share": float(100 * sure.sum() / inside.sum()),
        "sure_median_px": float(np.median(distance[sure])) if sure.any() else float("nan"),
        "sure_pck_10px": float(100 * (distance[sure] < 10).mean()) if sure.any() else float("nan"),
    }


def load_finder(path: str, half: bool = True) -> tuple[Finder, dict]:
    """Detector of a checkpoint, made ready, and what it was trained for. Raises TrainingError in one line."""
    from training import checkpoint
    from training.config import build
    from training.detector import Detector, DetectorConfig
    from training.errors import TrainingError

    found = checkpoint.read(path)
    if found.identity.get("recipe") != "detector":
        raise TrainingError(
            f"{found.path} holds a {found.identity.get('recipe', 'network')}, not a detector; give the detector's checkpoint"
        )
    config = build(DetectorConfig, found.config["task"]["detector"])
    with torch.random.fork_rng([]):
        detector = Detector(config, len(found.identity["keypoints"]))
    checkpoint.load_weights(detector, found, "ema")
    return Finder(detector, half), found.identity
