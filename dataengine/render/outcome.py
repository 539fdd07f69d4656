"""What became of one attempt at a unit of work."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "error", "timeout", "memory", "crash", "killed"]


@dataclass(frozen=True)
class Outcome:
    """`status`: ok; error = the handler raised; timeout, memory = a limit; crash = it died of itself (segmentation fault,
    abort, exit); killed = somebody else's SIGKILL hit the attempt or its worker, which says nothing about the unit."""

    status: Status
    result: dict[str, Any] | None = None
    message: str = ""
    error_type: str = ""
    """Name of the exception's class when status is `error`."""
    expected: bool = True
    """False when a defect of ours is behind it; `message` then ends with the traceback."""
    log_tail: str = ""
    """Last 4 kB that the attempt wrote to its terminal."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_rss_mb: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def reason(self) -> str:
        """One line for people."""
        lines = self.message.strip().splitlines()
        last = lines[-1] if lines else "no message"
        return f"{self.error_type}: {last}" if self.error_type and self.expected else last if self.message else self.status
