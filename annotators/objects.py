"""Pose of a rigid object of known shape through a capture: CAD clicks, then depth of all frames at once, split where the object was moved.

The object rests in the world unless it is moved, so all frames share one pose per segment: clicks start it (perspective-n-point in any
frame), projective point-to-plane residuals of every frame's depth refine it, six unknowns in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotators.anchor_start import pnp
from annotators.anchor_state import exponential, logarithm
from annotators.anchor_surface import RobotShape, view_robot
from annotators.anchor_terms import projection, skew
from annotators.types import Array, Capture, Flag
from dataengine.errors import DataEngineError
from dataengine.geometry import se3
from dataengine.raycast.scene import TriMesh

MIN_POINTS = 4
LARGEST_M = 5.0
GATES_M = (0.05, 0.03, 0.015, 0.01)
DEPTH_SIGMA_M, CLICK_SIGMA_PX = 0.003, 2.0
SAMPLES = 400
SURFACE_FRAMES = 12
MOVED_M, MOVED_RAD = 0.015, 0.1
DEPTH_WORTH = 0.02
"""Share of a depth pixel that counts: neighbours share their errors."""


@dataclass(frozen=True, eq=False)
class ObjectClick:
    """The point `point_m` (3,) of the object's own frame is at `uv_px` of `frame`."""

    frame: int
    point_m: Array
    uv_px: tuple[float, float]


@dataclass(frozen=True, eq=False)
class ObjectSolution:
    """`T_world_object` (N, 4, 4), `covariance` (N, 6, 6) of the right-hand perturbation (m, rad), `starts`: segments' first frames."""

    T_world_object: Array
    covariance: Array
    starts: tuple[int, ...]
    flags: tuple[Flag, ...]


@dataclass(frozen=True, eq=False)
class PosedObject:
    """An object with a name and a shape, solved."""

    name: str
    mesh: TriMesh
    solution: ObjectSolution


def load_mesh(path: Path) -> TriMesh:
    """A CAD model in metres. DataEngineError for a file that holds no triangles."""
    import trimesh

    try:
        mesh = trimesh.load(path, force="mesh")
    except Exception as error:  # readers of mesh files raise whatever their format library does
        raise DataEngineError(f"{path}: no mesh ({error}); give .obj, .ply or .stl in metres") from None
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise DataEngineError(f"{path}: holds no triangles; give .obj, .ply or .stl in metres")
    if mesh.extents.max() > LARGEST_M:
        raise DataEngineError(f"{path}: the object is {mesh.extents.max():.0f} m long; models must be in metres")
    return TriMesh(np.asarray(mesh.vertices, float), np.asarray(mesh.faces))


def solve_object(
    capture: Capture, T_world_cam: Array, mesh: TriMesh, clicks: Sequence[ObjectClick], use_depth: bool = True
) -> ObjectSolution:
    """`T_world_cam` (N, 4, 4) metric, NaN where a frame has no pose. Needs a frame with four clicks, and one more after every move.

    Raises DataEngineError where no frame has enough clicks or its clicks agree on no pose.
    """
    usable = [click for click in clicks if np.isfinite(T_world_cam[click.frame, 0, 0])]
    guesses = _from_clicks(capture, T_world_cam, usable)
    if not guesses:
        raise DataEngineError(
            f"{capture.name}: no frame has {MIN_POINTS} clicks on the object that agree; click {MIN_POINTS} points in one frame"
        )
    starts = _segment_starts(guesses)
    N = len(T_world_cam)
    T, cov = np.zeros((N, 4, 4)), np.zeros((N, 6, 6))
    for index, start in enumerate(starts):
        end = starts[index + 1] if index + 1 < len(starts) else N
        first = 0 if index == 0 else start
        here = [click for click in usable if first <= click.frame < end]
        guess = next(pose for frame, pose in guesses if first <= frame < end)
        frames = [frame for frame in range(first, end) if np.isfinite(T_world_cam[frame, 0, 0])]
        pose, sigma = _refine(capture, T_world_cam, mesh, here, guess, frames, use_depth)
        T[first:end], cov[first:end] = pose, sigma
    flags = tuple(Flag("object_moved", f"the object was moved before frame {start}", tuple(range(start, N))) for start in starts[1:])
    return ObjectSolution(T, cov, (0, *starts[1:]), flags)


