"""Keypoints of a robot and their analytic Jacobian as tensors: what estimators need of a URDF, and nothing else.

The tables are taken once from `dataengine.robot` (`KeypointChain.from_model`), travel in a checkpoint as JSON
(`to_dict`, `from_dict`) and need torch and numpy only. Fixed joints are merged and every joint turns about (or slides
along) the z axis of its own frame, so one joint costs one 4x4 product and one rotation of two columns. Inside, the
batch is the last axis: all arithmetic runs over contiguous memory, whatever the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dataengine.errors import RobotError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChainTensors:
    """The tables on one device. J moving joints (parents first), N keypoints."""

    fixed: tuple[Tensor, ...]
    """J matrices (4, 4): transposed T_parent_joint."""
    points: tuple[Tensor, ...]
    """One (n, 4) matrix of homogeneous points per body that has any."""
    order: Tensor
    """(N,) row of each keypoint among the points of all bodies."""
    carried: Tensor
    """(N, J) 1 where joint j moves keypoint n, else 0."""
    carried_rows: Tensor
    """(J + 1, 2 N) of 0 and 1: for the base (first: all) and each joint, the keypoints that move with it, each twice."""
    ancestors: Tensor
    """(J, J): 1 where joint i comes before joint j on the way from the base, 1/2 on the diagonal."""
    gains: Tensor | None
    """(J, D) of d joint / d position; None: one joint per position, gain 1."""


@dataclass(frozen=True, eq=False)
class KeypointChain:
    """N keypoints of one robot as a function of D joint positions (rad, m), in the frame of the robot's base link.

    D counts the actuated joints that carry at least one keypoint; `joint_columns` finds them in the robot's full q.
    """

    robot: str
    keypoint_set: str
    keypoint_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    joint_columns: NDArray[np.int64]
    """(D,) columns of these joints in `RobotModel.actuated`."""
    lower: Array
    """(D,) lower joint limits, rad or m."""
    upper: Array
    parent: NDArray[np.int64]
    """(J,) the moving joint before each moving joint, -1: the base. Mimic joints count as moving: J >= D."""
    fixed: Array
    """(J, 4, 4) pose of each joint's frame at position 0 in its parent's frame; z is the joint axis."""
    prismatic: NDArray[np.bool_]
    source: NDArray[np.int64]
    """(J,) which of the D positions drives the joint: position = gain * q[source] + offset."""
    gain: Array
    offset: Array
    body: NDArray[np.int64]
    """(N,) the moving joint that carries each keypoint, -1: the base."""
    point: Array
    """(N, 3) keypoints in that joint's frame, m."""
    _cache: dict[tuple[torch.dtype, str], ChainTensors] = field(default_factory=dict, repr=False)

    @property
    def dof(self) -> int:
        """D, the number of joint positions."""
        return len(self.joint_names)

    def __len__(self) -> int:
        """N, the number of keypoints."""
        return len(self.keypoint_names)

    @staticmethod
    def from_model(model: Any, keypoint_set_name: str) -> KeypointChain:
        """Tables of a `dataengine.robot.model.RobotModel`. RobotError lists the keypoint sets there are."""
        from training._chain_tables import tables_of_model  # needs the robot package, which a bare GPU machine lacks

        return KeypointChain.from_dict(tables_of_model(model, keypoint_set_name))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives back the same numbers bit by bit."""
        names = [name for name in self.__dataclass_fields__ if name != "_cache"]
        return {name: value.tolist() if isinstance(value := getattr(self, name), np.ndarray) else value for name in names}

    @staticmethod
    def from_dict(tables: Mapping[str, Any]) -> KeypointChain:
        """Inverse of `to_dict`. RobotError if a table is missing."""
        kinds: dict[str, Any] = {"joint_columns": np.int64, "parent": np.int64, "source": np.int64, "body": np.int64, "prismatic": np.bool_}
        kinds |= dict.fromkeys(("lower", "upper", "fixed", "gain", "offset", "point"), np.float64)
        names = [name for name in KeypointChain.__dataclass_fields__ if name != "_cache"]
        missing = [name for name in names if name not in tables]
        if missing:
            raise RobotError(f"kinematic tables lack {', '.join(missing)}; write them with KeypointChain.to_dict")
        values: dict[str, Any] = {name: np.array(tables[name], kinds[name]) if name in kinds else tables[name] for name in names}
        for name in ("keypoint_names", "joint_names"):
            values[name] = tuple(values[name])
        values["fixed"], values["point"] = values["fixed"].reshape(-1, 4, 4), values["point"].reshape(-1, 3)
        return KeypointChain(**values)

    @cached_property
    def carries(self) -> NDArray[np.bool_]:
        """(J, N): whether moving joint j moves keypoint n."""
        out = np.zeros((len(self.parent), len(self)), bool)
        for n, joint in enumerate(self.body):
            while joint >= 0:
                out[joint, n] = True
                joint = self.parent[joint]
        return out

    def tensors(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> ChainTensors:
        """The tables in this precision on this device; made once."""
        key = (dtype, str(device))
        if key not in self._cache:
            self._cache[key] = self._make_tensors(dtype, device)
        return self._cache[key]

    def _make_tensors(self, dtype: torch.dtype, device: torch.device | str) -> ChainTensors:
        homogeneous = np.concatenate([self.point, np.ones((len(self), 1))], 1)
        by_body = np.argsort(self.body, kind="stable")
        bodies = np.unique(self.body)
        carries = self.carries
        ancestors = np.array([self._is_ancestor(i, j) for i in range(len(self.parent)) for j in range(len(self.parent))], float)
        ancestors = ancestors.reshape(len(self.parent), len(self.parent)) - 0.5 * np.eye(len(self.parent))
        whole = np.concatenate([np.ones((1, len(self))), carries])
        return ChainTensors(
            tuple(torch.tensor(f.T, dtype=dtype, device=device).contiguous() for f in self.fixed),
            tuple(torch.tensor(homogeneous[self.body == b], dtype=dtype, device=device) for b in bodies),
            torch.tensor(np.argsort(by_body), device=device),
            torch.tensor(carries.T, dtype=dtype, device=device),
            torch.tensor(whole.repeat(2, 1), dtype=dtype, device=device),
            torch.tensor(ancestors, dtype=dtype, device=device),
            None if self._gains is None else torch.tensor(self._gains, dtype=dtype, device=device),
        )

    def _is_ancestor(self, first: int, joint: int) -> bool:
        while joint > first:
            joint = int(self.parent[joint])
        return joint == first

    def forward(self, q: Tensor) -> Tensor:
        """Keypoints (..., N, 3) m in the base frame for positions (..., D). Differentiable by autograd."""
        if self._single(q):
            return torch.from_numpy(self.forward_one(q.reshape(-1).numpy())).to(q.dtype).reshape(*q.shape[:-1], len(self), 3)
        points, _ = self.points_and_frames(self._checked(q))
        return points.movedim(-1, 0).reshape(*q.shape[:-1], len(self), 3)

    def jacobian(self, q: Tensor) -> Tensor:
        """d keypoints / d positions (..., N, 3, D), m/rad (m/m of a sliding joint), by the geometric formula."""
        if self._single(q):
            return torch.from_numpy(self.jacobian_one(q.reshape(-1).numpy())).to(q.dtype).reshape(*q.shape[:-1], len(self), 3, self.dof)
        _, jacobian = self.points_and_jacobian(self._checked(q))
        return jacobian.permute(3, 0, 2, 1).reshape(*q.shape[:-1], len(self), 3, self.dof)

    def points_and_jacobian(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Both for positions (D, B), batch last as inside: (N, 3, B) and (N, D, 3, B).

        Column of a revolute joint: axis x (point - joint origin), of a prismatic one: axis (Siciliano et al., eq. 3.30).
        """
        points, frames = self.points_and_frames(q)
        tables = self.tensors(q.dtype, q.device)
        a, b, c, *shift = self.twists(frames).unbind(1)  # (J, B) each
        x, y, z = points[:, None].unbind(2)  # (N, 1, B) each
        rows = (b * z - c * y + shift[0], c * x - a * z + shift[1], a * y - b * x + shift[2])
        columns = torch.stack([row * tables.carried[..., None] for row in rows], 2)
        if tables.gains is not None:
            columns = torch.einsum("jd,njib->ndib", tables.gains, columns)
        return points, columns

    def twists(self, frames: list[Tensor]) -> Tensor:
        """(J, 6, B): a point X moves by z x X + o x z per turn about the axis z through o, by z per slide; rows (z, o x z) or (0, z)."""
        stacked = torch.stack(frames)
        z, o = stacked[:, 2], stacked[:, 3]
        twists = torch.cat([z, torch.linalg.cross(o, z, dim=1)], 1)
        if self.prismatic.any():
            sliding = torch.tensor(self.prismatic, device=z.device)[:, None, None]
            twists = torch.where(sliding, torch.cat([torch.zeros_like(z), z], 1), twists)
        return twists

    def forward_one(self, q: ArrayLike) -> Array:
        """Keypoints (N, 3) of one configuration (D,), numpy only: the quickest way for a single frame."""
        frames = self._frames_one(np.asarray(q, np.float64))
        return np.einsum("nij,nj->ni", frames[self.body, :3, :3], self.point) + frames[self.body, :3, 3]

    def jacobian_one(self, q: ArrayLike) -> Array:
        """Jacobian (N, 3, D) of one configuration (D,), numpy only."""
        frames = self._frames_one(np.asarray(q, np.float64))
        points = np.einsum("nij,nj->ni", frames[self.body, :3, :3], self.point) + frames[self.body, :3, 3]
        axes, origins = frames[:-1, :3, 2], frames[:-1, :3, 3]
        x, y, z = axes.T[:, None]  # (1, J) each, against points (N, 1)
        dx, dy, dz = np.moveaxis(points[:, None] - origins, -1, 0)
        columns = np.stack([y * dz - z * dy, z * dx - x * dz, x * dy - y * dx], 1)  # (N, 3, J)
        if self.prismatic.any():
            columns[:, :, self.prismatic] = axes[self.prismatic].T
        columns *= self.carries.T[:, None]
        return columns if self._gains is None else columns @ self._gains

    @cached_property
    def _gains(self) -> Array | None:
        """(J, D) of d joint / d position; None: one joint per position, gain 1."""
        gains = np.zeros((len(self.parent), self.dof))
        gains[np.arange(len(self.parent)), self.source] = self.gain
        return None if np.array_equal(gains, np.eye(self.dof)) else gains

    def _single(self, q: Tensor) -> bool:
        """One configuration on the CPU that nobody differentiates: numpy's calls cost a tenth of torch's."""
        return q.ndim > 0 and q.shape[-1] == self.dof == q.numel() and q.device.type == "cpu" and not q.requires_grad

    def _checked(self, q: Tensor) -> Tensor:
        """(..., D) → (D, B) with the batch last."""
        if q.ndim == 0 or q.shape[-1] != self.dof:
            raise RobotError(f"{self.robot}: q has shape {tuple(q.shape)}, expected (..., {self.dof}): {', '.join(self.joint_names)}")
        return q.reshape(-1, self.dof).T

    def points_and_frames(self, q: Tensor) -> tuple[Tensor, list[Tensor]]:
        """For positions (D, B), batch last: keypoints (N, 3, B) and every moving joint's frame (4, 3, B) in the base frame.

        A frame is its x, y and z axes (z: the joint's axis) and its origin.
        """
        tables = self.tensors(q.dtype, q.device)
        batch = q.shape[-1]
        base = torch.eye(4, 3, dtype=q.dtype, device=q.device)[..., None].expand(4, 3, batch)
        cos, sin = torch.cos(q), torch.sin(q)
        frames: list[Tensor] = []
        for joint, fixed in enumerate(tables.fixed):
            before = frames[self.parent[joint]] if self.parent[joint] >= 0 else base
            x, y, z, origin = (fixed @ before.reshape(4, -1)).reshape(4, 3, batch).unbind(0)
            source = self.source[joint]
            if self.gain[joint] == 1.0 and self.offset[joint] == 0.0:
                position, c, s = q[source], cos[source], sin[source]
            else:
                position = q[source] * float(self.gain[joint]) + float(self.offset[joint])
                c, s = torch.cos(position), torch.sin(position)
            if self.prismatic[joint]:
                origin = origin + position * z
            else:
                x, y = c * x + s * y, c * y - s * x
            frames.append(torch.stack([x, y, z, origin]))
        bodies = [frames[b] if b >= 0 else base for b in np.unique(self.body)]
        rows = [points @ frame.reshape(4, -1) for points, frame in zip(tables.points, bodies, strict=True)]
        return torch.cat(rows)[tables.order].reshape(len(self), 3, batch), frames

    def _frames_one(self, q: Array) -> Array:
        """(J + 1, 4, 4); the last is the base, so that index -1 finds it."""
        frames = np.empty((len(self.parent) + 1, 4, 4))
        frames[-1] = np.eye(4)
        local = np.zeros((4, 4))
        local[2, 2] = local[3, 3] = 1.0
        for joint, parent in enumerate(self.parent):
            position = self.gain[joint] * q[self.source[joint]] + self.offset[joint]
            c, s = (1.0, 0.0) if self.prismatic[joint] else (math.cos(position), math.sin(position))
            local[0, 0] = local[1, 1] = c
            local[0, 1], local[1, 0] = -s, s
            local[2, 3] = position if self.prismatic[joint] else 0.0
            frames[joint] = frames[parent] @ self.fixed[joint] @ local
        return frames
