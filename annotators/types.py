"""The values that pass between the stages of annotation: capture → cameras → clicks → solution.

Frames are numbered 0 … N-1 in the order of the capture. Poses are 4×4 float64, `T_world_cam` maps camera to world; camera frame OpenCV,
pixel centres at integer coordinates. "SfM units" are the arbitrary length unit of structure from motion; the anchor solve turns them
into metres. A 6×6 pose covariance is of the left-hand camera-frame perturbation (translation, rotation vector):
`T_world_cam · exp([rho, phi])`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class JointLog:
    """What the robot's encoders said: `positions_rad[m]` at `times_s[m]`, joints in URDF order (prismatic ones in metres)."""

    times_s: Array  # (M,) float64
    positions_rad: Array  # (M, D) float64


@dataclass(frozen=True)
class Capture:
    """One capture, read lazily: the accessors decode one frame when they are called and may be called from several threads.

    `rgb(i)` is (H, W, 3) uint8; `depth_z_m(i)` (H, W) float32 metres, 0 = none; `mask(i)` (H, W) bool, true on the robot;
    `infrared(i)` two (H, W) uint8. An accessor that the capture lacks is None.
    """

    name: str
    frames: tuple[str, ...]
    size: tuple[int, int]
    """Width and height in pixels."""
    K: Array  # (3, 3) float64
    times_s: Array  # (N,) float64
    rgb: Callable[[int], Array]
    robot: str
    """Name in the robot catalogue or path of a URDF."""
    depth_z_m: Callable[[int], Array] | None = None
    mask: Callable[[int], Array] | None = None
    infrared: Callable[[int], tuple[Array, Array]] | None = None
    ir_baseline_m: float | None = None
    tag_side_m: float | None = None
    """Side of the fiducial tags in the scene, None where there are none."""
    tag_family: str = "apriltag_36h11"
    joints: JointLog | None = None
    distortion: Array | None = None  # (5,) float64
    """OpenCV's k1 k2 p1 p2 k3, None where images are free of distortion."""


@dataclass(frozen=True)
class Flag:
    """Something wrong with a capture or some of its frames. `kind` is one word a program can test: `base_moved`, `object_moved`,
    `time_offset`, `joint_pairing`, `depth_scale`, `scale_disagreement`, `blur`, `wrong_click`, `texture`, `baseline` …"""

    kind: str
    text: str
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class CameraTrack:
    """Camera poses from structure from motion, in SfM units and an arbitrary world frame.

    `T_world_cam[i]` is NaN where frame i has no pose. Frames of one static segment share one pose. `covariance` is in SfM units
    and radians. Observations say which point is seen where: `obs_point`, `obs_frame`, `obs_uv_px`.
    `refusal` is None for a usable track, else one line that says why there is none (texture, baseline, rotation only …).
    """

    T_world_cam: Array  # (N, 4, 4) float64
    covariance: Array  # (N, 6, 6) float64
    posed: Array  # (N,) bool
    static_segments: tuple[tuple[int, int], ...]
    """Half-open ranges of frames through which the camera did not move."""
    points: Array  # (P, 3) float64
    obs_point: Array  # (O,) int64
    obs_frame: Array  # (O,) int64
    obs_uv_px: Array  # (O, 2) float64
    mean_reprojection_px: float
    mapper: str
    cross_check: dict[str, float] = field(default_factory=dict)
    """Disagreement with the other mapper: median relative translation (share of path) and rotation (degrees)."""
    refusal: str | None = None
    flags: tuple[Flag, ...] = ()
    """What is doubtful about the poses, or may be why there are none: `texture`, `intrinsics`."""


@dataclass(frozen=True)
class Click:
    """A person says: landmark `landmark` of the robot is at pixel `uv_px` of frame `frame`."""

    frame: int
    landmark: str
    uv_px: tuple[float, float]


@dataclass(frozen=True)
class ScaleEstimate:
    """Metres per SfM unit from one source (`depth`, `stereo`, `links`, `fiducials`) with its standard deviation."""

    source: str
    metres_per_unit: float
    sigma: float


@dataclass(frozen=True)
class Solution:
    """Everything the anchor solve found, metric. N frames, D joints, L landmarks (clickable points), K keypoints.

    `T_world_base[i]` is the robot's base in frame i (constant unless the base was bumped). `joints_rad[i]` in URDF order.
    Covariances: base and cameras as in this module's description (metres, radians), joints in radians², keypoints in camera frame, m².
    """

    metres_per_unit: float
    T_world_cam: Array  # (N, 4, 4) float64
    T_world_base: Array  # (N, 4, 4) float64
    joints_rad: Array  # (N, D) float64
    joint_names: tuple[str, ...]
    camera_covariance: Array  # (N, 6, 6) float64
    base_covariance: Array  # (6, 6) float64
    joint_covariance: Array  # (N, D, D) float64
    keypoint_names: tuple[str, ...]
    keypoints_cam_m: Array  # (N, K, 3) float64
    keypoint_covariance: Array  # (N, K, 3, 3) float64
    time_offset_s: float
    depth_scale: float
    """Measured over true depth at 1 m: 1 for an ideal sensor."""
    scales: tuple[ScaleEstimate, ...]
    click_residual_px: Array  # (C, 2) float64
    click_inlier: Array  # (C,) bool
    accepted: Array  # (N,) bool
    reasons: tuple[str, ...]
    """Per frame: empty where accepted, else why not."""
    flags: tuple[Flag, ...] = ()
