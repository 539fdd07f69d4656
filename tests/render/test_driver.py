"""The driver's loop: with a scripted executor for its decisions, with real workers and real signals for the rest."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dataengine.config.spec import LimitSpec
from dataengine.errors import Interrupted, RenderError, RobotError, SceneError, StoreError
from dataengine.render.driver import Callbacks, run_units
from dataengine.render.executor import ClusterGone, Report
from dataengine.render.outcome import Outcome
from dataengine.render.progress import Progress, read_status
from dataengine.render.serial import SerialExecutor
from dataengine.render.zygote import Recipe

HERE = Path(__file__).parent
RECIPE = Recipe("toys:make", python_path=(str(HERE),))
LIMITS = LimitSpec(wall_s=20.0, memory_mb=2000, tries=3)
OK = Outcome("ok", {"bytes": 5, "rejections": {}}, cpu_s=1.0, wall_s=2.0, peak_rss_mb=100.0)
CRASH = Outcome("crash", message="died of SIGSEGV", log_tail="stack")
UNSEEN = Outcome("error", error_type="SceneError", message="no camera sees the robot in 200 tries (never in image: 200)")


class Script:
    """An executor whose outcomes are a function of (unit, attempt); a returned exception is raised by `wait`."""

    def __init__(self, outcome, workers=("a", "b")):
        self.outcome, self.workers = outcome, workers
        self.free, self.reports, self.attempts, self.closed = [], [], {}, False

    def start(self):
        self.free = list(self.workers)

    def idle(self):
        return tuple(self.free)

    def give(self, lease, request, limits):
        self.free.remove(lease.worker)
        n = self.attempts[lease.unit] = self.attempts.get(lease.unit, 0) + 1
        self.reports.append((lease, self.outcome(lease.unit, n)))

    def wait(self, timeout_s):
        reports, self.reports = self.reports, []
        for lease, outcome in reports:
            if isinstance(outcome, Exception):
                raise outcome
            self.free.append(lease.worker)
        return [Report(lease, outcome) for lease, outcome in reports]

    def close(self):
        self.closed = True


def run(executor, units, folder=None, safe_before=0, **callbacks):
    progress = Progress(len(units), safe_before, folder=folder)
    return run_units(units, executor, LIMITS, progress, Callbacks(**callbacks), safe_before)


def test_every_unit_once_with_receipt_and_cost():
    script, seen = Script(lambda unit, n: OK), []
    result = run(script, [5, 6, 7], done=lambda unit, receipt: seen.append(unit))
    assert sorted(result.receipts) == sorted(seen) == [5, 6, 7]
    assert script.attempts == {5: 1, 6: 1, 7: 1}
    assert script.closed
    assert result.costs[5].cpu_s == 1.0 and result.costs[5].peak_rss_mb == 100.0
    assert 0 < result.startup_s <= result.wall_s


def test_nothing_to_do_starts_nobody():
    script = Script(lambda unit, n: OK)
    assert run(script, []).receipts == {}
    assert script.free == []


def test_poison_is_quarantined_after_three_tries_and_the_rest_is_done():
    given_up = []
    script = Script(lambda unit, n: CRASH if unit == 2 else OK)
    result = run(script, range(4), quarantined=given_up.append)
    assert sorted(result.receipts) == [0, 1, 3]
    assert [g.unit for g in given_up] == [2]
    assert given_up[0].reasons == ("died of SIGSEGV",) * 3
    assert given_up[0].log_tail == "stack"
    assert script.attempts[2] == 3


def test_passing_failure_is_tried_again():
    result = run(Script(lambda unit, n: CRASH if n < 3 else OK), range(3))
    assert sorted(result.receipts) == [0, 1, 2] and not result.quarantined


def test_no_scene_can_be_sampled_ends_the_run_without_marks():
    """A camera that never sees the robot: one line, not a quarantined dataset."""
    given_up = []
    script = Script(lambda unit, n: UNSEEN)
    with pytest.raises(SceneError, match=r"^all of the first 8 videos failed and none was rendered.*never in image: 200"):
        run(script, range(100), quarantined=given_up.append)
    assert not given_up and len(script.attempts) <= 10 and script.closed


def test_single_hopeless_video():
    with pytest.raises(SceneError, match="^the only video failed.*no camera"):
        run(Script(lambda unit, n: UNSEEN), [0])


def test_one_unsampleable_video_among_good_ones_is_quarantined_only():
    given_up = []
    result = run(Script(lambda unit, n: UNSEEN if unit == 0 else OK), range(5), quarantined=given_up.append)
    assert sorted(result.receipts) == [1, 2, 3, 4] and [g.unit for g in given_up] == [0]


def test_a_defect_everywhere_keeps_its_traceback():
    bug = Outcome("error", error_type="KeyError", message="Traceback ...\nKeyError: 'x'", expected=False)
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError"):
        run(Script(lambda unit, n: bug), range(3))


def test_full_disk_ends_the_run_at_once():
    full = Outcome("error", error_type="StoreError", message="/data: no space left; free some and run the same command")
    script = Script(lambda unit, n: full if unit == 1 else OK)
    with pytest.raises(StoreError, match="no space left"):
        run(script, range(50))
    assert script.closed and len(script.attempts) < 5


def test_cluster_gone_says_what_is_safe(tmp_path):
    script = Script(lambda unit, n: ClusterGone("the Ray cluster at h:1 went away") if unit == 3 else OK, workers=("a",))
    with pytest.raises(RenderError) as error:
        run(script, range(6), tmp_path, safe_before=4)
    assert str(error.value) == ("the Ray cluster at h:1 went away; 7 of 10 videos are safe; start it again and run the same command")
    assert read_status(tmp_path)["state"] == "failed"


def test_stop_signal_is_one_line_and_resumable(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def outcome(unit, n):
        if unit == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return OK

    script = Script(outcome, workers=("a",))
    with pytest.raises(Interrupted) as error:
        run(script, range(9), tmp_path, safe_before=3)
    assert str(error.value) == "stopped: 7 of 12 videos are safe; run the same command to go on"
    assert script.closed and read_status(tmp_path)["state"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def requests(out: Path, **more):
    return lambda unit: {"action": "write", "video": unit, "out": str(out), **more}


def written(out: Path) -> list[int]:
    return sorted(int(p.stem) for p in out.glob("*.txt"))


@pytest.mark.parametrize("workers", [1, 3])
def test_real_workers_write_everything_once(tmp_path, workers):
    result = run(SerialExecutor(RECIPE, workers), range(12), request=requests(tmp_path))
    assert written(tmp_path) == sorted(result.receipts) == list(range(12))
    assert len((tmp_path / "attempts.log").read_text().split()) == 12


def test_real_poison_among_real_videos(tmp_path):
    given_up = []
    result = run(SerialExecutor(RECIPE, 2), range(8), request=requests(tmp_path, poison=[3], unsampleable=[5]), quarantined=given_up.append)
    assert written(tmp_path) == sorted(result.receipts) == [0, 1, 2, 4, 6, 7]
    assert {g.unit: g.reason for g in given_up} == {
        3: "died of SIGSEGV",
        5: "SceneError: no camera sees the robot in 200 tries (never in image: 200)",
    }


def test_worker_that_cannot_be_set_up_ends_the_run():
    with pytest.raises(RobotError, match="no robot here"):
        run(SerialExecutor(Recipe("toys:broken_setup", {"expected": True}, python_path=(str(HERE),)), 2), range(3))


def test_forks_and_zygotes_killed_at_random_lose_and_double_nothing(tmp_path):
    executor, stop, kills = SerialExecutor(RECIPE, 2), threading.Event(), []

    def kill_somebody():
        while not stop.wait(0.1):
            for worker in executor._workers.values():
                pid = worker.zygote.pid
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []
                if children:
                    kills.append(pid)
                    os.kill(pid if len(kills) % 2 else int(children[0]), signal.SIGKILL)

    thread = threading.Thread(target=kill_somebody)
    thread.start()
    try:
        result = run(executor, range(10), request=requests(tmp_path, sleep_s=0.05))
    finally:
        stop.set()
        thread.join()
    assert written(tmp_path) == sorted(result.receipts) == list(range(10))
    assert not result.quarantined
    assert len(kills) >= 2


DRIVER = """
    import sys
    from pathlib import Path
    from dataengine.config.spec import LimitSpec
    from dataengine.errors import DataEngineError
    from dataengine.render.driver import Callbacks, run_units
    from dataengine.render.progress import Progress
    from dataengine.render.serial import SerialExecutor
    from dataengine.render.zygote import Recipe
    out, here = Path(sys.argv[1]), sys.argv[2]
    todo = [i for i in range(12) if not (out / f"{i}.txt").exists()]
    before = 12 - len(todo)
    executor = SerialExecutor(Recipe("toys:make", python_path=(here,)), 2)
    callbacks = Callbacks(request=lambda unit: {"action": "write", "video": unit, "out": str(out), "sleep_s": 0.1})
    try:
        run_units(todo, executor, LimitSpec(), Progress(len(todo), before, folder=out), callbacks, before)
    except DataEngineError as error:
        sys.exit(str(error))
"""


def driver(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(out), str(HERE)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(condition, within_s=30.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_driver_is_dead_in_status_and_the_next_run_does_the_rest(tmp_path):
    first = driver(tmp_path)
    wait_for(lambda: len(written(tmp_path)) >= 3)
    first.kill()
    first.communicate()
    assert read_status(tmp_path)["state"] == "dead"
    done = len(written(tmp_path))
    assert done < 12
    second = driver(tmp_path)
    assert second.communicate()[1] == "" and second.returncode == 0
    assert written(tmp_path) == list(range(12))
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(e["event"] == "start" for e in events) == 2
    assert read_status(tmp_path)["state"] == "finished" and read_status(tmp_path)["done"] == 12


def test_ctrl_c_in_the_terminal_stops_cleanly(tmp_path):
    process = driver(tmp_path)
    wait_for(lambda: len(written(tmp_path)) >= 3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    done = len(written(tmp_path))
    assert errors.startswith("stopped: ") and errors.endswith(" of 12 videos are safe; run the same command to go on\n")
    assert int(errors.split()[1]) <= done <= int(errors.split()[1]) + 2  # a fork may finish while it is being told
    assert len(errors.splitlines()) == 1
