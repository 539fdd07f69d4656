"""What the driver needs of a set of workers, wherever they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dataengine.errors import RenderError
from dataengine.render.lease import Lease
from dataengine.render.outcome import Outcome


@dataclass(frozen=True)
class Report:
    """A worker's word on a lease."""

    lease: Lease
    outcome: Outcome


@dataclass(frozen=True)
class Limits:
    """Of one attempt: wall-clock seconds and resident memory in 1e6 bytes."""

    wall_s: float
    memory_mb: float


class ClusterGone(RenderError):
    """The machines behind the workers cannot be reached any more."""


class Executor(Protocol):
    """Workers that ask for work: the driver gives a unit only to one that is idle, and learns of results by `wait`."""

    @property
    def workers(self) -> Sequence[str]:
        """Names of all workers, also those that are still starting."""
        ...

    def start(self) -> None:
        """Begin to bring up workers; returns before they are ready."""
        ...

    def idle(self) -> Sequence[str]:
        """Workers that ask for a unit now."""
        ...

    def give(self, lease: Lease, request: dict[str, Any], limits: Limits) -> None:
        """Hand `request` to the idle worker `lease.worker`."""
        ...

    def wait(self, timeout_s: float) -> list[Report]:
        """Results since the last call; waits for the first at most so long. Also returns early when a worker becomes
        idle. Raises what stops the whole run: a worker that cannot be set up, ClusterGone."""
        ...

    def close(self) -> None:
        """Kill all workers, whatever they are doing."""
        ...
