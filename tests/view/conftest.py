"""A small ray-cast scene with every modality, so that the pictures under test mean something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import trimesh

from dataengine.geometry import camera, se3
from dataengine.raycast import RayScene, TriMesh, amodal_masks, pixel_rays, point_visible, render_labels
from dataengine.record.frame_table import frame_dtype
from dataengine.record.modalities import DEPTH_QUANTUM_M
from dataengine.record.video import Names, Video
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics

DREAM7 = ("panda_link0", "panda_link2", "panda_link3", "panda_link4", "panda_link6", "panda_link7", "panda_hand")
OBJECTS = (("box", (0.16, 0.12, 0.2)), ("cylinder", (0.13, 0.13, 0.16)), ("box", (0.22, 0.06, 0.42)))
BASELINE_M = 0.055


@dataclass
class World:
    """Meshes and who they are: `owner` is link index + 1 for the robot, −id for objects."""

    meshes: list[TriMesh]
    owner: list[int]
    local: list[np.ndarray]


def _mesh(shape: trimesh.Trimesh) -> TriMesh:
    return TriMesh(np.asarray(shape.vertices), np.asarray(shape.faces))


def _capsule(start: np.ndarray, end: np.ndarray, radius: float) -> TriMesh:
    length = float(np.linalg.norm(end - start))
    shape = trimesh.creation.capsule(height=max(length, 1e-3), radius=radius, count=(24, 24))
    shape.apply_translation((0, 0, -shape.bounds.mean(0)[2]))
    if length > 1e-6:
        shape.apply_transform(trimesh.geometry.align_vectors((0, 0, 1), (end - start) / length))
    shape.apply_translation((start + end) / 2)
    return _mesh(shape)


def build_world(seed: int) -> tuple[World, list[np.ndarray]]:
    """Capsules between the Panda's joint origins, three objects, a table and a room. World = base frame."""
    panda, rng = load_robot("panda"), np.random.default_rng(seed)
    zero = forward_kinematics(panda, np.zeros(panda.dof))
    world = World([], [], [])
    chain = ["panda_link0", *(f"panda_link{i}" for i in range(1, 8)), "panda_hand", "panda_leftfinger"]
    for name, after in zip(chain[:-1], chain[1:], strict=True):
        index = panda.link_index(name)
        end = se3.inverse(zero[index]) @ zero[panda.link_index(after)]
        world.meshes.append(_capsule(np.zeros(3), end[:3, 3], 0.062 if index < 7 else 0.045))
        world.owner.append(index + 1)
        world.local.append(np.eye(4))
    poses = []
    for k, (shape, size) in enumerate(OBJECTS):
        solid = trimesh.creation.box(size) if shape == "box" else trimesh.creation.cylinder(size[0] / 2, size[2], sections=48)
        angle = rng.uniform(-np.pi, np.pi) if k < 2 else 0.0
        turn = se3.rotation_from_axis_angle((0.0, 0.0, 1.0), angle)
        place = [(0.45, 0.3), (0.35, -0.35), (0.75, 0.05)][k] + rng.uniform(-0.05, 0.05, 2)
        poses.append(se3.make(turn, (*place, size[2] / 2)))
        world.meshes.append(_mesh(solid))
        world.owner.append(-(k + 1))
        world.local.append(poses[-1])
    for extent, z, tag in (((2.2, 1.6, 0.04), -0.02, -255), ((8.0, 8.0, 3.6), 0.8, -254)):
        world.meshes.append(_mesh(trimesh.creation.box(extent)))
        world.owner.append(tag)
        world.local.append(se3.make(np.eye(3), (0.3, 0, z)))
    return world, poses


def shade(view, facing, rays_world, eye, scene, base_colour, light) -> np.ndarray:
    """Lambert with one shadow ray; linear 0…1 (H, W, 3)."""
    h, w = view.depth_z_m.shape
    point = eye + rays_world * view.depth_z_m.reshape(-1, 1)
    towards = light - point
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    cosine = np.maximum((towards * facing).sum(1), 0)
    lit = ~scene.occluded(np.broadcast_to(light, point.shape), point + 1e-3 * facing)
    ambient = 0.34 + 0.12 * facing[:, 2]
    return (base_colour * (ambient + 0.85 * cosine * lit)[:, None]).reshape(h, w, 3)


