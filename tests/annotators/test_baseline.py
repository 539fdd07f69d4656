"""The first-frame method that ours is compared with: right on exact clicks, and only as good as its first frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from annotators.anchor_posterior import output_keypoints
from annotators.baseline import BaselineSolution, first_frame_solve
from dataengine.errors import DataEngineError
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics
from tests.annotators.anchor_scene import Scene, make_scene


def error_mm(scene: Scene, found: BaselineSolution) -> float:
    truth = output_keypoints(load_robot("panda")).positions(scene.T_cam_base[:, None] @ forward_kinematics(load_robot("panda"), scene.q))
    return 1e3 * float(np.median(np.linalg.norm(found.keypoints_cam_m - truth, axis=-1)))


@pytest.mark.parametrize("known", [True, False])
def test_exact_clicks_of_the_first_frame_give_the_pose(known: bool):
    scene = make_scene(1, frames=6, clicked=2, robot_moves=known, camera_moves=False, noise_px=0.0)
    capture = scene.capture if known else replace(scene.capture, joints=None)
    assert error_mm(scene, first_frame_solve(capture, scene.track, scene.clicks)) < 0.1


def test_clicks_of_later_frames_change_nothing():
    scene = make_scene(1, frames=6, clicked=6, camera_moves=False)
    first = [click for click in scene.clicks if click.frame == 0]
    all_clicks, alone = (first_frame_solve(scene.capture, scene.track, clicks) for clicks in (scene.clicks, first))
    np.testing.assert_array_equal(all_clicks.keypoints_cam_m, alone.keypoints_cam_m)


def test_a_moving_camera_without_depth_has_no_scale():
    scene = make_scene(1)
    with pytest.raises(DataEngineError, match="no depth ratio"):
        first_frame_solve(scene.capture, scene.track, scene.clicks)
