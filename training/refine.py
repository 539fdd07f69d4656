"""Maximum a posteriori joint positions and camera pose from 2D keypoints: many starts, all frames at once.

Minimises over (q, R, T), with X_cam = R FK(q) + T and S_n the covariance of keypoint n,

    1/2 sum_n rho(|S_n^-1/2 (project(K, X_cam_n) - uv_n)|^2) + 1/2 |(q - mean) / std|^2 + temporal prior,   q within limits,

by Levenberg-Marquardt. rho(s) = -2 log((exp(-s/2) + k) / (1 + k)) is the likelihood of a keypoint that is an outlier of
known share and size: quadratic for inliers, flat for outliers. Its scale shrinks from wide to 1 during the first
iterations (graduated non-convexity, Blake and Zisserman 1987), so that far starts see all points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dataengine.errors import ConfigError
from training.kinematics import KeypointChain
from training.normal_equations import Quadratic, State, Target, cost, expand, keypoint_jacobian, keypoints_in_camera, weights
from training.rotations import matmul, rotation_from_vector
from training.scene_statistics import JointPrior

_IGNORED = 1e4
"""Relative density of outliers that leaves a point no weight."""


@dataclass(frozen=True)
class RefineOptions:
    """Settings of the solver; the defaults are those of the benchmark."""

    iterations: int = 30
    anneal_iterations: int = 6
    """The first iterations, during which the scale of the loss falls to 1."""
    first_scale_px: float = 12.0
    """The loss begins as if inliers had this standard deviation."""
    outlier_share: float = 0.01
    """Assumed share of outliers. Of 3 % true ones a belief in 1 % loses nothing, and it trusts far inliers more."""
    outlier_px: float = 20.0
    """Standard deviation of outliers per axis."""
    screen_iterations: int = 12
    finalists: int = 8
    """After `screen_iterations` only the best `finalists` of more starts go on; 0: all do."""
    first_damping: float = 1e-2
    damping_down: float = 0.2
    damping_up: float = 5.0


@dataclass(frozen=True, eq=False)
class Observation:
    """2D keypoints of B frames."""

    uv: Tensor
    """(B, N, 2) px; anything where not seen."""
    K: Tensor
    """(B, 3, 3) px."""
    covariance: Tensor
    """(B, N, 2, 2) px^2 of each point as an inlier."""
    seen: Tensor
    """(B, N) bool."""

    def __getitem__(self, rows: Tensor) -> Observation:
        return Observation(self.uv[rows], self.K[rows], self.covariance[rows], self.seen[rows])

    @staticmethod
    def isotropic(uv: Tensor, K: Tensor, sigma_px: float, seen: Tensor | None = None) -> Observation:
        """The same standard deviation for all points."""
        covariance = sigma_px**2 * torch.eye(2, dtype=uv.dtype, device=uv.device).expand(*uv.shape[:-1], 2, 2)
        return Observation(uv, K, covariance, torch.ones_like(uv[..., 0], dtype=torch.bool) if seen is None else seen)


@dataclass(frozen=True, eq=False)
class TemporalPrior:
    """The state expected for each frame, normal in (q, w, t): (B, D), (B, 3, 3), (B, 3) and information (B, D + 6, D + 6)."""

    q: Tensor
    R: Tensor
    T: Tensor
    information: Tensor

    def __getitem__(self, rows: Tensor) -> TemporalPrior:
        return TemporalPrior(self.q[rows], self.R[rows], self.T[rows], self.information[rows])


@dataclass(frozen=True, eq=False)
class Starts:
    """K starts of B frames: q (B, K, D), R (B, K, 3, 3), T (B, K, 3)."""

    q: Tensor
    R: Tensor
    T: Tensor
    trusted: Tensor | None = None
    """(B, K, N) bool: keypoints that a start goes by while the loss is wide; None: all. Starts that differ in this find
    their way past an outlier that would pull all of them to the same wrong place."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One state per frame: the start that ended lowest."""

    q: Tensor
    """(B, D) joint positions."""
    R: Tensor
    """(B, 3, 3) rotation of T_cam_base."""
    T: Tensor
    """(B, 3) m."""
    cost: Tensor
    """(B,) minus log posterior, up to a constant."""
    covariance: Tensor
    """(B, D + 6, D + 6) of (q, w, t): joints rad, then the base's turn and shift in its own frame, R exp([w]x) and T + R t."""
    X_cam: Tensor
    """(B, N, 3) keypoints, m."""
    keypoint_covariance: Tensor
    """(B, N, 3, 3) of X_cam, m^2."""
    inlier: Tensor
    """(B, N) weight of each point in the last step: 1 inlier, 0 outlier or not seen."""
    all_costs: Tensor
    """(B, finalists) where each start that went to the end ended."""


