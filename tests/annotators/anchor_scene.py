"""Captures made of arithmetic: exact kinematics, cameras on an arc, clicks with noise. No picture is needed to test a solver."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from annotators.anchor_state import exponential
from annotators.anchor_surface import robot_shape, view_robot
from annotators.landmarks import landmark_set
from annotators.types import Array, CameraTrack, Capture, Click, JointLog
from dataengine.geometry import camera, se3
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics

K = np.array([[615.0, 0, 319.5], [0, 615.0, 239.5], [0, 0, 1]])
SIZE = (640, 480)
SCALE = 0.37
MIDDLE = np.array([0.1, -0.5, 0.1, -2.1, 0.1, 1.7, 0.6, 0.02])
SWING = np.array([0.5, 0.3, 0.4, 0.3, 0.5, 0.4, 0.6, 0.01])


@dataclass(frozen=True, eq=False)
class Scene:
    """A capture, its camera track, clicks, and what is true: T_cam_base (N, 4, 4), q (N, D)."""

    capture: Capture
    track: CameraTrack
    clicks: list[Click]
    T_cam_base: Array
    q: Array


def make_scene(
    seed: int = 0,
    frames: int = 30,
    clicked: int = 8,
    robot_moves: bool = True,
    camera_moves: bool = True,
    noise_px: float = 2.0,
    lag_s: float = 0.0,
    bump: tuple[int, Array] | None = None,
    depth: bool = False,
) -> Scene:
    """World = arbitrary; SfM units of 0.37 m and 0.3 mm camera noise where the camera moves."""
    rng, model = np.random.default_rng(seed), load_robot("panda")
    times, phase = np.arange(frames) / 10.0, rng.uniform(0, 6, 8)

    def motion(t: Array) -> Array:
        return MIDDLE + (SWING * np.sin(1.2 * t[:, None] + phase) if robot_moves else 0.0)

    q = motion(times)
    angle = rng.uniform(-0.3, 0.3) + (np.linspace(-0.5, 0.5, frames) if camera_moves else np.zeros(frames))
    eyes = np.stack([1.25 * np.cos(angle) + 0.2, 1.25 * np.sin(angle), 0.6 + 0.1 * camera_moves * np.sin(np.arange(frames) / 5)], -1)
    world = se3.look_at((1, 2, 3), (0.2, 0.5, 0.1)) if camera_moves else se3.inverse(se3.look_at(eyes[0], (0.15, 0, 0.38)))
    T_world_cam = world @ np.stack([se3.look_at(eye, (0.15, 0, 0.38)) for eye in eyes])
    T_world_base = np.tile(world, (frames, 1, 1))
    if bump is not None:
        T_world_base[bump[0] :] = T_world_base[bump[0] :] @ bump[1]
    T_cam_base = se3.inverse(T_world_cam) @ T_world_base
    links = forward_kinematics(model, q)
    points = landmark_set(model)
    uv = camera.project(K, points.positions(T_cam_base[:, None] @ links))
    clicks = [
        Click(int(f), name, (float(p[0]), float(p[1])))
        for f in np.linspace(0, frames - 1, clicked).astype(int)
        for name, p in zip(points.names, uv[f] + noise_px * rng.normal(size=(len(points), 2)), strict=True)
        if rng.random() < 0.8
    ]
    log_s = np.arange(-1.0, times[-1] + 1.0, 0.01)
    log = JointLog(log_s + lag_s, motion(log_s))
    capture = Capture("arithmetic", tuple(map(str, range(frames))), SIZE, K, times, _grey, "panda", joints=log)
    if depth:
        capture = replace(capture, depth_z_m=_depth(T_cam_base, links))
    return Scene(capture, make_track(T_world_cam, camera_moves, rng), clicks, T_cam_base, q)


def make_track(T_world_cam: Array, moving: bool, rng: np.random.Generator) -> CameraTrack:
    """What structure from motion would say."""
    n = len(T_world_cam)
    sigma = np.array([0.0003] * 3 + [0.0002] * 3) * moving
    T = T_world_cam @ exponential(sigma * rng.normal(size=(n, 6)))
    unit = SCALE if moving else 1.0
    T[:, :3, 3] /= unit
    cov = np.tile(np.diag((sigma / ([unit] * 3 + [1] * 3)) ** 2), (n, 1, 1))
    nothing = np.zeros(0, np.int64)
    return CameraTrack(T, cov, np.ones(n, bool), (), np.zeros((0, 3)), nothing, nothing, np.zeros((0, 2)), 0.4, "arithmetic")


def _grey(frame: int) -> Array:
    return np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)


def _depth(T_cam_base: Array, links: Array):
    shape = robot_shape(load_robot("panda"))

    def depth(frame: int) -> Array:
        z = view_robot(shape, T_cam_base[frame] @ links[frame], K, SIZE, 1).depth_z_m
        noise = np.random.default_rng(frame).normal(size=z.shape)
        return np.where(z > 0, z + 0.003 * z**2 * noise, 0).astype(np.float32)

    return depth
