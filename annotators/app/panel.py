"""The app's side panel: what everybody sees (status, guide, loupe, clicks), and the controls of the one browser that may edit."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from annotators.app.keys import KEYS, help_table
from annotators.app.live import Suggestion
from annotators.app.suspicion import FrameState
from annotators.landmarks import Landmark
from annotators.types import Click
from dataengine.view.pixels import png_uri, webp_uri
from dataengine.view.viewer_server import by_hand

if TYPE_CHECKING:
    import viser

Array = np.ndarray
STOP_M = 0.002
LISTED = 40
STYLES = ("edges", "solid", "off")


class Actions(Protocol):
    """What the controls call; the app. Every `keys.Key.action` is one of its methods, called with the client and the key's argument."""

    frame: int
    landmark: int
    style: str
    opacity: float

    def go(self, frame: int) -> None: ...
    def choose(self, landmark: int) -> None: ...
    def look(self, style: str, opacity: float) -> None: ...


class SharedPanel:
    """Read by every browser."""

    def __init__(self, server: viser.ViserServer) -> None:
        gui = server.gui
        self._status = gui.add_html("", order=0)
        self._guide = gui.add_html("", order=50)
        self._loupe = gui.add_html("", order=51)
        self._clicks = gui.add_html("", order=60)

    def status(self, lines: Sequence[tuple[str, str]]) -> None:
        """(colour, text) lines."""
        rows = "".join(f"<p style='margin:.15em 0;color:{colour}'>{html.escape(text)}</p>" for colour, text in lines)
        self._status.content = f"<div id='status' style='padding:.3em .8em;font-size:.85em'>{rows}</div>"

    def guide(self, landmark: Landmark, picture: Array) -> None:
        """Where the landmark sits on the robot."""
        text = f"<b>{html.escape(landmark.name)}</b>: {html.escape(landmark.description)}"
        image = f"<img alt='{html.escape(landmark.name, quote=True)}' src='{webp_uri(picture)}' style='width:100%;border-radius:4px'>"
        self._guide.content = f"<div id='guide' style='padding:.2em .8em;font-size:.85em'>{image}<div>{text}</div></div>"

    def loupe(self, picture: Array | None, uv_px: tuple[float, float] | None) -> None:
        """The magnified place under the pointer while it drags, else the selected click."""
        if picture is None or uv_px is None:
            self._loupe.content = ""
            return
        at = f"{uv_px[0]:.2f}, {uv_px[1]:.2f} px"
        image = f"<img src='{png_uri(picture)}' style='display:block;margin:.2em auto;width:{picture.shape[1]}px'>"
        self._loupe.content = f"<div id='loupe' style='text-align:center;font-size:.8em'>{image}{at}</div>"

    def clicks(self, clicks: Sequence[Click], residual: dict[tuple[int, str], tuple[float, float]]) -> None:
        """All clicks with their residuals, the worst first and in red."""
        sized = [
            (float(np.hypot(*residual[c.frame, c.landmark])) if (c.frame, c.landmark) in residual else float("nan"), c) for c in clicks
        ]
        sized.sort(key=lambda pair: -np.nan_to_num(pair[0], nan=-1.0))
        rows = "".join(_click_row(size, click, worst=k == 0 and size > 3) for k, (size, click) in enumerate(sized[:LISTED]))
        more = f"<tr><td colspan=3>… and {len(sized) - LISTED} more</td></tr>" if len(sized) > LISTED else ""
        head = "<tr style='opacity:.6'><th align=left>frame</th><th align=left>landmark</th><th align=right>residual</th></tr>"
        self._clicks.content = f"<table id='clicks' style='width:100%;padding:.3em .8em;font-size:.8em'>{head}{rows}{more}</table>"


