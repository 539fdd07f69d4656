import json
import os
import pickle
import resource
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import StoreError
from dataengine.record.modalities import modality
from dataengine.record.video import Video
from dataengine.store.catalogue import Catalogue, Clip, open_catalogue
from dataengine.store.dataset import Dataset
from dataengine.store.iterator import Batch, Batches, View
from dataengine.store.jpeg_codec import halved
from dataengine.store.shard import write_shard
from dataengine.store.shard_file import CorruptShard
from tests.store.synthetic import new_dataset, run_forked, synthetic_video, wait_for

COLUMNS = ("rgb", "depth_sim", "mask_link", "K", "T_cam_base", "keypoints_px", "keypoint_state")
SHOWN = ("rgb", "depth_sim", "mask_link")


def fill(path: Path, counts: Sequence[int], size: tuple[int, int] = (12, 16), seed: int = 0, **change: object) -> Dataset:
    """A dataset of videos with so many frames; every third one belongs to the split `val`."""
    dataset = new_dataset(path, str(seed)[-1] * 64)
    for i, frames in enumerate(counts):
        video = replace(synthetic_video(100 * seed + i, frames, size, SHOWN), **change)
        dataset.add(i, video, "val" if i % 3 == 2 else "train")
    dataset.write_manifest()
    return dataset


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fill(tmp_path_factory.mktemp("rendered") / "d", [5, 1, 4, 7])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fill(tmp_path_factory.mktemp("real") / "d", [3, 6], seed=1, source="real")


def batches(datasets: Sequence[Dataset], batch: int = 4, view: View | None = None, **options: object) -> Batches:
    return Batches([open_catalogue(d.path) for d in datasets], view or View(COLUMNS), batch, **options)  # pyright: ignore[reportArgumentType]


def same(a: Batch, b: Batch) -> bool:
    return list(a) == list(b) and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


def joined(parts: Sequence[Batch]) -> Batch:
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}


