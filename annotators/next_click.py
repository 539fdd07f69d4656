"""Which click would help most, and when to stop: expected drop of the keypoints' covariance.

A click's worth does not depend on where the pixel turns out to be, only on its derivative, so it can be told before it is made
(Fisher information; Kalman's update of the covariance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotators.anchor import Inputs, Solved
from annotators.anchor_posterior import output_keypoints, spread_problem
from annotators.anchor_state import Problem, State
from annotators.anchor_terms import Kinematics, Measurements, camera_sigmas, kinematics, points_in_camera, projection
from dataengine.robot.keypoints import KeypointSet

Array = np.ndarray
STOP_M = 0.002
VISIBLE = 0.5
JUDGED_FRAMES = 12


@dataclass(frozen=True)
class NextClick:
    """Click `landmark` in `frame`; `expected_sd_m` is the keypoints' root mean variance per axis afterwards, `present_sd_m` now."""

    frame: int
    landmark: str
    expected_sd_m: float
    present_sd_m: float

    @property
    def enough(self) -> bool:
        """The keypoints are already known to 2 mm."""
        return self.present_sd_m <= STOP_M


def next_best_click(inputs: Inputs, solved: Solved, frames: Sequence[int] | None = None) -> NextClick | None:
    """The best of all visible landmarks not yet clicked in `frames` (default: every fourth posed frame and the clicked ones).

    None when nothing is left to click. `inputs` and `solved` come from `anchor.gather` and `anchor.solve_inputs`.
    """
    everywhere, full = spread_problem(solved.problem, solved.state, inputs.track, inputs.capture.times_s.astype(float))
    arm = kinematics(everywhere, full)
    P = solved.problem.layout.size
    cov = np.zeros((P + 1, P + 1))
    cov[:P, :P] = solved.covariance
    columns = _columns(solved, len(inputs.capture.frames))
    judged = np.flatnonzero(inputs.track.posed)
    judged = judged[np.linspace(0, len(judged) - 1, min(JUDGED_FRAMES, len(judged))).astype(int)]
    information, count = np.zeros((P + 1, P + 1)), 0
    for frame in judged:
        _, J = points_in_camera(everywhere, full, arm, _points(output_keypoints(inputs.model), int(frame)))
        information[np.ix_(columns[frame], columns[frame])] += np.einsum("nki,nkj->ij", J, J)
        count += J.shape[0] * 3
    information[P], information[:, P] = 0, 0
    present = float(np.trace(information @ cov)) / count
    spread = cov @ information @ cov
    prior = camera_sigmas(everywhere, full.metres_per_unit)
    done = {(click.frame, click.landmark) for click in inputs.clicks}
    best: tuple[float, int, str] | None = None
    for frame in frames if frames is not None else _default_frames(inputs, solved):
        pixel_camera = None if frame in solved.problem.slots.frame or solved.problem.static else prior[frame]
        rows, A, noise = _candidates(inputs, everywhere, full, arm, int(frame), pixel_camera)
        for row, a, r in zip(rows, A, noise, strict=True):
            name = inputs.landmarks.names[row]
            if (int(frame), name) in done:
                continue
            local = np.ix_(columns[frame], columns[frame])
            gain = float(np.trace(np.linalg.solve(a @ cov[local] @ a.T + r, a @ spread[local] @ a.T))) / count
            if best is None or gain > best[0]:
                best = (gain, int(frame), name)
    if best is None:
        return None
    return NextClick(best[1], best[2], float(np.sqrt(max(present - best[0], 0.0))), float(np.sqrt(present)))


def _columns(solved: Solved, frames: int) -> Array:
    """Global columns of every frame's local unknowns, (frames, local); those of a camera outside the solve are thrown away."""
    layout, slots = solved.problem.layout, solved.problem.slots
    D = solved.problem.model.dof
    nearest = np.abs(np.arange(frames)[:, None] - slots.frame[None]).argmin(axis=1)
    out = layout.columns[nearest].copy()
    outside = ~np.isin(np.arange(frames), slots.frame)
    out[outside, 13 + D :] = layout.size
    return out


def _default_frames(inputs: Inputs, solved: Solved) -> list[int]:
    clicked = [int(frame) for frame in solved.problem.slots.frame]
    if solved.problem.layout.mode == "per_frame":
        return clicked
    return sorted({*clicked, *(int(frame) for frame in np.flatnonzero(inputs.track.posed)[::4])})


def _points(points: KeypointSet, slot: int) -> Measurements:
    n = len(points)
    empty = np.zeros((n, 2))
    return Measurements("point", np.full(n, slot), points.link_index, points.offset_m, empty, empty, np.ones(n), np.ones(n))


def _candidates(
    inputs: Inputs, everywhere: Problem, full: State, arm: Kinematics, frame: int, camera: Array | None
) -> tuple[Array, Array, Array]:
    """Visible landmarks of a frame: rows (m,), derivative of the pixel (m, 2, local), noise of a click there (m, 2, 2)."""
    from annotators.robot_view import RobotView

    x, J3 = points_in_camera(everywhere, full, arm, _points(inputs.landmarks, frame))
    uv, project = projection(full.K, x)
    T_cam_base = np.linalg.inv(_metric(full, frame)) @ full.T_world_base[everywhere.slots.segment[frame]]
    share = RobotView(inputs.model).visibility(inputs.landmarks, T_cam_base @ arm.T_base_link[frame], None, inputs.capture.K)
    width, height = inputs.capture.size
    inside = (uv[:, 0] >= 0) & (uv[:, 1] >= 0) & (uv[:, 0] <= width - 1) & (uv[:, 1] <= height - 1)
    rows = np.flatnonzero((share >= VISIBLE) & inside)
    A = (project @ J3)[rows]
    noise = np.tile(np.eye(2) * inputs.options.click_sigma_px**2, (len(rows), 1, 1))
    if camera is not None:
        D = inputs.model.dof
        noise = noise + A[:, :, 13 + D :] @ camera @ np.swapaxes(A[:, :, 13 + D :], 1, 2)
    return rows, A, noise


def _metric(full: State, frame: int) -> Array:
    T = full.T_sfm_cam[frame].copy()
    T[:3, 3] *= full.metres_per_unit
    return T
