"""status, validate, explain, doctor and the parser's help on a small dataset made without Blender."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dataengine import __version__, cli
from dataengine.commands import doctor as doctor_command
from dataengine.commands import render as render_command
from dataengine.commands.replay import compare, show
from dataengine.record.video import Video
from dataengine.render.job import Robot
from dataengine.store.dataset import open_dataset
from tests.commands.conftest import Cli
from tests.quality.test_mutations import copy_of
from tests.support.inline import InlineExecutor

VERBS = ("render", "plan", "status", "validate", "explain", "replay", "report", "doctor")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, panda_ready: Robot) -> Path:
    """A dataset of two videos, all modalities, made once."""
    folder = tmp_path_factory.mktemp("original") / "made"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(render_command, "make_executor", lambda spec, workers, serial: InlineExecutor(spec, panda_ready))
        assert cli.main(["render", "smoke", "--out", str(folder), "--no-report"]) == 0
    return folder


@pytest.fixture
def made(original: Path, cli_main: Cli) -> Path:
    """A copy of it in the working directory, to be spoilt at will."""
    shutil.copytree(original, "made")
    return Path("made")


def test_validate_finds_nothing(made: Path, cli_main: Cli) -> None:
    said = cli_main("validate", made)
    assert said.code == 0
    assert "2 videos: 0 label violations in " in said.out and "; 0 damaged" in said.out


def test_validate_finds_a_flipped_bit(made: Path, cli_main: Cli) -> None:
    """Same size, other content: only hashes tell."""
    victim = next((made / "shards" / open_dataset(made).record(0).shard / "depth_z").glob("c*"))
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    victim.write_bytes(raw)
    said = cli_main("validate", made)
    assert said.code == 1
    assert "video-000000: " in said.out and "depth_z" in said.out
    assert "2 videos: 0 label violations in " in said.out and "; 1 damaged" in said.out


def test_validate_finds_a_wrong_label(made: Path, cli_main: Cli) -> None:
    """A record whose bytes are intact but whose labels contradict each other."""
    dataset = open_dataset(made)
    with dataset.reader(1) as reader:
        wrong = copy_of(reader.video())
    wrong.frames["keypoints_px"] += 1.0
    dataset.add(2, wrong, "train")
    said = cli_main("validate", made)
    assert said.code == 1
    assert "video-000002: frame 0: keypoints: 2D keypoints differ from the projected 3D ones by 1 px" in said.out


def test_status(made: Path, cli_main: Cli) -> None:
    said = cli_main("status", made)
    assert said.code == 0
    assert "finished" in said.out and "2 of 2" in said.out


def test_explain(made: Path, cli_main: Cli) -> None:
    said = cli_main("explain", made, "1")
    assert said.code == 0
    assert "smoke, video 1, seed 1" in said.out
    assert "camera.distance_m" in said.out and "uniform 1 … 1.5" in said.out


def test_explain_says_which_videos_there_are(made: Path, cli_main: Cli) -> None:
    assert "made has no video 9; 2 are committed, video-000000 to video-000001" in cli_main("explain", made, "9").refusal()


def test_replay_of_a_frame_that_is_not_there(made: Path, cli_main: Cli) -> None:
    assert "video 0 has no frame 7; it has 2, 0 to 1" in cli_main("replay", made, "0", "7").refusal()


class TestReplayComparison:
    def test_identical(self, tiny_video: Video, capsys: pytest.CaptureFixture[str]) -> None:
        differences = compare(tiny_video, copy_of(tiny_video), None)
        assert set(differences) >= {"rgb", "depth_z", "frames.T_cam_link", "frames.keypoints_px"}
        assert show(doctor_command.Console(), differences, exact=True)
        assert "bit by bit" in capsys.readouterr().out

    def test_a_label_that_differs_is_never_tolerated(self, tiny_video: Video) -> None:
        other = copy_of(tiny_video)
        other.images["mask_link"][0, 0, 0] += 1
        assert not show(doctor_command.Console(), compare(tiny_video, other, None), exact=False)
        assert show(doctor_command.Console(), compare(tiny_video, other, 1), exact=True), "it is in the other frame"

    def test_colour_may_differ_by_a_trace_where_the_system_allows_no_better(self, tiny_video: Video) -> None:
        other = copy_of(tiny_video)
        other.images["rgb"][0, 0, 0] ^= 1
        differences = compare(tiny_video, other, None)
        assert differences["rgb"] == (3, 1.0)
        assert show(doctor_command.Console(), differences, exact=False)
        assert not show(doctor_command.Console(), differences, exact=True)
        other.images["rgb"][0, 0, 0] ^= 64
        assert not show(doctor_command.Console(), compare(tiny_video, other, None), exact=False)


def test_doctor(cli_main: Cli) -> None:
    said = cli_main("doctor")
    assert said.code == 0, said.out
    assert __version__ in said.out and importlib.metadata.version("bpy") in said.out


def test_doctor_names_what_is_missing(cli_main: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command, "PACKAGES", ("numpy", "package-that-nobody-has"))
    said = cli_main("doctor")
    assert said.code == 1
    assert "package-that-nobody-has" in said.out and "make setup" in said.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb(verb: str, cli_main: Cli) -> None:
    said = cli_main(verb, "--help")
    assert said.code == 0
    assert f"usage: dataengine {verb}" in said.out


def test_help_lists_the_verbs(cli_main: Cli) -> None:
    said = cli_main("--help")
    assert all(f"• {verb}" in said.out for verb in VERBS)


def test_version(cli_main: Cli) -> None:
    assert cli_main("--version").out == f"{__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from dataengine import cli
try:
    cli.main(["--help"])
except SystemExit:
    print(*sys.modules, file=sys.stderr)
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    heavy = {"bpy", "blenderproc", "ray", "cv2", "numba", "trimesh", "matplotlib", "zarr", "av", "scipy", "torch", "pandas", "numpy"}
    assert heavy & set(loaded) == set()


def test_output_that_nobody_reads_any_more(made: Path) -> None:
    """`dataengine explain … | head -1` ends without a traceback."""
    command = f"{sys.executable} -m dataengine.cli explain {made} 0 | head -1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in ended.stderr
