"""The installed command in processes of its own, with the real Blender. Timeouts are generous: machines may be busy."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = (sys.executable, "-m", "dataengine.cli")


def environment() -> dict[str, str]:
    """Without a cluster that the person who runs the tests may be using."""
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"COLUMNS": "120"}


def dataengine(*arguments: str | Path, timeout_s: float = 300, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command; fails unless it exits with `code`."""
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The preset smoke rendered once with --serial, with its report: (folder, output). Not to be changed."""
    folder = tmp_path_factory.mktemp("e2e") / "smoke"
    return folder, dataengine("render", "smoke", "--serial", "--out", folder).stdout
