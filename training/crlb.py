"""How accurate keypoint pose estimation can be: the Cramer-Rao bound of one frame, and estimators measured against it.

Fisher information of joints and camera pose under normal pixel noise, plus the joint prior's: F = sum J^T S^-1 J + diag(1 /
std^2). C = F^-1 bounds the covariance of any unbiased estimator (Kay 1993, ch. 3; van Trees 1968 for the prior). It is local:
with an informative prior an estimator can lie slightly below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.kinematics import KeypointChain
from training.normal_equations import State, keypoint_jacobian
from training.scene_statistics import JointPrior, Scenes


@dataclass(frozen=True, eq=False)
class Bound:
    """Of B frames. Parameters are (q, w, t) as in `refine.Estimate`: joints, and the base's twist in its own frame."""

    covariance: Tensor
    """(B, D + 6, D + 6)."""
    jacobian: Tensor
    """(B, N, 3, D + 6) of the keypoints in the camera frame."""

    def keypoint_covariance(self) -> Tensor:
        """(B, N, 3, 3) m^2."""
        return self.jacobian @ self.covariance[:, None] @ self.jacobian.mT

    def mean_square_m2(self) -> Tensor:
        """(B,) bound of the mean over keypoints of |error|^2. ADD^2 is at most that mean, so this is a loose bound of it."""
        return torch.einsum("bnii->bn", self.keypoint_covariance()).mean(1)

    def draw_add_m(self, draws: int, generator: torch.Generator) -> Tensor:
        """(B, draws) ADD of an efficient estimator: of errors drawn from the bound's normal distribution."""
        L = torch.linalg.cholesky(self.covariance)
        normal = torch.randn(*L.shape[:2], draws, generator=generator, dtype=L.dtype, device=L.device)
        return torch.einsum("bnip,bps->bsni", self.jacobian, L @ normal).norm(dim=-1).mean(-1)


def frame_bound(chain: KeypointChain, scenes: Scenes, covariance_px: Tensor, prior: JointPrior, extra: Tensor | None = None) -> Bound:
    """The bound at the scenes' true states, float64.

    covariance_px: (B, N, 2, 2), (2, 2) or anything that broadcasts; points not `visible` count nothing. extra: further
    information (B, D + 6, D + 6), for example of a temporal prior.
    """
    scenes = scenes.to(torch.float64, scenes.q.device)
    G = keypoint_jacobian(chain, State(scenes.q.T, scenes.R.permute(1, 2, 0), scenes.T.T))
    X, Y, z = scenes.X_cam.unbind(-1)
    zero = torch.zeros_like(z)
    slope = torch.stack([1 / z, zero, -X / z**2, zero, 1 / z, -Y / z**2], -1).unflatten(-1, (2, 3))
    J = scenes.K[:, None, :2, :2] @ slope @ G  # (B, N, 2, D + 6)
    precision = torch.linalg.inv(covariance_px.to(torch.float64)).expand(*z.shape, 2, 2) * scenes.visible[..., None, None]
    F = torch.einsum("bnip,bnij,bnjq->bpq", J, precision, J)
    joints = torch.arange(chain.dof, device=F.device)
    F[:, joints, joints] += prior.to(torch.float64, F.device).std ** -2
    if extra is not None:
        F = F + extra
    return Bound(torch.linalg.inv(F), G)


@dataclass(frozen=True)
class Efficiency:
    """An estimator's squared ADD over the bound of the same frame."""

    median: float
    mean: float
    median_of_bound: float
    """What an efficient estimator's median ratio would be: below 1, since squared errors are skew. Its mean is 1."""


def efficiency(add_m: Tensor, bound: Bound, generator: torch.Generator, draws: int = 256) -> Efficiency:
    """Ratio of ADD^2 (B,) to E[ADD^2] of an efficient estimator, found from random draws."""
    squares = bound.draw_add_m(draws, generator).square()
    expected = squares.mean(1)
    ratio = add_m.to(expected) ** 2 / expected
    return Efficiency(float(ratio.median()), float(ratio.mean()), float((squares / expected[:, None]).median()))
