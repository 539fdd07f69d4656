"""Processes that die at any instant, and processes that race for the same work."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataengine.record.video import Video
from dataengine.store import files
from dataengine.store.dataset import Dataset
from tests.store.synthetic import new_dataset, run_forked, synthetic_video, wait_for

SPLITS = ("train", "val")


def small_video(index: int) -> Video:
    return synthetic_video(index, frames=2, size=(4, 6), modalities=("rgb",))


def job(root: Path, videos: int) -> Dataset:
    """What a render run does to the store, without the rendering."""
    dataset = new_dataset(root, planned=videos)
    dataset.clean_staging()
    dataset.check_existing()
    for index in dataset.pending(videos):
        dataset.add(index, small_video(index), SPLITS[index % 2])
    dataset.write_manifest()
    return dataset


def undisturbed(root: Path, videos: int) -> tuple[str, set[str]]:
    """Manifest digest and list of files of a run in which nothing happens."""
    dataset = job(root, videos)
    return dataset.manifest()["digest"], listing(root)


def listing(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*")}


def die_at(step: int, patch: Callable[[object, str, object], None]) -> list[int]:
    """Wrap every call that changes the disk; the process is SIGKILLed just before call number `step`. Returns the counter."""
    count = [0]

    def counted(function: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            if count[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1
            return function(*args, **kwargs)

        return call

    class Torn:
        """A file whose content may end after any piece."""

        def __init__(self, path: Path, mode: str) -> None:
            self.file = open(path, mode, buffering=0)  # noqa: SIM115 - closed by __exit__
            self.write = counted(self.file.write)
            self.flush, self.fileno = self.file.flush, self.file.fileno

        def __enter__(self) -> "Torn":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

    for name in ("link", "rename", "replace", "mkdir", "rmdir", "unlink"):
        patch(os, name, counted(getattr(os, name)))
    patch(os, "fsync", counted(lambda _: None))
    patch(files, "open", counted(Torn))
    return count


def test_a_kill_before_every_single_change_of_the_disk_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exhaustive: for each k, a run is killed before its k-th change, then the same command finishes the job."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a kill of the process loses no page of the system's cache
    reference, files_of_it = undisturbed(tmp_path / "reference", 1)

    def doomed(root: Path, step: int) -> Callable[[], object]:
        def body() -> None:
            count = die_at(step, lambda place, name, value: setattr(place, name, value))
            job(root, 1)
            root.with_suffix(".steps").write_text(str(count[0]))

        return body

    step = 0
    while True:
        root = tmp_path / f"run{step}"
        status = wait_for(run_forked(doomed(root, step)))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert job(root, 1).manifest()["digest"] == reference
        assert listing(root) == files_of_it
        shutil.rmtree(root)
        step += 1
    assert step == int((tmp_path / f"run{step}.steps").read_text()) > 50


def hunt(root: Path, videos: int, kills: int, rng: np.random.Generator) -> int:
    """Kill `kills` runs of the job at random instants, then let one finish; returns how many died."""
    died = 0
    for _ in range(kills):
        pid = run_forked(lambda: job(root, videos))
        time.sleep(float(rng.uniform(0.0, 0.03)))
        os.kill(pid, signal.SIGKILL)
        died += wait_for(pid) == -signal.SIGKILL
    return died


def random_kills(tmp_path: Path, videos: int, kills: int) -> None:
    reference, files_of_it = undisturbed(tmp_path / "reference", videos)
    assert hunt(tmp_path / "hunted", videos, kills, np.random.default_rng(0)) > kills // 4
    dataset = job(tmp_path / "hunted", videos)
    assert dataset.manifest()["digest"] == reference
    assert listing(tmp_path / "hunted") == files_of_it
    assert dataset.verify(full=True) == {}


def test_random_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    random_kills(tmp_path, 25, 20)


@pytest.mark.slow
def test_many_random_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    random_kills(tmp_path, 300, 300)


def race(root: Path, racers: int, body: Callable[[int], object]) -> list[int]:
    """Run `body(racer)` in that many children that start together; their exit statuses."""
    gate = root / "gate"

    def child(racer: int) -> Callable[[], object]:
        def run() -> None:
            while not gate.exists():
                time.sleep(0.001)
            body(racer)

        return run

    pids = [run_forked(child(racer)) for racer in range(racers)]
    gate.touch()
    return [wait_for(pid) for pid in pids]


def test_racers_on_the_same_units_have_one_winner_each(tmp_path: Path) -> None:
    reference, files_of_it = undisturbed(tmp_path / "reference", 12)
    root = tmp_path / "raced"
    assert race(tmp_path, 4, lambda _: job(root, 12)) == [0] * 4
    assert new_dataset(root).manifest()["digest"] == reference
    assert listing(root) == files_of_it


def test_racers_with_different_content_agree_on_one(tmp_path: Path) -> None:
    """Where renders are not reproducible: every racer is told the same winner, and that one is what is read."""
    dataset = new_dataset(tmp_path / "out")

    def body(racer: int) -> None:
        for index in range(12):
            record = dataset.add(index, small_video(100 * racer + index), "train", {"racer": racer}, reproducible=False)
            (tmp_path / f"told-{index}-{racer}").write_text(record.digest)

    assert race(tmp_path, 3, body) == [0] * 3
    for index in range(12):
        told = {(tmp_path / f"told-{index}-{racer}").read_text() for racer in range(3)}
        assert told == {dataset.record(index).digest}
    assert dataset.verify(full=True) == {}


def test_creating_once_has_exactly_one_winner(tmp_path: Path) -> None:
    def body(racer: int) -> None:
        wins = [i for i in range(60) if files.create_once(tmp_path / f"name{i}", str(racer).encode(), tmp_path)]
        (tmp_path / f"wins-{racer}").write_text(" ".join(map(str, wins)))

    assert race(tmp_path, 4, body) == [0] * 4
    owner = {}
    for racer in range(4):
        for name in (tmp_path / f"wins-{racer}").read_text().split():
            assert name not in owner
            owner[name] = str(racer)
    assert owner == {str(i): (tmp_path / f"name{i}").read_text() for i in range(60)}


def test_staging_survives_a_racer_that_removes_the_units_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is done with a unit removes its empty staging folder, be it just before another makes its own within."""
    dataset, mkdir, removed = new_dataset(tmp_path / "out"), os.mkdir, []

    def raced(path: os.PathLike[str], mode: int = 0o777) -> None:
        unit = Path(path).parent
        if unit.parent.name == "staging" and unit.exists() and len(removed) < 3:
            unit.rmdir()
            removed.append(unit)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", raced)
    assert dataset.stage("video-000000").is_dir() and len(removed) == 3
