"""The journal: nothing that was told to the annotator is ever lost, whatever ends the program."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.app.journal import CLICKS, JOURNAL, Journal
from annotators.types import Capture, Click
from dataengine.errors import StoreError

CAPTURE = Capture("demo", ("a", "b", "c"), (640, 480), np.eye(3), np.arange(3.0), lambda i: np.zeros((480, 640, 3), np.uint8), "panda")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.integers(0, 2), st.sampled_from("xyz"), st.floats(-0.5, 639.5), st.floats(-0.5, 479.5)),
        st.tuples(st.just("delete"), st.integers(0, 2), st.sampled_from("xyz")),
        st.tuples(st.sampled_from(["undo", "redo"])),
    ),
    max_size=25,
)


def play(journal: Journal, steps) -> list[tuple[Click, ...]]:
    """Clicks after each step, by calling the journal."""
    after = [journal.clicks]
    for verb, *rest in steps:
        if verb == "place":
            frame, name, u, v = rest
            journal.place(frame, name, (u, v))
        else:
            getattr(journal, verb)(*rest)
        after.append(journal.clicks)
    return after


def model(steps) -> dict[tuple[int, str], tuple[float, float]]:
    """The same by whole states on a stack, the textbook way."""
    states: list[dict] = [{}]
    at = 0
    for verb, *rest in steps:
        if verb == "undo":
            at = max(at - 1, 0)
        elif verb == "redo":
            at = min(at + 1, len(states) - 1)
        elif verb == "delete" and (rest[0], rest[1]) not in states[at]:
            continue
        else:
            new = dict(states[at])
            if verb == "place":
                new[rest[0], rest[1]] = (round(rest[2], 3), round(rest[3], 3))
            else:
                del new[rest[0], rest[1]]
            states, at = [*states[: at + 1], new], at + 1
    return states[at]


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_history_is_what_a_stack_of_states_says_and_survives_reopening(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder, CAPTURE)
    play(journal, steps)
    expected = {(c.frame, c.landmark): c.uv_px for c in journal.clicks}
    assert expected == model(steps)
    journal.close()
    again = Journal(folder, CAPTURE)
    assert again.clicks == journal.clicks
    assert again.history == journal.history
    exported = json.loads((folder / CLICKS).read_text())["clicks"]
    assert exported == [{"frame": c.frame, "landmark": c.landmark, "u_px": c.uv_px[0], "v_px": c.uv_px[1]} for c in again.clicks]
    again.close()


def test_undo_twenty_times_gives_the_beginning_and_redo_the_end(tmp_path):
    journal = Journal(tmp_path, CAPTURE)
    after = play(journal, [("place", k % 3, "xyz"[k % 3], float(k), 2.0 * k) for k in range(20)])
    seen = []
    while journal.undo():
        seen.append(journal.clicks)
    assert seen == after[-2::-1]
    while journal.redo():
        pass
    assert journal.clicks == after[-1]
    assert journal.undo() is not None
    journal.place(0, "x", (1, 1))
    assert journal.redo() is None
    journal.close()


def test_a_torn_last_line_is_dropped_at_every_byte(tmp_path):
    journal = Journal(tmp_path / "whole", CAPTURE)
    journal.place(0, "x", (1.5, 2.25))
    before = (tmp_path / "whole" / JOURNAL).read_bytes()
    journal.place(1, "y", (3, 4))
    journal.close()
    data = (tmp_path / "whole" / JOURNAL).read_bytes()
    for cut in range(len(before), len(data)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / JOURNAL).write_bytes(data[:cut])
        torn = Journal(folder, CAPTURE)
        assert torn.clicks == (Click(0, "x", (1.5, 2.25)),)
        torn.place(2, "z", (5, 6))  # must start on a line of its own
        torn.close()
        again = Journal(folder, CAPTURE)
        assert [c.landmark for c in again.clicks] == ["x", "z"]
        again.close()


CHILD = """
import sys, numpy as np
from pathlib import Path
from annotators.app.journal import Journal
from annotators.types import Capture
capture = Capture("demo", ("a", "b", "c"), (640, 480), np.eye(3), np.arange(3.0), lambda i: None, "panda")
journal = Journal(Path(sys.argv[1]), capture)
for k in range(10**6):
    journal.place(k % 3, f"p{k}", (k % 640, 1.0))
    print(k, flush=True)
