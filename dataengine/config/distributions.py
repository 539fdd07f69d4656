"""Distributions a preset may put wherever a number is drawn.

distance_m: 1.2                                   # constant
distance_m: {uniform: [0.8, 1.6]}
speckle: {log_uniform: [0.12, 0.35]}
roll_deg: {normal: {mean: 0, std: 5, min: -15, max: 15}}
count: {integers: [2, 6]}                         # both ends included
environment: {choice: [city, studio], weights: [1, 3]}
"""

import math
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

T = TypeVar("T")


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
    min: float | None = Field(default=None, description="values below are clipped to it; none = unbounded")
    max: float | None = Field(default=None, description="values above are clipped to it; none = unbounded")

    @property
    def bounds(self) -> tuple[float, float]:
        """(min, max) with infinities where unbounded."""
        low = -math.inf if self.min is None else self.min
        return low, math.inf if self.max is None else self.max

    @model_validator(mode="after")
    def _ordered(self) -> "NormalParameters":
        return _check_order(self, *self.bounds)


class Normal(_Frozen):
    """Normal, clipped to [min, max]."""

    normal: NormalParameters

    def sample(self, rng: np.random.Generator) -> float:
        return float(np.clip(rng.normal(self.normal.mean, self.normal.std), *self.normal.bounds))


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


KINDS = ("uniform", "log_uniform", "integers", "normal", "choice")
"""Names that a preset may use; the name is the key of the mapping that gives the distribution."""


def kind_of(value: Any) -> str:
    """Which kind a raw or parsed distribution is: one of KINDS, `constant` or `unknown`."""
    if isinstance(value, dict):
        return next((key for key in KINDS if key in value), "unknown")
    for cls, key in zip((Uniform, LogUniform, Integers, Normal, Choice), KINDS, strict=True):
        if isinstance(value, cls):
            return key
    return "constant"


Real = Annotated[
    Annotated[float, Tag("constant")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[Normal, Tag("normal")]
    | Annotated[Choice[float], Tag("choice")],
    Discriminator(kind_of),
]
"""A constant number or a distribution over real numbers."""

Whole = Annotated[
    Annotated[int, Tag("constant")] | Annotated[Integers, Tag("integers")] | Annotated[Choice[int], Tag("choice")], Discriminator(kind_of)
]
"""A constant integer or a distribution over integers."""

Name = Annotated[Annotated[str, Tag("constant")] | Annotated[Choice[str], Tag("choice")], Discriminator(kind_of)]
"""A constant name or a choice among names."""

Distribution = float | int | str | Uniform | LogUniform | Integers | Normal | Choice[Any]


def sample(distribution: Distribution, rng: np.random.Generator) -> Any:
    """One draw (float, int or str); a constant returns itself and consumes nothing."""
    return distribution if isinstance(distribution, float | int | str) else distribution.sample(rng)


def support(distribution: Distribution) -> tuple[float, float]:
    """Smallest and largest number that can be drawn; (-inf, inf) for an unbounded normal."""
    match distribution:
        case Uniform():
            return distribution.uniform
        case LogUniform():
            return distribution.log_uniform
        case Integers():
            return distribution.integers
        case Normal():
            return distribution.normal.bounds
        case Choice():
            return min(distribution.choice), max(distribution.choice)
    return float(distribution), float(distribution)


def describe(distribution: Distribution) -> str:
    """One short line for people, such as `uniform 0.9 … 2`."""
    match distribution:
        case Uniform() | LogUniform() | Integers():
            low, high = support(distribution)
            return f"{kind_of(distribution)} {low:g} … {high:g}".replace("_", " ")
        case Normal():
            p = distribution.normal
            low, high = p.bounds
            bounds = f" within {low:g} … {high:g}" if p.min is not None or p.max is not None else ""
            return f"normal mean {p.mean:g} std {p.std:g}{bounds}"
        case Choice():
            weights = distribution.weights or (None,) * len(distribution.choice)
            items = zip(distribution.choice, weights, strict=True)
            return "choice of " + ", ".join(str(c) if w is None else f"{c} ×{w:g}" for c, w in items)
    return "constant"


def within(low: float = -math.inf, high: float = math.inf, open_low: bool = False) -> AfterValidator:
    """Validator for a field: everything that can be drawn lies in [low, high], or (low, high] with `open_low`."""

    def check(distribution: Any) -> Any:
        least, most = support(distribution)
        if least < low or (open_low and least <= low):
            raise ValueError(f"can be as low as {least:g}; it must be {'>' if open_low else '≥'} {low:g}")
        if most > high:
            raise ValueError(f"can be as high as {most:g}; it must be ≤ {high:g}")
        return distribution

    return AfterValidator(check)
