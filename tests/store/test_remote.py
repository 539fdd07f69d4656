"""The bucket backend and everything on it, against a real server with delays, errors and lost answers."""

import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dataengine.errors import StoreError
from dataengine.record.video import Video
from dataengine.store.backend import LocalBackend, Missing, open_backend
from dataengine.store.compact import compact
from dataengine.store.curate import append, subset
from dataengine.store.gc import collect_garbage
from dataengine.store.range_cache import MARKS, RangeCache
from dataengine.store.remote import BucketBackend, open_bucket
from dataengine.store.repository import Repository, create_repository, open_repository
from dataengine.store.selection import chooser
from dataengine.store.versions import read_log
from tests.store.s3_server import CREDENTIALS, Proxy, create_bucket, moto_server, proxy_before
from tests.store.synthetic import new_dataset, run_forked, same_video, synthetic_video, wait_for

NUMBER = itertools.count()


def small_video(index: int) -> Video:
    return synthetic_video(index, frames=2, size=(4, 6), modalities=("rgb", "depth_z"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as address:
        create_bucket(address, "bucket")
        yield address


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with proxy_before(server) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.address)
        yield made


@pytest.fixture
def place(proxy: Proxy) -> str:
    """A fresh prefix of the bucket."""
    return f"s3://bucket/test-{next(NUMBER)}"


def filled(place: str, videos: int = 3) -> Repository:
    repository = create_repository(place, "tiny", {"name": "tiny"}, "a" * 64)
    for index in range(videos):
        repository.add(index, small_video(index), "train" if index % 2 == 0 else "val")
    repository.snapshot("render")
    return repository


@pytest.fixture(params=["folder", "bucket"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    return LocalBackend(tmp_path / "store") if request.param == "folder" else open_bucket(request.getfixturevalue("place"))


def test_a_backend_keeps_its_promises(backend) -> None:
    """Folder and bucket, one contract."""
    assert backend.put_new("a/b/c.bin", b"0123456789") and not backend.put_new("a/b/c.bin", b"other")
    assert backend.get("a/b/c.bin") == b"0123456789"
    assert backend.get_ranges("a/b/c.bin", [(2, 3), (0, 1), (8, 2)]) == [b"234", b"0", b"89"]
    assert backend.get_tail("a/b/c.bin", 4) == b"6789" and backend.get_tail("a/b/c.bin", 99) == b"0123456789"
    assert backend.get_tagged("a/none") is None
    assert backend.swap("ref", None, b"1") and not backend.swap("ref", None, b"2")
    content, tag = backend.get_tagged("ref")
    assert content == b"1" and backend.swap("ref", tag, b"3") and not backend.swap("ref", tag, b"4")
    assert backend.get("ref") == b"3"
    backend.put("a/b/d.bin", b"x" * 7)
    assert [(i.key, i.size) for i in backend.items("a/b/")] == [("a/b/c.bin", 10), ("a/b/d.bin", 7)]
    assert [i.key for i in backend.items("a/b/d")] == ["a/b/d.bin"]
    backend.delete(["a/b/d.bin", "a/b/never-there"])
    with pytest.raises(Missing, match="has no a/b/d.bin"):
        backend.get("a/b/d.bin")
    for call in (lambda: backend.get_ranges("no", [(0, 1)]), lambda: backend.get_tail("no", 1)):
        with pytest.raises(Missing):
            call()
    assert pickle.loads(pickle.dumps(backend)).get("ref") == b"3"


def test_one_of_many_racers_wins(backend) -> None:
    def race(racer: int) -> list[bool]:
        return [backend.put_new(f"name{i}", b"%d" % racer) for i in range(5)]

    with ThreadPoolExecutor(4) as pool:
        wins = list(pool.map(race, range(4)))
    for i in range(5):
        (winner,) = [racer for racer in range(4) if wins[racer][i]]
        assert backend.get(f"name{i}") == b"%d" % winner


def test_what_was_committed_is_read_back(place: str, tmp_path: Path) -> None:
    filled(place)
    opened = pickle.loads(pickle.dumps(open_repository(place)))
    cache = RangeCache(opened.backend, tmp_path / "cache", 1 << 20)
    manifest = opened.manifest()
    assert manifest["splits"] == {"train": [0, 2], "val": [1]}
    for index, entry in enumerate(manifest["units"]):
        with pickle.loads(pickle.dumps(opened.reader(entry, cache))) as reader:
            assert same_video(reader.video(), small_video(index))
            assert np.array_equal(reader.read("rgb", 1), small_video(index).images["rgb"][1])
    local = new_dataset(tmp_path / "local")
    for index in range(3):
        local.add(index, small_video(index), "train" if index % 2 == 0 else "val")
    assert local.write_manifest()["digest"] == manifest["digest"], "one content, one digest, wherever it lives"


def test_the_cache_answers_without_the_server_and_stays_small(place: str, proxy: Proxy, tmp_path: Path) -> None:
    repository = filled(place, 1)
    cache = RangeCache(repository.backend, tmp_path / "cache", 1 << 20, block=1 << 10)
    (entry, *_) = repository.manifest()["units"]
    with repository.reader(entry, cache) as reader:
        reader.prefetch(range(2))
        asked = len(proxy.seen)
        first = reader.video()
        assert len(proxy.seen) == asked, "prefetch brought everything"
    with repository.reader(entry, cache) as reader:
        assert same_video(reader.video(), first) and len(proxy.seen) == asked
    for number in range(14):
        repository.backend.put(f"shards/x/{number}", bytes(100_000))
        cache.get_ranges(f"shards/x/{number}", [(0, 100_000)])
        assert cache.used_bytes() <= 1 << 20
    for path in (tmp_path / "cache").glob("*/*/blocks"):
        path.write_bytes(b"\xff" * path.stat().st_size)
    assert cache.get_ranges("shards/x/13", [(5, 7)]) == [b"\xff" * 7], "the cache is what is read"
    cache.drop("shards/x/13")
    assert cache.get_ranges("shards/x/13", [(5, 7)]) == [bytes(7)]


@pytest.mark.parametrize("ranges", [[(0, 1)], [(999, 1)], [(0, 1000)], [(10, 90), (95, 10), (400, 300)], [(998, 2), (0, 0), (127, 2)]])
def test_ranges_through_the_cache_are_the_bytes(ranges: list[tuple[int, int]], tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(1000)
    backend = LocalBackend(tmp_path / "store")
    backend.put_new("k", data)
    cache = RangeCache(backend, tmp_path / "cache", 1 << 20, block=64)
    for _ in range(2):
        assert cache.get_ranges("k", ranges) == [data[a : a + n] for a, n in ranges]


def test_damage_on_the_way_is_fetched_again_and_damage_in_the_store_is_located(place: str, tmp_path: Path) -> None:
    repository = filled(place, 1)
    (entry,) = repository.manifest()["units"]
    key = f"shards/{entry['shard']}/rgb/c.0.0.0.0"
    cache = RangeCache(repository.backend, tmp_path / "cache", 1 << 20)
    with repository.reader(entry, cache) as reader:
        reader.read("rgb", 0)
        (kept,) = (p for p in (tmp_path / "cache").glob("*/*/blocks") if p.read_bytes()[MARKS:] == repository.backend.get(key))
        kept.write_bytes(kept.read_bytes()[:MARKS] + bytes(kept.stat().st_size - MARKS))
        assert np.array_equal(reader.read("rgb", 0), small_video(0).images["rgb"][0])
    torn = bytearray(repository.backend.get(key))
    torn[3] ^= 1
    repository.backend.put(key, bytes(torn))
    cache.drop(key)
    with repository.reader(entry, cache) as reader, pytest.raises(StoreError, match="rgb frame 0 is damaged"):
        reader.read("rgb", 0)


@pytest.mark.parametrize("what", ["503", "lost"])
def test_a_stumbling_server_loses_and_doubles_nothing(what: str, place: str, proxy: Proxy, tmp_path: Path) -> None:
    """Every third request fails; with "lost" it was carried out all the same."""
    proxy.fail = lambda method, path, number: what if number % 3 == 0 else None
    repository = filled(place, 2)
    assert [e["verb"] for e in read_log(repository.backend)] == ["render"]
    manifest = repository.manifest()
    cache = RangeCache(repository.backend, tmp_path / "cache", 1 << 20)
    for index, entry in enumerate(manifest["units"]):
        assert same_video(repository.reader(entry, cache).video(), small_video(index))
    assert len(manifest["units"]) == 2


def test_a_cache_without_space_is_only_slow(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "store")
    backend.put_new("k", b"0123456789")
    (tmp_path / "cache").write_text("a file, not a folder")
    cache = RangeCache(backend, tmp_path / "cache", 1 << 20)
    assert cache.get_ranges("k", [(2, 3)]) == [b"234"] and cache.get("k") == b"0123456789"


def test_processes_share_a_cache_while_it_is_evicted(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "store")
    data = {f"k{n}": np.random.default_rng(n).bytes(50_000) for n in range(12)}
    for key, content in data.items():
        backend.put_new(key, content)

    def reader(seed: int) -> Callable[[], object]:
        def body() -> None:
            cache = RangeCache(backend, tmp_path / "cache", 200_000, block=4096)
            rng = np.random.default_rng(seed)
            for _ in range(300):
                key, start = f"k{rng.integers(12)}", int(rng.integers(49_000))
                assert cache.get_ranges(key, [(start, 900)]) == [data[key][start : start + 900]]

        return body

    pids = [run_forked(reader(seed)) for seed in range(3)]
    assert [wait_for(pid) for pid in pids] == [0, 0, 0]


def test_waiting_is_shared(place: str, proxy: Proxy, tmp_path: Path) -> None:
    """A clip of three arrays costs a few round trips, not one per frame and array."""
    import time

    repository = filled(place, 1)
    (entry,) = repository.manifest()["units"]
    proxy.latency_s = 0.2
    cache = RangeCache(repository.backend, tmp_path / "cache", 1 << 20)
    start = time.monotonic()
    with repository.reader(entry, cache) as reader:
        reader.prefetch(range(2))
    assert time.monotonic() - start < 5 * 0.2 + 1.0
    start = time.monotonic()
    with repository.reader(entry, cache) as reader:
        reader.video()
    assert time.monotonic() - start < 0.2


@pytest.mark.parametrize(("header", "said"), [("if-none-match", "If-None-Match"), ("if-match", "If-Match")])
def test_a_server_that_ignores_conditions_is_refused(header: str, said: str, place: str, proxy: Proxy) -> None:
    proxy.drop_headers = (header,)
    with pytest.raises(StoreError, match=f"does not honour conditional writes .{said}"):
        create_repository(place, "tiny", {}, "a" * 64)
    assert open_backend(place).items("") == []


def test_broken_places_are_one_line(proxy: Proxy, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[str, Callable[[], object], str]] = [
        ("vanished bucket", lambda: open_repository("s3://nowhere/x"), "s3://nowhere/x: the bucket does not exist"),
        ("empty prefix", lambda: open_repository(place), "is not a dataset: it holds no dataset.json"),
        ("no bucket", lambda: open_backend("s3://"), "no bucket named; give s3://BUCKET/PREFIX"),
        ("other scheme", lambda: open_backend("gs://b/x"), "unknown kind of store 'gs'"),
    ]
    for _, call, said in cases:
        with pytest.raises(StoreError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)
    proxy.fail = lambda *_: "500"
    with pytest.raises(StoreError, match="the store failed .*try again"):
        BucketBackend("bucket", "x", attempts=2).get("y")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="the server cannot be reached; check AWS_ENDPOINT_URL"):
        BucketBackend("bucket", "x", attempts=2).get("y")


@pytest.mark.parametrize(("status", "code"), [(403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (403, "AccessDenied")])
def test_refused_credentials_are_one_line(status: int, code: str) -> None:
    from dataengine.store.remote import explain

    said = explain("s3://b", f"Error performing GET: {status} Forbidden: <Error><Code>{code}</Code></Error>\nDebug source:\n x")
    assert said.startswith("s3://b: ") and "credentials" in said and "\n" not in said


def test_a_forked_process_is_told_instead_of_hanging(place: str) -> None:
    repository = filled(place, 1)

    def child() -> None:
        with pytest.raises(StoreError, match="forked after the store was opened.*start workers with 'spawn'"):
            repository.manifest()
        assert os.getpid()

    assert wait_for(run_forked(child)) == 0


def test_other_content_for_a_unit_is_an_alarm(place: str) -> None:
    repository = filled(place, 2)
    with pytest.raises(StoreError, match="video-000001 was rendered twice with different results"):
        repository.add(1, small_video(77), "val")
    assert repository.add(1, small_video(77), "val", reproducible=False) == repository.record("video-000001")


def test_the_verbs_work_in_a_bucket(place: str, tmp_path: Path) -> None:
    """From a folder to the bucket, a part of it to another place, packed, collected, and back to a folder."""
    local = new_dataset(tmp_path / "local")
    for index in range(4):
        local.add(index, small_video(index), "train")
    local.write_manifest()
    remote = create_repository(place, local.name, local.spec, local.spec_digest)
    append(remote, open_repository(local.path))
    assert remote.manifest()["digest"] == local.manifest()["digest"]
    packed = compact(remote, 20_000_000)
    assert (packed.packs, packed.units) == (1, 4)
    before = len(remote.backend.items("shards/"))
    garbage = collect_garbage(remote, grace_s=0, now_s=4e9)
    assert len(garbage.shards) == 4 and len(remote.backend.items("shards/")) < before
    cache = RangeCache(remote.backend, tmp_path / "cache", 1 << 20)
    for index, entry in enumerate(remote.manifest()["units"]):
        assert same_video(remote.reader(entry, cache).video(), small_video(index))
    back = subset(remote, tmp_path / "back", chooser(where="video % 2 == 0"), "video % 2 == 0")
    assert [e["video"] for e in back.manifest()["units"]] == [0, 2]
    assert same_video(back.reader(back.manifest()["units"][1]).video(), small_video(2))
