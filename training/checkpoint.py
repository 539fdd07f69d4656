"""Checkpoints: one safetensors file, written whole or not at all, that says what it is.

Tensors: `model/…` the weights in training, `ema/…` their running mean (the ones to use), `optimizer/…`. Metadata (all JSON):
`config` the resolved settings, `identity` what the weights are good for (robot, keypoints), `step`, `loader`, `optimizer`.
A finished run also has `model.safetensors`, with `ema/…` alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import TrainingError

FORMAT = "dataengine-training-1"
FINAL = "model.safetensors"
PATTERN = "step_*.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. `tensors` keep their prefixes."""

    path: Path
    config: dict[str, Any]
    identity: dict[str, Any]
    step: int
    loader: dict[str, Any]
    optimizer: list[dict[str, Any]]
    tensors: dict[str, Tensor]

    def weights(self, part: str = "ema") -> dict[str, Tensor]:
        """`ema` or `model`: names without the prefix."""
        return {name.removeprefix(part + "/"): t for name, t in self.tensors.items() if name.startswith(part + "/")}


def write(
    path: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    step: int,
    loader: Mapping[str, Any] | None = None,
    optimizer: list[dict[str, Any]] | None = None,
) -> None:
    """Whole or not at all: a hidden file beside `path`, synchronised, then renamed over it."""
    from safetensors.torch import save_file

    tensors = {f"{part}/{name}": t.detach().cpu().contiguous().clone() for part, group in parts.items() for name, t in group.items()}
    described = {"config": config, "identity": identity, "step": step, "loader": loader or {}, "optimizer": optimizer or []}
    metadata = {"format": FORMAT, **{key: json.dumps(value) for key, value in described.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    save_file(tensors, hidden, metadata)
    os.chmod(hidden, 0o644)  # safetensors makes it for its owner alone
    with open(hidden, "rb") as f:
        os.fsync(f.fileno())
    os.replace(hidden, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: str | Path, device: str = "cpu") -> Checkpoint:
    """TrainingError if there is no such file or it is not one of ours."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        path = path / FINAL if (path / FINAL).exists() else latest(path) or path / FINAL
    if not path.is_file():
        raise TrainingError(f"no checkpoint at {path}; give a .safetensors file of `dataengine train` or the folder it wrote")
    try:
        with safe_open(path, framework="pt", device=device) as f:
            metadata = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 — not a mapping
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"checkpoint {path} cannot be read ({error}); take an earlier one of its folder or train again") from None
    if metadata.get("format") != FORMAT:
        raise TrainingError(f"{path} is no checkpoint of ours: its format is {metadata.get('format')!r}, expected {FORMAT!r}")
    described = {key: json.loads(metadata[key]) for key in ("config", "identity", "step", "loader", "optimizer")}
    return Checkpoint(path, tensors=tensors, **described)


def latest(folder: Path) -> Path | None:
    """Newest checkpoint of a run that can be opened; a broken one is passed over."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob(PATTERN), reverse=True):
        try:
            with safe_open(path, framework="pt") as f:
                if (f.metadata() or {}).get("format") == FORMAT:
                    return path
        except (SafetensorError, OSError):
            continue
    return None


def step_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:09d}.safetensors"


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep`, and what a killed writer left."""
    for path in sorted(folder.glob(PATTERN), reverse=True)[keep:]:
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.safetensors.tmp"):
        path.unlink(missing_ok=True)


def check_identity(found: Checkpoint, wanted: Mapping[str, Any]) -> None:
    """TrainingError in one line if the checkpoint is of another robot, keypoint set or recipe."""
    for key, value in wanted.items():
        given = found.identity.get(key)
        if given != json.loads(json.dumps(value)):
            raise TrainingError(
                f"checkpoint {found.path} is for {key.replace('_', ' ')} {_short(given)}, this run for {_short(value)}; "
                f"take a checkpoint of the same {key.replace('_', ' ')} or change the setting"
            )


def load_weights(model: nn.Module, checkpoint: Checkpoint, part: str = "ema") -> None:
    """TrainingError if names or shapes differ."""
    weights = checkpoint.weights(part)
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
    if wrong:
        raise TrainingError(f"{checkpoint.path} does not fit: {len(wrong)} tensors differ, first {wrong[0]}; use its own config")
    model.load_state_dict(weights)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """State of an optimizer as named tensors, and its groups as JSON."""
    state = optimizer.state_dict()
    tensors = {f"{i}/{key}": torch.as_tensor(value) for i, entry in state["state"].items() for key, value in entry.items()}
    return tensors, json.loads(json.dumps(state["param_groups"]))


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """State of `optimizer_tensors`. Moments lie in memory as their weights do: fused steps go by memory order, files are contiguous."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.weights("optimizer").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    groups = [{**g, "betas": tuple(g["betas"])} for g in checkpoint.optimizer]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for weight, entry in optimizer.state.items():
        for key, value in entry.items():
            if value.shape == weight.shape and value.stride() != weight.stride():
                entry[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