def make_video(seed: int = 0, frames: int = 3, width: int = 320, height: int = 180, number: int | None = None) -> Video:
    """A Panda made of capsules among three objects, rendered by ray casting, with all modalities of the table."""
    rng = np.random.default_rng(seed)
    panda = load_robot("panda")
    world, object_poses = build_world(seed)
    K = camera.intrinsics(502.3 * width / 640, 502.3 * width / 640, (width - 1) / 2, (height - 1) / 2)
    azimuth, elevation, distance = rng.uniform(-0.9, 0.9), rng.uniform(0.2, 0.7), rng.uniform(1.25, 1.7)
    direction = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    T_world_cam = se3.look_at((0.2, 0, 0.35) + distance * direction, (0.25, 0, 0.33))
    start = np.array([0.0, 0.2, 0.0, -1.9, 0.0, 2.0, 0.6, 0.03]) + rng.uniform(-0.35, 0.35, 8) * (np.arange(8) < 7)
    speed = rng.uniform(-1.2, 1.2, 8) * (np.arange(8) < 7)
    times = np.arange(frames) / 15
    names = Names(
        panda.actuated, panda.links, DREAM7, tuple(panda.link_index(n) for n in DREAM7), ((0.0, 0.0, 0.0),) * 7,
        tuple(f"{shape}_{k + 1}" for k, (shape, _) in enumerate(OBJECTS)),
    )  # fmt: skip
    rows = np.zeros(frames, frame_dtype(panda.dof, len(panda.links), 7, len(OBJECTS)))
    stacks: dict[str, list[np.ndarray]] = {}
    for f in range(frames):
        q = start + speed * times[f]
        links = forward_kinematics(panda, q)
        poses = np.stack([links[o - 1] if o > 0 else local for o, local in zip(world.owner, world.local, strict=True)])
        images, seen = render_frame(world, poses, K, T_world_cam, width, height, rng)
        for name, image in images.items():
            stacks.setdefault(name, []).append(image)
        fill_row(rows[f], times[f], K, T_world_cam, q, speed, links, names, object_poses, seen)
    scene = {
        "dataset": "synthetic", "spec_digest": "0" * 64, "seed": seed, "video": seed if number is None else number,
        "split": ("train", "train", "val", "test")[seed % 4], "rejections": {"below floor": 3 + seed, "too small": 1},
        "robot": {"name": "panda"},
        "objects": [
            {"instance_id": k + 1, "name": names.objects[k], "category": s, "size_m": list(size)}
            for k, (s, size) in enumerate(OBJECTS)
        ],
    }  # fmt: skip
    stored = {name: np.stack(images) for name, images in stacks.items()}
    return Video("rendered", names, stored, rows, scene, {"dataengine": "0.1.0"}).check()


def render_frame(world, poses, K, T_world_cam, width, height, rng):
    scene = RayScene(world.meshes)
    scene.pose(poses)
    view = render_labels(scene, K, T_world_cam, width, height)
    eye, R = T_world_cam[:3, 3], T_world_cam[:3, :3]
    facing = view.normal_cam.reshape(-1, 3) @ R.T
    rays = pixel_rays(K, width, height) @ R.T
    owner = np.array([*world.owner, 0])[view.mesh_index]
    link = np.where(owner > 0, owner, 0).astype(np.uint8)
    objects = np.where(owner < 0, -owner, 0).astype(np.uint8)
    light = np.array([1.2, -1.4, 2.2])
    rgb = shade(view, facing, rays, eye, scene, _albedo(world, view, rays, eye, objects).reshape(-1, 3), light)
    rgb = np.clip(rgb, 0, 1) ** (1 / 2.2) * 255 + rng.normal(0, 1.5, rgb.shape)
    infrared = shade(view, facing, rays, eye, scene, np.full((rays.shape[0], 3), 0.45), eye + (0, 0, 0.05))[..., 0]
    dots = rng.random((2, height, width)) < 0.06
    true = (np.round(view.depth_z_m / DEPTH_QUANTUM_M) * DEPTH_QUANTUM_M).astype(np.float32)
    amodal = amodal_masks(
        scene, poses, [[m for m, o in enumerate(world.owner) if o > 0], *([m] for m, o in enumerate(world.owner) if -9 < o < 0)],
        K, T_world_cam, width, height,
    )  # fmt: skip
    nocs = np.zeros((height, width, 3), np.uint16)
    points = eye + rays * view.depth_z_m.reshape(-1, 1)
    for k, (_, size) in enumerate(OBJECTS):
        m = [i for i, o in enumerate(world.owner) if o == -(k + 1)][0]
        inside = se3.transform(se3.inverse(poses[m]), points).reshape(height, width, 3) / size + 0.5
        nocs = np.where((objects == k + 1)[..., None], np.round(np.clip(inside, 0, 1) * 65535), nocs).astype(np.uint16)
    images = {
        "rgb": np.clip(rgb, 0, 255).astype(np.uint8),
        "ir_left": np.clip(infrared * 150 + dots[0] * 90, 0, 255).astype(np.uint8),
        "ir_right": np.clip(infrared * 140 + dots[1] * 90, 0, 255).astype(np.uint8),
        "depth_z": true,
        "depth_sim": _measured(true, view, K, rng),
        "normals": np.round(view.normal_cam * 127).astype(np.int8),
        "mask_link": link,
        "mask_object": objects,
        "amodal_robot": amodal[0].astype(np.uint8),
        "amodal_objects": sum(m.astype(np.uint32) << k for k, m in enumerate(amodal[1:])),
        "nocs": nocs,
    }
    return images, (scene, amodal, world)


