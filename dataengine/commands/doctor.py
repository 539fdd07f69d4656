"""`dataengine doctor`: versions, machine and missing pieces, for bug reports."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from dataengine import __version__
from dataengine.render.zygote_child import address_randomised
from dataengine.robot.cache import default_cache_dir

PACKAGES = (
    "bpy", "blenderproc", "numpy", "opencv-python-headless", "numba", "embreex", "trimesh", "zarr", "numcodecs", "ray", "pyarrow",
    "pydantic", "av", "example-robot-data", "torch",
)  # fmt: skip


def doctor() -> int:
    """Exit code 1 when rendering cannot work here."""
    table = Table("what", "value", "verdict", title="dataengine doctor")
    ok = True
    for what, value, problem in findings():
        table.add_row(what, value, f"[red]{problem}[/]" if problem else "[green]ok[/]")
        ok &= not problem
    Console(highlight=False, soft_wrap=True).print(table)
    return 0 if ok else 1


def findings() -> list[tuple[str, str, str]]:
    """(what, value, problem or '')."""
    memory = psutil.virtual_memory().total
    rows = [
        ("dataengine", __version__, ""),
        ("Python", platform.python_version(), "" if sys.version_info[:2] == (3, 11) else "Blender's module needs Python 3.11"),
        ("system", platform.platform(), "" if sys.platform == "linux" else "rendering needs Linux"),
        ("processors", f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}", ""),
        ("memory", f"{memory / 1e9:.0f} GB", "" if memory > 2e9 else "a worker needs about 1 GB"),
    ]
    rows += [(name, *_package(name)) for name in PACKAGES]
    rows.append(_blender_libraries())
    refused = address_randomised() and not _can_switch_off_randomisation()
    rows.append(("bitwise colour", "no: the system refuses personality()" if refused else "yes", ""))
    cache = default_cache_dir()
    writable = os.access(next(p for p in (cache, *cache.parents) if p.exists()), os.W_OK)
    rows.append(("cache folder", str(cache), "" if writable else "not writable: robots are baked anew in every worker"))
    rows.append(("free disk here", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB", ""))
    return rows


def _package(name: str) -> tuple[str, str]:
    try:
        return importlib.metadata.version(name), ""
    except importlib.metadata.PackageNotFoundError:
        optional = name == "torch"
        return "not installed", "" if optional else "run `make setup`"


def _blender_libraries() -> tuple[str, str, str]:
    from dataengine.render.blender.libraries import explain_missing, missing_libraries

    if importlib.util.find_spec("bpy") is None:
        return "Blender's libraries", "bpy is not installed", "run `make setup`"
    missing = missing_libraries()
    return "Blender's libraries", "all found" if not missing else ", ".join(missing), explain_missing(missing) if missing else ""


def _can_switch_off_randomisation() -> bool:
    import subprocess

    code = "import ctypes,sys; sys.exit(ctypes.CDLL(None).personality(ctypes.c_ulong(0x0040000)) == -1)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
