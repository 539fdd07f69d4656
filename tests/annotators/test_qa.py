"""The QA page: its numbers against what was put in, and that it stands alone."""

import base64
import re

import numpy as np
import pytest

from annotators.output import make_video
from annotators.qa import click_rows, depth_residual_m, measure, spread_rows, write_page
from annotators.qa_pictures import mask_difference, outlines
from annotators.qa_plots import scales_svg, series_svg, trajectory_svg
from annotators.types import Click, Flag, ScaleEstimate
from tests.annotators.solved import N, world


@pytest.fixture(scope="module")
def video():
    return make_video(*world())


@pytest.fixture(scope="module")
def page(video, tmp_path_factory):
    capture, solution = world()
    clicks = [Click(k % 3, "elbow" if k % 2 else "wrist", (10.0, 10.0)) for k in range(30)]
    spreads = {"odd_even": {"base_mm": 1.25, "base_deg": 0.111, "keypoints_mm": 2.5}}
    flags = [Flag("blur", "1 frame is <soft>", (1,))]
    path = write_page(tmp_path_factory.mktemp("qa") / "deep" / "qa.html", capture, solution, clicks, flags, spreads, video)
    return path.read_text()


def test_the_page_needs_nothing_but_itself(page):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(a.startswith("data:") for a in addresses)
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    movie = re.search(r'data:video/mp4;base64,([^"]+)"', page)
    assert base64.b64decode(movie[1])[4:8] == b"ftyp"


def test_the_page_says_what_was_found(page):
    assert f"4 of {N} frames accepted, 2 flags" in page
    assert "1 frame is &lt;soft&gt;" in page and "wrong_click" in page
    assert "keypoints uncertain: 14 mm" in page and "1.25" in page and "0.111" in page
    assert page.count("<svg") >= 4
    assert len(re.findall(r"<td>rejected</td>", page)) == 1


def test_the_movie_shows_all_frames(page, tmp_path):
    import av

    data = base64.b64decode(re.search(r'data:video/mp4;base64,([^"]+)"', page)[1])
    (tmp_path / "m.mp4").write_bytes(data)
    with av.open(str(tmp_path / "m.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == N and frames[0].shape == (120, 160, 3)
    border = frames[-1][:4].astype(int).mean((0, 1))
    assert border[0] > 120 > border[2] and not frames[0][:4].astype(int).mean((0, 1))[0] > 170


def test_the_checks_are_the_errors_that_were_put_in(video):
    capture, solution = world()
    checks = measure(capture, solution, video)
    clear = [0, 1, 3, 4]
    assert np.nanmin(checks.iou[clear]) > 0.999 > checks.iou[2]
    assert np.nanmax(np.abs(checks.bias_mm)) < 5  # the solution says depth_scale 1.002, the depth is exact: 2 mm per metre
    np.testing.assert_allclose(checks.sigma_mm, 1.0, rtol=1e-6)
    residual = depth_residual_m(video, 0, 1.0)
    assert np.nanmax(np.abs(residual)) < 2e-4
    assert np.isnan(residual[video.images["mask_link"][0] == 0]).all()
    long = depth_residual_m(video, 0, 1 / 1.01)
    seen = np.isfinite(long)
    np.testing.assert_allclose(long[seen], 0.01 * video.images["depth_z"][0][seen], atol=3e-4)


def test_clicks_by_landmark():
    _, solution = world()
    clicks = [Click(k, "a" if k < 10 else "b", (0.0, 0.0)) for k in range(30)]
    rows = {r["name"]: r for r in click_rows(clicks, solution)}
    assert rows["a"]["count"] == 10 and rows["a"]["wrong"] == [7] and rows["b"]["wrong"] == []
    assert rows["b"]["median_px"] == pytest.approx(np.median(np.linalg.norm(solution.click_residual_px[10:], axis=1)))


def test_spreads_with_holes():
    assert spread_rows({"odd_even": {}, "leave_one_out": {"base_mm": 1.0}})[0]["keypoints_mm"] is None
    assert len(spread_rows({"odd_even": {}, "leave_one_out": {"base_mm": 1.0}})) == 1


def test_outlines_and_differences():
    ids = np.zeros((8, 8), np.uint8)
    ids[2:6, 2:6] = 3
    edge = outlines(ids)
    assert edge[2, 3] and edge[1, 3] and not edge[3, 3] and not edge[0, 0]
    a, b = ids > 0, np.roll(ids, 2, 1) > 0
    shown = mask_difference(a, b, np.full((8, 8, 3), 100, np.uint8)).astype(int)
    assert shown[3, 2].argmax() == 0 and shown[3, 4].argmax() == 1 and shown[3, 7].argmax() == 2


def test_plots_have_a_mark_per_frame_and_gaps_where_nothing_is_known():
    values = np.array([1.0, np.nan, 2.0, 3.0])
    svg = str(series_svg(values, np.array([False, True, False, False]), "mm", limit=2.5))
    assert svg.count("<circle") == 4 and svg.count("<polyline") == 2 and "frame 2: 2 mm" in svg
    scales = str(scales_svg([ScaleEstimate("a<b", 1.01, 0.002)], 1.0))
    assert "a&lt;b" in scales and "+1.00 ± 0.20 %" in scales
    eyes = np.stack([np.cos(np.arange(5.0)), np.sin(np.arange(5.0)), np.full(5, 2.0)], -1)
    eyes[1] = np.nan
    assert str(trajectory_svg(eyes, np.zeros(3), np.zeros(5, bool))).count("<circle") == 4
