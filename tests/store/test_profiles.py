"""Shards of every profile: what is exact, what other zarr implementations see, what a reader costs in memory."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.registry import get_codec_class

from dataengine.errors import StoreError
from dataengine.record.modalities import DEPTH_QUANTUM_M, NAMES, modality
from dataengine.record.video import Video
from dataengine.store.codecs import PROFILES, Half, Window
from dataengine.store.shard import ShardReader, file_digests, read_shard, write_shard
from dataengine.store.verify import verify_shard
from dataengine.store.zarr_io import JpegZarrCodec, read_shard_with_zarr, register_jpeg
from tests.store.synthetic import same_video, synthetic_video

LOSSY = ("rgb", "ir_left", "ir_right")


def natural_video(frames: int = 2, size: tuple[int, int] = (48, 64)) -> Video:
    """As `synthetic_video`, but colours and infrared smooth, as JPEG expects."""
    video = synthetic_video(3, frames, size)
    rng = np.random.default_rng(0)
    for name in LOSSY:
        small = rng.integers(0, 255, (frames, 6, 8, 3), np.uint8)
        big = np.stack([cv2.resize(s, size[::-1], interpolation=cv2.INTER_CUBIC) for s in small])
        video.images[name][:] = big if name == "rgb" else big[..., 0]
    return video


@pytest.mark.parametrize("profile", PROFILES)
def test_depth_masks_and_labels_are_exact_in_every_profile(profile: str, tmp_path: Path) -> None:
    video = natural_video()
    write_shard(tmp_path / "s", video, profile)
    assert verify_shard(tmp_path / "s") == []
    back = read_shard(tmp_path / "s")
    for name in set(NAMES) - set(LOSSY):
        assert back.images[name].tobytes() == video.images[name].tobytes()
    assert back.frames.tobytes() == video.frames.tobytes()
    if profile == "train":
        for name in LOSSY:
            error = np.mean((back.images[name].astype(float) - video.images[name]) ** 2)
            assert error > 0 and 10 * np.log10(255**2 / error) > 38
    else:
        assert same_video(back, video)
    assert ShardReader(tmp_path / "s").attributes["profile"] == profile


def test_equal_videos_give_equal_bytes_in_the_train_profile(tmp_path: Path) -> None:
    for name in "ab":
        write_shard(tmp_path / name, natural_video(), "train")
    assert file_digests(tmp_path / "a") == file_digests(tmp_path / "b")


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("depth")])
def test_depth_says_its_unit_and_range(name: str, tmp_path: Path) -> None:
    write_shard(tmp_path / "s", natural_video())
    said = ShardReader(tmp_path / "s").array(name).info.attributes
    smallest, largest = said["valid_range"]
    assert said["unit"] == "m" and said["fill"] == 0 and smallest == said["quantum"] == DEPTH_QUANTUM_M
    steps = np.array([1, 2, 2**24 - 1, 2**24]) * smallest
    assert np.array_equal(steps.astype(np.float32), steps) and steps[-1] == largest


def test_an_unknown_profile_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unknown codec profile 'jpg'"):
        write_shard(tmp_path / "s", natural_video(), "jpg")
    assert not list(tmp_path.rglob("c.*"))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), frames=st.integers(1, 4), size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_zarr_sees_what_we_see_in_the_train_profile(tmp_path_factory: pytest.TempPathFactory, seed: int, frames: int, size) -> None:  # type: ignore[no-untyped-def]
    register_jpeg()
    shard = tmp_path_factory.mktemp("t") / "s"
    write_shard(shard, synthetic_video(seed, frames, size), "train")
    ours = read_shard(shard)
    _, theirs = read_shard_with_zarr(shard)
    for name, images in ours.images.items():
        assert np.array_equal(theirs[name], images)
    assert theirs["frames"].tobytes() == ours.frames.tobytes()


def test_zarr_writes_our_jpeg_bytes(tmp_path: Path) -> None:
    register_jpeg()
    video = natural_video()
    write_shard(tmp_path / "s", video, "train")
    ours = tmp_path / "s" / "rgb"
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "zarr.json").write_bytes((ours / "zarr.json").read_bytes())
    zarr.open_array(str(tmp_path / "t"), mode="r+")[...] = video.images["rgb"]
    assert (tmp_path / "t" / "c.0.0.0.0").read_bytes() == (ours / "c.0.0.0.0").read_bytes()


def test_the_codec_is_registered_under_the_name_of_the_draft() -> None:
    register_jpeg()
    assert get_codec_class("jpeg") is JpegZarrCodec


@pytest.mark.parametrize("profile", ["portable", "archive"])
def test_tensorstore_reads_our_shards(profile: str, tmp_path: Path) -> None:
    video = synthetic_video(5, 3, (9, 14))
    write_shard(tmp_path / "s", video, profile)
    for name, images in video.images.items():
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{tmp_path / 's' / name}/"}}
        array = tensorstore.open(spec, read=True, open=True).result()  # pyright: ignore[reportAttributeAccessIssue]
        assert np.array_equal(array.read().result(), images)
        assert np.array_equal(array[1].read().result(), images[1])
        assert array.dimension_units is not None and array.domain.labels[:3] == ("frame", "y", "x")


@pytest.mark.parametrize("profile", ["portable", "archive"])
def test_zarrs_reads_our_shards(profile: str, tmp_path: Path) -> None:
    """In a process of its own: its threads must not be forked by other tests."""
    video = synthetic_video(5, 3, (9, 14))
    write_shard(tmp_path / "s", video, profile)
    for name, images in video.images.items():
        np.save(tmp_path / f"{name}.npy", images)
    code = """
import sys, numpy, zarr, zarrs
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
for name in sys.argv[2:]:
    array = zarr.open_array(f"{sys.argv[1]}/s/{name}", mode="r")
    assert type(array._async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"
    assert numpy.array_equal(array[...], numpy.load(f"{sys.argv[1]}/{name}.npy")), name
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *video.images], check=True, env=os.environ | {"RAYON_NUM_THREADS": "1"})


def test_parts_of_frames(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", natural_video(), "train")
    reader = ShardReader(tmp_path / "s")
    for name in ("rgb", "depth_z", "nocs"):
        whole = reader.read(name, 1)
        assert np.array_equal(reader.read(name, 1, Window(3, 5, 20, 30)), whole[3:23, 5:35])
        assert reader.read(name, 1, Half(modality(name).codec == "image")).shape == (24, 32, *whole.shape[2:])
    for bad in (Window(-1, 0, 5, 5), Window(40, 0, 9, 5), Window(0, 60, 1, 5), Window(0, 0, 0, 5)):
        with pytest.raises(StoreError, match="does not lie within an image of 64×48"):
            reader.read("rgb", 0, bad)


def test_memory_stays_flat_over_thousands_of_reads(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", natural_video(4), "train")
    reader = ShardReader(tmp_path / "s")
    names = ("rgb", "depth_sim", "mask_link")

    def read(times: int) -> None:
        for i in range(times):
            for name in names:
                reader.read(name, i % 4)
            reader.read("rgb", i % 4, Window(0, 0, 9, 9))
            reader.read("rgb", i % 4, Half(True))

    read(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(3000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024  # kB
