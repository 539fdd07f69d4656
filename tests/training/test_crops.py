import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.geometry.camera import crop_intrinsics, project, resize_intrinsics
from training.crops import (
    CONTRAST,
    GREY,
    box_around,
    covariance_to_image,
    crop_images,
    crop_pairs,
    crop_photo,
    pixel_scale,
    similarity,
    to_crop,
    to_image,
    whole_view,
)

SIZE = 64


def matrix(x: float, y: float, side: float, angle: float = 0.0) -> torch.Tensor:
    return similarity(torch.tensor([[x, y]]), torch.tensor([side]), SIZE, torch.tensor([angle]))[0]


def ramp(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W): the image of its own pixel coordinates. Averaging and bilinear interpolation keep it exact."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y])[None].float()


@settings(deadline=None)
@given(left=st.integers(0, 300), top=st.integers(0, 200), side=st.integers(20, 400))
def test_an_unturned_crop_is_the_camera_module_s_crop_and_resize(left: int, top: int, side: int) -> None:
    K = np.array([[500.0, 0, 320], [0, 510, 230], [0, 0, 1]])
    A = matrix(left + (side - 1) / 2, top + (side - 1) / 2, side)
    wanted = resize_intrinsics(crop_intrinsics(K, left, top), SIZE / side, SIZE / side)
    np.testing.assert_allclose(A.numpy() @ K, wanted, atol=1e-9)


@settings(max_examples=40, deadline=None)
# The corners of a turned crop of 138 px stay within the image.
@given(x=st.floats(120, 180), y=st.floats(100, 130), side=st.floats(24, 138), angle=st.floats(-math.pi, math.pi))
def test_every_crop_pixel_shows_its_own_place(x: float, y: float, side: float, angle: float) -> None:
    A = matrix(x, y, side, angle)
    got = crop_images(ramp(240, 300), A[None], SIZE)[0].permute(1, 2, 0)
    v, u = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    wanted = to_image(torch.stack([u, v], -1).reshape(-1, 2).double(), A).reshape(SIZE, SIZE, 2)
    assert (got - wanted).abs().max() < 2e-3


@settings(deadline=None)
@given(x=st.floats(-50, 700), y=st.floats(-50, 500), side=st.floats(5, 900), angle=st.floats(-3, 3))
def test_points_come_back(x: float, y: float, side: float, angle: float) -> None:
    A = matrix(x, y, side, angle)
    points = torch.tensor([[3.0, 4.0], [600.0, 2.5], [-20.0, 300.0]], dtype=torch.float64)
    assert (to_image(to_crop(points, A), A) - points).abs().max() < 1e-8
    distance = (to_crop(points, A)[0] - to_crop(points, A)[1]).norm() / (points[0] - points[1]).norm()
    assert math.isclose(float(distance), float(pixel_scale(A)), rel_tol=1e-9)


def test_the_crop_s_camera_projects_to_the_crop_s_points() -> None:
    K = torch.tensor([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]], dtype=torch.float64)
    A = matrix(300, 200, 130, 0.4)
    X = torch.tensor([[0.1, -0.2, 1.3], [-0.3, 0.05, 1.1]], dtype=torch.float64)
    whole = torch.from_numpy(project(K.numpy(), X.numpy()))
    homogeneous = X @ (A @ K).T
    assert (homogeneous[:, :2] / homogeneous[:, 2:] - to_crop(whole, A)).abs().max() < 1e-9


def test_covariances_turn_and_scale_with_the_crop() -> None:
    A = matrix(50, 60, 128, math.pi / 2)
    long_in_x = torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))[None]
    # A quarter turn, and two image pixels per crop pixel: variances fourfold.
    assert (covariance_to_image(long_in_x, A) - torch.diag(torch.tensor([4.0, 16.0]))).abs().max() < 1e-5


def test_a_photo_s_crop_equals_the_crop_of_the_whole() -> None:
    photo = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8))
    normal = ((photo.permute(2, 0, 1).float() - GREY) / CONTRAST)[None]
    for A in (matrix(100, 60, 40, 0.3), matrix(10, 110, 70), matrix(-400, 60, 50), whole_view(120, 200, SIZE)):
        assert (crop_photo(photo, A, SIZE) - crop_images(normal, A[None], SIZE)).abs().max() < 1e-3
    # Beyond the border it is grey.
    assert crop_photo(photo, matrix(-400, 60, 50), SIZE).abs().max() == 0


def test_a_batch_of_different_scales_equals_its_parts() -> None:
    images = torch.rand(3, 2, 96, 128)
    A = torch.stack([matrix(60, 50, 40), matrix(60, 50, 130, 0.2), matrix(30, 20, 200)])
    together = crop_images(images, A, SIZE)
    for i in range(3):
        assert torch.equal(together[i], crop_images(images[i : i + 1], A[i : i + 1], SIZE)[0])


def test_box_around_the_points_that_are_used() -> None:
    points = torch.tensor([[[10.0, 20.0], [50.0, 30.0], [900.0, 900.0]]] * 2)
    used = torch.tensor([[True, True, False], [False, False, False]])
    centre, side = box_around(points, used, 1.5)
    assert centre[0].tolist() == [30.0, 25.0] and side[0] == pytest.approx(60.0)
    assert torch.isnan(centre[1]).all()


def test_pairs_of_photo_and_mask_are_cropped_alike() -> None:
    rng = np.random.default_rng(1)
    photos, masks = torch.from_numpy(rng.integers(0, 256, (2, 90, 120, 3), np.uint8)), torch.from_numpy(rng.random((2, 90, 120)) < 0.3)
    A = torch.stack([matrix(60, 40, 30, 0.2), matrix(100, 80, 150)])
    images, mask = crop_pairs(photos, masks, A, SIZE)
    for i in range(2):
        assert (images[i] - crop_photo(photos[i], A[i], SIZE)[0]).abs().max() < 1e-3
        assert (mask[i] - crop_images(masks[i].float()[None, None], A[i : i + 1], SIZE)[0]).abs().max() < 1e-4
