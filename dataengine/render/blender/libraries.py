"""Which shared libraries of the system Blender's Python module needs but cannot find. Imports no Blender."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

from dataengine.errors import RenderError

DEBIAN_PACKAGE = {
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libXxf86vm.so.1": "libxxf86vm1",
    "libxcb.so.1": "libxcb1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libGL.so.1": "libgl1",
    "libGLX.so.0": "libglx0",
    "libGLdispatch.so.0": "libglvnd0",
    "libEGL.so.1": "libegl1",
    "libuuid.so.1": "libuuid1",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
}
"""Library → Debian package that brings it."""


def bpy_library() -> Path:
    """Path of the bpy module's shared object. Raises RenderError when bpy is not installed."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        raise RenderError("bpy is not installed; install the `render` extra (pip install 'dataengine[render]', Python 3.11 only)")
    return Path(spec.origin)


def parse_missing(ldd_output: str) -> tuple[str, ...]:
    """Names of the libraries that `ldd` reports as not found, sorted.

    >>> parse_missing("libSM.so.6 => not found\\n libm.so.6 => /lib/libm.so.6 (0x00)")
    ('libSM.so.6',)
    """
    return tuple(sorted(set(re.findall(r"^\s*(\S+) => not found", ldd_output, re.MULTILINE))))


def missing_libraries(library: Path | None = None) -> dict[str, str]:
    """Missing shared library → Debian package that brings it ('' = unknown) for bpy, or for another shared object.

    Empty when all is there, and when the system has no `ldd` to ask (then the import itself tells).
    """
    try:
        asked = subprocess.run(["ldd", str(library or bpy_library())], capture_output=True, text=True, timeout=60, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return {}
    return {name: DEBIAN_PACKAGE.get(name, "") for name in parse_missing(asked.stdout)}


def explain_missing(missing: dict[str, str]) -> str:
    """One line that says what is missing and how to install it."""
    packages = sorted({package for package in missing.values() if package})
    unknown = sorted(name for name, package in missing.items() if not package)
    advice = f"run: apt-get install -y {' '.join(packages)}" if packages else "install the packages that bring them"
    rest = f" (no Debian package known for {', '.join(unknown)})" if packages and unknown else ""
    return f"Blender needs shared libraries that this system lacks: {', '.join(sorted(missing))}; {advice}{rest}"
