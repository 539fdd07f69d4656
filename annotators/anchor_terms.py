"""Residuals of the anchor solve and their analytic derivatives, added up to one normal equation.

Measurements are of four kinds: a click (a landmark is at a pixel), a depth pixel (a measured point lies on the plane of the surface that
the pixel shows), an outline or edge pixel (a point of the robot's outline lies on the outline of a given mask, on an edge of the
photograph). All need the same thing, the position of a point of the robot in the camera and its derivative with respect to the unknowns of
that frame: `points_in_camera`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotators.anchor_arm import arm_of, link_derivatives, link_poses
from annotators.anchor_state import Problem, State, configuration, logarithm, metric_cameras
from dataengine.geometry import se3

Array = np.ndarray
LINES = ("outline", "edge")
"""Kinds that tell where a point is across a line only."""
NEAR_M = 0.05
"""Points nearer than this are projected as if they were here, which keeps those behind the camera finite."""
INTRINSICS_SIGMA = (0.03, 10.0, 10.0)
"""Prior of the logarithm of the focal length and of the principal point, pixels, where they are estimated."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """n measurements of one kind. `weight` (n,) multiplies the squared residual; 0 switches a measurement off.

    `slot`, `link` (n,), `offset_m` (n, 3): which point of the robot. `sigma` (n,): pixels, or metres for depth.
    click: `target` (n, 2) pixel. outline (of a given mask) and edge (of the photograph): `target` and its unit `normal` (n, 2).
    depth: `target` (n, 3) is the measured point in the camera, uncorrected, and `normal` (n, 3) the surface normal in the link's frame.
    """

    kind: str
    slot: Array
    link: Array
    offset_m: Array
    target: Array
    normal: Array
    sigma: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class Kinematics:
    """Link poses of all slots and the derivative of any of their points: affine in the point's offset."""

    T_base_link: Array  # (F, L, 4, 4)
    origin: Array  # (F, L, 3, D)
    slope: Array  # (F, L, 3 offset axes, 3, D)
    speed: Array  # (F, D)


def kinematics(problem: Problem, state: State) -> Kinematics:
    """Evaluate the arm once per slot."""
    q, speed = configuration(problem, state)
    arm = arm_of(problem.model)
    T_base_link = link_poses(arm, q)
    return Kinematics(T_base_link, *link_derivatives(arm, T_base_link), speed)


def link_poses_in_camera(problem: Problem, state: State) -> Array:
    """T_cam_link of all slots, (F, L, 4, 4)."""
    T_cam_base = se3.inverse(metric_cameras(state)) @ state.T_world_base[problem.slots.segment]
    return T_cam_base[:, None] @ link_poses(arm_of(problem.model), configuration(problem, state)[0])


def points_in_camera(problem: Problem, state: State, arm: Kinematics, m: Measurements) -> tuple[Array, Array]:
    """Positions (n, 3) in the camera and derivatives (n, 3, local unknowns)."""
    D, slot, link = problem.model.dof, m.slot, m.link
    pose = arm.T_base_link[slot, link]
    x_base = np.einsum("nij,nj->ni", pose[:, :3, :3], m.offset_m) + pose[:, :3, 3]
    base = state.T_world_base[problem.slots.segment][slot]
    camera = metric_cameras(state)[slot]
    R_cam_world = np.swapaxes(camera[:, :3, :3], 1, 2)
    x_world = np.einsum("nij,nj->ni", base[:, :3, :3], x_base) + base[:, :3, 3]
    x = np.einsum("nij,nj->ni", R_cam_world, x_world - camera[:, :3, 3])
    R_cam_base = R_cam_world @ base[:, :3, :3]
    J_q = arm.origin[slot, link] + np.einsum("nk,nkij->nij", m.offset_m, arm.slope[slot, link])
    J = np.zeros((len(x), 3, 19 + D))
    J[:, :, 0] = -np.einsum("nij,nj->ni", R_cam_world, camera[:, :3, 3])
    J[:, :, 1:4], J[:, :, 4:7] = R_cam_base, R_cam_base @ skew(-x_base)
    J[:, :, 7 : 7 + D] = R_cam_base @ J_q
    J[:, :, 7 + D] = np.einsum("nij,nj->ni", J[:, :, 7 : 7 + D], arm.speed[slot])
    J[:, :, 13 + D : 16 + D], J[:, :, 16 + D :] = -np.eye(3), skew(x)
    return x, J


def skew(v: Array) -> Array:
    """(n, 3) → (n, 3, 3) with skew(v) w = v × w."""
    zero = np.zeros(len(v))
    x, y, z = v.T
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)


def projection(K: Array, x: Array) -> tuple[Array, Array]:
    """Pixels (n, 2) and their derivative with respect to the point (n, 2, 3); points behind the camera are kept finite."""
    z = np.maximum(x[:, 2], NEAR_M)
    u, v = x[:, 0] / z, x[:, 1] / z
    J = np.zeros((len(x), 2, 3))
    J[:, 0, 0], J[:, 0, 1], J[:, 0, 2] = K[0, 0] / z, K[0, 1] / z, -(K[0, 0] * u + K[0, 1] * v) / z
    J[:, 1, 1], J[:, 1, 2] = K[1, 1] / z, -K[1, 1] * v / z
    return _pixels(K, x), J


