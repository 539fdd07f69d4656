"""Intrinsics of known cameras, camera poses on a shell around the robot, and whether they see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.config.spec import CameraSpec
from dataengine.errors import SceneError
from dataengine.geometry import se3
from dataengine.geometry.camera import crop_intrinsics, in_image, intrinsics, intrinsics_from_fov, project, resize_intrinsics
from dataengine.scene.draws import Draws
from dataengine.scene.handheld import handheld_path
from dataengine.scene.robot_sweep import RobotSweep

Array = NDArray[np.float64]
Path = Callable[[Array], Array]
"""Times (F,) in s → T_world_cam (F,4,4)."""

MIN_HEIGHT_M = 0.05
"""The camera stays this far above the plane of the table."""
MIN_ROBOT_DISTANCE_M = 0.15
NEAREST_M = 0.05
GRID_COLUMNS = 40
"""The image is divided into so many columns of square cells to estimate how much of it the robot covers."""
MAX_SWING_RAD = np.radians(10.0)
"""A moving camera's elevation swings by at most this much."""


@dataclass(frozen=True)
class CameraPreset:
    """A camera at the image size its focal length is quoted for; square pixels."""

    width: int
    height: int
    f_px: float
    cx_px: float
    cy_px: float


def _centred(width: int, height: int, f_px: float) -> CameraPreset:
    return CameraPreset(width, height, f_px, (width - 1) / 2, (height - 1) / 2)


def _with_fov(width: int, height: int, fov_deg: float) -> CameraPreset:
    return _centred(width, height, float(intrinsics_from_fov(width, height, np.radians(fov_deg))[0, 0]))


PRESETS: dict[str, CameraPreset] = {
    "simrgbd": CameraPreset(640, 360, 502.30, 319.5, 179.5),  # RoboKeyGen's authors; 65.0°
    "realsense_d415": _centred(1280, 720, 924.0),  # 69.4°
    "realsense_d435": _centred(848, 480, 430.14),  # its infrared camera, 89.2°
    "azure_kinect": _with_fov(1280, 720, 93.01),
    "xbox360_kinect": _with_fov(640, 480, 62.73),
}


def camera_matrix(spec: CameraSpec) -> Array:
    """K (3,3) for the spec's image size.

    A preset's image is scaled evenly until it covers the wanted size and cropped about its centre, so pixels stay
    square. Free intrinsics are taken as given.
    """
    if spec.preset == "free":
        return _free(spec)
    p = PRESETS[spec.preset]
    scale = max(spec.width / p.width, spec.height / p.height)
    K = resize_intrinsics(intrinsics(p.f_px, p.f_px, p.cx_px, p.cy_px), scale, scale)
    return crop_intrinsics(K, (p.width * scale - spec.width) / 2, (p.height * scale - spec.height) / 2)


def _free(spec: CameraSpec) -> Array:
    if spec.horizontal_fov_deg is not None:
        return intrinsics_from_fov(spec.width, spec.height, np.radians(spec.horizontal_fov_deg))
    if spec.fx_px is None:
        raise SceneError("camera preset 'free' needs fx_px or horizontal_fov_deg")
    cx = (spec.width - 1) / 2 if spec.cx_px is None else spec.cx_px
    cy = (spec.height - 1) / 2 if spec.cy_px is None else spec.cy_px
    return intrinsics(spec.fx_px, spec.fy_px or spec.fx_px, cx, cy)


def place_camera(spec: CameraSpec, draws: Draws, robot: RobotSweep, base_yaw_rad: float, times_s: Array) -> tuple[Path, Counter[str]]:
    """Draw paths until one sees the robot in every frame; returns it and the rejected draws by reason.

    Raises SceneError with the counts after `spec.tries` draws.
    """
    fov = spec.placement_fov_deg
    K = camera_matrix(spec) if fov is None else intrinsics_from_fov(spec.width, spec.height, np.radians(fov))
    rejected: Counter[str] = Counter()
    for _ in range(spec.tries):
        path = draw_path(spec, draws, robot.middle_m, base_yaw_rad, float(times_s[-1]) / 2)
        reason = objection(spec, K, path(times_s), robot)
        if reason is None:
            return path, rejected
        rejected[reason] += 1
    raise SceneError(_gave_up(draws.video, spec.tries, rejected))


