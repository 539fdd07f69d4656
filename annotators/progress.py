"""What the terminal shows while an annotation runs: one line per stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Step = Callable[..., None]
"""step(done, name=None): so much of the stage's total is done; optionally another name for the line."""


class Bars:
    """A bar per stage with the time it takes; nothing where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.stop()

    @contextmanager
    def task(self, name: str, total: float | None) -> Iterator[Step]:
        """A line for one stage; `total` None where nobody knows how long it takes."""
        task = self._progress.add_task(name, total=total)

        def step(done: float, shown: str | None = None) -> None:
            self._progress.update(task, completed=done, description=shown or name)

        yield step
        self._progress.update(task, completed=total or 1, total=total or 1, description=name)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No bars while something else uses the terminal."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()
