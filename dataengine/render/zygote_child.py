"""The worker side of a zygote: a process that loads everything once and forks a fresh child for every request.

Two stages. `launch` gives the process the same start whoever calls it: address randomisation off, one core, fixed
environment, folder, stack limit and signal mask; then it replaces itself. `serve` runs the setup function once and
then obeys its supervisor: fork, reap, fork, reap. Every fork starts from the same memory, so a renderer whose
rounding depends on addresses gives the same bits whatever was rendered before and whichever worker does it.

Nothing here depends on the caller's timing: messages have a fixed-size header and padded bodies that are read in one
call, and the zygote itself never sees a request, only its forks do.
"""

import ctypes
import faulthandler
import gc
import importlib
import importlib.machinery
import json
import os
import pwd
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dataengine.errors import DataEngineError

Handler = Callable[[dict[str, Any]], dict[str, Any]]

CONTROL_FD: Final = 3
PAD_BYTES: Final = 65536
HEADER_BYTES: Final = 16
FORK, REAP = 1, 2
PID: Final = struct.Struct("<q")

_ADDR_NO_RANDOMIZE: Final = 0x0040000
_PERSONALITY_QUERY: Final = 0xFFFFFFFF
_PR_SET_PDEATHSIG: Final = 1
_STACK_BYTES: Final = 8 << 20
_TAIL_CHARACTERS: Final = 3000


class Command(ctypes.Structure):
    """Supervisor → zygote: FORK (with the fork's channel attached) or REAP of `pid` (-1: whichever child there is)."""

    _fields_ = [("order", ctypes.c_int), ("pid", ctypes.c_int)]


class Exit(ctypes.Structure):
    """Zygote → supervisor after REAP: wait status and the first five words of `struct rusage`, see getrusage(2)."""

    _fields_ = [("status", ctypes.c_int), ("usage", ctypes.c_long * 18)]

    @property
    def cpu_s(self) -> float:
        u = self.usage
        return u[0] + u[2] + (u[1] + u[3]) * 1e-6

    @property
    def peak_rss_mb(self) -> float:
        return self.usage[4] * 1024 / 1e6


class _IoVector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _MessageHeader(ctypes.Structure):
    """`struct msghdr` of recvmsg(2)."""

    _fields_ = [
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("vectors", ctypes.c_void_p), ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int),
    ]  # fmt: skip


class _Rights(ctypes.Structure):
    """`struct cmsghdr` with one file descriptor, see cmsg(3)."""

    _fields_ = [("length", ctypes.c_size_t), ("level", ctypes.c_int), ("type", ctypes.c_int), ("fd", ctypes.c_int), ("pad", ctypes.c_int)]


class FreshStart:
    """A setup function returns this after it filled on-disk caches (baked meshes, compiled kernels): the process that
    filled a cache has another memory history than one that reads it, so the supervisor starts a new one."""


def canonical_environment(root: str, extra: dict[str, str], library_path: str | None) -> dict[str, str]:
    """Everything the worker may know of its environment. `root` is the folder that holds the package."""
    fixed = {
        "HOME": pwd.getpwuid(os.getuid()).pw_dir,
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": root,
        "PYTHONNOUSERSITE": "1",
        "MKL_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if library_path:
        fixed["LD_LIBRARY_PATH"] = library_path  # some machines need it to find the renderer's libraries at all
    return dict(sorted((fixed | extra).items()))


def address_randomised() -> bool:
    """True where this process has randomised addresses, so that rendered colour is not bitwise reproducible."""
    flags = ctypes.CDLL(None).personality(ctypes.c_ulong(_PERSONALITY_QUERY))
    return flags < 0 or not flags & _ADDR_NO_RANDOMIZE


def launch(control_fd: int, core: int | None, python_path: list[str], extra_env: dict[str, str]) -> None:
    """Stage one: canonicalise this process and replace it by stage two."""
    import compileall

    package = Path(__file__).resolve().parents[1]
    # A module that is compiled rather than read from its cache leaves another memory behind: compile all beforehand.
    compileall.compile_dir(str(package), quiet=2, legacy=False)
    ctypes.CDLL(None).personality(ctypes.c_ulong(_ADDR_NO_RANDOMIZE))  # refused by some sandboxes: then the record says so
    if core is not None and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    soft = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))  # it moves the base of every mapping
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    if control_fd != CONTROL_FD:
        os.dup2(control_fd, CONTROL_FD, inheritable=True)
    os.set_inheritable(CONTROL_FD, True)
    os.closerange(CONTROL_FD + 1, 4096)
    env = canonical_environment(":".join([str(package.parent), *python_path]), extra_env, os.environ.get("LD_LIBRARY_PATH"))
    os.chdir("/")
    os.execve(sys.executable, [sys.executable, "-c", "from dataengine.render.zygote_child import serve; serve()"], env)


