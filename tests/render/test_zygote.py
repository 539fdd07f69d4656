"""Zygotes for real: same memory whatever came before, and every way to die costs one request."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dataengine.errors import RenderError, RobotError, SceneError
from dataengine.render.cores import claim_core
from dataengine.render.zygote import Recipe, Zygote, revive
from dataengine.render.zygote_child import canonical_environment, encode

HERE = Path(__file__).parent
RECIPE = Recipe("toys:make", python_path=(str(HERE),))
LIMITS = (20.0, 2000.0)


@pytest.fixture(scope="module")
def zygote():
    with Zygote(RECIPE) as z:
        yield z


def addresses(history: tuple[int, ...], core: int | None, times: int = 1) -> list[dict]:
    """What a fork sees of its memory after the zygote's other forks did `history`."""
    with Zygote(RECIPE, core) as z:
        for size in history:
            assert z.run({"action": "dirty", "seed": size}, *LIMITS).result == {"hoard": 10_000, "text": "x" * 997 * size}
        if z.address_randomisation:  # where the system insists on it, only the hashes can be compared
            return [{"hash": z.run({"action": "addresses"}, *LIMITS).result["hash"]} for _ in range(times)]
        return [z.run({"action": "addresses", "path": "p" * 37 * i}, *LIMITS).result for i in range(times)]


def test_memory_does_not_depend_on_caller_or_history(monkeypatch, tmp_path):
    (reference,) = addresses((), core=None)
    monkeypatch.setenv("A_LONG_VARIABLE", "y" * 5000)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.delenv("HOME")
    monkeypatch.chdir(tmp_path)
    extra = os.open("/dev/null", os.O_RDONLY)
    try:
        assert addresses((1, 40, 3), core=sorted(os.sched_getaffinity(0))[-1], times=3) == [reference] * 3
    finally:
        os.close(extra)


def test_address_randomisation_is_told_truthfully(zygote):
    """The kernel's own word on the running zygote."""
    flags = int(Path(f"/proc/{zygote.pid}/personality").read_text(), 16)
    assert zygote.address_randomisation == (not flags & 0x0040000)


def test_fork_state_is_fresh_and_zygote_stays(zygote):
    first = zygote.run({"action": "who"}, *LIMITS)
    zygote.run({"action": "dirty", "seed": 2}, *LIMITS)
    again = zygote.run({"action": "dirty", "seed": 2}, *LIMITS)
    second = zygote.run({"action": "who"}, *LIMITS)
    assert again.result["hoard"] == 10_000  # a list that only grows within one fork
    assert first.result["zygote"] == second.result["zygote"] == zygote.pid
    assert first.result["pid"] != second.result["pid"]


def test_pinned_to_the_core_asked_for():
    core = sorted(os.sched_getaffinity(0))[-1]
    with Zygote(RECIPE, core) as z:
        assert z.run({"action": "who"}, *LIMITS).result["cores"] == [core]


@pytest.mark.parametrize(
    ("action", "status", "message"),
    [
        ("segfault", "crash", "SIGSEGV"),
        ("exit", "crash", "exit code 7"),
        ("suicide", "killed", "SIGKILL"),
        ("fratricide", "killed", "worker process"),
        ("unserialisable", "error", "not JSON serializable"),
    ],
)
def test_every_end_is_told_apart_and_costs_one_request(zygote, action, status, message):
    outcome = zygote.run({"action": action}, *LIMITS)
    assert outcome.status == status
    assert message in outcome.message
    assert outcome.result is None
    assert zygote.run({"action": "who"}, *LIMITS).status == "ok"


def test_segfault_leaves_the_python_stack_in_the_log(zygote):
    assert "toys.py" in zygote.run({"action": "segfault"}, *LIMITS).log_tail


def test_input_errors_and_defects_are_told_apart(zygote):
    expected = zygote.run({"action": "raise", "expected": True}, *LIMITS)
    defect = zygote.run({"action": "raise", "expected": False}, *LIMITS)
    assert (expected.error_type, expected.message, expected.expected) == ("SceneError", "cannot be sampled; widen camera.distance_m", True)
    assert expected.reason == "SceneError: cannot be sampled; widen camera.distance_m"
    assert (defect.error_type, defect.expected) == ("ZeroDivisionError", False)
    assert "Traceback" in defect.message and "toys.py" in defect.message
    assert defect.reason == "ZeroDivisionError: oops"
    assert isinstance(revive(expected.to_json()), SceneError)
    assert isinstance(revive(defect.to_json()), RuntimeError)


def test_wall_clock_limit(zygote):
    outcome = zygote.run({"action": "hang"}, 0.3, 2000.0)
    assert outcome.status == "timeout"
    assert 0.3 <= outcome.wall_s < 5.0
    assert "0.3 s" in outcome.message


def test_memory_limit(zygote):
    outcome = zygote.run({"action": "grow"}, 20.0, 300.0)
    assert outcome.status == "memory"
    assert 300.0 < outcome.peak_rss_mb < 1500.0
    assert "300 MB" in outcome.message


def test_costs_are_the_forks_own(zygote):
    spin = zygote.run({"action": "spin"}, *LIMITS)
    hang = zygote.run({"action": "hang"}, 0.3, 2000.0)
    assert spin.cpu_s > 0.05 > hang.cpu_s
    assert spin.wall_s >= spin.cpu_s * 0.9
    assert 5 < spin.peak_rss_mb < 500


