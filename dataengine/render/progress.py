"""What a run tells while it goes on: a live table on a terminal, a line now and then elsewhere, and files for machines.

`status.json` (replaced atomically) holds the present state, `log.jsonl` one event per line.
"""

import contextlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.live import Live

from dataengine.errors import StoreError
from dataengine.render.outcome import Outcome
from dataengine.render.status_view import status_line, status_table

STATUS_EVERY_S = 1.0
LINE_EVERY_S = 30.0
SILENT_AFTER_S = 60.0


@dataclass
class _WorkerLine:
    state: str
    since_unix_s: float
    video: int | None = None


@dataclass
class Board:
    """All that is known of a run; pure, time is passed in."""

    total: int
    safe_before: int
    frames_per_video: int
    started_unix_s: float
    done: int = 0
    attempts_failed: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    bytes: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    quarantined: dict[int, tuple[str, ...]] = field(default_factory=dict)
    workers: dict[str, _WorkerLine] = field(default_factory=dict)

    def follow_workers(self, names: Sequence[str], idle: Sequence[str], now_s: float) -> None:
        """Adopt the executor's view of who exists and who is idle."""
        self.workers = {n: self.workers.get(n) or _WorkerLine("starting", now_s) for n in names}
        for name in idle:
            if name in self.workers and self.workers[name].state != "idle":
                self.workers[name] = _WorkerLine("idle", now_s)

    def snapshot(self, now_s: float) -> dict[str, Any]:
        """JSON state. Rates are None until the first video is done; `eta_s` counts what is in work by its elapsed share."""
        remaining = self.total - self.done - len(self.quarantined)
        busy = [w for w in self.workers.values() if w.state == "busy"]
        s_per_video = self.wall_s / self.done if self.done else None
        eta_s = cpu_hours_left = None
        if s_per_video is not None and remaining:
            begun = sum(min((now_s - w.since_unix_s) / s_per_video, 0.9) for w in busy) if s_per_video else 0.0
            eta_s = max(remaining - begun, 0.0) * s_per_video / max(len(self.workers), 1)
        if self.done:
            cpu_hours_left = remaining * self.cpu_s / self.done / 3600
        frames = self.done * self.frames_per_video
        return {
            "total": self.total + self.safe_before,
            "done": self.done + self.safe_before,
            "done_before": self.safe_before,
            "given_up": [{"video": v, "reasons": list(r)} for v, r in sorted(self.quarantined.items())],
            "failed_attempts": self.attempts_failed,
            "elapsed_s": now_s - self.started_unix_s,
            "eta_s": 0.0 if remaining == 0 else eta_s,
            "wall_s_per_frame": self.wall_s / frames if frames else None,
            "cpu_s_per_frame": self.cpu_s / frames if frames else None,
            "cpu_hours": self.cpu_s / 3600,
            "cpu_hours_left": 0.0 if remaining == 0 else cpu_hours_left,
            "bytes": self.bytes,
            "rejections": dict(self.rejections.most_common()),
            "workers": [{"name": n, "state": w.state, "video": w.video, "for_s": now_s - w.since_unix_s} for n, w in self.workers.items()],
        }


