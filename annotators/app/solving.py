"""The anchor solve as the app's two questions: where is the robot, and which click would help most. One solve answers both."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from annotators.anchor import Inputs, Solved, finish, gather, solve_inputs
from annotators.anchor_state import AnchorOptions
from annotators.app.live import Clicks, Solve, Suggest
from annotators.next_click import NextClick, next_best_click
from annotators.types import CameraTrack, Capture, Solution

Array = np.ndarray


def anchor_questions(
    capture: Capture, track: CameraTrack, options: AnchorOptions | None = None, masks: Callable[[int], Array] | None = None
) -> tuple[Solve, Suggest]:
    """`solve` and `suggest` for `run_app`. Both raise DataEngineError; `suggest` reuses the solve of the same clicks."""
    chosen = options or AnchorOptions()
    lock = threading.Lock()
    latest: dict[Clicks, tuple[Inputs, Solved]] = {}

    def solve(clicks: Clicks) -> Solution:
        inputs = gather(capture, track, clicks, chosen, masks)
        solved, flags = solve_inputs(inputs)
        with lock:
            latest.clear()
            latest[clicks] = inputs, solved
        return finish(inputs, solved, flags)

    def suggest(clicks: Clicks) -> NextClick | None:
        with lock:
            known = latest.get(clicks)
        if known is None:
            inputs = gather(capture, track, clicks, chosen, masks)
            known = inputs, solve_inputs(inputs)[0]
        return next_best_click(*known)

    return solve, suggest