def test_terminal_output_is_kept_not_shown(zygote, capfd):
    outcome = zygote.run({"action": "chatter"}, *LIMITS)
    assert outcome.status == "ok"
    assert outcome.log_tail.endswith("xlast words\n")
    assert len(outcome.log_tail) == 4096
    assert capfd.readouterr() == ("", "")
    assert zygote.run({"action": "who"}, *LIMITS).log_tail == ""


def test_setup_errors_are_raised_as_they_are():
    with pytest.raises(RobotError, match="no robot here; use another"):
        Zygote(Recipe("toys:broken_setup", {"expected": True}, python_path=(str(HERE),))).start()
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError: 'missing'"):
        Zygote(Recipe("toys:broken_setup", python_path=(str(HERE),))).start()
    with pytest.raises(RuntimeError, match="no_such_module"):
        Zygote(Recipe("no_such_module:make")).start()


def test_a_worker_that_always_dies_while_starting_is_reported():
    with pytest.raises(RenderError, match="died 5 times while starting"):
        Zygote(Recipe("toys:dying_setup", python_path=(str(HERE),))).start()


def test_setup_that_filled_a_cache_is_started_again(tmp_path):
    """The process that serves has read the cache, not filled it."""
    cache = tmp_path / "cache"
    with Zygote(Recipe("toys:caching_setup", {"cache": str(cache)}, python_path=(str(HERE),))) as z:
        outcome = z.run({}, *LIMITS)
    assert outcome.status == "ok", outcome
    assert outcome.result["filled_by"] == int(cache.read_text()) != outcome.result["parent"]


def test_module_that_had_to_be_compiled_means_a_second_start(tmp_path):
    starts = tmp_path / "starts"
    (tmp_path / "fresh.py").write_text(f"open({str(starts)!r}, 'a').write('start ')\ndef make(payload):\n    return lambda request: {{}}\n")
    recipe = Recipe("fresh:make", python_path=(str(tmp_path),))
    with Zygote(recipe) as z:
        assert starts.read_text() == "start start "
        assert not z.facts["fresh_start"]
    with Zygote(recipe):
        assert starts.read_text() == "start start start "


def test_killed_zygote_is_replaced(zygote):
    before = zygote.run({"action": "who"}, *LIMITS).result["zygote"]  # alive now, whatever came before
    os.kill(before, signal.SIGKILL)
    time.sleep(0.05)
    assert zygote.run({"action": "who"}, *LIMITS).result["zygote"] == zygote.pid != before


def test_a_zygote_forks_past_every_process_id(zygote):
    """As many forks as the lowest byte of a process id has values: no id is taken for "you are the child"."""
    first = zygote.run({"action": "who"}, *LIMITS).result["zygote"]
    for _ in range(300):
        outcome = zygote.run({"action": "who"}, *LIMITS)
        assert (outcome.status, outcome.result["zygote"]) == ("ok", first), outcome


def test_abort_from_another_thread_ends_a_run(zygote):
    with Zygote(RECIPE) as z:
        threading.Timer(0.3, z.abort).start()
        outcome = z.run({"action": "hang"}, *LIMITS)
        assert outcome.status == "killed" and outcome.wall_s < 10
        with pytest.raises(RenderError, match="stopped"):
            z.run({"action": "who"}, *LIMITS)


def gone(pid: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_nobody_outlives_the_supervisor(tmp_path):
    """SIGKILL of the supervisor takes zygote and fork with it."""
    pid_file = tmp_path / "pids"
    code = f"""
        from dataengine.render.zygote import Recipe, Zygote
        Zygote(Recipe("toys:make", python_path=({str(HERE)!r},))).run({{"action": "orphan", "pid_file": {str(pid_file)!r}}}, 60, 2000)
    """
    supervisor = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    while not (pid_file.exists() and pid_file.read_text().count(" ") == 1):
        time.sleep(0.02)
    fork, zygote = map(int, pid_file.read_text().split())
    supervisor.kill()
    supervisor.wait()
    assert gone(fork) and gone(zygote)


def test_fork_dies_with_its_zygote(tmp_path):
    pid_file = tmp_path / "pids"
    with Zygote(RECIPE) as z:
        z.start()
        threading.Timer(0.5, z.kill).start()
        outcome = z.run({"action": "orphan", "pid_file": str(pid_file)}, *LIMITS)
    assert outcome.status == "killed"
    assert gone(int(pid_file.read_text().split()[0]))


def test_messages_are_padded_to_the_same_size():
    assert len(encode({"a": 1})) == len(encode({"path": "x" * 60_000})) == 16 + 65536


def test_environment_is_canonical():
    env = canonical_environment("/root", {"EXTRA": "1", "LANG": "tr_TR"}, None)
    assert env["PYTHONHASHSEED"] == "0" and env["EXTRA"] == "1" and env["LANG"] == "tr_TR"
    assert "LD_LIBRARY_PATH" not in env and canonical_environment("/", {}, "/lib")["LD_LIBRARY_PATH"] == "/lib"
    assert list(env) == sorted(env)


def test_cores_are_claimed_once_and_released(tmp_path):
    first, second, third = (claim_core([4, 9], tmp_path) for _ in range(3))
    assert (first.core, second.core) == (4, 9)
    assert third.core in (4, 9) and third.fd is None
    second.release()
    again = claim_core([4, 9], tmp_path)
    assert again.core == 9 and again.fd is not None
    for claim in (first, again, third):
        claim.release()


def test_cores_are_shared_where_locks_cannot_be_kept(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert claim_core([3], blocker / "folder") == claim_core([3], blocker)
