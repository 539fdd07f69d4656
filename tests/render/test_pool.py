"""Ray for real, each run in a driver process of its own: kill anything, run the same command again, nothing is lost or doubled."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dataengine.errors import RenderError
from dataengine.render import pool
from dataengine.render.zygote import Recipe

HERE = Path(__file__).parent
GOOD = [v for v in range(24) if v not in (3, 5)]


def start(out: Path, videos: int = 24, workers: int = 2, address: str = "", sleep_s: float = 0.25) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "ray_run.py"), str(out), str(videos), str(workers), address, str(sleep_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def written(out: Path) -> list[int]:
    return sorted(int(p.stem) for p in out.glob("*.txt"))


def wait_for(condition, within_s=90.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def kill_one(driver: subprocess.Popen, kind: str) -> None:
    """SIGKILL a process of the driver's tree whose name or command line starts or ends so."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        if kind in process.name() or any(kind in word for word in process.cmdline()):
            process.kill()
            return
    raise AssertionError(f"no {kind} to kill")


def finish(driver: subprocess.Popen, out: Path) -> dict:
    output, errors = driver.communicate(timeout=120)
    assert (driver.returncode, output, errors) == (0, "", "")
    return json.loads((out / "result.json").read_text())


def attempts(out: Path) -> int:
    return len((out / "attempts.log").read_text().split())


def test_run_with_an_actor_killed_on_the_way(tmp_path):
    """Poison and unsampleable videos are given up, the dead actor's video is done by another, nothing is left running."""
    driver = start(tmp_path, videos=14)
    wait_for(lambda: len(written(tmp_path)) >= 3)
    tree = psutil.Process(driver.pid).children(recursive=True)
    kill_one(driver, "ray::RenderActor")
    assert finish(driver, tmp_path) == {"done": GOOD[:12], "given_up": [3, 5]}
    assert written(tmp_path) == GOOD[:12]
    assert attempts(tmp_path) <= 12 + 3 + 1 + 1  # good, poison thrice, unsampleable, the interrupted one again
    assert psutil.wait_procs(tree, timeout=10)[1] == []


def test_unreachable_clusters_are_one_line():
    with pytest.raises(RenderError, match=r"cannot join the Ray cluster at 127.0.0.1:1 \(Connection refused\); start it with `ray start"):
        pool.RayPool(Recipe("toys:make"), 1, "127.0.0.1:1").start()
    with pytest.raises(RenderError, match="run this command on a node"):
        pool.RayPool(Recipe("toys:make"), 1, "ray://127.0.0.1:10001").start()


def test_environment_is_restored_and_the_users_settings_win(monkeypatch):
    niceness = "RAY_worker_niceness"
    monkeypatch.setenv(niceness, "15")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    before = dict(os.environ)
    with pool._environment(pool._QUIET):
        assert os.environ[niceness] == "15"
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        first, *rest = os.environ["PYTHONPATH"].split(os.pathsep)
        assert (Path(first) / "dataengine" / "render" / "pool.py").exists() and rest == ["/mine"]
    assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raylet", "gcs_server", "zygote_child"])
def test_rays_own_processes_killed(tmp_path, kind):
    driver = start(tmp_path)
    wait_for(lambda: len(written(tmp_path)) >= 4)
    kill_one(driver, kind)
    assert finish(driver, tmp_path) == {"done": GOOD, "given_up": [3, 5]}
    assert written(tmp_path) == GOOD


@pytest.mark.slow
def test_driver_killed_then_interrupted_then_finished(tmp_path):
    driver = start(tmp_path)
    wait_for(lambda: len(written(tmp_path)) >= 4)
    tree = [p for p in psutil.Process(driver.pid).children(recursive=True) if not p.name().endswith("Agent")]
    driver.kill()
    driver.communicate()  # Ray's own agents look for their parent every half minute only
    assert psutil.wait_procs(tree, timeout=30)[1] == []
    first = len(written(tmp_path))
    driver = start(tmp_path)
    wait_for(lambda: len(written(tmp_path)) >= first + 3)
    os.killpg(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert errors.startswith("Interrupted: stopped: ") and len(errors.splitlines()) == 1
    second = set(written(tmp_path))
    result = finish(start(tmp_path), tmp_path)
    assert sorted(second | set(result["done"])) == written(tmp_path) == GOOD
    assert not second & set(result["done"])


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_node_dies_and_another_joins(tmp_path, cluster):
    node = cluster.add_node(num_cpus=1)
    driver = start(tmp_path, address=cluster.address)
    wait_for(lambda: len(written(tmp_path)) >= 4)
    cluster.remove_node(node, allow_graceful=False)
    reached = len(written(tmp_path))
    wait_for(lambda: len(written(tmp_path)) >= reached + 3)  # the other node goes on alone
    cluster.add_node(num_cpus=1)
    assert finish(driver, tmp_path) == {"done": GOOD, "given_up": [3, 5]}


@pytest.mark.slow
def test_cluster_goes_away(tmp_path, cluster):
    driver = start(tmp_path, videos=300, address=cluster.address)
    wait_for(lambda: len(written(tmp_path)) >= 4)
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    _, errors = driver.communicate(timeout=120)
    *_, last = errors.splitlines()
    assert last.startswith(f"RenderError: the Ray cluster at {cluster.address} went away; ")
    assert last.endswith(" of 300 videos are safe; start it again and run the same command")
    assert driver.returncode == 1


def test_a_ray_that_lost_a_part_while_starting_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What died before anybody looked leaves no trace to look at: the run would wait for ever."""
    begun: list[list[str]] = []

    class Process:
        def __init__(self, name: str) -> None:
            self._name = name

        def name(self) -> str:
            return self._name

        def is_running(self) -> bool:
            return True

        def status(self) -> str:
            return psutil.STATUS_SLEEPING

    class Here:
        def children(self) -> list[Process]:
            return [Process(n) for n in begun[-1]]

    parts = iter([["raylet"], [], ["raylet", "gcs_server"]])
    monkeypatch.setattr(pool, "_start_local", lambda cpus: begun.append(next(parts)))
    monkeypatch.setattr(pool, "_shut_down", lambda: None)
    monkeypatch.setattr(pool.psutil, "Process", Here)
    assert pool._start_whole(2).answers() and len(begun) == 3
    parts = iter([["gcs_server"]] * 9)
    with pytest.raises(RenderError, match="use --serial"):
        pool._start_whole(2)
