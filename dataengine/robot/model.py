"""The plain data a robot is made of: links, joints, visual geometry. Built by `urdf.parse_urdf`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RobotError, unknown_name

JointType = Literal["revolute", "continuous", "prismatic", "fixed"]
MOVING: tuple[str, ...] = ("revolute", "continuous", "prismatic")


@dataclass(frozen=True)
class Mimic:
    """Position = multiplier * position of ``joint`` + offset (rad or m)."""

    joint: str
    multiplier: float
    offset: float


@dataclass(frozen=True, eq=False)
class Joint:
    """One URDF joint. Angles in rad, lengths in m, ``velocity`` in rad/s or m/s; ``axis`` is unit length, child frame.

    A continuous joint has limits -pi..pi: one turn, which is what a sampler needs.
    """

    name: str
    type: JointType
    parent: str
    child: str
    T_parent_joint: NDArray[np.float64]
    axis: NDArray[np.float64]
    lower: float
    upper: float
    velocity: float
    mimic: Mimic | None = None

    @property
    def actuated(self) -> bool:
        """Moves on its own: neither fixed nor a mimic of another joint."""
        return self.type in MOVING and self.mimic is None


@dataclass(frozen=True, eq=False)
class Geometry:
    """One visual element of a link.

    ``size``: mesh: scale xyz; box: extents xyz; cylinder: (radius, length); sphere: (radius,); in m (scale: no unit).
    ``rgba``: colour of the URDF material (sRGB, 0..1), None if it names none.
    """

    link: str
    kind: Literal["mesh", "box", "cylinder", "sphere"]
    T_link_geometry: NDArray[np.float64]
    size: tuple[float, ...]
    mesh: Path | None
    material: str | None
    rgba: tuple[float, float, float, float] | None


@dataclass(frozen=True, eq=False)
class RobotModel:
    """A tree of links. ``links`` and ``joints`` keep the order of the URDF file; everything indexed by link or
    joint in this package uses it. J counts the actuated joints, L the links.
    """

    name: str
    urdf_path: Path
    urdf_sha: str
    """SHA-256 (hex) of the URDF file's bytes."""
    links: tuple[str, ...]
    joints: tuple[Joint, ...]
    visuals: tuple[Geometry, ...]

    @cached_property
    def actuated(self) -> tuple[str, ...]:
        """(J) names of the joints that move on their own, in URDF order: the meaning of q's columns."""
        return tuple(joint.name for joint in self.joints if joint.actuated)

    @cached_property
    def q_lower(self) -> NDArray[np.float64]:
        """(J,) lower limits, rad or m."""
        return np.array([joint.lower for joint in self.joints if joint.actuated])

    @cached_property
    def q_upper(self) -> NDArray[np.float64]:
        """(J,) upper limits, rad or m."""
        return np.array([joint.upper for joint in self.joints if joint.actuated])

    @cached_property
    def qd_limit(self) -> NDArray[np.float64]:
        """(J,) largest speeds, rad/s or m/s."""
        return np.array([joint.velocity for joint in self.joints if joint.actuated])

    @property
    def dof(self) -> int:
        """J, the number of actuated joints."""
        return len(self.actuated)

    @cached_property
    def root(self) -> str:
        """The base link: the only one that is nobody's child."""
        children = {joint.child for joint in self.joints}
        return next(link for link in self.links if link not in children)

    @cached_property
    def parent_joint(self) -> dict[str, Joint]:
        """Child link name → the joint that carries it."""
        return {joint.child: joint for joint in self.joints}

    @cached_property
    def _link_index(self) -> dict[str, int]:
        return {link: index for index, link in enumerate(self.links)}

    def link_index(self, link: str) -> int:
        """Index of a link by name; RobotError lists the names if there is no such link."""
        if link not in self._link_index:
            raise RobotError(f"{self.name}: " + unknown_name("link", link, self.links))
        return self._link_index[link]

    def chain(self, link: str) -> tuple[Joint, ...]:
        """Joints from the base to ``link``."""
        self.link_index(link)
        joints: list[Joint] = []
        while link in self.parent_joint:
            joints.append(self.parent_joint[link])
            link = joints[-1].parent
        return tuple(reversed(joints))

    @cached_property
    def base_link_indices(self) -> tuple[int, ...]:
        """Links that never move: the root and all that hang on it by fixed joints only."""
        return tuple(index for index, link in enumerate(self.links) if all(joint.type == "fixed" for joint in self.chain(link)))
