"""Geometry behind the three-dimensional viewer: clouds, picture planes, boxes, picking. numpy only, world frame, metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataengine.geometry import camera, se3
from dataengine.record.video import Video

Array = np.ndarray
FIRST_CAMERA = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""Pose of a camera whose world is unknown: level, z up."""


@dataclass(frozen=True)
class Cloud:
    """Points (M, 3) in the world and the pixel (u, v) (M, 2) each came from."""

    points_m: Array
    pixels: Array


@dataclass(frozen=True)
class PicturePlane:
    """The image plane of a camera at z = ``distance_m``: pixel (u, v) lies where the ray of that pixel meets it."""

    K: Array
    T_world_cam: Array
    width: int
    height: int
    distance_m: float

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of the whole picture, borders at −0.5 and size − 0.5."""
        return self.width * self.distance_m / self.K[0, 0], self.height * self.distance_m / self.K[1, 1]

    @property
    def centre_cam_m(self) -> Array:
        """(3,) the middle of the picture, which is not the principal point in general."""
        middle = np.array([(self.width - 1) / 2, (self.height - 1) / 2, 1.0])
        return np.linalg.solve(self.K, middle) * self.distance_m

    def point_m(self, u: float, v: float) -> Array:
        """(3,) where pixel (u, v) lies in the world."""
        ray = np.linalg.solve(self.K, [u, v, 1.0]) * self.distance_m
        return se3.transform(self.T_world_cam, ray[None])[0]

    def corners_m(self) -> Array:
        """(4, 3) outer corners in the world: top left, top right, bottom right, bottom left."""
        uv = np.array([[-0.5, -0.5], [self.width - 0.5, -0.5], [self.width - 0.5, self.height - 0.5], [-0.5, self.height - 0.5]])
        rays = np.column_stack([uv, np.ones(4)]) @ np.linalg.inv(self.K).T
        return se3.transform(self.T_world_cam, rays * self.distance_m)

    def pixel(self, origin_m: Array, direction: Array) -> tuple[float, float] | None:
        """Where a world ray meets the picture, in pixels; None beside it, behind the origin or parallel to it."""
        T_cam_world = se3.inverse(self.T_world_cam)
        origin = se3.transform(T_cam_world, np.asarray(origin_m, np.float64)[None])[0]
        along = T_cam_world[:3, :3] @ np.asarray(direction, np.float64)
        if abs(along[2]) < 1e-12:
            return None
        step = (self.distance_m - origin[2]) / along[2]
        if step <= 0:
            return None
        u, v = camera.project(self.K, origin + step * along)
        return (float(u), float(v)) if camera.in_image(np.array([u, v]), self.width, self.height) else None


def camera_pose(row: np.void) -> Array:
    """`T_world_cam` of a row of the frame table; a level camera at the origin where the world is unknown (imported data)."""
    pose = np.asarray(row["T_world_cam"], np.float64)
    return pose if np.isfinite(pose).all() else FIRST_CAMERA


def intrinsics(row: np.void, width: int, height: int) -> Array:
    """K of a row; a guess (60° across) where it is unknown, so that a picture can be shown at all."""
    K = np.asarray(row["K"], np.float64)
    return K if np.isfinite(K).all() else camera.intrinsics_from_fov(width, height, np.deg2rad(60))


def depth_cloud(depth_z_m: Array, K: Array, T_world_cam: Array, max_depth_m: float, max_points: int) -> Cloud:
    """World points of the valid depths up to ``max_depth_m``, on a regular grid thinned to at most about ``max_points``."""
    stride = max(1, int(np.ceil(np.sqrt(depth_z_m.size / max(max_points, 1)))))
    v, u = np.mgrid[0 : depth_z_m.shape[0] : stride, 0 : depth_z_m.shape[1] : stride]
    depth = depth_z_m[::stride, ::stride].astype(np.float64)
    keep = (depth > 0) & (depth <= max_depth_m)
    pixels = np.column_stack([u[keep], v[keep]])
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T
    return Cloud(se3.transform(T_world_cam, rays * depth[keep][:, None]), pixels)


def nearest_on_ray(points_m: Array, origin_m: Array, direction: Array, tolerance_rad: float = 0.006) -> int | None:
    """Row of the nearest point within a thin cone around a ray; None without one."""
    if not len(points_m):
        return None
    along = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    offset = points_m - np.asarray(origin_m, np.float64)
    ahead = offset @ along
    aside = np.linalg.norm(offset - ahead[:, None] * along, axis=1)
    inside = np.flatnonzero((ahead > 0) & (aside < tolerance_rad * ahead))
    return int(inside[np.argmin(ahead[inside] + 4 * aside[inside])]) if len(inside) else None


def working_depth_m(video: Video) -> float:
    """How far the interesting part of a frame reaches: robot and objects plus 0.35 m; all valid depth where nothing is labelled."""
    depth = video.images.get("depth_z", video.images.get("depth_sim"))
    if depth is None or not (depth > 0).any():
        return 3.0
    labelled = np.zeros(depth.shape, bool)
    if "mask_link" in video.images:
        labelled |= video.images["mask_link"] > 0
    if "mask_object" in video.images:
        labelled |= (video.images["mask_object"] > 0) & (video.images["mask_object"] < 254)
    chosen = depth[labelled & (depth > 0)]
    return float(np.percentile(chosen, 98)) + 0.35 if chosen.size else float(np.percentile(depth[depth > 0], 98))


def beside_m(cloud: Cloud, T_world_cam: Array) -> Array:
    """(3,) horizontal step, along the camera's right, that moves a copy of the cloud clear of the cloud."""
    right = T_world_cam[:3, 0] * (1, 1, 0)
    right = right / max(float(np.linalg.norm(right)), 1e-9)
    if not len(cloud.points_m):
        return right
    low, high = np.percentile(cloud.points_m @ right, [1, 99])
    return right * (float(high - low) + 0.15)


def box_edges(size_m: tuple[float, float, float]) -> Array:
    """(12, 2, 3) edges of an axis-aligned box centred at the origin."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size_m
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]
    return corners[np.array(pairs)]
