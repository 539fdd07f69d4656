"""Status files and what people see, with a clock of our own."""

import io
import json
import os
import socket

import pytest
from rich.console import Console

from dataengine.errors import StoreError
from dataengine.render.outcome import Outcome
from dataengine.render.progress import Board, Progress, read_status
from dataengine.render.status_view import amount, duration, status_line, status_table

RECEIPT = {"bytes": 1_500_000, "rejections": {"below the floor": 3, "not in image": 1}}
OUTCOME = Outcome("ok", RECEIPT, cpu_s=9.0, wall_s=12.0, peak_rss_mb=600.0)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def text(renderable, width=100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def progress(clock, tmp_path=None, console=None, total=10, before=2):
    return Progress(total, before, 3, tmp_path, console, clock=clock)


def one_done(p: Progress, clock: Clock) -> None:
    p.workers(["a", "b"], ["a", "b"])
    p.started(0, "a")
    p.started(1, "b")
    clock.now += 12.0
    p.done(0, "a", RECEIPT, OUTCOME)


def test_snapshot_numbers():
    clock = Clock()
    p = progress(clock)
    one_done(p, clock)
    s = p.snapshot()
    assert (s["total"], s["done"], s["done_before"]) == (12, 3, 2)
    assert s["wall_s_per_frame"] == 4.0 and s["cpu_s_per_frame"] == 3.0
    # 9 videos remain, one of them begun 12 s ago (counted as 0.9 of a video), 12 s each on two workers
    assert s["eta_s"] == pytest.approx((9 - 0.9) * 12 / 2)
    assert s["cpu_hours_left"] == pytest.approx(9 * 9 / 3600)
    assert s["bytes"] == 1_500_000 and s["rejections"] == {"below the floor": 3, "not in image": 1}
    assert [(w["name"], w["state"], w["video"]) for w in s["workers"]] == [("a", "idle", None), ("b", "busy", 1)]
    assert s["workers"][1]["for_s"] == 12.0


def test_rates_are_unknown_before_the_first_video():
    s = Board(4, 0, 3, 0.0).snapshot(5.0)
    assert s["eta_s"] is s["wall_s_per_frame"] is s["cpu_hours_left"] is None
    assert "?" in text(status_table({"state": "running", "message": "", **s}))


def test_finished_board_has_nothing_left():
    clock = Clock()
    p = progress(clock, total=2)
    one_done(p, clock)
    p.failed(1, "b", "died of SIGSEGV", ("died of SIGSEGV",) * 3)
    s = p.snapshot()
    assert s["eta_s"] == s["cpu_hours_left"] == 0.0
    assert s["given_up"] == [{"video": 1, "reasons": ["died of SIGSEGV"] * 3}]


def test_vanished_workers_leave_the_board():
    clock = Clock()
    p = progress(clock)
    one_done(p, clock)
    p.workers(["b", "c"], [])
    assert [(w["name"], w["state"]) for w in p.snapshot()["workers"]] == [("b", "busy"), ("c", "starting")]


def test_status_file_follows_and_is_always_whole(tmp_path):
    clock = Clock()
    with progress(clock, tmp_path) as p:
        assert read_status(tmp_path)["state"] == "running"
        one_done(p, clock)
        clock.now += 2.0
        p.workers(["a", "b"], [])
        assert read_status(tmp_path)["done"] == 3
        clock.now += 0.2
        p.done(1, "b", RECEIPT, OUTCOME)
        p.workers(["a", "b"], [])
        assert read_status(tmp_path)["done"] == 3  # at most one write a second
        p.finish("finished")
    assert read_status(tmp_path)["done"] == 4
    assert [f.name for f in tmp_path.iterdir() if f.name.startswith(".")] == []


def test_events_are_logged_one_per_line(tmp_path):
    clock = Clock()
    with progress(clock, tmp_path) as p:
        one_done(p, clock)
        p.failed(1, "b", "took longer than 5 s", None, "last words")
        p.failed(1, "b", "took longer than 5 s", ("x", "y"))
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "started", "started", "done", "failed", "given up", "finished"]
    assert events[3]["receipt"] == RECEIPT and events[3]["peak_rss_mb"] == 600.0
    assert events[4]["log_tail"] == "last words" and events[4]["unix_s"] == 1012.0


