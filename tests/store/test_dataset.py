import errno
import json
import os
import pickle
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataengine.errors import StoreError
from dataengine.record.video import Video
from dataengine.store import files
from dataengine.store.commits import describe_shard, manifest_digest, read_commit, unit_name
from dataengine.store.dataset import Dataset, open_dataset, open_or_create
from dataengine.store.shard import write_shard
from tests.store.synthetic import full_device, new_dataset, run_forked, same_video, synthetic_video, wait_for

FEW = ("rgb", "depth_z")


def small_video(index: int) -> Video:
    return synthetic_video(index, frames=2, size=(4, 6), modalities=FEW)


@pytest.fixture
def filled(tmp_path: Path) -> Dataset:
    dataset = new_dataset(tmp_path / "out", planned=5)
    for index, split in enumerate(("train", "val", "train")):
        dataset.add(index, small_video(index), split, {"cpu_s": 0.1 * index})
    dataset.write_manifest()
    return dataset


def tree(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# ---- the way it is used ------------------------------------------------------------------------------------------


def test_what_was_added_is_read_back(filled: Dataset) -> None:
    opened = pickle.loads(pickle.dumps(open_dataset(filled.path)))
    assert opened.videos() == ["video-000000", "video-000001", "video-000002"]
    for index in range(3):
        assert same_video(opened.reader(index).video(), small_video(index))
    assert opened.pending(5) == [3, 4]
    manifest = opened.manifest()
    assert manifest["splits"] == {"train": [0, 2], "val": [1]}
    assert manifest["frames"] == 6 and manifest["bytes"] == sum(u["bytes"] for u in manifest["units"])
    assert manifest["units"][1]["size"] == [4, 6] and "stats" not in manifest["units"][1]
    assert opened.record(1).stats == {"cpu_s": 0.1}
    assert not any((filled.path / "staging").iterdir())
    with pytest.raises(StoreError, match="has no video 7; 3 are committed, video-000000 to video-000002"):
        opened.reader(7)


def test_the_manifest_depends_on_the_videos_only(filled: Dataset, tmp_path: Path) -> None:
    other = new_dataset(tmp_path / "elsewhere")
    for index, split in reversed(list(enumerate(("train", "val", "train")))):
        other.add(index, small_video(index), split, {"cpu_s": 99.0})
    assert other.write_manifest() == filled.manifest()
    other.add(3, small_video(3), "test")
    assert other.write_manifest()["digest"] != filled.manifest()["digest"]


@pytest.mark.parametrize("profile", ["portable", "train", "archive"])
def test_shards_are_written_with_the_codecs_of_the_spec(profile: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    dataset = open_or_create(folder, {"name": "x", "codecs": profile}, "0" * 64, "x", planned=1)
    video = small_video(0)
    dataset.add(0, video, "train")
    reader = open_dataset(folder).reader(0)
    assert reader.attributes["profile"] == profile
    codecs = (folder / "shards" / dataset.record(0).shard / "rgb" / "zarr.json").read_text()
    assert ("jpeg" in codecs) == (profile == "train")
    np.testing.assert_array_equal(reader.video(("depth_z",)).images["depth_z"], video.images["depth_z"])


def test_adding_twice_changes_nothing(filled: Dataset) -> None:
    before, record = tree(filled.path), filled.record(0)
    assert filled.add(0, small_video(0), "train", {"cpu_s": 7.0}) == record
    assert tree(filled.path) == before


def test_quarantine_is_not_pending_until_released_or_committed(filled: Dataset) -> None:
    filled.quarantine(unit_name(3), "depth and masks disagree", 3, "last lines")
    filled.quarantine(unit_name(4), "timed out", 3, "")
    assert filled.pending(6) == [5]
    assert filled.quarantined()["video-000003"]["reason"] == "depth and masks disagree"
    filled.release(unit_name(4))
    filled.add(3, small_video(3), "train")
    assert filled.pending(6) == [4, 5] and filled.quarantined() == {}


# ---- opening -----------------------------------------------------------------------------------------------------


def test_another_spec_is_refused_and_nothing_changes(filled: Dataset) -> None:
    before = tree(filled.path)
    with pytest.raises(StoreError, match="holds dataset 'tiny' of spec aaaaaaaaaaaa, but this spec is bbbbbbbbbbbb; choose another"):
        new_dataset(filled.path, digest="b" * 64)
    assert tree(filled.path) == before
    assert new_dataset(filled.path).videos() == filled.videos()


def test_folders_that_are_no_datasets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file; give a folder"):
        new_dataset(tmp_path / "file")
    with pytest.raises(StoreError, match="not a dataset and not empty .it holds file."):
        new_dataset(tmp_path)
    with pytest.raises(StoreError, match="holds no dataset.json"):
        open_dataset(tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="Not a directory"):
        new_dataset(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"format": "dataengine dataset", "schema_version": 2}, "has schema version 2, this release reads up to 1"),
        ({"format": "something else", "schema_version": 1}, "not the head of a dataset"),
        ([], "is damaged"),
    ],
)
def test_strange_heads_are_refused(head: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(head))
    with pytest.raises(StoreError, match=said):
        open_dataset(tmp_path)
    with pytest.raises(StoreError, match=said):
        new_dataset(tmp_path)


