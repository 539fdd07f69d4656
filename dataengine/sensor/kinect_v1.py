"""Structured-light depth of the first Kinect (Xbox 360): noise of Nguyen, Izadi & Lovell, 3DIMPVT 2012.

Axial and lateral noise by distance and angle, disparity steps of 1/8 px, the projector's shadow, range and grazing limits.
Not modelled: dropouts on dark or shiny surfaces, the 9 x 9 correlation window's smoothing, interference of two sensors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import SensorError
from dataengine.sensor.incidence import checked_depth_and_normals, incidence_cosine, viewing_rays
from dataengine.sensor.stereo_kernels import drop_hidden


@dataclass(frozen=True)
class KinectV1:
    """Limits and geometry. focal_px (at 640 x 480) and baseline_m set the depth steps; steps_per_px = 0 turns them off.

    Distances in metres; max_angle_rad: surfaces seen at a more grazing angle return nothing.
    Lateral noise is given in pixels of a camera with focal_px and scales with the focal length of the image at hand.
    """

    focal_px: float = 585.0
    baseline_m: float = 0.075
    steps_per_px: float = 8.0
    min_depth_m: float = 0.5
    max_depth_m: float = 5.0
    max_angle_rad: float = 1.4
    lateral: bool = True
    shadow: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < np.inf:
                raise SensorError(f"KinectV1.{field.name} is {value}; it must be finite and not negative")
        if self.min_depth_m >= self.max_depth_m or self.focal_px == 0 or self.baseline_m == 0:
            raise SensorError("KinectV1 needs min_depth_m < max_depth_m and positive focal_px and baseline_m")


def axial_sigma_m(z_m: ArrayLike, angle_rad: ArrayLike) -> NDArray[np.float64]:
    """σ_z = 0.0012 + 0.0019 (z − 0.4)², plus 0.0001/√z · θ²/(π/2 − θ)² beyond θ = 60°; z in m, θ to the viewing ray."""
    z, angle = np.asarray(z_m, np.float64), np.asarray(angle_rad, np.float64)
    gap = np.maximum(np.pi / 2 - angle, 1e-3)
    grazing = 0.0001 / np.sqrt(np.maximum(z, 1e-6)) * angle**2 / gap**2
    return 0.0012 + 0.0019 * (z - 0.4) ** 2 + np.where(angle > np.pi / 3, grazing, 0.0)


def lateral_sigma_px(angle_rad: ArrayLike) -> NDArray[np.float64]:
    """σ_L = 0.8 + 0.035 θ/(π/2 − θ) pixels of the original camera."""
    angle = np.asarray(angle_rad, np.float64)
    return 0.8 + 0.035 * angle / np.maximum(np.pi / 2 - angle, 1e-3)


def simulate_kinect_v1(
    depth_z_m: ArrayLike, normals_cam: ArrayLike, K: ArrayLike, rng: np.random.Generator, settings: KinectV1 | None = None
) -> NDArray[np.float32]:
    """Measured depth_z_m (H, W) float32, 0 = none, of a true depth_z_m (H, W) with normals_cam (H, W, 3).

    The total axial noise follows `axial_sigma_m`: it was fitted to a device that quantises, so the variance of the
    quantisation (step²/12) is taken off the Gaussian. The lateral noise moves edges, not planes: a pixel takes the
    *surface* of a neighbour, evaluated on its own ray.
    """
    chosen = settings or KinectV1()
    depth, normals, intrinsics = checked_depth_and_normals(depth_z_m, normals_cam, K)
    rays = viewing_rays(intrinsics, (depth.shape[0], depth.shape[1]))
    angle = np.arccos(incidence_cosine(rays, normals))
    lit = _lit(depth, intrinsics[0, 0], chosen.baseline_m) if chosen.shadow else depth > 0
    depth = np.where(lit, depth, 0.0)
    draws = rng.standard_normal((3, *depth.shape))
    if chosen.lateral:
        sigma = lateral_sigma_px(angle) * intrinsics[0, 0] / chosen.focal_px
        depth, angle = _shifted(depth, normals, angle, rays, np.rint(draws[:2] * sigma).astype(np.intp))
    step = depth**2 / (chosen.focal_px * chosen.baseline_m * chosen.steps_per_px) if chosen.steps_per_px else 0.0
    sigma = np.sqrt(np.maximum(axial_sigma_m(depth, angle) ** 2 - np.square(step) / 12, 0))
    measured = _stepped(depth + sigma * draws[2], chosen)
    usable = (depth > 0) & (angle <= chosen.max_angle_rad)
    usable &= (measured >= chosen.min_depth_m) & (measured <= chosen.max_depth_m)
    return np.where(usable, measured, 0.0).astype(np.float32)


def _lit(depth: NDArray[np.float64], focal_px: float, baseline_m: float) -> NDArray[np.bool_]:
    """Pixels that the projector, baseline_m to the right of the camera, reaches past the surfaces the camera sees."""
    disparity = np.where(depth > 0, focal_px * baseline_m / np.where(depth > 0, depth, 1), np.nan).astype(np.float32)
    drop_hidden(disparity, 1, 1.5)
    return ~np.isnan(disparity)


def _shifted(
    depth: NDArray[np.float64], normals: NDArray[np.float64], angle: NDArray[np.float64], rays: NDArray[np.float64],
    offset_px: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Depth and angle of the surface offset_px (2, H, W) (rows, columns) away, continued to each pixel's own ray."""
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    at = np.clip(rows + offset_px[0], 0, height - 1), np.clip(columns + offset_px[1], 0, width - 1)
    taken, normal = depth[at], normals[at]
    plane, along = taken * np.einsum("...i,...i", normal, rays[at]), np.einsum("...i,...i", normal, rays)
    continued = plane / np.where(np.abs(along) > 1e-6, along, np.inf)
    # A surface seen edge-on has no sensible continuation: keep its depth.
    sensible = np.abs(continued - taken) < 0.1 * taken
    return np.where(sensible, continued, taken), angle[at]


def _stepped(depth: NDArray[np.float64], settings: KinectV1) -> NDArray[np.float64]:
    """Depth of the nearest step of disparity; 0 where the noise left nothing positive."""
    positive = depth > 0
    if not settings.steps_per_px:
        return np.where(positive, depth, 0.0)
    scale = settings.focal_px * settings.baseline_m * settings.steps_per_px
    steps = np.rint(scale / np.where(positive, depth, np.inf))
    return np.where(steps > 0, scale / np.maximum(steps, 1), 0.0)
