"""One ablation, one command, one row; and the estimators behind them on scenes whose answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataengine.errors import ConfigError
from dataengine.record import report as record
from training import ablations, synthetic
from training.ablations import ABLATIONS, Bench
from training.evaluate import evaluate
from training.kinematics import KeypointChain
from training.scene_statistics import DetectorNoise
from training.synthetic import Method


@pytest.fixture(scope="module")
def chain() -> KeypointChain:
    torch.set_num_threads(1)
    return Bench().chain()


@pytest.fixture(scope="module")
def lifters(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Lifters that have learnt next to nothing."""
    return Bench(frames=8, steps=3, batch=32, lifters=tmp_path_factory.mktemp("lifters"))


def test_exact_points_give_the_exact_robot(chain: KeypointChain) -> None:
    trial = synthetic.run(chain, synthetic.draw(chain, 24, 70.21, 3), DetectorNoise(0.0), Method())
    report = evaluate(trial.truth, trial.estimates).report
    assert report.overall.median_m is not None and report.overall.median_m < 1e-4
    assert report.data.keypoint_set == "panda15_surface" and report.subject.settings["starts"] == "search"
    assert trial.cpu_ms_per_frame > 0 and {s.axis for s in report.slices} >= {"fov_deg", "distance_m", "joint:panda_joint4"}


def test_noisy_points_lie_near_the_bound(chain: KeypointChain) -> None:
    noise = DetectorNoise(1.5)
    scenes = synthetic.draw(chain, 64, 62.73, 3)
    trial = synthetic.run(chain, scenes, noise, Method())
    found = evaluate(trial.truth, trial.estimates, synthetic.bound_draws(chain, scenes, noise)).report
    assert found.efficiency is not None and found.efficiency.median_ratio is not None and 0.4 < found.efficiency.median_ratio < 1.2
    assert found.overall.auc is not None and found.overall.auc > 0.82
    assert 0.8 < {c.level: c.covered or 0 for c in found.calibration}[0.9] < 0.97


def test_estimates_are_judged_by_other_points(chain: KeypointChain) -> None:
    """By its own points nothing changes; a robot shifted by a millimetre is that far off by any points."""
    scenes = synthetic.draw(chain, 8, 70.21, 3)
    trial = synthetic.run(chain, scenes, DetectorNoise(1.0), Method())
    again = synthetic.judged_on(trial, scenes, chain, chain)
    np.testing.assert_allclose(again.truth.keypoints_m, trial.truth.keypoints_m, atol=1e-9)
    np.testing.assert_allclose(again.estimates.keypoints_m, trial.estimates.keypoints_m, atol=1e-5)
    truth = trial.truth
    pose = truth.T_cam_base.copy()
    pose[:, 2, 3] += 1e-3
    shifted = replace(trial, estimates=replace(trial.estimates, joints=truth.joints, T_cam_base=pose))
    seven = synthetic.judged_on(shifted, scenes, chain, Bench().chain("dream7"))
    report = evaluate(seven.truth, seven.estimates).report
    assert report.data.keypoint_set == "dream7" and report.overall.mean_m == pytest.approx(1e-3, rel=1e-6)


def test_cameras_share_their_scenes(chain: KeypointChain) -> None:
    one, two = (synthetic.draw(chain, 6, fov, 5) for fov in (62.73, 93.01))
    assert torch.equal(one.q, two.q) and torch.equal(one.X_cam, two.X_cam) and not torch.equal(one.uv, two.uv)


def test_the_frame_before_differs_by_a_step(chain: KeypointChain) -> None:
    scenes = synthetic.draw(chain, 200, 70.21, 5)
    before = synthetic.moved(chain, scenes, 0.05, 1)
    assert float((before.q - scenes.q).std()) == pytest.approx(0.05, rel=0.1)
    assert torch.equal(before.R, scenes.R) and torch.allclose(before.X_cam, chain.forward(before.q) @ scenes.R.mT + scenes.T[:, None])


def test_several_cameras_are_one_trial(chain: KeypointChain) -> None:
    parts = [synthetic.run(chain, synthetic.draw(chain, 8, fov, 3), DetectorNoise(1.0), Method()) for fov in ablations.FOVS_DEG]
    whole = synthetic.several(parts)
    report = evaluate(whole.truth, whole.estimates).report
    assert report.data.frames == report.data.videos == 24
    assert [s.score.frames for s in report.slices if s.axis == "fov_deg"] == [8, 8, 8]


def test_methods_that_cannot_be_are_refused(chain: KeypointChain) -> None:
    scenes = synthetic.draw(chain, 2, 70.21, 0)
    with pytest.raises(ConfigError, match="unknown kind of starts 'guess'; available: lifter, search, both"):
        synthetic.run(chain, scenes, DetectorNoise(), Method("guess"))
    with pytest.raises(ConfigError, match="a lifter must be given"):
        synthetic.run(chain, scenes, DetectorNoise(), Method("lifter"))
    with pytest.raises(ConfigError, match="a search is always refined"):
        synthetic.run(chain, scenes, DetectorNoise(), Method(refined=False))
    with pytest.raises(ConfigError, match="unknown ablation 'nose' .did you mean 'noise'"):
        ablations.row("nose", Bench())
    with pytest.raises(ConfigError, match="unknown lifter 'gan'"):
        ablations.train_variant(Bench(), "gan")


@pytest.mark.parametrize(
    "name", ["refinement", pytest.param("nccs", marks=pytest.mark.slow), pytest.param("generation", marks=pytest.mark.slow)]
)
def test_rows_have_what_a_row_must_have(name: str, lifters: Bench) -> None:
    row = json.loads(json.dumps(ablations.row(name, lifters), allow_nan=False))
    assert {"id", "commit", "machine", "threads", "torch", "seed", "n", "metric", "ci95"} <= row.keys()
    assert row["metric"].keys() == row["ci95"].keys() == row["details"].keys() and len(row["metric"]) >= 6
    assert all(0 <= v <= 100 for v in row["metric"].values()) and row["n"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"nccs", "generation", "refinement"}))
def test_the_other_rows(name: str, lifters: Bench) -> None:
    assert ablations.row(name, lifters)["metric"]


def test_a_variant_is_trained_once(lifters: Bench) -> None:
    folder = ablations.train_variant(lifters, "regression")
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")}
    assert before and ablations.train_variant(lifters, "regression") == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")} == before
    assert lifters.network("regression").config.kind == "regression"
    assert replace(lifters, lifter=folder).network().config.kind == "regression"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablations.main(["keypoints", "--frames", "4", "--lifters", str(tmp_path), "--reports", str(tmp_path / "reports")]) == 0
    report = record.read(tmp_path / "reports" / "panda15-62.73°" / "report.json")
    assert report.overall.frames == 4 and (tmp_path / "reports" / "dream7-93.01°" / "report.html").exists()
    printed = capsys.readouterr().out
    row = json.loads(printed)
    assert len(printed.splitlines()) == 1 and row["id"] == "keypoints" and np.isfinite(row["metric"]["dream7, 62.73°"])
    assert ablations.main(["nonsense"]) == 2
    wrong = capsys.readouterr().err
    assert wrong.startswith("unknown ablation 'nonsense'") and len(wrong.splitlines()) == 1
    assert ablations.main(["--list"]) == 0 and set(ABLATIONS) <= set(capsys.readouterr().out.split())
