"""Distributions a preset may put wherever a number is drawn.

    distance_m: 1.2                                   # constant
    distance_m: {uniform: [0.8, 1.6]}
    speckle: {log_uniform: [0.12, 0.35]}
    roll_deg: {normal: {mean: 0, std: 5, min: -15, max: 15}}
    count: {integers: [2, 6]}                         # both ends included
    environment: {choice: [city, studio], weights: [1, 3]}
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

T = TypeVar("T", float, int, str)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Uniform(_Frozen):
    """Uniform on [low, high]."""

    uniform: tuple[float, float]

    @model_validator(mode="after")
    def _ordered(self) -> "Uniform":
        return _check_order(self, *self.uniform)

    def sample(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(*self.uniform))


class LogUniform(_Frozen):
    """exp(U(log low, log high)); both ends must be > 0."""

    log_uniform: tuple[float, float]

    @model_validator(mode="after")
    def _ordered(self) -> "LogUniform":
        if self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform needs a low end > 0, got {self.log_uniform[0]:g}")
        return _check_order(self, *self.log_uniform)

    def sample(self, rng: np.random.Generator) -> float:
        return float(np.exp(rng.uniform(*np.log(self.log_uniform))))


class Integers(_Frozen):
    """Uniform over the integers low … high, both included."""

    integers: tuple[int, int]

    @model_validator(mode="after")
    def _ordered(self) -> "Integers":
        return _check_order(self, *self.integers)

    def sample(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.integers[0], self.integers[1] + 1))


class NormalParameters(_Frozen):
    mean: float
    std: float = Field(ge=0)
    min: float = -float("inf")
    max: float = float("inf")

    @model_validator(mode="after")
    def _ordered(self) -> "NormalParameters":
        return _check_order(self, self.min, self.max)


class Normal(_Frozen):
    """Normal, clipped to [min, max]."""

    normal: NormalParameters

    def sample(self, rng: np.random.Generator) -> float:
        p = self.normal
        return float(np.clip(rng.normal(p.mean, p.std), p.min, p.max))


class Choice(_Frozen, Generic[T]):
    """One of the listed values, equally likely or by `weights`."""

    choice: tuple[T, ...] = Field(min_length=1)
    weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _weights_fit(self) -> "Choice[T]":
        if self.weights is not None:
            if len(self.weights) != len(self.choice):
                raise ValueError(f"{len(self.weights)} weights for {len(self.choice)} choices; give one weight each")
            if min(self.weights) < 0 or sum(self.weights) <= 0:
                raise ValueError("weights must be ≥ 0 and not all zero")
        return self

    def sample(self, rng: np.random.Generator) -> T:
        p = None if self.weights is None else np.asarray(self.weights) / sum(self.weights)
        return self.choice[int(rng.choice(len(self.choice), p=p))]


def _check_order(model: Any, low: float, high: float) -> Any:
    if low > high:
        raise ValueError(f"min {low:g} is greater than max {high:g}; give [min, max]")
    return model


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        for key in ("uniform", "log_uniform", "integers", "normal", "choice"):
            if key in value:
                return key
        return "unknown"
    for cls, key in ((Uniform, "uniform"), (LogUniform, "log_uniform"), (Integers, "integers"), (Normal, "normal"), (Choice, "choice")):
        if isinstance(value, cls):
            return key
    return "constant"


Real = Annotated[
    Annotated[float, Tag("constant")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[Normal, Tag("normal")]
    | Annotated[Choice[float], Tag("choice")],
    Discriminator(_kind),
]
"""A constant number or a distribution over real numbers."""

Whole = Annotated[
    Annotated[int, Tag("constant")] | Annotated[Integers, Tag("integers")] | Annotated[Choice[int], Tag("choice")],
    Discriminator(_kind),
]
"""A constant integer or a distribution over integers."""

Name = Annotated[
    Annotated[str, Tag("constant")] | Annotated[Choice[str], Tag("choice")],
    Discriminator(_kind),
]
"""A constant name or a choice among names."""

Distribution = float | int | str | Uniform | LogUniform | Integers | Normal | Choice[float] | Choice[int] | Choice[str]
Kind = Literal["constant", "uniform", "log_uniform", "integers", "normal", "choice"]


def sample(distribution: Distribution, rng: np.random.Generator) -> float | int | str:
    """One draw; a constant returns itself and consumes nothing."""
    return distribution.sample(rng) if isinstance(distribution, _Frozen) else distribution  # type: ignore[union-attr]
