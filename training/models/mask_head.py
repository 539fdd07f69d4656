"""Where the robot is seen: one channel from the features that the keypoints use as well."""

import torch
import torch.nn.functional as F
from torch import nn

from training.models.backbone import ConvNorm


class MaskHead(nn.Module):
    """(B, C, H, W) → logits (B, H, W) that a cell shows the robot."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = ConvNorm(channels, channels // 2)
        self.out = nn.Conv2d(channels // 2, 1, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(features))[:, 0]


def mask_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy plus the soft Dice loss; ``target`` (B, H, W) is the share of the cell that shows the robot.

    Cells on the outline weigh threefold, as there the classes are hard to tell (after PIDNet's boundary loss).
    """
    outline = F.max_pool2d(target[:, None], 3, 1, 1) + F.max_pool2d(-target[:, None], 3, 1, 1)
    weight = 1 + 2 * outline[:, 0].clamp(0, 1)
    entropy = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).sum() / weight.sum()
    p = torch.sigmoid(logits)
    overlap = 2 * (p * target).sum((1, 2)) + 1
    dice = 1 - overlap / (p.sum((1, 2)) + target.sum((1, 2)) + 1)
    return entropy + 0.5 * dice.mean()


def intersection_over_union(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(B,) of the masks at one half; 1 where both are empty."""
    a, b = logits > 0, target > 0.5
    union = (a | b).sum((1, 2))
    return torch.where(union > 0, (a & b).sum((1, 2)) / union.clamp_min(1), 1.0)
