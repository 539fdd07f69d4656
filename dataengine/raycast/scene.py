"""A set of rigid triangle meshes that can be posed and hit with rays.

Everything lives in one Embree geometry that is rebuilt for each pose: for the 10^5 triangles of a
robot scene the rebuild costs about as much as the rays of one frame, and needs no instancing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from embreex.mesh_construction import TriangleMesh  # pyright: ignore[reportMissingImports] (compiled, no stubs)
from embreex.rtcore_scene import EmbreeScene  # pyright: ignore[reportMissingImports]
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import DataEngineError


@dataclass(frozen=True, eq=False)
class TriMesh:
    """One rigid mesh in its own frame: ``vertices_m`` (V, 3) float64, ``faces`` (F, 3) int32."""

    vertices_m: NDArray[np.float64]
    faces: NDArray[np.int32]

    def __post_init__(self) -> None:
        vertices = np.ascontiguousarray(self.vertices_m, np.float64).reshape(-1, 3)
        faces = np.ascontiguousarray(self.faces, np.int32).reshape(-1, 3)
        if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise DataEngineError(f"mesh faces refer to vertices {faces.min()}..{faces.max()}, but there are {len(vertices)} vertices")
        if not np.isfinite(vertices).all():
            raise DataEngineError("mesh vertices contain NaN or infinite coordinates; repair the mesh file")
        object.__setattr__(self, "vertices_m", vertices)
        object.__setattr__(self, "faces", faces)

    @cached_property
    def bvh(self) -> Bvh:
        """Acceleration structure in the mesh's own frame, built at the first use and good for every pose."""
        return Bvh(self.vertices_m.astype(np.float32), self.faces)


@dataclass(frozen=True, eq=False)
class Hits:
    """First hit of each of N rays.

    distance: (N,) float32, in units of the ray's direction vector, so rays with z = 1 give planar depth; inf: none.
    mesh_index: (N,) int32, -1 none. triangle: (N,) int32, row of that mesh's ``faces``, -1 none.
    normal: (N, 3) float32, unit geometric normal in world axes, turned towards the ray's origin; zero: none.
    """

    distance: NDArray[np.float32]
    mesh_index: NDArray[np.int32]
    triangle: NDArray[np.int32]
    normal: NDArray[np.float32]


