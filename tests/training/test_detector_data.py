from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataengine.errors import StoreError
from dataengine.record.video import Names, Video
from tests.store.synthetic import new_dataset
from tests.training.detectors import MICRO, PLACES, labelled_dataset, labelled_video
from training import checkpoint
from training.config import Config, LoopConfig, OptimConfig, from_dict
from training.detector_data import STORED, FrameBatches, keypoint_rows, open_frames, read_frames, robot_of, stored_names
from training.errors import TrainingError
from training.loop import train
from training.recipes.detector import DetectorRecipe, DetectorTask, detector_config
from training.views import ViewDraw


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_dataset(tmp_path_factory.mktemp("labelled"))


def panda_names(video: Video) -> Names:
    """As our renderer stores the set dream7 and two more."""
    links = ("panda_link0", "panda_link1", "panda_link2", "panda_link3", "panda_link4", "panda_link6", "panda_link7", "panda_hand")
    at = (7, 0, 2, 3, 4, 5, 6, 7, 1)
    offsets = ((0.0, 0.04, 0.10), *(((0.0, 0.0, 0.0),) * 7), (0.0, -0.1294, 0.0))
    return Names(video.names.joints, links, tuple(f"p{i}" for i in range(9)), at, offsets, ())


def test_sets_are_found_by_link_and_offset() -> None:
    names = panda_names(labelled_video(0))
    assert keypoint_rows(names, "dream7", "panda") == [1, 2, 3, 4, 5, 6, 7]
    assert keypoint_rows(names, STORED, "panda") == list(range(9))
    with pytest.raises(
        TrainingError, match=r"keypoint set panda15 needs 7 points that are not stored, first panda_link0@.* stored: p0, p1"
    ):
        keypoint_rows(names, "panda15", "panda")
    with pytest.raises(TrainingError, match="unknown keypoint set 'dream8' .*did you mean 'dream7'"):
        keypoint_rows(names, "dream8", "panda")


def test_batches_hold_the_wanted_keypoints_in_order(dataset: Path) -> None:
    data = FrameBatches([dataset], 4, STORED, "train")
    assert data.keypoints == ("a", "b", "c", "d") and data.robot == "panda"
    data.rows = [3, 1]
    whole = FrameBatches([dataset], 4, STORED, "train").next(torch.Generator())
    part = data.next(torch.Generator())
    assert torch.equal(part["keypoints_px"], whole["keypoints_px"][:, [3, 1]])
    assert torch.equal(part["rgb"], whole["rgb"]) and part["rgb"].dtype == torch.uint8


def test_batches_never_end_and_go_on_from_their_state(dataset: Path) -> None:
    one, generator = FrameBatches([dataset], 4, STORED, "train"), torch.Generator()
    seen = [one.next(generator)["video"] for _ in range(5)]
    state = one.state_dict()
    after = [one.next(generator) for _ in range(3)]
    other = FrameBatches([dataset], 4, STORED, "train")
    other.load_state_dict(state)
    for batch in after:
        assert all(torch.equal(v, batch[k]) for k, v in other.next(generator).items())
    assert len(seen) == 5 and FrameBatches([dataset], 50, STORED, "train").next(generator)["rgb"].shape[0] == 50


def test_a_dataset_without_masks_is_refused(tmp_path: Path) -> None:
    path = labelled_dataset(tmp_path, 1, modalities=("rgb",))
    with pytest.raises(TrainingError, match="the detector needs mask_link, stored are rgb; render with"):
        FrameBatches([path], 2, STORED)


def test_empty_and_unknown_splits_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unknown split 'tset'"):
        open_frames(dataset, "tset")
    empty = new_dataset(tmp_path / "e")
    empty.write_manifest()
    with pytest.raises(StoreError, match="holds no sample"):
        open_frames(empty.path)
    with pytest.raises(TrainingError, match="no dataset given"):
        FrameBatches([], 2, STORED)


def test_datasets_of_other_keypoints_do_not_mix(dataset: Path, tmp_path: Path) -> None:
    video = labelled_video(0)
    names = replace(video.names, keypoints=("a", "b", "d", "c"))
    other = new_dataset(tmp_path / "o")
    other.add(0, replace(video, names=names), "train")
    other.write_manifest()
    with pytest.raises(TrainingError, match="stores other keypoints"):
        FrameBatches([dataset, other.path], 2, STORED, "train")
    assert names.keypoint_offsets_m == PLACES


def test_frames_to_measure_on_come_in_order(dataset: Path) -> None:
    catalogue = open_frames(dataset, "val")
    frames = read_frames(catalogue, keypoint_rows(stored_names(catalogue), STORED, robot_of(catalogue)))
    video = labelled_video(3)
    assert np.array_equal(frames["rgb"].numpy(), video.images["rgb"])
    assert np.array_equal(frames["keypoints_px"].numpy(), video.frames["keypoints_px"])
    assert len(read_frames(catalogue, [0], 2)["rgb"]) == 2


# ---- the recipe in the loop ------------------------------------------------------------------------------------------------


def small_config(dataset: Path, steps: int) -> Config:
    task = DetectorTask((str(dataset),), detector=MICRO, views=ViewDraw(cut_out=0.2))
    return Config(
        "detector",
        task,
        OptimConfig(3e-3, warmup=2, ema=0.5),
        LoopConfig(steps, 4, log_every=1, save_every=2, validate_every=4, logs=("jsonl",)),
    )


def test_the_loop_trains_it_and_goes_on_bit_by_bit(dataset: Path, tmp_path: Path) -> None:
    config = small_config(dataset, 4)
    whole = train(DetectorRecipe(config.task), config, tmp_path / "whole")
    assert set(whole.metrics) >= {"median_px", "mask_iou", "axis_sigma_px"} and np.isfinite(list(whole.metrics.values())).all()
    # Stopped after two steps, as by a kill: the schedule is still that of four.
    (tmp_path / "parts").mkdir()
    (tmp_path / "whole" / "step_000000002.safetensors").rename(tmp_path / "parts" / "step_000000002.safetensors")
    parts = train(DetectorRecipe(config.task), config, tmp_path / "parts")
    assert parts.ran == 2 and whole.checkpoint is not None and parts.checkpoint is not None
    one, two = (checkpoint.read(r.checkpoint).weights() for r in (whole, parts))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_dataset_that_keeps_nothing_back_trains_all_the_same(dataset: Path, tmp_path: Path) -> None:
    """Four videos of `hello` are all in `train`: an hour's work must not end at the first look at `val`."""
    config = small_config(dataset, 4)
    task = replace(config.task, validation="kept back")
    assert train(DetectorRecipe(task), replace(config, task=task), tmp_path / "run").metrics == {"frames": 0.0}


def test_another_keypoint_set_does_not_go_on_from_a_checkpoint(dataset: Path, tmp_path: Path) -> None:
    config = small_config(dataset, 2)
    train(DetectorRecipe(config.task), config, tmp_path)
    recipe = DetectorRecipe(config.task)
    recipe._probe.rows = [2, 1]
    with pytest.raises(TrainingError, match="is for keypoints a, b, c, d, this run for c, b"):
        train(recipe, config, tmp_path)


@pytest.mark.parametrize("preset", ["small", "overfit", "gpu"])
def test_presets_survive_json(preset: str) -> None:
    config = detector_config(preset, ["somewhere"], "dream7")
    assert from_dict(config.as_dict(), DetectorTask) == config
    assert config.task.detector.keypoint_set == "dream7" and config.task.detector.size % 32 == 0
