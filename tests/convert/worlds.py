"""Small Panda videos with every modality and consistent labels; pixels are random but within what each modality may hold."""

import dataclasses

import numpy as np

from dataengine.geometry import camera, se3
from dataengine.record.frame_table import frame_dtype
from dataengine.record.modalities import DEPTH_QUANTUM_M
from dataengine.record.video import Names, Video
from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import keypoint_union
from dataengine.robot.kinematics import forward_kinematics

THINGS = (("box", "crate", (0.1, 0.2, 0.15)), ("mug", "mug", (0.12, 0.09, 0.1)), ("can", "can", (0.06, 0.06, 0.12)))
HEIGHT, WIDTH = 45, 80
PARTS = (0, *range(1, 9), 10, 12, 13)
"""Values of mask_link that are visible geometry: nothing, links 0–7, hand, fingers."""


def _blocks(rng: np.random.Generator, values, frames: int) -> np.ndarray:
    """Blocky label images: connected regions, as real masks have."""
    coarse = rng.choice(values, (frames, HEIGHT // 5, WIDTH // 5))
    return coarse.repeat(5, 1).repeat(5, 2)


def _images(rng: np.random.Generator, frames: int) -> dict[str, np.ndarray]:
    shape = (frames, HEIGHT, WIDTH)
    depth = (rng.integers(1_700, 60_000, shape) * DEPTH_QUANTUM_M).astype(np.float32)
    depth[:, :3] = 0
    measured = np.where(rng.random(shape) < 0.2, 0, depth + np.float32(0.01)).astype(np.float32)
    link = _blocks(rng, PARTS, frames).astype(np.uint8)
    thing = np.where(link > 0, 0, _blocks(rng, (0, 1, 2, 254, 255), frames)).astype(np.uint8)
    amodal = np.zeros(shape, np.uint32)
    for k in range(2):
        amodal |= ((thing == k + 1) | (_blocks(rng, (0, 1), frames) > 0)).astype(np.uint32) << k
    seen = (thing > 0) & (thing < 3)
    normal = rng.normal(size=(*shape, 3))
    normal = np.round(127 * normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.int8)
    normal[depth == 0] = 0
    return {
        "rgb": rng.integers(0, 256, (*shape, 3), np.uint8),
        "ir_left": rng.integers(0, 256, shape, np.uint8),
        "ir_right": rng.integers(0, 256, shape, np.uint8),
        "depth_z": depth,
        "depth_sim": measured,
        "normals": normal,
        "mask_link": link,
        "mask_object": thing,
        "amodal_robot": (link > 0).astype(np.uint8),
        "amodal_objects": amodal,
        "nocs": np.where(seen[..., None], rng.integers(0, 65536, (*shape, 3)), 0).astype(np.uint16),
    }


def panda_video(seed: int = 0, frames: int = 3) -> Video:
    """A rendered video: three things on the table of which the last is never seen, keypoint sets dream7 and simrgbd14."""
    rng, panda = np.random.default_rng(seed), load_robot("panda")
    points = keypoint_union(panda, ("dream7", "simrgbd14"))
    names = Names(
        panda.actuated, panda.links, points.names, tuple(points.link_index.tolist()), tuple(map(tuple, points.offset_m.tolist())),
        tuple(f"thing.{k}.{shape}" for k, (shape, _, _) in enumerate(THINGS)),
    )  # fmt: skip
    rows = np.zeros(frames, frame_dtype(panda.dof, len(panda.links), len(points), len(THINGS)))
    T_world_cam = se3.look_at(np.array([1.3, 0.3, 0.7]) + rng.uniform(-0.1, 0.1, 3), (0.1, 0.0, 0.7))
    turns = [se3.rotation_from_axis_angle((0, 0, 1), rng.uniform(-3, 3)) for _ in THINGS]
    T_world_things = [se3.make(R, (0.4, 0.3 * k - 0.3, s[2] / 2)) for k, (R, (_, _, s)) in enumerate(zip(turns, THINGS, strict=True))]
    q0 = rng.uniform(panda.q_lower, panda.q_upper)
    for f, row in enumerate(rows):
        q = q0 + 0.01 * f
        links = se3.inverse(T_world_cam) @ forward_kinematics(panda, q)
        row["timestamp_s"], row["K"], row["T_world_cam"], row["T_cam_base"] = f / 15, _K(), T_world_cam, links[0]
        row["joint_position"], row["joint_velocity"], row["T_cam_link"] = q, 0.15, links
        row["keypoints_cam_m"] = points.positions(links)
        row["keypoints_px"] = camera.project(_K(), row["keypoints_cam_m"])
        row["T_cam_object"] = se3.inverse(T_world_cam) @ np.stack(T_world_things)
    inside = camera.in_image(rows["keypoints_px"], WIDTH, HEIGHT)
    rows["keypoint_state"] = np.where(inside, rng.integers(1, 3, inside.shape), 0)
    rows["keypoint_visibility"], rows["link_visibility"], rows["object_visibility"] = 0.5, 0.75, 0.25
    rows["accepted"] = 1
    return Video("rendered", names, _images(rng, frames), rows, _scene(T_world_things), {"dataengine": "0.1.0"}).check()


def without_bystanders(video: Video, *keep: str) -> Video:
    """The video with only the modalities named."""
    return dataclasses.replace(video, images={name: video.images[name] for name in keep})


def _K() -> np.ndarray:
    return camera.intrinsics(502.3 / 8, 502.3 / 8, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)


def _scene(poses) -> dict:
    material = {"kind": "plastic", "color": [0.5] * 3, "color2": [0.4] * 3, "roughness": 0.5, "pattern_scale_m": 0.1, "ir_albedo": 0.5}
    objects = [
        {
            "instance_id": k + 1, "name": f"thing.{k}.{shape}", "category": category, "shape": shape,
            "parameters": {"box": [0.004], "mug": [0.005, 0.6], "can": [0.003]}[shape], "size_m": list(size),
            "T_world_object": [pose.tolist()], "material": material, "role": "distractor",
        }
        for k, ((shape, category, size), pose) in enumerate(zip(THINGS, poses, strict=True))
    ]  # fmt: skip
    table = {"instance_id": 255, "name": "table", "category": "table", "shape": "table", "size_m": [2.0, 1.0, 0.04], "role": "table"}
    return {"dataset": "tiny", "seed": 0, "objects": [*objects, table]}
