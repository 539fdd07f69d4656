"""Masks of a resting camera start the solve where clicks cannot: exact masks of a moving robot, pictures and joint log mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from annotators.anchor import solve
from annotators.anchor_posterior import output_keypoints
from annotators.anchor_state import AnchorOptions
from annotators.anchor_surface import robot_shape, view_robot
from annotators.types import Click, Solution
from dataengine.geometry import camera
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics
from tests.annotators.anchor_scene import SIZE, K, Scene, make_scene

FRAMES = 8
WRIST = ("wrist_cap_front", "wrist_cap_rear", "forearm_cap", "elbow_cap_lower")
NO_DEPTH = AnchorOptions(use_depth=False)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A resting camera, exact masks, and a log whose rows belong to other pictures."""
    made = make_scene(2, frames=FRAMES, clicked=FRAMES, camera_moves=False, noise_px=1.0)
    shape, links = robot_shape(load_robot("panda")), forward_kinematics(load_robot("panda"), made.q)
    masks = [view_robot(shape, made.T_cam_base[f] @ links[f], K, SIZE, 1).mask for f in range(FRAMES)]
    order = np.roll(np.arange(FRAMES), 3)
    log = replace(made.capture.joints, times_s=made.capture.times_s, positions_rad=made.q[order])  # type: ignore[type-var]
    return replace(made, capture=replace(made.capture, joints=log, mask=lambda i: masks[i]))


def keypoint_px(scene: Scene, solution: Solution) -> np.ndarray:
    """Of every frame, the median distance in the picture of keypoints from where they are, (N,)."""
    links = forward_kinematics(load_robot("panda"), scene.q)
    truth = output_keypoints(load_robot("panda")).positions(scene.T_cam_base[:, None] @ links)
    return np.median(np.linalg.norm(camera.project(K, solution.keypoints_cam_m) - camera.project(K, truth), axis=-1), axis=1)


def found(scene: Scene, clicks: Sequence[Click]) -> Solution:
    solution = solve(scene.capture, scene.track, clicks, NO_DEPTH)
    assert "joint_pairing" in [flag.kind for flag in solution.flags]
    return solution


@pytest.mark.slow
def test_masks_alone_find_the_pose_and_the_pairing(scene: Scene):
    assert np.median(keypoint_px(scene, found(scene, []))) < 1.0


@pytest.mark.slow
def test_a_few_clicks_help_the_masks_and_do_not_lead_them_astray(scene: Scene):
    """Four landmarks of the forearm a frame leave a configuration of its own free to turn; the masks hold it. One click is 60 px off."""
    clicks = [click for click in scene.clicks if click.landmark in WRIST]
    assert max(sum(click.frame == f for click in clicks) for f in range(FRAMES)) == 4
    wrong = replace(clicks[3], uv_px=(clicks[3].uv_px[0] + 60, clicks[3].uv_px[1]))
    solution = found(scene, [*clicks[:3], wrong, *clicks[4:]])
    assert np.median(keypoint_px(scene, solution)) < 0.6
    assert not solution.click_inlier[3] and solution.click_inlier.mean() > 0.85