class Progress:
    """Keeps a `Board` up to date and shows it. A context manager: leaving it ends the live table.

    A full disk must not end a run through its status files, so their write errors are ignored; the dataset's are not.

    Parameters
    ----------
    total, safe_before
        videos of this run, and those that earlier runs have done
    folder
        where `status.json` and `log.jsonl` go; None writes neither
    console
        where to show; None shows nothing
    """

    def __init__(
        self, total: int, safe_before: int = 0, frames_per_video: int = 1, folder: Path | None = None, console: Console | None = None,
        line_every_s: float = LINE_EVERY_S, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._clock = clock
        self.board = Board(total, safe_before, frames_per_video, clock())
        self._folder, self._console, self._line_every_s = folder, console, line_every_s
        self._state, self._message = "running", ""
        self._live: Live | None = None
        self._log: IO[str] | None = None
        self._next_status_s = self._next_line_s = 0.0

    def __enter__(self) -> "Progress":
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._log = open(self._folder / "log.jsonl", "a", encoding="utf-8")
        self._event("start", total=self.board.total, safe_before=self.board.safe_before)
        if self._console is not None and self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        self._show(force=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if self._state == "running":
            self.finish("failed" if kind else "finished", repr(error) if error else "")
        if self._live is not None:
            self._live.stop()
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()
        self._live = self._log = None

    def workers(self, names: Sequence[str], idle: Sequence[str]) -> None:
        """The executor's workers now; call it regularly, it also refreshes what is shown."""
        self.board.follow_workers(names, idle, self._clock())
        self._show()

    def started(self, video: int, worker: str) -> None:
        self.board.workers[worker] = _WorkerLine("busy", self._clock(), video)
        self._event("started", video=video, worker=worker)

    def done(self, video: int, worker: str, receipt: dict[str, Any], outcome: Outcome) -> None:
        b = self.board
        b.done += 1
        b.wall_s += outcome.wall_s
        b.cpu_s += outcome.cpu_s
        b.bytes += int(receipt.get("bytes", 0))
        b.rejections.update(receipt.get("rejections", {}))
        b.quarantined.pop(video, None)
        self._settle(worker)
        cost = {"cpu_s": round(outcome.cpu_s, 3), "wall_s": round(outcome.wall_s, 3), "peak_rss_mb": round(outcome.peak_rss_mb, 1)}
        self._event("done", video=video, worker=worker, **cost, receipt=receipt)

    def failed(self, video: int, worker: str, reason: str, quarantined: tuple[str, ...] | None, log_tail: str = "") -> None:
        """An attempt failed; `quarantined` has the reasons of all attempts if it was the last one."""
        self.board.attempts_failed += 1
        if quarantined is not None:
            self.board.quarantined[video] = quarantined
        self._settle(worker)
        self._event("given up" if quarantined else "failed", video=video, worker=worker, reason=reason, log_tail=log_tail)

    def finish(self, state: str, message: str = "") -> None:
        """The last word: `finished`, `stopped` or `failed`."""
        self._state, self._message = state, message
        self.board.workers = {}
        self._event(state, message=message)
        self._show(force=True)

    def snapshot(self) -> dict[str, Any]:
        now = self._clock()
        who = {"state": self._state, "message": self._message, "pid": os.getpid(), "host": socket.gethostname(), "updated_unix_s": now}
        return who | self.board.snapshot(now)

    def _settle(self, worker: str) -> None:
        if worker in self.board.workers:
            self.board.workers[worker] = _WorkerLine("idle", self._clock())

    def _event(self, kind: str, **fields: Any) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.write(json.dumps({"unix_s": round(self._clock(), 3), "event": kind, **fields}) + "\n")
                self._log.flush()

    def _show(self, force: bool = False) -> None:
        now = self._clock()
        if force or now >= self._next_status_s:
            self._next_status_s = now + STATUS_EVERY_S
            state = self.snapshot()
            self._write_status(state)
            if self._live is not None:
                self._live.update(status_table(state), refresh=True)
        if self._console is not None and self._live is None and (force or now >= self._next_line_s):
            self._next_line_s = now + self._line_every_s
            self._console.print(status_line(self.snapshot()), highlight=False, markup=False, soft_wrap=True)

    def _write_status(self, state: dict[str, Any]) -> None:
        if self._folder is None:
            return
        target = self._folder / "status.json"
        with contextlib.suppress(OSError):
            temporary = target.with_name(f".status.{os.getpid()}")
            temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
            os.replace(temporary, target)


def read_status(folder: Path, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """The state that a run left in `folder`. A run whose process is gone, or silent for a minute on another machine, has
    state `dead` instead of `running`. Raises StoreError where there is none."""
    path = folder / "status.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{folder}: no status.json, so no render was started here; give the folder of a dataset") from error
    except ValueError as error:
        raise StoreError(f"{path}: not readable as JSON; run the render command again to renew it") from error
    if state["state"] == "running":
        here = state["host"] == socket.gethostname()
        alive = Path(f"/proc/{state['pid']}").exists() if here else clock() - state["updated_unix_s"] < SILENT_AFTER_S
        state["state"] = "running" if alive else "dead"
    return state
