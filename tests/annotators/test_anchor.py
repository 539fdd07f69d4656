"""The anchor solve against exact truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from annotators.anchor import solve
from annotators.anchor_posterior import output_keypoints
from annotators.anchor_state import AnchorOptions
from annotators.types import Click, Solution
from dataengine.errors import DataEngineError
from dataengine.geometry import se3
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics
from tests.annotators.anchor_scene import SCALE, Scene, make_scene

CLICKS_ONLY = AnchorOptions(use_depth=False)


def errors_m(scene: Scene, solution: Solution) -> np.ndarray:
    """(N, K, 3) in the camera."""
    links = forward_kinematics(load_robot("panda"), scene.q)
    return solution.keypoints_cam_m - output_keypoints(load_robot("panda")).positions(scene.T_cam_base[:, None] @ links)


def distance_mm(scene: Scene, solution: Solution) -> float:
    return 1e3 * float(np.median(np.linalg.norm(errors_m(scene, solution), axis=-1)))


def test_without_noise_the_truth_comes_back():
    scene = make_scene(noise_px=0.0)
    solution = solve(scene.capture, scene.track, scene.clicks, CLICKS_ONLY)
    assert distance_mm(scene, solution) < 1.0  # the cameras' own 0.3 mm and 0.2 mrad remain
    assert abs(solution.metres_per_unit / SCALE - 1) < 5e-4
    assert np.abs(solution.click_residual_px).max() < 0.5
    assert not solution.flags and solution.accepted.all()


def test_known_joints_unknown_scale_within_the_predicted_error():
    """Fisher information predicts 2.6 mm for ten frames of 2 px (reference table); eight here."""
    medians = []
    for seed in range(3):
        scene = make_scene(seed)
        solution = solve(scene.capture, scene.track, scene.clicks, CLICKS_ONLY)
        medians.append(distance_mm(scene, solution))
        assert abs(solution.metres_per_unit / SCALE - 1) < 0.006
    assert np.median(medians) < 3.0


@pytest.mark.slow
def test_stated_uncertainty_matches_the_errors():
    """Normalised squared errors of one keypoint in one frame, over independent captures: mean 3 if the covariances are honest."""
    nees = []
    for seed in range(8):
        scene = make_scene(seed, frames=12, clicked=6)
        solution = solve(scene.capture, scene.track, scene.clicks, CLICKS_ONLY)
        e, cov = errors_m(scene, solution)[6, 5], solution.keypoint_covariance[6, 5]
        nees.append(float(e @ np.linalg.solve(cov, e)))
    assert 0.8 < np.mean(nees) < 8.0  # χ² with 24 degrees of freedom over 8: 1.2 … 5.6 at 99.9 %, and room for the model


@pytest.mark.parametrize("share", [0.03, 0.10])
def test_gross_errors_and_a_swapped_pair_are_found(share: float):
    scene, rng = make_scene(1), np.random.default_rng(5)
    clicks = list(scene.clicks)
    bad = rng.choice(len(clicks), max(2, round(share * len(clicks))), replace=False)
    for k in bad:
        clicks[k] = Click(clicks[k].frame, clicks[k].landmark, (float(rng.uniform(0, 639)), float(rng.uniform(0, 479))))
    names = {"base_rear_left": "hand_corner_right", "hand_corner_right": "base_rear_left"}
    swapped = [k for k, c in enumerate(clicks) if c.frame == 0 and c.landmark in names]
    for k in swapped:
        clicks[k] = Click(0, names[clicks[k].landmark], clicks[k].uv_px)
    solution = solve(scene.capture, scene.track, clicks, CLICKS_ONLY)
    wrong = np.union1d(bad, swapped).astype(int)
    assert not solution.click_inlier[wrong].any()
    assert solution.click_inlier.mean() > 0.97 - share - 0.02
    assert any(flag.kind == "wrong_click" for flag in solution.flags)
    right = solve(scene.capture, scene.track, [click for k, click in enumerate(clicks) if k not in wrong], CLICKS_ONLY)
    assert np.median(np.linalg.norm(errors_m(scene, solution) - errors_m(scene, right), axis=-1)) < 0.00005  # as if they were not there


def test_encoder_lag_is_measured_and_flagged():
    scene = make_scene(2, lag_s=0.04)
    solution = solve(scene.capture, scene.track, scene.clicks, CLICKS_ONLY)
    assert abs(solution.time_offset_s - 0.04) < 0.006
    assert [flag.kind for flag in solution.flags] == ["time_offset"]


def test_unknown_joints_of_a_resting_robot():
    scene = make_scene(0, robot_moves=False)
    solution = solve(replace(scene.capture, joints=None), scene.track, scene.clicks, CLICKS_ONLY)
    assert distance_mm(scene, solution) < 8.0
    assert np.degrees(np.median(np.abs(solution.joints_rad - scene.q)[:, :7])) < 1.5


@pytest.mark.slow
def test_depth_sharpens_and_its_scale_error_is_found():
    scene = make_scene(0, frames=12, clicked=6, depth=True)
    plain = solve(scene.capture, scene.track, scene.clicks)
    assert distance_mm(scene, plain) < 2.0
    assert not plain.flags
    depth = scene.capture.depth_z_m
    assert depth is not None
    longer = replace(scene.capture, depth_z_m=lambda frame: depth(frame) * np.float32(1.012))
    solution = solve(longer, scene.track, scene.clicks)
    assert abs(solution.depth_scale - 1.012) < 0.004
    assert "depth_scale" in [flag.kind for flag in solution.flags]


def test_resting_camera_needs_no_scale():
    scene = make_scene(3, camera_moves=False)
    solution = solve(scene.capture, scene.track, scene.clicks, CLICKS_ONLY)
    assert solution.metres_per_unit == 1.0 and not solution.scales
    assert distance_mm(scene, solution) < 5.0


def test_bumped_base_splits_the_track():
    turn = se3.make(se3.rotation_from_axis_angle((0.0, 0.0, 1.0), np.radians(3)), (0.0, 0.01, 0.0))
    scene = make_scene(3, bump=(15, turn))
    solution = solve(scene.capture, scene.track, scene.clicks, CLICKS_ONLY)
    flag = next(flag for flag in solution.flags if flag.kind == "base_moved")
    moved = se3.inverse(solution.T_world_base[0]) @ solution.T_world_base[-1]
    assert np.degrees(np.arccos((np.trace(moved[:3, :3]) - 1) / 2)) == pytest.approx(3.0, abs=0.7)
    assert not solution.accepted[list(flag.frames)].any()


@pytest.mark.slow
def test_joint_log_of_other_frames_is_given_up():
    scene = make_scene(1, frames=12, clicked=12)
    order = np.random.default_rng(0).permutation(12)
    log = replace(scene.capture.joints, times_s=scene.capture.times_s, positions_rad=scene.q[order])  # type: ignore[type-var]
    solution = solve(replace(scene.capture, joints=log), scene.track, scene.clicks, CLICKS_ONLY)
    assert "joint_pairing" in [flag.kind for flag in solution.flags]
    assert distance_mm(scene, solution) < 12.0


def test_too_few_clicks_say_so():
    scene = make_scene()
    with pytest.raises(DataEngineError, match="at least 6"):
        solve(scene.capture, scene.track, scene.clicks[:5], CLICKS_ONLY)


@pytest.mark.parametrize("known", [True, False])
def test_clicks_of_one_landmark_in_many_frames_say_what_is_missing(known: bool):
    """What a person does first: the same landmark all through the clip."""
    scene = make_scene(clicked=30)
    name = scene.clicks[0].landmark
    capture = scene.capture if known else replace(scene.capture, joints=None)
    with pytest.raises(DataEngineError, match="1 at most in one frame; at least 6 are needed, 4 of them in one frame"):
        solve(capture, scene.track, [c for c in scene.clicks if c.landmark == name], AnchorOptions(use_depth=False))


def test_a_refused_track_is_not_solved():
    scene = make_scene()
    with pytest.raises(DataEngineError, match="rotation only"):
        solve(scene.capture, replace(scene.track, refusal="rotation only"), scene.clicks)


def test_unknown_landmark_names_the_known_ones():
    scene = make_scene()
    with pytest.raises(DataEngineError, match="elbow_cap_upper"):
        solve(scene.capture, scene.track, [*scene.clicks, Click(0, "elbow_cap_uper", (1.0, 1.0))])


@pytest.mark.parametrize(("depth", "camera_moves"), [(True, True), (True, False), (False, True)])
def test_a_wrong_focal_length_is_flagged_whatever_the_camera_does(depth: bool, camera_moves: bool):
    scene = make_scene(3, depth=depth, camera_moves=camera_moves)
    options = AnchorOptions(use_depth=depth)
    assert "intrinsics" not in [flag.kind for flag in solve(scene.capture, scene.track, scene.clicks, options).flags]
    wrong = scene.capture.K * np.array([[1.06], [1.06], [1.0]])
    wrong[:2, 2] = scene.capture.K[:2, 2]
    found = solve(replace(scene.capture, K=wrong), scene.track, scene.clicks, options)
    assert "intrinsics" in [flag.kind for flag in found.flags]
