"""A solved capture becomes a video of the store: exact truth in, exact labels out, and through every exporter and the loader."""

import dataclasses
import json

import numpy as np
import pytest

from annotators.output import base_in_camera, make_video, visible_links, write_dataset
from annotators.robot_view import View
from dataengine.commands.convert import export_dataset
from dataengine.convert.ndds import import_ndds
from dataengine.geometry import camera, se3
from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_VISIBLE
from dataengine.store.dataset import open_dataset
from tests.annotators.solved import SIZE, K, N, world


@pytest.fixture(scope="module")
def video():
    return make_video(*world())


@pytest.fixture(scope="module")
def dataset(video, tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotated") / "dataset"
    write_dataset(folder, video, "one")
    return folder


def test_labels_are_those_of_the_solution(video):
    capture, solution = world()
    rows = video.frames
    assert video.source == "real" and video.frame_count == N and video.rejection is None
    np.testing.assert_allclose(rows["keypoints_cam_m"], solution.keypoints_cam_m, atol=1e-12)
    np.testing.assert_array_equal(rows["joint_position"], solution.joints_rad)
    np.testing.assert_allclose(rows["T_world_cam"] @ rows["T_cam_base"], solution.T_world_base, atol=1e-12)
    np.testing.assert_allclose(rows["keypoints_px"], camera.project(K, rows["keypoints_cam_m"]), atol=1e-9)
    assert rows["accepted"].tolist() == [1, 1, 1, 1, 0]
    clear = [f for f in range(N) if f != 2]
    for f in clear:
        shown = video.images["mask_link"][f] > 0
        assert (shown & capture.mask(f)).sum() / (shown | capture.mask(f)).sum() > 0.999
        np.testing.assert_allclose(video.images["depth_z"][f][shown], capture.depth_z_m(f)[shown], atol=1e-4)
    assert (video.images["amodal_robot"] >= (video.images["mask_link"] > 0)).all()
    assert (rows["link_visibility"] <= 1).all() and rows["link_visibility"].max() > 0.9


def test_what_stands_before_the_robot_hides_it(video):
    shown = video.images["mask_link"][2, 45:65, 65:85] > 0
    assert not shown.any() and video.images["amodal_robot"][2, 45:65, 65:85].any()
    px, state = video.frames["keypoints_px"][2], video.frames["keypoint_state"][2]
    hidden = ((px > (64, 44)) & (px < (86, 66))).all(1)
    assert hidden.any() and (state[hidden] == KEYPOINT_OCCLUDED).all() and (state[~hidden] == KEYPOINT_VISIBLE).any()


def test_depth_or_mask_alone_tell_what_is_hidden():
    view = View(np.full((40, 60), 3, np.uint8), np.ones((40, 60), np.float32))
    near = np.where(np.arange(60) < 20, 0.9, 1.01)[None].repeat(40, 0)
    assert (visible_links(view, near, None) > 0).mean() == pytest.approx(40 / 60)
    mask = np.zeros((40, 60), bool)
    mask[:, :30] = True
    assert (visible_links(view, None, mask) > 0).mean() == pytest.approx(36 / 60)
    assert visible_links(view, np.zeros((40, 60)), None).all()


def test_the_base_s_covariance_is_that_of_samples():
    rng = np.random.default_rng(0)
    capture, solution = world()
    Twc, Twb = solution.T_world_cam[1], solution.T_world_base[1]
    base, cam = np.diag([4e-6, 1e-6, 2e-6, 3e-6, 1e-6, 2e-6]), np.diag([1e-6, 2e-6, 1e-6, 5e-7, 1e-6, 1e-6])
    T = se3.inverse(Twc) @ Twb
    samples = []
    for _ in range(4000):
        camera_error, base_error = (rng.normal(size=6) * np.sqrt(np.diag(c)) for c in (cam, base))
        moved = se3.inverse(Twc @ _exp(camera_error)) @ Twb @ _exp(base_error)
        R = moved[:3, :3] @ T[:3, :3].T
        samples.append([*(moved[:3, 3] - T[:3, 3]), R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    observed = np.cov(np.array(samples).T * np.array([[1, 1, 1, 0.5, 0.5, 0.5]]).T)
    expected = base_in_camera(base, cam, T)
    np.testing.assert_allclose(observed, expected, atol=0.08 * np.sqrt(np.outer(np.diag(expected), np.diag(expected))).max())
    np.testing.assert_allclose(np.sqrt(np.diag(observed)), np.sqrt(np.diag(expected)), rtol=0.05)


def _exp(xi):
    angle = np.linalg.norm(xi[3:])
    R = se3.rotation_from_axis_angle(xi[3:] / angle, angle)
    x, y, z = xi[3:]
    W = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    V = np.eye(3) + W / 2 + W @ W / 6
    return se3.make(R, V @ xi[:3])


def test_the_scene_says_what_was_found(video):
    note = video.scene["annotation"]
    assert note["rejected"] == {"000004": "keypoints uncertain: 14 mm, allowed 10 mm"} and note["left_out"] == {}
    assert note["flags"][0]["kind"] == "wrong_click" and note["scales"][1]["source"] == "links"
    json.dumps(video.scene, allow_nan=False)


def test_frames_without_a_pose_are_left_out_and_named():
    capture, solution = world()
    T = solution.T_world_cam.copy()
    T[1] = np.nan
    reasons = ("", "no camera pose", *solution.reasons[2:])
    accepted = solution.accepted & (np.arange(N) != 1)
    video = make_video(capture, dataclasses.replace(solution, T_world_cam=T, reasons=reasons, accepted=accepted))
    assert video.frame_count == N - 1 and video.scene["annotation"]["left_out"] == {"000001": "no camera pose"}
    assert video.scene["files"] == ["000000", "000002", "000003", "000004"]
    np.testing.assert_allclose(np.diff(video.frames["timestamp_s"]), [0.4, 0.2, 0.2])
    nothing = make_video(capture, dataclasses.replace(solution, accepted=np.zeros(N, bool), reasons=("bad",) * N))
    assert nothing.rejection == "no frame was accepted: bad"


def test_a_dataset_is_written_once_per_key(dataset, video, tmp_path):
    opened = open_dataset(dataset)
    assert opened.verify() == {} and len(opened.videos()) == 1
    before = opened.manifest()["digest"]
    write_dataset(dataset, video, "one")
    assert open_dataset(dataset).manifest()["digest"] == before
    with opened.reader(0) as reader:
        read = reader.video()
    np.testing.assert_array_equal(read.frames, video.frames)
    other = tmp_path / "d"
    write_dataset(other, video, "one")
    write_dataset(other, dataclasses.replace(video, frames=video.frames), "two")
    assert open_dataset(other).spec["annotated"] == {"key": "two"}


@pytest.mark.parametrize("format", ["ndds", "bop", "colmap", "coco", "folders", "capture"])
def test_it_is_exported_like_any_other_dataset(dataset, tmp_path, format):
    assert export_dataset(dataset, format, tmp_path / "out") == 0
    assert any((tmp_path / "out").rglob("*"))


def test_through_ndds_the_keypoints_come_back(dataset, video, tmp_path):
    export_dataset(dataset, "ndds", tmp_path / "out")
    back = next(iter(import_ndds(tmp_path / "out")))
    assert back.source == "real"
    np.testing.assert_allclose(back.frames["keypoints_cam_m"], video.frames["keypoints_cam_m"], atol=1e-9)


def test_the_trainer_reads_it_beside_a_rendered_dataset(dataset, tmp_path):
    from tests.convert.worlds import panda_video, without_bystanders
    from tests.store.synthetic import new_dataset
    from training.data import Loader

    rendered = new_dataset(tmp_path / "rendered")
    made = panda_video(1, 4)
    made.images["rgb"] = np.repeat(np.repeat(made.images["rgb"], 3, 1), 2, 2)[:, : SIZE[1], : SIZE[0]]
    made = without_bystanders(made, "rgb")
    rendered.add(0, made, "test")
    rendered.write_manifest()
    columns = ("rgb", "K", "T_cam_base", "joint_position")
    loader = Loader([tmp_path / "rendered", dataset], columns, batch=3, split="test", seed=1)
    sizes = [tuple(batch["rgb"].shape) for batch in loader]
    assert sum(s[0] for s in sizes) >= 8 and all(s[1:] == (SIZE[1], SIZE[0], 3) for s in sizes)
