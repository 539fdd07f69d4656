"""The lifter: from 2-D keypoints of one frame to samples of 3-D keypoints in the camera frame, and joint angles of each.

Trained on pairs made by forward kinematics as fast as they are used; no image is needed. NCCS (RoboKeyGen) is the input: pixels
turned into ((u - c_x) / f_x, (v - c_y) / f_y), in which all cameras look alike. The condition noise is a detector's: normal
errors whose size the network is told, outliers, missing points.

What is diffused, x, is a coordinate of X_cam that whitens to unit size:
camera  X itself, as in the paper
rays    in a camera turned so that the keypoints' mean ray is its axis: mean of ln z plus ln of the points' spread (the robot's size,
        nearly), differences of ln z, and how far a point lies off its measured ray. Where in the image and how far away the robot is
        are then no longer to be learnt, and off-ray errors are as small as the 2-D noise to begin with. Medians before refinement with
        panda15, 1.5 px noise and 3 % outliers: 160 mm (camera) against 113 mm (rays in the camera as it stands) after the same minute
        on one core; 22 mm in the turned camera after four and a half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dataengine.errors import ConfigError, unknown_name
from training.diffusion import samplers
from training.diffusion.losses import check_names, denoising_loss
from training.diffusion.ode import pf_ode
from training.diffusion.sde import SDE, make_sde
from training.distributed import Ranks
from training.kinematics import KeypointChain
from training.loop import Batch
from training.models.joint_head import JointHead, angle_loss, angles
from training.models.regression import RegressionLifter, regression_loss
from training.models.score_net import ScoreNet, ScoreNetConfig, denoise, prepared_denoiser
from training.scene_statistics import DetectorNoise, focal_px, sample_scenes

KINDS = ("diffusion", "regression")
COORDINATES = ("rays", "camera")
SAMPLERS = ("ddim", "dpm++", "heun", "ode")
OFF_RAY = 0.01
"""Offsets from the ray are compressed by asinh(offset / OFF_RAY): 0.01 is 4.5 px at 63 degrees."""
IMAGE_PX = 640.0


@dataclass(frozen=True)
class NoiseConfig:
    """The detector's error model, drawn anew for every frame: sigma is log-uniform."""

    sigma_px: tuple[float, float] = (0.3, 4.0)
    outlier_share: float = 0.03
    outlier_px: float = 20.0
    dropout_share: float = 0.03


@dataclass(frozen=True)
class LifterConfig:
    """What is learnt, from what."""

    robot: str = "panda"
    keypoint_set: str = "panda15"
    kind: str = "diffusion"
    nccs: bool = True
    """False: raw pixels over the image width, which fails on another camera (the paper's table IV)."""
    coordinates: str = "rays"
    fov_deg: tuple[float, float] = (55.0, 100.0)
    """Horizontal field of view of the cameras in training; only the size of the noise depends on it when `nccs`."""
    sde: str = "vp"
    weighting: str = "edm"
    times: str = "lognormal"
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    net: ScoreNetConfig = field(default_factory=ScoreNetConfig)


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn: K of them; `start` < T begins at the last frame's estimate (online mode)."""

    sampler: str = "ddim"
    steps: int = 10
    spacing: str = "logsnr"
    samples: int = 10
    eta: float = 0.0
    start: float | None = None


@dataclass(frozen=True)
class Frames:
    """2-D keypoints of B frames as the lifter takes them."""

    uv_px: Tensor
    """(B, N, 2); anything where not seen."""
    K: Tensor
    """(B, 3, 3) px."""
    seen: Tensor
    """(B, N) bool."""
    sigma_px: Tensor
    """(B,) size of the errors of points that are no outliers."""


