"""THE table of keys: what the app binds, what its help shows, what the README prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Modifier = Literal["shift", "cmd/ctrl", "cmd/ctrl+shift"] | None
STEP_FRAMES, NUDGE_PX = 10, 0.25


@dataclass(frozen=True)
class Key:
    """One binding: the method of the app it calls, with its argument."""

    key: str
    modifier: Modifier
    action: str
    argument: tuple[float, ...]
    label: str

    @property
    def shown(self) -> str:
        """`Ctrl+Shift+Z`."""
        names = {"cmd/ctrl": "Ctrl+", "cmd/ctrl+shift": "Ctrl+Shift+", "shift": "Shift+", None: ""}
        return names[self.modifier] + self.key.removeprefix("arrow").capitalize()


KEYS: tuple[Key, ...] = (
    Key("F", None, "step", (1,), "next frame"),
    Key("arrowright", None, "step", (1,), "next frame"),
    Key("D", None, "step", (-1,), "previous frame"),
    Key("arrowleft", None, "step", (-1,), "previous frame"),
    Key("V", None, "step", (STEP_FRAMES,), f"{STEP_FRAMES} frames on"),
    Key("C", None, "step", (-STEP_FRAMES,), f"{STEP_FRAMES} frames back"),
    Key("space", None, "play", (), "play or stop"),
    Key("enter", None, "next_suspicious", (), "accept, go to the most suspicious frame not yet seen"),
    Key("G", None, "go_to_suggestion", (), "go to the suggested click"),
    Key("N", None, "next_landmark", (1,), "next landmark"),
    Key("N", "shift", "next_landmark", (-1,), "previous landmark"),
    *(Key(str(n), None, "pick_landmark", (n - 1,), f"landmark {n}") for n in range(1, 10)),
    Key("delete", None, "delete", (), "remove the landmark's click in this frame"),
    Key("backspace", None, "delete", (), "remove the landmark's click in this frame"),
    Key("Z", "cmd/ctrl", "undo", (), "undo"),
    Key("Z", "cmd/ctrl+shift", "redo", (), "redo"),
    Key("Y", "cmd/ctrl", "redo", (), "redo"),
    Key("arrowright", "shift", "nudge", (NUDGE_PX, 0.0), f"move the click {NUDGE_PX} px right"),
    Key("arrowleft", "shift", "nudge", (-NUDGE_PX, 0.0), f"move the click {NUDGE_PX} px left"),
    Key("arrowup", "shift", "nudge", (0.0, -NUDGE_PX), f"move the click {NUDGE_PX} px up"),
    Key("arrowdown", "shift", "nudge", (0.0, NUDGE_PX), f"move the click {NUDGE_PX} px down"),
    Key("E", None, "cycle_overlay", (), "overlay: edges, solid, off"),
    Key("X", None, "zoom", (), "zoom to the landmark"),
    Key("B", None, "whole", (), "whole picture"),
    Key("H", None, "help", (), "this table"),
)


MOUSE = (
    ("click", "place the landmark"),
    ("drag", "aim with the loupe, release to place; from a click: move it"),
    ("wheel, right drag", "zoom, move the picture"),
)


def help_table() -> str:
    """Markdown of all keys; those that do the same share a line."""
    lines: dict[str, list[str]] = {}
    for key in KEYS:
        if key.action == "pick_landmark":
            lines["landmark 1 … 9"] = ["1", "…", "9"]
        else:
            lines.setdefault(key.label, []).append(key.shown)
    keys = [f"| {' '.join(f'`{name}`' for name in names)} | {label} |" for label, names in lines.items()]
    return "\n".join(["| key | does |", "|---|---|", *keys, *(f"| {name} | {does} |" for name, does in MOUSE)]) + "\n"
