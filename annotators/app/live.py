"""Solving beside the clicking: one thread, always on the newest clicks, answers of older ones never replace newer ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from annotators.types import Click, Solution
from dataengine.errors import DataEngineError

Clicks = tuple[Click, ...]
Solve = Callable[[Clicks], Solution]


class Suggestion(Protocol):
    """The next click that helps most (see `annotators.next_click.NextClick`), standard deviations of the keypoints in m."""

    @property
    def frame(self) -> int: ...
    @property
    def landmark(self) -> str: ...
    @property
    def expected_sd_m(self) -> float: ...
    @property
    def present_sd_m(self) -> float: ...


Suggest = Callable[[Clicks], Suggestion | None]


@dataclass(frozen=True)
class Answer:
    """What the solver said of `clicks`; `trouble` is one line when it could not solve."""

    clicks: Clicks
    solution: Solution | None = None
    suggestion: Suggestion | None = None
    trouble: str = ""


class LiveSolver:
    """Runs ``solve`` and ``suggest`` in a thread. ``tell`` gets every answer, the solution first, then with the suggestion."""

    def __init__(self, solve: Solve, suggest: Suggest, tell: Callable[[Answer], None], fewest: int) -> None:
        self._solve, self._suggest, self._tell, self._fewest = solve, suggest, tell, fewest
        self._wanted: Clicks | None = None
        self._ended = False
        self._change = threading.Condition()
        self.busy = False
        self._thread = threading.Thread(target=self._run, name="solver", daemon=True)
        self._thread.start()

    def ask(self, clicks: Clicks) -> None:
        """Solve these clicks as soon as the running solve is over; a waiting older question is forgotten."""
        with self._change:
            self._wanted = clicks
            self._change.notify()

    def stop(self) -> None:
        """No further answers. A running solve is left to end by itself."""
        with self._change:
            self._ended = True
            self._change.notify()

    def _run(self) -> None:
        while (clicks := self._next()) is not None:
            answer = self._answer(clicks)
            self._say(answer)
            if answer.solution is not None and not self._stale():
                self._say(self._with_suggestion(answer))
            self.busy = False

    def _next(self) -> Clicks | None:
        with self._change:
            self._change.wait_for(lambda: self._ended or self._wanted is not None)
            clicks, self._wanted = self._wanted, None
            self.busy = not self._ended
            return None if self._ended else clicks

    def _stale(self) -> bool:
        with self._change:
            return self._ended or self._wanted is not None

    def _say(self, answer: Answer) -> None:
        if not self._stale():
            self._tell(answer)

    def _answer(self, clicks: Clicks) -> Answer:
        if len(clicks) < self._fewest:
            return Answer(clicks, trouble=f"{self._fewest - len(clicks)} more clicks until the first solve")
        try:
            return Answer(clicks, self._solve(clicks))
        except DataEngineError as error:
            return Answer(clicks, trouble=str(error))
        except Exception:  # a defect of ours must not end the annotator's session: it goes to the terminal, clicking goes on
            logging.getLogger(__name__).exception("the solver failed on %d clicks", len(clicks))
            return Answer(clicks, trouble="the solver failed (see the terminal); your clicks are kept")

    def _with_suggestion(self, answer: Answer) -> Answer:
        try:
            return Answer(answer.clicks, answer.solution, self._suggest(answer.clicks))
        except DataEngineError as error:
            return Answer(answer.clicks, answer.solution, trouble=str(error))