class EditorPanel:
    """Controls in the panel of one browser. They go when it disconnects or when `remove` is called."""

    def __init__(self, client: Any, app: Actions, landmarks: Sequence[Landmark], frames: int) -> None:
        gui = client.gui
        self._app, self._landmarks, self._client = app, landmarks, client
        self.frame = gui.add_slider("Frame", 0, max(1, frames - 1), 1, app.frame, order=10)
        self.ranking = gui.add_dropdown("Suspicious", ("–",), order=11, hint="most suspicious frames first")
        self.landmark = gui.add_dropdown("Landmark", tuple(self._options(set())), order=12)
        buttons = gui.add_button_group("Click", ("Undo", "Redo", "Delete"), order=13)
        jump = gui.add_button_group("Go to", ("Suggested", "Suspicious", "Whole"), order=14)
        self.style = gui.add_dropdown("Overlay", STYLES, initial_value=app.style, order=15)
        self.opacity = gui.add_slider("Opacity", 0.0, 1.0, 0.05, app.opacity, order=16)
        show_keys = gui.add_button("Keys", order=70, hint="H")
        by_hand(self.frame, lambda: app.go(int(self.frame.value)))
        by_hand(self.ranking, self._ranked)
        by_hand(self.landmark, lambda: app.choose(self._index(self.landmark.value)))
        for control in (self.style, self.opacity):
            by_hand(control, lambda: app.look(self.style.value, self.opacity.value))
        verbs = {"Undo": "undo", "Redo": "redo", "Delete": "delete"}
        places = {"Suggested": "go_to_suggestion", "Suspicious": "next_suspicious", "Whole": "whole"}
        buttons.on_click(lambda e: getattr(app, verbs[buttons.value])(client))
        jump.on_click(lambda e: getattr(app, places[jump.value])(client))
        show_keys.on_click(lambda e: show_help(client))
        for key in KEYS:
            command = gui.add_command(f"{key.label} ({key.shown})", hotkey=key.key, modifier=key.modifier)
            command.on_trigger(lambda e, key=key: getattr(app, key.action)(client, *key.argument))

    def update(self, clicked: set[str], ranking: Sequence[FrameState]) -> None:
        """Show the app's state in the controls."""
        self.frame.value = self._app.frame
        options = tuple(self._options(clicked))
        if self.landmark.options != options:
            self.landmark.options = options
        self.landmark.value = options[self._app.landmark]
        labels = ("–", *(state.label for state in ranking[:LISTED]))
        if self.ranking.options != labels:
            self.ranking.options = labels
        current = next((state.label for state in ranking[:LISTED] if state.frame == self._app.frame), "–")
        self.ranking.value = current
        self.style.value, self.opacity.value = self._app.style, self._app.opacity

    def _options(self, clicked: set[str]) -> list[str]:
        return [f"{k + 1} {point.name}{' ✓' if point.name in clicked else ''}" for k, point in enumerate(self._landmarks)]

    def _index(self, option: str) -> int:
        return int(option.split()[0]) - 1

    def _ranked(self) -> None:
        if self.ranking.value != "–":
            self._app.go(int(self.ranking.value.split()[0]))


def show_help(client: Any) -> None:
    """The table of keys in front of everything."""
    with client.gui.add_modal("Keys and mouse") as modal:
        client.gui.add_markdown(help_table())
        client.gui.add_button("Close").on_click(lambda e: modal.close())


def advice(suggestion: Suggestion | None) -> tuple[str, str] | None:
    """(colour, text): what to click next, or that it is enough."""
    if suggestion is None:
        return None
    now, then = 1e3 * suggestion.present_sd_m, 1e3 * suggestion.expected_sd_m
    if suggestion.present_sd_m <= STOP_M:
        return "#5aff8c", f"Enough: keypoints known to {now:.1f} mm. You may stop."
    return "#ffd640", f"Next (G): {suggestion.landmark} in frame {suggestion.frame}: {now:.1f} → {then:.1f} mm"


def _click_row(size_px: float, click: Click, worst: bool) -> str:
    shown = f"{size_px:.1f} px" if np.isfinite(size_px) else "–"
    style = " style='color:#ff7060;font-weight:600'" if worst else ""
    return f"<tr{style}><td>{click.frame}</td><td>{html.escape(click.landmark)}</td><td align=right>{shown}</td></tr>"
