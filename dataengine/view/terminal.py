"""A picture in the terminal: two pixels per character cell, in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dataengine.view.palette import Rgb

if TYPE_CHECKING:
    from rich.text import Text

UPPER_HALF_BLOCK = "▀"


def half_blocks(image: Rgb, columns: int = 80) -> Text:
    """``image`` (H, W, 3) as a rich Text ``columns`` wide; a cell's upper half is the ink, its lower half the ground.

    Character cells are taken to be twice as tall as wide. Print it with a rich Console; runs of equal cells share one style.
    """
    import cv2
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    columns = max(1, columns)
    rows = 2 * max(1, round(image.shape[0] * columns / image.shape[1] / 2))
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).astype(int)
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        pairs = np.concatenate([upper, lower], 1)
        starts = [0, *(np.flatnonzero((np.diff(pairs, axis=0) != 0).any(1)) + 1).tolist(), columns]
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            ink, ground = Color.from_rgb(*upper[begin]), Color.from_rgb(*lower[begin])
            text.append(UPPER_HALF_BLOCK * (end - begin), Style(color=ink, bgcolor=ground))
        text.append("\n")
    return text
