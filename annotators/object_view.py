"""Posed objects as a camera sees them: which one where, how deep, how much of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotators.anchor_surface import RobotShape, view_robot
from annotators.objects import PosedObject
from annotators.types import Array, Capture
from dataengine.geometry import se3


@dataclass(frozen=True, eq=False)
class ObjectView:
    """N objects in one frame: poses (N, 4, 4), silhouettes (N, H, W) of each alone, id (index + 1) and depth (H, W) of the nearest."""

    T_cam_object: Array
    whole: Array
    ids: Array
    depth_z_m: Array


def object_view(capture: Capture, T_world_cam: Array, f: int, objects: Sequence[PosedObject]) -> ObjectView:
    """The posed objects as the camera sees them where nothing else is."""
    width, height = capture.size
    T = se3.inverse(T_world_cam) @ np.array([o.solution.T_world_object[f] for o in objects]).reshape(-1, 4, 4)
    each = [
        view_robot(RobotShape(np.array([0]), (thing.mesh,)), T[[k]], capture.K, capture.size, 1).depth_z_m
        for k, thing in enumerate(objects)
    ]
    depth = np.array(each).reshape(-1, height, width)
    far = np.where(depth > 0, depth, np.inf)
    if not len(objects):
        return ObjectView(T, depth > 0, np.zeros((height, width), np.uint8), np.zeros((height, width)))
    nearest = far.min(axis=0)
    seen = np.isfinite(nearest)
    return ObjectView(T, depth > 0, np.where(seen, far.argmin(axis=0) + 1, 0).astype(np.uint8), np.where(seen, nearest, 0.0))


def object_visibility(shown: Array, things: ObjectView) -> Array:
    """(N,) share of each object's silhouette within the image that is seen."""
    alone = things.whole.sum(axis=(1, 2))
    seen = np.bincount(shown.ravel(), minlength=len(alone) + 1)[1 : len(alone) + 1]
    return np.where(alone > 0, seen / np.maximum(alone, 1), 0)
