from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.training.detectors import MICRO, labelled_batch
from training import augment
from training.crops import to_crop
from training.detector import Detector, detection_loss, detections, fit_calibration
from training.models.backbone import ConvNorm, Encoder, fold_norms, multiply_adds
from training.models.mask_head import intersection_over_union, mask_loss
from training.models.simcc import CELL
from training.views import PLAIN, ROBOT_SHARE, ViewDraw, draw_views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- views ---------------------------------------------------------------------------------------------------------------


def test_views_show_the_robot_where_the_labels_say() -> None:
    batch = labelled_batch()
    for draw in (PLAIN, ViewDraw(empty=0, photometric=0, cut_out=0, backgrounds=0)):
        views = draw_views(batch, 64, draw, generator())
        assert (views.points_px - to_crop(batch["keypoints_px"].float(), views.A)).abs().max() < 1e-4
        # The robot is what is bright, and its mask lies on it.
        red = F.avg_pool2d(views.images[:, :1], CELL)[:, 0]
        assert ((red > 1.5) == (views.mask > 0.85)).float().mean() > 0.97
        assert views.inside.any(1).all()


def test_a_plain_view_has_the_robot_in_its_middle() -> None:
    views = draw_views(labelled_batch(), 64, PLAIN, generator())
    assert views.inside.all() and torch.isnan(views.last_px).all()
    assert (views.points_px.mean(1) - 31.5).abs().max() < 1e-3
    extent = views.points_px.amax(1) - views.points_px.amin(1)
    assert torch.allclose(extent, torch.full_like(extent, 64 / 1.25), atol=1e-3)
    assert (views.seen == torch.tensor([True, True, True, False])).all()


def test_windows_anywhere_know_when_there_is_no_robot() -> None:
    draw = replace(PLAIN, empty=1.0)
    views = draw_views(labelled_batch(40), 64, draw, generator())
    assert 0 < views.robot.sum() < 40
    assert torch.equal(views.robot, views.mask.mean((1, 2)) > ROBOT_SHARE)
    inside = ((views.points_px > -0.5) & (views.points_px < 63.5)).all(-1)
    assert torch.equal(views.inside, inside)


def test_a_keypoint_behind_the_camera_or_outside_the_image_is_not_inside() -> None:
    batch = labelled_batch(2)
    batch["keypoints_px"][0, 0], batch["keypoint_state"][0, 0] = torch.nan, 0
    views = draw_views(batch, 64, PLAIN, generator())
    assert not views.inside[0, 0] and views.inside[0, 1:].all() and torch.isfinite(views.points_px).all()


def test_views_are_a_function_of_the_generator() -> None:
    one, two, other = (draw_views(labelled_batch(), 64, ViewDraw(), generator(s)) for s in (1, 1, 2))
    assert torch.equal(one.images, two.images) and torch.equal(one.last_px.nan_to_num(), two.last_px.nan_to_num())
    assert not torch.equal(one.images, other.images)


# ---- augmentation ---------------------------------------------------------------------------------------------------------


def test_nothing_changes_at_strength_zero() -> None:
    images, masks = torch.randn(4, 3, 32, 32), torch.rand(4, 1, 32, 32)
    assert torch.equal(augment.photometric(images, generator(), 0.0), images)
    assert torch.equal(augment.cut_out(images, masks, generator(), 0.0)[0], images)
    assert torch.equal(augment.other_backgrounds(images, masks, generator(), 0.0), images)


def test_photometric_changes_stay_in_the_range_of_photos() -> None:
    images = draw_views(labelled_batch(), 64, PLAIN, generator()).images
    changed = augment.photometric(images, generator(), 1.0)
    assert not torch.allclose(changed, images, atol=0.05)
    assert changed.min() >= -114 / 58 - 1e-4 and changed.max() <= 141 / 58 + 1e-4


def test_what_is_cut_out_is_no_longer_robot() -> None:
    images, masks = torch.zeros(64, 3, 32, 32), torch.ones(64, 1, 32, 32)
    cut, left = augment.cut_out(images, masks, generator(), 1.0)
    changed = (cut != 0).any(1, keepdim=True)
    assert torch.equal(changed, left == 0)
    share = changed.float().mean((1, 2, 3))
    assert 0.001 < share.mean() < 0.15 and share.max() < 0.2


def test_another_background_leaves_the_robot() -> None:
    views = draw_views(labelled_batch(8), 64, PLAIN, generator())
    mask = F.interpolate(views.mask[:, None], scale_factor=4.0)
    inner = (mask > 0.999).expand_as(views.images)
    moved = augment.other_backgrounds(views.images, mask, generator(), 1.0)
    assert torch.allclose(moved[inner], views.images[inner], atol=1e-2)
    assert (moved - views.images)[(mask < 0.001).expand_as(moved)].abs().mean() > 0.05


