"""The search resumes where it stopped and means what it says."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import equal_quality, image_quality
from dataengine.config.spec import QUALITY


def test_the_presets_are_those_of_the_package() -> None:
    assert equal_quality.OURS["train"] == QUALITY["train"] and equal_quality.OURS["draft"] == QUALITY["draft"]


def test_a_finished_run_is_not_repeated_and_a_failed_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    class Done:
        returncode = 0

    def record(command: list[str], **_: object) -> Done:
        calls.append(command)
        return Done()

    monkeypatch.setattr(equal_quality.subprocess, "run", record)
    equal_quality._once(tmp_path / "a", "some_module", "--x", 3)
    equal_quality._once(tmp_path / "a", "some_module", "--x", 3)
    assert len(calls) == 1
    assert calls[0][:5] == [sys.executable, "-m", "benchmarks.some_module", "--x", "3"]
    assert calls[0][5] == str(tmp_path / "a") and "--core" in calls[0]
    Done.returncode = 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="log.txt"):
            equal_quality._once(tmp_path / "b", "some_module")
    assert len(calls) == 3


def test_summary_averages_stages_and_errors_over_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_quality, "VIDEOS", (0, 1))
    rng = np.random.default_rng(0)
    folders = []
    for video, (cycles, sigma) in enumerate(((1.0, 2.0), (3.0, 4.0))):
        truth = np.full((180, 320, 3), 0.2)
        reference = tmp_path / str(video) / "reference"
        reference.mkdir(parents=True)
        np.savez(reference / "reference.npz", renders=np.stack([truth] * 4), exposure_ev=0.0)
        folder = tmp_path / str(video) / "ours x"
        folder.mkdir()
        picture = image_quality.srgb_8bit(np.full((360, 640, 3), 0.2)) + sigma * rng.standard_normal((360, 640, 3))
        np.savez(folder / "ours.npz", colors=np.stack([np.zeros_like(picture), picture, np.zeros_like(picture)]))
        (folder / "ours.json").write_text(json.dumps({"cpu_s": {"cycles": cycles, "sensor": 0.5}, "wall_s": {"all": 2 * cycles}}))
        folders.append(folder)
    out = equal_quality.summary(tmp_path, folders, "ours")
    assert out["cpu_s"] == pytest.approx(2.5) and out["wall_s"] == pytest.approx(4.0)
    assert out["stages_cpu_s"] == pytest.approx({"cycles": 2.0, "sensor": 0.5})
    assert out["quality"]["mse"] == pytest.approx((4 + 16) / 2, rel=0.02)
    assert len(out["quality_each"]) == 2
