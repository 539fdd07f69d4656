"""A process that forks writers for test_remote_kills: each dies by SIGKILL at a named point of the commit protocol.

Reads lines `place videos step` and answers `status points`, the points it passed. It never uses the object store itself,
since the store's client does not survive fork.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from dataengine.store.backend import Backend, open_backend
from dataengine.store.commits import unit_name
from dataengine.store.files import json_bytes
from dataengine.store.repository import Repository
from tests.store.synthetic import synthetic_video

CHANGES = ("put_new", "put", "swap")


class Mortal:
    """A backend that kills the process just before or just after its `step`-th change."""

    def __init__(self, backend: Backend, step: int, note: Callable[[str], None]) -> None:
        self.backend, self.step, self.note, self.count = backend, step, note, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.backend, name)
        if name not in CHANGES:
            return method

        def call(key: str, *rest: Any) -> Any:
            self.point(f"before {name} {key.split('/')[0]}")
            result = method(key, *rest)
            self.point(f"after {name} {key.split('/')[0]}")
            return result

        return call

    def point(self, name: str) -> None:
        self.count += 1
        if self.count == self.step:
            self.note(name)
            os.kill(os.getpid(), signal.SIGKILL)


def small_video(index: int):
    return synthetic_video(index, frames=1, size=(4, 6), modalities=("rgb",))


def job(backend: Any, videos: int) -> None:
    """What a run does to a dataset: it may have died before, anywhere."""
    repository = Repository(backend, "tiny", {}, "a" * 64)
    backend.put_new("dataset.json", json_bytes({"name": "tiny"}))
    done = set(repository.units())
    for index in range(videos):
        if unit_name(index) not in done:
            repository.add(index, small_video(index), "train")
            if index % 3 == 2:
                repository.snapshot("render")
    repository.snapshot("render")


def main() -> None:
    for line in sys.stdin:
        place, videos, step = line.split()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 9
            try:
                job(Mortal(open_backend(place), int(step), lambda name, to=write: os.write(to, name.encode()) and None), int(videos))
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with os.fdopen(read, "rb") as pipe:
            point = pipe.read().decode()
        sys.stdout.write(f"{status} {point}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
