"""Clicks at known pixels through the real solver: what the app shows is the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from annotators.anchor_state import AnchorOptions, clicks_alone
from annotators.session import LiveAnchor
from annotators.types import CameraTrack, Click, JointLog
from dataengine.geometry import se3
from tests.annotators.staged import Staged


@pytest.mark.slow
def test_eight_clicks_of_one_frame_place_the_robot(render_tiny):
    staged = Staged(render_tiny(video=3).video, repeats=2)
    count = len(staged.capture.frames)
    q = np.stack([staged.row(i)["joint_position"] for i in range(count)])
    capture = replace(staged.capture, joints=JointLog(staged.capture.times_s, q))
    nothing = np.zeros(0, np.int64)
    track = CameraTrack(
        np.tile(np.eye(4), (count, 1, 1)), np.zeros((count, 6, 6)), np.ones(count, bool), ((0, count),), np.zeros((0, 3)), nothing,
        nothing, np.zeros((0, 2)), 0.0, "none",
    )  # fmt: skip
    # As `annotate --ui` solves while clicking. Edges of a picture 160 pixels wide are good to half a pixel, 6 mm here.
    live = LiveAnchor(capture, track, clicks_alone(AnchorOptions()))
    width, height = capture.size
    inside = [(n, uv) for n, uv in staged.pixels(0).items() if 0 < uv[0] < width - 1 and 0 < uv[1] < height - 1]
    clicks = tuple(Click(0, name, uv) for name, uv in inside[:8])
    solution = live.solve(clicks)
    T_cam_base = se3.inverse(solution.T_world_cam[0]) @ solution.T_world_base[0]
    error = se3.inverse(staged.row(0)["T_cam_base"]) @ T_cam_base
    assert np.linalg.norm(error[:3, 3]) < 1e-3
    assert np.rad2deg(np.arccos(np.clip((np.trace(error[:3, :3]) - 1) / 2, -1, 1))) < 0.2
    hint = live.suggest(clicks)
    assert hint is not None
    assert (hint.frame, hint.landmark) not in {(c.frame, c.landmark) for c in clicks}
    assert 0 < hint.expected_sd_m < hint.present_sd_m
    more = (*clicks, Click(hint.frame, hint.landmark, staged.pixels(hint.frame)[hint.landmark]))
    live.solve(more)
    after = live.suggest(more)
    assert after is not None and after.present_sd_m < hint.present_sd_m
