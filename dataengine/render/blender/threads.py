"""Threads that must not exist when a process forks."""

import ctypes
import importlib.util
import re
from pathlib import Path


def stop_exr_threads() -> None:
    """Join OpenEXR's pool of reader threads, which starts when bpy is imported.

    A forked child inherits the pool's queue but not its threads: the first HDR it reads would wait for them for ever. With
    a pool of none, reading works in the child (OpenImageIO starts a new pool there).
    """
    spec = importlib.util.find_spec("bpy")
    assert spec is not None and spec.origin is not None
    for path in sorted((Path(spec.origin).parent / "lib").glob("libOpenEXR.so.*")):
        library = ctypes.CDLL(str(path))
        symbol = _set_count_symbol(path)
        getattr(library, symbol)(ctypes.c_int(0))


def _set_count_symbol(path: Path) -> str:
    """Mangled name of `Imf::setGlobalThreadCount(int)`; the namespace carries OpenEXR's version."""

    match = re.search(rb"_ZN\d+Imf_[0-9_]+20setGlobalThreadCountEi", path.read_bytes())
    if match is None:
        raise RuntimeError(f"{path} has no setGlobalThreadCount; another OpenEXR than the pinned bpy's")
    return match.group().decode()
