"""Where keypoints should lie: vertices of the Panda's meshes that, added to dream7, lower the Cramér–Rao bound of the pose most.

python -m benchmarks.robokeygen.placement [--points 8] [--scenes 300]

Made `panda15_surface` of `dataengine.robot.keypoints`. Greedy: every point is the candidate that, with those already chosen,
gives the least mean bound on the keypoints of `panda15`; 1.5 px for every point, whether a camera would see it or not.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from torch import Tensor

from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import PANDA_SETS, Placement
from dataengine.robot.meshes import load_link_meshes
from training.kinematics import KeypointChain
from training.normal_equations import State, keypoint_jacobian
from training.scene_statistics import Scenes, joint_prior, project, sample_scenes

FOV_DEG, SIGMA_PX = 70.21, 1.5
PER_LINK = 16
MOVED_BY_GRIPPER = ("panda_leftfinger", "panda_rightfinger")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    for (link, offset), bound_mm in place(given.points, given.scenes, given.seed):
        sys.stdout.write(f"{link} {offset}: {bound_mm:.2f} mm\n")
    return 0


def place(points: int, scenes: int, seed: int) -> list[tuple[Placement, float]]:
    """Chosen points and the mean bound (mm, root mean square of a keypoint of panda15) with them and those before."""
    candidates = surface_points()
    judged = len(PANDA_SETS["panda15"])
    chain = chain_of((*PANDA_SETS["panda15"], *candidates))
    drawn = sample_scenes(chain, scenes, FOV_DEG, torch.Generator().manual_seed(seed))
    G, information = point_information(chain, drawn)
    joints = torch.arange(chain.dof)
    F = information[:, : len(PANDA_SETS["dream7"])].sum(1)
    F[:, joints, joints] += joint_prior(chain).std ** -2
    chosen: list[tuple[Placement, float]] = []
    left = list(range(judged, len(chain)))
    for _ in range(points):
        bounds = [mean_bound_m(F + information[:, j], G[:, :judged]) for j in left]
        best = int(np.argmin(bounds))
        row = left.pop(best)
        F = F + information[:, row]
        chosen.append((candidates[row - judged], 1e3 * bounds[best]))
    return chosen


def surface_points(per_link: int = PER_LINK) -> list[Placement]:
    """Vertices far from one another on every link that the arm alone moves, to 1 mm."""
    found: list[Placement] = []
    for mesh in load_link_meshes(load_robot("panda")):
        if mesh.link in MOVED_BY_GRIPPER:
            continue
        cloud = mesh.vertices_m
        nearest = np.linalg.norm(cloud - cloud.mean(0), axis=1)
        for number in range(per_link):
            point = cloud[int(nearest.argmax())]
            x, y, z = (round(float(v), 3) for v in point)
            found.append((mesh.link, (x, y, z)))
            away = np.linalg.norm(cloud - point, axis=1)
            nearest = away if number == 0 else np.minimum(nearest, away)
    return found


def point_information(chain: KeypointChain, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Jacobian (B, N, 3, D + 6) of the keypoints and Fisher information (B, N, D + 6, D + 6) of each one's projection."""
    G = keypoint_jacobian(chain, State(scenes.q.T, scenes.R.permute(1, 2, 0), scenes.T.T))
    step = 1e-6
    ends = [project(scenes.K[:, None], scenes.X_cam[..., None, :] + s * step * torch.eye(3, dtype=G.dtype)) for s in (1, -1)]
    J = ((ends[0] - ends[1]) / (2 * step)).mT @ G  # (B, N, 2, D + 6)
    return G, J.mT @ J / SIGMA_PX**2


def mean_bound_m(F: Tensor, G: Tensor) -> float:
    """Mean over scenes of the root mean square error of the keypoints with Jacobian G (B, N, 3, P) under information F (B, P, P)."""
    variance = torch.einsum("bnip,bpq,bniq->bn", G, torch.linalg.inv(F), G)
    return float(variance.mean(1).sqrt().mean())


def chain_of(placements: tuple[Placement, ...]) -> KeypointChain:
    """Tables of a set that has no name."""
    name = "candidates"
    PANDA_SETS[name] = placements
    try:
        return KeypointChain.from_model(load_robot("panda"), name)
    finally:
        del PANDA_SETS[name]


if __name__ == "__main__":
    raise SystemExit(main())
