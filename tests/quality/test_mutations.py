"""Every check of the validator catches the mistake it is for, in an otherwise perfect video."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dataengine.geometry import camera, se3
from dataengine.quality.validate import validate_video
from dataengine.record.video import Video
from dataengine.render.job import Rendered, Robot
from dataengine.scene.world import RayWorld

Mutation = Callable[[Video], None]


def copy_of(video: Video) -> Video:
    images = {name: image.copy() for name, image in video.images.items()}
    return replace(video, images=images, frames=video.frames.copy())


def checks_that_fail(video: Video, robot: Robot, world: RayWorld | None = None) -> set[str]:
    return {violation.check for violation in validate_video(video, robot.model, robot.meshes, world).violations}


def reproject(row: np.void) -> None:
    """Make the 2D keypoints agree with K again, as a consistent mistake would."""
    row["keypoints_px"] = camera.project(row["K"], row["keypoints_cam_m"])


def link_shifted(video: Video) -> None:
    video.frames["T_cam_link"][1, 5, 0, 3] += 1e-4


def base_shifted_with_everything_on_it(video: Video) -> None:
    """A wrong base pose that agrees with itself: links and keypoints moved along."""
    for name in ("T_cam_base", "T_cam_link"):
        video.frames[name][..., 0, 3] += 0.002
    video.frames["keypoints_cam_m"][..., 0] += 0.002
    for row in video.frames:
        reproject(row)


def camera_moved(video: Video) -> None:
    video.frames["T_world_cam"][0, 0, 3] += 0.002


def half_a_pixel(video: Video) -> None:
    video.frames["K"][:, :2, 2] += 0.5


def half_a_pixel_reprojected(video: Video) -> None:
    half_a_pixel(video)
    for row in video.frames:
        reproject(row)


def focal_length(video: Video) -> None:
    video.frames["K"][:, 0, 0] *= 1.01
    for row in video.frames:
        reproject(row)


def keypoints_swapped(video: Video) -> None:
    for name in ("keypoints_cam_m", "keypoints_px", "keypoint_state", "keypoint_visibility"):
        video.frames[name][:, [2, 3]] = video.frames[name][:, [3, 2]]


def keypoint_off_by_a_hundredth(video: Video) -> None:
    video.frames["keypoints_px"][0, 4, 1] += 0.01


def most_sure(video: Video, state: int) -> tuple[int, int]:
    """(frame, keypoint) of that state whose visibility is the clearest."""
    share = np.where(video.frames["keypoint_state"] == state, video.frames["keypoint_visibility"], 0.5)
    assert (video.frames["keypoint_state"] == state).any(), "the scene lacks such a keypoint"
    f, k = np.unravel_index(np.abs(share - 0.5).argmax(), share.shape)
    return int(f), int(k)


def state_outside(video: Video) -> None:
    f, k = most_sure(video, 2)
    video.frames["keypoint_state"][f, k], video.frames["keypoint_visibility"][f, k] = 0, 0


def state_without_visibility(video: Video) -> None:
    video.frames["keypoint_state"][most_sure(video, 2)] = 1


def visible_called_occluded(video: Video) -> None:
    at = most_sure(video, 2)
    video.frames["keypoint_state"][at], video.frames["keypoint_visibility"][at] = 1, 0.0


def occluded_called_visible(video: Video) -> None:
    at = most_sure(video, 1)
    video.frames["keypoint_state"][at], video.frames["keypoint_visibility"][at] = 2, 1.0


def joint_beyond_its_limit(video: Video) -> None:
    video.frames["joint_position"][0, 3] = 0.5  # panda_joint4 ends at -0.07


def joint_off(video: Video) -> None:
    video.frames["joint_position"][0, 1] += 1e-3


def velocity_doubled(video: Video) -> None:
    video.frames["joint_velocity"] *= 2


def velocity_reversed(video: Video) -> None:
    video.frames["joint_velocity"][:, 0] *= -1


def rotation_stretched(video: Video) -> None:
    video.frames["T_cam_link"][0, 2, :3, :3] *= 1 + 1e-4


def rotation_mirrored(video: Video) -> None:
    video.frames["T_cam_object"][0, 0, :3, 0] *= -1


def pose_not_finite(video: Video) -> None:
    video.frames["T_world_cam"][1, 0, 0] = np.nan


def joint_not_finite(video: Video) -> None:
    video.frames["joint_position"][0, 0] = np.nan


def object_moved(video: Video) -> None:
    video.frames["T_cam_object"][:, 0, 2, 3] += 0.003


def patch(video: Video, name: str) -> np.ndarray:
    """A view of 5 × 5 pixels in the middle of the robot's largest part in the image."""
    ids = video.images["mask_link"][0]
    inner = [(link, v, u) for link in np.unique(ids[ids > 0]) for v, u in inner_pixels(ids == link)]
    assert inner, "no link is 5 pixels wide"
    _, v, u = inner[0]
    return video.images[name][0, v - 2 : v + 3, u - 2 : u + 3]


