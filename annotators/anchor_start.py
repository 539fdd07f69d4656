"""A first guess without any guess: from clicks by perspective-n-point over sampled configurations, or from masked depth alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from annotators.anchor_state import Problem, State, joints_at, metric_cameras
from dataengine.geometry import se3
from dataengine.robot.keypoints import KeypointSet
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.model import RobotModel

Array = np.ndarray
NO_DISTORTION = np.zeros(5)
LEAST_IN_FRAME = 4
"""Clicks of one frame from which a pose can be had."""


@dataclass(frozen=True, eq=False)
class ClickTable:
    """Clicks as arrays: slot (n,), landmark row (n,), uv (n, 2)."""

    slot: Array
    row: Array
    uv_px: Array


@dataclass(frozen=True, eq=False)
class FramePose:
    """What one frame says on its own: base in camera, configuration, share of clicks within the tolerance."""

    T_cam_base: Array
    q: Array
    inliers: int
    error_px: float


def pnp(points_m: Array, uv_px: Array, K: Array, tolerance_px: float = 12.0) -> tuple[Array, int, float] | None:
    """Pose of points (n, 3) seen at pixels (n, 2): (T_cam_points, inliers, rms px of inliers) or None. Robust from 6 points on.

    SQPnP (Terzakis and Lourakis 2020) on all points, and on random subsets where that leaves outliers.
    """
    import cv2

    best: tuple[Array, int, float] | None = None
    rng = np.random.default_rng(len(points_m))
    n = len(points_m)
    for attempt in range(1 if n < 6 else 12):
        chosen = np.arange(n) if attempt == 0 else rng.choice(n, max(4, min(n - 1, 5)), replace=False)
        try:
            found, rvec, tvec = cv2.solvePnP(points_m[chosen], uv_px[chosen], K, NO_DISTORTION, flags=cv2.SOLVEPNP_SQPNP)
        except cv2.error:
            continue
        if not found:
            continue
        T = se3.make(cv2.Rodrigues(rvec)[0], tvec[:, 0])
        error = _reprojection(T, points_m, uv_px, K)
        good = error < tolerance_px
        if good.sum() >= 4:
            _, rvec, tvec = cv2.solvePnP(points_m[good], uv_px[good], K, NO_DISTORTION, rvec, tvec, True, cv2.SOLVEPNP_ITERATIVE)
            T = se3.make(cv2.Rodrigues(rvec)[0], tvec[:, 0])
            error = _reprojection(T, points_m, uv_px, K)
            good = error < tolerance_px
        rms = float(np.sqrt(np.mean(error[good] ** 2))) if good.any() else np.inf
        if best is None or (good.sum(), -rms) > (best[1], -best[2]):
            best = (T, int(good.sum()), rms)
        if good.all():
            break
    return best


def _reprojection(T: Array, points_m: Array, uv_px: Array, K: Array) -> Array:
    x = se3.transform(T, points_m)
    with np.errstate(all="ignore"):
        uv = x @ K.T
        error = np.linalg.norm(uv[:, :2] / uv[:, 2:] - uv_px, axis=1)
    return np.where((x[:, 2] > 0.05) & np.isfinite(error), error, 1e6)


def frame_pose(model: RobotModel, points: KeypointSet, clicks: ClickTable, slot: int, q: Array, K: Array) -> FramePose | None:
    """Pose of the base in one frame for a given configuration."""
    mine = clicks.slot == slot
    if mine.sum() < LEAST_IN_FRAME:
        return None
    found = pnp(points.positions(forward_kinematics(model, q))[clicks.row[mine]], clicks.uv_px[mine], K)
    return None if found is None else FramePose(found[0], q, found[1], found[2])


def sample_configurations(model: RobotModel, count: int, rng: np.random.Generator, near: Array | None = None) -> Array:
    """(count, D) configurations: the middle of the limits first, then uniform, or spread about `near` if that is given."""
    middle = (model.q_lower + model.q_upper) / 2 if near is None else near
    spread = (model.q_upper - model.q_lower) / 2
    drawn = middle + spread * (
        0.9 * rng.uniform(-1, 1, (count - 1, model.dof)) if near is None else 0.15 * rng.normal(size=(count - 1, model.dof))
    )
    return np.concatenate([middle[None], np.clip(drawn, model.q_lower, model.q_upper)])


def base_and_scale(T_cam_base: Array, T_sfm_cam: Array, weight: Array, known_scale: float | None) -> tuple[float, Array] | None:
    """Scale and base pose in the world from per-frame poses: least squares on `s t_i + R_i c_i = b`, then the chordal mean of rotations.

    T_cam_base (n, 4, 4), T_sfm_cam (n, 4, 4) SfM units. None where the frames do not tell the scale.
    """
    R, t = T_sfm_cam[:, :3, :3], T_sfm_cam[:, :3, 3]
    seen = np.einsum("nij,nj->ni", R, T_cam_base[:, :3, 3])
    scale = known_scale if known_scale is not None else _scale(t, seen, weight)
    if scale is None:
        return None
    origin = np.median(seen + scale * t, axis=0)
    spread = np.linalg.norm(seen + scale * t - origin, axis=1)
    near = spread <= np.median(spread) * 2.5 + 1e-6
    U, _, Vt = np.linalg.svd(np.einsum("n,nij->ij", weight[near], (R @ T_cam_base[:, :3, :3])[near]))
    rotation = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
    return float(scale), se3.make(rotation, np.median((seen + scale * t)[near], axis=0))


def _scale(t: Array, seen: Array, weight: Array) -> float | None:
    """Robust slope of `seen` against `-t` over all pairs of frames: median of pair ratios weighted by baseline."""
    i, j = np.triu_indices(len(t), 1)
    dt, ds = t[j] - t[i], -(seen[j] - seen[i])
    length = np.sum(dt**2, axis=1)
    if len(length) == 0 or length.max() <= 0:
        return None
    strong = length > 0.1 * length.max()
    ratio = np.sum(dt * ds, axis=1)[strong] / length[strong]
    scale = float(np.median(ratio))
    return scale if scale > 0 else None


def starts(problem: Problem, points: KeypointSet, clicks: ClickTable, K: Array) -> list[State]:
    """States to descend from, best first; empty where nothing agrees with the clicks."""
    if problem.layout.mode in ("known", "offset"):
        assert problem.log is not None
        return _known_starts(problem, points, clicks, K)
    return _unknown_starts(problem, points, clicks, K)


def _depth_source(problem: Problem) -> float | None:
    if problem.static:
        return 1.0
    return problem.scale_sources[0][1] if problem.scale_sources else None


def _known_starts(problem: Problem, points: KeypointSet, clicks: ClickTable, K: Array) -> list[State]:
    """One start per trial time offset, the three that explain most."""
    assert problem.log is not None
    found: list[tuple[float, State]] = []
    for offset in (0.0,) if not problem.options.estimate_time_offset else (0.0, -0.08, 0.08):
        q, _ = joints_at(problem.log, problem.slots.times_s + offset)
        state = _assemble(problem, points, clicks, K, q, np.zeros((1, problem.model.dof)))
        if state is not None:
            state = replace(state, time_offset_s=offset)
            found.append((click_cost(problem, points, clicks, state, q, K), state))
    return [state for _, state in sorted(found, key=lambda item: item[0])[:1]]


def _assemble(problem: Problem, points: KeypointSet, clicks: ClickTable, K: Array, q: Array, joints: Array) -> State | None:
    """Scale and base pose from the poses that single frames give for configurations q (F, D)."""
    slots = problem.slots
    poses = [frame_pose(problem.model, points, clicks, slot, q[slot], K) for slot in range(len(slots.frame))]
    usable = [slot for slot, pose in enumerate(poses) if pose is not None and pose.inliers >= 4]
    if not usable:
        return None
    T_cam_base = np.stack([pose.T_cam_base for pose in poses if pose is not None and pose.inliers >= 4])
    weight = np.array([float(pose.inliers) for pose in poses if pose is not None and pose.inliers >= 4])
    scale = _depth_source(problem)
    if scale is None and len(usable) < 2:
        return None
    placed = base_and_scale(T_cam_base, slots.T_sfm_cam[usable], weight, scale)
    if placed is None:
        return None
    segment = slots.segment[usable]
    bases = []
    for one in range(int(slots.segment.max(initial=0)) + 1):
        mine = segment == one
        alone = base_and_scale(T_cam_base[mine], slots.T_sfm_cam[usable][mine], weight[mine], placed[0]) if mine.any() else None
        bases.append(placed[1] if alone is None else alone[1])
    return State(placed[0], np.stack(bases), joints, K.copy(), slots.T_sfm_cam.copy())


def _unknown_starts(problem: Problem, points: KeypointSet, clicks: ClickTable, K: Array) -> list[State]:
    """Configurations sampled over the limits (or about the log), refined by a cross-entropy search on the frame with most clicks."""
    model, slots = problem.model, problem.slots
    rng = np.random.default_rng(problem.options.seed)
    count = np.bincount(clicks.slot, minlength=len(slots.frame))
    if count.max() < LEAST_IN_FRAME:
        return []
    order = np.argsort(-count)
    near = None if problem.log is None else joints_at(problem.log, slots.times_s)[0][order[0]]
    candidates: list[tuple[float, Array]] = []
    searched = np.stack(_search(model, points, clicks, int(order[0]), K, rng, near))
    errors = _pnp_errors(points, _of_slot(clicks, int(order[0])), forward_kinematics(model, searched), K)
    candidates += zip(errors.tolist(), searched, strict=True)
    found: list[tuple[float, State]] = []
    for _, q in sorted(candidates, key=lambda item: item[0])[:6]:
        everywhere = np.tile(q, (len(slots.frame), 1))
        joints = q[None] if problem.layout.mode == "constant" else everywhere
        only = clicks if problem.layout.mode == "constant" else _of_slot(clicks, int(order[0]))
        state = _assemble(problem, points, only, K, everywhere, joints)
        if state is None and problem.layout.mode == "per_frame":
            state = _assemble(problem, points, clicks, K, everywhere, joints)
        if state is None:
            continue
        if problem.layout.mode == "per_frame":
            state = follow(problem, points, clicks, K, state, rng)
        found.append((click_cost(problem, points, clicks, state, np.broadcast_to(state.joints, everywhere.shape), K), state))
    return [state for _, state in sorted(found, key=lambda item: item[0])[:4]]


def _of_slot(clicks: ClickTable, slot: int) -> ClickTable:
    mine = clicks.slot == slot
    return ClickTable(clicks.slot[mine], clicks.row[mine], clicks.uv_px[mine])


def _search(
    model: RobotModel, points: KeypointSet, clicks: ClickTable, slot: int, K: Array, rng: np.random.Generator, near: Array | None
) -> list[Array]:
    """The best configurations of six cross-entropy searches (Rubinstein 1999), each judged by perspective-n-point in one frame."""
    out: list[Array] = []
    for restart in range(6):
        mean = near if near is not None and restart < 3 else sample_configurations(model, 2, rng)[1] if restart else None
        q = sample_configurations(model, 120, rng, mean if restart and near is None else near if restart < 3 else None)
        for shrink in (0.3, 0.15, 0.08, 0.04):
            error = _pnp_errors(points, _of_slot(clicks, slot), forward_kinematics(model, q), K)
            elite = q[np.argsort(error)[:10]]
            sigma = np.maximum(elite.std(axis=0), shrink * 0.3) + 1e-3
            q = np.clip(
                np.concatenate([elite, elite[rng.integers(0, 10, 50)] + sigma * rng.normal(size=(50, model.dof)) * 0.7]),
                model.q_lower,
                model.q_upper,
            )
        out.append(elite[0])
    return out


def _pnp_errors(points: KeypointSet, clicks: ClickTable, T_base_link: Array, K: Array) -> Array:
    """Mean truncated reprojection error of the best pose, pixels, for every configuration (n, L, 4, 4): (n,)."""
    import cv2

    out = []
    for x in np.ascontiguousarray(points.positions(T_base_link)[:, clicks.row]):
        found, rvec, tvec = cv2.solvePnP(x, clicks.uv_px, K, NO_DISTORTION, flags=cv2.SOLVEPNP_SQPNP)
        error = _reprojection(se3.make(cv2.Rodrigues(rvec)[0], tvec[:, 0]), x, clicks.uv_px, K) if found else np.full(1, 1e6)
        out.append(float(np.mean(np.minimum(error, 150.0))))
    return np.array(out)


def follow(
    problem: Problem, points: KeypointSet, clicks: ClickTable, K: Array, state: State, rng: np.random.Generator, only: Array | None = None
) -> State:
    """Configuration of every slot (or `only` some) with the base held: sampled about the neighbours', narrowed round by round."""
    model, joints = problem.model, state.joints.copy()
    T_cam_base = se3.inverse(metric_cameras(state)) @ state.T_world_base[problem.slots.segment]
    for slot in range(len(joints)):
        mine = clicks.slot == slot
        if not mine.any() or (only is not None and slot not in only):
            continue
        guesses = joints[[slot, max(slot - 1, 0), min(slot + 1, len(joints) - 1)]]
        if problem.log is not None:
            guesses = np.concatenate([guesses, joints_at(problem.log, problem.slots.times_s)[0][slot][None]])
        q = np.concatenate([guesses, guesses[rng.integers(0, len(guesses), 300)] + 0.5 * rng.normal(size=(300, model.dof))])
        for sigma in (0.25, 0.12, 0.06, 0.03):
            q = np.clip(q, model.q_lower, model.q_upper)
            x = points.positions(T_cam_base[slot] @ forward_kinematics(model, q))[:, clicks.row[mine]]
            uv = x @ K.T
            error = np.linalg.norm(uv[..., :2] / np.maximum(uv[..., 2:], 0.05) - clicks.uv_px[mine], axis=-1)
            elite = q[np.argsort(np.minimum(error, 150.0).mean(axis=1))[:10]]
            q = np.concatenate([elite, elite[rng.integers(0, 10, 150)] + sigma * rng.normal(size=(150, model.dof))])
        joints[slot] = elite[0]
    return replace(state, joints=joints)


def click_cost(problem: Problem, points: KeypointSet, clicks: ClickTable, state: State, q: Array, K: Array) -> float:
    """Mean truncated reprojection error of all clicks, pixels."""
    T_cam_base = se3.inverse(metric_cameras(state)) @ state.T_world_base[problem.slots.segment]
    x = points.positions(T_cam_base[:, None] @ forward_kinematics(problem.model, q))[clicks.slot, clicks.row]
    uv = x @ K.T
    error = np.linalg.norm(uv[:, :2] / np.maximum(uv[:, 2:], 0.05) - clicks.uv_px, axis=1)
    return float(np.mean(np.minimum(error, 150.0)))
