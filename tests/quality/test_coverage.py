"""Coverage statistics against numbers known by construction."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataengine.errors import RecordError
from dataengine.geometry import se3
from dataengine.quality.coverage import MAX_CAMERAS, camera_places, coverage, histogram
from dataengine.record.frame_table import frame_dtype
from dataengine.record.video import Names, Video

NAMES = Names(("j1", "j2"), ("base", "arm", "frame"), ("k1", "k2"), (0, 1), ((0.0, 0.0, 0.0),) * 2, ("cup", "box"))


def light_video(frames: int = 3, camera=(1.0, 0.0, 0.5), **changes) -> Video:
    """A video without images: the labels only."""
    rows = np.zeros(frames, frame_dtype(2, 3, 2, 2))
    rows["T_cam_base"] = se3.inverse(se3.look_at(camera, (0.0, 0.0, 0.1)))
    rows["joint_position"] = np.linspace(-1, 1, frames)[:, None] * (1, 0.5)
    rows["keypoint_state"] = (2, 1)
    rows["keypoint_visibility"] = (1.0, 0.25)
    rows["link_visibility"] = (0.9, 0.4, 0.0)
    rows["object_visibility"], rows["accepted"] = 0.6, 1
    scene = {
        "split": changes.pop("split", "train"), "rejections": changes.pop("rejections", {"below floor": 2}),
        "objects": [
            {"category": "mug", "role": "distractor"}, {"category": "box", "role": "occluder"},
            {"category": "table", "role": "table"}, {"category": "room", "role": "room"},
        ],
    }  # fmt: skip
    return Video("rendered", NAMES, {}, rows, changes.pop("scene", scene), {}, **changes)


def test_totals_over_videos():
    videos = [light_video(split="train"), light_video(4, split="val", rejections={"below floor": 1, "too dark": 5})]
    videos.append(light_video(rejection="black frame"))
    videos[0].frames["accepted"][0] = 0
    c = coverage(iter(videos))
    assert (c.videos, c.frames, c.accepted_frames) == (3, 10, 9)
    assert c.splits == {"train": 2, "val": 1}
    assert c.draw_rejections == {"below floor": 5, "too dark": 5} and c.video_rejections == {"black frame": 1}
    assert c.categories == {"box": 3, "mug": 3} and c.objects_per_video == {2: 3}
    assert c.keypoint_states == {"k1": (10, 0, 0), "k2": (0, 10, 0)}


def test_joint_histogram_spans_the_limits_and_counts_every_frame():
    c = coverage([light_video(21)], {"j1": (-2.2, 2.2)}, bins=8)
    first, second = c.joints
    assert (first.edges[0], first.edges[-1], len(first.counts)) == pytest.approx((-2.2, 2.2, 8))
    assert first.counts[:2] == (0, 0) and first.counts[-2:] == (0, 0) and sum(first.counts) == 21
    assert first.filled == pytest.approx(0.5) and first.limits == (-2.2, 2.2)
    assert second.limits is None and second.edges[-1] == pytest.approx(0.5)


@given(st.floats(-3.1, 3.1), st.floats(-1.4, 1.4), st.floats(0.3, 4.0))
def test_camera_place_is_where_the_camera_stands(azimuth, elevation, distance):
    flat = np.array([np.cos(azimuth), np.sin(azimuth)]) * np.cos(elevation)
    T_base_cam = se3.look_at(distance * np.array([*flat, np.sin(elevation)]), (0.0, 0.0, 0.0))
    assert camera_places(se3.inverse(T_base_cam)) == pytest.approx((azimuth, elevation, distance), abs=1e-6)


def test_visibility_of_links_leaves_out_those_without_a_surface():
    c = coverage([light_video(5)])
    assert sum(c.link_visibility.counts) == 10  # two of three links
    assert sum(c.keypoint_visibility.counts) == 10 and c.keypoint_visibility.counts[-1] == 5
    assert sum(c.object_visibility.counts) == 10 and c.object_visibility.counts[12] + c.object_visibility.counts[11] == 10


def test_videos_of_different_robots_are_kept_apart_by_joint_name():
    other = light_video()
    renamed = Video("real", Names(("a", "j2"), *list(vars(NAMES).values())[1:]), {}, other.frames, {}, {})
    c = coverage([other, renamed])
    assert {h.label: sum(h.counts) for h in c.joints} == {"j1": 3, "j2": 6, "a": 3}
    assert c.splits == {"none": 1, "train": 1} and c.objects_per_video == {0: 1, 2: 1}


def test_unknown_joints_and_cameras_are_left_out():
    video = light_video(4)
    video.frames["joint_position"][:2, 0] = np.nan
    video.frames["T_cam_base"][:3] = np.nan
    c = coverage([video])
    assert sum(c.joints[0].counts) == 2 and len(c.cameras) == 1 and sum(c.camera_distance.counts) == 1


def test_few_cameras_are_all_kept_many_are_thinned():
    assert len(coverage([light_video(7)]).cameras) == 7
    assert MAX_CAMERAS / 2 < len(coverage([light_video(5001)]).cameras) <= MAX_CAMERAS


def test_no_video_is_an_error():
    with pytest.raises(RecordError, match="no videos"):
        coverage([])


def test_it_is_plain_data():
    text = json.dumps(coverage([light_video()]).to_json())
    assert json.loads(text)["joints"][0]["label"] == "j1"


@given(st.lists(st.floats(-5, 5), max_size=40))
def test_histograms_lose_nothing(values):
    assert sum(histogram("h", "m", values, (-1.0, 1.0), 7).counts) == len(values)
    assert sum(histogram("h", "m", values, None, 7).counts) == len(values)
