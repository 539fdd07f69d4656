"""Captures with truth: written by the exporter, read by the annotator as if a person had recorded them."""

import dataclasses
import json

import numpy as np
import pytest

from annotators.capture import load_capture
from dataengine.convert.captures import export_captures, joint_log
from dataengine.convert.disk import ConvertError
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics
from tests.convert.worlds import panda_video


def smooth_video(frames=6):
    """A Panda on a smooth path whose velocities are right."""
    video = panda_video(0, frames)
    rows = video.frames.copy()
    t = np.arange(frames) / 6
    middle = (load_robot("panda").q_lower + load_robot("panda").q_upper) / 2
    w = np.linspace(0.5, 1.5, rows["joint_position"].shape[1])
    reach = np.minimum(0.3, 0.4 * (load_robot("panda").q_upper - middle))
    rows["timestamp_s"] = t
    rows["joint_position"] = middle + reach * np.sin(w * t[:, None])
    rows["joint_velocity"] = reach * w * np.cos(w * t[:, None])
    rows["T_cam_link"] = rows["T_cam_base"][:, None] @ forward_kinematics(load_robot("panda"), rows["joint_position"])
    return dataclasses.replace(video, frames=rows), lambda s: middle + reach * np.sin(w * np.asarray(s)[:, None])


def test_the_annotator_reads_what_was_exported(tmp_path):
    video, _ = smooth_video()
    assert export_captures([video], tmp_path / "out") == 1
    spec, capture = load_capture(tmp_path / "out" / "capture.yaml")
    assert spec.joints_mode == "known" and capture.robot == "panda"
    np.testing.assert_array_equal(capture.K, video.frames["K"][0])
    np.testing.assert_array_equal(capture.times_s, video.frames["timestamp_s"])
    for f in (0, video.frame_count - 1):
        np.testing.assert_array_equal(capture.rgb(f), video.images["rgb"][f])
        np.testing.assert_array_equal(capture.mask(f), video.images["mask_link"][f] > 0)
        stored = video.images["depth_sim" if "depth_sim" in video.images else "depth_z"][f]
        assert np.abs(capture.depth_z_m(f) - stored)[stored < 65].max() <= 0.5e-3 + 1e-6
    truth = json.loads((tmp_path / "out" / "truth.json").read_text())
    np.testing.assert_array_equal(truth["T_world_cam"], video.frames["T_world_cam"])
    np.testing.assert_array_equal(truth["joint_position"], video.frames["joint_position"])
    assert truth["keypoint_names"] == list(video.names.keypoints)


def test_the_log_between_the_frames_is_the_motion():
    video, motion = smooth_video(8)
    times, q = joint_log(video)
    assert len(times) == 1 + round(times[-1] * 100) and times[0] == 0
    np.testing.assert_allclose(q, motion(times), atol=2e-5)
    model = load_robot("panda")
    moved = forward_kinematics(model, q) - forward_kinematics(model, motion(times))
    assert np.abs(moved[..., :3, 3]).max() < 1e-4


def test_several_videos_become_several_folders(tmp_path):
    video, _ = smooth_video(3)
    assert export_captures(iter([video, video, video]), tmp_path / "out") == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000", "000001", "000002"]
    assert load_capture(tmp_path / "out" / "000002" / "capture.yaml")[1].size == video.size[::-1]
    assert export_captures(iter([]), tmp_path / "none") == 0


def test_what_no_capture_can_say_is_refused(tmp_path):
    video, _ = smooth_video(3)
    rows = video.frames.copy()
    rows["K"][1, 0, 0] += 1
    with pytest.raises(ConvertError, match="one K for all frames"):
        export_captures([dataclasses.replace(video, frames=rows)], tmp_path / "a")
    rows = video.frames.copy()
    rows["T_world_cam"][1] = np.nan
    with pytest.raises(ConvertError, match="T_world_cam is unknown"):
        export_captures([dataclasses.replace(video, frames=rows)], tmp_path / "b")