def _from_clicks(capture: Capture, T_world_cam: Array, clicks: Sequence[ObjectClick]) -> list[tuple[int, Array]]:
    """(frame, T_world_object) of every frame with enough clicks, in the order of frames."""
    out = []
    for frame in sorted({click.frame for click in clicks}):
        mine = [click for click in clicks if click.frame == frame]
        if len(mine) < MIN_POINTS:
            continue
        found = pnp(np.stack([click.point_m for click in mine]), np.array([click.uv_px for click in mine]), capture.K)
        if found is not None and found[1] >= MIN_POINTS:
            out.append((frame, T_world_cam[frame] @ found[0]))
    return out


def _segment_starts(guesses: list[tuple[int, Array]]) -> list[int]:
    """Frames at which the pose differs from the one before by more than clicks do."""
    starts, reference = [guesses[0][0]], guesses[0][1]
    for frame, pose in guesses[1:]:
        gap = logarithm(se3.inverse(reference) @ pose)
        if np.linalg.norm(gap[:3]) > MOVED_M or np.linalg.norm(gap[3:]) > MOVED_RAD:
            starts.append(frame)
            reference = pose
    return starts


def _refine(
    capture: Capture, T_world_cam: Array, mesh: TriMesh, clicks: Sequence[ObjectClick], pose: Array, frames: list[int], use_depth: bool
) -> tuple[Array, Array]:
    """Gauss–Newton over clicks and depth; the pose and its covariance."""
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, min(SURFACE_FRAMES, len(frames))).astype(int)]
    H = np.eye(6)
    for gate in GATES_M if use_depth and capture.depth_z_m is not None else (1.0,):
        for _ in range(4):
            H, g = _click_equations(capture.K, T_world_cam, clicks, pose)
            if use_depth and capture.depth_z_m is not None:
                for frame in chosen:
                    h, b = _depth_equations(capture.K, capture.size, capture.depth_z_m(frame), T_world_cam[frame], mesh, pose, gate)
                    H, g = H + h, g + b
            step = -np.linalg.solve(H + 1e-9 * np.eye(6), g)
            pose = pose @ exponential(step)
            if np.linalg.norm(step) < 1e-6:
                break
    return pose, np.linalg.inv(H + 1e-9 * np.eye(6))


def _click_equations(K: Array, T_world_cam: Array, clicks: Sequence[ObjectClick], pose: Array) -> tuple[Array, Array]:
    H, g = np.zeros((6, 6)), np.zeros(6)
    for click in clicks:
        T_cam_object = se3.inverse(T_world_cam[click.frame]) @ pose
        x = se3.transform(T_cam_object, click.point_m[None])
        uv, P = projection(K, x)
        J = P[0] @ T_cam_object[:3, :3] @ np.concatenate([np.eye(3), -skew(click.point_m[None])[0]], axis=1) / CLICK_SIGMA_PX
        r = (uv[0] - click.uv_px) / CLICK_SIGMA_PX
        w = 1 / (1 + r @ r / 9) ** 2  # Geman–McClure: a wrong click has no pull
        H, g = H + w * J.T @ J, g + w * J.T @ r
    return H, g


def _depth_equations(
    K: Array, size: tuple[int, int], depth_z_m: Array, T_world_cam: Array, mesh: TriMesh, pose: Array, gate_m: float
) -> tuple[Array, Array]:
    T_cam_object = se3.inverse(T_world_cam) @ pose
    view = view_robot(RobotShape(np.array([0]), (mesh,)), T_cam_object[None], K, size, 2)
    measured = depth_z_m[::2, ::2]
    i, j = np.nonzero(view.mask & (measured > 0) & (np.abs(measured - view.depth_z_m) < gate_m))
    if len(i) < 20:
        return np.zeros((6, 6)), np.zeros(6)
    pick = np.linspace(0, len(i) - 1, min(SAMPLES, len(i))).astype(int)
    i, j = i[pick], j[pick]
    ray = np.stack([(2 * j - K[0, 2]) / K[0, 0], (2 * i - K[1, 2]) / K[1, 1], np.ones(len(i))], axis=-1)
    gap = ray * (view.depth_z_m[i, j] - measured[i, j])[:, None]
    normal = view.normal[i, j].astype(float)  # in the object's frame
    x = se3.transform(se3.inverse(T_cam_object), ray * view.depth_z_m[i, j, None])
    r = np.einsum("ni,ni->n", normal, gap @ T_cam_object[:3, :3])
    J = np.concatenate([normal, np.cross(x, normal)], axis=1)
    scale = max(1.4826 * float(np.median(np.abs(r))), DEPTH_SIGMA_M)
    w = np.clip(1 - (r / (4.685 * scale)) ** 2, 0, 1) ** 2 / scale**2 * DEPTH_WORTH
    return (J * w[:, None]).T @ J, J.T @ (w * r)
