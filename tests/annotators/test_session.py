"""The live solve of the app on exact clicks: what it says is true, and a suggestion costs no second solve."""

import numpy as np

import annotators.session
from annotators.anchor_state import AnchorOptions
from annotators.landmarks import landmark_set
from annotators.session import LiveAnchor
from annotators.types import Click
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