def draw_path(spec: CameraSpec, draws: Draws, middle_m: Array, base_yaw_rad: float, middle_s: float) -> Path:
    """One path on the shell: standing still, circling with a gentle swing in height, at most `speed_m_s` fast, or carried by a hand."""
    distance = draws.real("camera.distance_m", spec.distance_m)
    azimuth = np.radians(draws.real("camera.azimuth_deg", spec.azimuth_deg)) + base_yaw_rad
    elevation = np.radians(draws.real("camera.elevation_deg", spec.elevation_deg))
    roll = np.radians(draws.real("camera.roll_deg", spec.roll_deg))
    target = middle_m + [draws.real(f"camera.look_at_offset_m.{axis}", spec.look_at_offset_m) for axis in "xyz"]
    if spec.path == "handheld":
        way = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        return handheld_path(spec.handheld, draws, middle_m + distance * way, target, roll, 2 * middle_s)
    speed, heading = 0.0, 0.0
    if spec.path == "moving":
        speed = draws.real("camera.speed_m_s", spec.speed_m_s)
        heading = draws.uniform("camera.heading_rad", -np.pi, np.pi)
    lowest = max(abs(elevation) - MAX_SWING_RAD, 0.0)  # nearest to the equator, where circling is fastest
    turn_rad_s = speed * np.cos(heading) / (distance * np.cos(lowest))
    swing_rad_s = abs(speed * np.sin(heading)) / (distance * MAX_SWING_RAD)
    swing_rad = MAX_SWING_RAD * np.sign(np.sin(heading))

    def path(times_s: Array) -> Array:
        t = np.asarray(times_s, float) - middle_s
        a, e = azimuth + turn_rad_s * t, np.clip(elevation + swing_rad * np.sin(swing_rad_s * t), -1.55, 1.55)
        eye = middle_m + distance * np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1)
        return np.stack([se3.look_at(p, target, roll_rad=roll) for p in eye])

    return path


def objection(spec: CameraSpec, K: Array, T_world_cam: Array, robot: RobotSweep) -> str | None:
    """Why these poses (F,4,4) are no good, or None."""
    eyes = T_world_cam[:, :3, 3]
    if eyes[:, 2].min() < MIN_HEIGHT_M:
        return "below the table"
    if np.linalg.norm(robot.surface_m - eyes[:, None], axis=-1).min() < MIN_ROBOT_DISTANCE_M:
        return "too near the robot"
    if keypoints_in_image(K, T_world_cam, robot.keypoints_m, spec.width, spec.height).min() < spec.min_keypoints_in_image:
        return "too few keypoints"
    if robot_fraction(K, T_world_cam, robot.surface_m, spec.width, spec.height).min() < spec.min_robot_fraction:
        return "robot too small"
    return None


def keypoints_in_image(K: Array, T_world_cam: Array, points_m: Array, width: int, height: int) -> NDArray[np.int64]:
    """How many of the points (F,P,3) fall into the image of each frame (F,)."""
    uv = project(K, se3.transform(se3.inverse(T_world_cam), points_m))
    return in_image(uv, width, height).sum(-1)


def robot_fraction(K: Array, T_world_cam: Array, surface_m: Array, width: int, height: int) -> Array:
    """Share of the image (F,) whose grid cells hold a surface point (F,S,3): what the robot covers, a little more."""
    cell = width / GRID_COLUMNS
    rows = int(np.ceil(height / cell))
    points = se3.transform(se3.inverse(T_world_cam), surface_m)
    uv = project(K, points)
    seen = in_image(uv, width, height) & (points[..., 2] > NEAREST_M)
    at = np.floor((np.where(seen[..., None], uv, 0.0) + 0.5) / cell).astype(np.intp)
    flat = np.minimum(at[..., 1], rows - 1) * GRID_COLUMNS + np.minimum(at[..., 0], GRID_COLUMNS - 1)
    covered = [len(np.unique(cells[ok])) for cells, ok in zip(flat, seen, strict=True)]
    return np.array(covered) * cell**2 / (width * height)


def _gave_up(video: int, tries: int, rejected: Counter[str]) -> str:
    counts = ", ".join(f"{reason}: {n}" for reason, n in rejected.most_common())
    advice = {
        "too few keypoints": "widen camera.distance_m or lower camera.min_keypoints_in_image",
        "robot too small": "shorten camera.distance_m or lower camera.min_robot_fraction",
        "too near the robot": "raise camera.distance_m",
        "below the table": "raise camera.elevation_deg",
    }[rejected.most_common(1)[0][0]]
    return f"video {video}: no camera saw the robot in {tries} draws ({counts}); {advice}"
