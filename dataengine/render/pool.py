"""Workers as Ray actors, one per core, on this machine or on a cluster. The only module that knows Ray.

Each actor owns a zygote on its node; only requests and receipts (about 1 kB) travel. Ray restarts and retries nothing:
an actor that dies is replaced here, its unit goes back to the ledger, and no unit is ever given to an actor that is not
known to be alive.
"""

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dataengine.errors import RenderError
from dataengine.render.cores import claim_core
from dataengine.render.executor import ClusterGone, Limits, Report
from dataengine.render.lease import Lease
from dataengine.render.outcome import Outcome
from dataengine.render.zygote import Recipe, Zygote, revive
from dataengine.render.zygote_child import failure

_START_TRIES = 4
_CHECK_EVERY_S = 1.0
_GROW_EVERY_S = 10.0
_GONE_AFTER_S = 15.0
_SHUTDOWN_S = 20.0
_VITAL = ("raylet", "gcs_server")
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    "RAY_agent_register_timeout_ms": "60000",  # the default fails on a machine that is busy
}


class RenderActor:
    """Lives in a Ray worker process: owns a zygote on a core of its own."""

    def __init__(self, recipe: Recipe) -> None:
        self._claim = claim_core()
        self._zygote = Zygote(recipe, self._claim.core)

    def ready(self) -> dict[str, Any]:
        """Start the zygote; its facts, or why it cannot be."""
        try:
            self._zygote.start()
        except Exception as error:
            return failure(error)
        return {"status": "ready", "node": socket.gethostname(), **self._zygote.facts}

    def run(self, request: dict[str, Any], limits: Limits) -> dict[str, Any]:
        """One attempt; an `Outcome`, or why the zygote could not be started again."""
        try:
            return {"status": "ran", "outcome": self._zygote.run(request, limits.wall_s, limits.memory_mb)}
        except Exception as error:
            return failure(error)


@dataclass
class _Pending:
    """What a reference stands for: an actor's start-up (no lease) or an attempt."""

    worker: str
    lease: Lease | None


class RayPool:
    """Ray actors as an `Executor`.

    Parameters
    ----------
    workers
        number of actors; None = one per processor of the machine or, on a cluster, of all its nodes as they come and go
    address
        of a running cluster, or None to start Ray on this machine for the time of the run
    """

    def __init__(self, recipe: Recipe, workers: int | None = None, address: str | None = None) -> None:
        self._recipe, self._wanted, self._address = recipe, workers, address
        self._actors: dict[str, Any] = {}
        self._pending: dict[Any, _Pending] = {}
        self._idle: list[str] = []
        self._names = (f"ray/{i}" for i in itertools.count())
        self._health: _LocalHealth | _ClusterHealth | None = None
        self._next_growth_s = 0.0

    @property
    def workers(self) -> Sequence[str]:
        return tuple(self._actors)

    def start(self) -> None:
        if self._address is None:
            self._health = _start_whole(self._wanted or len(os.sched_getaffinity(0)))
        else:
            _connect(self._address)
            self._health = _ClusterHealth(self._address)
        self._grow()

    def idle(self) -> Sequence[str]:
        return tuple(self._idle)

    def give(self, lease: Lease, request: dict[str, Any], limits: Limits) -> None:
        self._idle.remove(lease.worker)
        self._pending[self._actors[lease.worker].run.remote(request, limits)] = _Pending(lease.worker, lease)

    def wait(self, timeout_s: float) -> list[Report]:
        import ray

        if self._health is not None and not self._health.good():
            return self._recover()
        self._grow()
        if not self._pending:
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return [report for ref in ready if (report := self._take(ref)) is not None]

    def close(self) -> None:
        import ray
        from ray.exceptions import RayError

        if self._address is not None:
            for actor in self._actors.values():
                with contextlib.suppress(RayError):
                    ray.kill(actor)
        _shut_down()
        self._actors, self._pending, self._idle = {}, {}, []

    def _take(self, ref: Any) -> Report | None:
        """Book one reference that is ready."""
        import ray
        from ray.exceptions import RayError

        pending = self._pending.pop(ref)
        try:
            answer: Any = ray.get(ref)
        except RayError as error:
            self._bury(pending.worker)
            lost = Outcome("killed", None, f"worker {pending.worker} died ({type(error).__name__})")
            return Report(pending.lease, lost) if pending.lease else None
        if answer["status"] == "error":
            raise revive(answer)
        self._idle.append(pending.worker)
        return Report(pending.lease, answer["outcome"]) if pending.lease else None

    def _bury(self, worker: str) -> None:
        """Forget an actor; the next growth puts another in its place."""
        import ray
        from ray.exceptions import RayError

        actor = self._actors.pop(worker, None)
        if actor is not None and self._control_answers():
            with contextlib.suppress(RayError):
                ray.kill(actor)  # unreachable is not dead: it must not go on beside its successor
        self._next_growth_s = 0.0

    def _grow(self) -> None:
        """Create actors up to the wanted number; on a cluster follow the number of processors."""
        now = time.monotonic()
        if now < self._next_growth_s or not self._control_answers():
            return
        import ray

        self._next_growth_s = now + _GROW_EVERY_S
        wanted = self._wanted or int(ray.cluster_resources().get("CPU", 0))
        make: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(RenderActor)
        while len(self._actors) < wanted:
            name = next(self._names)
            actor = make.remote(self._recipe)
            self._actors[name] = actor
            self._pending[actor.ready.remote()] = _Pending(name, None)

    def _control_answers(self) -> bool:
        """Ray's calls to its control service block for a minute and then end this very process: ask first."""
        return self._health is not None and self._health.answers()

    def _recover(self) -> list[Report]:
        """Ray itself died. On this machine start it again; a cluster is its owner's business."""
        if self._address is not None:
            raise ClusterGone(f"the Ray cluster at {self._address} went away")
        lost = Outcome("killed", None, "Ray's own process died and was started again")
        reports = [Report(p.lease, lost) for p in self._pending.values() if p.lease]
        self.close()
        self._next_growth_s = 0.0
        self.start()
        return reports


