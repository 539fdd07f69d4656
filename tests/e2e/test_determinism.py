"""However a dataset comes about, its manifest is the same: workers, Ray, interruptions, damage, extension."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import COMMAND, dataengine, environment

pytestmark = pytest.mark.slow
VIDEOS = 3


def digest(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["digest"]


def render(folder: Path, *more: str, videos: int = VIDEOS, code: int = 0) -> str:
    return dataengine("render", "smoke", "--no-report", "--out", folder, "--set", f"videos={videos}", *more, code=code).stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos by one worker, in one go."""
    folder = tmp_path_factory.mktemp("undisturbed") / "made"
    render(folder, "--serial")
    return folder


@pytest.mark.parametrize("how", [("--serial", "--workers", "2"), ("--workers", "1"), ("--workers", "2")], ids=" ".join)
def test_any_workers(how: tuple[str, ...], undisturbed: Path, tmp_path: Path) -> None:
    render(tmp_path / "made", *how)
    assert digest(tmp_path / "made") == digest(undisturbed)


def test_extended(smoke: tuple[Path, str], undisturbed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(smoke[0], tmp_path / "made")
    said = render(folder, "--serial")
    assert "1 video to render" in said and "2 of 3 already done" in said
    assert digest(folder) == digest(undisturbed)


def test_a_flipped_byte_is_reported_and_rendered_again(undisturbed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(undisturbed, tmp_path / "made")
    victim = next((folder / "shards").glob("video-000001-*/rgb/c*"))
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 3] ^= 1
    victim.write_bytes(raw)
    said = render(folder, "--serial")
    assert "video-000001 was damaged" in said and "it will be rendered again" in said and "1 video to render" in said
    assert digest(folder) == digest(undisturbed)
    assert "0 damaged" in dataengine("validate", folder).stdout


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "render", "smoke", "--no-report", "--out", str(folder), "--set", f"videos={VIDEOS}", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True)


def wait_for_first_video(folder: Path, process: subprocess.Popen[str], timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not list((folder / "commits").glob("*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no video was committed"
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["--serial", "--workers=1"])
def test_killed_driver(how: str, undisturbed: Path, tmp_path: Path) -> None:
    """SIGKILL of the driver alone, mid-run: its workers end by themselves, and the same command finishes the job."""
    process = start(tmp_path / "made", how)
    wait_for_first_video(tmp_path / "made", process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    render(tmp_path / "made", "--serial")
    assert digest(tmp_path / "made") == digest(undisturbed)
    assert not any((tmp_path / "made" / "staging").iterdir())


@pytest.mark.parametrize("how", ["--serial", "--workers=1"])
def test_ctrl_c(how: str, undisturbed: Path, tmp_path: Path) -> None:
    """As a terminal does it: SIGINT to the whole process group. One line, exit code 130, and the same command goes on."""
    process = start(tmp_path / "made", how)
    wait_for_first_video(tmp_path / "made", process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    safe = len(list((tmp_path / "made" / "commits").glob("*.json")))
    assert err == f"stopped: {safe} of {VIDEOS} videos are safe; run the same command to go on\n"
    assert "Traceback" not in out
    render(tmp_path / "made", "--serial")
    assert digest(tmp_path / "made") == digest(undisturbed)
