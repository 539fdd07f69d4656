import os
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataengine.errors import StoreError
from dataengine.store.codecs import portable
from dataengine.store.shard_file import ArrayInfo, CorruptShard, open_array, parse_array, write_array
from dataengine.store.zarr_io import write_array_with_zarr
from tests.store.synthetic import run_forked, wait_for

DTYPES = ("uint8", "int8", "uint16", "uint32", "float32")
KINDS = ("image", "depth", "mask", "table")
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=2, max_dims=4, max_side=9)))


def info_of(values: np.ndarray, kind: str = "depth") -> ArrayInfo:
    return ArrayInfo(values.shape, values.dtype, portable(kind, values.dtype), 0, {"unit": "m"})


@settings(max_examples=40, deadline=None)
@given(values=ARRAYS, kind=st.sampled_from(KINDS))
def test_zarr_reads_what_we_write(values: np.ndarray, kind: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "array"
        write_array(path, info_of(values, kind), values)
        array = zarr.open_array(str(path), mode="r")
        assert array[...].tobytes() == values.tobytes()  # pyright: ignore[reportAttributeAccessIssue]
        assert dict(array.attrs) == {"unit": "m"}


@settings(max_examples=40, deadline=None)
@given(values=ARRAYS, kind=st.sampled_from(KINDS))
def test_we_read_what_zarr_writes(values: np.ndarray, kind: str) -> None:
    """Frames equal to the fill value are left out by zarr: they must read as the fill value."""
    values[: len(values) // 2] = 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "array"
        write_array_with_zarr(path, info_of(values, kind), values)
        if not (path / info_of(values).data_file).exists():
            assert not values.any()  # zarr writes no file at all for an array of fill values; ours always has one
            return
        reader = open_array(path)
        assert reader.read_many(range(len(values))).tobytes() == values.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_our_bytes_are_those_of_zarr(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(1, 99, (4, 30, 40), np.uint16)
    write_array(tmp_path / "ours", info_of(values, kind), values)
    write_array_with_zarr(tmp_path / "theirs", info_of(values, kind), values)
    assert (tmp_path / "ours" / "c.0.0.0").read_bytes() == (tmp_path / "theirs" / "c.0.0.0").read_bytes()


def test_an_array_made_by_zarr_s_own_call_is_readable(tmp_path: Path) -> None:
    """Metadata as zarr-python phrases it, not as we do."""
    values = np.random.default_rng(2).random((3, 8, 9), np.float32)
    array = zarr.create_array(
        str(tmp_path / "a"),
        shape=values.shape,
        chunks=(1, 8, 9),
        shards=values.shape,
        dtype="float32",
        compressors=[zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"), zarr.codecs.Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    array[...] = values
    assert np.array_equal(open_array(tmp_path / "a").read_many([2, 0]), values[[2, 0]])


def test_metadata_round_trip_and_refusals() -> None:
    info = ArrayInfo((3, 4, 5), np.dtype("float32"), portable("depth", np.dtype("float32")), 0, {"unit": "m"}, ("frame", "y", "x"))
    assert parse_array(info.metadata(), "here") == info
    for change, said in (
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 4, 5]}}}, "chunk_shape"),
        ({"chunk_key_encoding": {"name": "default"}}, "chunk_key_encoding"),
        ({"codecs": [{"name": "bytes"}]}, "not the metadata"),
        ({"zarr_format": 2}, "zarr_format is 2"),
        ({"data_type": "string"}, "not the metadata"),
    ):
        with pytest.raises(StoreError, match=said):
            parse_array(info.metadata() | change, "here")


def small(folder: Path, frames: int = 3) -> Path:
    values = np.random.default_rng(0).integers(0, 255, (frames, 3, 4), np.uint8)
    write_array(folder / "rgb", info_of(values, "image"), values)
    return folder / "rgb" / "c.0.0.0"


def test_every_flipped_bit_is_found_and_located(tmp_path: Path) -> None:
    """All bits of the file: the frames' crc32c cover the frames, the index's its rows."""
    path = small(tmp_path)
    good = path.read_bytes()
    clean = open_array(path.parent)
    bounds = np.cumsum([length for _, length in clean._index])
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(CorruptShard) as caught:
            open_array(path.parent).read_many(range(3))
        expected = int(np.searchsorted(bounds, bit // 8, "right"))
        assert caught.value.frame == (expected if expected < 3 else None)
        assert caught.value.file == str(path)


@pytest.mark.parametrize("keep", [0, 10, 51, -1])
def test_a_truncated_file_is_found(keep: int, tmp_path: Path) -> None:
    path = small(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptShard, match="c.0.0.0: rgb is damaged .*; run the render again"):
        open_array(path.parent)


def test_missing_files_and_frames_are_named(tmp_path: Path) -> None:
    path = small(tmp_path)
    with pytest.raises(StoreError, match="frame 3 does not exist; there are 3"):
        open_array(path.parent).read(3)
    with pytest.raises(StoreError, match="frame -1 does not exist"):
        open_array(path.parent).read(-1)
    path.unlink()
    with pytest.raises(CorruptShard, match="data file is missing"):
        open_array(path.parent)
    (path.parent / "zarr.json").unlink()
    with pytest.raises(StoreError, match="lost its metadata"):
        open_array(path.parent)


def test_wrong_frames_are_refused_by_the_writer(tmp_path: Path) -> None:
    values = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(StoreError, match="frame 0 is uint16"):
        write_array(tmp_path / "a", info_of(values), values.astype(np.uint16))
    with pytest.raises(StoreError, match="1 frames given for an array of 2"):
        write_array(tmp_path / "b", info_of(values), values[:1])


def test_readers_survive_fork_and_pickle(tmp_path: Path) -> None:
    path = small(tmp_path)
    reader = open_array(path.parent)
    whole = reader.read_many(range(3))
    copy = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(copy.read_many(range(3)), whole)
    assert len(pickle.dumps(reader)) < 2000

    def child() -> None:
        for _ in range(50):
            assert np.array_equal(reader.read_many(range(3)), whole)

    pids = [run_forked(child) for _ in range(4)]
    child()
    assert [wait_for(pid) for pid in pids] == [0] * 4


def test_closing_readers_frees_their_files(tmp_path: Path) -> None:
    path = small(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        open_array(path.parent).read(0)
    assert len(os.listdir("/proc/self/fd")) == before
