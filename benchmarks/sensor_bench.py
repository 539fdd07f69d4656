"""How close the simulated depth camera comes to a D415: walls, occlusion shadows, robot scenes, CPU time.

Run alone (`python benchmarks/sensor_bench.py`) or call `measure()`. Pixels are native ones of a D415: 1280 x 720,
f = 924 px, baseline 55 mm, so 1 px of disparity is 20 mm of depth at 1 m.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.geometry import se3
from dataengine.geometry.camera import resize_intrinsics
from dataengine.raycast.scene import RayScene, TriMesh
from dataengine.raycast.views import LabelView, pixel_rays, render_labels
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes
from dataengine.robot.model import RobotModel
from dataengine.sensor.ir import IrNoise, IrPair, IrSurface, render_ir_pair
from dataengine.sensor.presets import sensor_preset, stereo_rig
from dataengine.sensor.quality import disparity_statistics, expected_shadow_px, fraction_histogram, shadow_width_px
from dataengine.sensor.rig import StereoRig
from dataengine.sensor.stereo import MatchSettings, disparity_to_depth, match_stereo

WALL_DISTANCES_M = (0.5, 1.0, 1.5, 2.0)
WALLS = {"fronto": (0.0, 0.0), "45° about y": (45.0, 90.0), "45° about x": (45.0, 0.0)}
"""name → (slant, direction of the axis in the image plane), degrees."""
WALL_FAR_M = 2.2
"""Slanted walls are scored from the search range to here; their far ends are dark and seen at up to 80°."""
SHADOW_PAIRS_M = ((0.6, 1.2), (0.8, 2.0), (1.2, 1.6))
FACING_ROBOT_Z_M = 0.45

Light = tuple[tuple[float, float, float], float]


@dataclass(frozen=True, eq=False)
class SensedScene:
    """A posed scene with its infrared surfaces and lights; robot (M,) bool marks the meshes that are the robot."""

    scene: RayScene
    surfaces: Sequence[IrSurface]
    T_world_cam: NDArray[np.float64]
    lights: Sequence[Light]
    robot: NDArray[np.bool_]


def d415_rig() -> StereoRig:
    """The rig that all figures are stated for: output 640 x 360 behind native 1280 x 720."""
    return stereo_rig("d415", resize_intrinsics(sensor_preset("d415").native_K, 0.5, 0.5), 640, 360)


def plane(size_m: float = 40.0) -> TriMesh:
    """Square in its own xy plane."""
    h = size_m / 2
    return TriMesh(np.array([[-h, -h, 0], [h, -h, 0], [h, h, 0], [-h, h, 0.0]]), np.array([[0, 1, 2], [0, 2, 3]]))


def box(size_m: ArrayLike) -> TriMesh:
    """Axis-aligned box centred at the origin."""
    corners = (np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) - 0.5) * np.asarray(size_m, float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return TriMesh(corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]))


def wall_scene(distance_m: float, slant_deg: float, axis_deg: float) -> RayScene:
    """An endless wall that crosses the optical axis at distance_m, turned by slant_deg about an axis in the image plane.

    axis_deg: 0 is the camera's x axis, 90 its y axis.
    """
    scene = RayScene([plane()])
    axis = [np.cos(np.radians(axis_deg)), np.sin(np.radians(axis_deg)), 0.0]
    scene.pose(se3.make(se3.rotation_from_axis_angle(axis, np.radians(slant_deg)), [0.0, 0.0, distance_m])[None])
    return scene


def true_disparity(rig: StereoRig, depth_z_m: NDArray) -> NDArray[np.float64]:
    """Native disparity (H, W) of a true depth, NaN where none."""
    return rig.disparity_of_1m_px / np.where(depth_z_m > 0, depth_z_m, np.nan)


def in_both_images(rig: StereoRig, disparity: NDArray, margin_px: float = 10.0) -> NDArray[np.bool_]:
    """Pixels whose match lies inside the right image and the search range of the default matcher."""
    column = np.arange(rig.width) * rig.native_scale + 0.5 * (rig.native_scale - 1)
    deepest = rig.disparity_of_1m_px / MatchSettings().min_depth_m
    with np.errstate(invalid="ignore"):
        return (column - disparity >= margin_px) & (disparity <= deepest - 4)


def sensed_wall(
    rig: StereoRig, noise: IrNoise, scene: RayScene, albedo: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
    """(measured, true) native disparity of a wall and the pixels to score."""
    pair = render_ir_pair(scene, [IrSurface(albedo)], rig, np.eye(4), [], noise, np.random.default_rng(seed))
    depth = render_labels(scene, rig.K, np.eye(4), rig.width, rig.height).depth_z_m
    true = true_disparity(rig, depth)
    return match_stereo(pair.left, pair.right, rig), true, in_both_images(rig, true) & (depth < WALL_FAR_M)


def wall_table(rig: StereoRig, noise: IrNoise) -> list[dict[str, float | str]]:
    """Noise, bias and fill on flat walls of albedo 0.5."""
    rows: list[dict[str, float | str]] = []
    for name, (slant, axis) in WALLS.items():
        for index, distance in enumerate(WALL_DISTANCES_M):
            stats = disparity_statistics(*sensed_wall(rig, noise, wall_scene(distance, slant, axis), 0.5, index))
            numbers = {"rms_px": stats.rms_px, "bias_px": stats.bias_px, "mad_px": stats.mad_px, "fill": stats.fill}
            rows.append({"wall": name, "distance_m": distance, **numbers, "outliers": stats.outliers})
    return rows


def locking_histogram(rig: StereoRig, noise: IrNoise, walls: int = 12) -> NDArray[np.float64]:
    """Fractional-disparity histogram (16,) measured / true over 45° walls at several distances; 1 = no locking.

    The walls lean in oblique directions: about x or y alone the true fractions of neighbouring columns repeat.
    """
    measured, true = [], []
    for index, distance in enumerate(np.linspace(0.8, 2.2, walls)):
        scene = wall_scene(float(distance), 45.0, 17.0 + 31.0 * index)
        disparity, truth, mask = sensed_wall(rig, noise, scene, 0.6, index)
        valid = mask & np.isfinite(disparity)
        measured.append(disparity[valid])
        true.append(truth[valid])
    return fraction_histogram(np.concatenate(measured)) / fraction_histogram(np.concatenate(true))


def shadow_table(rig: StereoRig, noise: IrNoise) -> list[dict[str, float]]:
    """A square in front of a wall: width of the hole at its left edge against f·b·(1/z₁ − 1/z₂), output px."""
    rows = []
    for near, far in SHADOW_PAIRS_M:
        side = 0.4 * near
        scene = RayScene([plane(), plane(side)])
        poses = np.tile(np.eye(4), (2, 1, 1))
        poses[:, 2, 3] = far, near
        scene.pose(poses)
        surfaces = [IrSurface(0.5), IrSurface(0.5)]
        pair = render_ir_pair(scene, surfaces, rig, np.eye(4), [], noise, np.random.default_rng(0))
        edge = rig.K[0, 2] - 0.5 * side / near * rig.K[0, 0]
        middle = slice(rig.height // 2 - 30, rig.height // 2 + 30)
        measured = shadow_width_px(match_stereo(pair.left, pair.right, rig), edge, middle)
        expected = expected_shadow_px(rig.K[0, 0], rig.baseline_m, near, far)
        rows.append({"near_m": near, "far_m": far, "expected_px": expected, "measured_px": measured})
    return rows


def panda_scene(seed: int) -> SensedScene:
    """A Panda in a random pose on a table in a room with boxes, seen from 0.9–2 m; one seed, one scene."""
    rng = np.random.default_rng(seed)
    model = load_robot("panda")
    links = load_link_meshes(model)
    boxes = [box(rng.uniform(0.05, 0.25, 3)) for _ in range(5)]
    meshes = [TriMesh(m.vertices_m, m.faces) for m in links] + boxes + [box((2.0, 1.6, 0.05)), box((7.0, 7.0, 5.0))]
    scene = RayScene(meshes)
    T_link = forward_kinematics(model, _pose_above_table(model, rng))
    poses = np.tile(np.eye(4), (len(meshes), 1, 1))
    poses[: len(links)] = T_link[[m.link_index for m in links]]
    for k in range(len(boxes)):
        angle, radius = rng.uniform(-np.pi, np.pi), rng.uniform(0.3, 0.8)
        height = -boxes[k].vertices_m[:, 2].min()
        turn = se3.rotation_from_axis_angle([0.0, 0.0, 1.0], rng.uniform(0, np.pi))
        poses[len(links) + k] = se3.make(turn, [radius * np.cos(angle), radius * np.sin(angle), height])
    poses[-2, 2, 3], poses[-1, 2, 3] = -0.025, 1.7
    scene.pose(poses)
    surfaces = [IrSurface(rng.uniform(0.4, 0.75), 0.1, 0.25, 0.65, k) for k in range(len(links))]
    surfaces += [IrSurface(rng.uniform(0.15, 0.8), rng.uniform(0, 0.5), 0.0, 0.5, 100 + k) for k in range(len(boxes) + 2)]
    lights = [(tuple(rng.uniform((-2, -2, 1.5), (2, 2, 3.0))), float(rng.uniform(0.2, 1.0))) for _ in range(rng.integers(1, 4))]
    robot = np.arange(len(meshes)) < len(links)
    return SensedScene(scene, surfaces, _camera(rng), [((x, y, z), s) for (x, y, z), s in lights], robot)


def _pose_above_table(model: RobotModel, rng: np.random.Generator) -> NDArray[np.float64]:
    """Joint positions within 80 % of the limits that keep every link origin above the table."""
    middle, half = (model.q_upper + model.q_lower) / 2, (model.q_upper - model.q_lower) / 2
    for _ in range(200):
        q = middle + 0.8 * half * rng.uniform(-1, 1, len(middle))
        if forward_kinematics(model, q)[:, 2, 3].min() >= 0.0:
            return q
    return middle


def _camera(rng: np.random.Generator) -> NDArray[np.float64]:
    """T_world_cam on a shell around the robot, looking near its middle."""
    distance, azimuth, elevation = rng.uniform(0.9, 2.0), rng.uniform(-np.pi, np.pi), rng.uniform(0.1, 1.0)
    target = np.array([0.15, 0.0, FACING_ROBOT_Z_M]) + rng.uniform(-0.15, 0.15, 3)
    direction = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.cross(-direction, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return se3.make(np.stack([right, np.cross(-direction, right), -direction], axis=1), target + distance * direction)


def visible_to_all(sensed: SensedScene, rig: StereoRig, view: LabelView) -> NDArray[np.bool_]:
    """Pixels (H, W) whose surface point the right eye and the projector see too, inside the right image and the search range."""
    camera = sensed.T_world_cam
    rays = pixel_rays(rig.K, rig.width, rig.height) * view.depth_z_m.reshape(-1, 1)
    points = rays @ camera[:3, :3].T + camera[:3, 3]
    points = points + 2e-4 * (view.normal_cam.reshape(-1, 3) @ camera[:3, :3].T)
    seen = view.mesh_index.ravel() >= 0
    for offset in (rig.baseline_m, rig.projector_x_m):
        seen &= ~sensed.scene.occluded(camera[:3, :3] @ [offset, 0, 0] + camera[:3, 3], points, 2e-4)
    return seen.reshape(rig.height, rig.width) & in_both_images(rig, true_disparity(rig, view.depth_z_m))


def robot_row(sensed: SensedScene, rig: StereoRig, pair: IrPair) -> dict[str, float]:
    """Depth errors on the robot's pixels and the share of visible and of hidden pixels that were measured."""
    view = render_labels(sensed.scene, rig.K, sensed.T_world_cam, rig.width, rig.height)
    robot = (view.mesh_index >= 0) & sensed.robot[view.mesh_index]
    disparity = match_stereo(pair.left, pair.right, rig)
    depth = disparity_to_depth(disparity, rig)
    visible = visible_to_all(sensed, rig, view)
    measured = robot & (depth > 0)
    error_mm = 1000 * np.abs(depth - view.depth_z_m)[measured]
    hidden = ~visible & in_both_images(rig, true_disparity(rig, view.depth_z_m))
    return {
        "median_z_m": float(np.median(view.depth_z_m[robot])), "robot_px": float(robot.sum()),
        "median_mm": float(np.median(error_mm)), "p90_mm": float(np.percentile(error_mm, 90)),
        "over_1cm": float((error_mm > 10).mean()), "over_2cm": float((error_mm > 20).mean()),
        "fill": float(measured.sum() / robot.sum()), "fill_visible": float((measured & visible).sum() / (robot & visible).sum()),
        "hidden_left_empty": float((depth[hidden] == 0).mean()),
        "mad_px": disparity_statistics(disparity, true_disparity(rig, view.depth_z_m), robot & visible).mad_px,
    }  # fmt: skip