def test_a_half_created_folder_is_completed(tmp_path: Path) -> None:
    (tmp_path / "out" / "staging").mkdir(parents=True)
    (tmp_path / "out" / "staging" / "tmp.torn").write_text("{")
    assert new_dataset(tmp_path / "out").videos() == []


@pytest.mark.parametrize("existing", [False, True])
def test_an_unwritable_folder_is_refused(existing: bool) -> None:
    """As a user without rights: root may write anywhere, so a child gives its rights up first."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        if existing:
            new_dataset(root)
        for folder in (root, *(p for p in root.rglob("*") if p.is_dir())):
            folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)

        def child() -> None:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            with pytest.raises(StoreError, match=r"cannot write .*: Permission denied; choose another output folder or"):
                new_dataset(root)
            if existing:
                assert open_dataset(root).videos() == []

        assert wait_for(run_forked(child)) == 0
    finally:
        for folder in (root, *(p for p in root.rglob("*") if p.is_dir())):
            folder.chmod(stat.S_IRWXU)
        shutil.rmtree(root)


def test_a_read_only_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(StoreError, match="cannot write .*dataset.json: Read-only file system; choose"):
        new_dataset(tmp_path / "out")


# ---- two renders of one video ------------------------------------------------------------------------------------


def test_different_content_for_one_unit_is_an_alarm(filled: Dataset) -> None:
    other = replace(small_video(0), notes={"noise": 1})
    before = tree(filled.path)
    with pytest.raises(StoreError, match=r"video-000000 was rendered twice .*video-000000-\w{12} exists, the new one is video-000000-"):
        filled.add(0, other, "train")
    assert tree(filled.path) == before


def test_where_renders_may_differ_the_first_commit_counts(filled: Dataset) -> None:
    first = filled.record(0)
    assert filled.add(0, replace(small_video(0), notes={"noise": 1}), "train", reproducible=False) == first
    assert same_video(filled.reader(0).video(), small_video(0))


def test_the_commit_record_decides_too(filled: Dataset) -> None:
    """Both racers published before either looked: the alarm comes from the record."""
    staged = filled.stage(unit_name(0))
    write_shard(staged, replace(small_video(0), notes={"noise": 1}))
    record = describe_shard(staged, 0, "train")
    filled.publish(record.unit, staged, record.digest, reproducible=False)
    with pytest.raises(StoreError, match=rf"{filled.record(0).digest[:12]} is committed, the new one is {record.digest[:12]}"):
        filled.commit(record)


def test_a_commit_needs_its_shard(filled: Dataset) -> None:
    with pytest.raises(StoreError, match="was not published"):
        filled.commit(replace(filled.record(0), unit="video-000009", shard="video-000009-0123456789ab"))


# ---- damage ------------------------------------------------------------------------------------------------------


def test_damaged_videos_are_taken_back_and_rendered_again(filled: Dataset) -> None:
    digest = filled.manifest()["digest"]
    shards = filled.path / "shards"
    damage(shards / filled.record(0).shard / "rgb" / "c.0.0.0.0")  # found by the full check only
    (shards / filled.record(1).shard / "depth_z" / "c.0.0.0").unlink()
    damage(filled.path / "commits" / "video-000002.json")
    assert filled.check_existing()[0].unit == "video-000001"
    assert filled.videos() == ["video-000000"]
    (broken,) = filled.check_existing(full=True)
    assert [(f.file, f.field) for f in broken.findings] == [("rgb/c.0.0.0.0", "rgb")]
    assert filled.pending(3) == [0, 1, 2] and filled.manifest()["units"] == []
    kept = {p.name for p in (filled.path / "damaged").iterdir()}
    assert len([name for name in kept if ".json" in name]) == 3 and len(kept) == 6
    for index, split in enumerate(("train", "val", "train")):
        filled.add(index, small_video(index), split)
    assert filled.write_manifest()["digest"] == digest
    assert filled.check_existing(full=True) == []


def test_the_quick_check_reads_sizes_and_indices(filled: Dataset) -> None:
    shards = [filled.path / "shards" / filled.record(index).shard for index in range(3)]
    index = shards[0] / "rgb" / "c.0.0.0.0"
    data = bytearray(index.read_bytes())
    data[-20] ^= 1
    index.write_bytes(data)
    with (shards[1] / "depth_z" / "c.0.0.0").open("ab") as file:
        file.write(b"x")
    (shards[2] / "frames" / "c.0.0").write_bytes(b"")
    found = {unit: {(f.file, f.field) for f in findings} for unit, findings in filled.verify(full=False).items()}
    assert found == {
        "video-000000": {("rgb/c.0.0.0.0", "rgb")},
        "video-000001": {("depth_z/c.0.0.0", "depth_z")},
        "video-000002": {("frames/c.0.0", "frames")},
    }


def test_changed_metadata_is_found_by_its_recorded_digest(filled: Dataset) -> None:
    group = filled.path / "shards" / filled.record(2).shard / "rgb" / "zarr.json"
    group.write_text(group.read_text().replace("sRGB 0", "sRGB 1"))
    assert filled.verify(full=False) == {}
    (finding,) = filled.verify(full=True)["video-000002"]
    assert (finding.file, finding.field) == ("rgb/zarr.json", "rgb") and "recorded sha256" in finding.what


def test_a_damaged_published_shard_is_replaced_by_the_next_render(filled: Dataset) -> None:
    record = filled.record(1)
    damage(filled.path / "shards" / record.shard / "rgb" / "c.0.0.0.0")
    filled.add(1, small_video(1), "val")
    assert filled.verify(full=True) == {}


def test_damaged_records_and_manifests_are_refused(filled: Dataset) -> None:
    manifest = filled.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"frames": 6', '"frames": 7'))
    with pytest.raises(StoreError, match="its digest does not fit"):
        filled.manifest()
    content = {"schema_version": 9}
    manifest.write_text(json.dumps(content | {"digest": manifest_digest(content)}))
    with pytest.raises(StoreError, match="schema version 9"):
        filled.manifest()
    manifest.unlink()
    with pytest.raises(StoreError, match="manifest.json is missing"):
        filled.manifest()
    commit = filled.path / "commits" / "video-000001.json"
    commit.write_text(commit.read_text().replace('"split": "val"', '"splitt": "val"'))
    with pytest.raises(StoreError, match="video-000001.json is damaged"):
        read_commit(commit)


# ---- leftovers and space -----------------------------------------------------------------------------------------


def test_only_attempts_of_ended_processes_are_cleaned(filled: Dataset) -> None:
    mine = filled.stage(unit_name(3))

    def child() -> None:
        (filled.stage(unit_name(4)) / "half").write_text("x")
        (filled.path / "staging" / f"tmp.{files.owner_name()}").write_text("x")

    assert wait_for(run_forked(child)) == 0
    elsewhere = filled.path / "staging" / "video-000004" / "otherhost-1-2-abc"
    elsewhere.mkdir()
    assert len(filled.clean_staging()) == 2
    assert mine.is_dir() and elsewhere.is_dir()
    assert len(filled.clean_staging(everything=True)) == 2
    assert not any((filled.path / "staging").iterdir())


def test_a_reused_pid_does_not_keep_an_attempt_alive() -> None:
    host, pid, start, word = files.owner_name().rsplit("-", 3)
    assert not files.owner_is_gone(f"{host}-{pid}-{start}-{word}")
    assert files.owner_is_gone(f"{host}-{pid}-{int(start) - 1}-{word}")
    assert not files.owner_is_gone(f"other-{pid}-{int(start) - 1}-{word}")
    assert not files.owner_is_gone("nonsense")


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A disk with room for so many more files; then the kernel says ENOSPC."""
    room = [10**9]

    def limited(path: Path, mode: str) -> object:
        room[0] -= 1
        return open(path, mode) if room[0] >= 0 else full_device()

    monkeypatch.setattr(files, "open", limited, raising=False)
    yield room