def serve() -> None:
    """Stage two: set up once, then fork and reap on command until the supervisor goes away."""
    os.set_inheritable(CONTROL_FD, False)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides who stops
    control = socket.socket(fileno=CONTROL_FD)
    hello = receive(control)
    signal.alarm(int(hello["start_s"]) + 1)  # an orphan that hangs in its setup does not stay for ever
    handler = _set_up(control, hello["setup"], hello["payload"])
    signal.alarm(0)
    if handler is None:
        return
    gc.collect()
    gc.freeze()
    _Nursery(control.fileno()).serve(lambda fd, zygote_pid: _forked(zygote_pid, control, fd, handler))


class _Nursery:
    """The fork-and-reap loop, written so that an iteration leaves the heap exactly as it found it.

    Anything that Python allocates and frees in another order permutes its free lists, and the next fork starts with
    other addresses. So all buffers and argument tuples exist beforehand, results are small cached integers, and the
    process id travels inside buffers; only `fork` returns one, which is freed again before anything else is allocated.
    `fork` is the C library's: Python's own runs hooks in the parent.
    """

    def __init__(self, control_fd: int) -> None:
        libc = ctypes.PyDLL(None)
        self.command = Command()
        self.rights = _Rights()
        vector = _IoVector(ctypes.addressof(self.command), ctypes.sizeof(Command))
        self.message = _MessageHeader(None, 0, ctypes.addressof(vector), 1, ctypes.addressof(self.rights), ctypes.sizeof(_Rights), 0)
        self.exit = Exit()
        fd = ctypes.c_int(control_fd)
        pid = ctypes.c_int.from_buffer(self.command, Command.pid.offset)
        self.keep = vector, fd, pid
        self.fork, self.wait4, self.close = libc.fork, libc.wait4, libc.close
        self.fork.restype = ctypes.c_int  # a process id; c_bool looks at its lowest byte only, 0 for every 256th child
        self.wait4.restype = self.close.restype = None
        self.receive, self.send = libc.recvmsg, libc.send
        self.receive_arguments = fd, ctypes.pointer(self.message), ctypes.c_int(socket.MSG_WAITALL)
        usage = ctypes.c_void_p(ctypes.addressof(self.exit) + Exit.usage.offset)
        self.wait_arguments = pid, ctypes.c_void_p(ctypes.addressof(self.exit)), ctypes.c_int(0), usage
        size = ctypes.c_size_t(ctypes.sizeof(Exit))
        self.send_arguments = fd, ctypes.c_void_p(ctypes.addressof(self.exit)), size, ctypes.c_int(socket.MSG_NOSIGNAL)
        self.close_arguments = (ctypes.c_int.from_buffer(self.rights, _Rights.fd.offset),)
        self.room = ctypes.sizeof(_Rights)
        self.arrived = ctypes.sizeof(Command)

    def serve(self, child: Callable[[int, int], None]) -> None:
        """Obey until the supervisor closes its end; `child(channel fd, zygote's process id)` is the life of a fork."""
        zygote_pid = os.getpid()
        while self.receive(*self.receive_arguments) == self.arrived:
            if self.command.order == FORK:
                if not self.fork():
                    ctypes.pythonapi.PyOS_AfterFork_Child()
                    child(self.rights.fd, zygote_pid)
                self.close(*self.close_arguments)
            else:
                self.wait4(*self.wait_arguments)
                self.send(*self.send_arguments)
            self.message.control_length = self.room  # recvmsg overwrites it with what it used


