import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import RecordError, StoreError
from dataengine.record.modalities import NAMES, TABLE
from dataengine.record.video import Video
from dataengine.store import files
from dataengine.store.shard import ShardReader, file_digests, read_shard, shard_digest, write_shard
from dataengine.store.verify import Finding, compare_files, verify_shard
from dataengine.store.zarr_io import read_shard_with_zarr
from tests.store.synthetic import full_device, same_video, synthetic_video


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    frames=st.integers(1, 5),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    chosen=st.sets(st.sampled_from(NAMES)),
    objects=st.integers(0, 3),
    covariance=st.booleans(),
)
def test_round_trip_directly_and_through_zarr(
    seed: int, frames: int, size: tuple[int, int], chosen: set[str], objects: int, covariance: bool
) -> None:
    video = synthetic_video(seed, frames, size, tuple(n for n in NAMES if n in chosen), objects, covariance)
    with TemporaryDirectory() as folder:
        shard = Path(folder) / "s"
        write_shard(shard, video)
        assert same_video(read_shard(shard), video)
        assert verify_shard(shard) == []
        attributes, arrays = read_shard_with_zarr(shard)
        assert arrays.keys() == {*video.images, "frames"}
        for name, images in video.images.items():
            assert arrays[name].dtype == images.dtype and np.array_equal(arrays[name], images)
        assert arrays["frames"].tobytes() == video.frames.tobytes()
        assert attributes["scene"] == video.scene


def test_parts_can_be_read_alone(tiny: Video, tmp_path: Path) -> None:
    write_shard(tmp_path / "s", tiny)
    part = read_shard(tmp_path / "s", modalities=("depth_sim", "rgb"), frames=(2, 0))
    assert list(part.images) == ["depth_sim", "rgb"]
    assert np.array_equal(part.images["rgb"], tiny.images["rgb"][[2, 0]])
    assert part.frames.tobytes() == tiny.frames[[2, 0]].tobytes()
    reader = pickle.loads(pickle.dumps(ShardReader(tmp_path / "s")))
    assert np.array_equal(reader.read("nocs", 1), tiny.images["nocs"][1])
    assert (reader.names, reader.size, reader.frame_count, reader.modalities) == (tiny.names, (12, 16), 3, NAMES)
    with pytest.raises(StoreError, match=r"unknown modality 'dept_sim' \(did you mean 'depth_sim'\?\)"):
        reader.read("dept_sim", 0)


def test_only_the_files_asked_for_are_touched(tiny: Video, tmp_path: Path) -> None:
    write_shard(tmp_path / "s", tiny)
    for name in set(NAMES) - {"rgb"}:
        (tmp_path / "s" / name / "zarr.json").unlink()
    assert read_shard(tmp_path / "s", modalities=["rgb"]).images.keys() == {"rgb"}


def test_equal_videos_give_equal_bytes(tiny: Video, tmp_path: Path) -> None:
    backwards = replace(
        synthetic_video(),
        images=dict(reversed(tiny.images.items())),
        scene=dict(reversed(tiny.scene.items())),
        frames=tiny.frames.astype(np.dtype([(n, tiny.frames.dtype[n]) for n in tiny.frames.dtype.names or ()], align=True)),
    )
    write_shard(tmp_path / "a", tiny)
    write_shard(tmp_path / "deeper" / "b", backwards)
    assert file_digests(tmp_path / "a") == file_digests(tmp_path / "deeper" / "b")
    assert shard_digest(tmp_path / "a") == shard_digest(tmp_path / "deeper" / "b")
    write_shard(tmp_path / "c", replace(tiny, notes={"tries": 4}))
    assert shard_digest(tmp_path / "c") != shard_digest(tmp_path / "a")
    everything = b"".join(p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file())
    for secret in (socket.gethostname(), str(tmp_path), os.path.expanduser("~")):
        assert secret.encode() not in everything


