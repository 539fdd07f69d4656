"""Handlers for the tests of the worker processes; imported by the workers, never by the tests themselves."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from dataengine.errors import RobotError, SceneError
from dataengine.render.zygote_child import FreshStart

hoard = []


def broken_setup(payload):
    raise RobotError("no robot here; use another") if payload.get("expected") else KeyError("missing")


def caching_setup(payload):
    """First start fills a cache and asks for a fresh process."""
    cache = Path(payload["cache"])
    if not cache.exists():
        cache.write_text(str(os.getpid()))
        return FreshStart()
    return lambda request: {"filled_by": int(cache.read_text()), "parent": os.getppid()}


def dying_setup(payload):
    os.kill(os.getpid(), signal.SIGKILL)


def make(payload):
    table = np.arange(100_000) % 251
    return lambda request: ACTIONS[request["action"]](request, table)


def _addresses(request, table):
    stack = ctypes.c_int(0)
    return {
        "object": id(object()),
        "small": np.empty(10).ctypes.data,
        "large": np.empty(4_000_000).ctypes.data,
        "stack": ctypes.addressof(stack),
        "list": id([None] * 10_000),
        "hash": hash("salted?"),
        "set": list({f"k{i}" for i in range(20)}),
        "table": int(table.ctypes.data),
        "cwd": os.getcwd(),
        "environ": sorted(os.environ),
        "fds": len(os.listdir("/proc/self/fd")),
    }


def _dirty(request, table):
    hoard.extend(np.random.default_rng(request["seed"]).integers(0, 99, 10_000).tolist())
    table[:] = 0
    print("noise " * request["seed"])
    return {"hoard": len(hoard), "text": "x" * (request["seed"] * 997)}


def _write(request, table):
    """Stands for a video: one file per unit, published atomically, so that doing it twice is visible as an attempt."""
    out = Path(request["out"])
    with open(out / "attempts.log", "a") as log:
        log.write(f"{request['video']}\n")
    time.sleep(request.get("sleep_s", 0.0))
    if request["video"] in request.get("poison", []):
        os.kill(os.getpid(), signal.SIGSEGV)
    if request["video"] in request.get("unsampleable", []):
        raise SceneError("no camera sees the robot in 200 tries (never in image: 200)")
    staged = out / f".{request['video']}.{os.getpid()}"
    staged.write_text(f"video {request['video']}")
    staged.rename(out / f"{request['video']}.txt")
    return {"video": request["video"], "digest": f"d{request['video']}", "bytes": 7, "cpu": {"cycles": 0.1}, "rejections": {"far": 1}}


def _commit(request, table):
    """A shard and its commit, each published by one rename."""
    out, video = Path(request["out"]), request["video"]
    time.sleep(0.1)
    for folder, name, text in (("shards", f"{video:03d}", "data"), ("commits", f"{video:03d}.json", f'{{"unit": {video}}}')):
        staged = out / f".{video}.{os.getpid()}"
        staged.write_text(text)
        staged.rename(out / folder / name)
    return {"video": video}


def _raise(request, table):
    raise SceneError("cannot be sampled; widen camera.distance_m") if request["expected"] else ZeroDivisionError("oops")


def _grow(request, table):
    while True:
        hoard.append(np.ones(4_000_000))
        time.sleep(0.01)


def _chatter(request, table):
    os.write(1, b"x" * 300_000)
    print("last words", file=sys.stderr)
    return {}


def _orphan(request, table):
    """Tell who we are, then stay: the supervisor dies meanwhile."""
    Path(request["pid_file"]).write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(60)


ACTIONS = {
    "addresses": _addresses,
    "dirty": _dirty,
    "write": _write,
    "commit": _commit,
    "raise": _raise,
    "grow": _grow,
    "chatter": _chatter,
    "orphan": _orphan,
    "hang": lambda r, t: time.sleep(60),
    "segfault": lambda r, t: ctypes.string_at(0),
    "exit": lambda r, t: os._exit(7),
    "spin": lambda r, t: {"sum": sum(i * i for i in range(3_000_000))},
    "unserialisable": lambda r, t: {"a": object()},
    "who": lambda r, t: {"pid": os.getpid(), "zygote": os.getppid(), "cores": sorted(os.sched_getaffinity(0))},
    "suicide": lambda r, t: os.kill(os.getpid(), signal.SIGKILL),
    "fratricide": lambda r, t: (os.kill(os.getppid(), signal.SIGKILL), time.sleep(60)),
}
