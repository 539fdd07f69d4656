import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.crops import crop_images, similarity, to_image
from training.models.simcc import (
    CELL,
    SPLIT,
    GatedAttention,
    KeypointHead,
    KeypointLogits,
    axis_loss,
    bin_centres,
    calibrated,
    decode,
    interpolation,
    soft_labels,
    waves,
)

SIZE, SIGMA = 96, 1.5
CELLS = SIZE // CELL


def cell_centres() -> torch.Tensor:
    return CELL * torch.arange(CELLS).double() + (CELL - 1) / 2


def logits_of(heat: torch.Tensor) -> KeypointLogits:
    """What the head makes of a map alone."""
    spline = interpolation(CELLS)
    x, y = torch.logsumexp(heat, 2) @ spline, torch.logsumexp(heat, 3) @ spline
    return KeypointLogits(x, y, heat, torch.zeros(*heat.shape[:2], 2))


def gaussian_map(centre: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """(1, 1, S/4, S/4) log density at the cells' centres."""
    y, x = torch.meshgrid(cell_centres(), cell_centres(), indexing="ij")
    offset = torch.stack([x, y], -1) - centre.double()
    return (-0.5 * torch.einsum("...i,ij,...j->...", offset, torch.linalg.inv(covariance.double()), offset)).float()[None, None]


def test_bins_tile_the_crop() -> None:
    at = bin_centres(SIZE * SPLIT)
    assert at[0] == -0.5 + 0.5 / SPLIT and at[-1] == SIZE - 0.5 - 0.5 / SPLIT
    assert at.mean() == pytest.approx((SIZE - 1) / 2)


def test_interpolation_keeps_quadratics() -> None:
    at, cells = bin_centres(SIZE * SPLIT).double(), cell_centres()
    for curve in (lambda x: torch.ones_like(x), lambda x: x, lambda x: 0.3 * x**2 - 7 * x):
        got = curve(cells) @ interpolation(CELLS).double()
        assert (got - curve(at)).abs().max() < 1e-3 * max(1, float(curve(at).abs().max()))


@settings(max_examples=60, deadline=None)
@given(x=st.floats(12, SIZE - 13), y=st.floats(12, SIZE - 13))
def test_a_gaussian_is_decoded_where_it_is(x: float, y: float) -> None:
    found = decode(logits_of(gaussian_map(torch.tensor([x, y]), SIGMA**2 * torch.eye(2))), SIGMA)
    assert (found.points_px[0, 0] - torch.tensor([x, y])).abs().max() < 0.01
    assert found.mass[0, 0] > 0.99
    assert found.covariance_px2[0, 0].abs().max() < 0.1  # no more than the label's own width


@settings(max_examples=25, deadline=None)
@given(x=st.floats(150, 250), y=st.floats(120, 180), side=st.floats(60, 260), angle=st.floats(-1, 1), dx=st.floats(-0.2, 0.2))
def test_a_known_point_survives_crop_map_and_decoding(x: float, y: float, side: float, angle: float, dx: float) -> None:
    """An image of squared distances to a point is cropped; the map read off at cell centres; the point comes back within 0.02 px."""
    size = 4 * SIZE
    v, u = torch.meshgrid(torch.arange(300.0), torch.arange(400.0), indexing="ij")
    A = similarity(torch.tensor([[x + dx * side, y]]), torch.tensor([side]), size, torch.tensor([angle]))
    crop = crop_images(torch.stack([u - x, v - y, torch.ones_like(u)])[None], A, size)[0]
    # A cell's centre lies between four pixels of the crop.
    at_cells = torch.nn.functional.avg_pool2d(crop[None], CELL)[0]
    squared = (at_cells[:2] ** 2).sum(0) * (size / side) ** 2
    heat = torch.where(at_cells[2] > 0.999, -0.5 * squared / SIGMA**2, -1e4)[None, None]
    spline = interpolation(size // CELL)
    logits = KeypointLogits(torch.logsumexp(heat, 2) @ spline, torch.logsumexp(heat, 3) @ spline, heat, torch.zeros(1, 1, 2))
    found = to_image(decode(logits, SIGMA).points_px.double(), A)[0, 0]
    assert math.hypot(float(found[0]) - x, float(found[1]) - y) < 0.02


def test_the_covariance_is_the_belief_s_without_the_label_s_own() -> None:
    belief = torch.tensor([[9.0, 4.0], [4.0, 6.0]])
    blurred = belief + SIGMA**2 * torch.eye(2)
    found = decode(logits_of(gaussian_map(torch.tensor([50.0, 40.0]), blurred)), 2.5)  # a window wide enough for this belief
    got = found.covariance_px2[0, 0] + (2.5**2 - SIGMA**2) * torch.eye(2)
    assert got[0, 0] == pytest.approx(9.0, rel=0.1) and got[1, 1] == pytest.approx(6.0, rel=0.1)
    correlation = found.covariance_px2[0, 0]
    assert float(correlation[0, 1] / torch.sqrt(correlation[0, 0] * correlation[1, 1])) == pytest.approx(
        4 / math.sqrt(11.25 * 8.25), abs=0.1
    )


def test_two_peaks_halve_the_mass_and_the_higher_wins() -> None:
    low, high = (gaussian_map(torch.tensor(c), SIGMA**2 * torch.eye(2)) for c in ((20.0, 20.0), (70.0, 60.0)))
    found = decode(logits_of(torch.logaddexp(low, high + 0.2)), SIGMA)
    assert (found.points_px[0, 0] - torch.tensor([70.0, 60.0])).abs().max() < 0.05
    assert 0.2 < found.mass[0, 0] < 0.45  # about 0.55 on each axis


@settings(deadline=None)
@given(position=st.floats(6, SIZE - 7))
def test_labels_lie_where_the_point_is(position: float) -> None:
    label = soft_labels(torch.tensor([position]), SIZE * SPLIT, SIGMA)
    at = bin_centres(SIZE * SPLIT)
    assert label.sum() == pytest.approx(1, abs=1e-5)
    mean = (label * at).sum()
    assert mean == pytest.approx(position, abs=5e-3)
    assert (label * (at - mean) ** 2).sum() == pytest.approx(SIGMA**2, rel=0.02)


def test_the_loss_is_zero_at_the_label_and_nowhere_else() -> None:
    position = torch.tensor([30.3])
    best = torch.log(soft_labels(position, SIZE * SPLIT, SIGMA).clamp_min(1e-30))
    assert axis_loss(best, position, SIGMA).abs() < 1e-5
    assert axis_loss(best, position + 1, SIGMA) == pytest.approx(0.5 / SIGMA**2, rel=0.05)  # divergence of shifted Gaussians
    logits = torch.zeros(1, SIZE * SPLIT, requires_grad=True)
    axis_loss(logits, position, SIGMA).sum().backward()
    assert logits.grad is not None and logits.grad[0].argmin() == soft_labels(position, SIZE * SPLIT, SIGMA)[0].argmax()


def test_attention_treats_tokens_alike() -> None:
    torch.manual_seed(0)
    unit, tokens, order = GatedAttention(16, 32, 8), torch.randn(2, 5, 16), torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        assert torch.allclose(unit(tokens)[:, order], unit(tokens[:, order]), atol=1e-6)
        moved = tokens.clone()
        moved[:, 0] += 1
        assert not torch.allclose(unit(tokens)[:, 1], unit(moved)[:, 1])  # they hear of one another


def test_what_is_unknown_of_the_last_frame_says_nothing() -> None:
    torch.manual_seed(0)
    head = KeypointHead(3, 8, SIZE, 32)
    torch.nn.init.normal_(head.to_bins.weight)
    fine, deep = torch.randn(1, 8, CELLS, CELLS), torch.randn(1, 8, SIZE // 16, SIZE // 16)
    last = torch.full((1, 3, 2), torch.nan)
    with torch.no_grad():
        without, unknown = head(fine, deep), head(fine, deep, last)
        last[0, 1] = torch.tensor([20.0, 30.0])
        known = head(fine, deep, last)
    assert torch.equal(without.x, unknown.x) and torch.isfinite(known.x).all()
    assert not torch.allclose(without.x, known.x)
    assert without.x.shape == (1, 3, SIZE * SPLIT) and without.presence.shape == (1, 3, 2)


def test_waves_tell_places_apart() -> None:
    places = torch.from_numpy(np.random.default_rng(0).uniform(0, SIZE, (200, 2))).float()
    distance = torch.cdist(waves(places, SIZE), waves(places, SIZE)) + 1e3 * torch.eye(200)
    assert distance.min() > 0.05
    assert torch.allclose(waves(places, SIZE).norm(dim=-1), torch.full((200,), math.sqrt(32.0)), atol=1e-4)


def test_calibration_is_linear() -> None:
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    assert torch.allclose(calibrated(covariance, 3.0, 0.25), torch.tensor([[6.25, 1.5], [1.5, 3.25]]))
