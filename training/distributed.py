"""Several processes on one model: torchrun or Ray Train. The only place of `training` that imports Ray.

Every rank draws its own data and noise, gradients are averaged in one all-reduce that carries the loss too, so that all ranks
see a NaN of any of them and stop together.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dataengine.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, and its device."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    started: bool = False
    """Whether `start` opened the process group, which `stop` then closes."""


def start(device: str = "auto") -> Ranks:
    """From torchrun's environment, an open process group (Ray Train), or alone. ConfigError for a device that is not there."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"loop.device={device}: torch sees no GPU here; use loop.device=cpu or install a CUDA build of torch")
    chosen = torch.device(f"cuda:{local}" if device == "cuda" else device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks(device=chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), world, chosen, started=True)


def stop(ranks: Ranks) -> None:
    if ranks.started:
        dist.destroy_process_group()


def share_weights(model: nn.Module, ranks: Ranks) -> None:
    """Rank 0's weights and buffers to all."""
    if ranks.world > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def average(loss: Tensor, parameters: Sequence[nn.Parameter], ranks: Ranks) -> Tensor:
    """Gradients become their mean over ranks, in place; returns the mean loss."""
    if ranks.world == 1:
        return loss.detach()
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([loss.detach().reshape(1).float(), *(g.reshape(-1).float() for g in grads)])
    dist.all_reduce(flat)
    flat /= ranks.world
    for p, mean in zip(parameters, flat[1:].split([g.numel() for g in grads]), strict=True):
        p.grad = mean.view_as(p).to(p.dtype)
    return flat[0]


def train_with_ray(run: Callable[[], dict[str, float]], out: Path, workers: int, gpus_per_worker: float = 0) -> dict[str, Any]:
    """`run()` in `workers` processes of Ray Train; returns the last metrics of rank 0.

    `run` calls `loop.train`, which finds the process group that Ray opened; its checkpoints in `out`, with the loader's state,
    are what a worker that is started again resumes from. Needs the package `ray` with Ray Train.
    """
    try:
        import ray.train
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise ConfigError(f"Ray Train is not installed ({error}): pip install 'ray[train]', or use torchrun") from None

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    result = out.resolve() / "result.json"

    def worker() -> None:
        metrics = run()
        if ray.train.get_context().get_world_rank() == 0:
            result.write_text(json.dumps(metrics))  # Ray hands back only what was reported with a checkpoint of its own
        ray.train.report(dict(metrics))

    trainer = TorchTrainer(
        worker,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus_per_worker > 0),
        run_config=RunConfig(name=out.name, storage_path=str(out.resolve() / "ray"), failure_config=FailureConfig(max_failures=3)),
    )
    trainer.fit()
    return json.loads(result.read_text())
