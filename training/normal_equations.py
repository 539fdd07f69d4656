"""Cost, gradient and Hessian of keypoints seen by a camera, for very many (joints, pose) at once; batch M last.

The base moves by twists in its own frame: R exp([w]x), T + R t. A residual's derivative with respect to (w, t) is the row
(X x P, P) with P = d residual / d X_base, and joint j moves its keypoints by the twist S_j = (z_j, o_j x z_j). So the normal
equations need only M_j, the sum of those rows' squares over the keypoints that joint j carries: H_ij = S_i^T M_j S_j for i
before j, the composite-body algorithm (Featherstone, Rigid Body Dynamics Algorithms, ch. 6) with information for inertia.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.kinematics import KeypointChain
from training.rotations import matmul, vector_from_rotation

_NEAREST_Z_M = 0.05


@dataclass(frozen=True, eq=False)
class State:
    """M guesses: q (D, M) rad or m, R (3, 3, M) and T (3, M) m of T_cam_base."""

    q: Tensor
    R: Tensor
    T: Tensor

    def __getitem__(self, rows: Tensor) -> State:
        return State(self.q[:, rows], self.R[..., rows], self.T[:, rows])

    def double(self) -> State:
        return State(self.q.double(), self.R.double(), self.T.double())

    def where(self, take: Tensor, other: State) -> State:
        """This one where `take` (M,), else the other."""
        q, R, T = (torch.where(take, one, two) for one, two in ((self.q, other.q), (self.R, other.R), (self.T, other.T)))
        return State(q, R, T)


@dataclass(frozen=True, eq=False)
class Target:
    """What M guesses are compared with."""

    c: Tensor
    """(N, 2, M) image points in normalised coordinates: K^-1 (u, v, 1)."""
    A: Tensor
    """(N, 2, 2, M) turns an error in normalised coordinates into standard deviations; 0 where a point is not seen."""
    sigma_px: Tensor
    """(N, M) typical standard deviation of each point."""
    k: Tensor
    """(N, M) density of outliers relative to an inlier's peak."""
    q_mean: Tensor
    """(D, M) or (D, 1) expected joint positions."""
    q_weight: Tensor
    """The same shape: 1 / variance."""
    before: State | None = None
    """Temporal prior, if any ..."""
    information: Tensor | None = None
    """... and its (D + 6, D + 6, M) inverse covariance in (q, w, t)."""

    def __getitem__(self, rows: Tensor) -> Target:
        return self._each(lambda v: v if v.shape[-1] == 1 else v[..., rows], None if self.before is None else self.before[rows])

    def double(self) -> Target:
        return self._each(torch.Tensor.double, None if self.before is None else self.before.double())

    def _each(self, change: Callable[[Tensor], Tensor], before: State | None) -> Target:
        information = None if self.information is None else change(self.information)
        c, A, sigma_px, k = (change(v) for v in (self.c, self.A, self.sigma_px, self.k))
        return Target(c, A, sigma_px, k, change(self.q_mean), change(self.q_weight), before, information)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Second-order model of the cost around M guesses."""

    H: Tensor
    """(M, D + 6, D + 6), Gauss-Newton, of (q, w, t)."""
    g: Tensor
    """(M, D + 6)."""
    square: Tensor
    """(N, M) squared errors in standard deviations; weights and costs follow from it."""
    rest: Tensor
    """(M,) cost of the priors."""

    def where(self, take: Tensor, other: Quadratic) -> Quadratic:
        """This one where `take` (M,), else the other."""
        return Quadratic(
            torch.where(take[:, None, None], self.H, other.H),
            torch.where(take[:, None], self.g, other.g),
            torch.where(take, self.square, other.square),
            torch.where(take, self.rest, other.rest),
        )


def weights(square: Tensor, k: Tensor, wide: Tensor) -> Tensor:
    """Probability of being an inlier, (N, M): exp(-s/2) / (exp(-s/2) + k) with s = square / wide^2."""
    inlier = torch.exp(-0.5 * square / (wide * wide))
    return inlier / (inlier + k)


def cost(model: Quadratic, k: Tensor, wide: Tensor) -> Tensor:
    """(M,) minus log posterior with the loss widened by `wide` (N, M): -wide^2 log((exp(-s/2) + k) / (1 + k)) + priors."""
    scale = wide * wide
    inlier = torch.exp(-0.5 * model.square / scale)
    return -(scale * torch.log((inlier + k) / (1 + k))).sum(0) + model.rest


def keypoints_in_camera(chain: KeypointChain, state: State) -> Tensor:
    """(N, 3, M) m."""
    X, _ = chain.points_and_frames(state.q)
    return (state.R * X[:, None]).sum(2) + state.T


def keypoint_jacobian(chain: KeypointChain, state: State) -> Tensor:
    """d X_cam / d (q, w, t): (M, N, 3, D + 6)."""
    X, J = chain.points_and_jacobian(state.q)
    x, y, z = X.unbind(1)
    zero = torch.zeros_like(x)
    turn = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], 1).unflatten(1, (3, 3))  # -[X]x
    shift = torch.eye(3, dtype=X.dtype, device=X.device)[None, :, :, None].expand_as(turn)
    body = torch.cat([J.transpose(1, 2), turn, shift], 2)  # (N, 3, D + 6, M) in the base frame
    return state.R.permute(2, 0, 1)[:, None] @ body.permute(3, 0, 1, 2)


def expand(chain: KeypointChain, target: Target, state: State, wide: Tensor) -> Quadratic:
    """The quadratic model at these guesses, points weighted by the loss of scale `wide`."""
    X, frames = chain.points_and_frames(state.q)
    residual, P = _project(target, state, X)
    square = (residual * residual).sum(1)
    weight = weights(square, target.k, wide)
    rows = torch.stack([*_cross(X, P), *P.unbind(2), residual])  # (7, N, 2, M): w, t, residual
    sums = _carried_sums(chain, rows, weight)
    H, g = _assemble(chain, sums, frames)
    return _with_priors(target, state, H, g, square)


def _project(target: Target, state: State, X: Tensor) -> tuple[Tensor, Tensor]:
    """Whitened residuals (N, 2, M) and P = d residual / d X_base (N, 2, 3, M)."""
    X_cam = (state.R * X[:, None]).sum(2) + state.T
    inverse_z = 1.0 / X_cam[:, 2].clamp(min=_NEAREST_Z_M)
    p = X_cam[:, :2] * inverse_z[:, None]
    error = p - target.c
    rows = (state.R[:2] - p[:, :, None] * state.R[2]) * inverse_z[:, None, None]
    return (target.A * error[:, None]).sum(2), (target.A[..., None, :] * rows[:, None]).sum(2)


def _cross(X: Tensor, P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X x P for X (N, 3, M) and each row of P (N, 2, 3, M)."""
    x, y, z = X[:, None].unbind(2)
    a, b, c = P.unbind(2)
    return y * c - z * b, z * a - x * c, x * b - y * a


