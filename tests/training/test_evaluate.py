"""The evaluator on worlds whose scores are known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataengine.errors import RobotError, StoreError
from dataengine.record import report as record
from dataengine.store.catalogue import open_catalogue
from tests.store.synthetic import new_dataset, synthetic_video
from training import evaluate as e
from training.slices import axis_values, intervals, slice_table
from training.truth import Estimates, Truth, joined, load_estimates, matched, read_columns, save_estimates, truth_of_dataset

NAMES = ("base", "elbow", "hand", "tip")
JOINTS = ("turn", "finger_slide")
FOVS_DEG = (62.73, 70.21, 93.01)


def world(frames: int = 120, seed: int = 0, per_video: int = 3) -> Truth:
    """Robots in front of three cameras, one camera after the other."""
    rng = np.random.default_rng(seed)
    keypoints = rng.normal(size=(frames, len(NAMES), 3)) * 0.3 + [0, 0, 1.5]
    K = np.zeros((frames, 3, 3))
    focal = 320 / np.tan(np.radians(np.array(FOVS_DEG)[np.arange(frames) % 3]) / 2)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = 319.5, 179.5, 1
    px = np.einsum("fij,fkj->fki", K, keypoints)
    ids = np.stack([np.zeros(frames, int), np.arange(frames) // per_video, np.arange(frames) % per_video], 1)
    joints = np.stack([rng.uniform(-2, 2, frames), rng.uniform(0, 0.04, frames)], 1)
    pose = np.tile(np.eye(4), (frames, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]], [0, 0.2, 1.5]
    state = rng.choice([0, 1, 2], (frames, len(NAMES)), p=[0.1, 0.2, 0.7]).astype(np.uint8)
    size = np.tile([640, 360], (frames, 1))
    return Truth(
        "arm", "four", NAMES, JOINTS, ("finger_slide",), keypoints, px[..., :2] / px[..., 2:], state, K, size, joints, pose, ids,
        location="world", edges=((0, 1), (1, 2), (2, 3)),
    )  # fmt: skip


def shifted(truth: Truth, by_m: np.ndarray, **more: object) -> Estimates:
    """Estimates whose ADD is `by_m` (F,)."""
    return Estimates("shifted", truth.keypoint_names, truth.keypoints_m + by_m[:, None, None] * [0, 0, 1], **more)  # type: ignore[arg-type]


def test_scores_of_known_errors() -> None:
    truth = world()
    by_m = np.where(np.arange(120) % 3 == 2, 0.05, 0.01)  # the widest camera is worse
    by_m[:6] = np.nan
    report = e.evaluate(truth, shifted(truth, by_m)).report
    assert (report.overall.frames, report.overall.failures) == (120, 6)
    assert report.overall.auc == pytest.approx((76 * 0.9 + 38 * 0.5) / 120, abs=2e-4)
    assert report.overall.median_m == pytest.approx(0.01) and report.data.videos == 40
    fov = [s for s in report.slices if s.axis == "fov_deg"]
    assert [s.score.frames for s in fov] == [40, 40, 40]
    assert [s.low <= f <= s.high for s, f in zip(fov, FOVS_DEG, strict=True)] == [True] * 3
    assert fov[2].score.auc == pytest.approx(38 * 0.5 / 40, abs=2e-4)
    assert [s.axis for s in record.weakest(report)][:1] == ["fov_deg"]
    assert report.worst[0].add_m is None and report.worst[6].add_m == pytest.approx(0.05)
    assert max(np.unique([w.video for w in report.worst], return_counts=True)[1]) == 2
    by_name = {p.name: p for p in report.protocols}
    assert by_name["RoboKeyGen, failures dropped"].denominator == 114
    assert by_name["DREAM"].pck_auc is None  # nothing was detected in 2D
    assert report.joints == () and report.pose is None and report.efficiency is None and report.calibration == ()


def test_every_slice_of_an_axis_counts_every_frame_once() -> None:
    truth = world(200)
    table = slice_table(truth, np.full(200, 0.01))
    for axis in axis_values(truth):
        assert sum(s.score.frames for s in table if s.axis == axis) == 200, axis
    values = axis_values(truth)
    assert np.allclose(values["elevation_deg"], math.degrees(math.atan2(0.2, 1.5)))
    assert {a.name for a in record.AXES} <= values.keys() and "joint:turn" in values


@pytest.mark.parametrize(
    "values",
    [np.full(5, 65.0), np.array([64.9999, 65.0]), np.linspace(-3, 3, 50), np.linspace(0, 0.04, 9), np.array([1, 1, 7.0]), np.zeros(3)],
)
def test_intervals_cover_all_values(values: np.ndarray) -> None:
    parts = list(intervals(values, "rad"))
    assert sorted(np.concatenate([rows for _, _, rows in parts]).tolist()) == list(range(len(values)))
    assert all(low <= values[rows].min() and values[rows].max() <= high for low, high, rows in parts)
    assert list(intervals(np.full(3, np.nan), "rad")) == []


def test_joints_pose_calibration_and_efficiency() -> None:
    truth = world(3000)
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.005, 0.02, 3000)
    error = rng.normal(size=truth.keypoints_m.shape) * sigma[:, None, None]
    pose = truth.T_cam_base.copy()
    pose[:, :3, 3] += [0.003, 0, 0]
    estimates = Estimates(
        "noisy",
        truth.keypoint_names,
        truth.keypoints_m + error,
        ("finger_slide", "turn"),  # another order than the robot's
        truth.joints[:, ::-1] + [0.001, 2 * math.pi + 0.02],
        pose,
        truth.keypoints_px + 1.0,
        np.eye(3) * sigma[:, None, None, None] ** 2 * np.ones((1, 4, 1, 1)),
    )
    efficient = np.linalg.norm(rng.normal(size=(3000, 64, 4, 3)), axis=-1).mean(-1) * sigma[:, None]
    report = e.evaluate(truth, estimates, efficient).report
    joints = {j.joint: j for j in report.joints}
    assert joints["turn"].median == pytest.approx(0.02) and joints["turn"].unit == "rad"
    assert joints["finger_slide"].mean == pytest.approx(0.001) and joints["finger_slide"].unit == "m"
    assert report.pose is not None and report.pose.median_translation_m == pytest.approx(0.003)
    assert {c.level: c.covered for c in report.calibration}[0.9] == pytest.approx(0.9, abs=0.01)
    found = report.efficiency
    assert found is not None and found.mean_ratio == pytest.approx(1, abs=0.03)
    assert found.median_ratio == pytest.approx(found.median_of_bound, abs=0.04) and report.overall.auc == pytest.approx(
        found.bound_auc, abs=0.003
    )
    doubled = replace(estimates, keypoints_m=truth.keypoints_m + 2 * error)
    worse = e.evaluate(truth, doubled, efficient).report.efficiency
    assert worse is not None and worse.mean_ratio == pytest.approx(4, abs=0.12)


def test_predictions_survive_a_file(tmp_path: Path) -> None:
    truth = world(6)
    given = shifted(truth, np.full(6, 0.01), ids=truth.ids, detected_px=truth.keypoints_px, settings={"K": "10", "x": "a=b"})
    found = load_estimates(save_estimates(given, tmp_path / "deep" / "e.npz"))
    assert found.settings == given.settings and len(found.digest) == 64
    assert e.evaluate(truth, found).report.overall == e.evaluate(truth, given).report.overall


def test_keypoints_may_come_in_another_order() -> None:
    truth = world(6)
    order = [2, 0, 3, 1]
    given = Estimates("turned", tuple(NAMES[k] for k in order), truth.keypoints_m[:, order], detected_px=truth.keypoints_px[:, order])
    assert e.evaluate(truth, given).report.overall.median_m == 0


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    truth = world(6)
    good = shifted(truth, np.zeros(6), ids=truth.ids)
    with pytest.raises(RobotError, match=r"estimates of the keypoints a, b, c, d; the truth has base, elbow, hand, tip; choose"):
        matched(replace(good, keypoint_names=("a", "b", "c", "d")), truth)
    with pytest.raises(RobotError, match="estimates of the keypoints base, elbow"):
        matched(replace(good, keypoint_names=NAMES[:2], keypoints_m=good.keypoints_m[:, :2]), truth)
    with pytest.raises(StoreError, match="estimates of 6 frames, the truth has 5"):
        matched(good, truth[:5])
    with pytest.raises(StoreError, match="estimates of other frames"):
        matched(good, truth[::-1])
    with pytest.raises(RobotError, match="joints wrist are not the robot's; it has turn, finger_slide"):
        matched(replace(good, joint_names=("wrist",), joints=np.zeros((6, 1))), truth)
    with pytest.raises(StoreError, match="no frames to judge; choose a split"):
        e.evaluate(truth[:0], good)
    with pytest.raises(StoreError, match=r"none\.npz: there is no such file"):
        load_estimates(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(StoreError, match=r"text\.npz: not a file of estimates"):
        load_estimates(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(StoreError, match=r"no name, keypoint_names, keypoints_m in it"):
        load_estimates(tmp_path / "other.npz")
    np.savez(tmp_path / "shape.npz", name="x", keypoint_names=np.array(NAMES), keypoints_m=np.zeros((6, 3, 3)))
    with pytest.raises(StoreError, match=r"keypoints_m has shape \(6, 3, 3\); allowed: \(frames, 4, 3\)"):
        load_estimates(tmp_path / "shape.npz")


def test_all_failed_is_a_report_not_a_crash(tmp_path: Path) -> None:
    truth = world(6)
    nothing = np.full((6, 4, 3, 3), np.nan)
    lost = shifted(
        truth,
        np.full(6, np.nan),
        joint_names=JOINTS,
        joints=np.full((6, 2), np.nan),
        T_cam_base=np.full((6, 4, 4), np.nan),
        covariance_m2=nothing,
    )
    evaluation = e.evaluate(truth, lost, np.ones((6, 2)))
    report = evaluation.report
    assert report.overall == record.Score(6, 6, 0.0, (0.0, 0.0), None, None)
    assert report.efficiency == record.Efficiency(0, None, None, None, None, None) and report.joints == ()
    assert record.read(e.write(evaluation, tmp_path)[0]) == report


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames in train, three in val, one of them not accepted."""
    dataset = new_dataset(tmp_path_factory.mktemp("store") / "d")
    for i, (frames, split) in enumerate(((3, "train"), (3, "train"), (3, "val"))):
        video = synthetic_video(i, frames, modalities=("rgb", "mask_link"))
        video.frames["accepted"] = 1
        video.frames["accepted"][0] = split == "train"
        video.frames["keypoint_state"] %= 3
        dataset.add(i, video, split)
    dataset.write_manifest()
    return dataset.path


