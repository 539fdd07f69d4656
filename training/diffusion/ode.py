"""The probability-flow ODE solved by Dormand and Prince's 5(4) pair, on the device of its rows.

Every row has its own step and its own error: unlike a solver that takes one norm over the batch, the result and the number
of evaluations of a row do not depend on which rows are beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dataengine.errors import DataEngineError
from training.diffusion.sde import SDE

C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""Hairer, Nørsett, Wanner: Solving Ordinary Differential Equations I, table 5.2; the last row is the fifth-order result."""
B4 = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
E = tuple(a - b for a, b in zip((*A[6], 0.0), B4, strict=True))
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0


@dataclass(frozen=True)
class Solved:
    """x (B, D) at the end; evaluations (B,) of the right-hand side each row needed."""

    x: Tensor
    evaluations: Tensor


def dormand_prince(
    slope: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    start: float,
    stop: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 1000,
) -> Solved:
    """dx/ds = slope(x (B, D), s (B,)) from `start` to `stop`, either direction.

    Raises DataEngineError if some row needs more than `max_steps` steps.
    """
    sign = 1.0 if stop >= start else -1.0
    length = abs(stop - start)
    s = torch.zeros(len(x), dtype=torch.float64, device=x.device)  # way gone, 0 → length
    h = torch.full_like(s, min(0.05 * length, length))
    evaluations = torch.ones(len(x), dtype=torch.int64, device=x.device)
    first = slope(x, torch.full_like(s, start).to(x.dtype))
    for _ in range(max_steps):
        todo = s < length
        if not bool(todo.any()):
            return Solved(x, evaluations)
        h = torch.minimum(h, length - s)
        proposal, last, error = _step(slope, x, first, start, s, h, sign)
        scale = atol + rtol * torch.maximum(x.abs(), proposal.abs())
        norm = (error / scale).square().mean(dim=1).sqrt().double()
        accept = todo & (norm <= 1)
        rows = accept[:, None]
        x, first = torch.where(rows, proposal, x), torch.where(rows, last, first)
        s = torch.where(accept & (h >= length - s), length, torch.where(accept, s + h, s))
        evaluations = evaluations + 6 * todo
        factor = (SAFETY * norm.clamp(min=1e-10) ** -0.2).clamp(SHRINK, GROW)
        h = torch.where(todo, h * torch.where(accept, factor, factor.clamp(max=1.0)), h)
    raise DataEngineError(f"Dormand-Prince needs more than {max_steps} steps; raise rtol ({rtol:g}) or atol ({atol:g}), or max_steps")


def _step(
    slope: Callable[[Tensor, Tensor], Tensor], x: Tensor, first: Tensor, start: float, s: Tensor, h: Tensor, sign: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Fifth-order proposal, its slope (first of the next step) and the difference to the fourth order."""
    k = [first]
    reach = (sign * h)[:, None].to(x.dtype)
    at = x
    for stage in range(1, 7):
        at = x + reach * _combine(A[stage], k)
        k.append(slope(at, (start + sign * (s + C[stage] * h)).to(x.dtype)))
    return at, k[6], reach * _combine(E, k)


def _combine(weights: tuple[float, ...], terms: list[Tensor]) -> Tensor:
    total = torch.zeros_like(terms[0])
    for weight, term in zip(weights, terms, strict=True):
        if weight:
            total = total + weight * term
    return total


def pf_ode(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x_T: Tensor,
    sde: SDE,
    start: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    w: Callable[[Tensor], Tensor] | None = None,
    to_zero: bool = True,
) -> Solved:
    """Rows x at `start` (default T) → rows at eps, then one denoising step if `to_zero`. `denoise` takes t (B,).

    Solved in u = ln σ̄, where dx̄/du = w (x̄ - D) is smooth for every process (in VP's own time β blows it up near T).
    """
    ends = torch.tensor([sde.T if start is None else start, sde.eps], dtype=torch.float64)
    alphas = sde.alpha(ends)
    u_start, u_stop = (sde.sigma(ends) / alphas).log().tolist()

    def slope(x: Tensor, u: Tensor) -> Tensor:
        t = sde.time_of(u.exp()).clamp(sde.eps, sde.T)
        d = x - denoise(x * sde.alpha(t)[:, None], t)
        return d if w is None else w(t)[:, None] * d

    solved = dormand_prince(slope, x_T / float(alphas[0]), u_start, u_stop, rtol, atol)
    x = solved.x * float(alphas[1])
    if not to_zero:
        return Solved(x, solved.evaluations)
    return Solved(denoise(x, torch.full((len(x),), sde.eps, dtype=x.dtype, device=x.device)), solved.evaluations + 1)
