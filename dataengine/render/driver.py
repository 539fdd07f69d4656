"""The driver's loop: hand idle workers the next unit, book what comes back, until every unit is done or given up.

Generic over what a unit does: workers commit their results themselves and return small receipts, so whatever dies,
the dataset is right and running the same command again does what is missing.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from dataengine.config.spec import LimitSpec
from dataengine.errors import DataEngineError, Interrupted, RenderError, SceneError
from dataengine.render.executor import ClusterGone, Executor, Limits, Report
from dataengine.render.lease import FATAL, Ledger
from dataengine.render.outcome import Outcome
from dataengine.render.progress import Progress
from dataengine.render.zygote import revive

POLL_S = 0.25
START_ALLOWANCE_S = 300.0
"""A lease lasts this much longer than `limits.wall_s`: a worker may have to start its zygote again first."""
HOPELESS_AFTER = 8
"""So many videos given up, and none done, end the run: the spec is at fault rather than single scenes."""

Receipt = dict[str, Any]


@dataclass(frozen=True)
class GivenUp:
    """A unit that is quarantined, with the reason of every attempt and the last one's terminal output."""

    unit: int
    reasons: tuple[str, ...]
    log_tail: str = ""

    @property
    def reason(self) -> str:
        return self.reasons[-1]


@dataclass(frozen=True)
class Cost:
    """Of the attempt that succeeded: seconds from handing the unit out to its receipt, CPU seconds, peak memory."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float


@dataclass
class Result:
    """What a run did, by unit. `startup_s` passed before the first worker asked for a unit."""

    receipts: dict[int, Receipt] = field(default_factory=dict)
    quarantined: dict[int, GivenUp] = field(default_factory=dict)
    costs: dict[int, Cost] = field(default_factory=dict)
    startup_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True)
class Callbacks:
    """What the caller does with news. `request` makes the worker's request of a unit; all run in the driver's thread."""

    request: Callable[[int], dict[str, Any]] = field(default=lambda unit: {"video": unit})
    done: Callable[[int, Receipt], None] = field(default=lambda _unit, _receipt: None)
    quarantined: Callable[[GivenUp], None] = field(default=lambda _given_up: None)


def run_units(
    units: Sequence[int], executor: Executor, limits: LimitSpec, progress: Progress, callbacks: Callbacks | None = None,
    safe_before: int = 0,
) -> Result:  # fmt: skip
    """Do all `units` on the executor's workers.

    Parameters
    ----------
    units
        what is missing, in the order to do it
    safe_before
        units of the same job that an earlier run has done; for messages and progress only

    Raises
    ------
    Interrupted
        after Ctrl-C or SIGTERM; all workers are gone and everything done stays
    DataEngineError
        of the whole run: a worker cannot be set up, the disk is full, the cluster went away, no scene can be sampled
    """
    run = _Run(units, executor, limits, progress, callbacks or Callbacks(), safe_before)
    started_s = time.monotonic()
    with stop_signals() as stop, progress:
        try:
            if units:
                executor.start()
                stop.arm()  # Ray installs handlers of its own
                run.loop(stop, started_s)
        except ClusterGone as error:
            message = f"{error}; {run.safe}; start it again and run the same command"
            progress.finish("failed", message)
            raise RenderError(message) from error
        except KeyboardInterrupt:
            progress.finish("stopped")
            raise run.interrupted() from None
        except Interrupted:
            progress.finish("stopped")
            raise
        except DataEngineError as error:
            progress.finish("failed", str(error))
            raise
        finally:
            executor.close()
        progress.finish("finished")
    run.result.wall_s = time.monotonic() - started_s
    return run.result


class _Run:
    """State of one call of `run_units`."""

    def __init__(
        self, units: Sequence[int], executor: Executor, limits: LimitSpec, progress: Progress, callbacks: Callbacks, safe_before: int
    ) -> None:
        self.executor, self.progress, self.callbacks = executor, progress, callbacks
        self.limits = Limits(limits.wall_s, limits.memory_mb)
        self.ledger = Ledger(units, limits.tries, limits.wall_s + START_ALLOWANCE_S)
        self.result = Result()
        self.safe_before = safe_before
        self._held: list[GivenUp] = []
        self._given_s: dict[int, float] = {}

    @property
    def safe(self) -> str:
        return f"{self.safe_before + len(self.ledger.done)} of {self.safe_before + self.ledger.total} videos are safe"

    def interrupted(self) -> Interrupted:
        return Interrupted(f"stopped: {self.safe}; run the same command to go on")

    def loop(self, stop: "StopFlag", started_s: float) -> None:
        while not self.ledger.finished:
            if stop.is_set:
                raise self.interrupted()
            self._lend()
            if not self.result.startup_s and self._given_s:
                self.result.startup_s = time.monotonic() - started_s
            self.progress.workers(self.executor.workers, self.executor.idle())
            for report in self.executor.wait(POLL_S):
                self._book(report)
            for lease in self.ledger.expire(time.monotonic()):
                self.progress.failed(lease.unit, lease.worker, "no word from the worker", self.ledger.quarantined.get(lease.unit))
                self._quarantine_if_given_up(lease.unit, Outcome("timeout"))

    def _lend(self) -> None:
        for worker in self.executor.idle():
            lease = self.ledger.lend(worker, time.monotonic())
            if lease is None:
                return
            self._given_s[lease.number] = time.monotonic()
            self.executor.give(lease, self.callbacks.request(lease.unit), self.limits)
            self.progress.started(lease.unit, worker)

    def _book(self, report: Report) -> None:
        lease, outcome = report.lease, report.outcome
        if outcome.status == "ok":
            if self.ledger.succeed(lease):
                receipt = outcome.result or {}
                self.result.receipts[lease.unit] = receipt
                self.result.quarantined.pop(lease.unit, None)
                wall_s = time.monotonic() - self._given_s[lease.number]
                self.result.costs[lease.unit] = Cost(wall_s, outcome.cpu_s, outcome.peak_rss_mb)
                self.callbacks.done(lease.unit, receipt)
                self.progress.done(lease.unit, lease.worker, receipt, outcome)
                self._publish_held()
            return
        if outcome.error_type in FATAL:
            raise revive(outcome.to_json())
        given_up = self.ledger.fail(lease, outcome)
        self.progress.failed(lease.unit, lease.worker, outcome.reason, self.ledger.quarantined.get(lease.unit), outcome.log_tail)
        if given_up:
            self._quarantine_if_given_up(lease.unit, outcome)

    def _quarantine_if_given_up(self, unit: int, last: Outcome) -> None:
        reasons = self.ledger.quarantined.get(unit)
        if reasons is None:
            return
        given_up = GivenUp(unit, reasons, last.log_tail if last.expected else f"{last.message}\n{last.log_tail}")
        self.result.quarantined[unit] = given_up
        self._held.append(given_up)
        if self._hopeless():
            self._end_as_hopeless(last)
        self._publish_held()

    def _publish_held(self) -> None:
        """Put units into quarantine for good, but not before something has worked: until then the spec or the machine
        may be at fault, and a run that ends for that reason should leave no marks."""
        if self.ledger.done or self.safe_before:
            for given_up in self._held:
                if given_up.unit in self.result.quarantined:
                    self.callbacks.quarantined(given_up)
            self._held.clear()

    def _hopeless(self) -> bool:
        """Nothing has ever worked and enough was tried."""
        tried = len(self.ledger.quarantined)
        return not self.ledger.done and not self.safe_before and tried >= min(HOPELESS_AFTER, self.ledger.total)

    def _end_as_hopeless(self, last: Outcome) -> None:
        if not last.expected:
            raise revive(last.to_json())
        kind = SceneError if last.error_type == "SceneError" else RenderError
        count = len(self.ledger.quarantined)
        tried = "the only video" if self.ledger.total == 1 else f"all of the first {count} videos"
        raise kind(f"{tried} failed and none was rendered; the last one's reason: {last.reason.removeprefix('SceneError: ')}")


class StopFlag:
    """Set by the first SIGINT or SIGTERM; the second interrupts whatever the driver is doing."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def arm(self) -> None:
        """Install the handlers (again). Only the main thread may; elsewhere the host program decides."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before.setdefault(number, signal.getsignal(number))
                signal.signal(number, self._on_signal)

    def disarm(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn Ctrl-C and SIGTERM into a flag inside the block."""
    flag = StopFlag()
    flag.arm()
    try:
        yield flag
    finally:
        flag.disarm()