@pytest.mark.parametrize("room", range(0, 10))
def test_a_full_disk_loses_nothing_and_the_run_goes_on(room: int, filled: Dataset, small_disk: list[int]) -> None:
    """Wherever the space ends: in the shard (7 files), in the commit record, or in the manifest."""
    small_disk[0] = room
    with pytest.raises(files.DiskFull, match=r"disk full while writing .*; [34] of 5 videos are safe; free space and run the same"):
        filled.add(3, small_video(3), "train")
        filled.write_manifest()
        filled.add(4, small_video(4), "train")
    assert not any((filled.path / "staging").iterdir())
    assert filled.verify(full=True) == {}
    small_disk[0] = 10**9
    for index in filled.pending(5):
        filled.add(index, small_video(index), "train")
    assert filled.write_manifest()["frames"] == 10


def test_a_full_disk_at_the_start_is_one_line(tmp_path: Path, small_disk: list[int]) -> None:
    small_disk[0] = 0
    with pytest.raises(files.DiskFull, match="disk full while writing .*dataset.json"):
        open_or_create(tmp_path / "out", {}, "c" * 64, "x")
    small_disk[0] = 10**9
    assert open_or_create(tmp_path / "out", {}, "c" * 64, "x").videos() == []


def test_publishing_at_the_same_instant_keeps_the_first(filled: Dataset) -> None:
    """The window between looking for the shard and renaming ours to its name."""
    target = filled.path / "shards" / filled.record(0).shard
    before = tree(target)
    staged = filled.stage(unit_name(0))
    write_shard(staged, small_video(0))
    filled._rename_shard(staged, target)
    assert tree(target) == before and not staged.exists()
    with pytest.raises(FileNotFoundError):
        filled._rename_shard(staged, target.with_name("nowhere"))
