"""Inputs shared by the models that turn true depth into measured depth: checks, viewing rays, angle of incidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import SensorError
from dataengine.raycast.views import pixel_rays
from dataengine.sensor.rig import checked_intrinsics


def checked_depth_and_normals(
    depth_z_m: ArrayLike, normals_cam: ArrayLike, K: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(depth (H, W), normals (H, W, 3), K) as float64, or one clear SensorError."""
    depth, normals = np.asarray(depth_z_m, np.float64), np.asarray(normals_cam, np.float64)
    if depth.ndim != 2 or depth.size == 0:
        raise SensorError(f"depth_z_m has shape {depth.shape}; it must be an image (H, W) in metres")
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise SensorError("depth_z_m contains NaN, infinite or negative values; use 0 where there is no surface")
    if normals.shape != (*depth.shape, 3):
        raise SensorError(f"normals_cam has shape {normals.shape}; it must be {(*depth.shape, 3)} for this depth image")
    if not np.isfinite(normals).all():
        raise SensorError("normals_cam contains NaN or infinite values; use 0, 0, 0 where there is no surface")
    return depth, normals, checked_intrinsics(K)


def viewing_rays(K: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W, 3) rays with z = 1 through the pixel centres: range_m = |ray| · depth_z_m."""
    return pixel_rays(K, shape[1], shape[0]).reshape(*shape, 3)


def incidence_cosine(rays: NDArray[np.float64], normals_cam: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W) cosine of the angle between surface normal and viewing ray, 0..1; a missing normal (zeros) counts as 1."""
    dot = np.abs(np.einsum("...i,...i", rays, normals_cam))
    length = np.linalg.norm(normals_cam, axis=-1)
    known = length > 1e-6
    return np.where(known, np.clip(dot / np.where(known, length * np.linalg.norm(rays, axis=-1), 1), 0, 1), 1.0)