def inner_pixels(mask: np.ndarray) -> list[tuple[int, int]]:
    windows = np.lib.stride_tricks.sliding_window_view(mask, (5, 5)).all((-1, -2))
    return [(int(v) + 2, int(u) + 2) for v, u in np.argwhere(windows)]


def another_link_in_a_patch(video: Video) -> None:
    ids = patch(video, "mask_link")
    ids[:] = 1 + ids[0, 0] % len(video.names.links)


def masks_overlap(video: Video) -> None:
    patch(video, "mask_object")[:] = 1


def link_that_is_none(video: Video) -> None:
    patch(video, "mask_link")[:] = 200


def object_that_is_none(video: Video) -> None:
    video.images["mask_object"][1, 0, 0] = 77


def mask_missing(video: Video) -> None:
    patch(video, "mask_link")[:] = 0


def object_outside_its_amodal_mask(video: Video) -> None:
    background = np.argwhere(video.images["amodal_objects"][0] == 0)[:20]
    video.images["mask_object"][0, background[:, 0], background[:, 1]] = 1


def amodal_everywhere(video: Video) -> None:
    video.images["amodal_robot"][:] = 1


def amodal_objects_swapped(video: Video) -> None:
    """Bits of the first two objects exchanged."""
    bits = video.images["amodal_objects"]
    first, second = bits & 1, (bits >> np.uint32(1)) & 1
    video.images["amodal_objects"][:] = (bits & ~np.uint32(3)) | (first << np.uint32(1)) | second


def amodal_only_where_visible(video: Video) -> None:
    """No amodal mask at all, but the visible one under its name."""
    for k in range(len(video.names.objects)):
        hidden = (video.images["mask_object"] != k + 1) & ((video.images["amodal_objects"] >> np.uint32(k)) & 1 > 0)
        video.images["amodal_objects"][hidden] &= ~np.uint32(1 << k)


def link_visibility_of_another(video: Video) -> None:
    video.frames["link_visibility"] = np.roll(video.frames["link_visibility"], 1, axis=1)


def object_visibility_off(video: Video) -> None:
    video.frames["object_visibility"][0, 0] *= 0.98


def depth_off_by_3_mm(video: Video) -> None:
    video.images["depth_z"][video.images["depth_z"] > 0] += np.float32(0.003)


def depth_off_in_a_patch(video: Video) -> None:
    patch(video, "depth_z")[:] += np.float32(0.003)


def depth_hole(video: Video) -> None:
    patch(video, "depth_z")[:] = 0


def range_instead_of_depth(video: Video) -> None:
    """The classic: ray length stored as planar depth."""
    for f, row in enumerate(video.frames):
        rays = camera.backproject(row["K"], np.ones(video.size))
        video.images["depth_z"][f] *= np.linalg.norm(rays, axis=-1).astype(np.float32)


def nocs_axis_flipped(video: Video) -> None:
    inside = video.images["mask_object"] == 1
    video.images["nocs"][..., 0][inside] = 65535 - video.images["nocs"][..., 0][inside]


def nocs_axes_swapped(video: Video) -> None:
    video.images["nocs"][:] = video.images["nocs"][..., [1, 0, 2]]


def infrared_swapped(video: Video) -> None:
    video.images["ir_left"], video.images["ir_right"] = video.images["ir_right"], video.images["ir_left"]


def infrared_one_pixel_off(video: Video) -> None:
    video.images["ir_right"] = np.roll(video.images["ir_right"], 1, axis=2)


def infrared_half_a_pixel_off(video: Video) -> None:
    right = video.images["ir_right"].astype(float)
    video.images["ir_right"] = np.rint((right + np.roll(right, 1, axis=2)) / 2).astype(np.uint8)


def infrared_baseline(video: Video) -> None:
    """The record says 65 mm, the pictures are 55 mm apart."""
    video.scene["depth_sensor"] = video.scene["depth_sensor"] | {"baseline_m": 0.065}


def infrared_blank(video: Video) -> None:
    video.images["ir_left"][1], video.images["ir_right"][1] = 0, 0


def measured_in_millimetres(video: Video) -> None:
    video.images["depth_sim"] *= 1000


def measured_upside_down(video: Video) -> None:
    video.images["depth_sim"] = video.images["depth_sim"][:, ::-1].copy()


def black(video: Video) -> None:
    video.images["rgb"][1] = 0


def blown(video: Video) -> None:
    video.images["rgb"][0] = 255


def duplicate(video: Video) -> None:
    video.images["rgb"][1] = video.images["rgb"][0]


def normals_flipped(video: Video) -> None:
    video.images["normals"][:] = -video.images["normals"]


def normals_flipped_in_a_patch(video: Video) -> None:
    patch(video, "normals")[:] *= -1


def normals_in_world_axes(video: Video) -> None:
    for f, row in enumerate(video.frames):
        turned = video.images["normals"][f] @ row["T_world_cam"][:3, :3].T
        video.images["normals"][f] = np.rint(turned).astype(np.int8)


def normals_short(video: Video) -> None:
    video.images["normals"][:] = video.images["normals"] // 2


def frame_from_another_time(video: Video) -> None:
    """Labels of frame 0 beside the images of frame 1."""
    video.frames[1] = video.frames[0]


