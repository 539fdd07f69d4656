"""Starts for the refinement: from a pool of random configurations without any network, from lifted points, from the last frame.

A pool holds configurations drawn from the joint prior. For a frame, every configuration is scored by how well an affine
camera maps it to the 2D points (closed form, a few matrix products for the whole pool), the best get a perspective pose by
POSIT (DeMenthon and Davis 1995), and those with the least robust error become the starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dataengine.errors import ConfigError
from training.fit import fit_pose
from training.kinematics import KeypointChain
from training.refine import Estimate, Observation, Starts, TemporalPrior
from training.scene_statistics import JointPrior

_FRAMES_AT_ONCE = 64
_ROBUST_PX = 40.0
_RIDGE = 1e-3
_POSIT_ROUNDS = 4
_MOST_FORGOTTEN = 3


@dataclass(frozen=True, eq=False)
class StartPool:
    """P configurations and their keypoints in the base frame."""

    q: Tensor
    """(P, D)."""
    X: Tensor
    """(P, N, 3) m."""


def make_pool(chain: KeypointChain, prior: JointPrior, size: int, generator: torch.Generator) -> StartPool:
    """A pool in the prior's precision; about 1000 configurations suffice for seven joints.

    A third of them is drawn with twice the deviation: local minima trap most the frames whose joints the prior did not expect.
    """
    wide = replace(prior, std=2.0 * prior.std)
    q = torch.cat([prior.sample(size - size // 3, generator), wide.sample(size // 3, generator)])
    return StartPool(q, chain.forward(q))


def pool_starts(pool: StartPool, observation: Observation, K: int, generator: torch.Generator, shortlist: int = 128) -> Starts:
    """K starts for each of B frames. Each goes by a random subset of the points while the loss is wide (`Starts.trusted`).

    ConfigError if the pool has fewer than K configurations or another number of keypoints.
    """
    if not 1 <= K <= len(pool.q) or pool.X.shape[1] != observation.uv.shape[1]:
        raise ConfigError(
            f"{K} starts for {observation.uv.shape[1]} keypoints were asked of a pool of {len(pool.q)} configurations"
            f" with {pool.X.shape[1]} keypoints; make a larger pool of the same keypoint set"
        )
    c, focal = normalised(observation, pool.X.dtype)
    seen = observation.seen.to(pool.X.dtype)
    parts = [
        _best_of_pool(pool, c[rows], seen[rows], focal[rows], K, min(max(shortlist, K), len(pool.q)))
        for rows in torch.arange(len(c), device=c.device).split(_FRAMES_AT_ONCE)
    ]
    q, R, T = (torch.cat(part) for part in zip(*parts, strict=True))
    return Starts(q, R, T, forget_some(observation.seen, K, generator))


def lifted_starts(chain: KeypointChain, q: Tensor, X_cam: Tensor, observation: Observation, generator: torch.Generator) -> Starts:
    """Starts from K lifted keypoint sets X_cam (B, K, N, 3) and the joints q (B, K, D) read from them: poses by robust fit."""
    fit = fit_pose(chain.forward(q), X_cam)
    return Starts(q, fit.R, fit.T, forget_some(observation.seen, q.shape[1], generator))


def join_starts(*several: Starts) -> Starts:
    """All starts of several sets for the same frames."""
    q, R, T = (torch.cat([getattr(s, name) for s in several], 1) for name in ("q", "R", "T"))
    known = [s.trusted for s in several if s.trusted is not None]
    if not known:
        return Starts(q, R, T)
    N = known[0].shape[-1]
    whole = [torch.ones(*s.q.shape[:2], N, dtype=torch.bool, device=q.device) if s.trusted is None else s.trusted for s in several]
    return Starts(q, R, T, torch.cat(whole, 1))


def last_frame(estimate: Estimate, joint_speed_std: float, turn_std_rad: float, shift_std_m: float) -> tuple[Starts, TemporalPrior]:
    """Start and prior for the next frame: the last estimate, its covariance grown by a random walk of these deviations per frame."""
    D = estimate.q.shape[-1]
    growth = torch.tensor([joint_speed_std] * D + [turn_std_rad] * 3 + [shift_std_m] * 3, dtype=estimate.q.dtype, device=estimate.q.device)
    information = torch.linalg.inv(estimate.covariance + torch.diag(growth.square()))
    start = Starts(estimate.q[:, None], estimate.R[:, None], estimate.T[:, None])
    return start, TemporalPrior(estimate.q, estimate.R, estimate.T, 0.5 * (information + information.mT))


def forget_some(seen: Tensor, K: int, generator: torch.Generator) -> Tensor:
    """(B, K, N) bool: all points but a random fifth of the seen ones, at most 3; all if fewer than 8 are seen."""
    B, N = seen.shape
    order = torch.rand(B, K, N, generator=generator, device=seen.device) - 2.0 * seen[:, None]  # seen points first
    rank = order.argsort(-1).argsort(-1)
    count = seen.sum(-1)
    forgotten = torch.where(count < 8, 0, (count // 5).clamp(max=_MOST_FORGOTTEN))
    return rank >= forgotten[:, None, None]


def normalised(observation: Observation, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Points K^-1 (u, v, 1) (B, N, 2), zero where not seen, and the focal length (B,) px."""
    K = observation.K.double()
    inverse = torch.linalg.inv(K)
    c = observation.uv.double() @ inverse[:, :2, :2].mT + inverse[:, None, :2, 2]
    return torch.where(observation.seen[..., None], c, 0.0).to(dtype), K[:, 0, 0].to(dtype)