def _set_up(control: socket.socket, setup: str, payload: dict[str, Any]) -> Handler | None:
    """Run `package.module:function` on the payload and say how it went; None if there is nothing to serve."""
    compiled = _count_compilations()
    try:
        module, _, function = setup.partition(":")
        handler = getattr(importlib.import_module(module), function)(payload)
    except Exception as error:
        send(control, failure(error))
        return None
    facts = {
        "fresh_start": isinstance(handler, FreshStart) or compiled[0] > 0,
        "address_randomisation": address_randomised(),
        "cores": sorted(os.sched_getaffinity(0)),
    }
    send(control, {"status": "ready", **facts})
    return None if isinstance(handler, FreshStart) else handler


def _count_compilations() -> list[int]:
    """A counter of modules that had to be compiled from source from now on."""
    count = [0]
    loader: Any = importlib.machinery.SourceFileLoader
    original = loader.source_to_code

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return original(self, *args, **kwargs)

    loader.source_to_code = counted
    return count


def _forked(zygote_pid: int, control: socket.socket, fd: int, handler: Handler) -> None:
    """Life of one fork: die with the zygote, read one request, answer it, leave without any clean-up."""
    code = 1
    try:
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote_pid:
            os._exit(1)
        os.setpgid(0, 0)
        control.close()
        os.set_inheritable(fd, False)
        channel = socket.socket(fileno=fd)
        channel.sendall(PID.pack(os.getpid()))
        request = receive(channel)["request"]
        reply = {"status": "ok", "result": {}} if request is None else _answer(handler, request)
        sys.stdout.flush()
        sys.stderr.flush()
        libc.fflush(None)
        send(channel, reply)
        code = 0
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _answer(handler: Handler, request: dict[str, Any]) -> dict[str, Any]:
    try:
        result = handler(request)
        json.dumps(result)
    except Exception as error:
        return failure(error)
    return {"status": "ok", "result": result}


def failure(error: Exception) -> dict[str, Any]:
    """An exception as a message: one line where the input is at fault, the traceback's tail where we are.

    The name is that of the nearest class in `dataengine.errors`, which the other side can make again.
    """
    expected = isinstance(error, DataEngineError)
    name = next((c.__name__ for c in type(error).__mro__ if c.__module__ == DataEngineError.__module__), type(error).__name__)
    text = str(error) if expected else "".join(traceback.format_exception(error))[-_TAIL_CHARACTERS:]
    return {"status": "error", "error_type": name, "expected": expected, "message": text}


def encode(message: dict[str, Any]) -> bytes:
    """Header with the body's length, then JSON padded with blanks to whole 64 KiB, so that sizes tell nothing apart."""
    body = json.dumps(message).encode()
    body += b" " * (-len(body) % PAD_BYTES)
    return f"{len(body):{HEADER_BYTES}d}".encode() + body


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(encode(message))


def receive(channel: socket.socket) -> dict[str, Any]:
    """One message, read in two calls whatever the sender's timing; EOFError when the other side is gone."""
    header = channel.recv(HEADER_BYTES, socket.MSG_WAITALL)
    body = channel.recv(int(header), socket.MSG_WAITALL) if len(header) == HEADER_BYTES else b""
    if len(header) != HEADER_BYTES or len(body) != int(header):
        raise EOFError("the other side closed the channel")
    return json.loads(body)
