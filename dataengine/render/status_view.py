"""A run's state (the content of `status.json`) as a table or as one line."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

MAX_WORKERS_SHOWN = 16
MAX_REASONS_SHOWN = 6
_HEADLINE = {
    "running": "rendering",
    "finished": "finished",
    "stopped": "stopped; the same command goes on",
    "failed": "failed",
    "dead": "not running any more; the same command goes on",
}


def duration(seconds: float | None) -> str:
    """Two units at most.

    >>> [duration(s) for s in (None, 4.2, 75, 7265, 200000)]
    ['?', '4.2 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    for name, size, lower, lower_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // lower_size} {lower}"
    return f"{whole} s"


def amount(count: float) -> str:
    """Bytes in decimal units.

    >>> [amount(n) for n in (0, 999, 1.5e6, 2.34e12)]
    ['0 B', '999 B', '1.5 MB', '2.34 TB']
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def status_line(state: dict[str, Any]) -> str:
    """One line for logs."""
    parts = [f"{state['state']}: {state['done']} of {state['total']} videos"]
    if state["wall_s_per_frame"] is not None:
        parts.append(f"{state['wall_s_per_frame']:.2f} s/frame and worker ({state['cpu_s_per_frame']:.2f} CPU s)")
    if state["state"] == "running":
        parts.append(_worker_counts(state["workers"]))
        if state["eta_s"] is not None:
            parts.append(f"about {duration(state['eta_s'])} left")
    if state["given_up"]:
        parts.append(f"{len(state['given_up'])} given up")
    if state["failed_attempts"]:
        parts.append(f"{state['failed_attempts']} failed attempts")
    return ", ".join(parts) + (f"; {state['message']}" if state["message"] else "")


def status_table(state: dict[str, Any]) -> RenderableType:
    """The live view: totals, workers, reasons of rejected draws, videos given up."""
    blocks: list[RenderableType] = [_totals(state)]
    if state["workers"]:
        blocks.append(_workers(state["workers"]))
    if state["rejections"]:
        blocks.append(_counts("draws rejected", list(state["rejections"].items())))
    if state["given_up"]:
        blocks.append(_counts("given up", [(f"video {g['video']}", g["reasons"][-1]) for g in state["given_up"]]))
    if state["message"]:
        blocks.append(Text(state["message"]))
    return Group(*blocks)


def _totals(state: dict[str, Any]) -> Table:
    headline = _HEADLINE.get(state["state"], state["state"])
    table = Table(title=headline, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    per_frame = state["wall_s_per_frame"]
    before = f" ({state['done_before']} by earlier runs)" if state["done_before"] else ""
    left = state["cpu_hours_left"]
    rows = [
        ("videos", f"{state['done']} of {state['total']}{before}"),
        ("time", f"{duration(state['elapsed_s'])} so far, {duration(state['eta_s'])} left"),
        ("per frame", f"{per_frame:.2f} s, {state['cpu_s_per_frame']:.2f} CPU s" if per_frame is not None else "?"),
        ("CPU hours", f"{state['cpu_hours']:.2f} so far, {'?' if left is None else f'{left:.2f}'} left"),
        ("size", amount(state["bytes"])),
        ("failed attempts", str(state["failed_attempts"])),
    ]
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("worker", "state", "video", "for"):
        table.add_column(name, justify="left")
    for w in workers[:MAX_WORKERS_SHOWN]:
        table.add_row(w["name"], w["state"], "" if w["video"] is None else str(w["video"]), duration(w["for_s"]))
    if len(workers) > MAX_WORKERS_SHOWN:
        rest = workers[MAX_WORKERS_SHOWN:]
        table.add_row(f"and {len(rest)} more", _worker_counts(rest), "", "")
    return table


def _counts(title: str, rows: list[tuple[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows[:MAX_REASONS_SHOWN]:
        table.add_row(Text(name), Text(str(value), overflow="ellipsis", no_wrap=True))
    if len(rows) > MAX_REASONS_SHOWN:
        table.add_row(f"and {len(rows) - MAX_REASONS_SHOWN} more", "")
    return table


def _worker_counts(workers: list[dict[str, Any]]) -> str:
    states = [w["state"] for w in workers]
    return ", ".join(f"{states.count(s)} {s}" for s in ("busy", "idle", "starting") if s in states) or "no workers yet"
