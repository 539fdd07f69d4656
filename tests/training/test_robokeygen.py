"""Presets and commands of the RoboKeyGen recipe."""

import json
from pathlib import Path

import pytest

from dataengine.errors import ConfigError
from training import checkpoint, cli
from training.config import from_dict
from training.recipes import robokeygen
from training.recipes.robokeygen import LIFTERS, lifter_config, override_stages, presets, stages

SHORT = ["loop.steps=12", "loop.batch=16", "loop.save_every=5", "loop.log_every=4", 'loop.logs=["jsonl"]', "loop.threads=1"]


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_complete(preset: str) -> None:
    for name, config in stages(preset, ["somewhere"]).items():
        assert config.recipe == name and from_dict(config.as_dict(), type(config.task)) == config


def test_the_papers_numbers() -> None:
    paper = lifter_config("paper")
    assert (paper.task.sde, paper.task.weighting, paper.task.net.hidden, paper.loop.batch, paper.optim.lr) == (
        "vp",
        "likelihood",
        1024,
        4096,
        2e-4,
    )
    assert paper.loop.steps * paper.loop.batch == pytest.approx(2000 * 12_000, rel=0.001)


def test_overrides_go_to_one_stage_or_to_all() -> None:
    changed = override_stages(stages("robokeygen-small", ["d"]), ["lifter.loop.steps=3", "loop.device=cpu", "detector.task.frames=7"])
    assert changed["lifter"].loop.steps == 3 != changed["detector"].loop.steps and changed["detector"].task.frames == 7
    assert {c.loop.device for c in changed.values()} == {"cpu"}
    with pytest.raises(ConfigError, match="unknown setting 'loop.stepz'"):
        override_stages(changed, ["loop.stepz=1"])


def test_train_resume_and_retrain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lifter-tiny", str(tmp_path / "a"), "--set", *SHORT]) == 0
    assert f"trained: {tmp_path / 'a'}" in capsys.readouterr().out
    assert cli.train("lifter-tiny", tmp_path / "a", settings=SHORT) == 0
    told = capsys.readouterr().out
    assert json.loads(told[: told.rindex("trained:")])["lifter"]["ran"] == 0
    assert cli.train("lifter-tiny", tmp_path / "b", settings=SHORT, start_from=tmp_path / "a") == 0
    one, two = (checkpoint.read(tmp_path / run) for run in "ab")
    assert one.identity == two.identity and one.step == two.step == 12
    assert not (one.tensors["ema/net.last.1.weight"] == two.tensors["ema/net.last.1.weight"]).all()


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.train("lifter-tiny", tmp_path / "a", settings=SHORT, dry_run=True) == 0
    forecast = json.loads(capsys.readouterr().out)["lifter"]
    assert forecast["forecast_s"] > 0 and forecast["parameters"] > 1000 and not (tmp_path / "a").exists()


def test_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in (
        (["lifter-huge"], "unknown recipe 'lifter-huge'"),
        (["detector-small"], "trains on images: name datasets with --data"),
        (["lifter-tiny", "--from", str(tmp_path / "none")], "no checkpoint at"),
    ):
        assert cli.main([arguments[0], str(tmp_path / "x"), *arguments[1:]]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    with pytest.raises(ConfigError, match=r"is no image \(.png, .* or dataset folder"):
        cli.predict(tmp_path, "photo.gif")
    with pytest.raises(ConfigError, match="unknown lifter preset"):
        lifter_config("big")
    assert set(LIFTERS) == {"small", "tiny", "paper", "gpu"} and robokeygen.presets()[0] == "robokeygen-small"
