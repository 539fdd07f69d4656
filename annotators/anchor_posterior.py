"""From the solved unknowns to every frame of the capture: poses, joints, keypoints, and how uncertain each of them is.

The inverse of the final normal matrix is the covariance of all unknowns together (cameras included), so correlations between the scale, the
base and the joints are carried to the keypoints and not added up as if they were independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from annotators.anchor_state import Problem, Slots, State, configuration, metric_cameras
from annotators.anchor_terms import Measurements, camera_sigmas, kinematics, normal_equations, points_in_camera
from annotators.types import CameraTrack
from dataengine.robot.keypoints import KeypointSet, available_sets, keypoint_set
from dataengine.robot.model import RobotModel

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class FullTrack:
    """All N frames: values, and covariances as `annotators.types.Solution` describes them."""

    T_world_cam: Array
    T_world_base: Array
    joints_rad: Array
    camera_covariance: Array
    joint_covariance: Array
    keypoints_cam_m: Array
    keypoint_covariance: Array


def covariance(problem: Problem, state: State, terms: list[Measurements]) -> Array:
    """Joint covariance of all free unknowns (P, P): inverse of the normal matrix at the solution."""
    H, _, _ = normal_equations(problem, state, terms)
    root = np.sqrt(np.maximum(np.diag(H), 1e-12))
    values, vectors = np.linalg.eigh(H / np.outer(root, root))
    # Directions that nothing measures get a huge but finite variance.
    inverse = (vectors / np.maximum(values, 1e-10)) @ vectors.T
    return inverse / np.outer(root, root)


def output_keypoints(model: RobotModel) -> KeypointSet:
    """The keypoints that are written: DREAM's seven and eight beside the axes for the Panda, `auto` for others."""
    return keypoint_set(model, "panda15" if "panda15" in available_sets(model) else "auto")


def full_track(problem: Problem, state: State, cov: Array, track: CameraTrack, times_s: Array, keypoints: KeypointSet) -> FullTrack:
    """Carry the solution and its covariance to all frames. Frames without a camera pose hold NaN."""
    N, D = len(times_s), problem.model.dof
    everywhere, full = spread_problem(problem, state, track, times_s)
    q, _ = configuration(everywhere, full)
    local = _local_covariances(problem, state, cov, everywhere, full)
    arm = kinematics(everywhere, full)
    posed = np.flatnonzero(track.posed)
    keypoints_cam = np.full((N, len(keypoints), 3), np.nan)
    keypoint_cov = np.full((N, len(keypoints), 3, 3), np.nan)
    for frame in posed:
        rows = _rows(keypoints, int(frame))
        x, J = points_in_camera(everywhere, full, arm, rows)
        keypoints_cam[frame] = x
        keypoint_cov[frame] = J @ local[frame] @ np.swapaxes(J, 1, 2) + np.eye(3) * problem.options.model_floor_m**2
    T_world_cam = np.where(track.posed[:, None, None], metric_cameras(full), np.nan)
    camera = slice(13 + D, 19 + D)
    return FullTrack(
        T_world_cam,
        full.T_world_base[everywhere.slots.segment],
        q,
        np.where(track.posed[:, None, None], local[:, camera, camera], np.nan),
        local[:, 7 : 7 + D, 7 : 7 + D],
        keypoints_cam,
        keypoint_cov,
    )


def _rows(points: KeypointSet, slot: int) -> Measurements:
    n = len(points)
    empty = np.zeros((n, 2))
    return Measurements("point", np.full(n, slot), points.link_index, points.offset_m, empty, empty, np.ones(n), np.ones(n))


def spread_problem(problem: Problem, state: State, track: CameraTrack, times_s: Array) -> tuple[Problem, State]:
    """The same problem with every frame as a slot: refined cameras where there are any, joints interpolated between slots."""
    N = len(times_s)
    T = np.where(track.posed[:, None, None], np.nan_to_num(track.T_world_cam), np.eye(4))
    T[problem.slots.frame] = state.T_sfm_cam
    segment = segments(N, problem.options.base_starts)
    slots = Slots(np.arange(N), times_s, T, np.nan_to_num(track.covariance), segment, problem.slots.size)
    joints = state.joints
    if problem.layout.mode == "per_frame":
        order = np.argsort(problem.slots.times_s)
        joints = interpolate(problem.slots.times_s[order], state.joints[order], times_s)
    return replace(problem, slots=slots), replace(state, joints=joints, T_sfm_cam=T)


