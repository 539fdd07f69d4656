"""Unknowns of the anchor solve: what they are, how a step changes them, which columns of the linear system they own.

A frame that takes part in the solve is a *slot*. Every residual of a slot depends on the same few unknowns, in this local order:
log scale (1), base pose (6), joints (D), time offset (1), depth gain and slope (2), log focal and principal point (3), camera pose (6).
`Layout.columns` maps these to columns of the one global system; unknowns that are held fixed map to a column that is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from annotators.types import JointLog
from dataengine.geometry import se3
from dataengine.robot.model import RobotModel

Array = np.ndarray
JointMode = Literal["known", "offset", "constant", "per_frame"]


@dataclass(frozen=True)
class AnchorOptions:
    """How to solve. Standard deviations are priors; those of clicks and depth are re-estimated from the residuals.

    `joints`: "auto" takes the log if there is one and it fits the pictures, else one unknown configuration if that fits,
    else one per frame.
    `base_starts`: frames at which the base was bumped, so that a new base pose starts there.
    """

    joints: Literal["auto", "known", "offset", "constant", "per_frame"] = "auto"
    use_depth: bool = True
    use_masks: bool = True
    use_edges: bool = True
    """The outline against the photograph's edges, in frames without a mask."""
    key_frames: int = 12
    """Frames, clicked ones included, whose depth and masks take part."""
    click_sigma_px: float = 2.0
    depth_sigma_m: float = 0.003
    """At 1 m; grows with the square of the distance."""
    contour_sigma_px: float = 1.0
    depth_gain_sigma: float = 0.01
    depth_slope_sigma_per_m: float = 0.01
    time_offset_sigma_s: float = 0.1
    joint_offset_sigma_rad: float = 0.05
    joint_speed_sigma_rad_s: float = 1.0
    model_floor_m: float = 0.0001
    """What the model itself (calibration of the arm, meshes) may be wrong by."""
    camera_sigma_m: float = 0.0001
    camera_sigma_rad: float = 0.0001
    """Floor of a camera's own standard deviation: structure from motion states only its inner precision."""
    estimate_time_offset: bool = True
    estimate_cameras: bool = True
    estimate_intrinsics: bool = False
    base_starts: tuple[int, ...] = ()
    seed: int = 0


def clicks_alone(options: AnchorOptions) -> AnchorOptions:
    """The same without depth, masks and edges: quick, and surfaces would hide what a click does."""
    return replace(options, use_depth=False, use_masks=False, use_edges=False)


@dataclass(frozen=True, eq=False)
class Slots:
    """The frames that take part: F slots. `segment` is the index of the base pose that holds in a slot."""

    frame: Array  # (F,) int64
    times_s: Array  # (F,)
    T_sfm_cam: Array  # (F, 4, 4), SfM units
    camera_covariance: Array  # (F, 6, 6), SfM units and rad
    segment: Array  # (F,) int64
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class State:
    """A value for every unknown. `joints`: (1, D) offset or configuration, or (F, D) one configuration per slot."""

    metres_per_unit: float
    T_world_base: Array  # (S, 4, 4) metres
    joints: Array
    K: Array
    T_sfm_cam: Array  # (F, 4, 4) SfM units
    time_offset_s: float = 0.0
    depth_gain: float = 1.0
    depth_slope_per_m: float = 0.0


