"""Where the robot is during a clip, as points: what cameras must see and things must keep clear of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.geometry import se3
from dataengine.robot.collision import CollisionModel, load_collision_model
from dataengine.robot.keypoints import KeypointSet, keypoint_union
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.model import RobotModel

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RobotSweep:
    """World frame, m: keypoints_m (F,P,3); surface_m (F,S,3), which covers the robot's surface within `cover_m`."""

    keypoints_m: Array
    surface_m: Array
    cover_m: float

    @property
    def middle_m(self) -> Array:
        """Centre (3,) of the box around the robot over the whole clip."""
        points = self.surface_m.reshape(-1, 3)
        return (points.min(0) + points.max(0)) / 2


collision_of: Callable[[RobotModel], CollisionModel] = lru_cache(maxsize=8)(load_collision_model)
"""Collision model of a robot, loaded once per process."""

keypoints_of = cast(Callable[[RobotModel, tuple[str, ...]], KeypointSet], lru_cache(maxsize=8)(keypoint_union))
"""Union of keypoint sets of a robot, built once per process."""


def sweep(model: RobotModel, keypoint_sets: tuple[str, ...], q: ArrayLike, T_world_base: Array) -> RobotSweep:
    """Keypoints and surface points at the configurations q (F,J)."""
    collision = collision_of(model)
    T_world_link = T_world_base @ forward_kinematics(model, q)
    surface = [se3.transform(T_world_link[:, body.link_index], body.samples_m) for body in collision.bodies]
    keypoints = keypoints_of(model, keypoint_sets).positions(T_world_link)
    return RobotSweep(keypoints, np.concatenate(surface, axis=1), collision.resolution_m)
