"""Score networks of fully connected layers over a vector x, a condition vector and a noise level.

Two stacks share one shape, so that what does not change during sampling is computed once: every layer adds a projection of
the condition (once per frame) and one of the time embedding (once per schedule) to a projection of the running state.

plain     RoboKeyGen's "modified fully connected network of GFPose" (ScoreModelFC_Adv): Linear + GroupNorm + SiLU + dropout,
          two such layers per residual block
residual  pre-LayerNorm residual layers, each beginning as the identity; the default

The output is turned into the denoiser D(x_t, t) by a preconditioning (Karras et al. 2022, section 5): D = c_skip x̄ +
c_out F(c_in x̄) with x̄ = x / α, σ̄ = σ / α. `eps` predicts the noise (or, up to the factor -1 / σ, the score), `v` and `edm` a mix of
noise and data that stays of unit size at both ends.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dataengine.errors import ConfigError, unknown_name
from training.diffusion.losses import SIGMA_DATA
from training.diffusion.sde import SDE

STACKS = ("plain", "residual")
PREDICTIONS = ("eps", "v", "edm")


@dataclass(frozen=True)
class ScoreNetConfig:
    """Sizes. The paper's (GFPose's) are hidden 1024, time 512, blocks 2, stack plain, dropout 0.25, prediction eps."""

    hidden: int = 256
    time: int = 128
    blocks: int = 4
    stack: str = "residual"
    prediction: str = "edm"
    dropout: float = 0.0


class TimeEmbedding(nn.Module):
    """Sines and cosines of ln σ̄ / 4 at fixed frequencies, then one layer: (B,) → (B, time)."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-1, 1, size // 2) * math.pi / 2, persistent=False)
        self.layer = nn.Linear(size, size)

    def forward(self, ratio: Tensor) -> Tensor:
        phase = (ratio.log() / 4)[:, None] * self.frequencies
        return torch.nn.functional.silu(self.layer(torch.cat([phase.sin(), phase.cos()], dim=1)))


class Layer(nn.Module):
    """norm(state + time + condition) → SiLU → dropout; residual: a second projection of it is added to the state."""

    def __init__(self, inputs: int, config: ScoreNetConfig) -> None:
        super().__init__()
        h = config.hidden
        residual = config.stack == "residual"
        self.state, self.time, self.condition = nn.Linear(inputs, h), nn.Linear(config.time, h), nn.Linear(h, h)
        self.before = nn.LayerNorm(inputs) if residual else nn.Identity()
        self.norm = nn.Identity() if residual else nn.GroupNorm(32, h)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(h, h) if residual else None
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """`time` and `condition` are already projected; rows of `time` may be 1."""
        y = self.dropout(torch.nn.functional.silu(self.norm(self.state(self.before(x)) + time + condition)))
        return y if self.out is None else x + self.out(y)