def _pixels(K: Array, x: Array) -> Array:
    return (x[:, :2] / np.maximum(x[:, 2:], NEAR_M)) @ K[:2, :2].T + K[:2, 2]


def residual_values(problem: Problem, state: State, T_cam_link: Array, m: Measurements) -> Array:
    """In standard deviations, (n, k) with k = 2 for clicks, else 1. `T_cam_link`: see `link_poses_in_camera`."""
    pose = T_cam_link[m.slot, m.link]
    x = np.einsum("nij,nj->ni", pose[:, :3, :3], m.offset_m) + pose[:, :3, 3]
    if m.kind == "depth":
        normal = np.einsum("nij,nj->ni", pose[:, :3, :3], m.normal)
        return (np.einsum("ni,ni->n", normal, x - _true_point(state, m)) / m.sigma)[:, None]
    r = _pixels(state.K, x) - m.target
    r = np.einsum("ni,ni->n", m.normal, r)[:, None] if m.kind in LINES else r
    return r / m.sigma[:, None]


def residuals(problem: Problem, state: State, arm: Kinematics, m: Measurements) -> tuple[Array, Array]:
    """In standard deviations: r (n, k) and J (n, k, local unknowns); k = 2 for clicks, else 1."""
    x, J3 = points_in_camera(problem, state, arm, m)
    D = problem.model.dof
    if m.kind == "depth":
        return _depth(problem, state, arm, m, x, J3)
    uv, P = projection(state.K, x)
    r, J = uv - m.target, P @ J3
    J[:, :, 10 + D] += uv - state.K[:2, 2]
    J[:, 0, 11 + D] += 1
    J[:, 1, 12 + D] += 1
    if m.kind in LINES:
        r, J = np.einsum("ni,ni->n", m.normal, r)[:, None], np.einsum("ni,nij->nj", m.normal, J)[:, None]
    return r / m.sigma[:, None], J / m.sigma[:, None, None]


def _true_point(state: State, m: Measurements) -> Array:
    """The measured point (n, 3) without the sensor's gain."""
    return m.target / (state.depth_gain * (1 + state.depth_slope_per_m * (m.target[:, 2] - 1)))[:, None]


def _depth(problem: Problem, state: State, arm: Kinematics, m: Measurements, x: Array, J3: Array) -> tuple[Array, Array]:
    D = problem.model.dof
    z = m.target[:, 2]
    bend = 1 + state.depth_slope_per_m * (z - 1)
    point = _true_point(state, m)
    rotation = np.swapaxes(metric_cameras(state)[m.slot, :3, :3], 1, 2) @ state.T_world_base[problem.slots.segment][m.slot, :3, :3]
    normal = np.einsum("nij,nj->ni", rotation @ arm.T_base_link[m.slot, m.link, :3, :3], m.normal)
    r = np.einsum("ni,ni->n", normal, x - point)
    J = np.einsum("ni,nij->nj", normal, J3)
    along = np.einsum("ni,ni->n", normal, point)
    J[:, 8 + D] += along / state.depth_gain
    J[:, 9 + D] += along * (z - 1) / bend
    # The plane turns with the link: -d(normal)·point is in the derivative of normal·(x - point) only through x - point, which is small.
    return (r / m.sigma)[:, None], (J / m.sigma[:, None])[:, None]


def normal_equations(problem: Problem, state: State, terms: list[Measurements]) -> tuple[Array, Array, float]:
    """H (P, P), gradient (P,) and the weighted sum of squares of all measurements and priors."""
    P = problem.layout.size
    H, g, cost = np.zeros((P + 1, P + 1)), np.zeros(P + 1), 0.0
    arm = kinematics(problem, state)
    for m in terms:
        if not len(m.slot):
            continue
        r, J = residuals(problem, state, arm, m)
        cost += float(np.sum(m.weight[:, None] * r**2))
        root = np.sqrt(m.weight)[:, None]
        for slot in np.unique(m.slot):
            rows = m.slot == slot
            Jw = (J[rows] * root[rows][..., None]).reshape(-1, J.shape[-1])
            rw = (r[rows] * root[rows]).ravel()
            columns = problem.layout.columns[slot]
            H[np.ix_(columns, columns)] += Jw.T @ Jw
            np.add.at(g, columns, Jw.T @ rw)
    H, g = H[:P, :P], g[:P]
    cost += add_priors(problem, state, H, g)
    return H, g, cost


def total_cost(problem: Problem, state: State, terms: list[Measurements]) -> float:
    """The same sum of squares without derivatives."""
    poses = link_poses_in_camera(problem, state)
    cost = sum(float(np.sum(m.weight[:, None] * residual_values(problem, state, poses, m) ** 2)) for m in terms if len(m.slot))
    P = problem.layout.size
    return cost + add_priors(problem, state, np.zeros((P, P)), np.zeros(P))