@contextmanager
def one_core() -> Iterator[None]:
    """As a render worker runs: on one core, with one thread, so that no waiting thread is counted."""
    cores, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    os.sched_setaffinity(0, {min(cores)})
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        os.sched_setaffinity(0, cores)


@one_core()
def cpu_seconds(sensed: SensedScene, rig: StereoRig, noise: IrNoise, repeats: int = 5) -> dict[str, float]:
    """CPU-seconds of one frame (median): infrared pair, matching."""
    rows = []
    for repeat in range(repeats + 1):
        start = time.process_time()
        pair = render_ir_pair(sensed.scene, sensed.surfaces, rig, sensed.T_world_cam, sensed.lights, noise, np.random.default_rng(repeat))
        middle = time.process_time()
        match_stereo(pair.left, pair.right, rig)
        rows.append((middle - start, time.process_time() - middle))
    pair_s, match_s = np.median(rows[1:], axis=0)  # the first call compiles or loads the kernels
    return {"infrared_pair_s": float(pair_s), "matching_s": float(match_s), "total_s": float(pair_s + match_s)}


def measure(scenes: Sequence[SensedScene] | None = None, rig: StereoRig | None = None, noise: IrNoise | None = None) -> dict:
    """All figures as plain data. scenes: posed robot scenes; default: 20 random Panda scenes, built one at a time."""
    rig, noise = rig or d415_rig(), noise or IrNoise()
    robot, cost = [], None
    for index in range(len(scenes) if scenes is not None else 20):
        sensed = scenes[index] if scenes is not None else panda_scene(index)
        cost = cost or cpu_seconds(sensed, rig, noise)
        rng = np.random.default_rng(index)
        pair = render_ir_pair(sensed.scene, sensed.surfaces, rig, sensed.T_world_cam, sensed.lights, noise, rng)
        robot.append(robot_row(sensed, rig, pair))
    pooled = {key: float(np.median([row[key] for row in robot])) for key in robot[0]} if robot else {}
    worst = {key: max(row[key] for row in robot) for key in ("median_mm", "over_2cm", "mad_px")} if robot else {}
    histogram = locking_histogram(rig, noise)
    return {
        "walls": wall_table(rig, noise),
        "fraction_histogram": [float(histogram.min()), float(histogram.max())],
        "shadows": shadow_table(rig, noise),
        "robot_scenes": robot,
        "robot_median": pooled,
        "robot_worst": worst,
        "cpu": cost,
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1, ensure_ascii=False))
