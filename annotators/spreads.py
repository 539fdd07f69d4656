"""How far a solution moves when a part of the clicks is left out: a test of the labels that needs no truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from annotators.robot_view import T_cam_base_of
from annotators.types import Click, Solution
from dataengine.errors import DataEngineError
from dataengine.geometry import se3

Array = np.ndarray
Solve = Callable[[tuple[Click, ...]], Solution]
Spread = dict[str, float]
"""`base_mm`, `base_deg`, `keypoints_mm`: medians over the frames of how far the base and the keypoints move in the camera's frame."""

FEWEST_FRAMES = 4
MOST_LEFT_OUT = 6


def odd_even(solve: Solve, clicks: tuple[Click, ...]) -> Spread:
    """Between solves from every other clicked frame; {} where fewer than FEWEST_FRAMES frames are clicked or a half does not suffice.

    Two halves of equal worth differ by about twice the standard deviation of the whole.
    """
    frames = sorted({c.frame for c in clicks})
    if len(frames) < FEWEST_FRAMES:
        return {}
    halves = [tuple(c for c in clicks if c.frame in frames[k::2]) for k in (0, 1)]
    try:
        first, second = (solve(half) for half in halves)
    except DataEngineError:
        return {}
    return moved(first, second)


def leave_one_out(solve: Solve, clicks: tuple[Click, ...], residual_px: Array, inlier: Array) -> Spread:
    """The largest change when one click is left out, of the MOST_LEFT_OUT believed clicks that fit worst: those pull most.

    {} where the clicks alone do not suffice for a solve.
    """
    believed = np.flatnonzero(inlier)
    worst = believed[np.argsort(-np.linalg.norm(residual_px[believed], axis=1))][:MOST_LEFT_OUT]
    try:
        whole = solve(clicks)
        found = [moved(whole, solve(clicks[:k] + clicks[k + 1 :])) for k in worst.tolist()]
    except DataEngineError:
        return {}
    return {name: max(f[name] for f in found) for name in found[0]} if found else {}


def moved(first: Solution, second: Solution) -> Spread:
    """How far two solutions of one capture are apart; nan where they share no frame."""
    with np.errstate(invalid="ignore"):
        apart = se3.inverse(_base_in_camera(first)) @ _base_in_camera(second)
        angle = np.degrees(np.arccos(np.clip((np.trace(apart[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
    distance_m = np.linalg.norm(apart[:, :3, 3], axis=1)
    points_m = np.linalg.norm(first.keypoints_cam_m - second.keypoints_cam_m, axis=-1)
    return {"base_mm": 1e3 * _median(distance_m), "base_deg": _median(angle), "keypoints_mm": 1e3 * _median(points_m)}


def _base_in_camera(solution: Solution) -> Array:
    return T_cam_base_of(solution.T_world_cam, solution.T_world_base)


def _median(values: Array | Sequence[float]) -> float:
    good = np.asarray(values)[np.isfinite(values)]
    return float(np.median(good)) if good.size else float("nan")
