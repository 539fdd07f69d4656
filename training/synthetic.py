"""Estimators judged on drawn scenes: exact forward kinematics, a camera, and 2D keypoints with a known error model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dataengine.errors import ConfigError, unknown_name
from training.crlb import frame_bound
from training.fit import fit_pose
from training.kinematics import KeypointChain
from training.proposals import frames_of
from training.refine import Estimate, Observation, RefineOptions, refine
from training.scene_statistics import DetectorNoise, Scenes, joint_prior, sample_scenes
from training.search import search
from training.starts import lifted_starts, make_pool
from training.truth import Estimates, Truth, joined, truth_of_scenes

if TYPE_CHECKING:
    from training.lifter import Lifter, SamplingConfig

AT_ONCE = 128
"""Frames in one batch of the solver."""
LEAST_SIGMA_PX = 0.02
"""What the solver takes exact points for."""
POOL_SIZE = 1024
STARTS = ("lifter", "search", "both")
BOUND_DRAWS = 128


@dataclass(frozen=True)
class Method:
    """How 2D keypoints become robots. `starts`: lifter; search, without a network; both. Without `refined` the lifter's mean stands."""

    starts: str = "search"
    refined: bool = True
    count: int = 10
    """K: starts, or the lifter's samples."""
    sampling: SamplingConfig | None = None
    solver: RefineOptions | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """One method on one set of scenes."""

    truth: Truth
    estimates: Estimates
    cpu_ms_per_frame: float
    """Of starts and refinement together, all threads."""


def draw(chain: KeypointChain, frames: int, fov_deg: float, seed: int) -> Scenes:
    """Scenes of one camera; the same seed gives the same robots and poses for every camera. float64."""
    return sample_scenes(chain, frames, fov_deg, torch.Generator().manual_seed(seed))


def observe(scenes: Scenes, noise: DetectorNoise, seed: int) -> Observation:
    """What the detector says of scenes; its covariance is that of its normal errors, outliers are not announced."""
    uv, kept = noise.apply(scenes.uv, torch.Generator().manual_seed(seed))
    return Observation.isotropic(uv, scenes.K, max(noise.sigma_px, LEAST_SIGMA_PX), kept & scenes.visible)


def run(
    chain: KeypointChain,
    scenes: Scenes,
    noise: DetectorNoise,
    method: Method,
    lifter: Lifter | None = None,
    seed: int = 0,
    X_prev: Tensor | None = None,
    name: str = "",
) -> Trial:
    """Judge a method; X_prev (B, N, 3) m: estimates of the frames before these. ConfigError for a method that cannot be."""
    if method.starts not in STARTS:
        raise ConfigError(unknown_name("kind of starts", method.starts, STARTS))
    if (method.starts != "search" and lifter is None) or (method.starts != "lifter" and not method.refined):
        raise ConfigError(f"starts '{method.starts}', refined {method.refined}: a lifter must be given, and a search is always refined")
    observation = observe(scenes, noise, seed + 1)
    generator = torch.Generator().manual_seed(seed + 2)
    prior = joint_prior(chain).to(torch.float32)
    pool = make_pool(chain, prior, POOL_SIZE, torch.Generator().manual_seed(0))
    parts: list[dict[str, Tensor]] = []
    began = time.process_time()
    for rows in torch.arange(len(scenes)).split(AT_ONCE):
        part = observation[rows]
        before = None if X_prev is None else X_prev[rows]
        starts = None
        if lifter is not None and method.starts != "search":
            X, q = _lifted(lifter, part, method, generator, before)
            if not method.refined:
                parts.append(_unrefined(lifter, X))
                continue
            starts = lifted_starts(chain, q, X, part, generator)
        if method.starts == "lifter" and starts is not None:
            parts.append(_as_rows(refine(chain, part, starts, prior, method.solver)))
        else:
            parts.append(_as_rows(search(chain, part, prior, pool, generator, starts=starts)))
    spent = time.process_time() - began
    found = {k: torch.cat([p[k] for p in parts]).double().numpy() for k in parts[0]}
    truth = truth_of_scenes(scenes, chain, seed, edges=_skeleton(chain))
    settings = {
        "starts": method.starts,
        "refined": "yes" if method.refined else "no",
        "K": str(method.count),
        "2D noise": f"{noise.sigma_px:g} px",
    }
    if noise.outlier_share:
        settings["outliers"] = f"{noise.outlier_share:.0%} of {noise.outlier_px:g} px"
    estimates = Estimates(
        name or f"{method.starts}, {'refined' if method.refined else 'not refined'}",
        tuple(chain.keypoint_names),
        found["X"],
        tuple(chain.joint_names),
        found["q"],
        found["T"],
        np.where(observation.seen.numpy()[..., None], observation.uv.double().numpy(), np.nan),
        found.get("covariance"),
        truth.ids,
        settings=settings,
    )
    return Trial(truth, estimates, 1e3 * spent / len(scenes))


