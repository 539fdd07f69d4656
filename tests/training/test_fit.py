"""Robust rigid fit: against roma, against exact answers, and with outliers."""

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import ConfigError
from training.fit import FitOptions, fit_pose, kabsch, mean_rotation

F64 = torch.float64


def scene(seed: int, batch: int = 6, points: int = 15):
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(batch, points, 3, generator=generator, dtype=F64)
    vector = torch.randn(batch, 3, generator=generator, dtype=F64)
    R = roma.rotvec_to_rotmat(vector)
    T = torch.randn(batch, 3, generator=generator, dtype=F64)
    return generator, X, R, T, X @ R.mT + T[:, None]


@pytest.mark.parametrize("points", [3, 4, 15])
def test_kabsch_equals_roma(points):
    generator, X, _, _, Y = scene(0, points=points)
    Y = Y + 0.2 * torch.randn(Y.shape, generator=generator, dtype=F64)
    weight = torch.rand(X.shape[:-1], generator=generator, dtype=F64)
    R, T = kabsch(X, Y, weight)
    their_R, their_T = roma.rigid_points_registration(X, Y, weights=weight)
    torch.testing.assert_close(R, their_R, atol=1e-9, rtol=0)
    torch.testing.assert_close(T, their_T, atol=1e-9, rtol=0)


def test_mirrored_points_still_give_a_rotation():
    _, X, _, _, _ = scene(1)
    R, _ = kabsch(X, X * torch.tensor([1.0, 1.0, -1.0], dtype=F64), torch.ones(X.shape[:-1], dtype=F64))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(len(X), dtype=F64))


def test_mean_rotation_is_the_leading_quaternion():
    """Hartley et al.: the chordal mean is the leading eigenvector of the sum of w q q^T."""
    generator = torch.Generator().manual_seed(3)
    centre = roma.rotvec_to_rotmat(torch.tensor([[0.3, -1.2, 0.5]], dtype=F64))
    R = centre @ roma.rotvec_to_rotmat(0.4 * torch.randn(30, 3, generator=generator, dtype=F64))
    weight = torch.rand(30, generator=generator, dtype=F64)
    q = roma.rotmat_to_unitquat(R)
    _, vectors = torch.linalg.eigh(torch.einsum("j,ja,jb->ab", weight, q, q))
    torch.testing.assert_close(mean_rotation(R, weight), roma.unitquat_to_rotmat(vectors[:, -1]), atol=1e-12, rtol=0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), wrong=st.integers(0, 6))
def test_outliers_do_not_move_the_pose(seed, wrong):
    """Up to 6 of 15 points anywhere: the pose stays that of the others, where least squares is far off."""
    generator, X, R, T, Y = scene(seed, batch=2)
    Y[:, :wrong] += 0.3 + torch.rand(2, wrong, 3, generator=generator, dtype=F64)
    found = fit_pose(X, Y, options=FitOptions(most_triplets=455, reweightings=6))
    torch.testing.assert_close(found.R, R, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.T, T, atol=2e-3, rtol=0)
    assert (found.weight[:, :wrong] < 0.1).all()
    assert (found.weight[:, wrong:] > 0.9).all()


def test_unseen_points_count_nothing():
    _, X, R, T, Y = scene(5)
    seen = torch.ones(X.shape[:-1], dtype=torch.bool)
    seen[:, 4:9] = False
    Y[:, 4:9] = torch.nan
    with_nan = fit_pose(X, torch.nan_to_num(Y, nan=1e3), seen)
    torch.testing.assert_close(with_nan.R, R, atol=1e-9, rtol=0)
    torch.testing.assert_close(with_nan.T, T, atol=1e-9, rtol=0)
    assert not with_nan.weight[:, 4:9].any()


def test_batches_of_candidates_broadcast_and_are_independent():
    generator, X, _, _, Y = scene(6)
    many = Y[:, None] + 0.01 * torch.randn(6, 4, 15, 3, generator=generator, dtype=F64)
    together = fit_pose(X[:, None], many)
    alone = fit_pose(X[2], many[2, 3])
    torch.testing.assert_close(together.R[2, 3], alone.R, atol=1e-12, rtol=0)


def test_too_few_points_are_refused():
    with pytest.raises(ConfigError, match="3 or more points"):
        fit_pose(torch.zeros(2, 3), torch.zeros(2, 3))
