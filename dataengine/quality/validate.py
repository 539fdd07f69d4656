"""Checks every label of a video against an independent computation; run on every unit before it is committed.

Geometry is recomputed from the scene by forward kinematics and Embree rays, which share no code with Blender's passes.
Real (annotated) videos have no SceneSpec, so they get only the checks that need none.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import camera, se3
from dataengine.quality import image_checks, ray_checks
from dataengine.quality.violation import Violation
from dataengine.record.frame_table import KEYPOINT_OUTSIDE
from dataengine.record.video import Video
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import LinkMesh
from dataengine.robot.model import RobotModel
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import build_ray_world

POSITION_TOLERANCE_M = 1e-7
PIXEL_TOLERANCE_PX = 1e-4


@dataclass(frozen=True)
class Validation:
    """`checks`: how many (check, frame) pairs were made; `violations`: those that failed."""

    checks: int
    violations: tuple[Violation, ...]

    def __add__(self, other: "Validation") -> "Validation":
        return Validation(self.checks + other.checks, self.violations + other.violations)

    def verdict(self) -> str:
        return f"{len(self.violations)} label violations in {self.checks} checks"


def validate_video(video: Video, model: RobotModel, link_meshes: Sequence[LinkMesh]) -> Validation:
    """All checks that the video's content allows. Never raises for wrong labels: it reports them."""
    checks, violations = 0, []
    for f in range(video.frame_count):
        for name, check in _frame_checks(video, model, f):
            checks += 1
            violations += [Violation(name, f, message) for message in check()]
    for name, messages in _clip_checks(video, model):
        checks += 1
        violations += [Violation(name, None, message) for message in messages]
    result = Validation(checks, tuple(violations))
    return result + _against_rays(video, model, link_meshes) if video.source == "rendered" else result


def _against_rays(video: Video, model: RobotModel, link_meshes: Sequence[LinkMesh]) -> Validation:
    scene = SceneSpec.model_validate(video.scene)
    T_world_link = np.asarray(scene.robot.T_world_base) @ forward_kinematics(model, video.frames["joint_position"])
    world = build_ray_world(scene, link_meshes, T_world_link)
    checks, violations = 0, []
    for f in range(video.frame_count):
        for name, messages in ray_checks.check_frame(video, world, scene, f):
            checks += 1
            violations += [Violation(name, f, message) for message in messages]
    return Validation(checks, tuple(violations))


def _frame_checks(video: Video, model: RobotModel, f: int) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    row = video.frames[f]
    yield "poses", lambda: _poses(row)
    yield "kinematics", lambda: _kinematics(row, model)
    yield "keypoints", lambda: _keypoints(video, row)
    yield "joint limits", lambda: _limits(row, model)
    yield from ((name, lambda check=check: check(video, f)) for name, check in image_checks.FRAME_CHECKS.items())


def _clip_checks(video: Video, model: RobotModel) -> Iterator[tuple[str, list[str]]]:
    yield "duplicate frames", image_checks.duplicates(video)
    yield "joint velocity", _velocity(video, model)


def _poses(row: np.void) -> list[str]:
    return [
        f"{name} is not a rigid transform (rotation not orthonormal or not finite)"
        for name in ("T_world_cam", "T_cam_base", "T_cam_link", "T_cam_object")
        if not se3.is_rigid(row[name])
    ]


def _kinematics(row: np.void, model: RobotModel) -> list[str]:
    expected = row["T_cam_base"] @ forward_kinematics(model, row["joint_position"])
    worst = np.abs(expected - row["T_cam_link"]).max()
    return [] if worst < POSITION_TOLERANCE_M else [f"stored link poses differ from forward kinematics by {worst:.2g}"]


def _keypoints(video: Video, row: np.void) -> list[str]:
    names, out = video.names, []
    T = row["T_cam_link"][list(names.keypoint_links)]
    expected = np.einsum("pij,pj->pi", T[:, :3, :3], np.array(names.keypoint_offsets_m)) + T[:, :3, 3]
    worst_m = np.abs(expected - row["keypoints_cam_m"]).max(initial=0.0)
    if worst_m > POSITION_TOLERANCE_M:
        out.append(f"3D keypoints differ from link pose × offset by {worst_m:.2g} m")
    homogeneous = row["keypoints_cam_m"] @ row["K"].T
    front = row["keypoints_cam_m"][:, 2] > 0
    px = homogeneous[front, :2] / homogeneous[front, 2:]
    worst_px = np.abs(px - row["keypoints_px"][front]).max(initial=0.0)
    if not worst_px < PIXEL_TOLERANCE_PX:
        out.append(f"2D keypoints differ from the projected 3D ones by {worst_px:.2g} px")
    height, width = video.size
    if height:
        inside = camera.in_image(row["keypoints_px"], width, height)
        wrong = (row["keypoint_state"] != KEYPOINT_OUTSIDE) != inside
        out += [f"keypoint {names.keypoints[i]}: state {row['keypoint_state'][i]} contradicts its pixel" for i in np.flatnonzero(wrong)]
    return out


def _limits(row: np.void, model: RobotModel) -> list[str]:
    q = row["joint_position"]
    beyond = np.maximum(model.q_lower - q, q - model.q_upper)
    return [f"{model.actuated[i]} = {q[i]:.4f} is outside its limits by {beyond[i]:.2g}" for i in np.flatnonzero(beyond > 1e-6)]


def _velocity(video: Video, model: RobotModel) -> list[str]:
    """The step between frames against the trapezoid of the velocities, within what a smooth motion may curve."""
    t, q, qd = (video.frames[k] for k in ("timestamp_s", "joint_position", "joint_velocity"))
    if len(t) < 2:
        return []
    dt: NDArray = np.diff(t)[:, None]
    gap = np.abs(np.diff(q, axis=0) - (qd[1:] + qd[:-1]) / 2 * dt)
    allowed = 0.25 * dt * (np.abs(qd[1:]) + np.abs(qd[:-1])) + 0.02 * dt * model.qd_limit
    f, j = np.unravel_index(int((gap - allowed).argmax()), gap.shape)
    if gap[f, j] <= allowed[f, j]:
        return []
    return [f"{model.actuated[j]} moves {gap[f, j]:.2g} more between frames {f} and {f + 1} than its velocities say"]