def test_truth_of_a_dataset(dataset: Path) -> None:
    truth = truth_of_dataset(dataset, "val", ("c", "a"), "two")
    assert (len(truth), truth.skipped, truth.keypoint_names) == (2, {"not accepted": 1}, ("c", "a"))
    rows = synthetic_video(2, 3, modalities=("rgb", "mask_link")).frames
    assert np.array_equal(truth.keypoints_m, rows["keypoints_cam_m"][1:, [2, 0]])
    assert truth.ids.tolist() == [[0, 2, 1], [0, 2, 2]] and truth.size.tolist() == [[16, 12]] * 2
    assert len(truth_of_dataset(dataset, "train", limit=3)) == 3
    both = joined([truth_of_dataset(dataset, "train"), truth_of_dataset(dataset, "val")])
    assert len(both) == 8 and len(np.unique(both.ids, axis=0)) == 8
    with pytest.raises(RobotError, match="other keypoints or joints"):
        joined([both, truth])


def test_bad_datasets(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="test"):
        truth_of_dataset(dataset, "test")
    with pytest.raises(RobotError, match="keypoints not labelled here: panda_hand; labelled: a, b, c, d"):
        truth_of_dataset(dataset, "val", ("panda_hand",))
    refused = new_dataset(tmp_path / "refused")
    video = synthetic_video(0, 2, modalities=("rgb",))
    video.frames["accepted"] = 0
    refused.add(0, video, "train")
    refused.write_manifest()
    with pytest.raises(StoreError, match="none of the 2 frames was accepted"):
        truth_of_dataset(refused.path)
    with pytest.raises(StoreError, match="unknown modality 'depth_sim'; available: rgb, mask_link"):
        read_columns(open_catalogue(dataset), ("depth_sim", "K"), np.arange(2))


