"""Losses of denoisers whose error is known."""

import math

import pytest
import torch
from torch import Tensor

from dataengine.errors import ConfigError
from training.diffusion.losses import P_MEAN, P_STD, WEIGHTINGS, denoising_loss, draw_times
from training.diffusion.sde import VP, make_sde, score_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_truth_has_no_loss(weighting: str) -> None:
    x_0 = torch.randn(32, 5, generator=generator())
    loss = denoising_loss(lambda x, t: x_0, VP(), x_0, generator(), weighting)
    assert loss.item() < 1e-10


@pytest.mark.parametrize("name", ["vp", "ve", "edm"])
def test_likelihood_weight_is_beta_on_the_score(name: str) -> None:
    """Recomputed from the definition, E λ ‖score error‖² with λ = g², as RoboKeyGen writes it."""
    sde = make_sde(name)
    x_0 = torch.randn(64, 4, generator=generator(1), dtype=torch.float64)
    seen: list[tuple[Tensor, Tensor]] = []

    def shrunk(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return 0.5 * x_0

    loss = denoising_loss(shrunk, sde, x_0, generator(2), "likelihood")
    x_t, t = seen[0]
    error = score_of(sde, x_t, 0.5 * x_0, t) - score_of(sde, x_t, x_0, t)
    assert loss.item() == pytest.approx((sde.diffusion(t) ** 2 * error.square().mean(1)).mean().item(), rel=1e-6)


def test_min_snr_and_variance_weights_at_a_time() -> None:
    sde, t = VP(), torch.tensor([0.02, 0.3, 0.9])
    snr = (sde.alpha(t) / sde.sigma(t)) ** 2
    assert snr[0] > 5 > snr[1]
    torch.testing.assert_close(WEIGHTINGS["min-snr-5"](sde, t) * snr, torch.tensor([5.0, snr[1], snr[2]]))
    torch.testing.assert_close(WEIGHTINGS["variance"](sde, t), torch.ones(3))


def test_edm_weight_makes_every_level_count_one() -> None:
    """With F = 0, i.e. D = c_skip x, the expected loss of unit data is 1 at every level (Karras et al., appendix B.6)."""
    sde = make_sde("edm")
    x_0 = torch.randn(200_000, 1, generator=generator())
    loss = denoising_loss(lambda x, t: x / (1 + t[:, None] ** 2), sde, x_0, generator(1), "edm", "lognormal")
    assert loss.item() == pytest.approx(1.0, abs=0.02)


def test_laws_of_times() -> None:
    sde = VP()
    uniform = draw_times(sde, 100_000, "uniform", generator())
    assert sde.eps <= uniform.min() and uniform.max() <= sde.T and uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    t = draw_times(make_sde("edm"), 100_000, "lognormal", generator())
    assert t.log().mean().item() == pytest.approx(P_MEAN, abs=0.02) and t.log().std().item() == pytest.approx(P_STD, abs=0.02)
    assert math.isfinite(draw_times(sde, 1000, "lognormal", generator()).sum().item())


def test_repeats_show_each_row_so_often() -> None:
    x_0 = torch.arange(6.0).view(3, 2)
    rows: list[int] = []

    def watching(x: Tensor, t: Tensor) -> Tensor:
        rows.append(len(x))
        return x_0.repeat(4, 1)

    assert denoising_loss(watching, VP(), x_0, generator(), repeats=4).item() == pytest.approx(0) and rows == [12]


def test_the_generator_alone_decides() -> None:
    x_0 = torch.randn(16, 3, generator=generator())
    losses = {denoising_loss(lambda x, t: 0 * x, VP(), x_0, generator(seed)).item() for seed in (1, 1, 2)}
    assert len(losses) == 2


@pytest.mark.parametrize(
    ("names", "message"), [({"weighting": "snr"}, "loss weighting 'snr'"), ({"times": "normal"}, "law of times 'normal'")]
)
def test_unknown_names(names: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        denoising_loss(lambda x, t: x, VP(), torch.zeros(1, 1), generator(), **names)
