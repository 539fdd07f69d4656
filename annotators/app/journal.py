"""What the annotator did, as an append-only file: one JSON line per event, on the disk before the browser hears of it.

The first line says which capture the clicks belong to. A line that a crash tore is dropped when the file is opened again. One process
writes; the lock goes with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from annotators.types import Capture, Click
from dataengine.errors import StoreError
from dataengine.store.files import reported

JOURNAL, CLICKS = "journal.jsonl", "clicks.json"
VERSION = 1
Verb = Literal["place", "delete", "undo", "redo"]


@dataclass(frozen=True)
class Edit:
    """One step that undo takes back: the click of a landmark in a frame set to `uv_px`, or removed (None)."""

    frame: int
    landmark: str
    uv_px: tuple[float, float] | None


@dataclass
class History:
    """Edits made and edits taken back. `clicks` are what the made ones leave, in order of frame, then of first placing."""

    done: list[Edit] = field(default_factory=list)
    undone: list[Edit] = field(default_factory=list)

    @property
    def clicks(self) -> tuple[Click, ...]:
        placed: dict[tuple[int, str], tuple[float, float]] = {}
        for edit in self.done:
            if edit.uv_px is None:
                placed.pop((edit.frame, edit.landmark), None)
            else:
                placed[edit.frame, edit.landmark] = edit.uv_px
        return tuple(Click(frame, landmark, uv) for (frame, landmark), uv in sorted(placed.items(), key=lambda item: item[0][0]))

    def make(self, edit: Edit) -> None:
        """Do something new; what was taken back before cannot be redone any more."""
        self.done.append(edit)
        self.undone.clear()

    def undo(self) -> Edit | None:
        """Take the last edit back; None when there is none."""
        if not self.done:
            return None
        self.undone.append(self.done.pop())
        return self.undone[-1]

    def redo(self) -> Edit | None:
        """Make the edit again that was taken back last; None when there is none."""
        if not self.undone:
            return None
        self.done.append(self.undone.pop())
        return self.done[-1]


class Journal:
    """The file and the history it tells. Every method that changes something returns after the line is on the disk."""

    def __init__(self, folder: Path, capture: Capture, first: Sequence[Click] = ()) -> None:
        """Open or start the journal in ``folder``; ``first`` seeds a new one.

        StoreError: another process has it open, it is of another capture, it cannot be written or is broken before its last line.
        """
        self.path, self.folder = folder / JOURNAL, folder
        with reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        try:
            self._lock()
            self.history = History()
            whole = self._read(capture)
            with reported(self.path):
                self._file.truncate(whole)
            if whole == 0:
                width, height = capture.size
                self._append({"journal": VERSION, "capture": capture.name, "frames": len(capture.frames), "size": [width, height]})
                for click in first:
                    self.place(click.frame, click.landmark, click.uv_px)
        except BaseException:
            self._file.close()
            raise
        self.export()

    @property
    def clicks(self) -> tuple[Click, ...]:
        return self.history.clicks

    def place(self, frame: int, landmark: str, uv_px: tuple[float, float]) -> None:
        """Set or move a click."""
        u, v = (round(float(x), 3) for x in uv_px)
        self._append({"event": "place", "frame": frame, "landmark": landmark, "u_px": u, "v_px": v})
        self.history.make(Edit(frame, landmark, (u, v)))
        self.export()

    def delete(self, frame: int, landmark: str) -> bool:
        """Remove a click; False when there is none."""
        if not any(click.frame == frame and click.landmark == landmark for click in self.clicks):
            return False
        self._append({"event": "delete", "frame": frame, "landmark": landmark})
        self.history.make(Edit(frame, landmark, None))
        self.export()
        return True

    def undo(self) -> Edit | None:
        """Take the last edit back and return it."""
        return self._step("undo") if self.history.done else None

    def redo(self) -> Edit | None:
        """Make the last edit that was taken back again and return it."""
        return self._step("redo") if self.history.undone else None

    def export(self) -> Path:
        """Write clicks.json beside the journal, whole or not at all."""
        target = self.folder / CLICKS
        scratch = self.folder / f".{CLICKS}.{os.getpid()}"
        with reported(target):
            scratch.write_text(json.dumps(clicks_json(self.clicks), indent=1) + "\n")
            os.replace(scratch, target)
        return target

    def close(self) -> None:
        self._file.close()

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _step(self, verb: Literal["undo", "redo"]) -> Edit | None:
        self._append({"event": verb})
        edit = self.history.undo() if verb == "undo" else self.history.redo()
        self.export()
        return edit

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"{self.path} is open in another annotation app; close that one, or annotate in another folder") from None

    def _append(self, event: dict[str, Any]) -> None:
        """A whole line or none: what a failed write left is cut off again."""
        with reported(self.path):
            before = self._file.seek(0, os.SEEK_END)
            try:
                self._file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(before)
                raise

    def _read(self, capture: Capture) -> int:
        """Replay the file; returns how many bytes of it are whole lines."""
        self._file.seek(0)
        whole = 0
        for number, (line, end) in enumerate(_lines(self._file.read()), 1):
            try:
                event = json.loads(line)
                if number == 1:
                    self._check_head(event, capture)
                else:
                    self._replay(event)
            except (ValueError, KeyError, TypeError):
                raise StoreError(f"{self.path}:{number}: not a journal's line; restore the file from a copy, or move it away") from None
            whole = end
        return whole

    def _check_head(self, head: dict[str, Any], capture: Capture) -> None:
        if head["journal"] > VERSION:
            raise StoreError(f"{self.path} was written by a newer release; update, or annotate in another folder")
        told, given = (head["capture"], head["frames"], list(head["size"])), (capture.name, len(capture.frames), list(capture.size))
        if told != given:
            raise StoreError(f"{self.path} is of capture {_words(told)}, not of {_words(given)}; annotate in another folder")

    def _replay(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "place":
                uv = float(event["u_px"]), float(event["v_px"])
                self.history.make(Edit(int(event["frame"]), str(event["landmark"]), uv))
            case "delete":
                self.history.make(Edit(int(event["frame"]), str(event["landmark"]), None))
            case "undo":
                self.history.undo()
            case "redo":
                self.history.redo()
            case _:
                raise ValueError


def clicks_json(clicks: Sequence[Click]) -> dict[str, Any]:
    """The exchange form of clicks, what `--clicks` reads."""
    return {"clicks": [{"frame": c.frame, "landmark": c.landmark, "u_px": c.uv_px[0], "v_px": c.uv_px[1]} for c in clicks]}


def _lines(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Whole lines with the offset behind them; what follows the last line end is torn and left out."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start:end], end + 1
        start = end + 1


def _words(head: tuple[str, int, list[int]]) -> str:
    name, frames, (width, height) = head
    return f"'{name}' ({frames} frames of {width} × {height})"