def test_an_epoch_holds_every_frame_once_and_what_was_written(rendered: Dataset, real: Dataset) -> None:
    """Rendered and real videos in one loader, end to end."""
    whole = joined(list(batches([rendered, real])))
    seen = list(zip(whole["dataset"].tolist(), whole["video"].tolist(), whole["frame"].tolist(), strict=True))
    wanted = [(k, v, f) for k, counts in enumerate(([5, 1, 4, 7], [3, 6])) for v, n in enumerate(counts) for f in range(n)]
    assert sorted(seen) == wanted and seen != wanted
    assert np.array_equal(whole["real"], whole["dataset"] == 1)
    for i, (k, v, f) in enumerate(seen):
        video = synthetic_video(100 * k + v, [[5, 1, 4, 7], [3, 6]][k][v], modalities=SHOWN)
        for name in SHOWN:
            assert np.array_equal(whole[name][i], video.images[name][f])
        for name in ("K", "T_cam_base", "keypoints_px"):
            assert np.array_equal(whole[name][i], video.frames[name][f], equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), batch=st.integers(1, 12), worlds=st.lists(st.integers(1, 7), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_resume_in_another_world_is_bit_identical(
    rendered: Dataset, real: Dataset, data: st.DataObject, batch: int, worlds: list[int], seed: int
) -> None:
    """Killed at any batch, started again with any number of ranks: the global batches are those of an undisturbed run."""
    undisturbed = batches([rendered, real], batch, View(("depth_sim", "K")), seed=seed)
    wanted = [b for _ in range(2) for b in undisturbed]
    got: list[Batch] = []
    state = batches([rendered, real], batch, seed=seed).state()
    for world in worlds:
        ranks = [batches([rendered, real], batch, View(("depth_sim", "K")), seed=seed, rank=r, world=world) for r in range(world)]
        streams = []
        for rank in ranks:
            rank.load(json.loads(json.dumps(state)))
            streams.append(iter(rank))
        for _ in range(data.draw(st.integers(0, len(wanted) - len(got)))):
            parts = [next(s, None) for s in streams]
            if parts[0] is None:
                streams = [iter(rank) for rank in ranks]
                parts = [next(s) for s in streams]
            got.append(joined([p for p in parts if p is not None]))
            assert len({json.dumps(r.state()) for r in ranks}) == 1
        state = ranks[0].state()
        assert len(json.dumps(state)) < 200
    assert all(same(a, b) for a, b in zip(got, wanted, strict=False))


def test_a_used_up_epoch_is_never_the_state(rendered: Dataset) -> None:
    b = batches([rendered], 8)
    states = [b.state() for _ in b]
    assert (states[-1]["epoch"], states[-1]["place"]) == (1, 0)
    dropping = batches([rendered], 8, drop_last=True)
    assert [len(x["K"]) for x in dropping] == [8, 8]
    assert dropping.state() == states[-1]


def test_clips(rendered: Dataset) -> None:
    catalogue = open_catalogue(rendered.path, "train", clip=Clip(3, 2, 2))
    b = Batches([catalogue], View(("rgb", "K")), 2, shuffle=False)
    got = joined(list(b))
    assert got["rgb"].shape == (3, 3, 12, 16, 3) and got["video"].shape == (3,) and got["K"].shape == (3, 3, 3, 3)
    assert list(zip(got["video"].tolist(), got["frame"].tolist(), strict=True)) == [(0, [0, 2, 4]), (3, [0, 2, 4]), (3, [2, 4, 6])]
    assert np.array_equal(got["rgb"][1], synthetic_video(3, 7, modalities=SHOWN).images["rgb"][[0, 2, 4]])


@given(frames=st.integers(1, 30), length=st.integers(1, 6), stride=st.integers(1, 4), hop=st.integers(1, 5))
def test_clips_are_counted_as_by_hand(frames: int, length: int, stride: int, hop: int) -> None:
    by_hand = [s for s in range(0, frames, hop) if s + (length - 1) * stride < frames]
    assert Clip(length, stride, hop).count(np.array([frames]))[0] == len(by_hand)


@pytest.mark.parametrize("profile", ["portable", "train"])
def test_crops_and_halves_follow_the_image(profile: str, tmp_path: Path) -> None:
    video = synthetic_video(0, 3, (30, 44), SHOWN)
    video.frames["K"][:] = [[50, 0, 21.5], [0, 51, 14.5], [0, 0, 1]]
    video.frames["keypoints_px"][:] = [[3.0, 4.0], [25.0, 20.0], [np.nan, 2.0], [43.0, 29.0]]
    video.frames["keypoint_state"] = 2
    catalogue = single(tmp_path, video, profile)
    full = Batches([catalogue], View(COLUMNS), 3).read(0, 0, 3)
    crop = Batches([catalogue], View(COLUMNS, crop=(17, 13)), 3).read(0, 0, 3)
    assert len({tuple(w) for w in crop["window"].tolist()}) > 1
    for i, (top, left, h, w) in enumerate(crop["window"].tolist()):
        for name in SHOWN:
            assert np.array_equal(crop[name][i], full[name][i, top : top + h, left : left + w])
        point = np.array([0.1, -0.2, 1.0])
        shift = full["K"][i] @ point - crop["K"][i] @ point
        assert np.allclose(shift, [left, top, 0])
        moved = full["keypoints_px"][i] - crop["keypoints_px"][i]
        assert np.allclose(moved[[0, 1, 3]], [left, top])
        x, y = crop["keypoints_px"][i].T
        inside = (x >= -0.5) & (x < w - 0.5) & (y >= -0.5) & (y < h - 0.5)
        assert np.array_equal(crop["keypoint_state"][i], np.where(inside, 2, 0))
    half = Batches([catalogue], View(COLUMNS, half=True), 3).read(0, 0, 3)
    assert half["rgb"].shape == (3, 15, 22, 3)
    if profile == "portable":
        assert all(np.array_equal(half["rgb"][i], halved(full["rgb"][i])) for i in range(3))
    assert np.array_equal(half["depth_sim"], full["depth_sim"][:, ::2, ::2])
    assert np.allclose(half["K"][0], [[25, 0, 10.5], [0, 25.5, 7.0], [0, 0, 1]])  # (c + 0.5) / 2 - 0.5
    assert np.allclose(half["keypoints_px"][0][0], [1.25, 1.75])
    middle = Batches([catalogue], View(("rgb",), crop=(10, 10), centred=True), 1).read(0, 0, 1)
    assert middle["window"].tolist() == [[10, 17, 10, 10]]


def single(folder: Path, video: Video, profile: str = "portable") -> Catalogue:
    """A catalogue of one shard, without a dataset around it."""
    write_shard(folder / "shards" / "s", video, profile)
    unit = {"unit": "video-000000", "video": 0, "shard": "s", "frames": video.frame_count, "size": list(video.size)}
    return Catalogue(str(folder), "f" * 64, Clip(), (unit,), np.array([0, video.frame_count]))


def test_objects_are_filled_up(tmp_path: Path) -> None:
    dataset = new_dataset(tmp_path / "d")
    for i, objects in enumerate((1, 3)):
        dataset.add(i, synthetic_video(i, 1, modalities=(), objects=objects), "train")
    dataset.write_manifest()
    view = View(("T_cam_object", "object_visibility"), objects=3)
    got = batches([dataset], 2, view, shuffle=False).read(0, 0, 2)
    assert got["T_cam_object"].shape == (2, 3, 4, 4)
    assert np.isnan(got["T_cam_object"][0, 1:]).all() and not np.isnan(got["T_cam_object"][1]).any()
    for number, said in ((None, "has shape .3, 4, 4., the batch .1, 4, 4.; give objects="), (2, "the batch .2, 4, 4.")):
        with pytest.raises(StoreError, match=said):
            batches([dataset], 2, replace(view, objects=number), shuffle=False).read(0, 0, 2)


def test_no_samples_are_a_batch_too(rendered: Dataset) -> None:
    """A rank without a share of the last batch must still take the step."""
    last = [list(batches([rendered], 16, rank=r, world=3))[-1] for r in range(3)]
    assert sorted(len(x["rgb"]) for x in last) == [0, 0, 1]
    assert {x["rgb"].shape[1:] for x in last} == {(12, 16, 3)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: batches([d], view=View(("rgb", "nocs"))).read(0, 0, 1), "unknown modality 'nocs'"),
        (lambda d: batches([d], view=View(("rgb", "joint_positon"))).read(0, 0, 1), "did you mean 'joint_position'"),
        (lambda d: batches([d], view=View(("rgb",), crop=(13, 4))).read(0, 0, 1), "a crop of 4×13 does not fit into images of 16×12"),
        (lambda d: View(("rgb",), half=True, crop=(2, 2)), "not both"),
        (lambda d: View(("rgb", "rgb")), "each once"),
        (lambda d: batches([d], rank=2, world=2), "rank 2 of 2"),
        (lambda d: batches([d], batch=0), "batch 0"),
        (lambda d: batches([]), "no dataset"),
        (lambda d: batches([d], repeats=[1, 2]), "2 weights given for 1"),
        (lambda d: open_catalogue(d.path, "tain"), "unknown split 'tain'"),
        (lambda d: open_catalogue(d.path, clip=Clip(9)), "holds no sample of 9 frames"),
        (lambda d: Clip(0), "is no clip"),
        (lambda d: batches([d]).load({"epoch": 1}), "not a loader's state"),
        (lambda d: batches([d]).load(batches([d], seed=1).state()), "this loader draws from"),
        (lambda d: batches([d]).load(batches([d], repeats=[2]).state()), "this loader draws from"),
        (lambda d: batches([d]).load(batches([d]).state() | {"place": 99}), "does not exist"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, said: str, rendered: Dataset) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StoreError, match=said) as caught:
        make(rendered)
    assert "\n" not in str(caught.value)


