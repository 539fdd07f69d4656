"""A recipe of one small network on made-up rows, and a program that trains it; both for the tests of the loop."""

import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

from training.config import Config, LoopConfig, OptimConfig
from training.distributed import Ranks
from training.loop import Batch, train


class ToyData:
    """Rows from the generator, and a counter as state, as a loader of shards has."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows, self.device, self.place = rows, device, 0

    def next(self, generator: torch.Generator) -> Batch:
        self.place += 1
        return {"x": torch.randn(self.rows, 3, generator=generator, device=self.device) + 1e-4 * self.place}

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


class Toy:
    """Fits y = sum of squares. `bad_step`: the loss of that step is NaN; `pause_s` slows every step."""

    def __init__(self, robot: str = "panda", bad_step: int = 0, pause_s: float = 0.0) -> None:
        self.robot, self.bad_step, self.pause_s, self.calls = robot, bad_step, pause_s, 0

    @property
    def identity(self) -> dict[str, Any]:
        return {"recipe": "toy", "robot": self.robot}

    def model(self, generator: torch.Generator) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def data(self, ranks: Ranks, batch: int) -> ToyData:
        self.source = ToyData(batch, ranks.device)
        return self.source

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        time.sleep(self.pause_s)
        noise = 0.01 * torch.randn(len(batch["x"]), generator=generator, device=batch["x"].device)
        error = model(batch["x"])[:, 0].float() - batch["x"].square().sum(1) + noise
        bad = torch.nan if self.source.place == self.bad_step else 0.0
        return error.square().mean() + bad, {"mae": error.abs().mean()}

    def validate(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        x = torch.linspace(-1, 1, 30, device=ranks.device).view(10, 3)
        with torch.no_grad():
            return {"mse": float((model(x)[:, 0] - x.square().sum(1)).square().mean())}


def config(steps: int = 40, **loop: Any) -> Config:
    settings = {"batch": 16, "save_every": 10, "log_every": 5, "device": "cpu", "logs": ("jsonl",), **loop}
    return Config("toy", {"size": 1}, OptimConfig(lr=0.01, warmup=5, ema=0.9), LoopConfig(steps=steps, **settings))


if __name__ == "__main__":
    out, steps, pause_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    train(Toy(pause_s=pause_s), config(steps), out)
