"""Keypoints as two one-dimensional classifications, after SimCC (Li et al., ECCV 2022) and RTMPose (Jiang et al., 2023).

Each axis of a crop of S pixels has ``SPLIT``·S bins; the centre of bin b lies at pixel (b + 0.5) / SPLIT - 0.5, so the bins
tile the crop exactly. Unlike in SimCC, most of the logits come from a map of a quarter of the size: its log-sum-exp along
columns and rows, interpolated to bins by Keys' cubic, which keeps a Gaussian a Gaussian. That part moves with the picture and needs
few images to learn; the tokens that attend to one another add what depends on the whole robot.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

SPLIT = 2
"""Bins per pixel."""
CELL = 4
"""Crop pixels per cell of the map."""


@dataclass
class KeypointLogits:
    """``x``, ``y`` (B, N, bins); ``heat`` (B, N, S/4, S/4), the map; ``presence`` (B, N, 2): in the crop, and seen there."""

    x: torch.Tensor
    y: torch.Tensor
    heat: torch.Tensor
    presence: torch.Tensor


@dataclass
class Decoded:
    """Points (B, N, 2) in crop pixels, their covariance (B, N, 2, 2) px² and the share of probability near the peak (B, N)."""

    points_px: torch.Tensor
    covariance_px2: torch.Tensor
    mass: torch.Tensor


def bin_centres(bins: int, device: torch.device | str | None = None) -> torch.Tensor:
    """(bins,) pixel coordinates."""
    return (torch.arange(bins, device=device) + 0.5) / SPLIT - 0.5


def soft_labels(position_px: torch.Tensor, bins: int, sigma_px: float) -> torch.Tensor:
    """(...) pixel coordinates → (..., bins): a Gaussian at the exact position, summing to 1."""
    z = (bin_centres(bins, position_px.device).to(position_px.dtype) - position_px[..., None]) / sigma_px
    return torch.softmax(-0.5 * z**2, -1)


def interpolation(cells: int) -> torch.Tensor:
    """(cells, bins) matrix of Keys' cubic convolution (IEEE ASSP 1981, a = -1/2), with his quadratic boundary; exact for quadratics."""
    per_cell = CELL * SPLIT
    at = (torch.arange(cells * per_cell, dtype=torch.float64) + 0.5) / per_cell - 0.5
    extended = torch.arange(-2, cells + 2, dtype=torch.float64)
    t = (at[:, None] - extended).abs()
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weight = torch.where(t < 1, near, torch.where(t < 2, far, 0.0))
    edges = torch.zeros(cells + 4, cells, dtype=torch.float64)
    edges[2:-2] = torch.eye(cells, dtype=torch.float64)
    edges[:2, :3] = torch.tensor([[6.0, -8.0, 3.0], [3.0, -3.0, 1.0]], dtype=torch.float64)
    edges[-2:, -3:] = edges[:2, :3].flip(0, 1)
    return (weight @ edges).T.float().contiguous()


class GatedAttention(nn.Module):
    """Gated attention unit (Hua et al., ICML 2022) over N tokens of ``width``, with ScaleNorm and a residual."""

    def __init__(self, width: int, inner: int, key: int = 64) -> None:
        super().__init__()
        self.inner, self.key = inner, key
        self.gain = nn.Parameter(torch.ones(()))
        self.enter, self.leave = nn.Linear(width, 2 * inner + key), nn.Linear(inner, width)
        self.scale, self.shift = nn.Parameter(torch.ones(2, key)), nn.Parameter(torch.zeros(2, key))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.gain * F.normalize(tokens, dim=-1) * math.sqrt(tokens.shape[-1])
        gate, value, base = F.silu(self.enter(normed)).split([self.inner, self.inner, self.key], -1)
        query, key = (base[..., None, :] * self.scale + self.shift).unbind(-2)
        attention = F.relu(query @ key.mT / math.sqrt(self.key)) ** 2 / tokens.shape[-2]
        return tokens + self.leave(gate * (attention @ value))


