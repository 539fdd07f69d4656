"""The anchor solve: one least squares over scale, base pose, joints, time offset, depth bias and cameras.

    clicks ─┐
    depth  ─┼─► start (no guess needed) ─► robust solve ─► re-associate surfaces, solve again ─► covariance ─► every frame
    masks  ─┘

`solve` is the only entry point. It never raises because the data are poor: what is wrong is said in `Solution.flags` and `reasons`.
It raises `DataEngineError` where there is nothing to solve from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotators import anchor_scale, anchor_start, audit, audit_base, audit_intrinsics, audit_scene
from annotators.anchor_icp import surface_starts
from annotators.anchor_inputs import Inputs, choose_slots, click_measurements, gather, make_problem, slot_images, surface_start_data, table
from annotators.anchor_optimise import click_chi2, click_inliers, minimise, reweigh, solve_clicks
from annotators.anchor_posterior import FullTrack, covariance, full_track, interpolate, output_keypoints
from annotators.anchor_state import AnchorOptions, JointMode, Problem, State, joints_at, metric_cameras
from annotators.anchor_surface import RobotShape, associate, robot_shape, view_robot
from annotators.anchor_terms import Measurements, link_poses_in_camera, residual_values
from annotators.types import Array, CameraTrack, Capture, Click, Flag, ScaleEstimate, Solution
from dataengine.errors import DataEngineError
from dataengine.geometry import se3
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.model import RobotModel

GOOD_CHI2 = 2.6
"""Mean squared residual of clicks in prior variances (2 expected) below which no further start is tried."""
LEAP_RAD = 1.0
ROUNDS = 3
"""Searches for a start before the best misfit is taken."""
GOOD_OVERLAP, OVERLAP_GAIN, POOR_OVERLAP = 0.85, 0.03, 0.75
"""Overlap with the masks above which a model of the joints will do, and by which a freer one must be better."""
TURNS_RAD = (-0.8, -0.4, -0.2, 0.2, 0.4, 0.8)
"""By how much single joints are turned to look for a better cover of a mask."""
GATES = ((0.08, 40.0), (0.04, 20.0), (0.025, 10.0), (0.02, 8.0))
"""How far, in metres and pixels, a surface or outline may be from where it is believed to be, pass by pass."""


@dataclass(frozen=True, eq=False)
class Solved:
    """A solved problem before it is carried to all frames."""

    problem: Problem
    state: State
    clicks: Measurements
    surfaces: tuple[Measurements, ...]
    covariance: Array

    @property
    def terms(self) -> list[Measurements]:
        """All measurements with their final weights."""
        return [self.clicks, *self.surfaces]


def solve(
    capture: Capture,
    track: CameraTrack,
    clicks: Sequence[Click],
    options: AnchorOptions | None = None,
    masks: Callable[[int], Array] | None = None,
) -> Solution:
    """Solve a capture. `masks(i)` (H, W) bool; None takes the capture's own unless `options.use_masks` is off.

    Needs at least 6 clicks on 4 landmarks, or depth and masks. Errors: DataEngineError with what is missing.
    """
    inputs = gather(capture, track, clicks, options or AnchorOptions(), masks)
    solved, flags = solve_inputs(inputs)
    return finish(inputs, solved, flags)


def solve_inputs(inputs: Inputs) -> tuple[Solved, tuple[Flag, ...]]:
    """Choose how the joints are known, solve with clicks, then with surfaces."""
    modes = audit.joint_modes(inputs)
    flags: list[Flag] = []
    best: Solved | None = None
    best_overlap = 0.0
    for mode in modes:
        candidate = solve_mode(inputs, mode, mode != modes[-1])
        if candidate is None:
            continue
        if not inputs.clicks_suffice:  # only masks can tell
            covered = overlap(inputs, candidate)
            if best is None or covered > best_overlap + OVERLAP_GAIN:
                best, best_overlap = candidate, covered
            if best_overlap > GOOD_OVERLAP:
                break
            continue
        if best is None or audit.fits_better(candidate, best):
            best = candidate
        if mode != "per_frame" and not inputs.options.base_starts and (start := audit_base.bumped_at(inputs, candidate)) is not None:
            split = replace(inputs, options=replace(inputs.options, base_starts=(start,)))
            bumped = solve_mode(split, mode, others_follow=True)
            if bumped is not None and audit.fits(bumped) and audit_base.is_bump(candidate, bumped):
                return bumped, tuple(audit_base.bump_flags(bumped))
        if audit.fits(best):
            break
    if best is None:
        raise DataEngineError(
            f"{inputs.capture.name}: no pose of the robot agrees with the clicks; check the landmarks' names, or click one frame fully"
        )
    if not best.surfaces:
        best = with_surfaces(inputs, best.problem, best.state, best.clicks, inputs.clicks_suffice)
    flags += audit.joint_flags(inputs, modes[0], best)
    return best, tuple(flags)


def solve_mode(inputs: Inputs, mode: JointMode, others_follow: bool = False) -> Solved | None:
    """Solve with the joints known in one way; None where no start agrees with the data. A misfit is not refined if `others_follow`.

    Clicks start where there are enough. Few of them agree with poses that no mask does: then the surfaces start.
    """
    by_clicks = _solve_from(inputs, mode, True, others_follow) if inputs.clicks_suffice else None
    if not inputs.surfaces_suffice or (by_clicks is not None and (not by_clicks.surfaces or overlap(inputs, by_clicks) > GOOD_OVERLAP)):
        return by_clicks
    by_surfaces = _solve_from(inputs, mode, False, others_follow)
    both = [solved for solved in (by_clicks, by_surfaces) if solved is not None]
    return max(both, key=lambda solved: overlap(inputs, solved), default=None)


def _solve_from(inputs: Inputs, mode: JointMode, by_clicks: bool, others_follow: bool) -> Solved | None:
    """Solve from starts that clicks give, or that surfaces give."""
    slots = choose_slots(inputs)
    problem = make_problem(inputs, slots, mode)
    clicks = click_measurements(inputs, slots)
    if not by_clicks:
        state = next(iter(_surface_states(inputs, problem)), None)
        solved = None if state is None else with_surfaces(inputs, problem, state, clicks, False)
        return _redraw(inputs, solved) if solved is not None and mode == "per_frame" else solved
    best: tuple[float, State, Measurements] | None = None
    for start in _click_states(inputs, problem, 1 if others_follow or mode in ("known", "offset") else ROUNDS):
        state, weighed = solve_clicks(problem, start, clicks, [], 30.0)
        if mode == "per_frame":
            state, weighed = _rescue(inputs, problem, state, weighed)
        cost = float(np.sum(np.minimum(click_chi2(problem, state, clicks), 20.0)))
        if best is None or cost < best[0]:
            best = (cost, state, weighed)
        if cost <= GOOD_CHI2 * len(clicks.slot):
            break
    if best is None:
        return None
    draft = Solved(problem, best[1], best[2], (), np.zeros((0, 0)))
    if others_follow and not audit.fits(draft):
        return replace(draft, covariance=covariance(problem, best[1], [best[2]]))  # another mode is tried: no surfaces yet
    return with_surfaces(inputs, problem, best[1], best[2], True)


def _click_states(inputs: Inputs, problem: Problem, rounds: int) -> Iterator[State]:
    """States to descend from, drawn anew every round: a search for unknown joints may find only twins of the true configuration."""
    rows = table(inputs, problem.slots)
    for turn in range(rounds):
        drawn = replace(problem, options=replace(problem.options, seed=problem.options.seed + turn))
        yield from anchor_start.starts(drawn, inputs.landmarks, rows, inputs.capture.K)


def _surface_states(inputs: Inputs, problem: Problem) -> list[State]:
    """The state that masked depth, or else masks alone, start from, in a list; empty where they do not agree with the log."""
    if inputs.silhouette is not None:
        return _silhouette_states(inputs, problem)
    return surface_starts(problem, surface_start_data(inputs, problem.slots), inputs.capture.K)


def _silhouette_states(inputs: Inputs, problem: Problem) -> list[State]:
    found = inputs.silhouette
    assert found is not None and problem.log is not None
    T_world_base = problem.slots.T_sfm_cam[0] @ found.T_cam_base
    q = joints_at(problem.log, problem.slots.times_s)[0][found.pairing]
    joints = {"per_frame": q, "constant": q.mean(axis=0)[None]}.get(problem.layout.mode, np.zeros((1, inputs.model.dof)))
    S = int(problem.slots.segment.max(initial=0)) + 1
    return [State(1.0, np.tile(T_world_base, (S, 1, 1)), joints, inputs.capture.K.copy(), problem.slots.T_sfm_cam.copy())]


def overlap(inputs: Inputs, solved: Solved) -> float:
    """Mean intersection over union of the posed robot with the given masks over the slots; 1 where there are no masks."""
    masks = slot_images(inputs, solved.problem.slots)
    poses = link_poses_in_camera(solved.problem, solved.state)
    each = [_overlap(inputs, poses[slot], image.mask) for slot, image in enumerate(masks) if image.mask is not None]
    return float(np.mean(each)) if each else 1.0


def _overlap(inputs: Inputs, poses: Array, mask: Array) -> float:
    drawn = view_robot(robot_shape(inputs.model), poses, inputs.capture.K, inputs.capture.size, 4).mask
    given = mask[::4, ::4]
    return float((drawn & given).sum() / max((drawn | given).sum(), 1))


def _redraw(inputs: Inputs, solved: Solved) -> Solved:
    """Slots that other configurations cover better start again from the best: of those of other slots where the robot hardly covers its
    mask, and of its own with one joint turned (a hand turned about its axis changes little of the outline: a descent stops half way)."""
    problem, state = solved.problem, solved.state
    T_cam_base = se3.inverse(metric_cameras(state)) @ state.T_world_base[problem.slots.segment]
    joints = state.joints.copy()
    for slot, image in enumerate(slot_images(inputs, problem.slots)):
        if image.mask is None:
            continue

        def covered(q: Array, slot: int = slot, mask: Array = image.mask) -> Array:
            return np.array([_overlap(inputs, T_cam_base[slot] @ one, mask) for one in forward_kinematics(inputs.model, q)])

        own = covered(joints[slot][None])[0]
        trials = _turned(inputs.model, joints[slot]) if own >= POOR_OVERLAP else state.joints
        share = covered(trials)
        if share.max() > own:
            joints[slot] = trials[np.argmax(share)]
    if np.array_equal(joints, state.joints):
        return solved
    again = with_surfaces(inputs, problem, replace(state, joints=joints), solved.clicks, False)
    return again if overlap(inputs, again) > overlap(inputs, solved) else solved


def _turned(model: RobotModel, q: Array) -> Array:
    """Configurations (n, D) that differ from q (D,) in one joint by TURNS_RAD, clipped to its limits; rad, m for a sliding joint."""
    turns = np.concatenate([angle * np.eye(model.dof) for angle in TURNS_RAD])
    return np.clip(q + turns, model.q_lower, model.q_upper)


def _rescue(inputs: Inputs, problem: Problem, state: State, clicks: Measurements) -> tuple[State, Measurements]:
    """Slots most of whose clicks disagree, or that leap from all their neighbours, have fallen into a twin configuration (an arm's shoulder
    can be turned by half a turn with hardly a landmark moving): search them again from their neighbours."""
    F = len(problem.slots.frame)
    count = np.bincount(clicks.slot, minlength=F)
    good = np.bincount(clicks.slot, clicks.weight > 0, minlength=F) >= 0.6 * np.maximum(count, 1)
    order = np.argsort(problem.slots.times_s)
    near = np.stack([np.median(state.joints[order[max(0, k - 2) : k + 3]], axis=0) for k in range(F)])
    good[order] &= np.abs(state.joints[order] - near).max(axis=1) < LEAP_RAD
    if good.all() or not good.any():
        return state, clicks
    order = np.flatnonzero(good)
    times = problem.slots.times_s
    joints = state.joints.copy()
    joints[~good] = interpolate(times[order], state.joints[order], times[~good])
    rng = np.random.default_rng(inputs.options.seed)
    guess = replace(state, joints=joints)
    rows = table(inputs, problem.slots)
    guess = anchor_start.follow(problem, inputs.landmarks, rows, state.K, guess, rng, np.flatnonzero(~good))
    return solve_clicks(problem, guess, clicks, [], 15.0)


def with_surfaces(inputs: Inputs, problem: Problem, state: State, clicks: Measurements, by_clicks: bool) -> Solved:
    """Add depth and outlines where there are any; settle the weights; take the covariance. `by_clicks`: the state is from them."""
    surfaces: list[Measurements] = []
    if inputs.has_surface:
        problem, state, clicks, surfaces = _surface_passes(inputs, problem, state, clicks, by_clicks)
    clicks = _settle_clicks(problem, state, clicks)
    state, _ = minimise(problem, state, [clicks, *surfaces], 10)
    return Solved(problem, state, clicks, tuple(surfaces), covariance(problem, state, [clicks, *surfaces]))


def _surface_passes(
    inputs: Inputs, problem: Problem, state: State, clicks: Measurements, by_clicks: bool
) -> tuple[Problem, State, Measurements, list[Measurements]]:
    shape: RobotShape = robot_shape(inputs.model)
    images = slot_images(inputs, problem.slots)
    rng = np.random.default_rng(inputs.options.seed)
    surfaces: list[Measurements] = []
    for gate_m, gate_px in GATES:
        surfaces = associate(problem, state, images, shape, gate_m, gate_px, rng)
        if len(clicks.slot) and not by_clicks:  # the start knew nothing of them
            surfaces = [reweigh(problem, state, m) for m in surfaces]
            state, clicks = solve_clicks(problem, state, clicks, surfaces, gate_px / inputs.options.click_sigma_px)
        for _ in range(2):
            surfaces = [reweigh(problem, state, m) for m in surfaces]
            if len(clicks.slot):
                clicks = replace(clicks, weight=click_inliers(problem, state, clicks).astype(float))
            state, _ = minimise(problem, state, [clicks, *surfaces], 6)
    return problem, state, clicks, surfaces


def _settle_clicks(problem: Problem, state: State, clicks: Measurements) -> Measurements:
    """Inliers with the weight that their own scatter deserves, pulled towards the prior as if twenty clicks had shown that."""
    if not len(clicks.slot):
        return clicks
    inlier = click_inliers(problem, state, clicks)
    chi2 = click_chi2(problem, state, clicks)[inlier]
    freedom = max(2 * len(chi2) - min(problem.layout.size, len(chi2)), 1)
    scatter = (float(chi2.sum()) + 40.0) / (freedom + 40.0)
    return replace(clicks, weight=inlier / scatter)


def finish(inputs: Inputs, solved: Solved, flags: tuple[Flag, ...]) -> Solution:
    """Carry the solution to all frames, judge them, and put everything into one record."""
    capture, problem, state = inputs.capture, solved.problem, solved.state
    keypoints = output_keypoints(inputs.model)
    track: FullTrack = full_track(problem, state, solved.covariance, inputs.track, capture.times_s.astype(float), keypoints)
    scales, scale_flags = scale_report(inputs, solved)
    flags = (*flags, *scale_flags, *audit.solution_flags(inputs, solved), *audit_intrinsics.focal_flags(solved))
    if inputs.options.use_depth:
        flags = (*flags, *audit_scene.moved_object(capture, track.T_world_cam, lambda frame: robot_mask(inputs, track, frame)))
    accepted, reasons = audit.judge_frames(inputs, solved, track, flags)
    base = problem.layout.base[0]
    return Solution(
        metres_per_unit=state.metres_per_unit,
        T_world_cam=track.T_world_cam,
        T_world_base=track.T_world_base,
        joints_rad=track.joints_rad,
        joint_names=inputs.model.actuated,
        camera_covariance=track.camera_covariance,
        base_covariance=solved.covariance[np.ix_(base, base)],
        joint_covariance=track.joint_covariance,
        keypoint_names=keypoints.names,
        keypoints_cam_m=track.keypoints_cam_m,
        keypoint_covariance=track.keypoint_covariance,
        time_offset_s=state.time_offset_s,
        depth_scale=state.depth_gain,
        scales=scales,
        click_residual_px=_of_all_clicks(inputs, click_residuals(solved), np.nan),
        click_inlier=_of_all_clicks(inputs, solved.clicks.weight > 0, False),
        accepted=accepted,
        reasons=reasons,
        flags=flags,
    )


def robot_mask(inputs: Inputs, track: FullTrack, frame: int) -> Array:
    """The robot's silhouette in a frame as solved, (H, W) bool."""
    T_cam_base = se3.inverse(track.T_world_cam[frame]) @ track.T_world_base[frame]
    poses = T_cam_base @ forward_kinematics(inputs.model, track.joints_rad[frame])
    view = view_robot(robot_shape(inputs.model), poses, inputs.capture.K, inputs.capture.size, 2)
    width, height = inputs.capture.size
    return np.repeat(np.repeat(view.mask, 2, axis=0), 2, axis=1)[:height, :width]


