"""Samplers against closed forms, against diffusers and against torchdiffeq, all with the same denoiser."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dataengine.errors import ConfigError
from training.diffusion.ode import dormand_prince, pf_ode
from training.diffusion.samplers import SPACINGS, ddim, dpm_solver, exponential_scaling, heun, prior, schedule, warm_start
from training.diffusion.sde import SDE, SDES, VE, VP, make_sde

float64 = torch.float64
MU, S = torch.tensor([0.5, -1.0, 2.0], dtype=float64), 0.7


def column(t: Tensor | float) -> Tensor:
    return torch.as_tensor(t, dtype=float64).reshape(-1, 1)


def gaussian(sde: SDE) -> Callable[[Tensor, Tensor | float], Tensor]:
    """The exact denoiser of data N(MU, S²)."""

    def denoise(x: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = sde.alpha(column(t)), sde.sigma(column(t))
        return (S**2 * alpha * x + sigma**2 * MU) / (S**2 * alpha**2 + sigma**2)

    return denoise


def exact(sde: SDE, x: Tensor, start: float, stop: float) -> Tensor:
    """Solution of the probability-flow ODE for `gaussian`: (x̄ - μ) / √(S² + σ̄²) does not change."""
    a, b = column(start), column(stop)
    spread = (S**2 + (sde.sigma(b) / sde.alpha(b)) ** 2) / (S**2 + (sde.sigma(a) / sde.alpha(a)) ** 2)
    return sde.alpha(b) * (MU + (x / sde.alpha(a) - MU) * spread.sqrt())


def noise(rows: int = 64, seed: int = 0, columns: int = 3) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=float64)


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize(("sampler", "steps", "tolerance"), [(ddim, 500, 6e-2), (heun, 300, 1e-3), (dpm_solver, 300, 2e-3)])
def test_gaussian_data(name: str, sampler: Callable[..., Tensor], steps: int, tolerance: float) -> None:
    sde = make_sde(name)
    x_T = prior(sde, noise())
    got = sampler(gaussian(sde), x_T, sde, schedule(sde, steps, "logsnr"), to_zero=False)
    torch.testing.assert_close(got, exact(sde, x_T, sde.T, sde.eps), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (heun, 2), (dpm_solver, 2)])
def test_order_of_convergence(sampler: Callable[..., Tensor], order: int) -> None:
    sde = VP()
    x_T = prior(sde, noise())
    wanted = exact(sde, x_T, sde.T, 0.01)

    def error(steps: int) -> float:
        ts = torch.linspace(1, 0.1, steps + 1, dtype=float64).square().tolist()
        return (sampler(gaussian(sde), x_T, sde, ts, to_zero=False) - wanted).abs().max().item()

    assert error(100) / error(200) == pytest.approx(2**order, rel=0.2)


@pytest.mark.parametrize("name", SDES)
def test_rk45_gaussian(name: str) -> None:
    sde = make_sde(name)
    x_T = prior(sde, noise())
    solved = pf_ode(gaussian(sde), x_T, sde, to_zero=False)
    torch.testing.assert_close(solved.x, exact(sde, x_T, sde.T, sde.eps), rtol=0, atol=2e-4)
    assert 30 < solved.evaluations.max() < 400


def test_samples_have_the_moments_of_the_data() -> None:
    sde = VP()
    x = dpm_solver(gaussian(sde), prior(sde, noise(20_000)), sde, schedule(sde, 60, "logsnr"))
    torch.testing.assert_close(x.mean(0), MU, rtol=0, atol=0.02)
    torch.testing.assert_close(x.std(0), torch.full((3,), S, dtype=float64), rtol=0, atol=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_stochastic_ddim_keeps_the_moments(eta: float) -> None:
    sde = VP()
    ts = schedule(sde, 200, "logsnr")
    z = [noise(5000, i) for i in range(len(ts))]
    x = ddim(gaussian(sde), prior(sde, noise(5000, 999)), sde, ts, eta, z)
    torch.testing.assert_close(x.std(0), torch.full((3,), S, dtype=float64), rtol=0, atol=0.03)


def test_warm_start_continues_the_flow() -> None:
    """What starts at T0 from a sample of the data is a sample of the kernel at T0; with no noise it comes back to where it was."""
    sde = VP()
    x_prev, T0 = MU + S * noise(20_000, 1), 0.2
    x_T0 = warm_start(sde, x_prev, T0, noise(20_000, 2))
    t = column(T0)
    spread = (sde.alpha(t) ** 2 * S**2 + sde.sigma(t) ** 2).sqrt().item()
    torch.testing.assert_close(x_T0.std(0), torch.full((3,), spread, dtype=float64), rtol=0.02, atol=0)
    x = dpm_solver(gaussian(sde), x_T0, sde, schedule(sde, 8, "logsnr", T0))
    torch.testing.assert_close(x.std(0), torch.full((3,), S, dtype=float64), rtol=0.03, atol=0)
    assert torch.equal(warm_start(sde, x_prev, T0, 0 * x_prev), float(sde.alpha(t)) * x_prev)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SDES)
def test_schedules_fall_from_start_to_eps(name: str, spacing: str) -> None:
    sde = make_sde(name)
    ts = schedule(sde, 7, spacing, 0.5 * sde.T)
    assert len(ts) == 7 and ts[0] == pytest.approx(0.5 * sde.T) and ts[-1] == pytest.approx(sde.eps) and (np.diff(ts) < 0).all()
    assert schedule(sde, 1, spacing) == [pytest.approx(sde.T)]


@pytest.mark.parametrize(
    ("arguments", "message"), [((0,), "0 sampling steps"), ((4, "cubic"), "unknown spacing"), ((4, "uniform", 1.5), "start in")]
)
def test_bad_schedules(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule(VP(), *arguments)
    with pytest.raises(ConfigError, match="needs 3 tensors of noise, got 0"):
        ddim(gaussian(VP()), noise(), VP(), schedule(VP(), 4), eta=1.0)


# ---- diffusers: a discrete table of cumulative alphas, the same noise-predicting network on both sides


class Discrete:
    """Our view of a diffusers table: time is the index, α and σ come from it."""

    T, eps = 999.0, 0.0

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.table = alphas_cumprod.double()

    def alpha(self, t: Tensor) -> Tensor:
        return self.table[t.long()].sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self.table[t.long()]).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def diffusion(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def time_of(self, ratio: Tensor) -> Tensor:
        raise NotImplementedError

    def denoise(self, x: Tensor, t: float) -> Tensor:
        index = torch.tensor(t)
        return (x - self.sigma(index) * network(x, t)) / self.alpha(index)


def network(x: Tensor, t: float) -> Tensor:
    """Any smooth function of x and t will do."""
    return torch.sin(x + t / 500) + 0.3 * x


def theirs(scheduler: object, x: Tensor, **step: object) -> Tensor:
    for t in scheduler.timesteps:  # type: ignore[attr-defined]
        x = scheduler.step(network(x, float(t)), t, x, **step).prev_sample  # type: ignore[attr-defined]
    return x


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_ddim_equals_diffusers(steps: int) -> None:
    from diffusers import DDIMScheduler

    peer = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    peer.set_timesteps(steps)
    sde = Discrete(peer.alphas_cumprod)
    ours = ddim(sde.denoise, noise(), sde, [float(t) for t in peer.timesteps])
    torch.testing.assert_close(ours, theirs(peer, noise()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [5, 8, 20])
def test_dpm_solver_equals_diffusers(steps: int) -> None:
    from diffusers import DPMSolverMultistepScheduler

    peer = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero")
    peer.set_timesteps(steps)
    sde = Discrete(peer.alphas_cumprod)
    ours = dpm_solver(sde.denoise, noise(), sde, [float(t) for t in peer.timesteps])
    torch.testing.assert_close(ours, theirs(peer, noise()), rtol=1e-5, atol=1e-5)


def test_heun_equals_diffusers() -> None:
    """HeunDiscrete works in x̄ and hands the network x̄ / √(1 + σ̄²), which is our α x̄."""
    from diffusers import HeunDiscreteScheduler

    peer = HeunDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
    peer.set_timesteps(10)
    sde = Discrete(peer.alphas_cumprod)
    ts = [float(t) for t in peer.timesteps[::2]]
    ours = heun(sde.denoise, noise() * float(sde.alpha(torch.tensor(ts[0]))), sde, ts)
    x = noise()
    for t in peer.timesteps:
        x = peer.step(network(peer.scale_model_input(x, t), float(t)), t, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-5)


# ---- Dormand-Prince


def rotation(x: Tensor, s: Tensor) -> Tensor:
    return torch.stack([x[:, 1], -x[:, 0] * (1 + 0.5 * torch.sin(s))], 1)


def test_dormand_prince_equals_torchdiffeq() -> None:
    from torchdiffeq import odeint

    start = noise(5, columns=2)
    grid = torch.tensor([3.0, 0.5], dtype=float64)
    wanted = odeint(lambda s, x: rotation(x, s.expand(len(x))), start, grid, rtol=1e-10, atol=1e-10, method="dopri5")[-1]
    got = dormand_prince(rotation, start, 3.0, 0.5, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.x, wanted, rtol=0, atol=1e-6)


def test_flow_of_vp_equals_torchdiffeq_in_the_papers_own_time() -> None:
    """dx/dt = f x - g²/2 score, as the papers write it, against our solution in ln σ̄."""
    from torchdiffeq import odeint

    sde, denoise = VP(eps=0.1), gaussian(VP())  # the peer steps past the end, where time must not be negative
    x_T = prior(sde, noise(8))

    def slope(t: Tensor, x: Tensor) -> Tensor:
        score = (sde.alpha(t) * denoise(x, t) - x) / sde.sigma(t) ** 2
        return sde.drift(t) * x - 0.5 * sde.diffusion(t) ** 2 * score

    grid = torch.tensor([sde.T, sde.eps], dtype=float64)
    wanted = odeint(slope, x_T, grid, rtol=1e-8, atol=1e-8, method="dopri5")[-1]
    torch.testing.assert_close(pf_ode(denoise, x_T, sde, rtol=1e-8, atol=1e-8, to_zero=False).x, wanted, rtol=0, atol=1e-5)


def test_rows_do_not_know_of_each_other() -> None:
    x = noise(6, columns=2) * torch.logspace(-3, 2, 6, dtype=float64)[:, None]
    together = dormand_prince(rotation, x, 0.0, 2.0)
    for i in range(6):
        alone = dormand_prince(rotation, x[i : i + 1], 0.0, 2.0)
        assert torch.equal(alone.x[0], together.x[i]) and alone.evaluations[0] == together.evaluations[i]
    assert len(set(together.evaluations.tolist())) > 1


def test_a_finer_tolerance_costs_more_and_errs_less() -> None:
    sde, x_T = VP(), prior(VP(), noise())
    wanted = exact(sde, x_T, sde.T, sde.eps)
    coarse, fine = (pf_ode(gaussian(sde), x_T, sde, rtol=r, atol=r, to_zero=False) for r in (1e-3, 1e-7))
    assert (fine.x - wanted).abs().max() < 1e-2 * (coarse.x - wanted).abs().max()
    assert fine.evaluations.min() > coarse.evaluations.max()


def test_too_many_steps() -> None:
    from dataengine.errors import DataEngineError

    with pytest.raises(DataEngineError, match="more than 3 steps"):
        dormand_prince(rotation, noise(2, columns=2), 0.0, 100.0, max_steps=3)


# ---- score scaling


@pytest.mark.parametrize("w", [1.0, 2.0, 3.0])
def test_constant_scaling_of_gaussian_data(w: float) -> None:
    """Final spread s_T ((S² + σ_min²) / (S² + σ_T²))^{w/2}; every sampler with a hook."""
    sde = VE()
    x_T = MU + 50 * noise()
    a, b = sde.sigma(column(sde.T)), sde.sigma(column(sde.eps))
    wanted = MU + (x_T - MU) * ((S**2 + b**2) / (S**2 + a**2)) ** (w / 2)
    ts = schedule(sde, 4000, "logsnr")
    torch.testing.assert_close(ddim(gaussian(sde), x_T, sde, ts, w=lambda t: w, to_zero=False), wanted, rtol=0, atol=3e-2)
    torch.testing.assert_close(heun(gaussian(sde), x_T, sde, ts[::10] + ts[-1:], w=lambda t: w, to_zero=False), wanted, rtol=0, atol=1e-2)
    flow = pf_ode(gaussian(sde), x_T, sde, w=lambda t: torch.full_like(t, w), to_zero=False)
    torch.testing.assert_close(flow.x, wanted, rtol=0, atol=1e-3)


def ring_scores(x: Tensor) -> tuple[float, float, float]:
    """Outliers at r > 1.3; radial RMSE; entropy of angles, 1 = uniform."""
    r = x.norm(dim=1)
    counts = torch.histc(torch.atan2(x[:, 1], x[:, 0]), 64, -math.pi, math.pi)
    p = counts[counts > 0] / counts.sum()
    return (r > 1.3).double().mean().item(), (r - 1).square().mean().sqrt().item(), (-(p * p.log()).sum() / math.log(64)).item()


def test_exponential_scaling_removes_outliers_and_keeps_the_modes() -> None:
    """A ring of 64 modes with 5 % outliers at r = 1.6, 16 steps: the claim of the score-scaling paper's figure 2."""
    sde = VE()
    angle = torch.arange(64, dtype=float64) / 64 * 2 * math.pi
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    modes = torch.cat([ring, 1.6 * ring])
    uneven = torch.rand(64, generator=torch.Generator().manual_seed(3), dtype=float64)  # else symmetry alone would keep all modes
    weights = torch.cat([torch.full((64,), 0.95 / 64, dtype=float64), 0.05 * uneven / uneven.sum()])

    def denoise(x: Tensor, t: float) -> Tensor:
        variance, noise_ = 0.05**2, sde.sigma(column(t)) ** 2
        p = torch.softmax(weights.log() - torch.cdist(x, modes) ** 2 / (2 * (variance + noise_)), dim=1)
        return (variance * x + noise_ * (p @ modes)) / (variance + noise_)

    x_T = 50 * noise(3000, columns=2)
    ts = schedule(sde, 16, "logsnr")
    plain, exponential, constant = (
        ring_scores(ddim(denoise, x_T, sde, ts, w=w, to_zero=False)) for w in (None, exponential_scaling(), lambda t: 3.0)
    )
    assert plain[0] > 0.02 and exponential[0] <= 0.001 and exponential[1] <= 0.1 * plain[1]
    assert exponential[2] >= 0.95 * plain[2] and constant[2] < 0.3


def test_exponential_scaling_runs_from_one_to_w_max() -> None:
    w = exponential_scaling(20.0, 8.0)
    assert w(1.0) == pytest.approx(1.0) and w(0.0) == pytest.approx(20.0) and w(0.5) < 2
