"""Where the refinement begins: K states (joints, R, T) of every frame, from a lifter's samples or from a search."""

import torch
from torch import Tensor

from training.fit import fit_pose
from training.kinematics import KeypointChain
from training.lifter import Frames, Lifter, SamplingConfig, lift, make_noise
from training.refine import Observation, Starts
from training.scene_statistics import JointPrior, _cameras

CANDIDATES = 512
"""Random states that a search draws and ranks per frame."""
CAP_PX = 60.0
"""Errors beyond this count no more: outliers must not decide the ranking."""


def frames_of(observation: Observation) -> Frames:
    """What the lifter sees of it: one size of errors per frame, the median over its points."""
    variance = observation.covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    known = torch.where(observation.seen, variance, torch.nan)
    sigma = torch.nan_to_num(known.nanmedian(1).values, nan=1.0).sqrt()
    return Frames(observation.uv.float(), observation.K.float(), observation.seen, sigma.float())


def lifted_starts(
    lifter: Lifter,
    observation: Observation,
    samples: int,
    generator: torch.Generator,
    sampling: SamplingConfig | None = None,
    X_prev: Tensor | None = None,
) -> Starts:
    """Every sample of the lifter, its joint angles, and the pose that lays the robot of these joints on the sample.

    `sampling` sets sampler and steps (its `samples` is overruled); X_prev (B, N, 3) m as in `lift`. In float64.
    """
    chosen = sampling or SamplingConfig()
    chosen = SamplingConfig(chosen.sampler, chosen.steps, chosen.spacing, samples, chosen.eta, chosen.start)
    frames = frames_of(observation)
    X = lift(lifter, frames, chosen, make_noise(lifter, len(frames.uv_px), chosen, generator), X_prev)
    return states_of(lifter, X)


def states_of(lifter: Lifter, X_cam: Tensor) -> Starts:
    """Samples (B, K, N, 3) m → joints by the joint head, pose by robust fit of their forward kinematics."""
    chain = lifter.chain
    with torch.no_grad():
        q = lifter.joint_angles(X_cam).double()
    q = q.clamp(torch.tensor(chain.lower, device=q.device), torch.tensor(chain.upper, device=q.device))
    fit = fit_pose(chain.forward(q), X_cam.double())
    return Starts(q, fit.R, fit.T)


def searched_starts(chain: KeypointChain, observation: Observation, prior: JointPrior, count: int, generator: torch.Generator) -> Starts:
    """The best `count` of many random states, after each was moved and scaled in depth to cover the points. In float64.

    One camera distance is found in closed form per candidate: the ratio of the spreads of predicted and measured rays.
    """
    uv, K, seen = observation.uv.double(), observation.K.double(), observation.seen
    q = prior.to(torch.float64, uv.device).sample(CANDIDATES, generator)
    R, T = _cameras(q, generator)
    X = chain.forward(q) @ R.mT + T[:, None]  # (M, N, 3)
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)[:, None]
    measured = (uv - K[:, None, :2, 2]) / focal  # (B, N, 2)
    weight = seen.double()[:, None, :, None]
    total = weight.sum(2, keepdim=True).clamp(min=1.0)

    def spread(points: Tensor) -> tuple[Tensor, Tensor]:
        middle = (points * weight).sum(2, keepdim=True) / total
        return middle, ((points - middle).square() * weight).sum((2, 3)).sqrt()

    middle, wide = spread(measured[:, None])
    shift = torch.zeros(len(uv), CANDIDATES, 3, dtype=torch.float64, device=uv.device)
    for _ in range(2):  # the second time from where perspective is already nearly right
        moved = X[None] + shift[:, :, None]
        guess_middle, guess_wide = spread(moved[..., :2] / moved[..., 2:])
        depth = moved[..., 2].mean(-1)
        new_depth = (depth * guess_wide / wide.clamp(min=1e-6)).clamp(0.4, 6.0)
        across = (middle - guess_middle)[:, :, 0] * new_depth[..., None] + guess_middle[:, :, 0] * (new_depth - depth)[..., None]
        shift = shift + torch.cat([across, (new_depth - depth)[..., None]], -1)
        # points may not come behind the camera
        shift[..., 2] += (0.2 - (X[None, ..., 2] + shift[..., None, 2]).amin(-1)).clamp(min=0.0)
    moved = X[None] + shift[:, :, None]
    error = ((moved[..., :2] / moved[..., 2:] - measured[:, None]) * focal[:, None]).norm(dim=-1).clamp(max=CAP_PX)
    best = (error * weight[..., 0]).sum(-1).topk(count, dim=1, largest=False).indices
    frame = torch.arange(len(uv), device=uv.device)[:, None]
    return Starts(q[best], R[best], T[best] + shift[frame, best])
