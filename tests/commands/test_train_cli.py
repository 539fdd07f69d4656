"""The verbs of training: arguments arrive, and what is missing is one line."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from dataengine.cli import main, parse


def test_arguments_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    import training.cli

    seen: list[Any] = []
    monkeypatch.setattr(training.cli, "train", lambda *given: seen.append(given) or 0)
    line = "train lifter-small --out runs/a --data d1 --data d2 --set loop.steps=3 --from runs/b --no-resume --dry-run --ray-workers 2"
    assert main(line.split()) == 0
    assert seen == [("lifter-small", Path("runs/a"), ("d1", "d2"), ("loop.steps=3",), Path("runs/b"), False, True, 2, "panda15", "panda")]


@pytest.mark.parametrize(("line", "name"), [("evaluate r d", "Evaluate"), ("predict r x.png", "Predict"), ("overfit d", "Overfit")])
def test_every_verb_parses(line: str, name: str) -> None:
    assert type(parse(line.split())).__name__ == name


def test_without_torch_it_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def no_torch(name: str, *rest: Any, **more: Any) -> Any:
        if name == "training" or name.startswith("training."):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "training.cli", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_torch)
    assert main(["train", "lifter-small"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "dataengine[train]" in said


def test_an_unknown_recipe_names_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "robokeygen-smal"]) == 2
    assert "robokeygen-small" in capsys.readouterr().err
