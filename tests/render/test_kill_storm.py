"""The kill storm's own decisions, and a small storm over a toy render."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import kill_storm

TARGET = Path(__file__).parent / "storm_target.py"
ROOT = Path(__file__).parents[2]


def test_moments_are_spread_and_reproducible():
    chosen = kill_storm.moments(60, 40, kill_storm.KINDS, random.Random(1))
    assert chosen == sorted(chosen) == kill_storm.moments(60, 40, kill_storm.KINDS, random.Random(1))
    counts = [c for c, _ in chosen]
    assert len(chosen) == 60 and min(counts) < 5 and 34 < max(counts) < 40
    assert {kind for _, kind in chosen} == set(kill_storm.KINDS)


def test_kinds_of_processes():
    me = psutil.Process()
    assert kill_storm.kind_of(me, os.getpid()) == "driver"
    assert kill_storm.kind_of(me, -1) is None
    code = "import time; 'zygote_child'; print(1, flush=True); time.sleep(30)"
    sleeper = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert sleeper.stdout.readline() == b"1\n"
        assert kill_storm.kind_of(psutil.Process(sleeper.pid), -1) == "zygote"
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize(
    ("changes", "complaints"),
    [
        ({}, []),
        ({"videos": 9}, ["1 videos lost"]),
        ({"doubled": 2}, ["2 doubled"]),
        ({"given_up": 1}, ["1 given up"]),
        ({"digest": "zz"}, ["digest zz differs from aa"]),
    ],
)
def test_verdict(changes, complaints):
    result = kill_storm.Storm(**({"videos": 10, "digest": "aa"} | changes))
    assert kill_storm.verdict(result, 10, ["aa"]) == complaints


def test_audit_sees_lost_and_doubled(tmp_path):
    for name in ("shards/a", "shards/b", "shards/c", "quarantine/d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "manifest.json").write_text(json.dumps({"units": [{"unit": "a"}, {"unit": "b"}], "digest": "x"}))
    result = kill_storm.audit(tmp_path, kill_storm.Storm())
    assert (result.videos, result.doubled, result.given_up, result.digest) == (2, 1, 1, "x")


def rage(dataset: Path, videos: int, kills: int, kinds: tuple[str, ...], *mode: str) -> dict:
    calm = dataset.with_name("calm")
    subprocess.run([sys.executable, str(TARGET), str(calm), str(videos)], check=True)
    tool = [sys.executable, "-m", "benchmarks.kill_storm", "--dataset", str(dataset), "--videos", str(videos), "--kills", str(kills)]
    options = ["--pause-s", "0.3", "--wait-s", "300", "--expect", str(calm), "--kinds", *kinds]
    command = ["--", sys.executable, str(TARGET), str(dataset), str(videos), *mode]
    done = subprocess.run([*tool, *options, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_small_storm_loses_nothing(tmp_path):
    result = rage(tmp_path / "storm", 40, 8, ("driver", "zygote", "fork"))
    assert result["wrong"] == [] and result["unasked_exits"] == []
    assert 6 <= sum(result["kills"].values()) <= 8  # the job may end before the last ones are due
    assert result["starts"] == 1 + result["kills"]["driver"]


@pytest.mark.slow
def test_storm_over_ray_loses_nothing(tmp_path):
    result = rage(tmp_path / "storm", 60, 8, kill_storm.KINDS, "ray")
    assert result["wrong"] == []
    assert 6 <= sum(result["kills"].values()) <= 8  # the job may end before the last ones are due