@dataclass(frozen=True, eq=False)
class Layout:
    """Which unknowns are free. `columns` (F, local) → global column, `size` for a fixed unknown."""

    mode: JointMode
    columns: Array
    size: int
    scale: int
    base: Array  # (S, 6)
    joints: Array  # (1 or F, D)
    time: int
    depth: Array  # (2,)
    intrinsics: Array  # (3,)
    cameras: Array  # (F, 6)


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that stays the same during one solve."""

    model: RobotModel
    slots: Slots
    layout: Layout
    options: AnchorOptions
    log: JointLog | None
    K: Array
    """As given, (3, 3)."""
    scale_sources: tuple[tuple[str, float, float], ...] = ()
    """(source, metres per unit, relative standard deviation); `depth` is read through the depth gain."""
    static: bool = False
    """The camera never moved, so structure from motion has no length to scale."""


def make_layout(slots: Slots, dof: int, mode: JointMode, options: AnchorOptions, static: bool, depth: bool) -> Layout:
    """Number the free unknowns."""
    count = 0

    def take(shape: tuple[int, ...], free: bool) -> Array:
        nonlocal count
        n = int(np.prod(shape)) if free else 0
        out = np.arange(count, count + n).reshape(shape) if free else np.full(shape, -1)
        count += n
        return out

    F, S = len(slots.frame), int(slots.segment.max(initial=0)) + 1
    scale = take((1,), not static)
    base = take((S, 6), True)
    joints = take((F if mode == "per_frame" else 1, dof), mode != "known")
    time = take((1,), mode in ("known", "offset") and options.estimate_time_offset)
    gains = take((2,), depth)
    intrinsics = take((3,), options.estimate_intrinsics)
    cameras = take((F, 6), options.estimate_cameras and not static)
    per_slot = np.arange(F) if mode == "per_frame" else np.zeros(F, int)
    shared = [np.tile(part, (F, 1)) for part in (time, gains, intrinsics)]
    columns = np.concatenate([np.tile(scale, (F, 1)), base[slots.segment], joints[per_slot], *shared, cameras], axis=1)
    columns = np.where(columns < 0, count, columns)
    return Layout(mode, columns, count, int(scale[0]), base, joints, int(time[0]), gains, intrinsics, cameras)


def joints_at(log: JointLog, times_s: Array, step_s: float = 0.02) -> tuple[Array, Array]:
    """Logged positions and speeds at given times: (F, D), (F, D); linear between rows, held at the ends."""

    def at(t: Array) -> Array:
        return np.stack([np.interp(t, log.times_s, column) for column in log.positions_rad.T], axis=-1)

    return at(times_s), (at(times_s + step_s) - at(times_s - step_s)) / (2 * step_s)


def configuration(problem: Problem, state: State) -> tuple[Array, Array]:
    """Joint positions of every slot and how they change with the time offset: (F, D), (F, D)."""
    F = len(problem.slots.frame)
    if problem.layout.mode in ("constant", "per_frame"):
        return np.broadcast_to(state.joints, (F, problem.model.dof)), np.zeros((F, problem.model.dof))
    if problem.log is None:
        raise ValueError("joint mode 'known' or 'offset' needs a joint log")
    q, speed = joints_at(problem.log, problem.slots.times_s + state.time_offset_s)
    return q + state.joints, speed


def exponential(twist: Array) -> Array:
    """(…, 6) translation and rotation vector → (…, 4, 4), first-order translation (ρ, not V ρ): exact enough for small steps."""
    rho, phi = twist[..., :3], twist[..., 3:]
    angle = np.linalg.norm(phi, axis=-1)
    axis = phi / np.maximum(angle, 1e-300)[..., None]
    return se3.make(se3.rotation_from_axis_angle(axis, angle), rho)


def logarithm(T: Array) -> Array:
    """Inverse of `exponential`: (…, 4, 4) → (…, 6)."""
    q = se3.quaternion_wxyz(T[..., :3, :3])
    sine = np.linalg.norm(q[..., 1:], axis=-1)
    angle = 2 * np.arctan2(sine, q[..., 0])
    factor = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)
    return np.concatenate([T[..., :3, 3], q[..., 1:] * factor[..., None]], axis=-1)


def retract(problem: Problem, state: State, step: Array) -> State:
    """The state moved by a step of the global system."""
    layout = problem.layout
    full = np.append(step, 0.0)  # fixed unknowns read the last entry

    def part(index: Array | int) -> Array:
        return full[np.where(np.asarray(index) < 0, layout.size, index)]

    scale = float(state.metres_per_unit * np.exp(np.clip(part(layout.scale), -0.7, 0.7)))
    intr = part(layout.intrinsics)
    K = state.K.copy()
    K[0, 0], K[1, 1] = K[0, 0] * np.exp(intr[0]), K[1, 1] * np.exp(intr[0])
    K[0, 2], K[1, 2] = K[0, 2] + intr[1], K[1, 2] + intr[2]
    camera = part(layout.cameras).copy()
    camera[:, :3] /= scale
    gain = part(layout.depth)
    return replace(
        state,
        metres_per_unit=scale,
        T_world_base=state.T_world_base @ exponential(part(layout.base)),
        joints=state.joints + part(layout.joints),
        K=K,
        T_sfm_cam=state.T_sfm_cam @ exponential(camera),
        time_offset_s=float(state.time_offset_s + part(layout.time)),
        depth_gain=float(state.depth_gain + gain[0]),
        depth_slope_per_m=float(state.depth_slope_per_m + gain[1]),
    )


def metric_cameras(state: State) -> Array:
    """T_world_cam of every slot in metres, (F, 4, 4)."""
    out = state.T_sfm_cam.copy()
    out[:, :3, 3] *= state.metres_per_unit
    return out