def test_the_prior_is_lost_as_often_as_asked() -> None:
    points, inside = torch.full((4000, 5, 2), 50.0), torch.ones(4000, 5, dtype=torch.bool)
    inside[:, 4] = False
    last = augment.disturbed_prior(points, inside, generator(), 100, 0.2)
    known = torch.isfinite(last).all(-1)
    assert (~known.any(1)).float().mean() == pytest.approx(0.2, abs=0.025)
    assert not known[:, 4].any()
    assert known[known.any(1)][:, :4].float().mean() == pytest.approx(0.9, abs=0.01)
    away = (last[known] - 50).norm(dim=-1)
    assert 1 < away.median() < 8 and (away > 20).float().mean() < 0.1


# ---- network ---------------------------------------------------------------------------------------------------------------


def test_sizes_and_cost_of_the_network() -> None:
    encoder = Encoder(MICRO.encoder)
    fine, deep = encoder(torch.zeros(2, 3, 64, 64))
    assert fine.shape == (2, 16, 16, 16) and deep.shape == (2, 16, 4, 4)
    layer = ConvNorm(3, 8, 3, 2)
    assert multiply_adds(layer, [torch.zeros(1, 3, 32, 32)]) == 16 * 16 * 8 * 27


def test_folded_norms_give_the_same() -> None:
    torch.manual_seed(1)
    detector = Detector(MICRO, 4)
    for _ in range(3):
        detector(torch.randn(8, 3, 64, 64) * 2 + 1)  # statistics that are not the initial ones
    detector.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = detector(images)
        after = fold_norms(detector)(images)
    assert torch.allclose(before.keypoints.x, after.keypoints.x, atol=1e-3) and torch.allclose(before.mask, after.mask, atol=1e-3)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in detector.modules())


def test_the_detector_learns_a_square_s_corners() -> None:
    torch.manual_seed(0)
    detector, batch = Detector(MICRO, 4), labelled_batch(8)
    optimizer = torch.optim.AdamW(detector.parameters(), 5e-3)
    views = draw_views(batch, 64, replace(PLAIN, zoom=0.1, shift=0.1), generator())
    for _ in range(45):
        optimizer.zero_grad()
        parts = detection_loss(detector(views.images), views, MICRO.sigma_px)
        parts["loss"].backward()
        optimizer.step()
    found = detections(detector.eval()(views.images), views.A, MICRO.sigma_px, detector.calibration)
    error = (found.points_px - batch["keypoints_px"]).norm(dim=-1)
    assert error.median() < 1.5 and found.confidence.median() > 0.5 and (found.robot > 0.9).all()
    assert ((found.seen > 0.5) == views.seen).float().mean() > 0.9 and not views.seen[:, 3].any()
    assert torch.linalg.eigvalsh(found.covariance_px2).min() > 0


def test_points_outside_the_crop_teach_no_place() -> None:
    torch.manual_seed(0)
    detector = Detector(MICRO, 4)
    views = draw_views(labelled_batch(2), 64, PLAIN, generator())
    predicted = detector(views.images)
    views.inside[:, 0] = False
    one = detection_loss(predicted, views, MICRO.sigma_px)["place"]
    views.points_px[:, 0] = -500.0
    assert one == detection_loss(predicted, views, MICRO.sigma_px)["place"]
    views.inside[:] = False
    assert torch.isfinite(detection_loss(predicted, views, MICRO.sigma_px)["loss"])


def test_the_mask_s_loss_and_overlap() -> None:
    target = torch.zeros(2, 16, 16)
    target[0, 4:12, 4:12] = 1
    right = 20 * (target - 0.5)
    assert mask_loss(right, target) < 0.01 < mask_loss(0.1 * right, target) < mask_loss(-right, target)
    assert intersection_over_union(right, target).tolist() == [1.0, 1.0]
    shifted = right.roll(4, 2)
    assert intersection_over_union(shifted, target)[0] == pytest.approx(1 / 3)
    assert intersection_over_union(-right, target)[1] == 0


def test_calibration_finds_the_true_scale() -> None:
    rng = np.random.default_rng(0)
    variance = torch.from_numpy(rng.gamma(2, 1, 20_000))
    error = torch.from_numpy(rng.normal(size=20_000)) * torch.sqrt(2.0 * variance + 0.5)
    factor, floor = fit_calibration(variance, error, cut=0.0)
    assert factor == pytest.approx(2.0, rel=0.2) and floor == pytest.approx(0.5, rel=0.3)
    error[:200] *= 50
    robust, _ = fit_calibration(variance, error)
    assert 1.0 < robust < 2.5  # outliers are left to the robust loss