class Lifter(nn.Module):
    """Network, joint head, and the statistics that whiten x."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: LifterConfig, chain: KeypointChain) -> None:
        super().__init__()
        _check(config)
        self.config, self.chain, self.sde = config, chain, make_sde(config.sde)
        n = len(chain)
        self.x_dim = 3 * n + (config.coordinates == "rays")
        cond_dim = 3 * n + (4 if config.coordinates == "rays" else 1)
        self.net: ScoreNet | RegressionLifter
        if config.kind == "regression":
            self.net = RegressionLifter(self.x_dim, cond_dim, config.net.hidden, config.net.blocks, config.net.dropout)
        else:
            self.net = ScoreNet(self.x_dim, cond_dim, config.net)
        self.head = JointHead(n, chain.dof)
        self.register_buffer("mean", torch.zeros(self.x_dim))
        self.register_buffer("std", torch.ones(self.x_dim))

    def condition(self, frames: Frames) -> Tensor:
        """(B, C): points where seen, else 0; which are seen; ln of the errors' size; for `rays` ln spread and the mean ray too."""
        focal = 0.5 * (frames.K[:, 0, 0] + frames.K[:, 1, 1])
        if self.config.coordinates == "rays":
            view = centre(frames)
            points = (view.rays / view.spread[:, None, None]).flatten(1)
            scale = (frames.sigma_px / focal / view.spread).log() + 4
            return torch.cat([points, frames.seen.to(points), scale[:, None], view.spread[:, None].log() + 1.5, 2 * view.R[:, 2, :2]], 1)
        if self.config.nccs:
            points, scale = nccs(frames), (frames.sigma_px / focal).log() + 6
        else:
            points, scale = frames.uv_px / IMAGE_PX - 0.5, frames.sigma_px.log()
        points = torch.where(frames.seen[..., None], 2 * points, 0.0)
        return torch.cat([points.flatten(1), frames.seen.to(points), scale[:, None]], 1)

    def encode(self, X_cam: Tensor, frames: Frames) -> Tensor:
        """(B, N, 3) m → whitened x (B, x_dim)."""
        return (self.coordinates(X_cam, frames) - self.mean) / self.std

    def coordinates(self, X_cam: Tensor, frames: Frames) -> Tensor:
        """x before whitening."""
        if self.config.coordinates == "camera":
            return X_cam.flatten(1)
        view = centre(frames)
        turned = X_cam @ view.R.mT
        z = turned[..., 2:].clamp(min=0.05)
        log_z = z[..., 0].log()
        middle = log_z.mean(1, keepdim=True)
        off = (turned[..., :2] / z - view.rays) / OFF_RAY
        return torch.cat([middle + view.spread[:, None].log(), log_z - middle, off.asinh().flatten(1)], 1)

    def decode(self, x: Tensor, frames: Frames, samples: int = 1) -> Tensor:
        """Whitened x (B·samples, x_dim) → (B, samples, N, 3) m."""
        n = len(self.chain)
        values = (x * self.std + self.mean).view(-1, samples, self.x_dim)
        if self.config.coordinates == "camera":
            return values.reshape(-1, samples, n, 3)
        view = centre(frames)
        z = (values[..., :1] + values[..., 1 : n + 1] - view.spread[:, None, None].log()).clamp(-3.0, 3.0).exp()
        off = OFF_RAY * values[..., n + 1 :].clamp(-6.0, 6.0).sinh().reshape(-1, samples, n, 2)
        turned = torch.cat([off + view.rays[:, None], torch.ones_like(off[..., :1])], -1) * z[..., None]
        return turned @ view.R[:, None]

    def joint_angles(self, X_cam: Tensor) -> Tensor:
        """(…, N, 3) m → (…, D) rad."""
        return angles(self.head(X_cam.reshape(-1, *X_cam.shape[-2:]))).view(*X_cam.shape[:-2], -1)


def nccs(frames: Frames) -> Tensor:
    """Normalised camera coordinates (B, N, 2): ((u - c_x) / f_x, (v - c_y) / f_y)."""
    focal = torch.stack([frames.K[:, 0, 0], frames.K[:, 1, 1]], -1)
    return (frames.uv_px - frames.K[:, None, :2, 2]) / focal[:, None]


