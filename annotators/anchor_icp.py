"""A first guess without a click: the robot's surface, posed as the encoders say, fitted to the masked depth of all frames at once.

Iterated closest points (Besl and McKay 1992) from many starts; a start assumes only that the base stands roughly upright in the picture.
"""

from __future__ import annotations

import numpy as np

from annotators.anchor_state import Problem, State, joints_at
from dataengine.geometry import se3
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes
from dataengine.robot.model import RobotModel

Array = np.ndarray
YAWS, TILTS_DEG = 16, (0.0, 30.0, 60.0)
REACH_M = 0.15
"""Distances beyond this count as this: one wrong patch must not outweigh the rest."""


def masked_points(depth_z_m: Array | None, mask: Array | None, K: Array, count: int = 400) -> Array:
    """Up to `count` measured points of the masked robot in the camera, (n, 3)."""
    if depth_z_m is None or mask is None:
        return np.zeros((0, 3))
    v, u = np.nonzero(mask & (depth_z_m > 0))
    if not len(v):
        return np.zeros((0, 3))
    pick = np.linspace(0, len(v) - 1, min(count, len(v))).astype(int)
    z = depth_z_m[v[pick], u[pick]].astype(float)
    points = np.stack([(u[pick] - K[0, 2]) / K[0, 0] * z, (v[pick] - K[1, 2]) / K[1, 1] * z, z], axis=-1)
    return points[np.abs(z - np.median(z)) < 1.0]


def surface_starts(problem: Problem, surfaces: list[Array], K: Array) -> list[State]:
    """The best state found from masked depth alone, in a list; empty without a joint log, a scale or points."""
    usable = [slot for slot, points in enumerate(surfaces) if len(points) >= 50]
    scale = 1.0 if problem.static else (problem.scale_sources[0][1] if problem.scale_sources else None)
    if not usable or scale is None or problem.log is None:
        return []
    camera = problem.slots.T_sfm_cam.copy()
    camera[:, :3, 3] *= scale
    measured = [se3.transform(camera[slot], surfaces[slot]) for slot in usable]
    q = joints_at(problem.log, problem.slots.times_s[usable])[0]
    clouds = surface_samples(problem.model, q, 1500, np.random.default_rng(problem.options.seed))
    up = -camera[usable[0]][:3, 1]
    T_world_base = register(measured, clouds, up, camera[usable[0]][:3, 2])
    S = int(problem.slots.segment.max(initial=0)) + 1
    D = problem.model.dof
    joints = np.zeros((1, D))
    if problem.layout.mode == "constant":
        joints = q.mean(axis=0)[None]
    elif problem.layout.mode == "per_frame":
        joints = joints_at(problem.log, problem.slots.times_s)[0]
    return [State(scale, np.tile(T_world_base, (S, 1, 1)), joints, K.copy(), problem.slots.T_sfm_cam.copy())]


def surface_samples(model: RobotModel, q: Array, count: int, rng: np.random.Generator) -> list[Array]:
    """Points on the robot's surface in the base frame for every configuration, uniform by area: F arrays (count, 3)."""
    meshes = load_link_meshes(model)
    corners = [mesh.vertices_m[mesh.faces] for mesh in meshes]
    area = [np.linalg.norm(np.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]), axis=1) for c in corners]
    face = rng.choice(sum(len(a) for a in area), count, p=np.concatenate(area) / sum(a.sum() for a in area))
    link = np.repeat([mesh.link_index for mesh in meshes], [len(a) for a in area])[face]
    weights = rng.dirichlet((1, 1, 1), count)
    local = np.einsum("nk,nki->ni", weights, np.concatenate(corners)[face])
    poses = forward_kinematics(model, q)[:, link]
    return list(np.einsum("fnij,nj->fni", poses[..., :3, :3], local) + poses[..., :3, 3])


def register(measured: list[Array], clouds: list[Array], up: Array, forward: Array) -> Array:
    """Pose T_world_base that brings the clouds (base frame) onto the measured points (world), both one array per frame."""
    from scipy.spatial import cKDTree

    trees = [cKDTree(cloud) for cloud in clouds]
    few = [points[:: max(1, len(points) // 80)] for points in measured]
    centre, model_centre = np.mean(np.concatenate(few), axis=0), np.mean(np.concatenate(clouds), axis=0)
    tries = []
    for R in upright_rotations(up, forward):
        T = se3.make(R, centre - R @ model_centre)
        cost = np.inf
        for _ in range(8):
            T, cost = icp_step(T, few, clouds, trees)
        tries.append((cost, T))
    tries.sort(key=lambda item: item[0])
    finished = []
    for _, T in tries[:5]:
        cost = np.inf
        for _ in range(40):
            T, cost = icp_step(T, few, clouds, trees)
        finished.append((cost, T))
    return min(finished, key=lambda item: item[0])[1]


def upright_rotations(up: Array, forward: Array) -> Array:
    """R_world_base with the base's z near `up`, tilted towards and away from the camera, at all yaws: (n, 3, 3)."""
    side = np.cross(forward, up)
    out = []
    for tilt in TILTS_DEG:
        z = se3.rotation_from_axis_angle(side / np.linalg.norm(side), np.radians(tilt)) @ (up / np.linalg.norm(up))
        x = np.cross(side, z)
        level = np.stack([x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z], axis=1)
        out += [level @ se3.rotation_from_axis_angle((0.0, 0.0, 1.0), yaw) for yaw in np.arange(YAWS) * 2 * np.pi / YAWS]
    return np.stack(out)


def icp_step(T: Array, measured: list[Array], clouds: list[Array], trees: list) -> tuple[Array, float]:
    """One round of closest points and rigid fit (Umeyama 1991), weights falling with distance; the cost is that before the step."""
    inverse = se3.inverse(T)
    near, distances = [], []
    for points, cloud, tree in zip(measured, clouds, trees, strict=True):
        distance, index = tree.query(se3.transform(inverse, points))
        near.append(cloud[index])
        distances.append(distance)
    a, b, d = np.concatenate(near), np.concatenate(measured), np.concatenate(distances)
    scale = max(1.5 * float(np.median(d)), 0.01)
    w = scale**2 / (scale**2 + d**2)
    ca, cb = np.average(a, axis=0, weights=w), np.average(b, axis=0, weights=w)
    U, _, Vt = np.linalg.svd(((b - cb) * w[:, None]).T @ (a - ca))
    R = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
    return se3.make(R, cb - R @ ca), float(np.mean(np.minimum(d, REACH_M)))
