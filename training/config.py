"""Settings of a training run: frozen dataclasses, to and from JSON, with overrides by dotted name."""

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dataengine.errors import ConfigError, unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up, then constant, cosine or stepwise learning rate. Times are in steps."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: int = 100
    schedule: str = "cosine"
    final: float = 0.02
    """Learning rate at the end of the cosine, as a part of `lr`."""
    milestones: tuple[int, ...] = ()
    """Steps at which the stepwise rate falls to a tenth."""
    grad_clip: float = 1.0
    ema: float = 0.999


@dataclass(frozen=True)
class LoopConfig:
    """How long, how large, how often."""

    steps: int = 1000
    batch: int = 1024
    """Rows of one step, of all ranks together."""
    seed: int = 0
    amp: str = "off"
    """off, or bf16: bfloat16 matrix products, everything else float32."""
    device: str = "auto"
    threads: int = 0
    """Of the CPU; 0 leaves torch's choice."""
    log_every: int = 50
    validate_every: int = 0
    save_every: int = 500
    keep: int = 2
    check_every: int = 1
    """Steps between looks at the loss for NaN; each look makes a GPU wait. A checkpoint is never saved without one."""
    logs: tuple[str, ...] = ("jsonl", "tensorboard")


@dataclass(frozen=True)
class Config:
    """A whole run: `task` is the recipe's own dataclass."""

    recipe: str
    task: Any
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def as_dict(self) -> dict[str, Any]:
        """Only JSON's types."""
        return json.loads(json.dumps(asdict(self)))


def check(config: Config) -> None:
    """ConfigError for values no run can have."""
    loop, optim = config.loop, config.optim
    for name, value in (("steps", loop.steps), ("batch", loop.batch), ("save_every", loop.save_every), ("keep", loop.keep),
                        ("log_every", loop.log_every), ("check_every", loop.check_every)):  # fmt: skip
        if value < 1:
            raise ConfigError(f"loop.{name}={value}: at least 1 is needed")
    if loop.amp not in ("off", "bf16"):
        raise ConfigError(unknown_name("loop.amp", loop.amp, ("off", "bf16")))
    if optim.schedule not in ("constant", "cosine", "steps"):
        raise ConfigError(unknown_name("optim.schedule", optim.schedule, ("constant", "cosine", "steps")))
    if not 0 <= optim.ema < 1:
        raise ConfigError(f"optim.ema={optim.ema:g}: choose a decay in [0, 1)")


def override(config: Config, settings: Sequence[str]) -> Config:
    """`loop.steps=100`-like settings applied; ConfigError names the fields there are."""
    data = config.as_dict()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"'{setting}': write overrides as KEY=VALUE, e.g. loop.steps=100")
        _assign(data, name.split("."), _value(text), name)
    return from_dict(data, type(config.task))


def from_dict(data: Mapping[str, Any], task: type) -> Config:
    """What `Config.as_dict` gave, with `task` built as that class; ConfigError for unknown fields or wrong types."""
    rest = {key: value for key, value in data.items() if key != "task"}
    built = build(Config, {**rest, "task": None})
    config = Config(built.recipe, build(task, data["task"], "task."), built.optim, built.loop)
    check(config)
    return config


def build(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Dataclass of class `cls` from plain values."""
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for name in data:
        if name not in names:
            raise ConfigError(unknown_name("setting", where + name, [where + n for n in names]))
    return cls(**{name: _typed(hints[name], value, where + name) for name, value in data.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _typed(next(a for a in arguments if a is not type(None)), value, where)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return build(hint, value, where + ".")
    if origin is tuple and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) == len(value):
            return tuple(_typed(h, v, where) for h, v in zip(inner, value, strict=True))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, bool, str) and type(value) is hint:
        return value
    raise ConfigError(f"{where}={json.dumps(value)}: expected {getattr(hint, '__name__', hint) if origin is None else hint}")


def _assign(data: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    for depth, key in enumerate(path):
        if not isinstance(data, dict) or key not in data:
            above = ".".join(path[:depth])
            allowed = [f"{above}.{k}" if above else k for k in data] if isinstance(data, dict) else []
            raise ConfigError(unknown_name("setting", name, allowed))
        if depth == len(path) - 1:
            data[key] = value
        else:
            data = data[key]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
