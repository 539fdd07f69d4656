"""Random robot configurations before random cameras, and the noise of a keypoint detector: data for lifters and solvers.

The Panda's joint statistics are those of the DREAM data sets (mean and standard deviation per joint); other robots get
their limits' middle and a quarter of their range. Cameras stand in front of the robot (azimuth within 60, elevation 0 to
45 degrees), 0.9 to 1.9 m from the point 0.25 m above the base, and look near that point. These are the statistics of the
project's Cramer-Rao table, which counts every keypoint as seen, image border or not; `inside_image` draws only scenes
whose keypoints all lie in the 640x480 image of the narrowest camera of the cross-camera protocol (62.73 degrees), which
are farther away. Either way the same generator state gives the same scenes for every field of view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dataengine.errors import ConfigError
from training.kinematics import KeypointChain

FOVS_DEG = (62.73, 70.21, 93.01)
"""Horizontal fields of view of the cross-camera protocol: Xbox 360 Kinect, RealSense, Azure Kinect."""
WIDTH_PX, HEIGHT_PX = 640, 480
PANDA_MEAN_RAD = (-0.05, 0.27, 0.01, -2.0, 0.01, 1.99)
PANDA_STD_RAD = (1.02, 0.65, 0.51, 0.51, 0.77, 0.51)
_NEAREST_M, _FARTHEST_M, _AIM_HEIGHT_M, _AIM_STD_M, _ROLL_STD_RAD = 0.9, 1.9, 0.25, 0.05, 0.1
_AZIMUTH_RAD, _ELEVATION_RAD = math.radians(60.0), math.radians(45.0)
_MIN_DEPTH_M = 0.3
_ROUNDS = 400


@dataclass(frozen=True, eq=False)
class JointPrior:
    """Independent normal distributions of D joint positions, cut at the limits; rad or m."""

    mean: Tensor
    std: Tensor
    lower: Tensor
    upper: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D) positions within the limits, by inverting the cumulative distribution."""
        low, high = (torch.special.ndtr((bound - self.mean) / self.std) for bound in (self.lower, self.upper))
        uniform = torch.rand(n, len(self.mean), generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        drawn = self.mean + self.std * torch.special.ndtri((low + uniform * (high - low)).clamp(1e-7, 1 - 1e-7))
        return drawn.clamp(self.lower, self.upper)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> JointPrior:
        return JointPrior(*(getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Scenes:
    """B scenes of N keypoints: X_cam = R X_base(q) + T."""

    q: Tensor
    """(B, D) joint positions, rad or m."""
    R: Tensor
    """(B, 3, 3) rotation of T_cam_base."""
    T: Tensor
    """(B, 3) translation of T_cam_base, m."""
    K: Tensor
    """(B, 3, 3) intrinsics, px."""
    X_cam: Tensor
    """(B, N, 3) keypoints in the camera frame, m."""
    uv: Tensor
    """(B, N, 2) exact projections, px."""
    visible: Tensor
    """(B, N) measured: all, or with `inside_image` those in the image of this field of view, which again are all."""

    def __len__(self) -> int:
        return len(self.q)

    def __getitem__(self, rows: slice | Tensor) -> Scenes:
        return Scenes(*(getattr(self, f.name)[rows] for f in fields(self)))

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Scenes:
        """In another precision or on another device; `visible` stays boolean."""
        values = (getattr(self, f.name) for f in fields(self))
        return Scenes(*(v.to(device) if v.dtype == torch.bool else v.to(device=device, dtype=dtype) for v in values))


@dataclass(frozen=True)
class DetectorNoise:
    """Error model of a 2D detector: normal noise, rare outliers, missing points. The defaults are exact."""

    sigma_px: float = 0.0
    outlier_share: float = 0.0
    outlier_px: float = 20.0
    """Standard deviation per axis of an outlier's error."""
    dropout_share: float = 0.0

    def apply(self, uv: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Exact points (..., N, 2) px → (noisy points, (..., N) False where dropped)."""
        shape, options = uv.shape[:-1], {"generator": generator, "dtype": uv.dtype, "device": uv.device}
        noise = torch.randn(*shape, 2, **options)
        outlier = torch.rand(shape, **options) < self.outlier_share
        dropped = torch.rand(shape, **options) < self.dropout_share
        scale = torch.where(outlier, self.outlier_px, self.sigma_px)[..., None]
        return uv + noise * scale, ~dropped


def joint_prior(chain: KeypointChain) -> JointPrior:
    """Where a robot's joints usually are, float64: the Panda's from the DREAM data, else from the limits."""
    lower, upper = torch.tensor(chain.lower), torch.tensor(chain.upper)
    mean, std = (lower + upper) / 2, (upper - lower) / 4
    for column, name in enumerate(chain.joint_names):
        if chain.robot == "panda" and name.startswith("panda_joint") and 1 <= (number := int(name[11:])) <= 6:
            mean[column], std[column] = PANDA_MEAN_RAD[number - 1], PANDA_STD_RAD[number - 1]
    return JointPrior(mean, std, lower, upper)


def focal_px(fov_deg: float, width_px: int = WIDTH_PX) -> float:
    """Focal length of a horizontal field of view."""
    if not 0.0 < fov_deg < 180.0:
        raise ConfigError(f"field of view {fov_deg} degrees; allowed: between 0 and 180")
    return 0.5 * width_px / math.tan(math.radians(fov_deg) / 2)


def camera_matrix(fov_deg: float, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> Tensor:
    """K (3, 3) float64 with the principal point in the middle of the image, pixel centres at integers."""
    f = focal_px(fov_deg, width_px)
    return torch.tensor([[f, 0.0, (width_px - 1) / 2], [0.0, f, (height_px - 1) / 2], [0.0, 0.0, 1.0]], dtype=torch.float64)


def project(K: Tensor, X_cam: Tensor) -> Tensor:
    """Points (..., N, 3) m and K (..., 3, 3) → pixels (..., N, 2). Depth is not checked."""
    uvw = X_cam @ K.mT
    return uvw[..., :2] / uvw[..., 2:]


def sample_scenes(
    chain: KeypointChain, n: int, fov_deg: float, generator: torch.Generator, inside_image: bool = False, dtype: torch.dtype = torch.float64
) -> Scenes:
    """n scenes by rejection, on the generator's device. ConfigError if hardly any random camera sees the whole robot."""
    device = generator.device
    prior = joint_prior(chain).to(torch.float64, device)
    narrow = camera_matrix(min(FOVS_DEG)).to(device)
    kept: list[tuple[Tensor, ...]] = []
    found = 0
    for _ in range(_ROUNDS):
        q = prior.sample(n + n // 8 + 16, generator)
        R, T = _cameras(q, generator)
        X_cam = chain.forward(q) @ R.mT + T[:, None]
        good = in_image(project(narrow, X_cam), X_cam) if inside_image else X_cam[..., 2] > _MIN_DEPTH_M
        rows = good.all(1)
        kept.append((q[rows], R[rows], T[rows], X_cam[rows]))
        found += len(kept[-1][0])
        if found >= n:
            break
    else:
        raise ConfigError(f"{chain.robot}: only {found} of {n} scenes show all keypoints from {_NEAREST_M} to {_FARTHEST_M} m")
    q, R, T, X_cam = (torch.cat(parts)[:n] for parts in zip(*kept, strict=True))
    K = camera_matrix(fov_deg).to(device).expand(n, 3, 3)
    uv = project(K, X_cam)
    seen = in_image(uv, X_cam) if inside_image else X_cam[..., 2] > _MIN_DEPTH_M
    return Scenes(q, R, T, K, X_cam, uv, seen).to(dtype, device)


def in_image(uv: Tensor, X_cam: Tensor, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> Tensor:
    """(..., N): in front of the camera and within the image, whose borders lie at -0.5 and size - 0.5."""
    size = torch.tensor([width_px, height_px], dtype=uv.dtype, device=uv.device)
    return ((uv >= -0.5) & (uv < size - 0.5)).all(-1) & (X_cam[..., 2] > _MIN_DEPTH_M)


def _cameras(like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotations (B, 3, 3) and translations (B, 3) of T_cam_base, as many as `like` has rows."""
    options = {"generator": generator, "dtype": like.dtype, "device": like.device}
    u = torch.rand(len(like), 3, **options)
    normal = torch.randn(len(like), 4, **options)
    azimuth = _AZIMUTH_RAD * (2 * u[:, 0] - 1)
    elevation = _ELEVATION_RAD * u[:, 1]
    distance = _NEAREST_M + (_FARTHEST_M - _NEAREST_M) * u[:, 2]
    outwards = torch.stack([azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], -1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=like.dtype, device=like.device).expand_as(outwards)
    eye = _AIM_HEIGHT_M * up + distance[:, None] * outwards
    z = torch.nn.functional.normalize(_AIM_HEIGHT_M * up + _AIM_STD_M * normal[:, :3] - eye, dim=-1)
    x = torch.nn.functional.normalize(torch.linalg.cross(z, up), dim=-1)
    y = torch.linalg.cross(z, x)
    c, s = torch.cos(_ROLL_STD_RAD * normal[:, 3:]), torch.sin(_ROLL_STD_RAD * normal[:, 3:])
    R = torch.stack([c * x + s * y, c * y - s * x, z], 1)
    return R, -(R @ eye[..., None])[..., 0]
