"""The file cache: built once, safe against damage and concurrent writers."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dataengine.robot.cache import cached_arrays, default_cache_dir


def test_builds_once_then_reads(tmp_path):
    built = []

    def build():
        built.append(1)
        return {"a/x": np.arange(5), "name": np.array(["grau", "grün"])}

    first, second = (cached_arrays("thing", tmp_path, build) for _ in range(2))
    assert len(built) == 1
    assert first.keys() == second.keys()
    np.testing.assert_array_equal(second["a/x"], np.arange(5))
    assert second["name"].tolist() == ["grau", "grün"]
    assert [path.name for path in (tmp_path / "robots").iterdir()] == ["thing.arrays"]


def test_damage_anywhere_is_noticed(tmp_path):
    want = {"x": np.arange(40.0)}
    cached_arrays("thing", tmp_path, lambda: want)
    path = tmp_path / "robots" / "thing.arrays"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        again = cached_arrays("thing", tmp_path, lambda: want)
        np.testing.assert_array_equal(again["x"], want["x"])


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    arrays = {"x": np.arange(200_000)}
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached_arrays("thing", tmp_path, lambda: arrays)["x"].sum(), range(16)))
    assert set(results) == {arrays["x"].sum()}
    assert [path.name for path in (tmp_path / "robots").iterdir()] == ["thing.arrays"]


def test_default_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "dataengine"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "dataengine"
