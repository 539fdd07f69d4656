"""Forward kinematics and Jacobians of whole batches of configurations, float64 numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import RobotError
from dataengine.geometry import se3
from dataengine.robot.model import MOVING, Joint, RobotModel

Array = NDArray[np.float64]


def joint_mapping(model: RobotModel) -> tuple[Array, Array]:
    """(A, b) with ``all_joint_positions = A @ q + b``: A (number of joints, J); mimic joints follow their leader."""
    column = {name: index for index, name in enumerate(model.actuated)}
    A, b = np.zeros((len(model.joints), model.dof)), np.zeros(len(model.joints))
    for row, joint in enumerate(model.joints):
        if joint.mimic is not None:
            A[row, column[joint.mimic.joint]], b[row] = joint.mimic.multiplier, joint.mimic.offset
        elif joint.actuated:
            A[row, column[joint.name]] = 1.0
    return A, b


def forward_kinematics(model: RobotModel, q: ArrayLike) -> Array:
    """Poses of all links in the base frame: q (..., J) rad or m → T_base_link (..., L, 4, 4), URDF link order."""
    positions = _positions(model, q)
    out = np.zeros((*positions.shape[:-1], len(model.links), 4, 4))
    out[..., model.link_index(model.root), :, :] = np.eye(4)
    for row, joint in _base_to_tip(model):
        parent = out[..., model.link_index(joint.parent), :, :]
        out[..., model.link_index(joint.child), :, :] = parent @ (joint.T_parent_joint @ joint_motion(joint, positions[..., row]))
    return out


def joint_motion(joint: Joint, position: Array) -> Array:
    """Motion of the child within the joint frame: (...) rad or m → (..., 4, 4)."""
    if joint.type == "prismatic":
        return se3.make(np.eye(3), position[..., None] * joint.axis)
    if joint.type == "fixed":
        return np.broadcast_to(np.eye(4), (*position.shape, 4, 4))
    return se3.make(se3.rotation_from_axis_angle(joint.axis, position), np.zeros(3))


def point_positions(T_base_link: ArrayLike, link_index: ArrayLike, offset_m: ArrayLike) -> Array:
    """Points fixed to links: poses (..., L, 4, 4), link_index (P,), offset_m (P, 3) → (..., P, 3), base frame."""
    poses = np.asarray(T_base_link, np.float64)[..., np.asarray(link_index, np.intp), :, :]
    return np.einsum("...pij,pj->...pi", poses[..., :3, :3], np.asarray(offset_m, np.float64)) + poses[..., :3, 3]


def jacobian(model: RobotModel, q: ArrayLike, link: str | int, offset_m: ArrayLike = (0.0, 0.0, 0.0)) -> Array:
    """Velocity of one point per joint speed: q (..., J) → (..., 3, J), base frame.

    The point is ``offset_m`` (3,) in the frame of ``link``. Column of a revolute joint: axis x (point - joint
    origin); of a prismatic joint: axis (Siciliano et al., Robotics, eq. 3.30); mimic joints add to their leader.
    """
    name = model.links[link] if isinstance(link, int) else link
    return point_jacobians(model, q, [model.link_index(name)], np.reshape(offset_m, (1, 3)))[..., 0, :, :]


def point_jacobians(model: RobotModel, q: ArrayLike, link_index: ArrayLike, offset_m: ArrayLike) -> Array:
    """Jacobians of many points in one pass: q (..., J), link_index (P,), offset_m (P, 3) → (..., P, 3, J)."""
    poses = forward_kinematics(model, q)
    links = np.asarray(link_index, np.intp)
    points = point_positions(poses, links, offset_m)
    mapping, _ = joint_mapping(model)
    out = np.zeros((*points.shape, model.dof))
    carried = [{joint.name for joint in model.chain(model.links[index])} for index in links]
    for row, joint in enumerate(model.joints):
        moved = np.array([joint.name in names for names in carried])
        if joint.type not in MOVING or not moved.any():
            continue
        # The child frame sits at the joint and turns about the axis, so it holds both axis and origin.
        frame = poses[..., model.link_index(joint.child), :, :]
        axis = (frame[..., :3, :3] @ joint.axis)[..., None, :]
        column = np.broadcast_to(axis, points.shape)
        if joint.type != "prismatic":
            column = np.cross(axis, points - frame[..., None, :3, 3])
        out += np.where(moved[:, None], column, 0.0)[..., None] * mapping[row]
    return out


def rigid_bodies(model: RobotModel) -> dict[str, dict[str, Array]]:
    """Leader link → {link: T_leader_link} of all links fixed to it; leaders are the base and every moved link."""
    zero = forward_kinematics(model, np.zeros(model.dof))
    bodies: dict[str, dict[str, Array]] = {}
    for index, link in enumerate(model.links):
        leader = link
        while leader != model.root and model.parent_joint[leader].type == "fixed":
            leader = model.parent_joint[leader].parent
        bodies.setdefault(leader, {})[link] = se3.inverse(zero[model.link_index(leader)]) @ zero[index]
    return bodies


def _positions(model: RobotModel, q: ArrayLike) -> Array:
    values = np.asarray(q, np.float64)
    if values.ndim == 0 or values.shape[-1] != model.dof:
        raise RobotError(f"{model.name}: q has shape {values.shape}, expected (..., {model.dof}): {', '.join(model.actuated)}")
    A, b = joint_mapping(model)
    return values @ A.T + b


def _base_to_tip(model: RobotModel) -> list[tuple[int, Joint]]:
    """Joints with their rows, parents before children, whatever the order in the file."""
    return sorted(enumerate(model.joints), key=lambda item: len(model.chain(item[1].child)))
