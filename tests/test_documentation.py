"""The README tells the truth: its tables are the code's, its verbs and presets exist."""

import re
from pathlib import Path

from dataengine import cli
from dataengine.config.loader import load_spec
from dataengine.record import frame_table, modalities

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_code():
    assert modalities.markdown_table() in README
    assert frame_table.markdown_table() in README


def test_every_verb_is_shown_and_every_shown_verb_exists():
    verbs = {arm.__metadata__[0].name for arm in cli.Command.__args__}  # type: ignore[attr-defined]
    shown = set(re.findall(r"^(?:RAY_ADDRESS=\S+ )?dataengine ([a-z]+)", README, flags=re.M))
    assert shown == verbs


def test_shown_presets_load():
    for preset in set(re.findall(r"dataengine (?:render|plan) ([a-z0-9_]+)", README)):
        assert load_spec(preset).videos >= 1


def test_overrides_in_the_recipes_are_valid():
    for line in re.findall(r"^dataengine render .*", README, flags=re.M):
        sets = [a or b for a, b in re.findall(r"--set (?:'([^']+)'|(\S+))", line)]
        assert load_spec("hello", sets) is not None


def test_linked_files_exist():
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_nothing_names_a_registry_or_a_machine():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|\+cpu", lock)
    assert re.search(r"^torch==2\.13\.0$", lock, flags=re.M)
