"""Cost of the refinement, and our kinematics beside pytorch-kinematics: same numbers, less time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from training.kinematics import KeypointChain
from training.refine import refine
from training.scene_statistics import DetectorNoise, joint_prior
from training.starts import make_pool, pool_starts
from training.synthetic import draw, observe

STARTS, ROUNDS = 10, 5
BATCHES = (1, 4096)


def measure(chain: KeypointChain, frames: int, seed: int) -> dict[str, dict[str, float]]:
    """{"refine": …, "kinematics": …}; times are CPU time of the process, the least of several rounds."""
    return {"refine": measure_refine(chain, frames, seed), "kinematics": measure_kinematics(chain, seed)}


def measure_refine(chain: KeypointChain, frames: int, seed: int) -> dict[str, float]:
    """Starts and refinement apart, of noisy scenes at once."""
    scenes = draw(chain, frames, 70.21, seed)
    observation = observe(scenes, DetectorNoise(1.5), seed)
    prior = joint_prior(chain).to(torch.float32)
    pool = make_pool(chain, prior, 1024, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    starts = pool_starts(pool, observation, STARTS, generator)
    search_s = least_cpu_s(lambda: pool_starts(pool, observation, STARTS, generator))
    refine_s = least_cpu_s(lambda: refine(chain, observation, starts, prior))
    per_frame = 1e3 / frames
    return {
        "cpu_ms_per_frame_start": refine_s * per_frame / STARTS,
        "cpu_ms_per_frame": refine_s * per_frame,
        "cpu_ms_per_frame_of_search": search_s * per_frame,
    }


def measure_kinematics(chain: KeypointChain, seed: int) -> dict[str, float]:
    """Ours in float32 against the peer's in float64, and both in float32 against the clock; keypoints of links as both have them."""
    peer, names = _peer(chain)
    generator = torch.Generator().manual_seed(seed)
    lower, upper = torch.tensor(chain.lower), torch.tensor(chain.upper)
    q = lower + (upper - lower) * torch.rand(BATCHES[1], chain.dof, generator=generator, dtype=torch.float64)
    rows = [chain.keypoint_names.index(n) for n in names]
    found: dict[str, float] = {
        "difference_m": float((chain.forward(q.float())[:, rows].double() - peer.points(q)).abs().max()),
        "jacobian_difference": float((chain.jacobian(q[:256].float())[:, rows[-1]].double() - peer.jacobian(q[:256])).abs().max()),
    }
    single = peer.in_single()
    for batch in BATCHES:
        some, one = q[:batch].float(), q[0].numpy()
        repeat = 40 if batch == 1 else 1
        # One configuration has a path of its own, in numpy: the overhead of tensors is all that batch 1 costs.
        ours = (lambda one=one: chain.forward_one(one), lambda one=one: chain.jacobian_one(one))
        if batch > 1:
            ours = (lambda some=some: chain.forward(some), lambda some=some: chain.jacobian(some))
        theirs = (lambda some=some: single.points(some), lambda some=some: single.jacobian(some))
        for what, mine, other in zip(("faster", "jacobian_faster"), ours, theirs, strict=True):
            found[f"{what}_batch_{batch}"] = least_cpu_s(other, repeat) / least_cpu_s(mine, repeat)
    return found


class _Peer:
    """pytorch-kinematics behind the same calls: points of links, and the Jacobian of the hand's point (ours gives all points')."""

    def __init__(self, urdf: str, names: list[str], dtype: torch.dtype) -> None:
        import pytorch_kinematics

        self.urdf, self.names, self.dtype = urdf, names, dtype
        self.chain = pytorch_kinematics.build_serial_chain_from_urdf(urdf, names[-1]).to(dtype=dtype)

    def in_single(self) -> _Peer:
        return _Peer(self.urdf, self.names, torch.float32)

    def points(self, q: torch.Tensor) -> torch.Tensor:
        found: Any = self.chain.forward_kinematics(q.to(self.dtype), end_only=False)
        return torch.stack([found[n].get_matrix()[:, :3, 3].expand(len(q), 3) for n in self.names], 1)

    def jacobian(self, q: torch.Tensor) -> torch.Tensor:
        found: Any = self.chain.jacobian(q.to(self.dtype))
        return found[:, :3]


def _peer(chain: KeypointChain) -> tuple[_Peer, list[str]]:
    """The peer in double precision and the keypoints that lie at links' origins, base to tip."""
    from dataengine.robot.catalogue import load_robot

    model = load_robot(chain.robot)
    names = sorted((n for n in chain.keypoint_names if "@" not in n), key=model.link_index)
    return _Peer(_urdf_text(model), names, torch.float64), names


def _urdf_text(model: Any) -> str:
    """Links and joints of a robot without meshes, which the peer cannot resolve."""
    lines = [f'<robot name="{model.name}">', *(f'<link name="{link}"/>' for link in model.links)]
    for joint in model.joints:
        xyz = " ".join(f"{v:.17g}" for v in joint.T_parent_joint[:3, 3])
        rpy = " ".join(f"{v:.17g}" for v in _rpy(joint.T_parent_joint[:3, :3]))
        axis = " ".join(f"{v:.17g}" for v in np.asarray(joint.axis))
        lines.append(
            f'<joint name="{joint.name}" type="{joint.type}"><parent link="{joint.parent}"/><child link="{joint.child}"/>'
            f'<origin xyz="{xyz}" rpy="{rpy}"/><axis xyz="{axis}"/><limit lower="-9" upper="9" effort="1" velocity="1"/></joint>'
        )
    return "\n".join([*lines, "</robot>"])


def _rpy(R: np.ndarray) -> tuple[float, float, float]:
    """Fixed-axis roll, pitch, yaw of a rotation, R = Rz(yaw) Ry(pitch) Rx(roll)."""
    pitch = float(np.arctan2(-R[2, 0], np.hypot(R[0, 0], R[1, 0])))
    if np.hypot(R[0, 0], R[1, 0]) < 1e-9:  # gimbal lock: yaw is free, take none
        return float(np.arctan2(-R[1, 2], R[1, 1])), pitch, 0.0
    return float(np.arctan2(R[2, 1], R[2, 2])), pitch, float(np.arctan2(R[1, 0], R[0, 0]))


def least_cpu_s(work: Callable[[], object], repeat: int = 1, rounds: int = ROUNDS) -> float:
    """CPU seconds of one call: the least of several rounds of `repeat` calls, after one to warm up."""
    work()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(repeat):
            work()
        spent.append((time.process_time() - began) / repeat)
    return min(spent)
