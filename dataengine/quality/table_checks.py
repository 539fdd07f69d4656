"""Checks on the frame table: poses, kinematics, keypoints, joints; and the table against the scene it was rendered from."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import camera, se3
from dataengine.record.frame_table import KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE
from dataengine.record.video import Video
from dataengine.robot.kinematics import forward_kinematics, point_positions
from dataengine.robot.model import RobotModel
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import labelled_objects, object_poses

POSITION_TOLERANCE_M = 1e-7
PIXEL_TOLERANCE_PX = 1e-4

LONGEST_STEP_S = 0.1
"""Between frames farther apart a whole movement may fit, so velocities say little about the step."""


def frame_checks(video: Video, model: RobotModel, f: int) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    row = video.frames[f]
    yield "poses", lambda: poses(row)
    yield "kinematics", lambda: kinematics(row, model)
    yield "keypoints", lambda: keypoints(video, row, model)
    yield "joint limits", lambda: limits(row, model)


def poses(row: np.void) -> list[str]:
    """Every transform is finite and rigid."""
    return [
        f"{name} is not a rigid transform (rotation not orthonormal or not finite)"
        for name in ("T_world_cam", "T_cam_base", "T_cam_link", "T_cam_object")
        if not se3.is_rigid(row[name])
    ]


def kinematics(row: np.void, model: RobotModel) -> list[str]:
    """Link poses follow from base pose and joint positions."""
    expected = row["T_cam_base"] @ forward_kinematics(model, row["joint_position"])
    worst = np.abs(expected - row["T_cam_link"]).max()
    return [] if worst < POSITION_TOLERANCE_M else [f"stored link poses differ from forward kinematics by {worst:.2g}"]


def keypoints(video: Video, row: np.void, model: RobotModel) -> list[str]:
    """3D = link pose × offset, 2D = projected 3D, states say inside or outside the image."""
    names = video.names
    expected = point_positions(row["T_cam_link"], names.keypoint_links, np.reshape(names.keypoint_offsets_m, (-1, 3)))
    out = [
        f"keypoint {name} is fixed to {model.links[link]}, not to the link of its name"
        for name, link in zip(names.keypoints, names.keypoint_links, strict=True)
        if name.partition("@")[0] != model.links[link]
    ]
    worst_m = np.abs(expected - row["keypoints_cam_m"]).max(initial=0.0)
    if not worst_m < POSITION_TOLERANCE_M:
        out.append(f"3D keypoints differ from link pose × offset by {worst_m:.2g} m")
    homogeneous = row["keypoints_cam_m"] @ row["K"].T
    front = row["keypoints_cam_m"][:, 2] > 0
    px = homogeneous[front, :2] / homogeneous[front, 2:]
    worst_px = np.abs(px - row["keypoints_px"][front]).max(initial=0.0)
    if not worst_px < PIXEL_TOLERANCE_PX:
        out.append(f"2D keypoints differ from the projected 3D ones by {worst_px:.2g} px")
    return out + _states(video, row)


def _states(video: Video, row: np.void) -> list[str]:
    state, visibility = row["keypoint_state"], row["keypoint_visibility"]
    expected = np.where(state == KEYPOINT_OUTSIDE, visibility == 0, (state == KEYPOINT_VISIBLE) == (visibility >= 0.5))
    out = [
        f"keypoint {video.names.keypoints[i]}: state {state[i]} contradicts visibility {visibility[i]:.2f}"
        for i in np.flatnonzero(~expected)
    ]
    height, width = video.size
    if height:
        wrong = (state != KEYPOINT_OUTSIDE) != camera.in_image(row["keypoints_px"], width, height)
        out += [f"keypoint {video.names.keypoints[i]}: state {state[i]} contradicts its pixel" for i in np.flatnonzero(wrong)]
    return out


def limits(row: np.void, model: RobotModel) -> list[str]:
    """Joint positions within the URDF's limits."""
    q = row["joint_position"]
    beyond = np.maximum(model.q_lower - q, q - model.q_upper)
    return [f"{model.actuated[i]} = {q[i]:.4f} is outside its limits by {beyond[i]:.2g}" for i in np.flatnonzero(~(beyond <= 1e-6))]


def velocity(video: Video, model: RobotModel) -> list[str]:
    """The step between frames against the trapezoid of the velocities, within what a smooth motion may curve.

    Allowed: the mean velocity lies between the two ends, 10 % of their speed and 0.5 % of the limit beside.
    """
    t, q, qd = (video.frames[k] for k in ("timestamp_s", "joint_position", "joint_velocity"))
    if len(t) < 2 or not np.diff(t).max() <= LONGEST_STEP_S:
        return []
    dt: NDArray = np.diff(t)[:, None]
    gap = np.abs(np.diff(q, axis=0) - (qd[1:] + qd[:-1]) / 2 * dt)
    allowed = dt * (0.1 * (np.abs(qd[1:]) + np.abs(qd[:-1])) + 0.5 * np.abs(qd[1:] - qd[:-1]) + 0.005 * model.qd_limit)
    f, j = np.unravel_index(int((gap - allowed).argmax()), gap.shape)
    if gap[f, j] <= allowed[f, j]:
        return []
    return [f"{model.actuated[j]} moves {gap[f, j]:.2g} more between frames {f} and {f + 1} than its velocities say"]


def against_scene(video: Video, scene: SceneSpec) -> list[str]:
    """The table says what the scene was built from."""
    c, rows = scene.camera, video.frames
    if len(rows) != scene.frames:
        return [f"{len(rows)} frames, but the scene has {scene.frames}"]
    T_world_cam = np.broadcast_to(np.asarray(c.T_world_cam, float), (scene.frames, 4, 4))
    T_cam_world = se3.inverse(T_world_cam)
    objects = labelled_objects(scene)
    T_world_object = np.array([object_poses(o, scene.frames) for o in objects]).reshape(len(objects), scene.frames, 4, 4)
    expected = {
        "timestamp_s": scene.timestamp_s,
        "K": camera.intrinsics(c.fx_px, c.fy_px, c.cx_px, c.cy_px),
        "T_world_cam": T_world_cam,
        "T_cam_base": T_cam_world @ np.asarray(scene.robot.T_world_base),
        "joint_position": scene.robot.joint_position,
        "joint_velocity": scene.robot.joint_velocity,
        "T_cam_object": T_cam_world[:, None] @ T_world_object.swapaxes(0, 1),
    }
    out = []
    for name, value in expected.items():
        worst = np.abs(rows[name] - np.asarray(value, float)).max(initial=0.0)
        out += [] if worst < POSITION_TOLERANCE_M else [f"{name} differs from the scene's by {worst:.2g}"]
    missing = set(scene.modalities) ^ video.images.keys()
    return out + ([f"images and the scene's modalities differ: {', '.join(sorted(missing))}"] if missing else [])
