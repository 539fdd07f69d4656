"""Panels, contact sheets and strips of the synthetic video."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from dataengine.errors import RecordError
from dataengine.view import panels
from dataengine.view.contact_sheet import contact_sheet, dataset_strip, depth_marks, save_png, spread, title, wrapped
from dataengine.view.typography import Text, canvas, draw_texts, fitted, text_width, ticks


def without(video, *names):
    return dataclasses.replace(video, images={k: v for k, v in video.images.items() if k not in names})


def test_every_panel_can_be_drawn_and_shows_more_than_one_colour(video):
    for p in panels.PANELS:
        picture = panels.draw(video, 0, p.name)
        assert picture.shape == (*video.size, 3) and picture.dtype == np.uint8
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2, p.name


def test_every_modality_of_the_table_has_a_panel():
    from dataengine.record.modalities import NAMES

    assert {need for p in panels.PANELS for need in p.needs} == set(NAMES)


def test_panels_need_their_modalities(video):
    bare = without(video, "depth_sim", "nocs")
    assert {p.name for p in panels.available(video)} - {p.name for p in panels.available(bare)} == {
        "depth_sim", "depth_error", "nocs",
    }  # fmt: skip
    with pytest.raises(RecordError, match="panel 'nocs' needs the modality nocs; this video has rgb"):
        panels.draw(bare, 0, "nocs")
    with pytest.raises(RecordError, match="unknown panel 'normal'.*did you mean 'normals'"):
        panels.draw(bare, 0, "normal")


def test_a_resized_panel_keeps_the_picture(video):
    whole, half = panels.draw(video, 0, "rgb"), panels.draw(video, 0, "rgb", width_px=video.size[1] // 2)
    blocks = whole.reshape(video.size[0] // 2, 2, video.size[1] // 2, 2, 3).mean((1, 3))
    assert np.abs(blocks - half).max() <= 1


def test_sheet_holds_each_cell_where_it_belongs(video):
    sheet = contact_sheet(video, cell_width_px=160, panels=("rgb", "depth_z"))
    cell = panels.draw(video, 2, "rgb", width_px=160)
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 1], cell.shape[:2])
    assert (np.abs(windows[:, :, 40, ::20].astype(int) - cell[40, ::20, 1]).max(-1) == 0).any()
    assert (sheet[0] == 255).all()


def test_sheet_grows_by_rows_and_columns(video):
    one, two = contact_sheet(video, 160, ("rgb",)), contact_sheet(video, 160, ("rgb", "nocs"))
    assert two.shape[0] - one.shape[0] == 90 + 6 and two.shape[1] == one.shape[1]
    short = dataclasses.replace(video, images={k: v[:1] for k, v in video.images.items()}, frames=video.frames[:1])
    assert one.shape[1] - contact_sheet(short, 160, ("rgb",)).shape[1] == 2 * 166


def test_sheet_without_images_says_what_to_do(video):
    with pytest.raises(RecordError, match="none of the modalities"):
        contact_sheet(dataclasses.replace(video, images={}))


def test_strip_has_a_row_per_video_and_dark_cells_for_what_is_missing(synthetic):
    a, b = synthetic(seed=1), without(synthetic(seed=2), "nocs")
    one, two = dataset_strip([a], 100), dataset_strip([a, b], 100)
    assert two.shape[0] - one.shape[0] == 56 + 6
    assert (two[-40, -40] == panels.BACKGROUND).all()
    with pytest.raises(RecordError, match="no videos"):
        dataset_strip([])


def test_png_is_lossless_and_repeatable(tmp_path, video):
    picture = panels.draw(video, 0, "nocs")
    first, second = save_png(tmp_path / "new" / "a.png", picture), save_png(tmp_path / "b.png", picture)
    assert first.read_bytes() == second.read_bytes()
    assert np.array_equal(np.asarray(Image.open(first)), picture)


def test_title_says_what_is_known(video):
    assert title(video) == "synthetic  ·  video 1  ·  seed 1  ·  train"
    assert title(dataclasses.replace(video, scene={}, source="real")) == "real"


def test_spread_has_both_ends():
    assert spread(3, 6) == [0, 1, 2]
    assert spread(100, 4) == [0, 33, 66, 99]


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.9), (0.65, 3.9), (0.0, 1.0), (-2.9, 2.9), (0.0, 0.04)])
def test_ticks_are_round_inside_and_even(low, high):
    values = ticks(low, high, 4)
    assert 2 <= len(values) <= 7 and low - 1e-9 <= values[0] and values[-1] <= high + 1e-9
    assert np.ptp(np.diff(values)) < 1e-9
    assert "-0" not in [f"{v:g}" for v in values]


def test_depth_marks_are_spread_over_the_scale():
    marks = depth_marks(0.6, 6.0)
    position = (1 / 0.6 - 1 / np.array(marks)) / (1 / 0.6 - 1 / 6.0)
    assert 3 <= len(marks) <= 7 and np.diff(position).min() >= 0.15


def test_text_fits_wraps_and_marks_the_picture():
    assert fitted("short", 12, 500) == "short"
    cut = fitted("a very long title of a dataset", 12, 80)
    assert cut.endswith("…") and text_width(cut, 12) <= 80
    assert " ".join(wrapped("filled = seen, hollow = hidden", 12, 80)) == "filled = seen, hollow = hidden"
    assert all(text_width(line, 12) <= 80 for line in wrapped("filled = seen, hollow = hidden", 12, 80))
    sheet = draw_texts(canvas(30, 60), [Text("I", 30, 15, 14, (0, 0, 0), "mm")])
    dark = np.argwhere(sheet[..., 0] < 128)
    assert dark.mean(0) == pytest.approx((15, 30), abs=1.5)
