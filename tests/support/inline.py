"""Workers without processes or Blender: each request is done where it is given, with the ray caster as the renderer."""

from collections.abc import Callable, Sequence
from typing import Any

from dataengine.config.spec import DatasetSpec
from dataengine.render.executor import Limits, Report
from dataengine.render.job import Robot
from dataengine.render.lease import Lease
from dataengine.render.outcome import Outcome
from dataengine.render.zygote_child import failure
from dataengine.worker import make_handler, provenance
from tests.support.ray_renderer import ray_renderer


class InlineExecutor:
    """Implements `Executor`. `before` is called with the number of each video before it is rendered, and may raise."""

    workers: Sequence[str] = ("inline",)

    def __init__(self, spec: DatasetSpec, robot: Robot, before: Callable[[int], None] = lambda video: None) -> None:
        self._handle = make_handler(spec, robot, ray_renderer(robot.meshes), provenance(robot, bitwise_colour=True))
        self._before = before
        self._report: Report | None = None

    def start(self) -> None: ...

    def idle(self) -> Sequence[str]:
        return self.workers if self._report is None else ()

    def give(self, lease: Lease, request: dict[str, Any], limits: Limits) -> None:
        try:
            self._before(lease.unit)
            outcome = Outcome("ok", self._handle(request))
        except Exception as error:
            f = failure(error)
            outcome = Outcome("error", None, f["message"], f["error_type"], f["expected"])
        self._report = Report(lease, outcome)

    def wait(self, timeout_s: float) -> list[Report]:
        report, self._report = self._report, None
        return [report] if report else []

    def close(self) -> None: ...
