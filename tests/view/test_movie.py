"""mp4 files are read back with PyAV."""

import dataclasses

import av
import numpy as np
import pytest

from dataengine.errors import RecordError
from dataengine.view.movie import frame_rate, movie_frames, ping_pong, write_movie, write_mp4


def read(path) -> tuple[list[np.ndarray], float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [f.to_ndarray(format="rgb24") for f in container.decode(stream)], float(stream.average_rate)


def flat(*levels: int, size=(64, 96)) -> list[np.ndarray]:
    return [np.full((*size, 3), level, np.uint8) for level in levels]


def test_frames_come_back_in_order_at_their_rate(tmp_path):
    path = write_mp4(tmp_path / "folder" / "m.mp4", flat(30, 90, 150, 210), 12.5)
    frames, fps = read(path)
    assert [round(float(f.mean())) for f in frames] == pytest.approx([30, 90, 150, 210], abs=4)
    assert fps == pytest.approx(12.5)
    assert list(path.parent.iterdir()) == [path]


def test_colours_survive(tmp_path, video):
    frame = movie_frames(video)[0]
    back = read(write_mp4(tmp_path / "m.mp4", [frame], 5))[0][0]
    assert np.abs(back.astype(int) - frame[: back.shape[0], : back.shape[1]]).mean() < 4


def test_a_video_is_drawn_the_same_every_time(video):
    np.testing.assert_array_equal(movie_frames(video), movie_frames(video))


def test_equal_frames_give_equal_bytes(tmp_path, video):
    frames = ping_pong(movie_frames(video), 16)
    a, b = (np.frombuffer(write_mp4(tmp_path / f"{n}.mp4", frames, 4).read_bytes(), np.uint8) for n in "ab")
    same = len(a) == len(b) and bool((a == b).all())
    n = min(len(a), len(b))
    assert same, f"{len(a)} and {len(b)} bytes, different at {np.flatnonzero(a[:n] != b[:n])[:5]}, see what the mp4 holds there"


def test_odd_sizes_are_cut_to_even_ones(tmp_path):
    frames, _ = read(write_mp4(tmp_path / "m.mp4", flat(10, 20, size=(65, 97)), 10))
    assert frames[0].shape == (64, 96, 3)


def test_no_frames_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(RecordError, match="no frames"):
        write_mp4(tmp_path / "m.mp4", [], 10)
    assert list(tmp_path.iterdir()) == []


def test_a_three_frame_clip_goes_to_and_fro_for_seconds(tmp_path, video):
    frames, fps = read(write_movie(tmp_path / "m.mp4", video))
    assert len(frames) / fps >= 3.5
    assert len(frames) % 4 == 0  # whole periods 0 1 2 1: it loops without a jump
    assert np.abs(frames[1].astype(int) - frames[3]).mean() < np.abs(frames[0].astype(int) - frames[2]).mean()


def test_a_long_clip_keeps_its_rate(tmp_path, video):
    rows = np.tile(video.frames, 11)
    rows["timestamp_s"] = np.arange(33) / 15
    long = dataclasses.replace(video, frames=rows, images={"rgb": np.tile(video.images["rgb"], (11, 1, 1, 1))})
    frames, fps = read(write_movie(tmp_path / "m.mp4", long, ("rgb",)))
    assert len(frames) == 33 and fps == pytest.approx(15, abs=0.01)


@pytest.mark.parametrize(("n", "least", "want"), [(3, 4, "0121"), (3, 5, "01210121"), (2, 4, "0101"), (1, 3, "000")])
def test_ping_pong(n, least, want):
    assert "".join(ping_pong([str(i) for i in range(n)], least)) == want


def test_rate_from_timestamps(video):
    assert frame_rate(video) == pytest.approx(15)
    assert frame_rate(dataclasses.replace(video, frames=video.frames[:1])) == 15.0


def test_panels_side_by_side(video):
    h, w = video.size
    picture = movie_frames(video, ("rgb", "depth_sim"))[1]
    assert picture.shape == (h, 2 * w + 4, 3)
    assert np.array_equal(picture[: h // 2, :w], video.images["rgb"][1][: h // 2])
    with pytest.raises(RecordError, match="none of nocs"):
        movie_frames(dataclasses.replace(video, images={"rgb": video.images["rgb"]}), ("nocs",))
