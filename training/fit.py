"""Rigid pose from 3D-3D correspondences with outliers: minimal subsets, weighted aggregation, reweighted refinement.

The recipe of differentiable outlier elimination (REDE, Hua et al. 2020): a closed-form pose for many keypoint triplets, each
with a confidence from how well it explains all points, averaged by confidence; then iteratively reweighted least squares.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dataengine.errors import ConfigError


@dataclass(frozen=True)
class FitOptions:
    """Settings of `fit_pose`; lengths in m."""

    most_triplets: int = 64
    temperature_m: float = 0.005
    """tau of the confidence softmax(-median residual / tau)."""
    scale_m: float = 0.010
    """Geman-McClure scale of the reweighting."""
    reweightings: int = 3


@dataclass(frozen=True, eq=False)
class PoseFit:
    """X_cam ~ R X_base + T."""

    R: Tensor
    """(..., 3, 3)."""
    T: Tensor
    """(..., 3) m."""
    weight: Tensor
    """(..., N) Geman-McClure weight of each point: 1 fits, 0 is an outlier or not seen."""


def kabsch(X: Tensor, Y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """R (..., 3, 3), T (..., 3) that minimise sum weight |R X + T - Y|^2 over (..., N, 3) points (Kabsch 1976, Umeyama 1991).

    Proper rotations only. Points on one line leave the turn about it free; the result is then one of the minimisers.
    """
    share = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-30))[..., None]
    x_mean, y_mean = (share * X).sum(-2, keepdim=True), (share * Y).sum(-2, keepdim=True)
    U, _, Vh = torch.linalg.svd((share * (Y - y_mean)).mT @ (X - x_mean))
    R = _proper(U, Vh)
    return R, (y_mean - x_mean @ R.mT)[..., 0, :]


def fit_pose(X: Tensor, Y: Tensor, seen: Tensor | None = None, options: FitOptions | None = None) -> PoseFit:
    """Robust pose of points X (..., N, 3) in Y (..., N, 3), m; `seen` (..., N) bool. ConfigError for fewer than 3 points.

    All C(N, 3) triplets, or `most_triplets` of them spread evenly over the list of all.
    """
    options = options or FitOptions()
    N = X.shape[-2]
    if N < 3 or X.shape[-2:] != Y.shape[-2:]:
        raise ConfigError(f"a pose needs two equal lists of 3 or more points; given: {tuple(X.shape)} and {tuple(Y.shape)}")
    X, Y = torch.broadcast_tensors(X, Y)
    usable = torch.ones(X.shape[:-1], dtype=X.dtype, device=X.device) if seen is None else seen.expand(X.shape[:-1]).to(X.dtype)
    rows = torch.tensor(_triplets(N, options.most_triplets), device=X.device)  # (J, 3)
    R, T = kabsch(X[..., rows, :], Y[..., rows, :], usable[..., rows])
    residual = (X[..., None, :, :] @ R.mT + T[..., None, :] - Y[..., None, :, :]).norm(dim=-1)  # (..., J, N)
    middle = torch.nanmedian(torch.where(usable[..., None, :] > 0, residual, torch.nan), dim=-1).values
    whole = usable[..., rows].prod(-1) > 0
    confidence = torch.softmax(torch.where(whole, -middle / options.temperature_m, -1e4), -1)
    R, T = _blend(X, usable, R, T, confidence)
    weight = usable
    for _ in range(options.reweightings):
        weight = usable * _geman_mcclure(X, Y, R, T, options.scale_m)
        R, T = kabsch(X, Y, weight)
    return PoseFit(R, T, usable * _geman_mcclure(X, Y, R, T, options.scale_m))


def mean_rotation(R: Tensor, weight: Tensor) -> Tensor:
    """Weighted chordal mean of rotations (..., J, 3, 3) with weights (..., J): the mean matrix projected on SO(3).

    The same rotation as the leading eigenvector of sum w q q^T (Hartley et al. 2013, sec. 5.3), without quaternions.
    """
    U, _, Vh = torch.linalg.svd((weight[..., None, None] * R).sum(-3))
    return _proper(U, Vh)


def _blend(X: Tensor, usable: Tensor, R: Tensor, T: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates averaged by confidence: rotations, and the positions that they give the points' centre."""
    centre = (usable[..., None] * X).sum(-2) / usable.sum(-1, keepdim=True).clamp(min=1.0)
    placed = ((R @ centre[..., None, :, None])[..., 0] + T) * confidence[..., None]
    mean = mean_rotation(R, confidence)
    return mean, placed.sum(-2) - (mean @ centre[..., None])[..., 0]


def _geman_mcclure(X: Tensor, Y: Tensor, R: Tensor, T: Tensor, scale_m: float) -> Tensor:
    square = (X @ R.mT + T[..., None, :] - Y).square().sum(-1)
    return (scale_m**2 / (scale_m**2 + square)) ** 2


def _proper(U: Tensor, Vh: Tensor) -> Tensor:
    """U diag(1, 1, det U det V) V^T: the nearest matrix of determinant +1."""
    sign = torch.linalg.det(U) * torch.linalg.det(Vh)
    flipped = torch.cat([U[..., :2], U[..., 2:] * sign[..., None, None]], -1)
    return flipped @ Vh


def _triplets(N: int, most: int) -> list[tuple[int, int, int]]:
    every = list(itertools.combinations(range(N), 3))
    if len(every) <= most:
        return every
    # A step coprime to the list's length visits all parts of it, and so all points, evenly.
    step = next(s for s in range(int(0.618 * len(every)), len(every)) if math.gcd(s, len(every)) == 1)
    return [every[(i * step) % len(every)] for i in range(most)]
