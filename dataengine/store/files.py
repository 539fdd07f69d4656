"""The few file-system operations that everything durable in the store is made of.

Every `OSError` becomes one clear line here: a full disk, a folder that may not be written, anything else.
"""

import errno
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataengine.errors import RecordError, StoreError


class DiskFull(StoreError):
    """No space (or quota) left. `safe` of `total` videos are committed; None where the writer does not know."""

    def __init__(self, path: str, safe: int | None = None, total: int | None = None) -> None:
        super().__init__(path, safe, total)
        self.path, self.safe, self.total = path, safe, total

    def __str__(self) -> str:
        if self.safe is None:
            count = "every committed video is safe"
        elif self.total is None:
            count = f"{self.safe} committed videos are safe"
        else:
            count = f"{self.safe} of {self.total} videos are safe"
        return f"disk full while writing {self.path}; {count}; free space and run the same command again"


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn an OSError of the body into StoreError naming `path`; FileExistsError passes, it is an answer."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(path)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"cannot write {path}: {os.strerror(error.errno)}; choose another output folder or change its permissions"
            ) from error
        raise StoreError(f"{path}: {error.strerror or error}; check the disk and run the same command again") from error


def json_bytes(value: Any, indent: int | None = 2) -> bytes:
    """Canonical JSON: sorted keys, UTF-8, no NaN; equal values give equal bytes. `indent=None` is what digests use.

    Raises RecordError for what JSON cannot hold.
    """
    try:
        separators = (",", ":") if indent is None else (",", ": ")
        text = json.dumps(value, sort_keys=True, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise RecordError(f"a record holds something that is not JSON ({error}); store plain numbers, text, lists and dicts") from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Parse a JSON object. Raises StoreError naming `what` when it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path} is missing: {what}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}): {what}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path} is damaged (not a JSON object): {what}")
    return value


def write_new(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that must not exist yet. Not yet durable: see `sync_tree`."""
    with reported(path), open(path, "xb") as file:
        for part in parts:
            file.write(part)


def sync(path: Path) -> None:
    """fsync one file or directory."""
    with reported(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """fsync every file, then every directory from the leaves up, then the parent that names `directory`."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in sorted(names):
            sync(Path(folder) / name)
        sync(Path(folder))
    sync(directory.parent)


def create_once(path: Path, data: bytes, scratch: Path) -> bool:
    """Create `path` with `data` whole and durable, or return False because it exists. Exactly one racer wins.

    A synced file from the folder `scratch` (same file system) is hard-linked to the final name: `link` fails when the
    name is taken, so no reader ever sees half a file and no winner is overwritten.
    """
    temporary = _temporary(path, data, scratch)
    try:
        with reported(path):
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise StoreError(f"the file system of {path.parent} has no hard links; choose another output folder") from error
                raise
        sync(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def replace(path: Path, data: bytes, scratch: Path) -> None:
    """Put `data` at `path` whole and durable; readers see the old or the new file, nothing between."""
    temporary = _temporary(path, data, scratch)
    try:
        with reported(path):
            os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def move_to_free_name(source: Path, folder: Path) -> Path:
    """Rename `source` into `folder` under its own name plus the first free number; returns the new path."""
    with reported(folder):
        folder.mkdir(exist_ok=True)
        for number in range(1_000_000):
            target = folder / f"{source.name}.{number}"
            if target.exists():
                continue
            os.rename(source, target)
            break
        else:
            raise StoreError(f"{folder} is full of copies of {source.name}; remove what you do not need")
    sync(folder)
    sync(source.parent)
    return target


def owner_name() -> str:
    """`host-pid-start-random`: names staged work so that `owner_is_gone` can tell whose it is."""
    return f"{_host()}-{os.getpid()}-{_start_ticks(os.getpid())}-{os.urandom(4).hex()}"


def owner_is_gone(name: str) -> bool:
    """Whether the process that made this `owner_name` ran on this host and has ended (a reused pid is told by its start)."""
    parts = name.rsplit("-", 3)
    if len(parts) != 4 or parts[0] != _host() or not parts[1].isdigit():
        return False
    return _start_ticks(int(parts[1])) != parts[2]


def _temporary(final: Path, data: bytes, scratch: Path) -> Path:
    """A synced file in `scratch` with the content of `final`; errors name `final`, which is what the user knows."""
    path = scratch / f"tmp.{owner_name()}"
    with reported(final):
        try:
            with open(path, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return path


def _host() -> str:
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname()) or "host"


def _start_ticks(pid: int) -> str:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); "gone" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "gone"
    fields = stat[stat.rindex(b")") + 2 :].split()
    return "gone" if fields[0] in (b"Z", b"X") else fields[19].decode()