class Bvh:
    """Embree acceleration structure over fixed world triangles; empty geometry is allowed and never hit."""

    def __init__(self, vertices_m: NDArray[np.float32], faces: NDArray[np.int32], watertight: bool = True) -> None:
        self._scene = None
        if len(faces):
            self._scene = EmbreeScene(robust=watertight)
            TriangleMesh(self._scene, vertices_m, faces)

    def first_hit(self, origins_m: ArrayLike, directions: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
        """Distance (N,) float32 (inf none), triangle (N,) int32 (-1 none), unnormalised normal (N, 3) float32."""
        rays_from, rays_along = _as_rays(origins_m, directions)
        n = len(rays_along)
        if self._scene is None or n == 0:
            return np.full(n, np.inf, np.float32), np.full(n, -1, np.int32), np.zeros((n, 3), np.float32)
        out = self._scene.run(rays_from, rays_along, output=1)
        triangle = out["primID"]
        distance = np.where(triangle < 0, np.float32(np.inf), out["tfar"])
        return distance, triangle, out["Ng"]

    def any_hit(self, origins_m: ArrayLike, directions: ArrayLike, length: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether anything lies within ``length`` (N,) times the direction vector of each ray."""
        rays_from, rays_along = _as_rays(origins_m, directions)
        if self._scene is None or len(rays_along) == 0:
            return np.zeros(len(rays_along), bool)
        # embreex answers 0 for "something in the way" and -1 for "free" (measured; not documented).
        return self._scene.run(rays_from, rays_along, query="OCCLUDED", dists=np.asarray(length, np.float32)) == 0


class RayScene:
    """Meshes in rigid poses, ready for ray queries.

    ``watertight`` asks Embree for robust traversal: no ray slips between two triangles that share an
    edge. It costs about a third more per ray; labels need it, noisy images do not.
    The object may be built before ``os.fork`` and used after it.
    """

    def __init__(self, meshes: Sequence[TriMesh], watertight: bool = True) -> None:
        self.meshes = tuple(meshes)
        self._watertight = watertight
        self._bvh: Bvh | None = None
        self._vertices = np.zeros((0, 3), np.float32)
        self._faces = np.zeros((0, 3), np.int32)
        self._triangles_world: NDArray[np.float32] | None = None
        self.first_triangle = np.zeros(len(self.meshes) + 1, np.int64)
        """(M+1,) row of ``triangles_world`` where each mesh starts; an excluded mesh has no rows."""
        self.mesh_of_triangle = np.zeros(0, np.int32)
        """(T,) mesh index of each row of ``triangles_world``."""

    def pose(self, T_world_mesh: ArrayLike, include: ArrayLike | None = None) -> None:
        """Move the meshes to T_world_mesh (M, 4, 4); ``include`` (M,) bool leaves the others out of the scene."""
        poses = np.asarray(T_world_mesh, np.float64)
        if poses.shape != (len(self.meshes), 4, 4):
            raise DataEngineError(f"pose() got shape {poses.shape}, expected ({len(self.meshes)}, 4, 4): one per mesh")
        chosen = np.ones(len(self.meshes), bool) if include is None else np.asarray(include, bool)
        if chosen.shape != (len(self.meshes),):
            raise DataEngineError(f"include has shape {chosen.shape}, expected ({len(self.meshes)},): a flag per mesh")
        self._vertices, self._faces, counts = merge_posed(self.meshes, poses, np.flatnonzero(chosen))
        self.first_triangle = np.concatenate([[0], np.cumsum(counts)])
        self.mesh_of_triangle = np.repeat(np.arange(len(self.meshes), dtype=np.int32), counts)
        self._triangles_world = None
        self._bvh = Bvh(self._vertices, self._faces, self._watertight)

    @property
    def triangles_world(self) -> NDArray[np.float32]:
        """(T, 3, 3) world corners of all included triangles, meshes concatenated in order."""
        self._built()
        if self._triangles_world is None:
            self._triangles_world = self._vertices[self._faces]
        return self._triangles_world

    def cast(self, origins_m: ArrayLike, directions: ArrayLike) -> Hits:
        """First hit of each ray. ``origins_m`` (N, 3) or one (3,) for all, ``directions`` (N, 3), any length, world."""
        distance, row, normal = self._built().first_hit(origins_m, directions)
        hit = row >= 0
        if not len(self.mesh_of_triangle):
            return Hits(distance, np.full(len(row), -1, np.int32), row.copy(), normal)
        mesh = np.where(hit, self.mesh_of_triangle[row], np.int32(-1))
        triangle = np.where(hit, row - self.first_triangle[mesh], -1).astype(np.int32)
        return Hits(distance, mesh, triangle, _facing(normal, np.asarray(directions, np.float32), hit))

    def occluded(self, origins_m: ArrayLike, targets_m: ArrayLike, slack_m: float = 1e-4) -> NDArray[np.bool_]:
        """Whether a surface lies between origin and target, ignoring the last ``slack_m`` at either end. (N,) bool."""
        targets = np.asarray(targets_m, np.float64).reshape(-1, 3)
        origins = np.broadcast_to(np.asarray(origins_m, np.float64), targets.shape)
        span = targets - origins
        length = np.linalg.norm(span, axis=1)
        unit = span / np.maximum(length, 1e-12)[:, None]
        free = length - 2 * slack_m
        blocked = self._built().any_hit(origins + slack_m * unit, unit, np.maximum(free, 0).astype(np.float32))
        return blocked & (free > 0)

    def _built(self) -> Bvh:
        if self._bvh is None:
            raise DataEngineError("RayScene has no pose yet; call pose(T_world_mesh) before casting rays")
        return self._bvh


def merge_posed(
    meshes: Sequence[TriMesh], T_world_mesh: NDArray[np.float64], chosen: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """World vertices (V, 3) float32, faces (T, 3) int32 of the chosen meshes, and triangle counts (M,) of all."""
    counts = np.zeros(len(meshes), np.int64)
    vertices, faces, offset = [np.zeros((0, 3), np.float32)], [np.zeros((0, 3), np.int32)], 0
    for index in np.asarray(chosen, np.intp):
        mesh, pose = meshes[index], T_world_mesh[index]
        vertices.append((mesh.vertices_m @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32))
        faces.append(mesh.faces + np.int32(offset))
        offset += len(mesh.vertices_m)
        counts[index] = len(mesh.faces)
    return np.concatenate(vertices), np.concatenate(faces), counts


def _as_rays(origins_m: ArrayLike, directions: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    along = np.ascontiguousarray(directions, np.float32)
    if along.ndim != 2 or along.shape[1] != 3:
        raise DataEngineError(f"ray directions have shape {along.shape}, expected (N, 3)")
    return np.ascontiguousarray(np.broadcast_to(np.asarray(origins_m, np.float32), along.shape)), along


def _facing(normal: NDArray[np.float32], directions: NDArray[np.float32], hit: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Unit normals turned against the ray, zero where nothing was hit."""
    length = np.sqrt(np.einsum("ij,ij->i", normal, normal))
    towards = np.where(np.einsum("ij,ij->i", normal, directions) > 0, np.float32(-1), np.float32(1))
    scale: NDArray[np.float32] = np.where(hit, towards / np.maximum(length, np.float32(1e-30)), np.float32(0))
    return normal * scale[:, None]