def _albedo(world, view, rays, eye, objects) -> np.ndarray:
    shades = {
        0: (0.86, 0.87, 0.9),
        1: (0.75, 0.22, 0.16),
        2: (0.15, 0.42, 0.62),
        3: (0.85, 0.62, 0.18),
        254: (0.5, 0.53, 0.58),
        255: (0.6, 0.44, 0.3),
    }
    out = np.zeros((*objects.shape, 3))
    for tag, colour in shades.items():
        out[objects == tag] = colour
    point = eye + rays * view.depth_z_m.reshape(-1, 1)
    grain = 1 + 0.13 * np.sin(40 * point[:, 1] + 3 * np.sin(7 * point[:, 0])).reshape(objects.shape)
    return np.where((objects == 255)[..., None], out * grain[..., None], out)


def _measured(true: np.ndarray, view, K, rng) -> np.ndarray:
    """Disparity noise plus the shadow left of near edges, quantised like the table says."""
    focal = K[0, 0]
    disparity = np.where(true > 0, focal * BASELINE_M / np.maximum(true, 1e-6), 0)
    noise = rng.normal(0, 0.06 * focal / 924, true.shape)
    jump = np.zeros(true.shape, bool)
    for s in range(1, 9):
        jump[:, s:] |= disparity[:, :-s] - disparity[:, s:] > s - 0.5
        jump[:, :-s] |= disparity[:, s:] - disparity[:, :-s] > s - 0.5
    grazing = np.abs(view.normal_cam[..., 2]) < 0.12
    z = focal * BASELINE_M / np.maximum(disparity + noise, 1e-3)
    return np.where(jump | grazing | (true <= 0), 0, np.round(z / DEPTH_QUANTUM_M) * DEPTH_QUANTUM_M).astype(np.float32)


def fill_row(row, time, K, T_world_cam, q, speed, links, names, object_poses, seen) -> None:
    scene, amodal, world = seen
    T_cam_world = se3.inverse(T_world_cam)
    points_world = links[list(names.keypoint_links), :3, 3]
    points = se3.transform(T_cam_world, points_world)
    height, width = amodal[0].shape
    px = camera.project(K, points)
    own = np.array([world.owner.index(k + 1) for k in names.keypoint_links])
    near = np.abs(np.array(world.owner)[None] - np.array(names.keypoint_links)[:, None] - 1) <= 2
    visible = point_visible(scene, points_world, own, T_world_cam, near & (np.array(world.owner) > 0))
    inside = camera.in_image(px, width, height)
    row["timestamp_s"], row["K"], row["T_world_cam"], row["T_cam_base"] = time, K, T_world_cam, T_cam_world
    row["joint_position"], row["joint_velocity"], row["T_cam_link"] = q, speed, T_cam_world @ links
    row["keypoints_cam_m"], row["keypoints_px"] = points, px
    row["keypoint_state"] = np.where(inside, np.where(visible, 2, 1), 0)
    row["keypoint_visibility"] = np.where(inside & visible, 0.9, 0.05)
    row["link_visibility"], row["object_visibility"] = 0.8, 0.7
    row["T_cam_object"], row["accepted"] = T_cam_world @ np.stack(object_poses), 1


_MADE: dict[tuple, Video] = {}


@pytest.fixture(scope="session")
def synthetic() -> Callable[..., Video]:
    """`make_video`, remembering what it made."""

    def make(**kwargs) -> Video:
        key = tuple(sorted(kwargs.items()))
        if key not in _MADE:
            _MADE[key] = make_video(**kwargs)
        return _MADE[key]

    return make


@pytest.fixture(scope="session")
def video(synthetic) -> Video:
    """The three-frame video most tests share."""
    return synthetic(seed=1)