"""


def test_kill_9_keeps_every_click_that_was_acknowledged(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = -1
    while told < 12:
        told = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    told = max([told, *(int(k) for k in rest)])
    journal = Journal(tmp_path, CAPTURE)  # the dead process' lock is gone with it
    assert {f"p{k}" for k in range(told + 1)} <= {c.landmark for c in journal.clicks}
    assert len(journal.clicks) <= told + 2
    journal.close()


def test_a_second_process_is_refused(tmp_path):
    journal = Journal(tmp_path, CAPTURE)
    with pytest.raises(StoreError, match=r"journal\.jsonl is open in another annotation app; close that one"):
        Journal(tmp_path, CAPTURE)
    journal.close()
    Journal(tmp_path, CAPTURE).close()


def test_a_journal_of_another_capture_is_refused_and_untouched(tmp_path):
    Journal(tmp_path, CAPTURE).close()
    before = (tmp_path / JOURNAL).read_bytes()
    for other in (replace(CAPTURE, name="other"), replace(CAPTURE, size=(320, 240)), replace(CAPTURE, frames=("a",))):
        with pytest.raises(StoreError, match=r"is of capture 'demo' \(3 frames of 640 × 480\), not of '"):
            Journal(tmp_path, other)
    assert (tmp_path / JOURNAL).read_bytes() == before


@pytest.mark.parametrize("line", [b"garbage", b'{"event":"jump"}', b'{"event":"place","frame":0}', b"[]"])
def test_damage_before_the_end_is_said_with_its_line(tmp_path, line):
    journal = Journal(tmp_path, CAPTURE)
    journal.place(0, "x", (1, 2))
    journal.close()
    head, first, _ = (tmp_path / JOURNAL).read_bytes().split(b"\n")
    (tmp_path / JOURNAL).write_bytes(b"\n".join([head, line, first, b""]))
    with pytest.raises(StoreError, match=r"journal\.jsonl:2: not a journal's line"):
        Journal(tmp_path, CAPTURE)


def test_a_newer_journal_is_refused(tmp_path):
    (tmp_path / JOURNAL).write_text('{"journal": 99}\n')
    with pytest.raises(StoreError, match="newer release"):
        Journal(tmp_path, CAPTURE)


def test_a_full_disk_takes_no_click_and_tears_nothing(tmp_path, monkeypatch):
    journal = Journal(tmp_path, CAPTURE)
    journal.place(0, "x", (1, 2))
    whole = (tmp_path / JOURNAL).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"journal\.jsonl"):
        journal.place(1, "y", (3, 4))
    assert [c.landmark for c in journal.clicks] == ["x"]
    assert (tmp_path / JOURNAL).read_bytes() == whole
    monkeypatch.undo()
    journal.place(1, "y", (3, 4))
    journal.close()
    again = Journal(tmp_path, CAPTURE)
    assert [c.landmark for c in again.clicks] == ["x", "y"]
    again.close()


def test_given_clicks_seed_a_new_journal_only(tmp_path):
    seed = [Click(0, "x", (1.0, 2.0)), Click(2, "y", (3.0, 4.0))]
    journal = Journal(tmp_path, CAPTURE, seed)
    assert list(journal.clicks) == seed
    journal.delete(0, "x")
    journal.close()
    again = Journal(tmp_path, CAPTURE, seed)
    assert list(again.clicks) == seed[1:]
    again.close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as refusal:
        Journal(tmp_path / "file" / "sub", CAPTURE)
    assert "\n" not in str(refusal.value)
