"""The report as text: self-contained, complete, and its pixels decode to the labels."""

import base64
import dataclasses
import html
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from dataengine.quality.coverage import coverage
from dataengine.view.pixels import DEPTH_STEP_M, pack_depth, png_uri, unpack_depth
from dataengine.view.plots import bars_svg, camera_polar_svg, histogram_svg, states_svg, without_common_prefix
from dataengine.view.report import ReportInfo, object_names, report_html, summary, write_report

INFO = ReportInfo(
    "demo", "out/demo", "ab" * 32, checks=336, versions={"dataengine": "0.1.0"}, stage_cpu_s={"cycles": 9.0, "stereo": 3.0},
    quarantined={"timed out": 2},
)  # fmt: skip


@pytest.fixture(scope="module")
def videos(synthetic):
    return [synthetic(seed=1), synthetic(seed=2)]


@pytest.fixture(scope="module")
def page(videos) -> str:
    return report_html(INFO, coverage(videos), videos)


@pytest.fixture(scope="module")
def data(page) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def picture(uri: str) -> np.ndarray:
    kind, payload = uri.split(";base64,")
    assert kind in ("data:image/png", "data:image/webp")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(payload, validate=True))).convert("RGB"))


def test_no_address_leaves_the_page(page):
    bare = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", page).replace("http://www.w3.org/2000/svg", "")
    assert "://" not in bare
    assert not re.search(r"<link[^>]+href=(?!\"data:)", bare) and "@import" not in bare and "<script src" not in bare
    assert page.count("<script") == 2


def test_every_picture_decodes_at_its_size(data):
    for v in data["videos"]:
        assert picture(v["thumbnail"]).shape[1] == 192
        for frame in v["frames"]:
            assert set(frame["pictures"]) == set(v["panels"]) and len(v["panels"]) == 12
            for uri in frame["pictures"].values():
                assert picture(uri).shape == (v["height"], v["width"], 3)


def test_hover_values_are_the_labels(data, videos):
    for v, video in zip(data["videos"], videos, strict=True):
        for f, frame in enumerate(v["frames"]):
            packed = {k: picture(uri) for k, uri in frame["pixels"].items()}
            ids = np.stack([video.images[n][f] for n in ("mask_link", "mask_object", "amodal_robot")], -1)
            assert np.array_equal(packed["ids"], ids)
            for key, name in (("true", "depth_z"), ("sim", "depth_sim")):
                stored = video.images[name][f][::2, ::2]
                assert np.abs(unpack_depth(packed[key]) - stored).max() <= DEPTH_STEP_M / 2 + 1e-9
                assert np.array_equal(packed[key].any(-1), stored > 0)
            assert np.array_equal(packed["normals"].astype(int) - 128, video.images["normals"][f][::2, ::2])
            assert np.array_equal(packed["nocs"], video.images["nocs"][f][::2, ::2] >> 8)


@given(arrays.arrays(np.float32, (3, 5), elements=st.floats(0, 16, width=32)))
def test_depth_survives_the_two_channels(depth_m):
    back = unpack_depth(pack_depth(depth_m))
    assert ((back > 0) == (depth_m > 0)).all()
    assert (np.abs(back - depth_m) <= np.where(depth_m < DEPTH_STEP_M, DEPTH_STEP_M, DEPTH_STEP_M / 2) + 1e-9).all()


def test_depth_beyond_the_range_is_clipped_not_wrapped():
    assert unpack_depth(pack_depth(np.array([[17.0, 500.0]]))) == pytest.approx(16.38375)


def test_png_is_exact_for_all_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    assert np.array_equal(picture(png_uri(noise)), noise)


def test_keypoints_joints_and_commands_are_in_the_page(data, page, videos):
    v, video = data["videos"][0], videos[0]
    assert np.abs(np.array(v["frames"][1]["keypoints"]) - video.frames["keypoints_px"][1]).max() <= 0.005
    assert v["frames"][1]["states"] == video.frames["keypoint_state"][1].tolist()
    assert np.abs(np.array(v["frames"][2]["joints"]) - video.frames["joint_position"][2]).max() <= 5e-5
    assert data["location"] == "out/demo" and "dataengine replay ${data.location}" in page


def test_verdict_facts_and_reasons_are_told(page):
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)))
    text = " ".join(text.split())
    for words in ("0 label violations in 336 checks", "demo", "cycles", "1.50 s", "below floor", "timed out", "abababababab"):
        assert words in text, words


def test_a_violation_is_shown_and_an_unchecked_dataset_is_not_called_clean(videos):
    c = coverage(videos)
    bad = dataclasses.replace(INFO, violations=1, violation_lines=("video 3 frame 1: <fk> off by 2 px",))
    page = report_html(bad, c, [])
    assert "1 label violation in 336 checks" in " ".join(page.split()) and "&lt;fk&gt; off by 2 px" in page
    assert "verdict bad" in page and 'id="look"' not in page
    unchecked = report_html(dataclasses.replace(INFO, checks=0), c, [])
    assert "not checked yet" in unchecked and "violation" not in unchecked.split("</style>")[1].split("<main")[0]