class _LocalHealth:
    """Are the raylet and the control process that `ray.init` started for us still there?"""

    def __init__(self) -> None:
        self._vital = [p for p in psutil.Process().children() if p.name() in _VITAL]

    def good(self) -> bool:
        return self.answers()

    def answers(self) -> bool:
        try:
            # One that died while Ray was starting may be gone already: then nothing ever answers, and nothing looks dead
            return len(self._vital) == len(_VITAL) and all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in self._vital)
        except psutil.NoSuchProcess:
            return False


class _ClusterHealth:
    """Does the cluster's control service answer, and does it count our own node among the living?"""

    def __init__(self, address: str) -> None:
        import ray

        context = ray.get_runtime_context()
        host, _, port = (context.gcs_address or address).rpartition(":")
        self._control, self._node_id = (host.strip("[]"), int(port)), context.get_node_id()
        self._next_s, self._last_good_s = 0.0, time.monotonic()

    def good(self) -> bool:
        """False once it has not answered for a while; networks have hiccups."""
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + _CHECK_EVERY_S
            if self.answers() and self._counts_us():
                self._last_good_s = now
        return now - self._last_good_s < _GONE_AFTER_S

    def answers(self) -> bool:
        """Now."""
        try:
            socket.create_connection(self._control, timeout=2.0).close()
        except OSError:
            return False
        return True

    def _counts_us(self) -> bool:
        import ray

        return any(node["NodeID"] == self._node_id and node["Alive"] for node in ray.nodes())


def _start_whole(cpus: int) -> _LocalHealth:
    """Start Ray on this machine until all of it is there."""
    for _ in range(_START_TRIES):
        _start_local(cpus)
        if (health := _LocalHealth()).answers():
            return health
        _shut_down()
    raise RenderError(f"Ray's processes died {_START_TRIES} times while they were starting; use --serial to do without it")


def _start_local(cpus: int) -> None:
    """Start Ray on this machine. Never attaches to a cluster that an earlier run may have left behind."""
    import ray

    error: Exception | None = None
    for attempt in range(_START_TRIES):
        try:
            with _environment(_QUIET):
                _hush()
                ray.init(
                    address="local", num_cpus=cpus, num_gpus=0, include_dashboard=False, log_to_driver=False,
                    logging_level=logging.CRITICAL, object_store_memory=80_000_000,
                )  # fmt: skip
            return
        except Exception as e:  # a raylet that loses the race against its own timeouts shows in many types
            error = e
            _shut_down()
            time.sleep(1.0 + attempt)
    last = str(error).strip().splitlines()[-1:] or ["no message"]
    raise RenderError(f"Ray did not start on this machine after {_START_TRIES} tries ({last[0]}); use --serial to do without it")


def _connect(address: str) -> None:
    import ray

    advice = "start it with `ray start --head`, or unset RAY_ADDRESS to use this machine"
    if "://" in address:
        raise RenderError(f"cannot use the Ray address {address}; run this command on a node of the cluster and give host:port, or auto")
    _check_reachable(address, advice)
    try:
        with _environment(_QUIET):
            _hush()
            path = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, runtime_env=path)
    except Exception as e:  # refused, timed out, wrong version: Ray raises what it likes
        _shut_down()
        last = str(e).strip().splitlines()[:1] or [type(e).__name__]
        raise RenderError(f"cannot join the Ray cluster at {address} ({last[0][:200]}); {advice}") from e


def _check_reachable(address: str, advice: str) -> None:
    """Ray itself tries for minutes and writes to the terminal meanwhile."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return  # `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except OSError as e:
        raise RenderError(f"cannot join the Ray cluster at {address} ({e.strerror or e}); {advice}") from e


def _hush() -> None:
    """Ray's listener prints pages of a dead raylet's log to the terminal; the driver says what matters."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_args, **_kwargs: None


def _shut_down() -> None:
    """`ray.shutdown`, which may wait for ever on a dead cluster, for a limited time; then end what it left of a half-dead one."""
    import ray

    thread = threading.Thread(target=ray.shutdown, daemon=True)
    thread.start()
    thread.join(_SHUTDOWN_S)
    left = [p for p in psutil.Process().children() if p.name() in _VITAL]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5.0)


@contextlib.contextmanager
def _environment(extra: dict[str, str]) -> Iterator[None]:
    """Environment variables for what is started inside, unless the user has set them."""
    before = dict(os.environ)
    os.environ.update({k: v for k, v in extra.items() if k not in before})
    root = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [before.get("PYTHONPATH")])])
    try:
        yield
    finally:
        for name in [*extra, "PYTHONPATH"]:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
