"""The picture's encoder: a small residual network and a top-down path back to a quarter of the input's size.

Plain 3 × 3 convolutions, few and narrow: on a CPU with bfloat16 they run nearer to its peak than depthwise ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class EncoderShape:
    """``widths``: channels at strides 2, 4, 8, 16, 32; ``depths``: residual blocks at strides 4 to 32; ``neck``: channels given out."""

    widths: tuple[int, int, int, int, int] = (24, 48, 96, 160, 192)
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    neck: int = 64


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation, ReLU; `fold_norms` joins the first two for inference."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, active: bool = True) -> None:
        parts = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
        super().__init__(*parts, *([nn.ReLU(inplace=True)] if active else []))


class Residual(nn.Module):
    """x + two convolutions (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(width, width), ConvNorm(width, width, active=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(self.first(x)))


class Encoder(nn.Module):
    """(B, 3, S, S) → (B, neck, S/4, S/4) for places, and (B, neck, S/16, S/16) for relations. S is a multiple of 32."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        w = shape.widths
        self.stem = ConvNorm(3, w[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNorm(a, b, stride=2), *(Residual(b) for _ in range(n)))
            for a, b, n in zip(w[:-1], w[1:], shape.depths, strict=True)
        )
        self.lateral = nn.ModuleList(ConvNorm(width, shape.neck, kernel=1) for width in w[1:])
        self.smooth = nn.ModuleList(ConvNorm(shape.neck, shape.neck) for _ in w[2:])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        merged = self.lateral[-1](levels[-1])
        deep = merged
        for k in range(len(levels) - 2, -1, -1):
            upper = F.interpolate(merged, scale_factor=2.0, mode="nearest")
            merged = self.smooth[k](self.lateral[k](levels[k]) + upper)
            if k == len(levels) - 2:
                deep = merged
        return merged, deep


def fold_norms(module: nn.Module) -> nn.Module:
    """Replace every convolution with its batch normalisation by one convolution, in place; for inference only."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for part in module.modules():
        if isinstance(part, ConvNorm):
            convolution, norm = part[0], part[1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[0], part[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return module


def multiply_adds(module: nn.Module, inputs: Sequence[torch.Tensor]) -> int:
    """Multiply-adds of the convolutions and linear layers in one forward pass."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return total
