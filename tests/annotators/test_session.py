"""The live solve of the app on exact clicks: what it says is true, and a suggestion costs no second solve."""

from dataclasses import replace

import numpy as np
import pytest

import annotators.session
from annotators.anchor_state import AnchorOptions
from annotators.landmarks import landmark_set
from annotators.session import LiveAnchor, click_in_browser
from annotators.types import Click, JointLog
from dataengine.geometry import camera
from tests.annotators.solved import K, panda_view, world
from tests.annotators.test_run import track_of


def test_the_robot_follows_the_clicks_and_the_next_one_is_suggested(monkeypatch):
    capture, solution = world()
    robot = panda_view()
    points = landmark_set(robot.model)
    clicks = []
    for f in (0, 2, 4):
        T = robot.poses(solution.joints_rad[f], np.linalg.inv(solution.T_world_cam[f]) @ solution.T_world_base[f])
        for name, uv in zip(points.names[:9], camera.project(K, points.positions(T))[:9], strict=True):
            clicks.append(Click(f, name, (float(uv[0]), float(uv[1]))))
    live = LiveAnchor(capture, track_of(solution), AnchorOptions(use_depth=False, use_masks=False))
    found = live.solve(tuple(clicks))
    assert 1e3 * np.linalg.norm(found.keypoints_cam_m - solution.keypoints_cam_m, axis=-1).max() < 3
    calls = []
    monkeypatch.setattr(annotators.session, "solve_inputs", lambda inputs: calls.append(inputs))
    suggested = live.suggest(tuple(clicks))
    assert calls == [] and suggested is not None
    assert suggested.landmark in points.names and suggested.expected_sd_m < suggested.present_sd_m


@pytest.mark.parametrize("rests", [True, False])
def test_masks_of_a_resting_camera_pose_the_robot_before_the_first_click(monkeypatch, tmp_path, rests: bool):
    """Elsewhere the app waits for clicks and solves from them alone."""
    capture, solution = world()
    track = track_of(solution)
    if rests:
        track = replace(track, T_world_cam=np.tile(track.T_world_cam[:1], (len(track.posed), 1, 1)))
    log = JointLog(capture.times_s, solution.joints_rad)
    capture = replace(capture, joints=log, mask=lambda frame: np.zeros(capture.size[::-1], bool), depth_z_m=None)
    told: dict = {}
    monkeypatch.setattr("annotators.app.main.run_app", lambda *_, fewest_clicks, **__: told.update(fewest=fewest_clicks))
    monkeypatch.setattr(annotators.session, "LiveAnchor", lambda *given: told.update(options=given[2]) or LiveAnchor(*given))
    click_in_browser(capture, track, AnchorOptions(), tmp_path, (), 0)
    assert (told["fewest"], told["options"].use_masks, told["options"].use_edges) == (0 if rests else 6, rests, False)
