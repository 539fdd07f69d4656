"""Camera poses from pictures of an exactly known corner; refusals; kills; the same result twice."""

import fcntl
import json
import re
from dataclasses import replace

import numpy as np
import psutil
import pytest

from annotators import sfm, sfm_checks
from annotators.sfm import SfmError, solve_cameras
from annotators.types import CameraTrack
from dataengine.geometry import se3
from tests.annotators import sfm_scene as scene


@pytest.fixture(scope="module")
def corner() -> tuple[np.ndarray, list[np.ndarray]]:
    poses = scene.arc(7)
    return poses, [scene.picture(T) for T in poses]


@pytest.fixture(scope="module")
def solved(corner, tmp_path_factory) -> CameraTrack:
    return solve_cameras(scene.capture(corner[1]), tmp_path_factory.mktemp("whole"), mapper="incremental")


def pose_errors(track: CameraTrack, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of camera centres (share of the scene's depth) and of rotations (degrees) after the best similarity."""
    T = track.T_world_cam
    s, R, t = sfm_checks.similarity(T[:, :3, 3], truth[:, :3, 3])
    apart = np.linalg.norm(s * T[:, :3, 3] @ R.T + t - truth[:, :3, 3], axis=1)
    relative = np.swapaxes(T[0, :3, :3].T @ T[:, :3, :3], -1, -2) @ (truth[0, :3, :3].T @ truth[:, :3, :3])
    return apart / s, sfm_checks.rotation_angle_deg(relative)


def same(a: CameraTrack, b: CameraTrack) -> bool:
    names = ("T_world_cam", "covariance", "posed", "points", "obs_point", "obs_frame", "obs_uv_px")
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


def test_poses_of_a_known_corner_are_found_with_uncertainty_of_the_right_size(corner, solved):
    truth, _ = corner
    assert solved.refusal is None and solved.flags == ()
    assert solved.posed.all()
    shift, turn_deg = pose_errors(solved, truth)
    assert shift.max() < 0.003
    assert turn_deg.max() < 0.15
    sd = np.sqrt(np.diagonal(solved.covariance, axis1=1, axis2=2))
    assert np.median(sd[:, :3]) < 0.003
    assert np.median(shift) < 6 * np.median(np.linalg.norm(sd[:, :3], axis=1))
    assert np.degrees(np.median(sd[:, 3:])) < 0.15


def test_world_is_the_first_camera_and_the_unit_is_the_median_depth(solved):
    assert solved.T_world_cam[0] == pytest.approx(np.eye(4), abs=1e-9)
    seen = se3.inverse(solved.T_world_cam)[solved.obs_frame]
    depth = np.einsum("oj,oj->o", seen[:, 2, :3], solved.points[solved.obs_point]) + seen[:, 2, 3]
    assert np.median(depth) == pytest.approx(1.0, rel=1e-9)


def test_observations_reproject_in_our_pixel_convention(solved):
    seen = se3.inverse(solved.T_world_cam)[solved.obs_frame]
    p = np.einsum("oij,oj->oi", seen[:, :3, :3], solved.points[solved.obs_point]) + seen[:, :3, 3]
    uv = p[:, :2] / p[:, 2:] * np.diag(scene.K)[:2] + scene.K[:2, 2]
    error = np.linalg.norm(uv - solved.obs_uv_px, axis=1)
    assert error.mean() == pytest.approx(solved.mean_reprojection_px, rel=1e-6)
    assert error.mean() < 0.7


@pytest.mark.parametrize(
    "stages", [["matches"], pytest.param(["features", "matches", "mapping (incremental)", "covariance"], marks=pytest.mark.slow)]
)
def test_a_killed_solver_goes_on_and_ends_with_the_same_result(corner, solved, tmp_path, stages):
    others = {child.pid for child in psutil.Process().children()}  # servers and workers of other tests
    for wanted in stages:

        def kill_child(stage: str, share: float, wanted: str = wanted) -> None:
            if stage == wanted:
                for child in psutil.Process().children():
                    if child.pid not in others:
                        child.kill()

        with pytest.raises(SfmError, match="SIGKILL"):
            solve_cameras(scene.capture(corner[1]), tmp_path, mapper="incremental", progress=kill_child)
    assert same(solve_cameras(scene.capture(corner[1]), tmp_path, mapper="incremental"), solved)


def test_a_finished_folder_answers_without_solving_and_other_pictures_are_solved_anew(corner, tmp_path):
    stages: list[str] = []
    flat = [np.full((240, 320, 3), 128 + i % 2, np.uint8) for i in range(5)]
    first = solve_cameras(scene.capture(flat), tmp_path)
    solve_cameras(scene.capture(flat), tmp_path, progress=lambda stage, _: stages.append(stage))
    assert set(stages) == {"pictures"}
    assert first.refusal is not None
    again = solve_cameras(scene.capture(corner[1][:3]), tmp_path, mapper="global", progress=lambda stage, _: stages.append(stage))
    assert "features" in stages
    assert again.refusal != first.refusal


@pytest.mark.slow
def test_auto_runs_both_mappers_and_states_their_disagreement(corner, tmp_path):
    track = solve_cameras(scene.capture(corner[1]), tmp_path)
    assert track.posed.all()
    assert track.cross_check["posed_share"] >= 0.7
    assert track.cross_check["rotation_deg"] < 0.2
    assert track.cross_check["translation_share"] < 0.01


def test_a_camera_that_only_turns_is_refused(tmp_path):
    track = solve_cameras(scene.capture([scene.picture(T) for T in scene.turning(6)]), tmp_path)
    assert track.refusal is not None
    assert "rotation only" in track.refusal
    assert not track.posed.any()
    assert np.isnan(track.T_world_cam).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width_m", "says"), [(0.0, "no motion at all explains"), (0.004, "rotation only|baseline"), (0.02, "rotation only|baseline")]
)
def test_a_camera_that_hardly_moves_is_refused(tmp_path, width_m, says):
    track = solve_cameras(scene.capture([scene.picture(T) for T in scene.arc(5, width_m)]), tmp_path, mapper="incremental")
    assert track.refusal is not None
    assert re.search(says, track.refusal)


@pytest.mark.slow
def test_ten_centimetres_at_a_metre_are_enough(tmp_path):
    truth = scene.arc(7, 0.1)
    track = solve_cameras(scene.capture([scene.picture(T) for T in truth]), tmp_path, mapper="incremental")
    assert track.refusal is None
    shift, turn_deg = pose_errors(track, truth)
    assert shift.max() < 0.003
    assert turn_deg.max() < 0.2


def test_pictures_without_texture_are_refused(tmp_path):
    track = solve_cameras(scene.capture([scene.picture(T, contrast=0.01) for T in scene.arc(4)]), tmp_path)
    assert track.refusal is not None
    assert "texture" in track.refusal


def test_a_focal_length_of_another_zoom_is_flagged(corner, tmp_path):
    wrong = scene.K * np.array([[1.06], [1.06], [1.0]])
    wrong[:2, 2] = scene.K[:2, 2]
    track = solve_cameras(replace(scene.capture(corner[1]), K=wrong), tmp_path, mapper="incremental")
    assert [flag.kind for flag in track.flags] == ["intrinsics"]
    change = re.search(r"length ([-+.\d]+) %", track.flags[0].text)
    assert change is not None and float(change[1]) == pytest.approx(100 * (1 / 1.06 - 1), abs=2.5)  # one step of a curved way


def test_a_refusal_keeps_the_doubt_that_may_explain_it(corner):
    data = {"mapper": "global", "refusal": "baseline too small", "doubts": json.dumps({"intrinsics": "another focal length"})}
    track = sfm._to_track(scene.capture(corner[1]), [(k, k + 1) for k in range(7)], (), {k: np.array(v) for k, v in data.items()})
    assert track.refusal == "baseline too small"
    assert [(flag.kind, flag.text) for flag in track.flags] == [("intrinsics", "another focal length")]


def test_faint_texture_is_flagged_where_it_can_be_solved(tmp_path):
    track = solve_cameras(scene.capture([scene.picture(T, contrast=0.12) for T in scene.arc(7)]), tmp_path, mapper="incremental")
    assert track.refusal is None
    assert [flag.kind for flag in track.flags] == ["texture"]


def test_two_pictures_are_too_few(tmp_path):
    track = solve_cameras(scene.capture([np.zeros((240, 320, 3), np.uint8)] * 2), tmp_path)
    assert track.refusal is not None
    assert "too few frames: 2" in track.refusal


def test_a_camera_that_never_moved_needs_no_solving(tmp_path):
    track = solve_cameras(scene.capture([np.zeros((240, 320, 3), np.uint8)] * 4), tmp_path, static=[(0, 4)])
    assert (track.mapper, track.refusal) == ("static", None)
    assert track.T_world_cam == pytest.approx(np.broadcast_to(np.eye(4), (4, 4, 4)))


def test_a_static_segment_is_one_pose_although_something_moves_in_it(corner, tmp_path):
    _, pictures = corner
    rng = np.random.default_rng(5)
    patch = rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)
    start = [pictures[0].copy() for _ in range(4)]
    for i, image in enumerate(start):
        image[100:160, 100 + 20 * i : 160 + 20 * i] = patch
    track = solve_cameras(scene.capture([*start, *pictures[1:]]), tmp_path, static=[(0, 4)], mapper="global")
    assert track.refusal is None
    assert track.posed.all()
    assert np.array_equal(track.T_world_cam[0], track.T_world_cam[3])
    assert np.array_equal(track.covariance[0], track.covariance[3])
    assert not np.isin(track.obs_frame, [1, 2, 3]).any()
    uv = track.obs_uv_px[track.obs_frame == 0]
    in_patch = (uv[:, 0] > 102) & (uv[:, 0] < 216) & (uv[:, 1] > 102) & (uv[:, 1] < 156)
    assert not in_patch.any()
    shift, _ = pose_errors(track, np.concatenate([np.repeat(corner[0][:1], 4, 0), corner[0][1:]]))
    assert shift.max() < 0.004