@dataclass(frozen=True)
class View:
    """A camera turned onto the keypoints."""

    R: Tensor
    """(B, 3, 3): turned = R @ camera; the least rotation that brings the mean ray onto the axis."""
    rays: Tensor
    """(B, N, 2) NCCS of the turned camera; a missing point is taken to lie on the axis."""
    spread: Tensor
    """(B,) root mean square of `rays` over the points that are seen."""


def centre(frames: Frames) -> View:
    """The view in which where the robot is in the image no longer shows."""
    points = nccs(frames)
    weight = frames.seen.to(points)[..., None]
    count = weight.sum(1).clamp(min=1)
    points = torch.where(frames.seen[..., None], points, 0.0)
    x, y, z = nn.functional.normalize(nn.functional.pad((points * weight).sum(1) / count, (0, 1), value=1.0), dim=-1).unbind(-1)
    b = 1 / (1 + z)  # Rodrigues' formula about the axis (y, -x, 0)
    rows = [1 - b * x * x, -b * x * y, -x, -b * x * y, 1 - b * y * y, -y, x, y, z]
    R = torch.stack(rows, -1).unflatten(-1, (3, 3))
    turned = nn.functional.pad(points, (0, 1), value=1.0) @ R.mT
    rays = torch.where(frames.seen[..., None], turned[..., :2] / turned[..., 2:].clamp(min=0.05), 0.0)
    spread = ((rays.square() * weight).sum((1, 2)) / count[:, 0]).sqrt().clamp(min=1e-3)
    return View(R, rays, spread)


def draw_frames(chain: KeypointChain, config: LifterConfig, rows: int, generator: torch.Generator) -> tuple[Frames, Tensor, Tensor]:
    """Random frames as the detector would see them, their X_cam (B, N, 3) m and q (B, D); float32 on the generator's device."""
    scenes = sample_scenes(chain, rows, 65.0, generator, dtype=torch.float32)
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, generator=generator, device=device)

    half = torch.deg2rad(uniform(*config.fov_deg) / 2)
    focal = 0.5 * IMAGE_PX / half.tan()
    K = scenes.K.clone()
    K[:, 0, 0] = K[:, 1, 1] = focal
    low, high = (float(torch.tensor(s).log()) for s in config.noise.sigma_px)
    sigma = uniform(low, high).exp()
    exact = scenes.X_cam[..., :2] / scenes.X_cam[..., 2:] * focal[:, None, None] + K[:, None, :2, 2]
    kind = config.noise
    # Unit noise, scaled row by row: outliers are of the same size whatever a row's sigma is.
    model = DetectorNoise(1.0, kind.outlier_share, 0.0, kind.dropout_share)
    unit, seen = model.apply(torch.zeros_like(exact), generator)
    outlier = (unit == 0).all(-1, keepdim=True)
    wide = kind.outlier_px * torch.randn(exact.shape, generator=generator, device=device)
    uv = exact + torch.where(outlier, wide, unit * sigma[:, None, None])
    return Frames(uv, K, seen, sigma), scenes.X_cam, scenes.q


def make_noise(lifter: Lifter, frames: int, sampling: SamplingConfig, generator: torch.Generator) -> Tensor:
    """Standard normal rows (frames·samples, x_dim) to begin with."""
    return torch.randn(frames * sampling.samples, lifter.x_dim, generator=generator, device=generator.device)


def lift(lifter: Lifter, frames: Frames, sampling: SamplingConfig, z: Tensor, X_prev: Tensor | None = None) -> Tensor:
    """Samples of X_cam (B, samples, N, 3) m from noise z (B·samples, x_dim); the regression lifter gives one of each frame.

    X_prev (B, N, 3) m: the last frame's estimate, needed when `sampling.start` is set.
    """
    if sampling.sampler not in SAMPLERS:
        raise ConfigError(unknown_name("sampler", sampling.sampler, SAMPLERS))
    condition = lifter.condition(frames)
    with torch.no_grad():
        if isinstance(lifter.net, RegressionLifter):
            return lifter.decode(lifter.net(condition), frames)
        return lifter.decode(_sample(lifter, lifter.net, frames, condition, sampling, z, X_prev), frames, sampling.samples)


