"""A first guess from masks and a joint log alone, even where joints and pictures are paired wrongly.

The part of the picture that the robot covers in almost every frame is its base and shoulder. Its foot, a distance, a tilt and a yaw give a
pose; every logged configuration is drawn in that pose and compared with every mask, so the best one-to-one pairing of configurations with
pictures comes out with the pose (assignment by Kuhn 1955).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotators.anchor_state import exponential
from annotators.anchor_surface import RobotShape, robot_shape, view_robot
from dataengine.geometry import se3
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.model import RobotModel

Array = np.ndarray
DISTANCES_M, TILTS_DEG, YAWS = (0.85, 1.1, 1.45), (10.0, 28.0), 16
COARSE_PX, FINE_PX = 64, 128
"""Width of the picture that is searched, and that is refined."""
KEPT, ROUNDS, SAMPLES = 2, 5, 10


@dataclass(frozen=True, eq=False)
class Silhouette:
    """`T_cam_base` (4, 4) of a resting camera; `pairing[f]`: row of the configurations that picture f shows; mean `iou`."""

    T_cam_base: Array
    pairing: Array
    iou: float


def silhouette_start(model: RobotModel, q: Array, masks: Sequence[Array], K: Array, rng: np.random.Generator) -> Silhouette:
    """Pose of the base before a resting camera and the pairing of configurations q (n, D) with the masks (n of (H, W) bool)."""
    shape, links = robot_shape(model), forward_kinematics(model, q)
    foot = _foot(np.stack(masks))
    tries = [_judge(T, links, masks, K, shape, COARSE_PX) for T in _guesses(foot, K)]
    tries.sort(key=lambda one: -one.iou)
    best = max((_refine(one, links, masks, K, shape, rng) for one in tries[:KEPT]), key=lambda one: one.iou)
    return best


def _foot(masks: Array) -> Array:
    """Pixel (2,) at the bottom of what nearly all masks share."""
    share = masks.mean(axis=0)
    v, u = np.nonzero(share >= min(0.9, float(share.max())))
    low = v >= np.quantile(v, 0.97)
    return np.array([float(u[low].mean()), float(v.max())])


def _guesses(foot: Array, K: Array) -> list[Array]:
    ray = np.linalg.solve(K, np.append(foot, 1.0))
    out = []
    for distance in DISTANCES_M:
        for tilt in np.radians(TILTS_DEG):
            up = np.array([0.0, -np.cos(tilt), -np.sin(tilt)])
            level = np.stack([[1.0, 0.0, 0.0], np.cross(up, [1.0, 0.0, 0.0]), up], axis=1)
            for yaw in np.arange(YAWS) * 2 * np.pi / YAWS:
                out.append(se3.make(level @ se3.rotation_from_axis_angle((0.0, 0.0, 1.0), yaw), ray * distance))
    return out


def _judge(T: Array, links: Array, masks: Sequence[Array], K: Array, shape: RobotShape, width_px: int) -> Silhouette:
    """Best pairing at a pose, by the overlap of every configuration with every mask."""
    from scipy.optimize import linear_sum_assignment

    height, width = masks[0].shape
    stride = max(1, width // width_px)
    drawn = np.stack([view_robot(shape, T @ one, K, (width, height), stride).mask for one in links]).reshape(len(links), -1).astype(float)
    given = np.stack([mask[::stride, ::stride] for mask in masks]).reshape(len(masks), -1).astype(float)
    both = given @ drawn.T
    iou = both / np.maximum(given.sum(axis=1)[:, None] + drawn.sum(axis=1)[None] - both, 1)
    rows, columns = linear_sum_assignment(-iou)
    return Silhouette(T, columns[np.argsort(rows)], float(iou[rows, columns].mean()))


def _refine(start: Silhouette, links: Array, masks: Sequence[Array], K: Array, shape: RobotShape, rng: np.random.Generator) -> Silhouette:
    """Random steps, kept when they help and shortened round by round."""
    best = _judge(start.T_cam_base, links, masks, K, shape, FINE_PX)
    sigma = np.array([0.05, 0.05, 0.1, 0.1, 0.1, 0.1])
    for _ in range(ROUNDS):
        for _ in range(SAMPLES):
            trial = _judge(best.T_cam_base @ exponential(sigma * rng.normal(size=6)), links, masks, K, shape, FINE_PX)
            best = trial if trial.iou > best.iou else best
        sigma = sigma * 0.65
    return best
