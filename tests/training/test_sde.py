"""The processes against numerical solutions of their own equations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataengine.errors import ConfigError
from training.diffusion.sde import EDM, SDES, VE, VP, make_sde, perturb, score_of

float64 = torch.float64


@pytest.mark.parametrize("name", SDES)
def test_kernel_solves_the_moment_equations(name: str) -> None:
    """dα/dt = f α and dσ²/dt = 2 f σ² + g², by central differences."""
    sde = make_sde(name)
    t = torch.linspace(0.05, 0.95, 19, dtype=float64) * sde.T
    h = 1e-5 * sde.T
    d_alpha = (sde.alpha(t + h) - sde.alpha(t - h)) / (2 * h)
    d_variance = (sde.sigma(t + h) ** 2 - sde.sigma(t - h) ** 2) / (2 * h)
    torch.testing.assert_close(d_alpha, sde.drift(t) * sde.alpha(t), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(d_variance, 2 * sde.drift(t) * sde.sigma(t) ** 2 + sde.diffusion(t) ** 2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SDES)
@given(part=st.floats(0, 1))
def test_time_of_inverts_the_noise_ratio(name: str, part: float) -> None:
    sde = make_sde(name)
    t = torch.tensor([sde.eps + part * (sde.T - sde.eps)], dtype=float64)
    torch.testing.assert_close(sde.time_of(sde.sigma(t) / sde.alpha(t)), t, rtol=1e-9, atol=1e-12)


def test_constants_of_the_papers() -> None:
    one = torch.ones(1, dtype=float64)
    assert VP().beta(0 * one).item() == pytest.approx(0.1) and VP().beta(one).item() == pytest.approx(20.0)
    assert VP().log_alpha(one).item() == pytest.approx(-0.25 * 19.9 - 0.05)
    assert VE().sigma(0 * one).item() == pytest.approx(0.01) and VE().sigma(one).item() == pytest.approx(50.0)
    assert (EDM().eps, EDM().T) == (0.002, 80.0)


def test_vp_keeps_the_variance_and_small_times_keep_their_digits() -> None:
    t = torch.tensor([1e-4, 1e-3, 0.5, 1.0])
    torch.testing.assert_close(VP().alpha(t) ** 2 + VP().sigma(t) ** 2, torch.ones(4))
    torch.testing.assert_close(VP().sigma(t), VP().sigma(t.double()).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", SDES)
def test_score_of_the_posterior_mean_is_the_gradient_of_the_log_density(name: str) -> None:
    """Data N(0, 1): x_t ~ N(0, α² + σ²), D = α x / (α² + σ²)."""
    sde = make_sde(name)
    x_0, z = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0), dtype=float64)
    t = torch.linspace(0.1, 1, 8, dtype=float64) * sde.T
    x = perturb(sde, x_0, t, z)
    variance = (sde.alpha(t) ** 2 + sde.sigma(t) ** 2)[:, None]
    torch.testing.assert_close(score_of(sde, x, sde.alpha(t)[:, None] * x / variance, t), -x / variance)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="unknown SDE 'vpp' .*available: vp, ve, edm"):
        make_sde("vpp")