def _sample(
    lifter: Lifter, net: ScoreNet, frames: Frames, condition: Tensor, sampling: SamplingConfig, z: Tensor, X_prev: Tensor | None
) -> Tensor:
    sde: SDE = lifter.sde
    if sampling.start is None:
        x = samplers.prior(sde, z)
    elif X_prev is None:
        raise ConfigError("sampling from an earlier time needs the last frame's keypoints; give X_prev or leave start unset")
    else:
        x = samplers.warm_start(sde, lifter.encode(X_prev, frames).repeat_interleave(sampling.samples, 0), sampling.start, z)
    if sampling.sampler == "ode":
        rows = condition.repeat_interleave(sampling.samples, 0)
        return pf_ode(lambda x, t: denoise(net, sde, x, t, rows), x, sde, sampling.start).x
    ts = samplers.schedule(sde, sampling.steps, sampling.spacing, sampling.start)
    at = prepared_denoiser(net, sde, condition, ts, sampling.samples)
    if sampling.sampler == "dpm++":
        return samplers.dpm_solver(at, x, sde, ts)
    if sampling.sampler == "heun":
        return samplers.heun(at, x, sde, ts)
    return samplers.ddim(at, x, sde, ts, sampling.eta)


class FkData:
    """Endless training pairs; nothing to remember but the generator's seed."""

    def __init__(self, chain: KeypointChain, config: LifterConfig, rows: int) -> None:
        self.chain, self.config, self.rows = chain, config, rows

    def next(self, generator: torch.Generator) -> Batch:
        frames, X_cam, q = draw_frames(self.chain, self.config, self.rows, generator)
        return {"uv_px": frames.uv_px, "K": frames.K, "seen": frames.seen, "sigma_px": frames.sigma_px, "X_cam": X_cam, "q": q}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def disturb(X_cam: Tensor, generator: torch.Generator) -> Tensor:
    """Keypoints wrong the way samples are: along the rays together (some per cent) and each on its own (up to 20 mm)."""
    rows, device = len(X_cam), X_cam.device
    size = torch.rand(rows, 2, 1, 1, generator=generator, device=device) ** 2
    together = 1 + 0.05 * size[:, 0] * torch.randn(rows, 1, 1, generator=generator, device=device)
    return X_cam * together + 0.02 * size[:, 1] * torch.randn(X_cam.shape, generator=generator, device=device)


