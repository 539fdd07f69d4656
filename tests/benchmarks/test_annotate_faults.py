"""The benchmark's own tools: every fault does what it says, and to the copy only."""

import json

import numpy as np
import pytest

from annotators.capture import load_capture
from annotators.robot_view import RobotView
from benchmarks.annotate.faults import BUMP_RAD, FAULTS, LAG_S, inject, remove
from benchmarks.annotate.simulated import read_truth, simulated_clicks, spoiled, spread_frames, write_clicks
from dataengine.convert.captures import export_captures
from dataengine.geometry import camera
from dataengine.robot.catalogue import load_robot
from tests.convert.test_captures import smooth_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six frames of a posed Panda with the masks and depth that its ray-cast view has."""
    video, _ = smooth_video(6)
    robot, rows = RobotView(load_robot("panda")), video.frames
    height, width = video.size
    for f in range(6):
        view = robot.view(rows["K"][f], (width, height), robot.poses(rows["joint_position"][f], rows["T_cam_base"][f]))
        video.images["mask_link"][f] = view.link_id
    folder = tmp_path_factory.mktemp("clip") / "c"
    export_captures([video], folder)
    return folder / "capture.yaml"


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_the_copy_only_and_says_so(clip, tmp_path, fault):
    before = content(clip.parent)
    path = inject(fault, clip, tmp_path / "copy", np.random.default_rng(0))
    assert content(clip.parent) == before
    truth = json.loads((path.parent / "truth.json").read_text())
    assert truth["fault"] == fault
    capture = load_capture(path)[1]
    clean = load_capture(clip)[1]
    changed = {
        "depth": any(np.abs(capture.depth_z_m(f) - clean.depth_z_m(f)).max() > 1e-3 for f in range(6)),
        "rgb": any((capture.rgb(f) != clean.rgb(f)).any() for f in range(6)),
        "K": (capture.K != clean.K).any(),
        "joints": capture.joints.times_s.shape != clean.joints.times_s.shape
        or np.abs(capture.joints.times_s - clean.joints.times_s).max() > 1e-3
        or np.abs(capture.joints.positions_rad - clean.joints.positions_rad).max() > 1e-3,
    }
    expected = {
        "none": "", "depth_scale": "depth", "blur": "rgb", "weak_texture": "rgb", "wrong_K": "K",
        "encoder_lag": "joints", "base_bumped": "joints", "joint_pairing": "joints",
    }  # fmt: skip
    assert "".join(k for k, v in changed.items() if v) == expected[fault]
    remove(path.parent)
    assert content(clip.parent) == before


def test_a_bumped_base_keeps_every_point_of_the_arm(clip, tmp_path):
    """The truth after the fault says the same about all links that move: only the base's own frame turned."""
    path = inject("base_bumped", clip, tmp_path / "copy", np.random.default_rng(0))
    old, new = read_truth(clip.parent), read_truth(path.parent)
    robot = RobotView(load_robot("panda"))
    for f in range(6):
        a = robot.poses(old["joint_position"][f], old["T_cam_base"][f])
        b = robot.poses(new["joint_position"][f], new["T_cam_base"][f])
        arm = [i for i in range(len(robot.model.links)) if i not in robot.model.base_link_indices]
        np.testing.assert_allclose(a[arm], b[arm], atol=1e-9)
        turned = np.arccos(np.clip((np.trace(a[0, :3, :3].T @ b[0, :3, :3]) - 1) / 2, -1, 1))
        assert turned == pytest.approx(BUMP_RAD if f >= 3 else 0.0, abs=1e-6)


def test_the_lag_says_late_what_was_true_earlier(clip, tmp_path):
    log = load_capture(inject("encoder_lag", clip, tmp_path / "copy", np.random.default_rng(0)))[1].joints
    true = load_capture(clip)[1].joints
    at = 0.4
    said = [np.interp(at, log.times_s, log.positions_rad[:, j]) for j in range(8)]
    was = [np.interp(at - LAG_S, true.times_s, true.positions_rad[:, j]) for j in range(8)]
    np.testing.assert_allclose(said, was, atol=1e-9)


def test_simulated_clicks_are_visible_landmarks_with_a_hand_s_error(clip, tmp_path):
    capture, truth = load_capture(clip)[1], read_truth(clip.parent)
    rng = np.random.default_rng(1)
    exact = simulated_clicks(capture, truth, spread_frames(6, 3), rng, sigma_px=0.0)
    assert {c.frame for c in exact} <= {0, 2, 3, 5} and len(exact) >= 10
    for click in exact:
        u, v = np.rint(click.uv_px).astype(int)
        assert capture.mask(click.frame)[max(v - 3, 0) : v + 4, max(u - 3, 0) : u + 4].any()
    noisy = [c for s in range(5) for c in simulated_clicks(capture, truth, [0], np.random.default_rng(s))]
    true = {c.landmark: c.uv_px for c in exact if c.frame == 0}
    errors = [np.subtract(c.uv_px, true[c.landmark]) for c in noisy if c.landmark in true]
    assert len(errors) > 20 and 1.5 < np.std(errors) < 2.5
    bad, wrong = spoiled(exact, capture.size, rng)
    assert [a != b for a, b in zip(bad, exact, strict=True)] == wrong.tolist() and 1 <= wrong.sum() <= 4
    write_clicks(tmp_path / "clicks.json", exact)
    read = json.loads((tmp_path / "clicks.json").read_text())
    assert read["simulated"] and len(read["clicks"]) == len(exact)


def test_the_view_is_the_projection_of_the_robot(clip):
    """Every visible pixel's point lies on the robot: depth and masks agree with projected mesh points."""
    truth = read_truth(clip.parent)
    robot, K = RobotView(load_robot("panda")), load_capture(clip)[1].K
    T = robot.poses(truth["joint_position"][0], truth["T_cam_base"][0])
    capture = load_capture(clip)[1]
    view = robot.view(K, capture.size, T)
    amodal = robot.amodal_links(K, capture.size, T)
    assert ((view.link_id > 0) == amodal.any(0)).mean() > 0.999
    v, u = np.argwhere(view.link_id > 0)[::97].T
    points = camera.backproject(K, view.depth_z_m)[v, u]
    for p, link in zip(points, view.link_id[v, u], strict=True):
        vertices = next(m for m in robot._meshes if m.link_index == link - 1).vertices_m @ T[link - 1, :3, :3].T + T[link - 1, :3, 3]
        assert np.linalg.norm(vertices - p, axis=1).min() < 0.05
