"""Where numbers of a run go: JSON lines always readable, TensorBoard, and Weights & Biases or MLflow where installed."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dataengine.errors import ConfigError, unknown_name

JSONL = "log.jsonl"


class Log(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """`log.jsonl`: one object a line. Lines after `start` (of a run that was killed later) are dropped."""

    def __init__(self, out: Path, config: Mapping[str, Any], start: int) -> None:
        path = out / JSONL
        kept = [line for line in read_lines(path) if line["step"] <= start]
        hidden = path.with_name(f".{path.name}.tmp")
        hidden.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(hidden, path)
        self.file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class TensorBoard:
    def __init__(self, out: Path, config: Mapping[str, Any], start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    def __init__(self, out: Path, config: Mapping[str, Any], start: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.run = wandb.init(dir=str(out), config=dict(config), name=out.name, id=out.name, resume="allow")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    def __init__(self, out: Path, config: Mapping[str, Any], start: int) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        self.mlflow = mlflow
        mlflow.start_run(run_name=out.name)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


LOGS: dict[str, tuple[Callable[[Path, Mapping[str, Any], int], Log], str]] = {
    "jsonl": (JsonLines, ""),
    "tensorboard": (TensorBoard, "tensorboard"),
    "wandb": (WandB, "wandb"),
    "mlflow": (MLflow, "mlflow"),
}
"""Name → (class, package it needs)."""


def open_logs(names: Sequence[str], out: Path, config: Mapping[str, Any], start: int) -> list[Log]:
    """ConfigError for an unknown name or a package that is not installed."""
    out.mkdir(parents=True, exist_ok=True)
    opened: list[Log] = []
    for name in names:
        if name not in LOGS:
            raise ConfigError(unknown_name("log", name, LOGS))
        make, package = LOGS[name]
        try:
            opened.append(make(out, config, start))
        except ImportError:
            raise ConfigError(f"log '{name}' needs the package '{package}': pip install {package}, or leave it out of loop.logs") from None
    return opened


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a log; a half-written last line is left out."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
