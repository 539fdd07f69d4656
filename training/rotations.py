"""Rotations of very many frames at once, the batch as last axis: (3, 3, M). All functions are exact near zero."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_from_vector(w: Tensor) -> Tensor:
    """Rotation vectors (3, M) rad → matrices (3, 3, M) (Rodrigues), accurate down to zero."""
    x, y, z = w
    square = x * x + y * y + z * z
    angle = square.clamp(min=1e-24).sqrt()
    small = square < 1e-8
    a = torch.where(small, 1 - square / 6, angle.sin() / angle)
    half = (0.5 * angle).sin() / (0.5 * angle)
    b = 0.5 * half * half
    c = 1 - b * square
    ax, ay, az, bx, by = a * x, a * y, a * z, b * x, b * y
    rows = [c + bx * x, bx * y - az, bx * z + ay, bx * y + az, c + by * y, by * z - ax, bx * z - ay, by * z + ax, c + b * z * z]
    return torch.stack(rows).reshape(3, 3, -1)


def vector_from_rotation(R: Tensor) -> Tensor:
    """Logarithm: matrices (3, 3, M) → rotation vectors (3, M) rad, for angles up to about pi - 0.001."""
    sine = 0.5 * torch.stack([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    cosine = 0.5 * (R[0, 0] + R[1, 1] + R[2, 2] - 1)
    length = sine.norm(dim=0)
    angle = torch.atan2(length, cosine)
    return sine * torch.where(length < 1e-6, torch.ones_like(angle), angle / length.clamp(min=1e-12))


def matmul(A: Tensor, B: Tensor) -> Tensor:
    """(n, k, M) times (k, m, M) or (k, M)."""
    if B.ndim == 2:
        return (A * B).sum(1)
    return (A[:, :, None] * B).sum(1)
