"""Forward processes dx = f(t) x dt + g(t) dw and their Gaussian kernels p(x_t | x_0) = N(α(t) x_0, σ(t)² I).

Divided by α, all of them are one process: x̄ = x / α carries noise of standard deviation σ̄ = σ / α, and the
probability-flow ODE is dx̄/dσ̄ = (x̄ - D) / σ̄ with the denoiser D(x_t, t) = E[x_0 | x_t] (Karras et al. 2022, eq. 4). So
losses and samplers are written once, in (x̄, σ̄), and a process only has to say what α and σ are.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dataengine.errors import ConfigError, unknown_name


class SDE(Protocol):
    """Times run from `eps` (almost clean) to `T` (almost noise). All methods are elementwise and keep the dtype."""

    @property
    def T(self) -> float: ...
    @property
    def eps(self) -> float: ...

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of x_0 in the kernel."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the kernel."""
        ...

    def drift(self, t: Tensor) -> Tensor:
        """f(t) of the drift f(t) x."""
        ...

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t)."""
        ...

    def time_of(self, ratio: Tensor) -> Tensor:
        """The t with σ(t) / α(t) = ratio."""
        ...


@dataclass(frozen=True)
class VP:
    """Variance preserving, β(t) = β_min + (β_max - β_min) t: Song et al. 2021, eq. 11; the SDE of RoboKeyGen."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    T: float = 1.0
    eps: float = 1e-4

    def beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.beta(t).sqrt()

    def time_of(self, ratio: Tensor) -> Tensor:
        # α² = 1 / (1 + ratio²); the quadratic a t² + b t = L, solved without cancellation
        a, b, L = 0.25 * (self.beta_max - self.beta_min), 0.5 * self.beta_min, 0.5 * torch.log1p(ratio**2)
        return 2 * L / (b + (b * b + 4 * a * L).sqrt())


@dataclass(frozen=True)
class VE:
    """Variance exploding, σ(t) = σ_min (σ_max / σ_min)^t: Song et al. 2021, eq. 9; the SDE of GenPose."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    T: float = 1.0
    eps: float = 1e-5

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def time_of(self, ratio: Tensor) -> Tensor:
        return (ratio / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM:
    """σ(t) = t: Karras et al. 2022, table 1."""

    T: float = 80.0
    eps: float = 0.002

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return (2 * t).sqrt()

    def time_of(self, ratio: Tensor) -> Tensor:
        return ratio


SDES: dict[str, type[VP] | type[VE] | type[EDM]] = {"vp": VP, "ve": VE, "edm": EDM}


def make_sde(name: str) -> VP | VE | EDM:
    """By name, with the constants of its paper; ConfigError lists the names."""
    if name not in SDES:
        raise ConfigError(unknown_name("SDE", name, SDES))
    return SDES[name]()


def perturb(sde: SDE, x_0: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """x_t = α x_0 + σ z for rows x_0, z (B, D) at times t (B,)."""
    return sde.alpha(t)[:, None] * x_0 + sde.sigma(t)[:, None] * z


def score_of(sde: SDE, x_t: Tensor, x_0_hat: Tensor, t: Tensor) -> Tensor:
    """∇ log p(x_t) = (α D - x_t) / σ² for rows (B, D) at times t (B,) (Tweedie)."""
    return (sde.alpha(t)[:, None] * x_0_hat - x_t) / sde.sigma(t)[:, None] ** 2
