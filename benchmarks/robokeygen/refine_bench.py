"""Accuracy of the refinement without a network, on drawn scenes: the rows of the efficiency table.

`measure()` gives everything as one dictionary; the bars are those of docs/benchmarks/robokeygen.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from training.crlb import efficiency, frame_bound
from training.kinematics import KeypointChain
from training.refine import Estimate, Observation
from training.rotations import vector_from_rotation
from training.scene_statistics import FOVS_DEG, DetectorNoise, JointPrior, Scenes, joint_prior, sample_scenes
from training.search import SearchOptions, search
from training.starts import StartPool, make_pool

SIGMA_PX, EXACT_SIGMA_PX = 1.5, 0.02
POOL_SIZE = 1024
AT_ONCE = 125
CHI2_90 = {3: 6.2514, 6: 10.6446}
"""90 % quantiles of chi-square."""
STARTS_SWEPT = (1, 2, 4, 8, 16, 32)

Row = dict[str, float]


def measure(frames: int = 500, seed: int = 0, keypoint_set: str = "panda15") -> dict[str, dict[str, Row]]:
    """{"exact" | "noise" | "outliers": {FOV: row}, "starts": {K: row}} of the Panda; one thread, CPU time.

    A row: auc (%), median_mm, mean_mm, their Cramer-Rao counterparts bound_*, efficiency_median, efficiency_mean,
    keypoint_coverage, pose_coverage (of 90 % regions), cpu_ms_per_frame.
    """
    from dataengine.robot.catalogue import load_robot

    chain = KeypointChain.from_model(load_robot("panda"), keypoint_set)
    kinds = {
        "exact": (DetectorNoise(), EXACT_SIGMA_PX),
        "noise": (DetectorNoise(SIGMA_PX), SIGMA_PX),
        "outliers": (DetectorNoise(SIGMA_PX, 0.03, 20.0), SIGMA_PX),
    }
    rows = {
        name: {f"{fov:g}": measure_row(chain, frames, fov, noise, sigma, SearchOptions(), seed) for fov in FOVS_DEG}
        for name, (noise, sigma) in kinds.items()
    }
    rows["starts"] = {
        str(K): measure_row(chain, frames, FOVS_DEG[1], *kinds["outliers"], SearchOptions(starts=(K,)), seed) for K in STARTS_SWEPT
    }
    return rows


def measure_row(
    chain: KeypointChain, frames: int, fov_deg: float, noise: DetectorNoise, sigma_px: float, options: SearchOptions, seed: int
) -> Row:
    """One row: scenes of this camera, keypoints with this noise, the solver told sigma_px."""
    prior = joint_prior(chain)
    pool = make_pool(chain, prior, POOL_SIZE, torch.Generator().manual_seed(seed + 3))
    scenes = sample_scenes(chain, frames, fov_deg, torch.Generator().manual_seed(seed))
    uv, seen = noise.apply(scenes.uv, torch.Generator().manual_seed(seed + 1))
    observation = Observation.isotropic(uv, scenes.K, sigma_px, seen)
    began = time.process_time()
    parts = _solve(chain, observation, prior, pool, options, seed + 2)
    spent = time.process_time() - began
    add = torch.cat([(e.X_cam - scenes.X_cam[rows]).norm(dim=-1).mean(1) for rows, e in parts])
    bound = frame_bound(chain, replace(scenes, visible=seen), sigma_px**2 * torch.eye(2), prior)
    ratio = efficiency(add, bound, torch.Generator().manual_seed(seed))
    drawn = bound.draw_add_m(16, torch.Generator().manual_seed(seed)).flatten()
    keypoint, pose = (np.mean(part) for part in zip(*(_coverage(e, scenes[rows]) for rows, e in parts), strict=True))
    return {
        **_summary(add),
        **{f"bound_{name}": value for name, value in _summary(drawn).items()},
        "efficiency_median": ratio.median,
        "efficiency_mean": ratio.mean,
        "keypoint_coverage": float(keypoint),
        "pose_coverage": float(pose),
        "cpu_ms_per_frame": 1e3 * spent / frames,
    }


def _solve(
    chain: KeypointChain, observation: Observation, prior: JointPrior, pool: StartPool, options: SearchOptions, seed: int
) -> list[tuple[torch.Tensor, Estimate]]:
    """In parts of `AT_ONCE` frames, as a caller would: a frame's answer does not depend on the others but for its random masks."""
    generator = torch.Generator().manual_seed(seed)
    parts: Sequence[torch.Tensor] = torch.arange(len(observation.uv)).split(AT_ONCE)
    return [(rows, search(chain, observation[rows], prior, pool, generator, options)) for rows in parts]


def _summary(add_m: torch.Tensor) -> Row:
    """AUC@0.1 m in percent, median and mean in mm."""
    auc = 100 * (1 - add_m.clamp(max=0.1) / 0.1).mean()
    return {"auc": float(auc), "median_mm": 1e3 * float(add_m.median()), "mean_mm": 1e3 * float(add_m.mean())}


def _coverage(estimate: Estimate, scenes: Scenes) -> tuple[float, float]:
    """Shares of keypoints and of poses inside their 90 % ellipsoids."""
    error = estimate.X_cam - scenes.X_cam
    square = torch.einsum("bni,bnij,bnj->bn", error, torch.linalg.inv(estimate.keypoint_covariance), error)
    turn = vector_from_rotation((estimate.R.mT @ scenes.R).permute(1, 2, 0)).T
    shift = (estimate.R.mT @ (scenes.T - estimate.T)[..., None])[..., 0]
    pose, D = torch.cat([turn, shift], 1), estimate.q.shape[1]
    whole = torch.einsum("bi,bij,bj->b", pose, torch.linalg.inv(estimate.covariance[:, D:, D:]), pose)
    return float((square < CHI2_90[3]).double().mean()), float((whole < CHI2_90[6]).double().mean())