def bound_draws(chain: KeypointChain, scenes: Scenes, noise: DetectorNoise, seed: int = 0, draws: int = BOUND_DRAWS) -> np.ndarray:
    """(F, draws) ADD, m, of an estimator on the Cramér–Rao bound of the scenes, without outliers."""
    covariance = max(noise.sigma_px, LEAST_SIGMA_PX) ** 2 * torch.eye(2, dtype=torch.float64)
    bound = frame_bound(chain, scenes, covariance, joint_prior(chain))
    return bound.draw_add_m(draws, torch.Generator().manual_seed(seed)).numpy()


def several(trials: Sequence[Trial]) -> Trial:
    """Trials of one method on several cameras as one."""
    first = trials[0].estimates
    arrays = {}
    for name in ("keypoints_m", "joints", "T_cam_base", "detected_px", "covariance_m2"):
        values = [getattr(t.estimates, name) for t in trials]
        arrays[name] = None if values[0] is None else np.concatenate(values)
    truth = joined([t.truth for t in trials])
    spent = sum(t.cpu_ms_per_frame * len(t.truth) for t in trials) / len(truth)
    return Trial(truth, replace(first, **arrays, ids=truth.ids), spent)


def moved(chain: KeypointChain, scenes: Scenes, speed_rad: float, seed: int) -> Scenes:
    """The scenes a frame earlier: joints turned back by a random step of this standard deviation, the camera at rest."""
    generator = torch.Generator().manual_seed(seed)
    step = speed_rad * torch.randn(scenes.q.shape, generator=generator, dtype=scenes.q.dtype)
    q = (scenes.q - step).clamp(torch.tensor(chain.lower), torch.tensor(chain.upper))
    X = chain.forward(q) @ scenes.R.mT + scenes.T[:, None]
    uvw = X @ scenes.K.mT
    return replace(scenes, q=q, X_cam=X, uv=uvw[..., :2] / uvw[..., 2:])


def judged_on(trial: Trial, scenes: Scenes, chain: KeypointChain, other: KeypointChain) -> Trial:
    """The same estimates held against other keypoints of the robot than those that were seen; `chain` is of the latter.

    No joint may move `other` that does not move `chain`. Covariances are of single points and are dropped.
    """
    columns = [chain.joint_names.index(name) for name in other.joint_names]
    X = other.forward(scenes.q[:, columns]) @ scenes.R.mT + scenes.T[:, None]
    uvw = X @ scenes.K.mT
    seen = torch.ones(X.shape[:2], dtype=torch.bool)
    moved = replace(scenes, q=scenes.q[:, columns], X_cam=X, uv=uvw[..., :2] / uvw[..., 2:], visible=seen)
    truth = truth_of_scenes(moved, other, 0, edges=_skeleton(other))
    found = trial.estimates
    assert found.joints is not None and found.T_cam_base is not None
    joints, pose = torch.from_numpy(found.joints[:, columns]), torch.from_numpy(found.T_cam_base)
    points = (other.forward(joints) @ pose[:, :3, :3].mT + pose[:, None, :3, 3]).numpy()
    names = {"keypoint_names": tuple(other.keypoint_names), "joint_names": tuple(other.joint_names)}
    missing = {"detected_px": None, "covariance_m2": None}
    return replace(trial, truth=truth, estimates=replace(found, keypoints_m=points, joints=joints.numpy(), **names, **missing))


def _skeleton(chain: KeypointChain) -> tuple[tuple[int, int], ...]:
    """What pictures of the robot join."""
    from dataengine.view.skeleton import skeleton_edges
    from training.predict import drawing_names

    return skeleton_edges(drawing_names(chain))


def _lifted(lifter: Lifter, part: Observation, method: Method, generator: torch.Generator, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Samples (B, K, N, 3) m and their joints (B, K, D) within the limits, float32."""
    from training.lifter import SamplingConfig, lift, make_noise

    sampling = replace(method.sampling or SamplingConfig(), samples=method.count)
    frames = frames_of(part)
    X = lift(lifter, frames, sampling, make_noise(lifter, len(frames.uv_px), sampling, generator), before)
    return X, _joints(lifter, X)


def _joints(lifter: Lifter, X: Tensor) -> Tensor:
    lower, upper = (torch.tensor(b, dtype=X.dtype) for b in (lifter.chain.lower, lifter.chain.upper))
    with torch.no_grad():
        return lifter.joint_angles(X).clamp(lower, upper)


def _unrefined(lifter: Lifter, X: Tensor) -> dict[str, Tensor]:
    """The paper's pipeline: mean of the samples, joints read from it, forward kinematics laid on it."""
    mean = X.mean(1)
    q = _joints(lifter, mean)
    robot = lifter.chain.forward(q)
    fit = fit_pose(robot, mean)
    return {"X": robot @ fit.R.mT + fit.T[:, None], "q": q, "T": _pose(fit.R, fit.T)}


def _as_rows(found: Estimate) -> dict[str, Tensor]:
    return {"X": found.X_cam, "q": found.q, "T": _pose(found.R, found.T), "covariance": found.keypoint_covariance}


def _pose(R: Tensor, T: Tensor) -> Tensor:
    out = torch.eye(4, dtype=R.dtype).repeat(len(R), 1, 1)
    out[:, :3, :3], out[:, :3, 3] = R, T
    return out