class ScoreNet(nn.Module):
    """F(c_in x̄, σ̄ | condition): x (B, x_dim), ratio σ̄ (B,), condition (B, cond_dim) → (B, x_dim)."""

    def __init__(self, x_dim: int, cond_dim: int, config: ScoreNetConfig) -> None:
        super().__init__()
        if config.stack not in STACKS:
            raise ConfigError(unknown_name("stack", config.stack, STACKS))
        if config.prediction not in PREDICTIONS:
            raise ConfigError(unknown_name("prediction", config.prediction, PREDICTIONS))
        if config.hidden % 32 or config.time % 2:
            raise ConfigError(f"score network of hidden {config.hidden}, time {config.time}: hidden must divide by 32, time by 2")
        h, residual = config.hidden, config.stack == "residual"
        self.config = config
        self.embed_time = TimeEmbedding(config.time)
        self.embed_condition = nn.Sequential(nn.Linear(cond_dim, h), nn.SiLU(), *([nn.Linear(h, h), nn.SiLU()] if residual else []))
        self.first = nn.Linear(x_dim, h) if residual else None
        inputs = [h if residual else x_dim, *[h] * (config.blocks * 2)]
        self.layers = nn.ModuleList(Layer(size, config) for size in (inputs[1:] if residual else inputs))
        self.last = nn.Sequential(nn.LayerNorm(h) if residual else nn.Identity(), nn.Linear(h, x_dim))

    def condition_terms(self, condition: Tensor) -> list[Tensor]:
        """Per layer (B, hidden): constant while one batch of frames is sampled."""
        c = self.embed_condition(condition)
        return [layer.condition(c) for layer in self.layers]  # type: ignore[union-attr]

    def time_terms(self, ratio: Tensor) -> list[Tensor]:
        """Per layer (len(ratio), hidden): constant over frames."""
        e = self.embed_time(ratio)
        return [layer.time(e) for layer in self.layers]  # type: ignore[union-attr]

    def run(self, x: Tensor, time: Sequence[Tensor], condition: Sequence[Tensor]) -> Tensor:
        y = x if self.first is None else self.first(x)
        if self.config.stack == "residual":
            for layer, t, c in zip(self.layers, time, condition, strict=True):
                y = layer(y, t, c)
            return self.last(y)
        y = self.layers[0](y, time[0], condition[0])
        for i in range(1, len(self.layers), 2):
            inner = self.layers[i](y, time[i], condition[i])
            y = y + self.layers[i + 1](inner, time[i + 1], condition[i + 1])
        return self.last(y)

    def forward(self, x: Tensor, ratio: Tensor, condition: Tensor) -> Tensor:
        return self.run(x, self.time_terms(ratio), self.condition_terms(condition))


def precondition(prediction: str, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in at σ̄ (any shape)."""
    total = (ratio**2 + SIGMA_DATA**2).sqrt()
    if prediction == "eps":
        return torch.ones_like(ratio), -ratio, 1 / total
    if prediction == "v":  # v = α ε - σ x_0 of the process with α² + σ² = 1
        total = (ratio**2 + 1).sqrt()
        return 1 / total**2, -ratio / total, 1 / total
    return SIGMA_DATA**2 / total**2, ratio * SIGMA_DATA / total, 1 / total


def denoise(net: ScoreNet, sde: SDE, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """D(x_t, t) of rows x_t (B, D), t (B,), condition (B, C)."""
    alpha = sde.alpha(t)
    ratio = sde.sigma(t) / alpha
    return _denoise(net, x_t / alpha[:, None], ratio, net.time_terms(ratio), net.condition_terms(condition))


def prepared_denoiser(
    net: ScoreNet, sde: SDE, condition: Tensor, ts: Sequence[float], samples: int = 1
) -> Callable[[Tensor, float], Tensor]:
    """The same as `denoise` for sampling along a schedule: D(x_t, t) with the float t one of `ts`.

    condition (B, C) belongs to B frames; x_t has B·samples rows, the samples of a frame one after another.
    """
    terms = [c.repeat_interleave(samples, dim=0) for c in net.condition_terms(condition)]
    times = torch.tensor(list(ts), dtype=torch.float64)
    alphas = sde.alpha(times)
    ratios = (sde.sigma(times) / alphas).to(condition)
    table = net.time_terms(ratios)
    place = {t: i for i, t in enumerate(ts)}
    alpha_of = alphas.tolist()

    def at(x_t: Tensor, t: float) -> Tensor:
        i = place[t]
        return _denoise(net, x_t / alpha_of[i], ratios[i : i + 1], [term[i : i + 1] for term in table], terms)

    return at


def _denoise(net: ScoreNet, scaled: Tensor, ratio: Tensor, time: Sequence[Tensor], condition: Sequence[Tensor]) -> Tensor:
    skip, out, inward = (c[:, None] for c in precondition(net.config.prediction, ratio))
    return skip * scaled + out * net.run(inward * scaled, time, condition).to(scaled.dtype)
