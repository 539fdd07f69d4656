"""The one training loop. A recipe says what the network, the data and the loss are; everything else is here.

Randomness is a function of (seed, step, rank) and nothing else, the loader's place is in the checkpoint, and so a run that was
killed and started again ends with the same bits as one that was left alone.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dataengine.errors import Interrupted
from training import checkpoint, distributed, logs
from training.config import Config, OptimConfig, check
from training.distributed import Ranks
from training.errors import TrainingError

Batch = dict[str, Tensor]
BAD_BATCH = "bad_batch.safetensors"


class Data(Protocol):
    """Batches of this rank, without end. What is drawn on the fly comes from the generator alone and needs no state."""

    def next(self, generator: torch.Generator) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Recipe(Protocol):
    """One paper's network, data and loss."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the weights are good for, e.g. robot and keypoints: JSON. A checkpoint with another one is refused."""
        ...

    def model(self, generator: torch.Generator) -> nn.Module:
        """The network, on the CPU, initialised (torch's own generator is seeded meanwhile)."""
        ...

    def data(self, ranks: Ranks, batch: int) -> Data:
        """`batch` rows a step for this rank."""
        ...

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, and scalars worth logging."""
        ...

    def validate(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """Measures of the averaged network; empty if there are none."""
        ...


@dataclass
class State:
    """Everything that changes during a run."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    data: Data
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counted: int = 0


@dataclass(frozen=True)
class Result:
    """`steps` done in all, `ran` of them now; `metrics` of the last validation; `checkpoint` with the final weights."""

    steps: int
    ran: int
    metrics: dict[str, float]
    checkpoint: Path | None
    seconds: float


