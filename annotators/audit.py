"""What is wrong with a capture: which joint model fits, what was bumped, late, swapped or mis-scaled, and which frames to accept.

Every test compares a measured effect with its own standard deviation and with the smallest effect that matters, so that a clean capture
is flagged neither for noise nor for a significant trifle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from annotators.anchor_optimise import click_chi2, click_scatter
from annotators.anchor_state import JointMode
from annotators.types import Array, Flag

if TYPE_CHECKING:
    from annotators.anchor import Inputs, Solved
    from annotators.anchor_posterior import FullTrack

SIGNIFICANT = 4.0
LEAST_JUDGED = 6
"""Clicks that a frame must have to be judged by them."""
WRONG_CHI2 = 30.0
"""A click beyond this is an error and not the tail of an honest hand: once in three million."""
TIME_OFFSET_S, DEPTH_GAIN = 0.008, 0.004
KEYPOINT_LIMIT_M = 0.01
"""A frame whose keypoints are less certain than this (median) is no ground truth."""


def joint_modes(inputs: Inputs) -> tuple[JointMode, ...]:
    """Joint models to try, simplest first."""
    if inputs.options.joints != "auto":
        return (inputs.options.joints,)
    if inputs.capture.joints is not None:
        return ("known", "offset", "per_frame")
    return ("constant", "per_frame")


def misfit(solved: Solved) -> tuple[float, float]:
    """(share of clicks that disagree, scatter of all clicks in prior standard deviations, from their median)."""
    if not len(solved.clicks.slot):
        return 0.0, 0.0
    chi2 = click_chi2(solved.problem, solved.state, solved.clicks)
    return float(np.mean(solved.clicks.weight == 0)), float(np.sqrt(np.median(chi2) / 1.386))


def fits(solved: Solved) -> bool:
    """Few clicks disagree and the others scatter as a person's do."""
    outliers, scatter = misfit(solved)
    return outliers < 0.15 and scatter < 2.0


def fits_better(new: Solved, old: Solved) -> bool:
    """The new model explains clearly more: more parameters must earn their keep."""
    a, b = misfit(new), misfit(old)
    return a[1] * (1 + 2 * a[0]) < 0.7 * b[1] * (1 + 2 * b[0])


def joint_flags(inputs: Inputs, wanted: JointMode, solved: Solved) -> list[Flag]:
    """The log had to be given up, in part or wholly."""
    mode = solved.problem.layout.mode
    if mode == wanted or inputs.capture.joints is None:
        return []
    frames = tuple(int(frame) for frame in solved.problem.slots.frame)
    if mode == "offset":
        worst = float(np.degrees(np.abs(solved.state.joints).max()))
        return [Flag("joint_offset", f"the joint log is off by up to {worst:.1f}°, the same in all frames; corrected", frames)]
    return [Flag("joint_pairing", "the joint log does not belong to the pictures; joints re-estimated frame by frame", frames)]


def solution_flags(inputs: Inputs, solved: Solved) -> tuple[Flag, ...]:
    """What was doubtful about the cameras, time offset, depth scale, wrong clicks."""
    layout, state, cov = solved.problem.layout, solved.state, solved.covariance
    flags = list(inputs.track.flags)
    if layout.time >= 0:
        sigma = float(np.sqrt(cov[layout.time, layout.time]))
        if abs(state.time_offset_s) > max(TIME_OFFSET_S, SIGNIFICANT * sigma):
            late = f"pictures are {1e3 * state.time_offset_s:+.0f} ms against the joint log (± {1e3 * sigma:.0f} ms); corrected"
            flags.append(Flag("time_offset", late))
    if layout.depth[0] >= 0:
        column = int(layout.depth[0])
        sigma = float(np.sqrt(cov[column, column]))
        if abs(state.depth_gain - 1) > max(DEPTH_GAIN, SIGNIFICANT * sigma):
            flags.append(
                Flag("depth_scale", f"measured depth is {100 * (state.depth_gain - 1):+.2f} % of true depth (± {100 * sigma:.2f} %)")
            )
    chi2 = click_chi2(solved.problem, solved.state, solved.clicks)
    wrong = np.flatnonzero(chi2 > WRONG_CHI2 * click_scatter(chi2)) if len(chi2) else np.zeros(0, int)
    if len(wrong):
        frames = tuple(sorted({inputs.clicks[i].frame for i in wrong}))
        names = ", ".join(f"{inputs.clicks[i].landmark} in frame {inputs.clicks[i].frame}" for i in wrong[:6])
        flags.append(Flag("wrong_click", f"{len(wrong)} clicks disagree with all others: {names}{' …' if len(wrong) > 6 else ''}", frames))
    return tuple(flags)


def contradicted_frames(inputs: Inputs, solved: Solved) -> set[int]:
    """Frames whose own clicks mostly disagree with the solution, and, with one configuration a frame, those interpolated from them."""
    slots, clicks = solved.problem.slots, solved.clicks
    count = np.bincount(clicks.slot, minlength=len(slots.frame))
    agree = np.bincount(clicks.slot, clicks.weight > 0, minlength=len(slots.frame))
    bad = set(slots.frame[(count >= LEAST_JUDGED) & (agree < 0.5 * count)].tolist())
    if solved.problem.layout.mode != "per_frame":
        return bad
    known = np.sort(slots.frame)
    after = np.clip(np.searchsorted(known, np.arange(len(inputs.capture.frames))), 0, len(known) - 1)
    before = np.clip(np.searchsorted(known, np.arange(len(inputs.capture.frames)), side="right") - 1, 0, len(known) - 1)
    return {frame for frame, (a, b) in enumerate(zip(known[before], known[after], strict=True)) if a in bad or b in bad}


def judge_frames(inputs: Inputs, solved: Solved, track: FullTrack, flags: tuple[Flag, ...]) -> tuple[Array, tuple[str, ...]]:
    """Accept or reject every frame, with the reason."""
    trace = np.trace(np.nan_to_num(track.keypoint_covariance, nan=np.inf), axis1=2, axis2=3)
    sd = np.sqrt(np.median(trace / 3, axis=1))
    between = {frame for flag in flags if flag.kind == "base_moved" for frame in flag.frames}
    torn = contradicted_frames(inputs, solved)
    reasons = []
    for frame in range(len(inputs.capture.frames)):
        if not inputs.track.posed[frame]:
            reasons.append("no camera pose")
        elif frame in between:
            reasons.append("the base moved just before or after this frame")
        elif frame in torn:
            reasons.append("most clicks here, or in the clicked frame next to it, disagree with the pose")
        elif not sd[frame] < KEYPOINT_LIMIT_M:
            reasons.append(f"keypoints uncertain: {1e3 * sd[frame]:.0f} mm, allowed {1e3 * KEYPOINT_LIMIT_M:.0f} mm")
        else:
            reasons.append("")
    return np.array([not reason for reason in reasons]), tuple(reasons)