def clock_wrong(video: Video) -> None:
    video.frames["timestamp_s"] *= 2


def modality_lost(video: Video) -> None:
    del video.images["normals"]


TABLE: list[tuple[Mutation, str]] = [
    (link_shifted, "kinematics"),
    (base_shifted_with_everything_on_it, "scene"),
    (camera_moved, "ids against rays"),
    (half_a_pixel, "keypoints"),
    (half_a_pixel_reprojected, "ids against rays"),
    (focal_length, "ids against rays"),
    (keypoints_swapped, "keypoints"),
    (keypoint_off_by_a_hundredth, "keypoints"),
    (state_outside, "keypoints"),
    (state_without_visibility, "keypoints"),
    (visible_called_occluded, "keypoint visibility"),
    (occluded_called_visible, "keypoint visibility"),
    (joint_beyond_its_limit, "joint limits"),
    (joint_off, "kinematics"),
    (velocity_doubled, "joint velocity"),
    (velocity_reversed, "joint velocity"),
    (rotation_stretched, "poses"),
    (rotation_mirrored, "poses"),
    (pose_not_finite, "poses"),
    (joint_not_finite, "joint limits"),
    (object_moved, "object coordinates"),
    (another_link_in_a_patch, "ids against rays"),
    (masks_overlap, "masks"),
    (link_that_is_none, "masks"),
    (object_that_is_none, "masks"),
    (mask_missing, "depth and ids"),
    (object_outside_its_amodal_mask, "masks"),
    (amodal_everywhere, "amodal robot"),
    (amodal_objects_swapped, "amodal objects"),
    (amodal_only_where_visible, "amodal objects"),
    (link_visibility_of_another, "visible shares"),
    (object_visibility_off, "visible shares"),
    (depth_off_by_3_mm, "depth against rays"),
    (depth_off_in_a_patch, "depth against rays"),
    (depth_hole, "depth and ids"),
    (range_instead_of_depth, "depth against rays"),
    (nocs_axis_flipped, "object coordinates"),
    (nocs_axes_swapped, "object coordinates"),
    (infrared_swapped, "infrared pair"),
    (infrared_one_pixel_off, "infrared pair"),
    (infrared_half_a_pixel_off, "infrared pair"),
    (infrared_baseline, "infrared pair"),
    (infrared_blank, "infrared pair"),
    (measured_in_millimetres, "measured depth"),
    (measured_upside_down, "measured depth"),
    (black, "exposure"),
    (blown, "exposure"),
    (duplicate, "duplicate frames"),
    (normals_flipped, "normals against rays"),
    (normals_flipped_in_a_patch, "normals against rays"),
    (normals_in_world_axes, "normals against rays"),
    (normals_short, "normals against rays"),
    (frame_from_another_time, "scene"),
    (clock_wrong, "scene"),
    (modality_lost, "scene"),
]


@pytest.mark.parametrize(("mutate", "check"), TABLE, ids=[mutate.__name__ for mutate, _ in TABLE])
def test_caught(mutate: Mutation, check: str, tiny_rendered: Rendered, panda_ready: Robot) -> None:
    """In the worker, which hands over its ray world; a record that contradicts its scene gets a world of its own."""
    mutated = copy_of(replace(tiny_rendered.video, scene=dict(tiny_rendered.video.scene)))
    mutate(mutated)
    assert check in checks_that_fail(mutated, panda_ready, tiny_rendered.world)


@pytest.mark.parametrize("mutate", [joint_off, half_a_pixel_reprojected, depth_off_in_a_patch], ids=lambda m: m.__name__)
def test_caught_without_the_world_of_the_worker(mutate: Mutation, tiny_video: Video, panda_ready: Robot) -> None:
    """As `dataengine validate` does it, from the record alone."""
    mutated = copy_of(tiny_video)
    mutate(mutated)
    assert dict(TABLE)[mutate] in checks_that_fail(mutated, panda_ready)


def test_every_check_has_a_mutation(tiny_rendered: Rendered, panda_ready: Robot) -> None:
    """The count of checks made says that no check is missing from the list."""
    assert {check for _, check in TABLE} == ALL_CHECKS
    checks = validate_video(tiny_rendered.video, panda_ready.model, panda_ready.meshes, tiny_rendered.world).checks
    per_clip = {"duplicate frames", "joint velocity", "scene"}
    assert checks == len(ALL_CHECKS - per_clip) * tiny_rendered.video.frame_count + len(per_clip)


ALL_CHECKS = {
    "poses", "kinematics", "keypoints", "joint limits", "masks", "depth and ids", "object coordinates", "infrared pair", "measured depth",
    "exposure", "keypoint visibility", "visible shares", "duplicate frames", "joint velocity", "scene", "ids against rays",
    "depth against rays", "normals against rays", "amodal robot", "amodal objects",
}  # fmt: skip


def test_identity_is_no_mutation(tiny_video: Video, panda_ready: Robot) -> None:
    assert checks_that_fail(copy_of(tiny_video), panda_ready) == set()
    assert se3.is_rigid(tiny_video.frames["T_cam_link"])
