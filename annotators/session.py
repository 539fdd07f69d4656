"""Clicking in the browser with the anchor solve beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from annotators.anchor import Inputs, Solved, finish, gather, solve_inputs
from annotators.anchor_inputs import MIN_CLICKS, surfaces_suffice
from annotators.anchor_state import AnchorOptions, clicks_alone
from annotators.landmarks import landmarks
from annotators.next_click import NextClick, next_best_click
from annotators.types import CameraTrack, Capture, Click, Solution
from dataengine.robot.catalogue import load_robot


class LiveAnchor:
    """The anchor solve for the app: what was solved last is kept, so that a suggestion for the same clicks costs no second solve."""

    def __init__(self, capture: Capture, track: CameraTrack, options: AnchorOptions) -> None:
        self._capture, self._track, self._options = capture, track, options
        self._last: tuple[tuple[Click, ...], Inputs, Solved] | None = None

    def solve(self, clicks: tuple[Click, ...]) -> Solution:
        """`anchor.solve`, and remember. DataEngineError as there."""
        inputs = gather(self._capture, self._track, clicks, self._options, None)
        solved, flags = solve_inputs(inputs)
        self._last = (clicks, inputs, solved)
        return finish(inputs, solved, flags)

    def suggest(self, clicks: tuple[Click, ...]) -> NextClick | None:
        """The click that would help most after these."""
        if self._last is None or self._last[0] != clicks:
            self.solve(clicks)
        assert self._last is not None
        _, inputs, solved = self._last
        return next_best_click(inputs, solved)


def click_in_browser(
    capture: Capture, track: CameraTrack, options: AnchorOptions, folder: Path, first: tuple[Click, ...], port: int
) -> None:
    """Open the app and return when it is closed; the clicks are then in `folder`/clicks.json. Errors: see `annotators.app.main.run_app`.

    Solves from clicks alone, which is quick; surfaces take part in the final solve. Where surfaces can do without clicks they take part
    at once, from the first picture on: a few clicks alone would pose the robot wrongly.
    """
    from annotators.app.main import run_app

    live, fewest = clicks_alone(options), MIN_CLICKS
    if surfaces_suffice(capture, track, options, options.use_masks and capture.mask is not None):
        live, fewest = replace(options, use_edges=False), 0
    anchor, points = LiveAnchor(capture, track, live), landmarks(load_robot(capture.robot))
    run_app(capture, points, anchor.solve, anchor.suggest, folder, port=port, fewest_clicks=fewest, first_clicks=first)
