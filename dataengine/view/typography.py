"""Text and legends on pictures, with the fonts that matplotlib carries, so that every machine draws the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dataengine.view.palette import Rgb, colour_map

INK, MUTED, PAPER = (28, 30, 34), (112, 117, 125), (255, 255, 255)


@dataclass(frozen=True)
class Text:
    """One line of text. ``anchor`` as in Pillow: l m r then a (top) m (middle) s (baseline)."""

    text: str
    x_px: float
    y_px: float
    size_px: int
    colour: tuple[int, int, int] = INK
    anchor: str = "lm"
    bold: bool = False


@lru_cache(maxsize=64)
def font(size_px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


def text_width(text: str, size_px: int, bold: bool = False) -> int:
    """Width in px of a line of text."""
    return int(np.ceil(font(size_px, bold).getlength(text)))


def fitted(text: str, size_px: int, width_px: int, bold: bool = False) -> str:
    """The text, cut with an ellipsis so that it fits."""
    if text_width(text, size_px, bold) <= width_px:
        return text
    while text and text_width(text + "…", size_px, bold) > width_px:
        text = text[:-1]
    return text.rstrip() + "…"


def draw_texts(image: Rgb, texts: Sequence[Text], halo: bool = False) -> Rgb:
    """Copy of ``image`` with the texts; ``halo`` puts a dark rim around the letters."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for t in texts:
        rim = {"stroke_width": max(1, t.size_px // 7), "stroke_fill": (0, 0, 0)} if halo else {}
        draw.text((t.x_px, t.y_px), t.text, font=font(t.size_px, t.bold), fill=t.colour, anchor=t.anchor, **rim)
    return np.asarray(picture).copy()


def colour_bar(height_px: int, width_px: int, map_name: str) -> Rgb:
    """Upright scale, the map's first colour at the bottom."""
    column = colour_map(map_name)[np.linspace(255, 0, height_px).round().astype(int)]
    return np.repeat(column[:, None], width_px, 1)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) within [low, high], about ``count`` of them."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = np.ceil(low / step - 1e-9) * step
    return [float(round(v, 9)) + 0.0 for v in np.arange(first, high + step * 1e-6, step)]


def canvas(height_px: int, width_px: int, colour: tuple[int, int, int] = PAPER) -> Rgb:
    """An empty sheet."""
    return np.full((height_px, width_px, 3), colour, np.uint8)


def paste(sheet: Rgb, image: NDArray[np.uint8], top_px: int, left_px: int) -> None:
    """Put an image on a sheet, in place."""
    h, w = image.shape[:2]
    sheet[top_px : top_px + h, left_px : left_px + w] = image
