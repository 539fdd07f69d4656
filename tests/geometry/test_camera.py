"""Pinhole conventions: what resizing, cropping and projecting must do to known pixels."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataengine.geometry import camera

K = camera.intrinsics(502.3, 498.7, 319.5, 179.5)
points = st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.3, 5))


@given(st.lists(points, min_size=1, max_size=8))
def test_projection_equals_opencv(pts):
    theirs, _ = cv2.projectPoints(np.array(pts), np.zeros(3), np.zeros(3), K, None)
    np.testing.assert_allclose(camera.project(K, pts), theirs[:, 0], atol=1e-8)


def test_behind_the_camera_is_nan_and_outside():
    px = camera.project(K, [[0.1, 0.1, -1.0], [0.0, 0.0, 0.0]])
    assert np.isnan(px).all()
    assert not camera.in_image(px, 640, 360).any()


def test_image_borders_are_half_a_pixel_out():
    px = [[-0.5, 0], [-0.51, 0], [639.49, 0], [639.5, 0], [0, 359.49], [0, 359.5]]
    assert camera.in_image(px, 640, 360).tolist() == [True, False, True, False, True, False]


@given(points, st.sampled_from([0.25, 0.5, 2.0, 3.0]))
def test_resized_intrinsics_follow_the_pixel_areas(p, s):
    """A point at pixel u covers area u ± 1/2; scaling the image scales that area about the corner −1/2."""
    before = camera.project(K, p)
    after = camera.project(camera.resize_intrinsics(K, s, s), p)
    np.testing.assert_allclose(after + 0.5, (before + 0.5) * s, atol=1e-9)


def test_the_papers_halving_slip_is_not_ours():
    """Halving 1280 x 720 with c = (639.5, 359.5) gives (319.5, 179.5), not (319.75, 179.75)."""
    half = camera.resize_intrinsics(camera.intrinsics(1004.6, 1004.6, 639.5, 359.5), 0.5, 0.5)
    np.testing.assert_allclose(half, camera.intrinsics(502.3, 502.3, 319.5, 179.5))


def test_crop_moves_the_principal_point():
    np.testing.assert_allclose(
        camera.project(camera.crop_intrinsics(K, 10, 20), (0.1, 0.2, 1)), camera.project(K, (0.1, 0.2, 1)) - (10, 20)
    )


@given(st.floats(0.3, 6))
def test_depth_disparity_round_trip(z):
    d = camera.disparity_from_depth(z, 924.0, 0.055)
    np.testing.assert_allclose(d, 924 * 0.055 / z)
    np.testing.assert_allclose(camera.depth_from_disparity(d, 924.0, 0.055), z)


def test_no_depth_no_disparity():
    assert np.isnan(camera.disparity_from_depth(0.0, 924.0, 0.055))
    assert camera.depth_from_disparity(np.array([0.0, -1.0, np.nan]), 924.0, 0.055).tolist() == [0, 0, 0]


def test_backproject_inverts_project():
    depth = np.full((6, 8), 1.7)
    Ks = np.array([[10.0, 0.3, 3.1], [0, 11.0, 2.2], [0, 0, 1]])
    px = camera.project(Ks, camera.backproject(Ks, depth))
    v, u = np.mgrid[0:6, 0:8]
    np.testing.assert_allclose(px, np.stack([u, v], -1), atol=1e-9)


def test_field_of_view():
    """SimRGBD-Franka's 502.30 px at 640 px is 65.00 degrees."""
    K65 = camera.intrinsics_from_fov(640, 360, np.radians(65.0))
    assert K65[0, 0] == pytest.approx(502.30, abs=0.01)
    assert (K65[0, 2], K65[1, 2]) == (319.5, 179.5)


def test_colmap_pixel_origin():
    """COLMAP's centre of a 640 x 480 image is (320, 240); ours is (319.5, 239.5)."""
    colmap = camera.intrinsics(600, 600, 320, 240)
    np.testing.assert_allclose(camera.intrinsics_from_colmap(colmap), camera.intrinsics(600, 600, 319.5, 239.5))
    np.testing.assert_allclose(camera.intrinsics_to_colmap(camera.intrinsics_from_colmap(colmap)), colmap)


def test_blender_looks_along_minus_z():
    M = camera.blender_camera_matrix(np.eye(4))
    np.testing.assert_allclose(M[:3, 2], [0, 0, -1])
    np.testing.assert_allclose(M[:3, 1], [0, -1, 0])
