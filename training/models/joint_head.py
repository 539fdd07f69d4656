"""Joint angles from 3-D keypoints in the camera frame.

The angles do not change when the robot is moved, so the network sees only what does not either: the scalar products of the
keypoints' offsets from their centre with each other (their Gram matrix, which a rigid motion leaves alone and which fixes the
shape up to reflection) and the triple products of a few of them, whose sign tells a shape from its mirror image.
"""

import torch
from torch import Tensor, nn


def invariants(x_cam_m: Tensor, triples: Tensor) -> Tensor:
    """Keypoints (B, N, 3) m, triples (M, 3) of indices → (B, N (N + 1) / 2 + M): Gram entries in m² and volumes in m³."""
    offsets = x_cam_m - x_cam_m.mean(dim=1, keepdim=True)
    gram = offsets @ offsets.transpose(1, 2)
    rows, columns = torch.triu_indices(gram.shape[1], gram.shape[1], device=gram.device)
    a, b, c = (offsets[:, triples[:, k]] for k in range(3))
    volumes = (torch.linalg.cross(a, b) * c).sum(dim=-1)
    return torch.cat([gram[:, rows, columns], volumes], dim=1)


class JointHead(nn.Module):
    """(B, N, 3) m → sine and cosine of J joints, (B, J, 2), of unit length. Inputs are whitened by `mean` and `std`."""

    mean: Tensor
    std: Tensor
    triples: Tensor

    def __init__(self, keypoints: int, joints: int, hidden: int = 256, blocks: int = 3) -> None:
        super().__init__()
        self.joints = joints
        self.register_buffer("triples", _spread_triples(keypoints), persistent=False)
        inputs = keypoints * (keypoints + 1) // 2 + len(self.triples)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))
        self.first = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) for _ in range(blocks)
        )
        self.last = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * joints))

    def whiten(self, x_cam_m: Tensor) -> None:
        """Take the statistics of the inputs from a sample of robots."""
        values = invariants(x_cam_m, self.triples)
        self.mean.copy_(values.mean(dim=0))
        self.std.copy_(values.std(dim=0).clamp(min=1e-6))

    def forward(self, x_cam_m: Tensor) -> Tensor:
        y = self.first((invariants(x_cam_m, self.triples) - self.mean) / self.std)
        for block in self.blocks:
            y = y + block(y)
        return nn.functional.normalize(self.last(y).float().view(-1, self.joints, 2), dim=-1)


def angles(sine_cosine: Tensor) -> Tensor:
    """(…, J, 2) → (…, J) rad in (-π, π]."""
    return torch.atan2(sine_cosine[..., 0], sine_cosine[..., 1])


def angle_loss(sine_cosine: Tensor, q_rad: Tensor) -> Tensor:
    """Mean of 1 - cos(error) over joints: (B, J, 2) against (B, J) rad."""
    return (1 - sine_cosine[..., 0] * q_rad.sin() - sine_cosine[..., 1] * q_rad.cos()).mean()


def _spread_triples(keypoints: int) -> Tensor:
    """(N, 3): each keypoint with two others, one third and two thirds round the list."""
    i = torch.arange(keypoints)
    return torch.stack([i, (i + max(keypoints // 3, 1)) % keypoints, (i + max(2 * keypoints // 3, 2)) % keypoints], dim=1)