def _best_of_pool(pool: StartPool, c: Tensor, seen: Tensor, focal: Tensor, K: int, shortlist: int) -> tuple[Tensor, Tensor, Tensor]:
    chosen = affine_error(pool.X, c, seen).topk(shortlist, dim=1, largest=False).indices  # (B, S)
    q, X = pool.q[chosen], pool.X[chosen]
    here, weight = c[:, None].expand(-1, shortlist, -1, -1), seen[:, None].expand(-1, shortlist, -1)
    R, T = posit(X, here, weight)
    X_cam = X @ R.mT + T[..., None, :]
    square = ((X_cam[..., :2] / X_cam[..., 2:].clamp(min=0.1) - here) * focal[:, None, None, None]).square().sum(-1)
    error = (weight * square / (square + _ROBUST_PX**2)).sum(-1)
    best = error.topk(K, dim=1, largest=False).indices
    rows = torch.arange(len(c), device=c.device)[:, None]
    return q[rows, best], R[rows, best], T[rows, best]


def affine_error(X: Tensor, c: Tensor, weight: Tensor) -> Tensor:
    """(B, P) weighted squared error of the best affine map of each X (P, N, 3) to each c (B, N, 2), weights (B, N)."""
    P, N, _ = X.shape
    total = weight.sum(1).clamp(min=1.0)[:, None]
    y = c - (weight[..., None] * c).sum(1, keepdim=True) / total[..., None]
    mean = (weight @ X.permute(1, 0, 2).reshape(N, -1)).reshape(-1, P, 3) / total[..., None]
    pairs = torch.stack([X[..., i] * X[..., j] for i in range(3) for j in range(i, 3)], -1)
    moments = (weight @ pairs.permute(1, 0, 2).reshape(N, -1)).reshape(-1, P, 6)
    xx, xy, xz, yy, yz, zz = (moments[..., k] for k in range(6))
    mx, my, mz = (mean * total.sqrt()[..., None]).unbind(-1)
    xx, xy, xz, yy, yz, zz = xx - mx * mx, xy - mx * my, xz - mx * mz, yy - my * my, yz - my * mz, zz - mz * mz
    ridge = _RIDGE * (xx + yy + zz) / 3 + 1e-12
    xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
    # Adjugate of the symmetric 3x3: cheaper than a factorisation of B P matrices.
    axx, axy, axz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    ayy, ayz, azz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * axx + xy * axy + xz * axz
    error = (weight[..., None] * y.square()).sum((1, 2))[:, None].expand(-1, P)
    for side in range(2):
        b = ((weight * y[..., side]) @ X.permute(1, 0, 2).reshape(N, -1)).reshape(-1, P, 3)  # y sums to zero, so the mean drops out
        u, v, w = b.unbind(-1)
        explained = axx * u * u + ayy * v * v + azz * w * w + 2 * (axy * u * v + axz * u * w + ayz * v * w)
        error = error - explained / determinant
    return error


def posit(X: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Approximate pose of points X (..., N, 3) m seen at normalised c (..., N, 2) with weights (..., N): R, T of T_cam_base.

    Scaled orthography with the perspective correction of DeMenthon and Davis (1995), a few rounds; the first two rows of R are
    the nearest orthonormal ones. Nearly flat point sets are held by a small ridge.
    """
    share = weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)
    centre = (share[..., None] * X).sum(-2, keepdim=True)
    local = X - centre
    moments = (local * share[..., None]).mT @ local
    ridge = _RIDGE * torch.diagonal(moments, dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-12
    solve = torch.linalg.inv(moments + ridge * torch.eye(3, dtype=X.dtype, device=X.device)) @ (local * share[..., None]).mT
    depth_change = torch.zeros_like(share)
    R, middle, z = solve, c[..., 0, :], share[..., 0]
    for _ in range(_POSIT_ROUNDS):
        y = c * (1 + depth_change[..., None])
        middle = (share[..., None] * y).sum(-2)
        rows = (solve @ (y - middle[..., None, :])).mT  # (..., 2, 3)
        first, scale = _orthonormal_rows(rows)
        R = torch.cat([first, torch.linalg.cross(first[..., :1, :], first[..., 1:, :])], -2)
        z = 1 / scale.clamp(min=0.05)
        depth_change = ((local @ R[..., 2, :, None])[..., 0] / z[..., None]).clamp(min=-0.8)
    T = torch.cat([middle * z[..., None], z[..., None]], -1) - (R @ centre.mT)[..., 0]
    return R, T


def _orthonormal_rows(M: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest orthonormal rows (M M^T)^-1/2 M of M (..., 2, 3) and its mean singular value (...), in closed form."""
    G = M @ M.mT
    a, b, d = G[..., 0, 0], G[..., 0, 1], G[..., 1, 1]
    root = (a * d - b * b).clamp(min=1e-18).sqrt()
    trace = (a + d + 2 * root).sqrt()  # sum of the singular values
    inverse = torch.stack([d + root, -b, -b, a + root], -1).unflatten(-1, (2, 2)) / (root * trace)[..., None, None]
    first = inverse @ M
    first = torch.nn.functional.normalize(first, dim=-1)
    return first, 0.5 * trace
