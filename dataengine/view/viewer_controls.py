"""The panel of the viewer: every control by name, and the table of one pixel."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataengine.view.viewer_pixel import PixelValue, depth_error_text

if TYPE_CHECKING:
    import viser

LAYERS = ("Robot", "True depth", "Measured depth", "Objects", "Keypoints", "Cameras", "Picture")
BESIDE, ON_TOP = "side by side", "on top of each other"
HINT = "Click the picture or a point of a cloud."


@dataclass(frozen=True)
class Controls:
    """Handles of the panel; values are read straight from them."""

    video: Any
    frame: Any
    play: Any
    rate: Any
    layers: dict[str, Any]
    picture: Any
    point_colour: Any
    arrange: Any
    point_size: Any
    reach: Any
    through: Any
    overview: Any
    u: Any
    v: Any
    loupe: Any
    table: Any
    note: Any


def build_controls(server: viser.ViserServer, videos: Sequence[str]) -> Controls:
    """Add the whole panel. Ranges and choices are filled in when a video is shown."""
    gui = server.gui
    note = gui.add_markdown("")
    video = gui.add_dropdown("Video", tuple(videos))
    frame = gui.add_slider("Frame", 0, 1, 1, 0, hint="D and F step")
    play = gui.add_checkbox("Play", False, hint="space")
    rate = gui.add_slider("Frames per s", 1, 30, 1, 8)
    through = gui.add_button("Through the camera", icon=None, hint="C")
    overview = gui.add_button("Overview", hint="V")
    with gui.add_folder("Pixel"):
        u = gui.add_number("Column u", 0, min=0, step=1)
        v = gui.add_number("Row v", 0, min=0, step=1)
        loupe = gui.add_html("")
        table = gui.add_html(f"<p style='padding:0 1em;opacity:.7'>{HINT}</p>")
    with gui.add_folder("Show"):
        layers = {name: gui.add_checkbox(name, True) for name in LAYERS}
    with gui.add_folder("Look", expand_by_default=False):
        picture = gui.add_dropdown("Picture", ("rgb",))
        point_colour = gui.add_dropdown("Points", ("rgb",), hint="colour of both clouds")
        arrange = gui.add_dropdown("Clouds", (BESIDE, ON_TOP), hint="measured beside true depth, or in its place")
        point_size = gui.add_slider("Point mm", 0.5, 8.0, 0.5, 3.5)
        reach = gui.add_slider("Up to m", 0.3, 8.0, 0.05, 3.0)
    return Controls(
        video, frame, play, rate, layers, picture, point_colour, arrange, point_size, reach, through, overview, u, v, loupe, table, note
    )


def pixel_table(u: int, v: int, values: Sequence[PixelValue]) -> str:
    """HTML of one pixel: modality, value; what a modality means shows under the pointer."""
    rows = "".join(
        f"<tr title='{html.escape(value.meaning, quote=True)}'><th style='{_HEAD}'>{value.name}</th>"
        f"<td style='{_CELL}'>{html.escape(value.text)}</td></tr>"
        for value in values
    )
    error = f"<tr title='measured minus true depth'><th style='{_HEAD}'>error</th><td style='{_CELL}'>{depth_error_text(values)}</td></tr>"
    return f"<table style='width:100%;padding:0 .8em .6em;font-size:.82em' data-pixel='{u},{v}'>{rows}{error}</table>"


_HEAD = "text-align:left;font-weight:500;opacity:.65;padding:.12em .6em .12em 0;white-space:nowrap;vertical-align:top"
_CELL = "font-variant-numeric:tabular-nums;overflow-wrap:anywhere"
