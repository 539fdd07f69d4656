"""Points of a robot that a person can find in a picture and click.

The seven points of DREAM lie on joint axes: no number of frames tells q1 or q7 from them. The Panda's list therefore adds caps, corners and
tips beside the axes; any other robot gets its joint origins plus surface points that make every joint observable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataengine.errors import RobotError, unknown_name
from dataengine.robot.keypoints import KeypointSet, keypoint_set
from dataengine.robot.model import RobotModel

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Landmark:
    """A clickable point fixed to a link: `offset_m` (3,) in the link's frame; `description` tells a person where to look."""

    name: str
    link: str
    offset_m: Array
    description: str
    inside: bool
    """The point lies within the link (a joint centre), so it is estimated by eye and never itself on the surface."""


_PANDA: tuple[tuple[str, str, tuple[float, float, float], str, bool], ...] = (
    ("base", "panda_link0", (0.0, 0.0, 0.0), "centre of the base, on the mounting plane", True),
    ("shoulder", "panda_link2", (0.0, 0.0, 0.0), "centre of the shoulder joint, between its two round caps", True),
    ("upper_arm", "panda_link3", (0.0, 0.0, 0.0), "axis of the upper arm, at the joint below the elbow", True),
    ("elbow", "panda_link4", (0.0, 0.0, 0.0), "centre of the elbow joint, between its two round caps", True),
    ("wrist", "panda_link6", (0.0, 0.0, 0.0), "centre of the wrist joint, between its two round caps", True),
    ("flange", "panda_link7", (0.0, 0.0, 0.0), "axis of the last joint, where the wrist's axis meets it", True),
    ("hand", "panda_hand", (0.0, 0.0, 0.0), "centre of the hand's mounting plane", True),
    ("base_rear_left", "panda_link0", (-0.1357, 0.0664, 0.0), "rear left corner of the base foot (left seen from the robot)", False),
    ("base_rear_right", "panda_link0", (-0.1357, -0.0664, 0.0), "rear right corner of the base foot", False),
    ("shoulder_cap_rear", "panda_link1", (0.0, -0.1294, 0.0), "middle of the shoulder cap that belongs to the turret", False),
    ("shoulder_cap_front", "panda_link2", (0.0, 0.0, 0.1294), "middle of the shoulder cap that belongs to the upper arm", False),
    ("elbow_cap_upper", "panda_link3", (0.0825, 0.1110, 0.0), "middle of the elbow cap that belongs to the upper arm", False),
    ("elbow_cap_lower", "panda_link4", (0.0, 0.0, 0.1111), "middle of the elbow cap that belongs to the forearm", False),
    ("forearm_cap", "panda_link4", (-0.0825, 0.1240, 0.0), "middle of the ring where the forearm turns", False),
    ("wrist_cap_rear", "panda_link5", (0.0, 0.1299, 0.0), "middle of the wrist cap that belongs to the forearm", False),
    (
        "wrist_cap_front",
        "panda_link6",
        (0.0120, 0.0, 0.0545),
        "middle of the white panel in the wrist cap that belongs to the wrist",
        False,
    ),
    ("flange_corner", "panda_link7", (0.0654, 0.0590, 0.0848), "outer corner of the flange's ear with the light and buttons", False),
    ("hand_corner_left", "panda_hand", (0.0, 0.1006, 0.0575), "end of the hand beside the left finger", False),
    ("hand_corner_right", "panda_hand", (0.0, -0.1002, 0.0586), "end of the hand beside the right finger", False),
    ("fingertip_left", "panda_leftfinger", (0.0, 0.0143, 0.0538), "outer edge of the left finger's tip", False),
    ("fingertip_right", "panda_rightfinger", (0.0, -0.0143, 0.0538), "outer edge of the right finger's tip", False),
)


def landmarks(model: RobotModel) -> tuple[Landmark, ...]:
    """All clickable points of a robot; joint centres first."""
    if all(link in model.links for _, link, *_ in _PANDA):
        return tuple(Landmark(name, link, np.array(offset), text, inside) for name, link, offset, text, inside in _PANDA)
    points = keypoint_set(model, "auto")
    return tuple(_general(model, points, row) for row in range(len(points)))


def landmark_set(model: RobotModel) -> KeypointSet:
    """The same points as a `KeypointSet`, named as landmarks."""
    points = landmarks(model)
    links = np.array([model.link_index(point.link) for point in points], np.int64)
    return KeypointSet(tuple(point.name for point in points), links, np.stack([point.offset_m for point in points]))


def landmark_rows(points: KeypointSet, names: list[str]) -> Array:
    """Rows of the named landmarks, (len(names),) int64; RobotError lists the landmarks there are."""
    rows = {name: row for row, name in enumerate(points.names)}
    for name in names:
        if name not in rows:
            raise RobotError(unknown_name("landmark", name, points.names))
    return np.array([rows[name] for name in names], np.int64)


def _general(model: RobotModel, points: KeypointSet, row: int) -> Landmark:
    name, offset = points.names[row], points.offset_m[row]
    link = model.links[points.link_index[row]]
    if not offset.any():
        return Landmark(name, link, offset, f"origin of link {link}", True)
    direction = ", ".join(f"{axis} {1e3 * value:+.0f} mm" for axis, value in zip("xyz", offset, strict=True) if abs(value) > 5e-4)
    return Landmark(name, link, offset, f"surface point of link {link} at {direction} from its origin", False)
