"""Samplers: rows of noise x_T (B, D) → rows of data. K samples of a frame are K rows.

All take a denoiser D(x_t, t) → x̂_0, work in x̄ = x / α and σ̄ = σ / α (see `sde`), and draw nothing themselves: noise is
handed in. Fixed-step samplers call D with `t` a float, the same for all rows, so that a network can prepare its time
embeddings once per schedule; what a row becomes does not depend on the rows beside it.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dataengine.errors import ConfigError, unknown_name
from training.diffusion.sde import SDE

Denoiser = Callable[[Tensor, float], Tensor]
Scaling = Callable[[float], float]
"""w(t) of score scaling: the score is multiplied by it."""
SPACINGS = ("uniform", "quadratic", "logsnr", "karras")


def schedule(sde: SDE, steps: int, spacing: str = "quadratic", start: float | None = None) -> list[float]:
    """`steps` falling times from `start` (default T) to eps: the places where D is evaluated.

    quadratic: √t uniform; logsnr: ln σ̄ uniform; karras: σ̄^(1/7) uniform (Karras et al. 2022, eq. 5).
    """
    if steps < 1:
        raise ConfigError(f"{steps} sampling steps: at least 1 is needed")
    if spacing not in SPACINGS:
        raise ConfigError(unknown_name("spacing", spacing, SPACINGS))
    first = sde.T if start is None else start
    if not sde.eps < first <= sde.T:
        raise ConfigError(f"sampling from t = {first:g}: choose a start in ({sde.eps:g}, {sde.T:g}]")
    s = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    ends = torch.tensor([first, sde.eps], dtype=torch.float64)
    if spacing in ("uniform", "quadratic"):
        power = 1.0 if spacing == "uniform" else 2.0
        a, b = (ends ** (1 / power)).tolist()
        return ((a + s * (b - a)) ** power).tolist()
    ratio = sde.sigma(ends) / sde.alpha(ends)
    if spacing == "logsnr":
        a, b = ratio.log().tolist()
        inner = (a + s * (b - a)).exp()
    else:
        a, b = (ratio ** (1 / 7)).tolist()
        inner = (a + s * (b - a)) ** 7
    return sde.time_of(inner).clamp(sde.eps, first).tolist()


def warm_start(sde: SDE, x_prev: Tensor, T0: float, z: Tensor) -> Tensor:
    """x_T0 = α(T0) x_prev + σ(T0) z: RoboKeyGen's online mode starts from the last frame's estimate."""
    t = torch.tensor(T0, dtype=torch.float64)
    return float(sde.alpha(t)) * x_prev + float(sde.sigma(t)) * z


def prior(sde: SDE, z: Tensor) -> Tensor:
    """x_T = σ(T) z: what standard normal rows z become at the far end."""
    return float(sde.sigma(torch.tensor(sde.T, dtype=torch.float64))) * z


def ddim(
    denoise: Denoiser,
    x_T: Tensor,
    sde: SDE,
    ts: Sequence[float],
    eta: float = 0.0,
    noise: Sequence[Tensor] | None = None,
    w: Scaling | None = None,
    to_zero: bool = True,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12; RoboKeyGen eq. 5): Euler steps in σ̄, with η between ODE (0) and DDPM (1).

    With η > 0, `noise` holds one (B, D) per step. `w` scales the score (w(t) ≥ 1 sharpens); the step is then
    min(w (σ̄_i - σ̄_{i+1}) / σ̄_i, 1) of the way to D, so that no step overshoots. `to_zero`: a last step to σ̄ = 0, else the
    rows are those at ts[-1].
    """
    if eta > 0 and (noise is None or len(noise) < len(ts) - 1):
        raise ConfigError(f"DDIM with eta {eta:g} needs {len(ts) - 1} tensors of noise, got {len(noise or ())}")
    x = _scaled(sde, ts[0], x_T)
    for i, (t, alpha, ratio, after) in enumerate(_steps(sde, ts, to_zero)):
        D = denoise(x * alpha, t)
        if w is not None:
            x = x + min(w(t) * (1 - after / ratio), 1.0) * (D - x)
            continue
        zeta = eta * after * math.sqrt(1 - (after / ratio) ** 2)
        x = D + math.sqrt(after**2 - zeta**2) / ratio * (x - D)
        if zeta > 0 and noise is not None:
            x = x + zeta * noise[i]
    return x if to_zero else x * _alpha(sde, ts[-1])


def dpm_solver(denoise: Denoiser, x_T: Tensor, sde: SDE, ts: Sequence[float], to_zero: bool = True) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), first order at the first and the last step."""
    x = _scaled(sde, ts[0], x_T)
    before: tuple[Tensor, float] | None = None
    for t, alpha, ratio, after in _steps(sde, ts, to_zero):
        D = denoise(x * alpha, t)
        if after == 0:
            return D
        h = math.log(ratio / after)
        slope = D
        if before is not None:
            r = before[1] / h
            slope = D + (D - before[0]) / (2 * r)
        x = (after / ratio) * x - math.expm1(-h) * slope
        before = (D, h)
    return x * _alpha(sde, ts[-1])


def heun(denoise: Denoiser, x_T: Tensor, sde: SDE, ts: Sequence[float], w: Scaling | None = None, to_zero: bool = True) -> Tensor:
    """Second-order steps in σ̄ (Karras et al. 2022, algorithm 1, no churn): two evaluations a step, one in the last."""
    x = _scaled(sde, ts[0], x_T)
    scale = w or (lambda t: 1.0)
    for i, (t, alpha, ratio, after) in enumerate(_steps(sde, ts, to_zero)):
        d = scale(t) * (x - denoise(x * alpha, t)) / ratio
        ahead = x + (after - ratio) * d
        if after > 0:
            t_after = ts[i + 1]
            d_after = scale(t_after) * (ahead - denoise(ahead * _alpha(sde, t_after), t_after)) / after
            ahead = x + (after - ratio) * 0.5 * (d + d_after)
        x = ahead
    return x if to_zero else x * _alpha(sde, ts[-1])


def exponential_scaling(w_max: float = 5.0, k: float = 5.0, T: float = 1.0) -> Scaling:
    """w(t) = 1 + (w_max - 1) (e^{k (1 - t/T)} - 1) / (e^k - 1): 1 while modes form, w_max at the end."""
    return lambda t: 1 + (w_max - 1) * math.expm1(k * (1 - t / T)) / math.expm1(k)


def _steps(sde: SDE, ts: Sequence[float], to_zero: bool) -> Iterator[tuple[float, float, float, float]]:
    """(t, α, σ̄, σ̄ after the step) of every step."""
    times = torch.tensor(list(ts), dtype=torch.float64)
    alphas = sde.alpha(times)
    ratios = (sde.sigma(times) / alphas).tolist()
    afters = [*ratios[1:], 0.0] if to_zero else ratios[1:]
    yield from zip(ts, alphas.tolist(), ratios, afters, strict=False)


def _alpha(sde: SDE, t: float) -> float:
    return float(sde.alpha(torch.tensor(t, dtype=torch.float64)))


def _scaled(sde: SDE, t: float, x: Tensor) -> Tensor:
    return x / _alpha(sde, t)
