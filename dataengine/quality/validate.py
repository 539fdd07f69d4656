"""Checks every label of a video against an independent computation; run on every unit before it is committed.

Geometry is recomputed from the scene by forward kinematics and Embree rays, which share no code with Blender's passes.
Real (annotated) videos have no SceneSpec, so they get only the checks that need none.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.geometry import se3
from dataengine.quality import image_checks, ray_checks, table_checks, visibility_checks
from dataengine.quality.violation import Violation
from dataengine.record.video import Video
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import LinkMesh
from dataengine.robot.model import RobotModel
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import RayWorld, build_ray_world

Messages = list[str]


@dataclass(frozen=True)
class Validation:
    """`checks`: how many (check, frame) pairs were made; `violations`: those that failed."""

    checks: int
    violations: tuple[Violation, ...]

    def __add__(self, other: "Validation") -> "Validation":
        return Validation(self.checks + other.checks, self.violations + other.violations)

    def verdict(self) -> str:
        return f"{len(self.violations)} label violations in {self.checks} checks"


def validate_video(video: Video, model: RobotModel, link_meshes: Sequence[LinkMesh], world: RayWorld | None = None) -> Validation:
    """All checks that the video's content allows. Never raises for wrong labels: it reports them.

    `world`: the ray world of this video's scene, if the caller has it already; otherwise it is built from the record.
    """
    made = list(_of_frames(video, model, link_meshes)) + list(_of_clip(video, model))
    if video.source == "rendered":
        made += list(_of_scene(video, model, link_meshes, world))
    return Validation(len(made), tuple(Violation(name, f, message) for name, f, messages in made for message in messages))


def _of_frames(video: Video, model: RobotModel, link_meshes: Sequence[LinkMesh]) -> Iterator[tuple[str, int | None, Messages]]:
    """(check, frame, messages) of what one frame tells by itself."""
    meshed = {mesh.link_index for mesh in link_meshes}
    by_image: dict[str, Callable[[int], Messages]] = {
        name: lambda f, check=check: check(video, f) for name, check in image_checks.FRAME_CHECKS.items()
    }
    for f in range(video.frame_count):
        yield from ((name, f, check()) for name, check in table_checks.frame_checks(video, model, f))
        yield from ((name, f, check(f)) for name, check in by_image.items())
        yield "keypoint visibility", f, visibility_checks.keypoints(video, f, model, meshed)
        yield "visible shares", f, visibility_checks.shares(video, f)


def _of_clip(video: Video, model: RobotModel) -> Iterator[tuple[str, int | None, Messages]]:
    yield "duplicate frames", None, image_checks.duplicates(video)
    yield "joint velocity", None, table_checks.velocity(video, model)


def _of_scene(
    video: Video, model: RobotModel, link_meshes: Sequence[LinkMesh], world: RayWorld | None
) -> Iterator[tuple[str, int | None, Messages]]:
    """The record against its own SceneSpec, and its images against rays cast into that scene."""
    scene = SceneSpec.model_validate(video.scene)
    differences = table_checks.against_scene(video, scene)
    yield "scene", None, differences
    rows = video.frames
    if len(rows) != scene.frames or not (np.isfinite(rows["joint_position"]).all() and se3.is_rigid(rows["T_world_cam"])):
        return  # reported above and by the checks of single frames; rays into such a scene mean nothing
    if world is None or differences:
        T_world_link = np.asarray(scene.robot.T_world_base) @ forward_kinematics(model, rows["joint_position"])
        world = build_ray_world(scene, link_meshes, T_world_link)
    for f in range(video.frame_count):
        yield from ((name, f, messages) for name, messages in ray_checks.check_frame(video, world, f))
        yield from ((name, f, messages) for name, messages in visibility_checks.silhouettes(video, f, world))