def interpolate(known_s: Array, values: Array, times_s: Array) -> Array:
    """Smooth curve (cubic, without overshoot) through values (F, D) at increasing times, held beyond the ends: (N, D)."""
    from scipy.interpolate import PchipInterpolator

    if len(known_s) < 2:
        return np.tile(values[0], (len(times_s), 1))
    return PchipInterpolator(known_s, values)(np.clip(times_s, known_s[0], known_s[-1]))


def interpolation_sigma(known_s: Array, values: Array) -> Array:
    """How far a joint strays from the curve midway between two slots, (D,): each slot is predicted from the others, over twice the gap;
    over the gap itself the error of a smooth curve is at most a quarter."""
    if len(known_s) < 4:
        return np.full(values.shape[1], 0.05)
    inner = range(1, len(known_s) - 1)
    keep = [np.arange(len(known_s)) != k for k in inner]
    missed = [values[k] - interpolate(known_s[m], values[m], known_s[[k]])[0] for k, m in zip(inner, keep, strict=True)]
    return np.maximum(np.sqrt(np.mean(np.square(missed), axis=0)) / 4, 2e-4)


def segments(frames: int, base_starts: tuple[int, ...]) -> Array:
    """Index of the base pose that holds in each frame, (frames,) int64."""
    return np.searchsorted(np.sort(np.array(base_starts, int)), np.arange(frames), side="right")


def _local_covariances(problem: Problem, state: State, cov: Array, everywhere: Problem, full: State) -> Array:
    """Covariance of the local unknowns of every frame, (N, local, local)."""
    P, D, N = problem.layout.size, problem.model.dof, len(everywhere.slots.frame)
    padded = np.zeros((P + 1, P + 1))
    padded[:P, :P] = cov
    prior = camera_sigmas(everywhere, full.metres_per_unit)
    slot_of = {int(frame): slot for slot, frame in enumerate(problem.slots.frame)}
    first_slot = {int(segment): slot for slot, segment in reversed(list(enumerate(problem.slots.segment)))}
    moving = not problem.static
    out = np.zeros((N, 19 + D, 19 + D))
    for frame in range(N):
        slot = slot_of.get(frame)
        template = slot if slot is not None else first_slot.get(int(everywhere.slots.segment[frame]), 0)
        columns = problem.layout.columns[template].copy()
        if slot is None:
            columns[13 + D :] = P
        out[frame] = padded[np.ix_(columns, columns)]
        if slot is None and problem.layout.mode == "per_frame":
            out[frame] = _between_slots(problem, state, padded, columns, everywhere.slots.times_s[frame])
        if (slot is None or problem.layout.cameras[0, 0] < 0) and moving:
            out[frame, 13 + D :, 13 + D :] += prior[frame]
    return out


def _between_slots(problem: Problem, state: State, padded: Array, columns: Array, time_s: float) -> Array:
    """Joints interpolated between the slots before and after, plus what the curve may miss in between."""
    D, P = problem.model.dof, problem.layout.size
    times = problem.slots.times_s
    before = np.flatnonzero(times <= time_s)
    after = np.flatnonzero(times >= time_s)
    left = before[np.argmax(times[before])] if len(before) else after[np.argmin(times[after])]
    right = after[np.argmin(times[after])] if len(after) else left
    gap = max(float(times[right] - times[left]), 1e-9)
    share = float(np.clip((time_s - times[left]) / gap, 0, 1)) if right != left else 0.0
    M = np.zeros((len(columns), P + 1))
    M[np.arange(len(columns)), columns] = 1
    joints = slice(7, 7 + D)
    M[joints] = 0
    M[np.arange(7, 7 + D), problem.layout.joints[left]] += 1 - share
    M[np.arange(7, 7 + D), problem.layout.joints[right]] += share
    M[:, P] = 0
    out = M @ padded @ M.T
    order = np.argsort(times)
    sigma = interpolation_sigma(times[order], state.joints[order])
    away = abs(float(time_s - times[left])) if right == left else 0.0
    bulge = 4 * share * (1 - share) + away / max(float(np.ptp(times)) / max(len(times) - 1, 1), 1e-9)
    out[joints, joints] += np.diag((sigma * bulge) ** 2)
    return out