def test_a_dataset_without_photos_has_a_page_without_photos(tmp_path: Path) -> None:
    made = new_dataset(tmp_path / "d")
    video = synthetic_video(0, 3, modalities=("mask_link",))
    video.frames["accepted"] = 1
    made.add(0, video, "train")
    made.write_manifest()
    truth = truth_of_dataset(made.path)
    page = e.write(e.evaluate(truth, shifted(truth, np.full(3, 0.02))), tmp_path)[1].read_text()
    assert page.count('<svg class="shot"') == 2 and "data:image/webp" not in page


def test_page_and_json_of_a_dataset(dataset: Path, tmp_path: Path) -> None:
    truth = truth_of_dataset(dataset, "train")
    evaluation = e.evaluate(truth, shifted(truth, np.linspace(0, 0.2, 6)), np.full((6, 9), 1e-2), record.Speed(9, 19.0, 20.0, 50.0))
    json_path, page_path = e.write(evaluation, tmp_path, "evaluate --it")
    assert record.read(json_path) == evaluation.report
    page = page_path.read_text()
    assert page.count('<svg class="shot"') == len(evaluation.report.worst) == 4
    assert page.count("data:image/webp") == 4 and "evaluate --it" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    for text in ("RoboKeyGen", "SGTAPose", "Distance", "200.0 mm", "Cramér–Rao"):
        assert text in page
    assert "nan" not in page.lower().replace("finance", "")


def test_command_line(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = truth_of_dataset(dataset, "train")
    file = save_estimates(shifted(truth, np.full(6, 0.03), ids=truth.ids), tmp_path / "e.npz")
    assert e.main([str(file), str(dataset), "--split", "train", "--out", str(tmp_path / "out")]) == 0
    report = record.read(tmp_path / "out" / "report.json")
    assert report.overall.median_m == pytest.approx(0.03) and report.subject.source == str(file) and report.data.split == "train"
    assert e.main([str(file), str(dataset), "--split", "val"]) == 2
    assert capsys.readouterr().err == "shifted: estimates of 6 frames, the truth has 2; give the same split and limit\n"


def test_speed_counts_decoding_apart_and_leaves_out_the_warm_up() -> None:
    timed = e.Timed(np.array([9.0, 0.05, 0.05]), np.array([9.0, 0.08, 0.08]), np.array([9.0, 0.0125, 0.0125]))
    speed = timed.speed(1)
    assert speed is not None and speed.frames == 2 and speed.fps_with_decode == pytest.approx(16)
    assert speed.fps_without_decode == pytest.approx(20) and speed.cpu_ms_per_frame == pytest.approx(80)
    assert timed.speed(3) is None
