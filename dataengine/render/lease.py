"""The coordinator's books: which unit of work is open, lent, done or given up. Pure; time is passed in.

Workers pull: a unit is lent when somebody asks, never before. A lease is about liveness only: it may run out while its
worker still computes, the unit then goes to another worker, and whichever finishes first counts. Correctness is the
dataset's business (a unit can be committed once).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from dataengine.render.outcome import Outcome

GIVE_UP_AT_ONCE = frozenset({"SceneError", "RecordError", "LabelError"})
"""Errors that a fresh attempt must repeat: the scene is a pure function of the spec, the seed and the video's number."""

FATAL = frozenset({"ConfigError", "RobotError", "AssetError", "SensorError", "StoreError"})
"""Errors of the whole run rather than of one unit."""

KILLS_PER_TRY = 10
"""A SIGKILL from outside says little about the unit, yet a unit that always exhausts the machine's memory dies that way."""


@dataclass(frozen=True)
class Lease:
    """Permission to work on `unit` until `deadline_s`; `number` is unique among all leases."""

    unit: int
    number: int
    worker: str
    deadline_s: float


@dataclass
class _Unit:
    failures: list[str] = field(default_factory=list)
    kills: int = 0


class Ledger:
    """Open → lent → done, back to open after a failure, quarantined after `tries` of them (at once where hopeless)."""

    def __init__(self, units: Iterable[int], tries: int, lease_s: float) -> None:
        self._open = deque(dict.fromkeys(units))
        self._units = {u: _Unit() for u in self._open}
        self._leases: dict[int, Lease] = {}
        self._tries, self._lease_s = tries, lease_s
        self._next_number = 0
        self.done: set[int] = set()
        self.quarantined: dict[int, tuple[str, ...]] = {}

    @property
    def total(self) -> int:
        return len(self._units)

    @property
    def leased(self) -> set[int]:
        return {lease.unit for lease in self._leases.values()}

    @property
    def open(self) -> tuple[int, ...]:
        return tuple(self._open)

    @property
    def finished(self) -> bool:
        return len(self.done) + len(self.quarantined) == self.total

    def lend(self, worker: str, now_s: float) -> Lease | None:
        """The next open unit, or None when there is none for now."""
        if not self._open:
            return None
        lease = Lease(self._open.popleft(), self._next_number, worker, now_s + self._lease_s)
        self._next_number += 1
        self._leases[lease.number] = lease
        return lease

    def succeed(self, lease: Lease) -> bool:
        """Book a result, also of a lease that ran out meanwhile; False when the unit was done before."""
        unit = lease.unit
        self._leases.pop(lease.number, None)
        if unit in self.done:
            return False
        self.quarantined.pop(unit, None)  # a straggler that made it beats having given up
        self._withdraw(unit)
        self.done.add(unit)
        return True

    def fail(self, lease: Lease, outcome: Outcome) -> bool:
        """Book a failed attempt; True when that was the unit's last one. Leases that ran out have been booked already."""
        if self._leases.pop(lease.number, None) is None or self._settled(lease.unit):
            return False
        state = self._units[lease.unit]
        hopeless = outcome.error_type in GIVE_UP_AT_ONCE
        if outcome.status == "killed":
            state.kills += 1
        else:
            state.failures.append(outcome.reason)
        if state.kills >= self._tries * KILLS_PER_TRY:
            state.failures.append(f"killed from outside {state.kills} times: {outcome.reason}")
            hopeless = True
        return self._again_or_quarantine(lease.unit, hopeless)

    def expire(self, now_s: float) -> list[Lease]:
        """Leases past their deadline: each counts as a failed attempt, and its unit is open again or given up."""
        late = [lease for lease in self._leases.values() if lease.deadline_s <= now_s]
        for lease in late:
            del self._leases[lease.number]
            if not self._settled(lease.unit):
                self._units[lease.unit].failures.append(f"nothing heard from {lease.worker} for {self._lease_s:g} s")
                self._again_or_quarantine(lease.unit, hopeless=False)
        return late

    def _again_or_quarantine(self, unit: int, hopeless: bool) -> bool:
        failures = self._units[unit].failures
        if hopeless or len(failures) >= self._tries:
            self._withdraw(unit)
            self.quarantined[unit] = tuple(failures)
            return True
        self._reopen(unit)
        return False

    def _reopen(self, unit: int) -> None:
        """To the front: a unit that has cost time already should not be the last straggler."""
        self._open.appendleft(unit)

    def _withdraw(self, unit: int) -> None:
        if unit in self._open:
            self._open.remove(unit)

    def _settled(self, unit: int) -> bool:
        return unit in self.done or unit in self.quarantined
