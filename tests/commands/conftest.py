"""The command line in this process, and renders that need no Blender."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dataengine import cli
from dataengine.commands import plan as plan_command
from dataengine.commands import render as render_command
from dataengine.render.job import Robot
from tests.support.inline import InlineExecutor


@dataclass(frozen=True)
class Said:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one line of a refusal; the lines of several mistakes."""
        assert self.code == 2, self
        assert self.err.endswith("\n") and self.err.count("error: ") == self.err.count("\n"), self.err
        assert "Traceback" not in self.err + self.out
        return self.err.removesuffix("\n")


Cli = Callable[..., Said]


@pytest.fixture
def cli_main(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`cli_main("render", "smoke", …)` in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as end:  # tyro's own refusals
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@dataclass
class Inline:
    """Every render of the test runs in this process. `before` may be replaced to raise on chosen videos."""

    before: Callable[[int], None] = lambda video: None


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, panda_ready: Robot) -> Inline:
    switch = Inline()

    def make_executor(spec, workers, serial) -> InlineExecutor:
        return InlineExecutor(spec, panda_ready, lambda video: switch.before(video))

    for command in (render_command, plan_command):
        monkeypatch.setattr(command, "make_executor", make_executor)
    return switch
