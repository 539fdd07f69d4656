"""Scores of an annotated capture against its exact truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from annotators.baseline import BaselineSolution
from annotators.types import CameraTrack, Solution
from dataengine.geometry import se3

Array = np.ndarray
APART = 5
"""Relative poses are taken between frames this many apart."""


def true_scale(track: CameraTrack, truth: dict[str, Any]) -> float | None:
    """Metres per unit of structure from motion that fits the true camera positions best (Umeyama 1991); None for a resting camera."""
    posed = track.posed
    a = track.T_world_cam[posed][:, :3, 3]
    b = truth["T_world_cam"][posed][:, :3, 3]
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    if np.linalg.norm(b, axis=1).max() < 0.01 or np.linalg.norm(a) < 1e-9:
        return None
    U, S, Vt = np.linalg.svd(b.T @ a)
    return float(np.sum(S * [1, 1, np.linalg.det(U @ Vt)]) / np.sum(a**2))


def relative_pose(T: Array, truth: dict[str, Any]) -> dict[str, float]:
    """Median error of camera motion over five frames: millimetres and degrees."""
    found = se3.inverse(T[:-APART]) @ T[APART:]
    true = se3.inverse(truth["T_world_cam"][:-APART]) @ truth["T_world_cam"][APART:]
    good = np.isfinite(found[:, 0, 0])
    gap = np.swapaxes(found[good, :3, :3], 1, 2) @ true[good, :3, :3]
    sine = np.stack([gap[:, 2, 1] - gap[:, 1, 2], gap[:, 0, 2] - gap[:, 2, 0], gap[:, 1, 0] - gap[:, 0, 1]], -1) / 2
    length = np.linalg.norm(found[good, :3, 3] - true[good, :3, 3], axis=1)
    return {"mm": _median(1e3 * length), "deg": _median(np.degrees(np.linalg.norm(sine, axis=1)))}


def keypoint_errors_mm(keypoints_cam_m: Array, truth: dict[str, Any]) -> Array:
    """(N, K) distances; NaN where a frame has no pose."""
    return 1e3 * np.linalg.norm(keypoints_cam_m - truth["keypoints_cam_m"], axis=-1)


def score(solution: Solution, track: CameraTrack, truth: dict[str, Any]) -> dict[str, Any]:
    """Everything the page shows of one solve; errors over accepted frames."""
    use = solution.accepted
    errors = keypoint_errors_mm(solution.keypoints_cam_m, truth)[use]
    difference = (solution.keypoints_cam_m - truth["keypoints_cam_m"])[use]
    sigma = np.sqrt(np.einsum("nkii->nki", solution.keypoint_covariance))[use]
    joints = np.degrees(np.abs(solution.joints_rad - truth["joint_position"]))[use][:, :7]
    scale = true_scale(track, truth)
    return {
        "keypoints_mm": {"median": _median(errors), "p95": _quantile(errors, 0.95)},
        "joints_deg": {"median": _median(joints), "p95": _quantile(joints, 0.95)},
        "scale_percent": None if scale is None else 100 * (solution.metres_per_unit / scale - 1),
        "relative_pose": relative_pose(solution.T_world_cam, truth),
        "within_sigma": {"count": int((np.abs(difference) < sigma).sum()), "of": int(difference.size)},
        "sigma_mm": _median(1e3 * sigma),
        "accepted": float(use.mean()),
        "time_offset_ms": 1e3 * solution.time_offset_s,
        "depth_scale": solution.depth_scale,
        "scales": [
            {
                "source": s.source,
                "percent": None if scale is None else 100 * (s.metres_per_unit / scale - 1),
                "sigma": 100 * s.sigma / s.metres_per_unit,
            }
            for s in solution.scales
        ],
        "flags": [{"kind": flag.kind, "text": flag.text} for flag in solution.flags],
    }


def score_baseline(found: BaselineSolution, track: CameraTrack, truth: dict[str, Any]) -> dict[str, Any]:
    """The same for the first-frame method."""
    errors = keypoint_errors_mm(found.keypoints_cam_m, truth)
    joints = np.degrees(np.abs(found.joints_rad - truth["joint_position"]))[:, :7]
    scale = true_scale(track, truth)
    return {
        "keypoints_mm": {"median": _median(errors), "p95": _quantile(errors, 0.95)},
        "joints_deg": {"median": _median(joints), "p95": _quantile(joints, 0.95)},
        "scale_percent": None if scale is None else 100 * (found.metres_per_unit / scale - 1),
    }


def colmap_alone(track: CameraTrack, truth: dict[str, Any]) -> dict[str, float] | None:
    """Relative pose of structure from motion itself, given the true scale."""
    scale = true_scale(track, truth)
    if scale is None:
        return None
    T = track.T_world_cam.copy()
    T[:, :3, 3] *= scale
    return relative_pose(T, truth)


def _median(values: Array) -> float:
    return _quantile(values, 0.5)


def _quantile(values: Array, share: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, share)) if finite.size else float("nan")
