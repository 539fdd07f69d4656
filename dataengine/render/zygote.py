"""The supervisor's side of a zygote: start it, hand it requests, enforce limits, tell what became of each.

A fork per request means that a segmentation fault, a hang or a memory blow-up costs that one request. The process tree
cleans itself up: the zygote ends when its supervisor's end of the control socket closes, a fork when its zygote ends.
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dataengine.errors as errors
from dataengine.errors import DataEngineError, RenderError
from dataengine.render.outcome import Outcome, Status
from dataengine.render.zygote_child import FORK, HEADER_BYTES, PID, REAP, Command, Exit, encode

_LOG_BYTES = 4096
_TICK_S = 0.1
_REPLY_S = 60.0
_START_TRIES = 5
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True)
class Recipe:
    """How to make a worker. `setup` is `package.module:function`; it gets `payload` (JSON) and returns the handler.

    What differs between runs that must give equal bits (output folders, say) belongs into the requests, not into the
    payload: a longer string there moves what the setup allocates after it.
    """

    setup: str
    payload: dict[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the worker's fixed environment; nothing else of the caller's environment gets through."""
    python_path: Sequence[str] = ()
    """Absolute folders added to the worker's import path."""
    start_s: float = 600.0
    """Limit of one start-up."""


class _Died(Exception):
    """The zygote went away."""


class Zygote:
    """One zygote process, pinned to `core` if given. Not for concurrent use, but `kill` may come from another thread."""

    def __init__(self, recipe: Recipe, core: int | None = None) -> None:
        self.recipe = recipe
        self.core = core
        self.starts = 0
        self.facts: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._log_fd = -1
        self._log = bytearray()
        self._aborted = False

    def __enter__(self) -> "Zygote":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address_randomisation(self) -> bool:
        """True where the system refuses to switch address randomisation off (known after `start`)."""
        return bool(self.facts.get("address_randomisation", True))

    @property
    def pid(self) -> int | None:
        """Process id of the zygote, None when there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start, set up and warm up; a no-op if it runs. Raises the setup's DataEngineError, or RenderError."""
        if sys.platform != "linux":
            raise RenderError(f"rendering needs Linux, this is {sys.platform}; use a Linux machine or container")
        if self.pid is not None:
            return
        restarted = False
        for _ in range(_START_TRIES):
            self._stop()
            try:
                self._spawn()
                reply = self._ready()
                if reply["status"] == "error":
                    self._stop()
                    raise revive(reply)
                if reply["fresh_start"] and not restarted:
                    restarted = True
                    continue
                self._attempt(None, _REPLY_S, float("inf"))  # the first fork binds symbols in the zygote; later ones change nothing
            except _Died:
                if self._aborted:
                    raise RenderError("the worker was stopped while it started") from None
                continue
            self.facts = reply
            self.starts += 1
            return
        tail = self._tail().strip().splitlines()
        self._stop()
        raise RenderError(f"a render worker died {_START_TRIES} times while starting; its last words: {tail[-1] if tail else 'none'}")

    def run(self, request: dict[str, Any], wall_s: float, memory_mb: float) -> Outcome:
        """Answer one request in a fresh fork. `wall_s` and `memory_mb` (resident, 1e6 bytes, the zygote's own pages
        included) are limits after which the fork is killed. Only starting up can raise; see `start`."""
        self.start()
        self._drain_log()
        self._log.clear()
        started = time.monotonic()
        try:
            return self._attempt(request, wall_s, memory_mb)
        except _Died:
            message = self._cause_of_death()
            self._stop()
            return Outcome("killed", None, message, log_tail=self._tail(), wall_s=time.monotonic() - started)

    def kill(self) -> None:
        """SIGKILL the zygote, and with it its fork; safe from another thread. The next `run` starts a new one."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def abort(self) -> None:
        """End for good, also from another thread while `start` or `run` is under way."""
        self._aborted = True
        self.kill()

    def close(self) -> None:
        """End the process tree. Not from another thread; see `abort`."""
        self._stop()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        log_read, log_write = os.pipe()
        r = self.recipe
        root = str(Path(__file__).resolve().parents[2])
        arguments = (theirs.fileno(), self.core, [os.path.abspath(p) for p in r.python_path], dict(r.env))
        code = f"import sys; sys.path.insert(0, {root!r}); from dataengine.render.zygote_child import launch; launch(*{arguments!r})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.DEVNULL, stdout=log_write, stderr=log_write,
                pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()
            os.close(log_write)
        os.set_blocking(log_read, False)
        ours.settimeout(_REPLY_S)
        self._control, self._log_fd = ours, log_read
        self._log.clear()
        if self._aborted:
            raise _Died

    def _ready(self) -> dict[str, Any]:
        """Send the setup, wait for its answer."""
        control = self._require_control()
        hello = {"setup": self.recipe.setup, "payload": self.recipe.payload, "start_s": self.recipe.start_s}
        try:
            control.sendall(encode(hello))
        except OSError as e:
            raise _Died from e
        reader, deadline = _Reader(control), time.monotonic() + self.recipe.start_s
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            selector.register(self._log_fd, selectors.EVENT_READ)
            while reader.message is None:
                if time.monotonic() > deadline:
                    self._stop()
                    limit_s = self.recipe.start_s
                    raise RenderError(f"a render worker was not ready after {limit_s:g} s; see whether this machine is overloaded")
                ready = {key.fd for key, _ in selector.select(1.0)}
                if self._log_fd in ready and not self._drain_log():
                    selector.unregister(self._log_fd)
                if control.fileno() in ready and not reader.feed():
                    raise _Died
        return reader.message

    def _attempt(self, request: dict[str, Any] | None, wall_s: float, memory_mb: float) -> Outcome:
        """One fork, one request; None asks for nothing."""
        started = time.monotonic()
        pid, limit = -1, None
        with self._fork() as channel:
            reader = _Reader(channel)
            with contextlib.suppress(ConnectionError):  # it died early: the exit status tells
                pid = PID.unpack(_exactly(channel, PID.size))[0]
                channel.sendall(encode({"request": request}))
                limit = self._watch(pid, reader, started + wall_s, memory_mb)
        end = self._reap(pid)
        self._drain_log()
        cost = {"log_tail": self._tail(), "cpu_s": end.cpu_s, "wall_s": time.monotonic() - started, "peak_rss_mb": end.peak_rss_mb}
        if reader.message is not None:
            return Outcome(**reader.message, **cost)
        return _post_mortem(limit, end.status, wall_s, memory_mb, cost)

    def _watch(self, pid: int, reader: "_Reader", deadline_s: float, memory_mb: float) -> Status | None:
        """Follow one fork to its answer or end; returns the limit it was killed for, if any."""
        control, limit = self._require_control(), None
        with selectors.DefaultSelector() as selector:
            for fd in (reader.channel, control, self._log_fd):
                selector.register(fd, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(_TICK_S)}
                if self._log_fd in ready:
                    self._drain_log()
                if control.fileno() in ready:
                    raise _Died  # the zygote says nothing unasked: this is its end
                if reader.channel.fileno() in ready and (not reader.feed() or reader.message is not None):
                    return limit
                if limit is None:
                    limit = "timeout" if time.monotonic() > deadline_s else "memory" if _resident_mb(pid) > memory_mb else None
                    if limit is not None:
                        _kill_group(pid)

    def _fork(self) -> socket.socket:
        """Our end of the new fork's channel."""
        ours, theirs = socket.socketpair()
        ours.settimeout(_REPLY_S)
        try:
            with theirs:
                socket.send_fds(self._require_control(), [bytes(Command(FORK, -1))], [theirs.fileno()])
        except OSError as e:
            ours.close()
            raise _Died from e
        return ours

    def _reap(self, pid: int) -> Exit:
        """Wait for the fork to be gone; until now its process id cannot have been given to another process."""
        control = self._require_control()
        try:
            control.sendall(bytes(Command(REAP, pid)))
            return Exit.from_buffer_copy(_exactly(control, ctypes.sizeof(Exit)))
        except OSError as e:
            raise _Died from e

    def _cause_of_death(self) -> str:
        """One line on a zygote that went away; it is killed where it only fell silent."""
        assert self._process is not None
        try:
            code = self._process.wait(_TICK_S)
        except subprocess.TimeoutExpired:
            return "the worker process fell silent and was ended"
        return (
            f"the worker process was killed from outside ({signal.Signals(-code).name})"
            if code < 0
            else f"the worker process ended (exit code {code})"
        )

    def _require_control(self) -> socket.socket:
        if self._control is None:
            raise _Died
        return self._control

    def _drain_log(self) -> bool:
        """Take what was written to the terminal; False at its end."""
        try:
            while chunk := os.read(self._log_fd, 65536):
                self._log = (self._log + chunk)[-_LOG_BYTES:]
        except BlockingIOError:
            return True
        return False

    def _tail(self) -> str:
        return bytes(self._log).decode(errors="replace")

    def _stop(self) -> None:
        self.kill()
        if self._process is not None:
            self._process.wait()
        if self._control is not None:
            self._control.close()
        if self._log_fd >= 0:
            self._drain_log()
            os.close(self._log_fd)
        self._process, self._control, self._log_fd = None, None, -1