def test_arrays_say_what_they_hold(tiny: Video, tmp_path: Path) -> None:
    write_shard(tmp_path / "s", tiny)
    reader = ShardReader(tmp_path / "s")
    for m in TABLE:
        said = reader.array(m.name).info
        assert {"unit": m.unit, "frame": m.frame, "fill": m.fill, "meaning": m.meaning}.items() <= said.attributes.items()
        assert ("quantum" in said.attributes) == (m.dtype == "float32")
        assert said.axes is not None and said.axes[:3] == ("frame", "y", "x")
    columns = reader.array("frames").info.attributes["columns"]
    assert columns.keys() == set(tiny.frames.dtype.names or ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": synthetic_video(frames=0).frames, "images": {}}, "without frames"),
        ({"frames": np.zeros(3)}, "need .F,. rows"),
        ({"scene": {"array": np.zeros(2)}}, "not JSON"),
        ({"notes": {"value": float("nan")}}, "not JSON"),
        ({"images": {"rgb": np.zeros((3, 4, 4, 3), np.float32)}}, "the table says uint8"),
        ({"images": {"rbg": np.zeros((3, 4, 4, 3), np.uint8)}}, "did you mean 'rgb'"),
    ],
)
def test_bad_records_are_refused_in_one_line(change: dict, said: str, tiny: Video, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=said) as caught:
        write_shard(tmp_path / "s", replace(tiny, **change))
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_shards_are_refused(tiny: Video, tmp_path: Path) -> None:
    write_shard(tmp_path / "s", tiny)
    with pytest.raises(StoreError, match="is not empty"):
        write_shard(tmp_path / "s", tiny)
    with pytest.raises(StoreError, match="zarr.json is missing: not a shard"):
        read_shard(tmp_path)
    group = tmp_path / "s" / "zarr.json"
    text = group.read_text()
    group.write_text(text.replace('"schema_version":1', '"schema_version":2'))
    with pytest.raises(StoreError, match="has schema version 2, this release reads up to 1; update"):
        read_shard(tmp_path / "s")
    group.write_text(text[:-20])
    with pytest.raises(StoreError, match="is damaged"):
        read_shard(tmp_path / "s")
    assert verify_shard(tmp_path / "s")[0].file == "zarr.json"


def test_verify_names_file_field_and_frame(tiny: Video, tmp_path: Path) -> None:
    shard = tmp_path / "s"
    write_shard(shard, tiny)
    recorded = file_digests(shard)
    middle = shard / "depth_z" / "c.0.0.0"
    data = bytearray(middle.read_bytes())
    offset, length = ShardReader(shard).array("depth_z")._index[1].tolist()
    data[offset + length // 2] ^= 4
    middle.write_bytes(data)
    (shard / "rgb" / "c.0.0.0.0").unlink()
    (shard / "stray").write_bytes(b"x")
    nocs = shard / "nocs" / "zarr.json"
    nocs.write_text(nocs.read_text().replace('"uint16"', '"int16"'))
    found = {(f.file, f.field, f.frame) for f in verify_shard(shard)}
    assert found == {
        ("depth_z/c.0.0.0", "depth_z", 1),
        ("rgb/c.0.0.0.0", "rgb", None),
        ("nocs/zarr.json", "nocs", None),
        ("stray", "", None),
    }
    whole = {f.file for f in compare_files(shard, recorded)}
    assert whole == {"depth_z/c.0.0.0", "rgb/c.0.0.0.0", "nocs/zarr.json", "stray"}
    sizes = {f.file for f in compare_files(shard, recorded, hashes=False)}
    assert sizes == whole - {"depth_z/c.0.0.0"}
    assert str(Finding("a/b", "a", 1, "bad")) == "a/b (a frame 1): bad"


def test_disk_full_is_one_line(tiny: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own ENOSPC, from /dev/full."""
    monkeypatch.setattr(files, "open", lambda path, mode: full_device(), raising=False)
    with pytest.raises(files.DiskFull, match="disk full while writing .*zarr.json; .*free space and run the same command again") as caught:
        write_shard(tmp_path / "s", tiny)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