def test_datasets_of_other_sizes_need_a_crop(rendered: Dataset, tmp_path: Path) -> None:
    large = fill(tmp_path / "large", [2], (20, 24), seed=2)
    with pytest.raises(StoreError, match="give crop="):
        list(batches([rendered, large], view=View(("rgb",))))
    assert joined(list(batches([rendered, large], view=View(("rgb",), crop=(12, 16)))))["rgb"].shape == (19, 12, 16, 3)


def test_damage_is_located(tmp_path: Path) -> None:
    dataset = fill(tmp_path / "d", [3])
    (path,) = dataset.path.glob("shards/*/rgb/c.0.0.0.0")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptShard, match="rgb frame 1 is damaged"):
        list(batches([dataset]))


def test_loaders_survive_fork_and_pickle(rendered: Dataset, real: Dataset) -> None:
    b = batches([rendered, real])
    wanted = b.read(0, 3, 9)
    assert same(pickle.loads(pickle.dumps(b)).read(0, 3, 9), wanted)

    def child() -> None:
        assert same(b.read(0, 3, 9), wanted)

    assert [wait_for(pid) for pid in [run_forked(child) for _ in range(3)]] == [0, 0, 0]


def test_memory_and_open_files_stay_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = fill(tmp_path / "d", [12] * 20)
    monkeypatch.setattr("dataengine.store.iterator.OPEN_FILES", 24)
    b = batches([dataset], 16, View(("rgb", "depth_sim", "K")))
    for _ in range(2):
        list(b)
    before, files = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/fd"))
    for _ in range(10):  # 2400 samples, 4800 images
        list(b)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # kB
    assert len(os.listdir("/proc/self/fd")) <= files + 24


def test_columns_that_are_not_asked_for_are_not_read(rendered: Dataset, tmp_path: Path) -> None:
    dataset = fill(tmp_path / "d", [3])
    for path in dataset.path.glob("shards/*/rgb/c.*"):
        path.unlink()
    assert len(joined(list(batches([dataset], view=View(("depth_sim",)))))["depth_sim"]) == 3
    assert modality("depth_sim").dtype == "float32"