@pytest.mark.slow
def test_given_masks_keep_features_out(corner, tmp_path):
    mask = np.zeros((240, 320), bool)
    mask[:, :150] = True
    track = solve_cameras(scene.capture(corner[1]), tmp_path, masks=lambda i: mask, mapper="global")
    assert len(track.obs_uv_px)
    assert track.obs_uv_px[:, 0].min() > 149


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mapper": "fast"}, "unknown mapper 'fast'; available: auto"),
        ({"features": "aliked"}, "feature type 'aliked' is not available"),
        ({"static": [(0, 3), (2, 5)]}, "static segment 2:5 overlaps"),
        ({"static": [(0, 9)]}, "static segment 0:9 overlaps another or leaves"),
        ({"masks": lambda i: np.zeros((2, 3), bool)}, r"mask of frame 0 is \(3, 2\)"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(corner, tmp_path, arguments, says):
    with pytest.raises(SfmError, match=says):
        solve_cameras(scene.capture(corner[1]), tmp_path, **arguments)


def test_a_folder_that_cannot_be_written_is_one_line(corner, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SfmError, match="cannot use .*file"):
        solve_cameras(scene.capture(corner[1]), tmp_path / "file")


def test_a_folder_in_use_is_refused(corner, tmp_path, monkeypatch):
    monkeypatch.setattr(sfm, "_LOCK_WAIT_S", 0.0)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SfmError, match="in use"):
            solve_cameras(scene.capture(corner[1]), tmp_path)