def lifter_loss(lifter: Lifter, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Denoising (or regression) loss of whitened x, plus the joint head's on disturbed keypoints."""
    config = lifter.config
    frames = Frames(batch["uv_px"], batch["K"], batch["seen"], batch["sigma_px"])
    condition, x_0 = lifter.condition(frames), lifter.encode(batch["X_cam"], frames)
    net = lifter.net
    if isinstance(net, RegressionLifter):
        lift_loss = regression_loss(net(condition), x_0)
    else:
        lift_loss = denoising_loss(
            lambda x, t: denoise(net, lifter.sde, x, t, condition), lifter.sde, x_0, generator, config.weighting, config.times
        )
    head_loss = angle_loss(lifter.head(disturb(batch["X_cam"], generator)), batch["q"])
    return lift_loss + head_loss, {"lift": lift_loss.detach(), "angles": head_loss.detach()}


def initialise(lifter: Lifter, generator: torch.Generator, rows: int = 8192) -> None:
    """Whitening statistics from random frames."""
    frames, X_cam, _ = draw_frames(lifter.chain, lifter.config, rows, generator)
    values = lifter.coordinates(X_cam, frames)
    lifter.mean.copy_(values.mean(0))
    lifter.std.copy_(values.std(0).clamp(min=1e-4))
    lifter.head.whiten(disturb(X_cam, generator))


def measure(
    lifter: Lifter, fov_deg: float, noise: DetectorNoise, sampling: SamplingConfig, generator: torch.Generator, rows: int = 500
) -> dict[str, float]:
    """ADD of the mean of the samples before any refinement: AUC@0.1 m in percent, median and mean in mm; angles in degrees."""
    from training.metrics import add_m, summarise

    scenes = sample_scenes(lifter.chain, rows, fov_deg, generator, dtype=torch.float32)
    uv, seen = noise.apply(scenes.uv, generator)
    frames = Frames(uv, scenes.K, seen, torch.full((rows,), max(noise.sigma_px, 0.3), device=uv.device))
    X = lift(lifter, frames, sampling, make_noise(lifter, rows, sampling, generator)).mean(1)
    with torch.no_grad():
        turn = lifter.joint_angles(X) - scenes.q
    wrong = torch.rad2deg(torch.atan2(turn.sin(), turn.cos()).abs()).median(0).values.mean()
    s = summarise(add_m(X.cpu().numpy(), scenes.X_cam.cpu().numpy()))
    return {"auc": 100 * s.auc, "median_mm": 1e3 * s.median_m, "mean_mm": 1e3 * s.mean_m, "angle_deg": float(wrong)}


class LifterRecipe:
    """Recipe of the loop (`training.loop.Recipe`). `fovs_deg`: cameras that validation looks through."""

    def __init__(self, config: LifterConfig, chain: KeypointChain, fovs_deg: Sequence[float] = (62.73, 70.21, 93.01)) -> None:
        _check(config)
        self.config, self.chain, self.fovs_deg = config, chain, tuple(fovs_deg)

    @property
    def identity(self) -> dict[str, Any]:
        chain = self.chain
        names = {"robot": chain.robot, "keypoint_set": chain.keypoint_set, "keypoints": list(chain.keypoint_names)}
        return {"recipe": "lifter", **names, "kinematics": chain.to_dict()}

    def model(self, generator: torch.Generator) -> Lifter:
        lifter = Lifter(self.config, self.chain)
        initialise(lifter, generator)
        return lifter

    def data(self, ranks: Ranks, batch: int) -> FkData:
        return FkData(self.chain, self.config, batch)

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        if not isinstance(model, Lifter):
            raise ConfigError(f"the lifter's loss got a {type(model).__name__}")
        return lifter_loss(model, batch, generator)

    def validate(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        if not isinstance(model, Lifter):
            raise ConfigError(f"the lifter's validation got a {type(model).__name__}")
        out: dict[str, float] = {}
        for fov in self.fovs_deg:
            generator = torch.Generator(ranks.device).manual_seed(1)
            found = measure(model, fov, DetectorNoise(1.5, 0.03), SamplingConfig(), generator)
            out |= {f"fov{fov:g}/{name}": value for name, value in found.items()}
        return out


def load_lifter(path: str) -> Lifter:
    """From a checkpoint or a run's folder, averaged weights, ready to lift. TrainingError if it is no lifter."""
    from training import checkpoint
    from training.config import build
    from training.errors import TrainingError

    found = checkpoint.read(path)
    if found.identity.get("recipe") != "lifter":
        raise TrainingError(f"{found.path} holds a {found.identity.get('recipe', 'network')}, not a lifter; give the lifter's checkpoint")
    with torch.random.fork_rng([]):
        lifter = Lifter(build(LifterConfig, found.config["task"]), KeypointChain.from_dict(found.identity["kinematics"]))
    checkpoint.load_weights(lifter, found)
    return lifter.eval().requires_grad_(False)


def _check(config: LifterConfig) -> None:
    if config.kind not in KINDS:
        raise ConfigError(unknown_name("lifter", config.kind, KINDS))
    if config.coordinates not in COORDINATES:
        raise ConfigError(unknown_name("coordinates", config.coordinates, COORDINATES))
    if config.coordinates == "rays" and not config.nccs:
        raise ConfigError("coordinates 'rays' need the camera, which nccs=false hides; use coordinates=camera")
    check_names(config.weighting, config.times)
    for fov in config.fov_deg:
        focal_px(fov)