def train(
    recipe: Recipe,
    config: Config,
    out: str | Path,
    resume: bool = True,
    start_from: str | Path | None = None,
    dry_run: bool = False,
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Result:
    """Train to `config.loop.steps` and write `model.safetensors` below `out`; goes on where a killed run stopped.

    start_from: a checkpoint whose weights to begin with (a fresh schedule, perhaps on more data). dry_run: build everything, run
    three steps, write nothing, and forecast. Raises TrainingError for a NaN (the batch is saved, the last good checkpoint
    stays) or for a checkpoint that does not fit.
    """
    check(config)
    ranks = distributed.start(config.loop.device)
    try:
        if config.loop.threads:
            torch.set_num_threads(config.loop.threads)
        state = _begin(recipe, config, ranks)
        if dry_run:
            return _rehearse(recipe, config, state, ranks)
        return _run(recipe, config, state, Path(out), ranks, resume, start_from, progress)
    finally:
        distributed.stop(ranks)


def _begin(recipe: Recipe, config: Config, ranks: Ranks) -> State:
    if config.loop.batch % ranks.world:
        raise TrainingError(f"loop.batch={config.loop.batch} does not divide by {ranks.world} processes; choose a multiple")
    generator = _generator(config.loop.seed, 0, 0, torch.device("cpu"))
    with torch.random.fork_rng([]):  # torch's initialisers only know the global generator
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        model = recipe.model(generator).to(ranks.device)
    distributed.share_weights(model, ranks)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    optim = config.optim
    optimizer = torch.optim.AdamW(model.parameters(), optim.lr, optim.betas, weight_decay=optim.weight_decay, fused=True)
    return State(model, ema, optimizer, recipe.data(ranks, config.loop.batch // ranks.world))


def _run(
    recipe: Recipe,
    config: Config,
    state: State,
    out: Path,
    ranks: Ranks,
    resume: bool,
    start_from: str | Path | None,
    progress: Callable[[int, Mapping[str, float]], None] | None,
) -> Result:
    loop = config.loop
    _load(recipe, config, state, out, resume, start_from)
    first, began = state.step, time.perf_counter()
    main = ranks.rank == 0
    opened = logs.open_logs(loop.logs, out, config.as_dict(), first) if main else []
    metrics: dict[str, float] = {}
    try:
        while state.step < loop.steps:
            values = advance(recipe, config, state, ranks, out)
            if state.step % loop.log_every == 0 or state.step == loop.steps:
                values["steps_per_s"] = (state.step - first) / (time.perf_counter() - began)
                _tell(opened, progress if main else None, state.step, values)
            ends = state.step == loop.steps
            if main and loop.validate_every and (ends or state.step % loop.validate_every == 0):
                metrics = recipe.validate(state.ema, ranks)
                _tell(opened, progress, state.step, {f"val/{k}": v for k, v in metrics.items()})
            if main and (ends or state.step % loop.save_every == 0):
                _save(recipe, config, state, out)
    except KeyboardInterrupt:
        raise Interrupted(f"training stopped at step {state.step}; the same command goes on from the last checkpoint in {out}") from None
    finally:
        for log in opened:
            log.close()
    final = out / checkpoint.FINAL
    if main and (state.step > first or not final.exists()):
        checkpoint.write(final, {"ema": state.ema.state_dict()}, config.as_dict(), recipe.identity, state.step)
    return Result(state.step, state.step - first, metrics, final, time.perf_counter() - began)


def advance(recipe: Recipe, config: Config, state: State, ranks: Ranks, out: Path | None) -> dict[str, float]:
    """One step; returns running means since the last log when this step is one to log, else nothing."""
    loop, step = config.loop, state.step + 1
    generator = _generator(loop.seed, step, ranks.rank, ranks.device)
    batch = state.data.next(generator)
    rate = learning_rate(config.optim, step, loop.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    loss, parts = _forward(recipe, config, state.model, batch, generator, ranks)
    loss.backward()
    parameters = list(state.model.parameters())
    mean = distributed.average(loss, parameters, ranks)
    norm = nn.utils.clip_grad_norm_(parameters, config.optim.grad_clip or math.inf)
    logs_now = step % loop.log_every == 0 or step == loop.steps
    looks = logs_now or step % loop.check_every == 0 or step % loop.save_every == 0
    if looks and not bool(torch.isfinite(mean + norm)):
        _stop_on_nan(step, float(mean), float(norm), batch, config, recipe, out, ranks)
    state.optimizer.step()
    _average_weights(state.ema, state.model, min(config.optim.ema, (1 + step) / (10 + step)))
    state.step = step
    _count(state, {"loss": mean, "grad_norm": norm, **{k: v.detach() for k, v in parts.items()}})
    return _means(state, rate) if logs_now else {}


def learning_rate(optim: OptimConfig, step: int, steps: int) -> float:
    """Of step 1 … steps."""
    warm = min(1.0, step / optim.warmup) if optim.warmup else 1.0
    if optim.schedule == "constant":
        return optim.lr * warm
    if optim.schedule == "steps":
        return optim.lr * warm * 0.1 ** sum(step > m for m in optim.milestones)
    way = min(1.0, max(0.0, (step - optim.warmup) / max(1, steps - optim.warmup)))
    return optim.lr * warm * (optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * way)))


def _forward(
    recipe: Recipe, config: Config, model: nn.Module, batch: Batch, generator: torch.Generator, ranks: Ranks
) -> tuple[Tensor, dict[str, Tensor]]:
    """Layers such as dropout only know torch's global generator: it is set for this step and put back afterwards."""
    devices = [ranks.device] if ranks.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.loop.amp == "bf16"):
        torch.manual_seed(generator.initial_seed() ^ 1)
        return recipe.loss(model, batch, generator)


def _generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    key = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(key)


def _average_weights(ema: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mine, theirs in zip(ema.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for mine, theirs in zip(ema.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


def _load(recipe: Recipe, config: Config, state: State, out: Path, resume: bool, start_from: str | Path | None) -> None:
    newest = checkpoint.latest(out) if resume else None
    if newest is not None:
        found = checkpoint.read(newest)
        checkpoint.check_identity(found, recipe.identity)
        _check_same(found, config, out)
        checkpoint.load_weights(state.model, found, "model")
        checkpoint.load_weights(state.ema, found, "ema")
        checkpoint.load_optimizer(state.optimizer, found)
        state.data.load_state_dict(found.loader)
        state.step = found.step
        return
    for stale in [*out.glob(checkpoint.PATTERN), out / logs.JSONL]:
        stale.unlink(missing_ok=True)
    if start_from is not None:
        found = checkpoint.read(start_from)
        checkpoint.check_identity(found, recipe.identity)
        checkpoint.load_weights(state.model, found, "ema")
        checkpoint.load_weights(state.ema, found, "ema")


def _check_same(found: checkpoint.Checkpoint, config: Config, out: Path) -> None:
    """What changes the numbers must not change on the way; how long, how often and where to log may."""
    free = {"steps", "log_every", "validate_every", "save_every", "keep", "check_every", "logs", "device", "threads"}
    old, new = (_flat(c, "") for c in (found.config, config.as_dict()))
    differ = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k) and k.removeprefix("loop.") not in free]
    if differ:
        k = differ[0]
        raise TrainingError(
            f"{out} holds a run with {k}={old.get(k)}, asked for {new.get(k)}; choose another folder, the same settings, "
            "or start afresh with --no-resume"
        )


def _flat(data: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _save(recipe: Recipe, config: Config, state: State, out: Path) -> None:
    tensors, groups = checkpoint.optimizer_tensors(state.optimizer)
    parts = {"model": state.model.state_dict(), "ema": state.ema.state_dict(), "optimizer": tensors}
    path = checkpoint.step_path(out, state.step)
    checkpoint.write(path, parts, config.as_dict(), recipe.identity, state.step, state.data.state_dict(), groups)
    checkpoint.prune(out, config.loop.keep)


def _stop_on_nan(step: int, loss: float, norm: float, batch: Batch, config: Config, recipe: Recipe, out: Path | None, ranks: Ranks) -> None:
    saved, good = "", "no checkpoint was written yet"
    if out is not None:
        path = out / (BAD_BATCH if ranks.rank == 0 else f"rank{ranks.rank}_{BAD_BATCH}")
        checkpoint.write(path, {"batch": batch}, config.as_dict(), recipe.identity, step)
        newest = checkpoint.latest(out)
        saved, good = f"; its batch is in {path}", f"last good checkpoint {newest}" if newest else good
    raise TrainingError(f"step {step}: loss {loss:g}, gradient norm {norm:g}{saved}; {good}; lower optim.lr or look at the batch")


def _rehearse(recipe: Recipe, config: Config, state: State, ranks: Ranks) -> Result:
    short = replace(config, loop=replace(config.loop, log_every=1))
    steps = min(3, config.loop.steps)
    advance(recipe, short, state, ranks, None)
    began = time.perf_counter()
    values: dict[str, float] = {}
    for _ in range(steps - 1 or 1):
        values = advance(recipe, short, state, ranks, None)
    per_step = (time.perf_counter() - began) / (steps - 1 or 1)
    size = sum(p.numel() for p in state.model.parameters())
    forecast = {"parameters": float(size), "seconds_per_step": per_step, "forecast_s": per_step * config.loop.steps}
    return Result(state.step, state.step, {**values, **forecast}, None, per_step * steps)


def _count(state: State, values: Mapping[str, Tensor]) -> None:
    """Sums stay on the device: reading them every step would make a GPU wait."""
    for name, value in values.items():
        state.sums[name] = state.sums[name] + value.float() if name in state.sums else value.float()
    state.counted += 1


def _means(state: State, rate: float) -> dict[str, float]:
    means = {name: float(total) / state.counted for name, total in state.sums.items()}
    state.sums, state.counted = {}, 0
    return {**means, "lr": rate}


def _tell(
    opened: list[logs.Log], progress: Callable[[int, Mapping[str, float]], None] | None, step: int, values: Mapping[str, float]
) -> None:
    for log in opened:
        log.write(step, values)
    if progress is not None:
        progress(step, values)