def add_priors(problem: Problem, state: State, H: Array, g: Array) -> float:
    """Add what is known before any picture to H and g in place; returns its share of the cost."""
    layout, options = problem.layout, problem.options
    cost = 0.0

    def scalar(columns: list[int], derivative: list[float], residual: float, sigma: float) -> float:
        index = np.array(columns)
        d = np.array(derivative) / sigma
        H[np.ix_(index, index)] += np.outer(d, d)
        g[index] += d * residual / sigma
        return (residual / sigma) ** 2

    if layout.time >= 0:
        cost += scalar([layout.time], [1.0], state.time_offset_s, options.time_offset_sigma_s)
    if layout.depth[0] >= 0:
        gain_sigma = options.depth_gain_sigma
        slope_sigma = options.depth_slope_sigma_per_m
        cost += scalar([int(layout.depth[0])], [1.0], state.depth_gain - 1.0, gain_sigma)
        cost += scalar([int(layout.depth[1])], [1.0], state.depth_slope_per_m, slope_sigma)
    if layout.intrinsics[0] >= 0:
        moved = (np.log(state.K[0, 0] / problem.K[0, 0]), *(state.K[:2, 2] - problem.K[:2, 2]))
        for column, value, sigma in zip(layout.intrinsics, moved, INTRINSICS_SIGMA, strict=True):
            cost += scalar([int(column)], [1.0], float(value), sigma)
    if layout.scale >= 0:
        for source, metres, sigma in problem.scale_sources:
            through_gain = source == "depth" and layout.depth[0] >= 0
            residual = np.log(state.metres_per_unit / metres) + (np.log(state.depth_gain) if through_gain else 0.0)
            columns = [layout.scale, int(layout.depth[0])] if through_gain else [layout.scale]
            cost += scalar(columns, [1.0, 1.0 / state.depth_gain][: len(columns)], float(residual), sigma)
    if layout.cameras[0, 0] >= 0:
        cost += _camera_priors(problem, state, H, g)
    if layout.mode != "known":
        cost += _joint_priors(problem, state, H, g)
    return cost


def camera_sigmas(problem: Problem, metres_per_unit: float) -> Array:
    """Prior covariance of every slot's camera in metres and radians, (F, 6, 6), with the floor added."""
    scale = np.array([metres_per_unit] * 3 + [1.0] * 3)
    floor = np.array([problem.options.camera_sigma_m] * 3 + [problem.options.camera_sigma_rad] * 3) ** 2
    return problem.slots.camera_covariance * np.outer(scale, scale) + np.diag(floor)


def _camera_priors(problem: Problem, state: State, H: Array, g: Array) -> float:
    moved = se3.inverse(problem.slots.T_sfm_cam) @ state.T_sfm_cam
    delta = logarithm(moved)
    delta[:, :3] *= state.metres_per_unit
    information = np.linalg.inv(camera_sigmas(problem, state.metres_per_unit))
    for slot, index in enumerate(problem.layout.cameras):
        H[np.ix_(index, index)] += information[slot]
        g[index] += information[slot] @ delta[slot]
    return float(np.einsum("ni,nij,nj->", delta, information, delta))


def _joint_priors(problem: Problem, state: State, H: Array, g: Array) -> float:
    """Offsets are small; configurations keep their limits and change no faster than the arm can."""
    layout, options, model = problem.layout, problem.options, problem.model
    if layout.mode == "offset":
        sigma, value = np.full(model.dof, options.joint_offset_sigma_rad), state.joints
    else:
        sigma = np.maximum(model.q_upper - model.q_lower, 1e-3)
        value = state.joints - (model.q_lower + model.q_upper) / 2
    index = layout.joints.ravel()
    weight = np.tile(1 / sigma**2, len(layout.joints))
    H[index, index] += weight
    g[index] += weight * value.ravel()
    cost = float(np.sum(weight * value.ravel() ** 2))
    if layout.mode == "offset":
        return cost
    beyond = np.minimum(state.joints - model.q_lower, 0) + np.maximum(state.joints - model.q_upper, 0)
    stiff = np.where(beyond != 0, 1 / 0.005**2, 0.0).ravel()
    H[index, index] += stiff
    g[index] += stiff * beyond.ravel()
    cost += float(np.sum(stiff * beyond.ravel() ** 2))
    if layout.mode == "per_frame" and len(layout.joints) > 1:
        cost += _smoothness(problem, state, H, g)
    return cost


def _smoothness(problem: Problem, state: State, H: Array, g: Array) -> float:
    order = np.argsort(problem.slots.times_s)
    gaps = np.maximum(np.diff(problem.slots.times_s[order]), 0.02)
    weight = 1 / (problem.options.joint_speed_sigma_rad_s * gaps) ** 2
    cost = 0.0
    for left, right, w in zip(order[:-1], order[1:], weight, strict=True):
        a, b = problem.layout.joints[left], problem.layout.joints[right]
        step = state.joints[right] - state.joints[left]
        H[a, a] += w
        H[b, b] += w
        H[a, b] -= w
        H[b, a] -= w
        g[a] -= w * step
        g[b] += w * step
        cost += float(w * step @ step)
    return cost
