"""`dataengine render` and what follows, without Blender: resuming, refusing, quarantine, damage, a full disk, Ctrl-C."""

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dataengine import cli
from dataengine.commands import render as render_command
from dataengine.errors import LabelError, SceneError
from dataengine.render.job import Robot
from dataengine.store.dataset import open_dataset
from tests.commands.conftest import Cli, Inline, Said
from tests.support.inline import InlineExecutor

Render = Callable[..., Said]
SMALL = ("modalities=[rgb, depth_z]", "frames=1", "camera.width=64", "camera.height=48", "distractors.count=1")


@pytest.fixture
def render(cli_main: Cli, inline: Inline) -> Render:
    """`render("videos=3")`: a small thing like the preset smoke into the folder `made`; no report unless asked for."""

    def run(*overrides: str, report: bool = False) -> Said:
        sets = [word for text in (*SMALL, *overrides) for word in ("--set", text)]
        return cli_main("render", "smoke", "--out", "made", *sets, *(() if report else ("--no-report",)))

    return run


@pytest.fixture(scope="module")
def whole_of_three(tmp_path_factory: pytest.TempPathFactory, panda_ready: Robot) -> str:
    """Manifest digest of three videos rendered in one go."""
    folder = tmp_path_factory.mktemp("whole") / "made"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(render_command, "make_executor", lambda spec, workers, serial: InlineExecutor(spec, panda_ready))
        sets = [word for text in (*SMALL, "videos=3") for word in ("--set", text)]
        assert cli.main(["render", "smoke", "--no-report", "--out", str(folder), *sets]) == 0
    return json.loads((folder / "manifest.json").read_text())["digest"]


def digest() -> str:
    return json.loads(Path("made/manifest.json").read_text())["digest"]


def on_video(number: int, error: BaseException) -> Callable[[int], None]:
    def before(video: int) -> None:
        if video == number:
            raise error

    return before


def test_first_run_and_again(render: Render, cli_main: Cli) -> None:
    first = render()
    assert (first.code, first.err) == (0, "")
    assert "2 videos to render into made; Ctrl-C is safe, the same command goes on" in first.out
    made = digest()
    assert f"2 videos in made, manifest {made[:16]}" in first.out
    again = render()
    assert again.code == 0 and "nothing to render: 2 of 2 videos are in made" in again.out
    assert digest() == made


def test_more_videos_extend_the_same_dataset(render: Render) -> None:
    render()
    two = {unit: record.digest for unit, record in open_dataset("made").committed().items()}
    assert "1 video to render into made, 2 of 3 already done" in render("videos=3").out
    three = {unit: record.digest for unit, record in open_dataset("made").committed().items()}
    assert len(three) == 3 and two.items() <= three.items()
    assert render("videos=1").code == 0, "fewer videos than there are: nothing to do, nothing lost"
    assert len(open_dataset("made").videos()) == 3


def test_limits_are_not_part_of_the_identity(render: Render) -> None:
    render()
    assert render("limits.wall_s=100").code == 0


def test_folder_of_another_spec(render: Render) -> None:
    render()
    before = digest()
    line = render("seed=5").refusal()
    assert "made holds dataset 'smoke' of spec " in line and ", but this spec is " in line and "choose another output folder" in line
    assert digest() == before


def test_scenes_that_fail_are_quarantined_with_their_reason(render: Render, inline: Inline) -> None:
    inline.before = on_video(1, LabelError("video 1: 1 label violations in 9 checks: frame 0: masks: overlap"))
    said = render("videos=3")
    assert said.code == 1
    assert "video-000001 was given up after 1 attempt: LabelError: video 1: 1 label violations" in said.out
    assert "to try them again, remove their files from made/quarantine and run the same command" in said.out
    assert open_dataset("made").videos() == ["video-000000", "video-000002"]
    inline.before = lambda video: None
    assert render("videos=3").code == 1, "still in quarantine"
    next(Path("made/quarantine").iterdir()).unlink()
    assert render("videos=3").code == 0
    assert len(open_dataset("made").videos()) == 3


