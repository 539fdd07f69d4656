"""From a lifter's samples to starts of the refinement: K states of every frame."""

from dataclasses import replace

import torch
from torch import Tensor

from training.lifter import Frames, Lifter, SamplingConfig, lift, make_noise
from training.refine import Observation, Starts
from training.starts import lifted_starts as starts_of_points


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

    `sampling` sets sampler and steps (its `samples` is overruled; the regression lifter has one); X_prev (B, N, 3) m as in `lift`.
    """
    chosen = replace(sampling or SamplingConfig(), samples=samples)
    frames = frames_of(observation)
    X = lift(lifter, frames, chosen, make_noise(lifter, len(frames.uv_px), chosen, generator), X_prev)
    return starts_of_samples(lifter, X, observation, generator)


def starts_of_samples(lifter: Lifter, X_cam: Tensor, observation: Observation, generator: torch.Generator) -> Starts:
    """Samples (B, K, N, 3) m → joints by the joint head, poses by a robust fit of their forward kinematics."""
    chain = lifter.chain
    with torch.no_grad():
        q = lifter.joint_angles(X_cam)
    lower, upper = (torch.tensor(limit, dtype=q.dtype, device=q.device) for limit in (chain.lower, chain.upper))
    return starts_of_points(chain, q.clamp(lower, upper), X_cam, observation, generator)