class _Reader:
    """Gathers one message from a channel as it trickles in."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.message: dict[str, Any] | None = None
        self._data = bytearray()

    def feed(self) -> bool:
        """Take what is there; False at the end of the channel."""
        try:
            chunk = self.channel.recv(1 << 20)
        except ConnectionResetError:
            return False
        self._data += chunk
        if len(self._data) >= HEADER_BYTES and len(self._data) >= HEADER_BYTES + int(self._data[:HEADER_BYTES]):
            self.message = json.loads(self._data[HEADER_BYTES:])
        return bool(chunk)


def revive(reply: Mapping[str, Any]) -> Exception:
    """The exception behind an `error` message: the same DataEngineError, or a RuntimeError with the traceback for a defect."""
    if not reply["expected"]:
        return RuntimeError(f"defect in a render worker:\n{reply['message']}")
    kind = getattr(errors, str(reply["error_type"]), DataEngineError)
    return kind(reply["message"])


def _post_mortem(limit: Status | None, status: int, wall_s: float, memory_mb: float, cost: dict[str, Any]) -> Outcome:
    if limit == "timeout":
        return Outcome("timeout", None, f"took longer than {wall_s:g} s (limits.wall_s)", **cost)
    if limit == "memory":
        return Outcome("memory", None, f"needed more than {memory_mb:g} MB (limits.memory_mb)", **cost)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL:
            return Outcome("killed", None, "killed from outside (SIGKILL; the system may be short of memory)", **cost)
        return Outcome("crash", None, f"died of {signal.Signals(number).name}", **cost)
    return Outcome("crash", None, f"ended without an answer (exit code {os.waitstatus_to_exitcode(status)})", **cost)


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = channel.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError("the other side closed the channel")
        data += chunk
    return data


def _resident_mb(pid: int) -> float:
    """Resident memory in 1e6 bytes; 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB
    except (OSError, IndexError):
        return 0.0


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
