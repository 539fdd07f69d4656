"""Denoising score matching: times, weights and the squared error, for a network that returns D(x_t, t).

The error is always measured in units of the noise, ε̂ - ε = (α / σ) (x_0 - D), whatever the network predicts inside; the
weighting says how much a time counts:

likelihood  λ = g²: E λ ‖score error‖² = E g²/σ² ‖ε̂ - ε‖², which for VP is λ = β, RoboKeyGen's choice (Song et al. 2021, eq. 7)
variance    λ = σ²: E ‖ε̂ - ε‖², GenPose's choice
min-snr-5   min(SNR, 5) on x_0, i.e. min(SNR, 5) / SNR on ε (Hang et al. 2023)
edm         (σ̄² + σ_d²) / (σ̄ σ_d)² on x_0 (Karras et al. 2022, table 1)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dataengine.errors import ConfigError, unknown_name
from training.diffusion.sde import SDE, perturb

SIGMA_DATA = 1.0
"""Standard deviation of whitened data."""
P_MEAN, P_STD = -1.2, 1.2
"""Of ln σ̄ in EDM training."""


def _likelihood(sde: SDE, t: Tensor) -> Tensor:
    return (sde.diffusion(t) / sde.sigma(t)) ** 2


def _variance(sde: SDE, t: Tensor) -> Tensor:
    return torch.ones_like(t)


def _min_snr(sde: SDE, t: Tensor) -> Tensor:
    snr = (sde.alpha(t) / sde.sigma(t)) ** 2
    return snr.clamp(max=5.0) / snr


def _edm(sde: SDE, t: Tensor) -> Tensor:
    ratio = sde.sigma(t) / sde.alpha(t)
    return (ratio**2 + SIGMA_DATA**2) / SIGMA_DATA**2


WEIGHTINGS: dict[str, Callable[[SDE, Tensor], Tensor]] = {
    "likelihood": _likelihood,
    "variance": _variance,
    "min-snr-5": _min_snr,
    "edm": _edm,
}
TIME_LAWS = ("uniform", "lognormal")


def check_names(weighting: str, times: str) -> None:
    """ConfigError for a weighting or a law of times that does not exist."""
    if weighting not in WEIGHTINGS:
        raise ConfigError(unknown_name("loss weighting", weighting, WEIGHTINGS))
    if times not in TIME_LAWS:
        raise ConfigError(unknown_name("law of times", times, TIME_LAWS))


def draw_times(sde: SDE, rows: int, law: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """(rows,) times: uniform on [eps, T], or ln σ̄ normal as in EDM, clipped to what the process reaches."""
    if law == "uniform":
        return sde.eps + (sde.T - sde.eps) * torch.rand(rows, generator=generator, device=device)
    ratio = (P_MEAN + P_STD * torch.randn(rows, generator=generator, device=device)).exp()
    return sde.time_of(ratio).clamp(sde.eps, sde.T)


def denoising_loss(
    denoise: Callable[[Tensor, Tensor], Tensor],
    sde: SDE,
    x_0: Tensor,
    generator: torch.Generator,
    weighting: str = "min-snr-5",
    times: str = "uniform",
    repeats: int = 1,
) -> Tensor:
    """Mean weighted squared error of D over the rows x_0 (B, D); a scalar.

    With `repeats` > 1, `denoise` sees x_t of (repeats·B, D), draw after draw, so that an encoder behind it runs once per
    row of data and its output is repeated (`Tensor.repeat(repeats, 1)`); GenPose uses 20.
    """
    check_names(weighting, times)
    x_0 = x_0.repeat(repeats, 1)
    t = draw_times(sde, len(x_0), times, generator, x_0.device)
    z = torch.randn(x_0.shape, generator=generator, device=x_0.device)
    error = denoise(perturb(sde, x_0, t, z), t).float() - x_0
    weight = WEIGHTINGS[weighting](sde, t) * (sde.alpha(t) / sde.sigma(t)) ** 2
    return (weight * error.square().mean(dim=1)).mean()
