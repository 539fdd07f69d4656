"""Which processor core a worker may have for itself: one lock file per core and user, released by the kernel at death."""

import fcntl
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Claim:
    """A core and, where it is ours alone, the descriptor that holds its lock."""

    core: int
    fd: int | None

    def release(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


def claim_core(cores: Iterable[int] | None = None, folder: Path | None = None) -> Claim:
    """The first allowed core that no other worker of this user has claimed; a shared one when all are taken.

    `cores` defaults to those this process may run on.
    """
    allowed = sorted(os.sched_getaffinity(0)) if cores is None else list(cores)
    folder = folder or Path(tempfile.gettempdir()) / f"dataengine-cores-{os.getuid()}"
    for core in allowed:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(folder / str(core), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            break  # no place for locks: share
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Claim(core, fd)
        except OSError:
            os.close(fd)
    return Claim(allowed[os.getpid() % len(allowed)], None)
