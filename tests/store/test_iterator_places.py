"""The same batches wherever a dataset lies: in packs, in a bucket, mixed."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dataengine.store.catalogue import _bucket, open_catalogue
from dataengine.store.compact import compact
from dataengine.store.gc import collect_garbage
from dataengine.store.iterator import Batch, Batches, View
from dataengine.store.repository import Repository, create_repository
from tests.store.s3_server import CREDENTIALS, create_bucket, moto_server, proxy_before
from tests.store.synthetic import synthetic_video

VIEW = View(("rgb", "depth_sim", "K"), crop=(5, 5))


def filled(place: str) -> Repository:
    repository = create_repository(place, "tiny", {"name": "tiny"}, "a" * 64)
    for index in range(4):
        repository.add(index, synthetic_video(index, 3, (8, 9), ("rgb", "depth_sim")), "train")
    repository.snapshot("render")
    return repository


def all_batches(*places: str) -> list[Batch]:
    return list(Batches([open_catalogue(p) for p in places], VIEW, 5, shuffle=False))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        x.keys() == y.keys() and all(x[n].tobytes() == y[n].tobytes() for n in x if n != "dataset") for x, y in zip(a, b, strict=True)
    )


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))  # the cache
    with moto_server() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        create_bucket(address, "bucket")
        yield "s3://bucket/loader"


def test_compaction_changes_no_batch(tmp_path: Path) -> None:
    repository = filled(str(tmp_path / "d"))
    before = all_batches(str(tmp_path / "d"))
    assert compact(repository).units == 4
    collect_garbage(repository, grace_s=0)
    assert all("start" in e for e in repository.manifest()["units"])
    assert same(all_batches(str(tmp_path / "d")), before)


def test_a_state_outlives_compaction_and_a_move(tmp_path: Path) -> None:
    repository = filled(str(tmp_path / "d"))
    state = Batches([open_catalogue(tmp_path / "d")], VIEW, 5).state_at(1, 3)
    compact(repository)
    (tmp_path / "d").rename(tmp_path / "elsewhere")
    moved = Batches([open_catalogue(tmp_path / "elsewhere")], VIEW, 5)
    moved.load(state)
    assert moved.state_at(1, 3) == state


def test_a_bucket_gives_the_same_batches(bucket: str, tmp_path: Path) -> None:
    repository = filled(bucket)
    filled(str(tmp_path / "d"))
    wanted = all_batches(str(tmp_path / "d"))
    assert same(all_batches(bucket), wanted)
    compact(repository)
    assert same(all_batches(bucket), wanted)
    mixed = Batches([open_catalogue(bucket), open_catalogue(tmp_path / "d")], VIEW, 7)
    seen = np.concatenate([b["dataset"] * 100 + b["video"] * 10 + b["frame"] for b in mixed])
    assert sorted(seen.tolist()) == [100 * d + 10 * v + f for d in range(2) for v in range(4) for f in range(3)]


def test_what_the_cache_holds_is_not_asked_for_and_couriers_ask_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(bucket)
    with proxy_before(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        _bucket.cache_clear()  # a client keeps its address
        cold = Batches([open_catalogue(bucket)], VIEW, 2, seed=3)
        before = len(proxy.seen)
        first = list(cold)
        asked = [path for _, path in proxy.seen[before:]]
        # Per video: the group, and of three arrays metadata, index and the one block of data.
        assert len(asked) == 4 * (1 + 3 * 3), "two batches that travel at once share what they bring"
        assert {p.rpartition("/")[2] for p in asked} == {"zarr.json", "c.0.0.0", "c.0.0.0.0", "c.0.0"}
        cold.load(cold.state_at(0, 0))
        warm = Batches([open_catalogue(bucket)], VIEW, 2, seed=3)
        before = len(proxy.seen)
        assert same(list(cold), first) and same(list(warm), first) and len(proxy.seen) == before
    _bucket.cache_clear()
