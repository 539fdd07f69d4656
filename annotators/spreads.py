"""How far a solution moves when a part of the clicks is left out: a test of the labels that needs no truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from annotators.robot_view import T_cam_base_of
from annotators.types import Click, Solution
from dataengine.errors import DataEngineError
from dataengine.geometry import se3

Array = np.ndarray
FEWEST_FRAMES = 4


def odd_even(solve: Callable[[tuple[Click, ...]], Solution], clicks: tuple[Click, ...]) -> dict[str, Any]:
    """Between solves from every other clicked frame: medians over the frames of how far the base and the keypoints move.

    {} where fewer than FEWEST_FRAMES frames are clicked or a half does not suffice. Two halves of equal worth differ by about twice
    the standard deviation of the whole.
    """
    frames = sorted({c.frame for c in clicks})
    if len(frames) < FEWEST_FRAMES:
        return {}
    halves = [tuple(c for c in clicks if c.frame in frames[k::2]) for k in (0, 1)]
    try:
        first, second = (solve(half) for half in halves)
    except DataEngineError:
        return {}
    moved = se3.inverse(_base_in_camera(first)) @ _base_in_camera(second)
    angle = np.degrees(np.arccos(np.clip((np.trace(moved[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
    mm = 1e3 * np.linalg.norm(first.keypoints_cam_m - second.keypoints_cam_m, axis=-1)
    return {
        "base_mm": float(np.nanmedian(1e3 * np.linalg.norm(moved[:, :3, 3], axis=1))),
        "base_deg": float(np.nanmedian(angle)),
        "keypoints_mm": float(np.nanmedian(mm)),
    }


def _base_in_camera(solution: Solution) -> Array:
    return T_cam_base_of(solution.T_world_cam, solution.T_world_base)