def test_unexpected_exception_is_recorded_as_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), progress(Clock(), tmp_path):
        raise ZeroDivisionError("oops")
    status = read_status(tmp_path)
    assert status["state"] == "failed" and "oops" in status["message"]


def test_unwritable_status_does_not_end_the_run(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with progress(Clock(), blocker / "folder") as p:
        p.started(0, "a")


def test_one_line_every_thirty_seconds_without_a_terminal():
    clock, out = Clock(), io.StringIO()
    with progress(clock, console=Console(file=out, width=60)) as p:
        for _ in range(90):
            clock.now += 1.0
            p.workers(["a"], [])
    lines = out.getvalue().splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[0].startswith("running: 2 of 12 videos") and lines[-1].startswith("finished:")


def test_live_table_on_a_terminal():
    clock, out = Clock(), io.StringIO()
    with progress(clock, console=Console(file=out, force_terminal=True, width=100, height=40)) as p:
        one_done(p, clock)
        clock.now += 2.0
        p.workers(["a", "b"], [])
    shown = out.getvalue()
    assert "3 of 12" in shown and "below the floor" in shown and "1.5 MB" in shown


def test_table_and_line_tell_what_matters():
    clock = Clock()
    p = progress(clock)
    one_done(p, clock)
    p.failed(1, "b", "died of SIGSEGV", ("died of SIGABRT", "died of SIGSEGV"))
    line, table = status_line(p.snapshot()), text(status_table(p.snapshot()))
    assert "3 of 12 videos" in line and "1 given up" in line and "\n" not in line
    for word in ("3 of 12", "video 1", "died of SIGSEGV", "below the floor", "4.00 s", "3.00 CPU s"):
        assert word in table


def test_many_workers_and_reasons_are_cut_short():
    board = Board(100, 0, 3, 0.0, done=1, wall_s=1.0)
    board.follow_workers([f"w{i}" for i in range(50)], [], 0.0)
    board.rejections.update({f"reason {i}": i for i in range(1, 20)})
    table = text(status_table({"state": "running", "message": "", **board.snapshot(1.0)}))
    assert "and 34 more" in table and "and 13 more" in table and "reason 19" in table and "reason 1 " not in table


def write_status(folder, **changes):
    with progress(Clock(), folder) as p:
        state = p.snapshot()
    (folder / "status.json").write_text(json.dumps(state | changes))


@pytest.mark.parametrize(
    ("changes", "seconds_later", "state"),
    [
        ({"pid": os.getpid()}, 1e6, "running"),  # a living process here may be silent as long as it likes
        ({"pid": 2**22 + 1}, 1.0, "dead"),
        ({"host": "elsewhere"}, 59.0, "running"),
        ({"host": "elsewhere"}, 61.0, "dead"),
        ({"state": "finished", "pid": 2**22 + 1}, 1e6, "finished"),
    ],
)
def test_dead_runs_are_recognised(tmp_path, changes, seconds_later, state):
    write_status(tmp_path, **({"state": "running", "host": socket.gethostname(), "updated_unix_s": 1000.0} | changes))
    assert read_status(tmp_path, clock=lambda: 1000.0 + seconds_later)["state"] == state


def test_missing_and_broken_status(tmp_path):
    with pytest.raises(StoreError, match="no status.json"):
        read_status(tmp_path)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(StoreError, match="not readable"):
        read_status(tmp_path)


def test_units():
    assert [duration(s) for s in (None, 0, 59.94, 60, 3661, 90000)] == ["?", "0 s", "59.9 s", "1 min 0 s", "1 h 1 min", "1 d 1 h"]
    assert [amount(n) for n in (0, 1000, 2.5e9, 3e15)] == ["0 B", "1 kB", "2.5 GB", "3e+03 TB"]
