"""Forward kinematics and derivatives for the solver's inner loop: few configurations, called thousands of times.

What does not change with the joints is tabulated once per robot and all joints turn at once, so a call costs a handful of array operations
instead of some for every joint. Equals `dataengine.robot.kinematics`, which is the plain version; a test says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dataengine.robot.kinematics import joint_mapping
from dataengine.robot.model import MOVING, RobotModel

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Arm:
    """A robot's constants. J joints of all types, base to tip; M of them move; D actuated; L links.

    `steps` (J, 2): link index of parent and child. `fixed` (J, 4, 4) is T_parent_joint; `cross` (J, 3, 3) the axis as a cross product.
    `turns` (J,) marks joints that rotate; `moving` (M,) are rows; `moved` (L, M): the link hangs on that joint. All positions = A q + b.
    """

    steps: Array
    fixed: Array
    axis: Array
    cross: Array
    turns: Array
    moving: Array
    moved: Array
    A: Array
    b: Array
    links: int


@lru_cache(maxsize=8)
def arm_of(model: RobotModel) -> Arm:
    """The table of a robot."""
    order = sorted(range(len(model.joints)), key=lambda row: len(model.chain(model.joints[row].child)))
    joints = [model.joints[row] for row in order]
    A, b = joint_mapping(model)
    axis = np.stack([joint.axis if joint.type in MOVING else np.zeros(3) for joint in joints])
    moving = np.array([k for k, joint in enumerate(joints) if joint.type in MOVING], np.int64)
    carried = [{joint.name for joint in model.chain(link)} for link in model.links]
    return Arm(
        steps=np.array([(model.link_index(j.parent), model.link_index(j.child)) for j in joints]),
        fixed=np.stack([joint.T_parent_joint for joint in joints]),
        axis=axis,
        cross=np.cross(axis[:, None], np.eye(3)).swapaxes(1, 2),
        turns=np.array([joint.type in ("revolute", "continuous") for joint in joints]),
        moving=moving,
        moved=np.array([[joints[k].name in names for k in moving] for names in carried]),
        A=A[order],
        b=b[order],
        links=len(model.links),
    )


def link_poses(arm: Arm, q: Array) -> Array:
    """T_base_link (F, L, 4, 4) of configurations (F, D)."""
    positions = q @ arm.A.T + arm.b
    angle = np.where(arm.turns, positions, 0.0)[..., None, None]
    motion = np.zeros((*positions.shape, 4, 4))
    motion[..., :3, :3] = np.eye(3) + np.sin(angle) * arm.cross + (1 - np.cos(angle)) * (arm.cross @ arm.cross)
    motion[..., :3, 3] = np.where(arm.turns, 0.0, positions)[..., None] * arm.axis
    motion[..., 3, 3] = 1.0
    local = arm.fixed @ motion
    out = np.empty((len(q), arm.links, 4, 4))
    out[:] = np.eye(4)
    for row, (parent, child) in enumerate(arm.steps):
        out[:, child] = out[:, parent] @ local[:, row]
    return out


def link_derivatives(arm: Arm, T_base_link: Array) -> tuple[Array, Array]:
    """How any point of a link moves with the joints, affine in its offset o: origin (F, L, 3, D) + Σ o_k slope[:, :, k] (F, L, 3, 3, D).

    A revolute joint at p about a moves a point x by a × (x − p), a prismatic one by a.
    """
    child = arm.steps[arm.moving, 1]
    turns = arm.turns[arm.moving]
    frame = T_base_link[:, child]
    axis = np.einsum("fmij,mj->fmi", frame[..., :3, :3], arm.axis[arm.moving])
    cross = np.zeros((*axis.shape, 3))
    x, y, z = axis[..., 0], axis[..., 1], axis[..., 2]
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 0] = -z, y, z
    cross[..., 1, 2], cross[..., 2, 0], cross[..., 2, 1] = -x, -y, x
    away = T_base_link[:, :, None, :3, 3] - frame[:, None, :, :3, 3]  # (F, L, M, 3)
    swept = np.einsum("fmij,flmj->flmi", cross, away)
    origin = np.where(turns[:, None], swept, axis[:, None]) * arm.moved[..., None]
    turned = cross[:, None] @ T_base_link[:, :, None, :3, :3]  # (F, L, M, 3, offset axes)
    slope = turned * (arm.moved & turns)[..., None, None]
    A = arm.A[arm.moving]
    return np.einsum("flmi,md->flid", origin, A), np.einsum("flmik,md->flkid", slope, A, optimize=True)