def refine(
    chain: KeypointChain,
    observation: Observation,
    starts: Starts,
    prior: JointPrior,
    options: RefineOptions | None = None,
    temporal: TemporalPrior | None = None,
) -> Estimate:
    """Best of the K starts of every frame, in the dtype and on the device of `starts.q`.

    A frame's result does not depend on the other frames. ConfigError for shapes that do not fit.
    """
    options = options or RefineOptions()
    _check(chain, observation, starts)
    B, K = starts.q.shape[:2]
    target = make_target(observation, prior, options, starts.q, temporal)
    frame = torch.arange(B * K, device=starts.q.device) // K
    state = State(starts.q.reshape(B * K, -1).T, starts.R.reshape(-1, 3, 3).permute(1, 2, 0), starts.T.reshape(-1, 3).T)
    trusted = None if starts.trusted is None else starts.trusted.reshape(B * K, -1).T
    if 0 < options.finalists < K and 0 < options.screen_iterations < options.iterations:
        short = replace(options, iterations=max(options.screen_iterations, options.anneal_iterations))
        state, scores = minimise(chain, target[frame], state, prior, short, trusted)
        kept = torch.nan_to_num(scores, nan=torch.inf).reshape(B, K).topk(options.finalists, dim=1, largest=False).indices.sort(1).values
        rows = (kept + K * torch.arange(B, device=kept.device)[:, None]).flatten()
        left = replace(options, iterations=options.iterations - short.iterations, anneal_iterations=0)
        K, frame, state, trusted = options.finalists, frame[rows], state[rows], None
    else:
        left = options
    state, scores = minimise(chain, target[frame], state, prior, left, trusted)
    scores = torch.nan_to_num(scores, nan=torch.inf).reshape(B, K)
    best = scores.argmin(1) + K * torch.arange(B, device=scores.device)
    return describe(chain, target, state[best], scores)


def make_target(
    observation: Observation, prior: JointPrior, options: RefineOptions, like: Tensor, temporal: TemporalPrior | None = None
) -> Target:
    """What guesses for these B frames are compared with, in the dtype and on the device of `like`."""
    K, covariance, uv, seen = (v.to(like.device) for v in (observation.K, observation.covariance, observation.uv, observation.seen))
    inverse = torch.linalg.inv(K.double())
    uv = torch.where(seen[..., None], uv.double(), K[:, None, :2, 2].double())
    c = uv @ inverse[:, :2, :2].mT + inverse[:, None, :2, 2]
    # Whitening: inverse of the lower Cholesky factor, of points in pixels = K[:2, :2] times normalised points.
    factor = torch.linalg.cholesky(covariance.double())
    A = torch.linalg.solve_triangular(factor, K[:, None, :2, :2].double().expand_as(factor), upper=False)
    A = torch.where(seen[..., None, None], A, torch.zeros_like(A))
    area = factor[..., 0, 0] * factor[..., 1, 1]
    k = options.outlier_share / (1 - options.outlier_share) * area / options.outlier_px**2
    parts = (c.permute(1, 2, 0), A.permute(1, 2, 3, 0), area.sqrt().T, k.clamp(min=1e-30).T)
    local = prior.to(like.dtype, like.device)
    before = information = None
    if temporal is not None:
        before = State(temporal.q.T, temporal.R.permute(1, 2, 0), temporal.T.T)
        before = State(*(v.to(like) for v in (before.q, before.R, before.T)))
        information = temporal.information.permute(1, 2, 0).to(like)
    points, whitening, sigma_px, density = (v.to(like).contiguous() for v in parts)
    return Target(points, whitening, sigma_px, density, local.mean[:, None], local.std[:, None] ** -2, before, information)


