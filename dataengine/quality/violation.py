"""One failed check."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """`frame` is None for a check over the whole clip."""

    check: str
    frame: int | None
    message: str

    def __str__(self) -> str:
        where = "clip" if self.frame is None else f"frame {self.frame}"
        return f"{where}: {self.check}: {self.message}"
