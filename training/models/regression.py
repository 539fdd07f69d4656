"""The lifter that guesses once: Martinez et al. 2017, "A simple yet effective baseline for 3d human pose estimation"."""

import torch
from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class RegressionLifter(nn.Module):
    """condition (B, cond_dim) → x (B, x_dim), whitened like the diffusion model's x. The paper: hidden 1024, blocks 2, dropout 0.5."""

    def __init__(self, x_dim: int, cond_dim: int, hidden: int = 256, blocks: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(cond_dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout))
        self.blocks = nn.Sequential(*(_Block(hidden, dropout) for _ in range(blocks)))
        self.last = nn.Linear(hidden, x_dim)

    def forward(self, condition: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(condition)))


def regression_loss(predicted: Tensor, x_0: Tensor) -> Tensor:
    """Mean squared error of whitened rows."""
    return torch.nn.functional.mse_loss(predicted.float(), x_0)