def test_defects_of_ours_are_quarantined_after_three_tries(render: Render, inline: Inline) -> None:
    inline.before = on_video(1, ZeroDivisionError("oops"))
    said = render()
    assert said.code == 1
    assert "video-000001 was given up after 3 attempts" in said.out
    record = json.loads(next(Path("made/quarantine").iterdir()).read_text())
    assert "ZeroDivisionError: oops" in record["log_tail"] and "Traceback" in record["log_tail"]


def test_when_nothing_works_it_says_so_and_leaves_no_marks(render: Render, inline: Inline) -> None:
    def before(video: int) -> None:
        raise SceneError(f"video {video}: no room on the table")

    inline.before = before
    line = render().refusal()
    assert "all of the first 2 videos failed and none was rendered; the last one's reason: video 1: no room on the table" in line
    assert list(Path("made/quarantine").iterdir()) == []
    inline.before = lambda video: None
    assert render().code == 0


def test_full_disk(render: Render, inline: Inline, monkeypatch: pytest.MonkeyPatch, whole_of_three: str) -> None:
    """The second video does not fit: the run ends with one line, the first is safe, and it goes on when there is space."""
    with monkeypatch.context() as patched:

        def before(video: int) -> None:
            if video == 1:
                patched.setattr(os, "fsync", no_space)

        inline.before = before
        line = render("videos=3").refusal()
    assert "disk full while writing " in line
    assert line.endswith("1 committed videos are safe; free space and run the same command again")
    assert open_dataset("made").videos() == ["video-000000"]
    assert open_dataset("made").quarantined() == {}
    inline.before = lambda video: None
    assert render("videos=3").code == 0
    assert digest() == whole_of_three


def no_space(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_is_clean_and_resumable(number: signal.Signals, render: Render, inline: Inline, whole_of_three: str) -> None:
    inline.before = lambda video: os.kill(os.getpid(), number) if video == 1 else None
    said = render("videos=3")
    assert said.code == 130
    safe = len(open_dataset("made").videos())
    assert 1 <= safe <= 2, "the video at hand may be finished or not"
    assert said.err == f"stopped: {safe} of 3 videos are safe; run the same command to go on\n"
    assert "Traceback" not in said.out
    inline.before = lambda video: None
    assert render("videos=3").code == 0
    assert digest() == whole_of_three


def test_a_damaged_shard_is_found_told_and_rendered_again(render: Render) -> None:
    render()
    before = digest()
    shard = open_dataset("made").record(1).shard
    victim = next((Path("made/shards") / shard / "rgb").glob("c*"))
    victim.write_bytes(victim.read_bytes()[:-7])
    said = render()
    assert said.code == 0
    assert "video-000001 was damaged" in said.out and "moved to made/damaged/" in said.out and "it will be rendered again" in said.out
    assert digest() == before
    assert any(Path("made/damaged").iterdir()), "what was damaged is kept"


def test_report_is_written_at_the_end(render: Render, cli_main: Cli) -> None:
    assert "report: made/report.html" in render(report=True).out
    assert {"strip.png", "video-000000.png", "video-000000.mp4"} <= {p.name for p in Path("made/previews").iterdir()}
    page = Path("made/report.html")
    page.unlink()
    assert cli_main("report", "made").code == 0
    assert page.stat().st_size > 10_000


def test_report_without_videos(render: Render, inline: Inline, cli_main: Cli) -> None:
    inline.before = lambda video: (_ for _ in ()).throw(SceneError("no"))
    render().refusal()
    assert "made holds no video yet; render some first" in cli_main("report", "made").refusal()


def test_plan_measures_a_pilot_and_keeps_nothing(cli_main: Cli, inline: Inline, tmp_path: Path) -> None:
    measured: list[int] = []
    inline.before = measured.append
    said = cli_main("plan", "smoke", "--pilot", "2", "--nodes", "3", *(word for text in (*SMALL, "videos=100") for word in ("--set", text)))
    assert said.code == 0, said
    assert "measuring 2 of 100 videos of smoke" in said.out
    assert measured == [25, 75], "spread over the preset"
    assert all(word in said.out for word in ("time", "CPU hours", "disk"))
    assert list(tmp_path.iterdir()) == []