def test_only_so_many_videos_are_read_and_the_page_says_so(videos):
    def endless():
        while True:
            yield videos[0]

    page = report_html(INFO, coverage(videos * 20), endless(), max_videos=1)
    assert "1 of 40 videos are embedded" in page


def test_hostile_names_cannot_leave_the_data(videos):
    evil = "</script><script>alert(1)</script>"
    named = dataclasses.replace(videos[0].names, joints=(evil, *videos[0].names.joints[1:]))
    images = {"rgb": videos[0].images["rgb"]}
    video = dataclasses.replace(videos[0], names=named, images=images, scene={"split": evil, "objects": [{"category": evil}]})
    page = report_html(dataclasses.replace(INFO, name=evil), coverage([video]), [video])
    assert page.count("<script") == 2 and evil not in page


def test_a_video_without_pictures_is_left_out_and_a_folder_with_a_space_is_quoted(videos):
    page = report_html(dataclasses.replace(INFO, location="my data/x"), coverage(videos), [dataclasses.replace(videos[0], images={})])
    assert 'id="look"' not in page and "\\u0027my data/x\\u0027" in page


def test_a_video_with_few_modalities_and_nan_numbers_still_fits(videos):
    rows = videos[0].frames.copy()
    rows["joint_position"], rows["keypoints_px"][:, 0] = np.nan, np.nan
    real = dataclasses.replace(
        videos[0], source="real", scene={}, frames=rows, images={"rgb": videos[0].images["rgb"]}, rejection="blurred"
    )
    page = report_html(INFO, coverage([real]), [real])
    found = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])["videos"][0]  # type: ignore[index]
    assert found["panels"] == ["rgb"] and found["frames"][0]["pixels"] == {}
    assert found["frames"][0]["keypoints"][0] is None and found["frames"][0]["joints"][0] is None
    assert found["summary"]["fill"] is None and found["rejection"] == "blurred"


def test_summary_measures_on_the_robot_only(videos):
    video = videos[0]
    images = dict(video.images)
    robot = images["mask_link"] > 0
    images["depth_sim"] = np.where(robot, images["depth_z"] + np.float32(0.004), 0).astype(np.float32)
    got = summary(dataclasses.replace(video, images=images))
    assert got["fill"] == pytest.approx(1.0) and got["error_mm"] == pytest.approx(4.0, abs=0.01)
    assert got["seen"] == pytest.approx((video.frames["keypoint_state"] == 2).mean())


def test_objects_are_named_by_instance(videos):
    names = object_names(videos[0])
    assert names["1"] == "box_1" and names["255"] == "table"
    assert object_names(dataclasses.replace(videos[0], scene={}))["2"] == videos[0].names.objects[1]


def test_the_file_is_written_whole(tmp_path, videos):
    path = write_report(tmp_path / "deep" / "report.html", INFO, coverage(videos), videos[:1])
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert list(path.parent.iterdir()) == [path]


def test_plots_scale_with_their_numbers(videos):
    c = coverage(videos)
    heights = [float(x) for x in re.findall(r'class="bar"[^>]* height="([\d.]+)"', histogram_svg(c.camera_distance))]
    assert len(heights) == len(c.camera_distance.counts)
    most = max(c.camera_distance.counts)
    assert heights == pytest.approx([n / most * max(heights) for n in c.camera_distance.counts], abs=0.01)
    assert camera_polar_svg(c.cameras).count('class="dot"') == len(c.cameras)
    widths = [float(x) for x in re.findall(r'class="bar"[^>]* width="([\d.]+)"', bars_svg({"a": 10, "b<": 5}))]
    assert widths[0] == pytest.approx(2 * widths[1]) and "b&lt;" in bars_svg({"b<": 5})
    states = states_svg({"panda_link0": (3, 1, 0), "panda_hand": (4, 0, 0)})
    assert "visible in 3 of 4 frames" in states and ">link0</text>" in states


def test_a_camera_ahead_of_the_base_is_drawn_above_the_centre():
    @dataclasses.dataclass
    class Place:
        azimuth_rad: float
        elevation_rad: float
        distance_m: float

    def spot(azimuth, elevation):
        svg = camera_polar_svg([Place(azimuth, elevation, 1.0)], size=200)
        return [float(x) for x in re.search(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', svg).groups()]  # type: ignore[union-attr]

    ahead, left, above = spot(0, 0), spot(np.pi / 2, 0), spot(0.3, np.pi / 2)
    assert ahead[0] == 100 and ahead[1] < 50
    assert left[0] < 50 and left[1] == 100
    assert above == [100, 100]


def test_common_words_are_left_out_of_labels():
    assert without_common_prefix(["panda_link0", "panda_link1", "panda_hand"]) == ["link0", "link1", "hand"]
    assert without_common_prefix(["panda_link0"]) == ["panda_link0"] and without_common_prefix(["a", "b"]) == ["a", "b"]
    assert without_common_prefix(["arm_1", "arm_12"]) == ["1", "12"]
