"""Workers of this very process, without Ray: one thread per zygote. The threads only wait, so they do not share a core."""

import os
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dataengine.render.cores import claim_core
from dataengine.render.executor import Limits, Report
from dataengine.render.lease import Lease
from dataengine.render.zygote import Recipe, Zygote

_Task = tuple[Lease, dict[str, Any], Limits]


@dataclass
class _Worker:
    name: str
    zygote: Zygote
    tasks: "queue.SimpleQueue[_Task | None]" = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread | None = None


class SerialExecutor:
    """`workers` zygotes of this process, each pinned to a core of its own. Implements `Executor`."""

    def __init__(self, recipe: Recipe, workers: int = 1) -> None:
        self._recipe = recipe
        self._events: queue.SimpleQueue[str | Report | Exception] = queue.SimpleQueue()
        self._workers = {name: _Worker(name, Zygote(recipe)) for name in (f"{os.uname().nodename}/{i}" for i in range(workers))}
        self._idle: list[str] = []
        self._closing = False

    @property
    def workers(self) -> Sequence[str]:
        return tuple(self._workers)

    def start(self) -> None:
        for worker in self._workers.values():
            worker.thread = threading.Thread(target=self._live, args=(worker,), name=worker.name, daemon=True)
            worker.thread.start()

    def idle(self) -> Sequence[str]:
        return tuple(self._idle)

    def give(self, lease: Lease, request: dict[str, Any], limits: Limits) -> None:
        self._idle.remove(lease.worker)
        self._workers[lease.worker].tasks.put((lease, request, limits))

    def wait(self, timeout_s: float) -> list[Report]:
        reports: list[Report] = []
        try:
            event = self._events.get(timeout=timeout_s)
            while True:
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Report):
                    reports.append(event)
                    self._idle.append(event.lease.worker)
                else:
                    self._idle.append(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return reports

    def close(self) -> None:
        self._closing = True
        for worker in self._workers.values():
            worker.zygote.abort()
            worker.tasks.put(None)
        for worker in self._workers.values():
            if worker.thread is not None:
                worker.thread.join()

    def _live(self, worker: _Worker) -> None:
        """The thread of one worker: start up, then one task after the other."""
        claim = claim_core()
        worker.zygote.core = claim.core
        try:
            worker.zygote.start()
            self._events.put(worker.name)
            while (task := worker.tasks.get()) is not None:
                lease, request, limits = task
                self._events.put(Report(lease, worker.zygote.run(request, limits.wall_s, limits.memory_mb)))
        except Exception as error:
            if not self._closing:
                self._events.put(error)
        finally:
            worker.zygote.close()
            claim.release()