def minimise(
    chain: KeypointChain, target: Target, state: State, prior: JointPrior, options: RefineOptions, trusted: Tensor | None = None
) -> tuple[State, Tensor]:
    """Levenberg-Marquardt from M guesses: where each ended and its cost (M,); `trusted` (N, M) as in `Starts`."""
    final = target
    if trusted is not None:
        target = replace(target, k=torch.where(trusted, target.k, torch.full_like(target.k, _IGNORED)))
    local = prior.to(state.q.dtype, state.q.device)
    lower, upper = local.lower[:, None], local.upper[:, None]
    state = State(state.q.clamp(lower, upper), state.R, state.T)
    damping = torch.full_like(state.q[0], options.first_damping)
    model = expand(chain, target, state, _width(target, options, 0))
    for iteration in range(options.iterations):
        wide = _width(target, options, iteration + 1)
        trial = _move(state, _step(model, damping, state.q, lower, upper), lower, upper)
        found = expand(chain, target, trial, wide)
        better = cost(found, target.k, wide) < cost(model, target.k, wide)
        model = found.where(better, model)
        state = trial.where(better, state)
        damping = torch.where(better, damping * options.damping_down, damping * options.damping_up).clamp(1e-9, 1e9)
        if iteration + 1 == options.anneal_iterations:  # slopes of a wider loss are no slopes of the final one
            target = final
            model = expand(chain, target, state, wide)
    return state, cost(model, final.k, torch.ones_like(final.sigma_px))


def describe(chain: KeypointChain, target: Target, state: State, all_costs: Tensor) -> Estimate:
    """Cost, covariance (inverse of the Gauss-Newton Hessian: Laplace's approximation) and keypoints of one state per frame."""
    target, state = target.double(), state.double()
    one = torch.ones_like(target.sigma_px)
    model = expand(chain, target, state, one)
    # A pose far away has next to no information: a floor far below any real one keeps the inverse finite.
    floor = 1e-12 * torch.diagonal(model.H, dim1=1, dim2=2).amax(1)[:, None, None] * torch.eye(model.H.shape[-1], device=one.device)
    covariance = torch.linalg.inv(model.H + floor)
    covariance = 0.5 * (covariance + covariance.mT)
    G = keypoint_jacobian(chain, state)
    X_cam = keypoints_in_camera(chain, state).permute(2, 0, 1)
    keypoint_covariance = G @ covariance[:, None] @ G.mT
    inlier = weights(model.square, target.k, one) * (target.A != 0).any(1).any(1)
    parts = (state.q.T, state.R.permute(2, 0, 1), state.T.T, cost(model, target.k, one))
    parts = (*parts, covariance, X_cam, keypoint_covariance, inlier.T, all_costs)
    return Estimate(*(v.to(all_costs.dtype).contiguous() for v in parts))


def _width(target: Target, options: RefineOptions, iteration: int) -> Tensor:
    """(N, M) scale of the loss in standard deviations: geometric from `first_scale_px`, 1 after the annealing."""
    if iteration >= options.anneal_iterations:
        return torch.ones_like(target.sigma_px)
    share = iteration / options.anneal_iterations
    return (options.first_scale_px ** (1 - share) / target.sigma_px ** (1 - share)).clamp(min=1.0)


def _step(model: Quadratic, damping: Tensor, q: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Damped Gauss-Newton step (D + 6, M); joints that press against a limit stay."""
    D = len(q)
    g = model.g.clone()
    stuck = ((q <= lower) & (g[:, :D].T > 0)) | ((q >= upper) & (g[:, :D].T < 0))
    free = torch.ones_like(g)
    free[:, :D] = (~stuck.T).to(g.dtype)
    H = model.H * (free[:, :, None] * free[:, None])
    diagonal = torch.diagonal(H, dim1=1, dim2=2)
    diagonal += damping[:, None] * torch.diagonal(model.H, dim1=1, dim2=2) + (1 - free)
    L, _ = torch.linalg.cholesky_ex(H)
    return -torch.cholesky_solve((g * free)[..., None], L)[..., 0].T


def _move(state: State, step: Tensor, lower: Tensor, upper: Tensor) -> State:
    D = len(state.q)
    q = torch.minimum(torch.maximum(state.q + step[:D], lower), upper)
    return State(q, matmul(state.R, rotation_from_vector(step[D : D + 3])), state.T + matmul(state.R, step[D + 3 :]))


def _check(chain: KeypointChain, observation: Observation, starts: Starts) -> None:
    B, N = observation.seen.shape
    if len(chain) != N:
        raise ConfigError(f"{N} keypoints were given, the set '{chain.keypoint_set}' of {chain.robot} has {len(chain)}")
    if starts.q.ndim != 3 or len(starts.q) != B or starts.q.shape[-1] != chain.dof or not starts.q.shape[1]:
        raise ConfigError(f"starts of shape {tuple(starts.q.shape)} were given; expected ({B} frames, at least 1, {chain.dof} joints)")
