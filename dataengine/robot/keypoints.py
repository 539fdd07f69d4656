"""Named sets of keypoints: points fixed to links that detectors are trained on.

A joint angle can be told from points alone only if some point moves with it. Joint origins are not enough:
the base yaw and the last joint turn about axes on which all origins lie. `panda15` and `auto` add points
beside the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import RobotError, unknown_name
from dataengine.robot.kinematics import forward_kinematics, point_jacobians, point_positions, rigid_bodies
from dataengine.robot.meshes import LinkMesh, load_link_meshes
from dataengine.robot.model import MOVING, RobotModel

Placement = tuple[str, tuple[float, float, float]]
ORIGIN = (0.0, 0.0, 0.0)

_DREAM7: tuple[Placement, ...] = tuple(
    (link, ORIGIN)
    for link in (*(f"panda_link{i}" for i in (0, 2, 3, 4, 6, 7)), "panda_hand")
)  # fmt: skip
PANDA_SETS: dict[str, tuple[Placement, ...]] = {
    # Link origins that DREAM, SGTAPose and RoboKeyGen evaluate.
    "dream7": _DREAM7,
    # RoboKeyGen's diffusion keypoints, the `joints_3n_fixed_42` of SimRGBD-Franka.
    "simrgbd14": (
        ("panda_link0", ORIGIN),
        ("panda_link0", (0.0, 0.0, 0.14)),
        ("panda_link0", (-0.11, 0.0, 0.0)),
        ("panda_link1", ORIGIN),
        ("panda_link1", (0.0, -0.1294, 0.0)),
        ("panda_link2", (0.0, -0.1940, 0.0)),
        ("panda_link4", ORIGIN),
        ("panda_link4", (0.0, 0.0, 0.1111)),
        ("panda_link4", (0.0, 0.1240, 0.0)),
        ("panda_link5", (0.0, 0.1299, 0.0)),
        ("panda_link6", (0.0, 0.0, 0.0583)),
        ("panda_link6", (0.088, 0.0, 0.0)),
        ("panda_link7", (0.0, 0.0, 0.1520)),
        ("panda_link7", (0.06, 0.06, 0.1520)),
    ),
    # dream7 and eight points off the joint axes.
    "panda15": (
        *_DREAM7,
        ("panda_link0", (0.0, 0.07, 0.0)),
        ("panda_link0", (-0.12, 0.0, 0.03)),
        ("panda_link2", (0.0, -0.09, 0.0)),
        ("panda_link3", (0.08, 0.0, -0.08)),
        ("panda_link4", (0.0, 0.0, 0.07)),
        ("panda_link5", (0.0, 0.09, -0.05)),
        ("panda_hand", (0.0, 0.04, 0.10)),
        ("panda_hand", (0.0, -0.04, 0.10)),
    ),
    # dream7 and eight points on the robot's surface, one after the other the vertex that lowers the Cramer-Rao bound of the
    # pose most (benchmarks/robokeygen/placement.py). Those on link1 and link2 also tell (q1, q2, q3) from (q1 + pi, -q2, q3 + pi),
    # which leaves every point of panda15 where it is.
    "panda15_surface": (
        *_DREAM7,
        ("panda_link0", (-0.149, -0.041, 0.0)),
        ("panda_link1", (0.001, -0.108, 0.046)),
        ("panda_link2", (-0.001, 0.046, 0.108)),
        ("panda_link3", (0.113, 0.094, 0.033)),
        ("panda_link4", (-0.121, 0.059, 0.031)),
        ("panda_link5", (0.012, 0.116, -0.046)),
        ("panda_hand", (0.0, -0.103, -0.012)),
        ("panda_hand", (0.0, 0.1, 0.059)),
    ),
}
GENERAL_SETS = ("links", "auto")


@dataclass(frozen=True, eq=False)
class KeypointSet:
    """P points: names; link_index (P,) into ``RobotModel.links``; offset_m (P, 3) in that link's frame.

    A point at a link's origin bears the link's name, any other ``link@x,y,zmm``, so the same point has the
    same name in every set.
    """

    names: tuple[str, ...]
    link_index: NDArray[np.int64]
    offset_m: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.names)

    def positions(self, T_base_link: ArrayLike) -> NDArray[np.float64]:
        """Link poses (..., L, 4, 4) in any frame → points (..., P, 3) in that frame."""
        return point_positions(T_base_link, self.link_index, self.offset_m)

    def rows(self, part: KeypointSet) -> NDArray[np.int64]:
        """Where the points of ``part`` are in this set; RobotError if one is missing."""
        try:
            return np.array([self.names.index(name) for name in part.names], np.int64)
        except ValueError:
            missing = [name for name in part.names if name not in self.names]
            raise RobotError(f"keypoints not labelled here: {', '.join(missing)}; labelled: {', '.join(self.names)}") from None


def available_sets(model: RobotModel) -> tuple[str, ...]:
    """Names of the keypoint sets that this robot has the links for."""
    fitting = [name for name, rows in PANDA_SETS.items() if all(link in model.links for link, _ in rows)]
    return (*fitting, *GENERAL_SETS)


def keypoint_set(model: RobotModel, name: str, cache_dir: str | Path | None = None) -> KeypointSet:
    """A set by name. ``auto`` looks at the meshes (``cache_dir`` as in `load_link_meshes`).

    ``links``: origins of the base and of every link behind a moving joint. ``auto``: these, plus surface
    points that make every joint and the base pose observable, for any robot.
    RobotError lists the sets there are for this robot.
    """
    if name not in available_sets(model):
        raise RobotError(f"robot {model.name}: " + unknown_name("keypoint set", name, available_sets(model)))
    if name in PANDA_SETS:
        return _build(model, PANDA_SETS[name])
    origins = _origins(model)
    if name == "links":
        return _build(model, origins)
    return _build(model, [*origins, *_off_axis_points(model, load_link_meshes(model, cache_dir))])


def keypoint_union(model: RobotModel, names: Sequence[str], cache_dir: str | Path | None = None) -> KeypointSet:
    """The points of several sets, each once, in the order of first mention."""
    sets = [keypoint_set(model, name, cache_dir) for name in names]
    points = {name: (part, row) for part in reversed(sets) for row, name in enumerate(part.names)}
    ordered = dict.fromkeys(name for part in sets for name in part.names)
    if not ordered:
        raise RobotError(f"robot {model.name}: no keypoint set given; available: {', '.join(available_sets(model))}")
    link = np.array([points[name][0].link_index[points[name][1]] for name in ordered], np.int64)
    offset = np.stack([points[name][0].offset_m[points[name][1]] for name in ordered])
    return KeypointSet(tuple(ordered), link, offset)


def observability(model: RobotModel, keypoints: KeypointSet, q: ArrayLike) -> NDArray[np.float64]:
    """Singular values, descending, of d(points in camera) / d(base pose, joints): q (..., J) → (..., 6 + J).

    A zero means that some motion of base and joints leaves every keypoint where it is. Translations and
    rotations (about the base origin) are in m and rad.
    """
    points = keypoints.positions(forward_kinematics(model, q))
    x, y, z = np.moveaxis(points, -1, 0)
    zero = np.zeros_like(x)
    turning = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], -1).reshape(*points.shape, 3)  # -[p]x
    moving = np.broadcast_to(np.eye(3), turning.shape)
    joints = point_jacobians(model, q, keypoints.link_index, keypoints.offset_m)
    stacked = np.concatenate([moving, turning, joints], axis=-1)
    return np.linalg.svd(stacked.reshape(*points.shape[:-2], -1, stacked.shape[-1]), compute_uv=False)


def _build(model: RobotModel, placements: Sequence[Placement]) -> KeypointSet:
    names = [link if offset == ORIGIN else f"{link}@{','.join(f'{1e3 * v:g}' for v in offset)}mm" for link, offset in placements]
    links = np.array([model.link_index(link) for link, _ in placements], np.int64)
    return KeypointSet(tuple(names), links, np.array([offset for _, offset in placements]))


def _origins(model: RobotModel) -> list[Placement]:
    """Origins of base and moved links; of origins that always coincide (intersecting axes) only the first."""
    moved = [joint.child for joint in model.joints if joint.type in MOVING]
    links = [model.root, *sorted(moved, key=model.link_index)]
    probes = np.linspace(model.q_lower, model.q_upper, 7) * np.array([1, 0.7, 0.4, 0.9, 0.2, 0.6, 0.8])[:, None]
    positions = forward_kinematics(model, probes)[..., :3, 3][:, [model.link_index(link) for link in links]]
    kept: list[int] = []
    for index in range(len(links)):
        gaps = np.abs(positions[:, kept] - positions[:, index, None]).max(axis=(0, 2))
        if not (gaps < 1e-6).any():
            kept.append(index)
    return [(links[index], ORIGIN) for index in kept]


def _off_axis_points(model: RobotModel, meshes: Sequence[LinkMesh]) -> list[Placement]:
    """One surface point per moving joint, far from its axis, and two on the base that span a triangle with its origin.

    The base triangle fixes the base pose; then, joint by joint outwards, a point off the axis fixes the angle.
    """
    body = rigid_bodies(model)
    points: list[Placement] = []
    base = _surface(body[model.root], meshes, model.root)
    first = base[np.argmax(np.linalg.norm(base, axis=1))] if len(base) else np.array([0.1, 0.0, 0.0])
    direction = first / np.linalg.norm(first)
    beside = np.linalg.norm(np.cross(base, direction), axis=1)
    second = base[np.argmax(beside)] if len(base) and beside.max() > 0.01 else 0.1 * _perpendicular(direction)
    points += [(model.root, _millimetres(first)), (model.root, _millimetres(second))]
    for joint in model.joints:
        if joint.type not in MOVING:
            continue
        cloud = _surface(body[joint.child], meshes, joint.child)
        away = np.linalg.norm(np.cross(cloud, joint.axis), axis=1)
        beside_axis = len(cloud) > 0 and away.max() > 0.01
        point = cloud[np.argmax(away)] if beside_axis else 0.05 * _perpendicular(joint.axis)
        points.append((joint.child, _millimetres(point)))
    return points


def _surface(body: dict[str, NDArray[np.float64]], meshes: Sequence[LinkMesh], leader: str) -> NDArray[np.float64]:
    """(V, 3) vertices of the whole rigid body in its leader's frame, prefering the leader's own mesh."""
    own = [mesh for mesh in meshes if mesh.link == leader]
    used = own or [mesh for mesh in meshes if mesh.link in body]
    clouds = [mesh.vertices_m @ body[mesh.link][:3, :3].T + body[mesh.link][:3, 3] for mesh in used]
    return np.concatenate([np.zeros((0, 3)), *clouds])


def _perpendicular(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    other = np.cross(direction, np.eye(3)[np.argmin(np.abs(direction))])
    return other / np.linalg.norm(other)


def _millimetres(point_m: NDArray[np.float64]) -> tuple[float, float, float]:
    """Rounded to 0.1 mm: readable names, and far below any meshing error."""
    x, y, z = (round(float(value), 4) + 0.0 for value in point_m)
    return x, y, z
