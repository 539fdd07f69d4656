"""Missing system libraries: found without importing Blender, explained in one line."""

from pathlib import Path

import pytest

from dataengine.errors import RenderError
from dataengine.render.blender import libraries

LDD = """\tlinux-vdso.so.1 (0x00007ffd)
\tlibXrender.so.1 => not found
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)
\tlibSM.so.6 => not found
\tlibXrender.so.1 => not found
"""


def test_parse_missing():
    assert libraries.parse_missing(LDD) == ("libSM.so.6", "libXrender.so.1")
    assert libraries.parse_missing("\tstatically linked\n") == ()


def test_missing_libraries_asks_ldd(monkeypatch, tmp_path: Path):
    fake = tmp_path / "ldd"
    fake.write_text(f"#!/bin/sh\ncat <<'E'\n{LDD}\tlibodd.so.3 => not found\nE\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert libraries.missing_libraries() == {"libSM.so.6": "libsm6", "libXrender.so.1": "libxrender1", "libodd.so.3": ""}


def test_nothing_is_missing_here():
    assert libraries.missing_libraries() == {}


def test_without_ldd_nothing_is_claimed(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert libraries.missing_libraries(Path("/nowhere.so")) == {}


def test_explanation_is_one_line_with_the_command():
    text = libraries.explain_missing({"libSM.so.6": "libsm6", "libXrender.so.1": "libxrender1", "libodd.so.3": ""})
    assert "\n" not in text
    assert "apt-get install -y libsm6 libxrender1" in text and "no Debian package known for libodd.so.3" in text


def test_absent_bpy_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RenderError, match="bpy is not installed; install the `render` extra"):
        libraries.bpy_library()
