"""Small hand-made scenes for the renderer's tests: everything about them is known without rendering."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.geometry import se3
from dataengine.scene.spec import (
    Camera,
    DepthSensor,
    Environment,
    ImageEffects,
    Light,
    Material,
    Matrix4,
    RobotState,
    SceneObject,
    SceneSpec,
)

WIDTH, HEIGHT = 160, 96
BLACK = {"color": (0.0, 0.0, 0.0), "color2": (0.0, 0.0, 0.0), "roughness": 1.0, "bump": 0.0}
WHITE_SKY = Environment(kind="room", name="room", yaw_rad=0.0, strength=1.0)


def matrix4(T: ArrayLike) -> Matrix4:
    return tuple(tuple(row) for row in np.asarray(T, float).tolist())  # type: ignore[return-value]


def look_at(eye_m: Sequence[float], target_m: Sequence[float]) -> NDArray[np.float64]:
    """T_world_cam of a level OpenCV camera."""
    eye = np.asarray(eye_m, float)
    z = np.asarray(target_m, float) - eye
    z = z / np.linalg.norm(z)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x = x / np.linalg.norm(x)
    return se3.make(np.stack([x, np.cross(z, x), z], axis=1), eye)


def material(kind: str = "plastic", **changes: Any) -> Material:
    values: dict[str, Any] = {
        "kind": kind,
        "color": (0.5, 0.3, 0.1),
        "color2": (0.2, 0.15, 0.1),
        "roughness": 0.5,
        "pattern_scale_m": 0.03,
        "bump": 0.2,
        "seed": 1,
        "ir_albedo": 0.6,
    }
    return Material(**(values | changes))


def thing(
    instance_id: int,
    shape: str,
    size_m: tuple[float, float, float],
    poses: Sequence[ArrayLike] | ArrayLike,
    surface: Material,
    parameters: tuple[float, ...] = (),
    role: Any = "distractor",
) -> SceneObject:
    stack = np.asarray(poses, float).reshape(-1, 4, 4)
    return SceneObject(
        instance_id=instance_id,
        name=f"{shape} {instance_id}",
        category=shape,
        shape=shape,
        parameters=parameters,
        size_m=size_m,
        T_world_object=tuple(matrix4(T) for T in stack),
        material=surface,
        role=role,
    )


def floor(surface: Material) -> SceneObject:
    """A table top whose upper face is z = 0."""
    return thing(255, "box", (3.0, 3.0, 0.1), se3.make(np.eye(3), [0.0, 0.0, -0.05]), surface, (0.001,), "table")


def scene(objects: Sequence[SceneObject], T_world_cam: ArrayLike, joint_names: tuple[str, ...], **changes: Any) -> SceneSpec:
    """A scene of one frame per camera pose; the robot stands in its zero position unless told otherwise."""
    cameras = np.asarray(T_world_cam, float).reshape(-1, 4, 4)
    frames, J = len(cameras), len(joint_names)
    robot = {
        "name": "toy",
        "urdf_sha256": "",
        "T_world_base": matrix4(changes.pop("T_world_base", np.eye(4))),
        "joint_names": joint_names,
        "joint_position": changes.pop("joint_position", ((0.0,) * J,) * frames),
        "joint_velocity": changes.pop("joint_velocity", ((0.0,) * J,) * frames),
        "link_tints": changes.pop("link_tints", None),
    }
    view = {
        "width": WIDTH,
        "height": HEIGHT,
        "fx_px": 130.0,
        "fy_px": 130.0,
        "cx_px": 79.5,
        "cy_px": 47.5,
        "T_world_cam": tuple(matrix4(T) for T in cameras),
    }
    effects = {"exposure_ev": 0.0, "view_transform": "Standard", "noise": 0.0, "shot_noise": 0.0, "motion_blur": 0.0}
    sensor = {
        "model": "active_stereo",
        "ir": "none",
        "baseline_m": 0.055,
        "projector_x_m": 0.029,
        "native_scale": 2,
        "ir_samples": 16,
        "speckle": 0.0,
        "ambient": 0.02,
        "max_depth_m": 10.0,
    }
    values: dict[str, Any] = {
        "dataset": "test",
        "spec_digest": "0",
        "seed": 3,
        "video": 0,
        "split": "train",
        "frames": frames,
        "timestamp_s": tuple(k / 10 for k in range(frames)),
        "robot": RobotState(**robot),
        "keypoint_sets": (),
        "camera": Camera(**(view | changes.pop("camera", {}))),
        "image": ImageEffects(**(effects | changes.pop("image", {}))),
        "objects": tuple(objects),
        "lights": (Light(position_m=(0.8, -0.6, 1.6), target_m=(0.0, 0.0, 0.0), power_w=15.0, size_m=0.3, color=(1.0, 0.9, 0.8)),),
        "environment": Environment(kind="hdri", name="studio", yaw_rad=0.4, strength=0.5),
        "depth_sensor": DepthSensor(**(sensor | changes.pop("sensor", {}))),
        "samples_per_pixel": 1,
        "denoise_quality": "FAST",
        "denoise_prefilter": "FAST",
        "max_bounces": 3,
        "modalities": ("rgb",),
    }
    return SceneSpec(**(values | changes))
