"""Score networks: shapes, size of the paper's one, and that precomputing changes nothing."""

import pytest
import torch

from dataengine.errors import ConfigError
from training.diffusion.losses import denoising_loss
from training.diffusion.samplers import ddim, prior, schedule
from training.diffusion.sde import VP, make_sde
from training.models.joint_head import JointHead, angle_loss, angles, invariants
from training.models.regression import RegressionLifter, regression_loss
from training.models.score_net import PREDICTIONS, STACKS, ScoreNet, ScoreNetConfig, denoise, precondition, prepared_denoiser

SMALL = {"hidden": 64, "time": 32, "blocks": 1}


def net(seed: int = 0, **changes: object) -> ScoreNet:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return ScoreNet(6, 5, ScoreNetConfig(**{**SMALL, **changes}))  # type: ignore[arg-type]


def rows(n: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed))


def scrambled(model: torch.nn.Module) -> torch.nn.Module:
    """Weights away from their zero initialisation."""
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return model


def test_size_of_the_papers_network() -> None:
    """12.41 M parameters for 7 keypoints, 14 coordinates as condition (a count of an independent implementation)."""
    paper = ScoreNet(21, 14, ScoreNetConfig(1024, 512, 2, "plain", "eps", 0.25))
    assert sum(p.numel() for p in paper.parameters()) == pytest.approx(12.41e6, rel=0.005)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_prepared_terms_change_nothing(stack: str, prediction: str) -> None:
    sde = VP()
    model = scrambled(net(stack=stack, prediction=prediction)).double().eval()
    assert isinstance(model, ScoreNet)
    condition, ts = rows(3, 5).double(), schedule(sde, 4)
    x = rows(12, 6, 1).double()
    quick = prepared_denoiser(model, sde, condition, ts, samples=4)
    for t in ts:
        slow = denoise(model, sde, x, torch.full((12,), t, dtype=x.dtype), condition.repeat_interleave(4, 0))
        torch.testing.assert_close(quick(x, t), slow, rtol=1e-9, atol=1e-9)


def test_rows_of_a_batch_are_independent() -> None:
    sde, model, condition, ts = VP(), net().eval(), rows(3, 5), schedule(VP(), 3)
    z = rows(6, 6, 2)
    together = ddim(prepared_denoiser(model, sde, condition, ts, 2), prior(sde, z), sde, ts)
    alone = ddim(prepared_denoiser(model, sde, condition[1:2], ts, 2), prior(sde, z[2:4]), sde, ts)
    torch.testing.assert_close(together[2:4], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_preconditioning(prediction: str) -> None:
    """A network that predicts its own target exactly gives back the data; its input has unit size."""
    ratio = torch.logspace(-3, 2, 20, dtype=torch.float64)
    x_0, z = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = x_0 + ratio[:, None] * z
    skip, out, inward = (c[:, None] for c in precondition(prediction, ratio))
    total = (1 + ratio**2).sqrt()[:, None]
    target = {"eps": z, "v": (z - ratio[:, None] * x_0) / total}.get(prediction, (x_0 - skip * scaled) / out)
    torch.testing.assert_close(skip * scaled + out * target, x_0, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(inward * total, torch.ones_like(total))


@pytest.mark.parametrize("name", ["vp", "ve", "edm"])
def test_it_learns_a_point_per_condition(name: str) -> None:
    """Data = a linear function of the condition: after 300 steps the samples lie on it."""
    sde, model = make_sde(name), net(blocks=1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    way = rows(5, 6, 7) / 2
    for _ in range(300):
        c = torch.randn(256, 5, generator=generator)
        loss = denoising_loss(lambda x, t, c=c: denoise(model, sde, x, t, c), sde, c @ way, generator, "edm", "lognormal")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    c, ts = rows(64, 5, 9), schedule(sde, 8, "karras")
    with torch.no_grad():
        got = ddim(prepared_denoiser(model, sde, c, ts), prior(sde, rows(64, 6, 10)), sde, ts)
    assert (got - c @ way).square().mean() < 0.1 * (c @ way).square().mean()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"stack": "conv"}, "unknown stack 'conv'"), ({"prediction": "x"}, "unknown prediction 'x'"), ({"hidden": 50}, "divide by 32")],
)
def test_bad_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        net(**changes)


def random_rotation(seed: int) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return q * torch.det(q)


def test_invariants_do_not_see_rigid_motion_but_see_mirrors() -> None:
    x = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    head = JointHead(7, 6)
    values = invariants(x, head.triples)
    torch.testing.assert_close(invariants(x @ random_rotation(2).T + torch.tensor([1.0, -2.0, 3.0]), head.triples), values)
    mirrored = invariants(x * torch.tensor([-1.0, 1.0, 1.0]), head.triples)
    torch.testing.assert_close(mirrored[:, :-7], values[:, :-7])
    assert (mirrored[:, -7:] + values[:, -7:]).abs().max() < 1e-9 and values[:, -7:].abs().max() > 0.1


def test_angles_and_their_loss() -> None:
    q = torch.tensor([[0.3, -2.0, 3.0]])
    exact = torch.stack([q.sin(), q.cos()], -1)
    torch.testing.assert_close(angles(exact), q)
    assert angle_loss(exact, q).item() == pytest.approx(0, abs=1e-6) and angle_loss(-exact, q).item() == pytest.approx(2)
    head = JointHead(4, 3)
    head.whiten(torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(head(torch.randn(2, 4, 3)).norm(dim=-1), torch.ones(2, 3))


def test_regression_learns_the_same() -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = RegressionLifter(6, 5, hidden=64)
    way = rows(5, 6, 7) / 2
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for step in range(200):
        c = rows(256, 5, step)
        loss = regression_loss(model(c), c @ way)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
