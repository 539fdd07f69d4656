"""Writers to a bucket and to a folder that die by SIGKILL at every point of the commit protocol."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dataengine.store.backend import open_backend
from dataengine.store.repository import Repository
from dataengine.store.structure import verify_units
from dataengine.store.versions import read_log
from tests.store.s3_server import CREDENTIALS, create_bucket, moto_server

POINTS = {
    f"{when} {what}"
    for when in ("before", "after")
    for what in ("put_new dataset.json", "put_new shards", "put_new commits", "put_new manifests", "swap refs", "put manifest.json")
}

Trial = Callable[[str, int, int], tuple[int, str]]


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    """Run one writer: (place, videos, step) → (exit status, point where it died)."""
    with moto_server() as address, pytest.MonkeyPatch.context() as patch:
        create_bucket(address, "bucket")
        for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": address}).items():
            patch.setenv(name, value)
        command = [sys.executable, "-m", "tests.store.kill_target"]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        assert process.stdin is not None and process.stdout is not None
        sent, answers = process.stdin, process.stdout

        def run(place: str, videos: int, step: int) -> tuple[int, str]:
            sent.write(f"{place} {videos} {step}\n")
            sent.flush()
            status, _, point = answers.readline().strip().partition(" ")
            return int(status), point

        yield run
        sent.close()
        process.wait(10)


def place_of(kind: str, name: str, tmp_path: Path) -> str:
    return f"s3://bucket/{name}" if kind == "bucket" else str(tmp_path / name)


def keys(place: str) -> set[str]:
    return {i.key for i in open_backend(place).items("") if not i.key.startswith("staging/")}


def check_equal(place: str, reference: str) -> None:
    """Nothing lost, nothing twice, nothing torn; and no version in between lost what an earlier one had."""
    ours, theirs = (Repository(open_backend(p), "tiny", {}, "a" * 64) for p in (place, reference))
    assert ours.manifest()["digest"] == theirs.manifest()["digest"]
    assert ours.backend.get("manifest.json") == theirs.backend.get("manifest.json")
    assert {k for k in keys(reference) if not k.startswith("manifests/")} == {k for k in keys(place) if not k.startswith("manifests/")}
    counts = [e["units"] for e in read_log(ours.backend)]
    assert counts == sorted(set(counts))
    assert verify_units(ours) == {}


def hunt(trial: Trial, place: str, videos: int, kills: int, seed: int) -> list[str]:
    """Kill writers at random points until `kills` died, then let one finish; the points."""
    rng = np.random.default_rng(seed)
    died = []
    for _ in range(20 * kills):
        status, point = trial(place, videos, int(rng.integers(1, 30)))
        assert status in (0, -9), point
        if status == 0:
            break
        died.append(point)
        if len(died) == kills:
            assert trial(place, videos, 0) == (0, "")
            break
    return died


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_random_kills_lose_double_and_tear_nothing(kind: str, trial: Trial, tmp_path: Path) -> None:
    reference = place_of(kind, "reference-few", tmp_path)
    assert trial(reference, 4, 0) == (0, "")
    died = hunt(trial, place := place_of(kind, "few", tmp_path), 4, 12, 0)
    assert len(died) > 3
    check_equal(place, reference)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_three_hundred_kills_over_every_point(kind: str, trial: Trial, tmp_path: Path) -> None:
    """Exhaustive over the first steps of fresh datasets, then random over a growing one."""
    for videos, name in ((1, "one"), (60, "many")):
        assert trial(place_of(kind, f"reference-{name}", tmp_path), videos, 0) == (0, "")
    points = []
    for step in range(1, 200):
        place = place_of(kind, f"one-{step}", tmp_path)
        status, point = trial(place, 1, step)
        if status == 0:
            break
        points.append(point)
        assert trial(place, 1, 0) == (0, "")
        check_equal(place, place_of(kind, "reference-one", tmp_path))
    while len(points) < 300:
        place = place_of(kind, f"many-{len(points)}", tmp_path)
        points += hunt(trial, place, 60, 300 - len(points), len(points))
        check_equal(place, place_of(kind, "reference-many", tmp_path))
    assert set(points) >= POINTS
