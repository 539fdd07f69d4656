"""What a pinhole camera sees of a RayScene: labels, amodal masks, visibility of points.

Camera frame OpenCV (x right, y down, z forward), pixel centres at integer coordinates, depth planar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import DataEngineError
from dataengine.geometry import se3
from dataengine.raycast.scene import RayScene, TriMesh

NEAR_M = 1e-6
"""Vertices closer to the camera plane than this have no usable projection."""


@dataclass(frozen=True, eq=False)
class LabelView:
    """Per-pixel first hit at the pixel centre.

    depth_z_m (H, W) float32, 0 none; mesh_index and triangle (H, W) int32, -1 none; normal_cam (H, W, 3) float32 unit
    normals in camera axes turned to the camera, zero none.
    """

    depth_z_m: NDArray[np.float32]
    mesh_index: NDArray[np.int32]
    triangle: NDArray[np.int32]
    normal_cam: NDArray[np.float32]


def pixel_rays(K: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Camera-frame directions with z = 1 through every pixel centre, row by row: (height * width, 3)."""
    v, u = np.mgrid[0:height, 0:width]
    return _rays_through(np.asarray(K, np.float64), u.ravel(), v.ravel())


def render_labels(scene: RayScene, K: ArrayLike, T_world_cam: ArrayLike, width: int, height: int) -> LabelView:
    """Depth, mesh ids, triangles and normals of the posed scene in one cast."""
    pose = np.asarray(T_world_cam, np.float64)
    hits = scene.cast(pose[:3, 3], pixel_rays(K, width, height) @ pose[:3, :3].T)
    size = (height, width)
    depth = np.where(hits.mesh_index >= 0, hits.distance, np.float32(0)).reshape(size)
    normal_cam = hits.normal @ pose[:3, :3].astype(np.float32)
    return LabelView(depth, hits.mesh_index.reshape(size), hits.triangle.reshape(size), normal_cam.reshape(*size, 3))


def amodal_masks(
    scene: RayScene, T_world_mesh: ArrayLike, groups: Sequence[Sequence[int]], K: ArrayLike, T_world_cam: ArrayLike, width: int, height: int
) -> NDArray[np.bool_]:
    """Silhouette of each group of meshes as if nothing else existed: (len(groups), height, width) bool.

    The scene's own pose is neither used nor changed. Each mesh is cast alone, in its own frame (so its acceleration
    structure is built once, however it moves) and only within its projected bounding box. Against `render_labels` the
    rounding differs by about 1e-7, so single pixels exactly on an outline may fall on the other side.
    """
    poses, intrinsics = np.asarray(T_world_mesh, np.float64), np.asarray(K, np.float64)
    masks = np.zeros((len(groups), height, width), bool)
    users: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        for index in group:
            users.setdefault(int(index), []).append(row)
    for index, rows in users.items():
        T_mesh_cam = se3.inverse(poses[index]) @ np.asarray(T_world_cam, np.float64)
        silhouette = _silhouette(scene.meshes[index], intrinsics, T_mesh_cam, width, height)
        if silhouette is not None:
            window, covered = silhouette
            for row in rows:
                masks[row][window] |= covered
    return masks


def _silhouette(
    mesh: TriMesh, K: NDArray[np.float64], T_mesh_cam: NDArray[np.float64], width: int, height: int
) -> tuple[tuple[slice, slice], NDArray[np.bool_]] | None:
    """Window (rows, columns) of the image and which of its pixels the mesh alone covers; None: not in view."""
    box = _projected_window(mesh.vertices_m, K, T_mesh_cam, width, height)
    if box is None:
        return None
    left, top, right, bottom = box
    v, u = np.mgrid[top:bottom, left:right]
    rays = _rays_through(K, u.ravel(), v.ravel()) @ T_mesh_cam[:3, :3].T
    _, triangle, _ = mesh.bvh.first_hit(T_mesh_cam[:3, 3], rays)
    return (slice(top, bottom), slice(left, right)), (triangle >= 0).reshape(u.shape)


def point_visible(
    scene: RayScene,
    points_world_m: ArrayLike,
    own_mesh: ArrayLike,
    T_world_cam: ArrayLike,
    see_through: ArrayLike | None = None,
    slack_m: float = 1e-3,
    embedded_m: ArrayLike = 0.2,
) -> NDArray[np.bool_]:
    """Whether each labelled point can be told from the image at its pixel. (P,) bool; ignores the image border.

    Keypoints mostly lie INSIDE the robot (joint origins), so a plain shadow ray would call nearly all of
    them hidden. Here a point is visible when the first surface on the ray from the camera

    * is not in front of the point by more than ``slack_m``, or there is none; or
    * belongs to the body that carries the point (``own_mesh`` (P,), -1: none) or to one of its
      ``see_through`` meshes ((P, M) bool, e.g. the links on both sides of the joint), and the point lies
      at most ``embedded_m`` (scalar or (P,)) behind it. The limit makes a link that folds back in
      front of its own joint hide it; choose about the thickness of the links.

    So the label answers "does this pixel show the part that holds the point", which is what a detector can learn.
    """
    points = np.asarray(points_world_m, np.float64).reshape(-1, 3)
    own = np.asarray(own_mesh, np.intp).reshape(-1)
    if own.shape != (len(points),):
        raise DataEngineError(f"own_mesh has {own.size} entries for {len(points)} points; one per point, -1 for none")
    eye = np.asarray(T_world_cam, np.float64)[:3, 3]
    span = points - eye
    hits = scene.cast(eye, span)
    behind_m = (1.0 - hits.distance.astype(np.float64)) * np.linalg.norm(span, axis=1)
    transparent = hits.mesh_index == own
    if see_through is not None:
        allowed = np.asarray(see_through, bool)
        transparent |= allowed[np.arange(len(points)), np.maximum(hits.mesh_index, 0)]
    transparent &= hits.mesh_index >= 0
    return (behind_m <= slack_m) | (transparent & (behind_m <= np.asarray(embedded_m)))


def _rays_through(K: NDArray[np.float64], u: NDArray, v: NDArray) -> NDArray[np.float64]:
    """K^-1 (u, v, 1): exact for upper-triangular K, skew included."""
    y = (v - K[1, 2]) / K[1, 1]
    x = (u - K[0, 2] - K[0, 1] * y) / K[0, 0]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def _projected_window(
    vertices: NDArray, K: NDArray[np.float64], T_world_cam: NDArray[np.float64], width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Half-open pixel window (left, top, right, bottom) around the projected vertices; None: not in view."""
    if not len(vertices):
        return None
    in_cam = (vertices - T_world_cam[:3, 3]) @ T_world_cam[:3, :3]
    z = in_cam[:, 2]
    if z.max() <= NEAR_M:
        return None
    if z.min() <= NEAR_M:
        return 0, 0, width, height  # the mesh reaches behind the camera: its projection has no bounding box
    uv = in_cam @ K.T
    uv = uv[:, :2] / uv[:, 2:]
    low = np.clip(np.floor(uv.min(axis=0)), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(uv.max(axis=0)) + 1, 0, (width, height)).astype(int)
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