def _carried_sums(chain: KeypointChain, rows: Tensor, weight: Tensor) -> Tensor:
    """(J + 1, 27, M): for the base (first) and each joint the 21 products of (w, t) and 6 with the residual, over carried points."""
    N, M = weight.shape
    products = torch.empty(N, 2, 27, M, dtype=rows.dtype, device=rows.device)
    start = 0
    for a in range(6):
        left = rows[a] * weight[:, None]
        for b in range(a, 7):
            torch.mul(left, rows[b], out=products[:, :, start])
            start += 1
    carried = chain.tensors(rows.dtype, rows.device).carried_rows
    return (carried @ products.reshape(2 * N, -1)).reshape(-1, 27, M)


def _assemble(chain: KeypointChain, sums: Tensor, frames: list[Tensor]) -> tuple[Tensor, Tensor]:
    """H (D + 6, D + 6, M) and g (D + 6, M) from the sums and the joints' twists."""
    tables = chain.tensors(sums.dtype, sums.device)
    squares, gradients = sums[:, _SQUARE].unflatten(1, (6, 6)), sums[:, _GRADIENT]
    twists = chain.twists(frames)  # (J, 6, M)
    column = (squares[1:] * twists[:, None]).sum(2)  # M_j S_j
    slope = (gradients[1:] * twists).sum(1)
    half = (twists[:, None] * column).sum(2) * tables.ancestors[..., None]
    joint = half + half.transpose(0, 1)
    if tables.gains is not None:
        joint = torch.einsum("id,ijm,je->dem", tables.gains, joint, tables.gains)
        column, slope = (torch.einsum("jd,j...->d...", tables.gains, v) for v in (column, slope))
    H = torch.cat([torch.cat([joint, column], 1), torch.cat([column.transpose(0, 1), squares[0]], 1)])
    return H, torch.cat([slope, gradients[0]])


def _with_priors(target: Target, state: State, H: Tensor, g: Tensor, square: Tensor) -> Quadratic:
    D = len(state.q)
    off = state.q - target.q_mean
    diagonal = torch.diagonal(H[:D, :D])  # (M, D), a view
    diagonal += target.q_weight.T
    g[:D] += target.q_weight * off
    rest = 0.5 * (target.q_weight * off * off).sum(0)
    if target.before is not None and target.information is not None:
        before = target.before
        moved = torch.cat([
            state.q - before.q,
            vector_from_rotation(matmul(before.R.transpose(0, 1), state.R)),
            matmul(before.R.transpose(0, 1), state.T - before.T),
        ])  # fmt: skip
        pull = matmul(target.information, moved)
        H, g, rest = H + target.information, g + pull, rest + 0.5 * (moved * pull).sum(0)
    return Quadratic(H.permute(2, 0, 1).contiguous(), g.T.contiguous(), square, rest)


_ORDER = [(a, b) for a in range(6) for b in range(a, 7)]
_SQUARE = [_ORDER.index((min(a, b), max(a, b))) for a in range(6) for b in range(6)]
_GRADIENT = [_ORDER.index((a, 6)) for a in range(6)]
