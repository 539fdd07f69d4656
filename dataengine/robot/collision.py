"""Self-collision and floor tests fast enough for rejection sampling: thousands of configurations per second.

Links that cannot move against each other form a body. Each body carries

* surface samples that cover its surface within the radius ``resolution_m`` (greedy cover), and
* a voxel grid that marks all places nearer than ``resolution_m`` to its surface.

If two surfaces intersect, a sample of one lies within the cover radius of the intersection, hence in a
marked voxel of the other: so the test is conservative (up to the rounding of a voxel) and also reports bodies that
come closer than about the resolution. The floor test uses the convex hull and is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.geometry import se3
from dataengine.robot.cache import Arrays, cached_arrays
from dataengine.robot.kinematics import forward_kinematics, rigid_bodies
from dataengine.robot.meshes import LinkMesh, load_link_meshes, mesh_digest
from dataengine.robot.model import RobotModel

RELATIVE_RESOLUTION = 0.01
"""Cover radius as a share of the robot's reach: 1 cm for an arm that reaches 1 m."""
BY_DESIGN = 0.9
"""What touches in more than this share of random configurations is built to touch, and ignored."""
DESIGN_PROBES = 400
BUILDER_VERSION = 1
"""Raise when the built model changes for the same meshes."""


@dataclass(frozen=True, eq=False)
class Body:
    """One rigid body in its leader link's frame: see the module's text.

    samples_m (S, 3); hull_m (H, 3) vertices of the convex hull; near (X, Y, Z) bool voxels of edge ``cell_m`` whose
    first corner is ``corner_m``; the bounding sphere ``centre_m``, ``radius_m``.
    """

    link_index: int
    samples_m: NDArray[np.float64]
    hull_m: NDArray[np.float64]
    near: NDArray[np.bool_]
    corner_m: NDArray[np.float64]
    cell_m: float
    centre_m: NDArray[np.float64]
    radius_m: float

    def is_near(self, points_m: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points (..., 3) in the body's frame lie in a marked voxel."""
        cell = np.floor((points_m - self.corner_m) * (1.0 / self.cell_m)).astype(np.int32)
        shape = np.array(self.near.shape, np.int32)
        inside = ((cell >= 0) & (cell < shape)).all(axis=-1)
        flat = (cell[..., 0] * shape[1] + cell[..., 1]) * shape[2] + cell[..., 2]
        return self.near.ravel()[np.where(inside, flat, 0)] & inside


@dataclass(frozen=True, eq=False)
class CollisionModel:
    """Bodies of a robot and the pairs of them (K, 2) that are tested. Built by `build_collision_model`."""

    model: RobotModel
    bodies: tuple[Body, ...]
    pairs: NDArray[np.int64]
    floor_bodies: tuple[int, ...]
    """Bodies that the floor test looks at: all that move, but for those that reach below the base by design."""
    resolution_m: float

    def pair_name(self, row: int) -> str:
        """`link-link` of one tested pair, for messages."""
        first, second = (self.model.links[self.bodies[body].link_index] for body in self.pairs[row])
        return f"{first}-{second}"


def build_collision_model(model: RobotModel, meshes: Sequence[LinkMesh]) -> CollisionModel:
    """Collision model of the visual meshes (`load_link_meshes`). About two seconds for an arm; deterministic.

    Never tested: a body against the one it is jointed to, two bodies on the same parent (fingers), and
    pairs that touch in more than `BY_DESIGN` of random configurations.
    """
    clouds = _body_vertices(model, meshes)
    resolution_m = RELATIVE_RESOLUTION * _reach(model, clouds)
    bodies = tuple(_build_body(model.link_index(leader), corners, resolution_m) for leader, corners in clouds.items())
    pairs = np.array(_candidate_pairs(model, list(clouds)), np.int64).reshape(-1, 2)
    moving = tuple(index for index, leader in enumerate(clouds) if leader != model.root)
    full = CollisionModel(model, bodies, pairs, moving, resolution_m)
    q = np.random.default_rng(0).uniform(model.q_lower, model.q_upper, (DESIGN_PROBES, model.dof))
    poses = forward_kinematics(model, q)
    by_design = pair_collisions(full, poses).mean(axis=0) > BY_DESIGN
    low = np.array([(_lowest(bodies[index], poses) < 0).mean() for index in moving]) > BY_DESIGN
    kept = tuple(index for index, sunk in zip(moving, low, strict=True) if not sunk)
    return CollisionModel(model, bodies, pairs[~by_design], kept, resolution_m)


def load_collision_model(model: RobotModel, cache_dir: str | Path | None = None) -> CollisionModel:
    """`build_collision_model` of the robot's visual meshes, from the cache if built before."""
    name = f"{model.name}-{mesh_digest(model)[:16]}-collision{BUILDER_VERSION}"
    arrays = cached_arrays(name, cache_dir, lambda: _pack(build_collision_model(model, load_link_meshes(model, cache_dir))))
    return _unpack(model, arrays)


def self_collision(collision: CollisionModel, q: ArrayLike) -> NDArray[np.bool_]:
    """Whether any two tested bodies touch or nearly touch: q (..., J) → (...) bool."""
    configurations = np.asarray(q, np.float64)
    poses = forward_kinematics(collision.model, configurations)
    flat = poses.reshape(-1, *poses.shape[-3:])
    return pair_collisions(collision, flat).any(axis=-1).reshape(configurations.shape[:-1])


def below_floor(collision: CollisionModel, q: ArrayLike, floor_z_m: float = 0.0) -> NDArray[np.bool_]:
    """Whether a moving body reaches below the plane z = floor_z_m of the base frame: q (..., J) → (...) bool."""
    return lowest_point(collision, q) < floor_z_m


def lowest_point(collision: CollisionModel, q: ArrayLike) -> NDArray[np.float64]:
    """Smallest z, base frame, m, of all moving bodies: q (..., J) → (...). Exact for the visual meshes."""
    poses = forward_kinematics(collision.model, q)
    heights = [_lowest(collision.bodies[index], poses) for index in collision.floor_bodies]
    return np.min([np.full(poses.shape[:-3], np.inf), *heights], axis=0)


def pair_collisions(collision: CollisionModel, T_base_link: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Link poses (N, L, 4, 4) → which of the K tested pairs touch (N, K) bool."""
    hits = np.zeros((len(T_base_link), len(collision.pairs)), bool)
    for column, (first, second) in enumerate(collision.pairs):
        a, b = collision.bodies[first], collision.bodies[second]
        if len(a.samples_m) > len(b.samples_m):
            a, b = b, a
        T_base_a, T_base_b = T_base_link[:, a.link_index], T_base_link[:, b.link_index]
        gap = np.linalg.norm(_apply(T_base_a, a.centre_m) - _apply(T_base_b, b.centre_m), axis=1)
        rows = np.flatnonzero(gap < a.radius_m + b.radius_m + collision.resolution_m)
        for chunk in np.array_split(rows, max(1, len(rows) * len(a.samples_m) // 300_000)):
            T_b_a = se3.inverse(T_base_b[chunk]) @ T_base_a[chunk]
            points = a.samples_m @ np.swapaxes(T_b_a[:, :3, :3], 1, 2) + T_b_a[:, None, :3, 3]
            hits[chunk, column] = b.is_near(points).any(axis=1)
    return hits


def _apply(T: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    return T[..., :3, :3] @ point + T[..., :3, 3]


def _lowest(body: Body, T_base_link: NDArray[np.float64]) -> NDArray[np.float64]:
    pose = T_base_link[..., body.link_index, :, :]
    return (pose[..., 2, :3] @ body.hull_m.T).min(axis=-1) + pose[..., 2, 3]


def _body_vertices(model: RobotModel, meshes: Sequence[LinkMesh]) -> dict[str, NDArray[np.float64]]:
    """Leader link → corners (F, 3, 3) of all triangles of its body, leader frame; bodies without meshes left out."""
    clouds: dict[str, NDArray[np.float64]] = {}
    for leader, links in rigid_bodies(model).items():
        corners = [se3.transform(links[mesh.link], mesh.vertices_m)[mesh.faces] for mesh in meshes if mesh.link in links]
        if corners:
            clouds[leader] = np.concatenate(corners)
    return clouds


def _reach(model: RobotModel, clouds: dict[str, NDArray[np.float64]]) -> float:
    """Greatest distance of any body's origin from the base over a few configurations, plus that body's size, m."""
    q = np.random.default_rng(0).uniform(model.q_lower, model.q_upper, (64, model.dof))
    poses = forward_kinematics(model, q)
    reaches = [
        float(np.linalg.norm(poses[:, model.link_index(leader), :3, 3], axis=-1).max() + np.linalg.norm(corners, axis=-1).max())
        for leader, corners in clouds.items()
    ]
    return max(reaches, default=1.0)


def _candidate_pairs(model: RobotModel, leaders: list[str]) -> list[tuple[int, int]]:
    """All pairs but those joined by one joint and those carried by the same body."""
    leader_of = {link: leader for leader, links in rigid_bodies(model).items() for link in links}
    carrier = {leader: leader_of[model.parent_joint[leader].parent] for leader in leaders if leader != model.root}
    pairs = []
    for j, second in enumerate(leaders):
        for i, first in enumerate(leaders[:j]):
            jointed = carrier.get(first) == second or carrier.get(second) == first
            if not jointed and carrier.get(first) != carrier.get(second):
                pairs.append((i, j))
    return pairs


def _build_body(link_index: int, corners: NDArray[np.float64], resolution_m: float) -> Body:
    from scipy.spatial import ConvexHull, KDTree  # slow to import, used only while building

    dense = _thin(_fill_triangles(corners, resolution_m / 3), resolution_m / 4)
    tree = KDTree(dense)
    vertices = corners.reshape(-1, 3)
    centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    cell = resolution_m / 2
    corner = vertices.min(axis=0) - resolution_m - cell
    shape = np.ceil((vertices.max(axis=0) + resolution_m + cell - corner) / cell).astype(int)
    centres = (np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3) + 0.5) * cell + corner
    distance, _ = tree.query(centres, distance_upper_bound=resolution_m)
    return Body(
        link_index=link_index,
        samples_m=dense[_greedy_cover(dense, tree, resolution_m)],
        hull_m=vertices[ConvexHull(vertices).vertices],
        near=np.isfinite(distance).reshape(tuple(shape)),
        corner_m=corner,
        cell_m=cell,
        centre_m=centre,
        radius_m=float(np.linalg.norm(vertices - centre, axis=1).max()),
    )


def _fill_triangles(corners: NDArray[np.float64], spacing_m: float) -> NDArray[np.float64]:
    """Points on triangles (F, 3, 3) no further apart than about ``spacing_m``: barycentric lattices. (N, 3)."""
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    steps = np.maximum(np.ceil(edges / spacing_m).astype(int), 1)
    points = []
    for count in np.unique(steps):
        i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        keep = i + j <= count
        weights = np.stack([i[keep], j[keep], count - i[keep] - j[keep]], axis=1) / count
        points.append(np.einsum("wk,fkd->fwd", weights, corners[steps == count]).reshape(-1, 3))
    return np.concatenate(points)


def _thin(points: NDArray[np.float64], cell_m: float) -> NDArray[np.float64]:
    """One point per occupied cell of a grid."""
    _, first = np.unique(np.floor(points / cell_m).astype(np.int64), axis=0, return_index=True)
    return points[np.sort(first)]


def _greedy_cover(points: NDArray[np.float64], tree: Any, radius_m: float) -> NDArray[np.int64]:
    """Indices of points such that every point lies within ``radius_m`` of one of them."""
    free = np.ones(len(points), bool)
    chosen = []
    for index in range(len(points)):
        if free[index]:
            chosen.append(index)
            free[tree.query_ball_point(points[index], radius_m)] = False
    return np.array(chosen, np.int64)


def _pack(collision: CollisionModel) -> Arrays:
    arrays: Arrays = {
        "pairs": collision.pairs,
        "floor_bodies": np.array(collision.floor_bodies, np.int64),
        "resolution_m": np.array(collision.resolution_m),
    }
    for index, body in enumerate(collision.bodies):
        arrays |= {f"{index}/{field.name}": np.asarray(getattr(body, field.name)) for field in fields(Body)}
    return arrays


def _unpack(model: RobotModel, arrays: Arrays) -> CollisionModel:
    bodies = []
    for index in sorted({int(name.split("/")[0]) for name in arrays if "/" in name}):
        values: dict[str, Any] = {field.name: arrays[f"{index}/{field.name}"] for field in fields(Body)}
        scalars = {name: value.item() for name, value in values.items() if value.ndim == 0}
        bodies.append(Body(**(values | scalars)))
    floor_bodies = tuple(arrays["floor_bodies"].tolist())
    return CollisionModel(model, tuple(bodies), arrays["pairs"], floor_bodies, float(arrays["resolution_m"]))
