"""Colours of modalities: known values in, known colours out."""

import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import lab2rgb

from dataengine.view import colour
from dataengine.view.palette import (
    BACKGROUND,
    HATCH_DARK,
    HATCH_LIGHT,
    TABLE_COLOUR,
    apply_map,
    blend,
    colour_map,
    hatch,
    link_colours,
    object_colours,
    srgb_from_oklch,
)

HATCHED = {HATCH_DARK, HATCH_LIGHT}


def test_no_depth_is_hatched_and_only_that():
    z = np.full((20, 30), 1.0)
    z[5:10, 5:15] = 0
    picture = colour.depth(z, (0.5, 2.0))
    assert {tuple(c) for c in picture[5:10, 5:15].reshape(-1, 3).tolist()} == HATCHED
    assert len({tuple(c) for c in picture[z > 0].tolist()} - HATCHED) == 1


def test_depth_runs_from_the_first_colour_at_near_to_the_last_at_far_evenly_in_disparity():
    table = colour_map(colour.DEPTH_MAP)
    middle = 2 / (1 / 0.5 + 1 / 2.0)  # harmonic mean: half way in 1/z
    picture = colour.depth(np.array([[0.5, middle, 2.0, 9.0]]), (0.5, 2.0))
    assert picture[0].tolist() == [table[0].tolist(), table[128].tolist(), table[255].tolist(), table[255].tolist()]


def test_depth_range_ignores_missing_values_and_is_shared():
    near, far = np.full((3, 40, 40), 0.83), np.full((3, 40, 40), 2.21)
    far[:, :20] = 0
    assert colour.depth_range_m(near, far) == pytest.approx((0.80, 2.25))
    assert colour.depth_range_m(np.zeros((1, 8, 8))) == (0.0, 1.0)


@given(st.floats(0.3, 5.0), st.floats(-0.05, 0.05))
def test_sign_of_the_error_is_its_hue(true_m, error_m):
    red, _, blue = colour.depth_error(np.array([[true_m + error_m]]), np.array([[true_m]]))[0, 0].astype(int)
    if error_m > 0.002:
        assert red > blue
    elif error_m < -0.002:
        assert blue > red


def test_error_is_hatched_where_either_depth_is_missing():
    sim, true = np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 0.0]])
    assert np.isnan(colour.depth_error_m(sim, true)).tolist() == [[False, True, True, True]]
    picture = colour.depth_error(sim, true)
    assert [tuple(c) in HATCHED for c in picture[0].tolist()] == [False, True, True, True]


def test_normals_use_the_usual_colours():
    facing, up, right = (0, 0, -127), (0, -127, 0), (127, 0, 0)  # camera axes: y down, z forward
    picture = colour.normals(np.array([[facing, up, right, (0, 0, 0)]], np.int8))
    assert picture[0, :3].tolist() == [[128, 128, 255], [128, 255, 128], [255, 128, 128]]
    assert tuple(picture[0, 3]) in HATCHED


def test_nocs_axes_are_red_green_blue_on_the_background():
    full = np.array([[[65535, 0, 0], [0, 65535, 0], [0, 0, 65535], [0, 0, 0]]], np.uint16)
    assert colour.nocs(full)[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], list(BACKGROUND)]


def test_links_that_follow_each_other_look_different_and_keep_their_colour():
    table = link_colours().astype(int)
    assert tuple(table[0]) == BACKGROUND
    gaps = [np.abs(table[a] - table[b]).sum() for a in range(1, 13) for b in range(a + 1, 13)]
    assert min(gaps) > 60
    assert np.array_equal(link_colours(), table)
    assert tuple(object_colours()[255]) == TABLE_COLOUR


def test_oklch_agrees_with_cielab_about_grey_and_hue():
    greys = srgb_from_oklch(np.linspace(0, 1, 5), 0, 0).astype(int)
    assert (np.ptp(greys, axis=1) <= 1).all() and (np.diff(greys[:, 0]) > 0).all()
    assert greys[-1].tolist() == [255, 255, 255]
    hues = [colorsys.rgb_to_hsv(*(srgb_from_oklch(0.7, 0.12, t) / 255))[0] for t in (0.08, 0.40, 0.73)]
    assert hues[0] < 0.08 and 0.25 < hues[1] < 0.45 and 0.5 < hues[2] < 0.7  # red, green, blue
    # Oklab's lightness of mid grey is that of CIELAB to within a few levels
    assert abs(int(srgb_from_oklch(0.5, 0, 0)[0]) - 255 * lab2rgb([[[42.0, 0, 0]]])[0, 0, 0]) < 8


def test_amodal_robot_shows_the_hidden_part_in_another_tone():
    whole = np.zeros((30, 30), np.uint8)
    whole[5:25, 5:25] = 1
    seen = np.where(np.arange(30)[:, None] < 15, whole, 0)
    picture = colour.amodal_robot(whole, seen * 3, np.full((30, 30, 3), 128, np.uint8)).astype(int)
    inner_seen, inner_hidden = picture[7:13, 7:23].reshape(-1, 3).mean(0), picture[17:23, 7:23].reshape(-1, 3).mean(0)
    assert inner_seen[2] > inner_seen[0] + 30  # blue
    assert inner_hidden[0] > inner_hidden[2] + 30  # orange
    assert picture[5, 10].tolist() == [255, 255, 255]
    assert np.ptp(picture[0, 0]) == 0


def test_amodal_objects_draws_every_bit():
    bits = np.zeros((40, 40), np.uint32)
    bits[5:20, 5:20] |= 1
    bits[10:30, 10:30] |= 1 << 31
    ids = np.where(bits & 1, 1, 0)
    picture = colour.amodal_objects(bits, ids)
    assert (picture[7, 7] != BACKGROUND).any() and (picture[27, 27] != BACKGROUND).any()
    assert tuple(picture[35, 35]) != tuple(picture[27, 27])
    assert not np.array_equal(picture[7, 7], picture[27, 27])


def test_outline_equals_mask_minus_opencv_erosion():
    mask = np.zeros((50, 60), np.uint8)
    cv2.circle(mask, (30, 25), 17, 1, -1)
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    eroded = cv2.erode(mask, kernel)
    assert np.array_equal(colour.outline(mask > 0), (mask > 0) & (eroded == 0))


@given(st.floats(-10, 10), st.floats(0.1, 5))
def test_map_clips_and_survives_nan(low, span):
    values = [low - 1, low, low + span, low + span + 1, np.nan]
    table = colour_map("RdBu_r")
    picked = apply_map(values, low, low + span, "RdBu_r")
    assert picked[:4].tolist() == [table[0].tolist()] * 2 + [table[255].tolist()] * 2


def test_blend_and_hatch_leave_the_rest_alone():
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert np.array_equal(blend(image, (255, 0, 0), 0.0), image)
    assert (blend(image, (9, 8, 7), 1.0) == (9, 8, 7)).all()
    assert np.array_equal(hatch(image, np.zeros((5, 7), bool)), image)
