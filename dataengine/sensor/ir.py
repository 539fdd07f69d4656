"""Infrared image pair of an active-stereo camera by ray casting: no path tracer, about 0.2 CPU-s at 1280 x 720.

One ray per output pixel and eye finds the surface, one shadow ray asks whether the projector lights it; the dots
themselves are analytic Gaussians in the projector's own image, widened by the footprint of a pixel on the surface.
Not modelled: light between surfaces, blooming, rolling shutter, calibration errors; mirrors and glass return nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import SensorError
from dataengine.geometry import se3
from dataengine.raycast.scene import RayScene
from dataengine.sensor.ir_kernels import develop, eye_rays, shade_eye, surface_points
from dataengine.sensor.pattern import dot_table
from dataengine.sensor.rig import StereoRig

LIGHT_SHARE = 0.1
"""Irradiance at 1 m of a light of relative strength 1, in units of a projector dot at 1 m (room lights hold little infrared)."""
TARGET_LEVEL, BRIGHT_PERCENTILE, MAX_GAIN = 0.8, 98.0, 16.0
"""Auto exposure brings the 98th percentile of the left image to 0.8 of full scale, with at most 16-fold gain."""
GAMMA = 1.6
_CURVE_STEPS = 1 << 14
SHADOW_START_M = 2e-4
"""Float32 hits are off by some 1e-6 of the distance: shadow rays end this far above their own triangle."""


@dataclass(frozen=True)
class IrSurface:
    """How a mesh looks at 850 nm.

    albedo: diffuse reflectance 0..1. variation: contrast 0..1 of a value noise on it with features of ``scale_m``.
    specular: strength of the projector's highlight. glossiness: 0 wide .. 1 narrow highlight (exponent 2..200).
    seed: pattern of the variation. dropout: mirror- or glass-like, returns no laser light to the camera.
    """

    albedo: float
    variation: float = 0.0
    specular: float = 0.0
    glossiness: float = 0.5
    seed: int = 0
    scale_m: float = 0.05
    dropout: bool = False

    def __post_init__(self) -> None:
        for name in ("albedo", "variation", "glossiness"):
            if not 0 <= getattr(self, name) <= 1:
                raise SensorError(f"IrSurface.{name} is {getattr(self, name)}; it must lie in 0..1")
        if not 0 <= self.specular < np.inf:
            raise SensorError(f"IrSurface.specular is {self.specular}; it must be 0 or a positive finite number")
        if not 0 < self.scale_m < np.inf:
            raise SensorError(f"IrSurface.scale_m is {self.scale_m}; it must be a positive length in metres")

    @property
    def exponent(self) -> float:
        """Blinn–Phong exponent."""
        return 2.0 * 100.0**self.glossiness


@dataclass(frozen=True)
class IrNoise:
    """Imaging noise. The defaults behave like a D415.

    speckle: standard deviation of the laser speckle relative to the dot's brightness, independent per eye and pixel.
    full_e, read_e: electrons at full scale and of read noise. ambient: pattern-free light relative to a dot at 1 m.
    pattern_seed: which projector.
    """

    speckle: float = 0.25
    full_e: float = 10000.0
    read_e: float = 6.0
    ambient: float = 0.02
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < np.inf or (field.name == "full_e" and value == 0):
                raise SensorError(f"IrNoise.{field.name} is {value}; it must be finite and not negative (full_e: > 0)")


@dataclass(frozen=True, eq=False)
class IrPair:
    """left, right: (native height, native width) uint8. exposure_gain: what auto exposure multiplied irradiance by."""

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    exposure_gain: float


def render_ir_pair(
    scene: RayScene,
    surfaces: Sequence[IrSurface],
    rig: StereoRig,
    T_world_cam: ArrayLike,
    lights_world: Sequence[tuple[Sequence[float], float]],
    noise: IrNoise,
    rng: np.random.Generator,
    T_world_mesh: ArrayLike | None = None,
) -> IrPair:
    """Both infrared images of the posed scene, as the sensor delivers them.

    surfaces: one per mesh of the scene. T_world_cam (4, 4): the left eye. lights_world: (xyz in m, relative strength) of
    other infrared light, unshadowed, falling off with the square of the distance; see `LIGHT_SHARE`.
    rng: four 64-bit keys are drawn from it; the same state gives the same bits.
    T_world_mesh (M, 4, 4): when given, albedo patterns move with the meshes, else they stay in the world.
    """
    camera = _checked_pose(T_world_cam, "T_world_cam")
    table, seeds = _surface_table(surfaces, len(scene.meshes))
    mesh_poses = np.broadcast_to(np.eye(4), (len(surfaces), 4, 4)) if T_world_mesh is None else se3.inverse(T_world_mesh)
    if mesh_poses.shape != (len(surfaces), 4, 4):
        raise SensorError(f"T_world_mesh has shape {mesh_poses.shape}; expected ({len(surfaces)}, 4, 4), one per surface")
    fixed_to, pattern = np.ascontiguousarray(mesh_poses), dot_table(noise.pattern_seed)
    keys = rng.integers(0, 1 << 63, 4, dtype=np.uint64)
    images = []
    for eye_x, key in ((0.0, keys[0]), (rig.baseline_m, keys[1])):
        T_world_eye = camera @ se3.make(np.eye(3), [eye_x, 0.0, 0.0])
        lights = _lights_in_eye(lights_world, T_world_eye)
        view = _cast_eye(scene, rig, T_world_eye, camera @ [rig.projector_x_m, 0.0, 0.0, 1.0])
        light = np.empty((rig.native_height, rig.native_width), np.float32)
        shade_eye(
            *view, T_world_eye, fixed_to, rig.K, float(rig.projector_x_m - eye_x), table, seeds,
            float(noise.ambient), lights, pattern, float(noise.speckle), key, light,
        )  # fmt: skip  # float(): an int would compile a second version of the kernel
        images.append(light)
    gain = auto_exposure(images[0])
    left, right = (_grey(image, gain, noise, key) for image, key in zip(images, keys[2:], strict=True))
    return IrPair(left, right, gain)


def auto_exposure(irradiance: NDArray[np.float32]) -> float:
    """Gain that brings the 98th percentile of every third pixel to 0.8, at most 16."""
    bright = float(np.percentile(irradiance[::3, ::3], BRIGHT_PERCENTILE))
    return min(TARGET_LEVEL / bright, MAX_GAIN) if bright > 0 else MAX_GAIN


def _cast_eye(
    scene: RayScene, rig: StereoRig, T_world_eye: NDArray[np.float64], projector_world: NDArray[np.float64]
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """(depth, world normal, mesh index, lit by the projector), one ray per output pixel."""
    size = (rig.height, rig.width)
    rays = np.empty((*size, 3), np.float32)
    eye_rays(rig.K, T_world_eye[:3, :3], rays)
    hits = scene.cast(T_world_eye[:3, 3], rays.reshape(-1, 3))
    points = np.empty((rig.height * rig.width, 3))
    count = surface_points(T_world_eye[:3, 3], rays, hits.distance, hits.normal, SHADOW_START_M, points)
    lit = np.zeros(len(points), np.bool_)
    lit[hits.mesh_index >= 0] = ~scene.occluded(projector_world[:3], points[:count], slack_m=SHADOW_START_M)
    return hits.distance.reshape(size), hits.normal.reshape(*size, 3), hits.mesh_index.reshape(size), lit.reshape(size)


def _grey(irradiance: NDArray[np.float32], gain: float, noise: IrNoise, key: np.uint64) -> NDArray[np.uint8]:
    out = np.empty(irradiance.shape, np.uint8)
    develop(irradiance, float(gain), float(noise.full_e), float(noise.read_e), key, _tone_curve(), out)
    return out


@lru_cache(maxsize=1)
def _tone_curve() -> NDArray[np.uint8]:
    """Grey value of each linear level 0..1: gamma 1.6, 8 bit."""
    curve = np.rint(255 * np.linspace(0, 1, _CURVE_STEPS) ** (1 / GAMMA)).astype(np.uint8)
    curve.setflags(write=False)
    return curve


def _surface_table(surfaces: Sequence[IrSurface], meshes: int) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    if len(surfaces) != meshes:
        raise SensorError(f"{len(surfaces)} infrared surfaces for a scene of {meshes} meshes; give exactly one per mesh")
    rows = [(s.albedo, s.variation, s.specular, s.exponent, float(s.dropout), 1 / s.scale_m) for s in surfaces]
    seeds = np.array([s.seed % (1 << 63) for s in surfaces], np.uint64)
    return np.array(rows, np.float64).reshape(-1, 6), seeds


def _lights_in_eye(lights: Sequence[tuple[Sequence[float], float]], T_world_eye: NDArray[np.float64]) -> NDArray[np.float64]:
    """(L, 4): position in the eye frame (m) and irradiance."""
    table = np.zeros((len(lights), 4))
    for row, (position, strength) in zip(table, lights, strict=True):
        if len(position) != 3 or not np.isfinite([*position, strength]).all() or strength < 0:
            raise SensorError(f"light {position}, {strength} is not usable; give (x, y, z) in metres and a strength >= 0")
        row[:3], row[3] = se3.transform(se3.inverse(T_world_eye), [position])[0], LIGHT_SHARE * strength
    return table


def _checked_pose(T: ArrayLike, name: str) -> NDArray[np.float64]:
    pose = np.asarray(T, np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise SensorError(f"{name} must be a finite 4x4 transform, got shape {pose.shape}")
    if np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() > 1e-6:
        raise SensorError(f"{name} is not rigid: its rotation block is not orthonormal; remove scale and shear")
    return pose