class KeypointHead(nn.Module):
    """Features (B, C, S/4, S/4) and (B, C, S/16, S/16), last frame's points (B, N, 2) in crop pixels → `KeypointLogits`.

    A point of the last frame that is unknown is nan: it says nothing.
    """

    def __init__(self, keypoints: int, channels: int, size: int, width: int = 192) -> None:
        super().__init__()
        self.size = size
        self.map = nn.Conv2d(channels, keypoints, 1)
        self.summary = nn.Conv2d(channels, keypoints, 3, padding=1)
        self.from_summary = nn.Linear((size // 16) ** 2, width)
        self.from_peak = nn.Linear(channels, width)
        self.from_place = nn.Linear(PLACE, width)
        self.from_last = nn.Sequential(nn.Linear(PLACE, width), nn.SiLU(), nn.Linear(width, width))
        self.identity = nn.Parameter(0.02 * torch.randn(keypoints, width))
        self.mix = nn.Sequential(GatedAttention(width, 2 * width), GatedAttention(width, 2 * width))
        self.to_bins = nn.Linear(width, 2 * size * SPLIT)
        self.to_presence = nn.Linear(width, 2)
        nn.init.zeros_(self.to_bins.weight)
        nn.init.zeros_(self.to_bins.bias)
        self.spline: torch.Tensor
        self.register_buffer("spline", interpolation(size // CELL), persistent=False)

    def forward(self, fine: torch.Tensor, deep: torch.Tensor, last_px: torch.Tensor | None = None) -> KeypointLogits:
        heat, summary = self.map(fine).float(), self.summary(deep).flatten(2).float()
        # From here on float32: rounding logits to 8 bits would move points by tenths of a pixel.
        with torch.autocast(heat.device.type, enabled=False):
            share = torch.softmax(heat.flatten(2), -1)
            place = waves(share @ self._cell_centres(heat.device), self.size)
            peak = (share.to(fine.dtype) @ fine.flatten(2).mT).float()
            tokens = self.identity + self.from_summary(summary) + self.from_peak(peak) + self.from_place(place)
            if last_px is not None:
                known = torch.isfinite(last_px).all(-1, keepdim=True)
                tokens = tokens + known * self.from_last(waves(torch.where(known, last_px, 0.0), self.size))
            tokens = self.mix(tokens)
            more_x, more_y = self.to_bins(tokens).chunk(2, -1)
            x, y = torch.logsumexp(heat, 2) @ self.spline, torch.logsumexp(heat, 3) @ self.spline
            return KeypointLogits(x + more_x, y + more_y, heat, self.to_presence(tokens))

    def _cell_centres(self, device: torch.device) -> torch.Tensor:
        axis = CELL * torch.arange(self.size // CELL, device=device) + (CELL - 1) / 2
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return torch.stack([x, y], -1).reshape(-1, 2)


PLACE = 64
"""Numbers that describe a place: sine and cosine of 16 frequencies, two axes."""


def waves(points_px: torch.Tensor, size: int) -> torch.Tensor:
    """(..., 2) crop pixels → (..., PLACE), wavelengths from 2 crops to 4 pixels."""
    wavelengths = torch.logspace(math.log10(2 * size), math.log10(4), PLACE // 4, device=points_px.device)
    phase = (2 * math.pi * points_px[..., None] / wavelengths).flatten(-2)
    return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


def axis_loss(logits: torch.Tensor, position_px: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """(...) Kullback–Leibler divergence of the predicted (..., bins) from the soft label; 0 when they agree."""
    label = soft_labels(position_px, logits.shape[-1], sigma_px)
    return (torch.special.xlogy(label, label) - label * torch.log_softmax(logits, -1)).sum(-1)


def decode(logits: KeypointLogits, sigma_px: float) -> Decoded:
    """Means and moments of the part of the distribution within four label sigmas of its peak.

    Training on labels of ``sigma_px`` makes the network predict its belief about the point blurred by that much: the
    covariance given back has it taken off (it may be 0; see `calibrated`). Correlation comes from the map.
    """
    (x, var_x, mass_x), (y, var_y, mass_y) = (_axis_moments(v, sigma_px) for v in (logits.x, logits.y))
    points = torch.stack([x, y], -1)
    var = (torch.stack([var_x, var_y], -1) - sigma_px**2).clamp_min(0)
    cross = _correlation(logits.heat, points, sigma_px) * torch.sqrt(var[..., 0] * var[..., 1])
    covariance = torch.stack([torch.stack([var[..., 0], cross], -1), torch.stack([cross, var[..., 1]], -1)], -2)
    return Decoded(points, covariance, mass_x * mass_y)


def calibrated(covariance_px2: torch.Tensor, factor: float, floor_px2: float) -> torch.Tensor:
    """factor·Σ + floor·I: the two numbers are fitted on images kept back, see `training.detector.calibrate`."""
    return factor * covariance_px2 + floor_px2 * torch.eye(2, dtype=covariance_px2.dtype, device=covariance_px2.device)


def _axis_moments(logits: torch.Tensor, sigma_px: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(mean, variance, mass) (B, N) near the peak, in pixels."""
    p = torch.softmax(logits.float(), -1)
    at = bin_centres(p.shape[-1], p.device)
    peak = at[p.argmax(-1)]
    near = p * ((at - peak[..., None]).abs() <= 4 * sigma_px)
    mass = near.sum(-1)
    mean = (near * at).sum(-1) / mass
    return mean, (near * (at - mean[..., None]) ** 2).sum(-1) / mass, mass


def _correlation(heat: torch.Tensor, points_px: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """(B, N) correlation of x and y in the map around the points."""
    size = heat.shape[-1]
    axis = CELL * torch.arange(size, device=heat.device) + (CELL - 1) / 2
    offset = axis - points_px[..., None]
    reach = 4 * sigma_px + CELL
    dx, dy = offset[..., 0, None, :], offset[..., 1, :, None]
    near = torch.where((dx.abs() <= reach) & (dy.abs() <= reach), heat, -torch.inf)
    p = torch.softmax(near.flatten(2), -1).unflatten(2, (size, size)).nan_to_num()
    xx, yy, xy = ((p * v).sum((2, 3)) for v in (dx**2, dy**2, dx * dy))
    return (xy / torch.sqrt(xx * yy + 1e-6)).clamp(-0.95, 0.95)
