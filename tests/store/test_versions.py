"""Versions, and datasets made from datasets: in folders; the same functions run on a bucket in test_remote."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataengine.errors import StoreError
from dataengine.record.video import Video
from dataengine.store.compact import compact
from dataengine.store.curate import append, merge, subset
from dataengine.store.dataset import Dataset, open_dataset, open_or_create
from dataengine.store.gc import collect_garbage
from dataengine.store.repository import Repository, open_repository
from dataengine.store.selection import chooser
from dataengine.store.shard import shard_digest
from dataengine.store.structure import check_schema, check_structure
from dataengine.store.versions import diff, read_log, read_manifest, tag
from dataengine.store.zarr_io import read_shard_with_zarr
from tests.store.synthetic import new_dataset, run_forked, same_video, synthetic_video, wait_for

LATER = 4e9
"""A time far beyond every grace period, in seconds since 1970."""


def small_video(index: int, objects: int = 2) -> Video:
    return synthetic_video(index, frames=2 + index % 2, size=(4, 6), modalities=("rgb", "depth_z"), objects=objects)


def fill(path: Path, videos: range, digest: str = "a" * 64) -> Repository:
    dataset = new_dataset(path, digest)
    for index in videos:
        dataset.add(index, small_video(index, 1 + index % 3), "val" if index % 4 == 3 else "train")
    dataset.write_manifest()
    return open_repository(path)


@pytest.fixture
def six(tmp_path: Path) -> Repository:
    return fill(tmp_path / "six", range(6))


def local(repository: Repository) -> Dataset:
    return open_dataset(repository.where)


def is_whole(repository: Repository) -> None:
    assert local(repository).verify(full=True) == {}
    assert check_structure(repository) == []
    assert check_schema(repository, repository.manifest()["units"]) == []


def videos_of(repository: Repository) -> list[int]:
    return [e["video"] for e in repository.manifest()["units"]]


# ---- versions ----------------------------------------------------------------------------------------------------


def test_every_fold_is_a_version_and_equal_ones_are_one(six: Repository) -> None:
    first = six.manifest()["digest"]
    local(six).write_manifest()
    assert len(read_log(six.backend)) == 1
    local(six).add(6, small_video(6), "test")
    second = local(six).write_manifest()
    log = read_log(six.backend)
    assert [(e["manifest"], e["verb"], e["units"]) for e in log] == [(first, "render", 6), (second["digest"], "render", 7)]
    change = diff(six.manifest(first), six.manifest())
    assert change.added == ("video-000006",) and not (change.removed or change.changed or change.moved)
    assert diff(second, second).empty and read_manifest(six.backend, first[:8])["digest"] == first
    assert local(six).manifest() == second, "manifest.json is the current version"


def test_tags_stay(six: Repository) -> None:
    first = tag(six.backend, "v1")
    local(six).add(6, small_video(6), "test")
    local(six).write_manifest()
    assert six.manifest("v1")["digest"] == first != six.manifest()["digest"]
    assert tag(six.backend, "v1", first) == first, "the same again is fine"
    with pytest.raises(StoreError, match=f"tag v1 stands for version {first[:12]} already; tags do not move"):
        tag(six.backend, "v1")
    with pytest.raises(StoreError, match="unknown version 'v2'.*available: main, v1"):
        six.manifest("v2")
    for bad in ("a/b", "", "deadbeef", "x" * 101):
        with pytest.raises(StoreError, match="cannot name a version"):
            tag(six.backend, bad)
    with pytest.raises(StoreError, match="main is a branch"):
        tag(six.backend, "main")


def test_racing_writers_all_get_in(tmp_path: Path) -> None:
    dataset = new_dataset(tmp_path / "out")

    def writer(number: int) -> Callable[[], object]:
        def body() -> None:
            for index in range(3):
                dataset.add(3 * number + index, small_video(3 * number + index), "train")
                dataset.write_manifest()

        return body

    pids = [run_forked(writer(number)) for number in range(3)]
    assert [wait_for(pid) for pid in pids] == [0, 0, 0]
    repository = open_repository(tmp_path / "out")
    assert videos_of(repository) == list(range(9)) and local(repository).manifest() == repository.manifest()
    units = [e["units"] for e in read_log(repository.backend)]
    assert units == sorted(units), "no version lost what an earlier one had"
    is_whole(repository)


def test_a_folder_of_an_older_release_gets_its_first_version(six: Repository) -> None:
    digest = six.manifest()["digest"]
    root = Path(six.where)
    for path in sorted(root.rglob("*"), reverse=True):
        if path.relative_to(root).parts[0] in ("refs", "manifests"):
            path.rmdir() if path.is_dir() else path.unlink()
    assert open_repository(root).manifest()["digest"] == digest, "readable as it is"
    opened = open_repository(root, write=True)
    assert [e["verb"] for e in read_log(opened.backend)] == ["adopt"] and opened.manifest()["digest"] == digest


# ---- choosing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"split": "val"}, [3]),
        ({"where": "video<3"}, [0, 1, 2]),
        ({"where": "1 <= video < 4 and split == 'train'"}, [1, 2]),
        ({"where": "not (video % 2 == 0) or frames > 99"}, [1, 3, 5]),
        ({"where": "split in ('val', 'test')"}, [3]),
        ({"where": "width == 6 and height == 4 and -video > -2"}, [0, 1]),
        ({"videos": "0,4-9"}, [0, 4, 5]),
        ({"videos": "2-4", "split": "train"}, [2, 4]),
        ({}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_conditions(options: dict[str, str], want: list[int], six: Repository) -> None:
    choose = chooser(**options)
    assert [e["video"] for e in six.manifest()["units"] if choose(e)] == want


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": "vidio < 3"}, "unknown field 'vidio' .did you mean 'video'"),
        ({"where": "__import__('os')"}, "is not allowed"),
        ({"where": "split.upper() == 'A'"}, "is not allowed"),
        ({"where": "video <"}, "cannot read the condition"),
        ({"where": "split < 3"}, "does not work on video-000000"),
        ({"videos": "1,x"}, "'x' is no video number or range"),
    ],
)
def test_conditions_that_cannot_be_read(options: dict[str, str], said: str, six: Repository) -> None:
    with pytest.raises(StoreError, match=said):
        chooser(**options)(six.manifest()["units"][0])


# ---- append, subset, merge ---------------------------------------------------------------------------------------


def test_a_subset_keeps_numbers_and_bytes_and_costs_no_space(six: Repository, tmp_path: Path) -> None:
    part = subset(six, tmp_path / "part", chooser(where="video % 2 == 1"), "video % 2 == 1")
    assert videos_of(part) == [1, 3, 5] and part.manifest()["splits"] == {"train": [1, 5], "val": [3]}
    for entry in part.manifest()["units"]:
        assert same_video(part.reader(entry).video(), small_video(entry["video"], 1 + entry["video"] % 3))
        shard = f"shards/{entry['shard']}/rgb/c.0.0.0.0"
        assert os.path.samefile(Path(part.where) / shard, Path(six.where) / shard)
    assert open_repository(part.where).derived == {
        "verb": "subset", "of": [{"name": "tiny", "manifest": six.manifest()["digest"]}], "where": "video % 2 == 1",
    }  # fmt: skip
    is_whole(part)
    with pytest.raises(StoreError, match="holds another dataset of the same spec .subset.; choose another output folder"):
        open_or_create(tmp_path / "part", six.spec, six.spec_digest, "tiny")
    with pytest.raises(StoreError, match=r"no video of .* fits .x.; it has 6 in splits train, val"):
        subset(six, tmp_path / "none", chooser(split="x"), "x")
    assert not (tmp_path / "none").exists()


def test_append_adds_once_under_free_numbers(six: Repository, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", range(2), digest="b" * 64)
    before = six.manifest()
    manifest = append(six, other)
    assert videos_of(six) == [0, 1, 2, 3, 4, 5, 1_000_000, 1_000_001]
    assert manifest["units"][-1]["origin"] == ["b" * 64, 1]
    assert diff(before, manifest).added == ("video-1000000", "video-1000001")
    assert append(six, other)["digest"] == manifest["digest"], "nothing is added twice"
    assert local(six).pending(7) == [6], "its own numbers stay its own"
    assert same_video(local(six).reader(1_000_001).video(), small_video(1, 2))
    assert six.specs().keys() == {"a" * 64, "b" * 64}
    is_whole(six)


def test_videos_of_the_same_spec_keep_their_numbers(tmp_path: Path) -> None:
    """Two machines rendered a part each."""
    left, right = fill(tmp_path / "left", range(0, 4)), fill(tmp_path / "right", range(2, 6))
    whole = fill(tmp_path / "whole", range(0, 6))
    assert append(left, right)["digest"] == whole.manifest()["digest"]
    odd = new_dataset(tmp_path / "odd")
    odd.add(0, replace(small_video(0, 1), notes={"x": 1}), "train")
    odd.write_manifest()
    with pytest.raises(StoreError, match="holds video-000000 of tiny with other content"):
        append(left, open_repository(odd.path))


def test_merge_renumbers_and_remembers(six: Repository, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", range(2), digest="b" * 64)
    both = merge([six, other], tmp_path / "both", "both")
    assert videos_of(both) == list(range(8)) and both.manifest()["frames"] == six.manifest()["frames"] + other.manifest()["frames"]
    assert both.manifest()["units"][7]["origin"] == ["b" * 64, 1]
    assert both.derived is not None and [p["manifest"] for p in both.derived["of"]] == [
        six.manifest()["digest"],
        other.manifest()["digest"],
    ]
    is_whole(both)
    again = merge([six, other], tmp_path / "again", "both")
    assert again.manifest()["digest"] == both.manifest()["digest"]
    with pytest.raises(StoreError, match="at least two"):
        merge([six], tmp_path / "one", "one")


def test_what_does_not_fit_together_is_refused(six: Repository, tmp_path: Path) -> None:
    bare = new_dataset(tmp_path / "bare", "c" * 64)
    bare.add(0, synthetic_video(0, modalities=("rgb",)), "train")
    bare.write_manifest()
    other = open_repository(bare.path)
    with pytest.raises(StoreError, match="tiny does not fit tiny: its modalities are rgb uint8, here they are rgb uint8, depth_z float32"):
        append(six, other)
    with pytest.raises(StoreError, match="does not fit"):
        merge([six, other], tmp_path / "both", "both")
    assert videos_of(six) == list(range(6)) and not (tmp_path / "both").exists()


# ---- packs and garbage -------------------------------------------------------------------------------------------


def test_packs_hold_the_same_videos(six: Repository, tmp_path: Path) -> None:
    before = six.manifest()
    done = compact(six, 40_000)
    after = six.manifest()
    assert done.packs >= 2 and done.units >= 4 and done.manifest == after["digest"]
    change = diff(before, after)
    assert not (change.added or change.removed or change.changed) and len(change.moved) == done.units
    garbage = collect_garbage(six, grace_s=0, now_s=LATER)
    assert len(garbage.shards) == done.units and garbage.manifests == (before["digest"],)
    assert [p for p in (Path(six.where) / "shards").glob("video-*") if p.name.split("-0")[0] in garbage.shards] == []
    for video in range(6):
        with local(six).reader(video) as reader:
            assert same_video(reader.video(), small_video(video, 1 + video % 3))
            assert np.array_equal(reader.read("rgb", 1), small_video(video).images["rgb"][1])
            with pytest.raises(StoreError, match="frame 9 does not exist"):
                reader.read("depth_z", 9)
    assert local(six).check_existing() == [] and local(six).write_manifest() == after, "a resumed render leaves them alone"
    is_whole(six)
    assert compact(six, 40_000).packs == 0, "nothing left to do"


def test_packs_are_ordinary_zarr(six: Repository) -> None:
    compact(six)
    packed: dict[str, list[dict]] = {}
    for entry in six.manifest()["units"]:
        packed.setdefault(entry["shard"], []).append(entry)
    for name, entries in packed.items():
        if "start" not in entries[0]:
            continue
        attributes, arrays = read_shard_with_zarr(Path(six.where) / "shards" / name)
        assert [u["unit"] for u in attributes["packed"]] == [e["unit"] for e in entries]
        for entry in entries:
            with six.reader(entry) as reader:
                assert np.array_equal(arrays["rgb"][entry["start"] :][: entry["frames"]], reader.video().images["rgb"])


def test_packed_videos_can_be_taken_over(six: Repository, tmp_path: Path) -> None:
    part_before = subset(six, tmp_path / "before", chooser(videos="0-2"), "0-2").manifest()["digest"]
    compact(six)
    collect_garbage(six, grace_s=0, now_s=LATER)
    part = subset(six, tmp_path / "after", chooser(videos="0-2"), "0-2")
    assert part.manifest()["digest"] == part_before
    for entry in part.manifest()["units"]:
        assert shard_digest(Path(part.where) / "shards" / entry["shard"]) == entry["digest"]


def test_garbage_is_what_no_version_needs(six: Repository) -> None:
    tag(six.backend, "keep")
    kept = {e["shard"] for e in six.manifest()["units"]}
    compact(six)
    stray = Path(six.where) / "shards" / "video-000099-0123456789ab"
    stray.mkdir()
    (stray / "zarr.json").write_text("{}")
    fresh = local(six).add(6, small_video(6), "train")
    assert collect_garbage(six).shards == (), "all is younger than the grace period"
    assert [f.file for f in check_structure(six) if "orphaned" in f.what] == ["shards/video-000099-0123456789ab"]
    dry = collect_garbage(six, grace_s=0, dry_run=True, now_s=LATER)
    assert stray.exists() and dry.shards == (stray.name,) and dry.bytes == 2
    assert collect_garbage(six, grace_s=0, now_s=LATER) == dry
    there = {p.name for p in (Path(six.where) / "shards").iterdir()}
    assert not stray.exists() and kept <= there and fresh.shard in there
    local(six).write_manifest()
    is_whole(six)
    with pytest.raises(StoreError, match="a grace period of -1 s"):
        collect_garbage(six, grace_s=-1)


def test_a_damaged_version_stops_the_collection(six: Repository) -> None:
    first = six.manifest()["digest"]
    tag(six.backend, "v1")
    compact(six)
    path = Path(six.where) / "manifests" / f"{first}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "x"}))
    before = sorted((Path(six.where) / "shards").iterdir())
    with pytest.raises(StoreError, match="is damaged .its digest does not fit"):
        collect_garbage(six, grace_s=0, now_s=LATER)
    assert sorted((Path(six.where) / "shards").iterdir()) == before