def _of_all_clicks(inputs: Inputs, values: Array, missing: float) -> Array:
    """Values of the used clicks, in the order of all clicks given; `missing` for those in frames without a camera pose."""
    out = np.full((len(inputs.given), *values.shape[1:]), missing, values.dtype)
    used = [row for row, click in enumerate(inputs.given) if 0 <= click.frame < len(inputs.track.posed) and inputs.track.posed[click.frame]]
    out[used] = values
    return out


def click_residuals(solved: Solved) -> Array:
    """Pixels, (C, 2): where the landmark is believed to be minus where it was clicked."""
    if not len(solved.clicks.slot):
        return np.zeros((0, 2))
    r = residual_values(solved.problem, solved.state, link_poses_in_camera(solved.problem, solved.state), solved.clicks)
    return r * solved.clicks.sigma[:, None]


def scale_report(inputs: Inputs, solved: Solved) -> tuple[tuple[ScaleEstimate, ...], tuple[Flag, ...]]:
    """All sources side by side, `links` from clicks alone included, and the flags of those that disagree."""
    if inputs.static or solved.problem.layout.scale < 0:
        return (), ()
    sources = list(inputs.scales)
    if np.unique(solved.clicks.slot[solved.clicks.weight > 0]).size >= 3:
        alone = replace(solved.problem, scale_sources=())
        state, _ = minimise(alone, solved.state, [solved.clicks], 15)
        column = alone.layout.scale
        sigma = float(np.sqrt(covariance(alone, state, [solved.clicks])[column, column]))
        sources.append(ScaleEstimate("links", state.metres_per_unit, state.metres_per_unit * sigma))
    _, flags = anchor_scale.fuse(sources) if len(sources) > 1 else (None, ())
    return tuple(sources), flags
