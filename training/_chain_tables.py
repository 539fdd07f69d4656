"""A robot's kinematic tree cut down to what moves its keypoints. Needs `dataengine.robot`; used by `KeypointChain.from_model`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.robot.keypoints import keypoint_set
from dataengine.robot.kinematics import joint_mapping
from dataengine.robot.model import MOVING, RobotModel

Array = NDArray[np.float64]


def tables_of_model(model: RobotModel, keypoint_set_name: str) -> dict[str, Any]:
    """The fields of `training.kinematics.KeypointChain`, fixed joints merged, all joint axes turned to z."""
    points = keypoint_set(model, keypoint_set_name)
    links = [model.links[index] for index in points.link_index]
    moving = {joint.name for link in links for joint in model.chain(link) if joint.type in MOVING}
    rows = [row for row, joint in enumerate(model.joints) if joint.name in moving]
    rows.sort(key=lambda row: len(model.chain(model.joints[row].child)))
    joints = [model.joints[row] for row in rows]
    index = {joint.name: k for k, joint in enumerate(joints)}
    align = [_turn_z_to(joint.axis) for joint in joints]

    def from_carrier(link: str) -> tuple[int, Array]:
        """The last moving joint before a link, and the link's pose in that joint's turned frame."""
        pose = np.eye(4)
        for joint in reversed(model.chain(link)):
            if joint.name in index:
                return index[joint.name], align[index[joint.name]].T @ pose
            pose = joint.T_parent_joint @ pose
        return -1, pose

    carriers = [from_carrier(joint.parent) for joint in joints]
    homes = [from_carrier(link) for link in links]
    mapping, constant = joint_mapping(model)
    columns = np.flatnonzero(mapping[rows].any(0)) if rows else np.zeros(0, np.int64)
    chosen = mapping[rows][:, columns]
    return {
        "robot": model.name,
        "keypoint_set": keypoint_set_name,
        "keypoint_names": points.names,
        "joint_names": tuple(model.actuated[c] for c in columns),
        "joint_columns": columns,
        "lower": model.q_lower[columns],
        "upper": model.q_upper[columns],
        "parent": [carrier for carrier, _ in carriers],
        "fixed": [pose @ joint.T_parent_joint @ turn for (_, pose), joint, turn in zip(carriers, joints, align, strict=True)],
        "prismatic": [joint.type == "prismatic" for joint in joints],
        "source": np.abs(chosen).argmax(1) if rows else [],
        "gain": chosen.sum(1),
        "offset": constant[rows],
        "body": [carrier for carrier, _ in homes],
        "point": [pose[:3, :3] @ p + pose[:3, 3] for (_, pose), p in zip(homes, points.offset_m, strict=True)],
    }


def _turn_z_to(axis: Array) -> Array:
    """(4, 4) rotation that takes z to the axis (unit); the smallest one, and exact for the coordinate axes."""
    x, y, z = axis
    if z < -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0, 1.0])
    out = np.eye(4)
    k = 1 / (1 + z)
    out[:3, :3] = [[1 - k * x * x, -k * x * y, x], [-k * x * y, 1 - k * y * y, y], [-x, -y, z]]
    return out
