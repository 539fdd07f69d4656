"""Contact sheets: every modality of one video, and one strip per video for a whole dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dataengine.errors import RecordError
from dataengine.record.video import Video
from dataengine.view.colour import DEPTH_MAP, ERROR_LIMIT_M, ERROR_MAP
from dataengine.view.palette import Rgb
from dataengine.view.panels import NAMES, Panel, available, blank, clip_range_m, draw, panel
from dataengine.view.typography import INK, MUTED, Text, canvas, colour_bar, draw_texts, fitted, paste, text_width, ticks

STRIP = ("skeleton", "ir_left", "depth_z", "depth_sim", "depth_error", "normals", "mask_link", "nocs")
GAP_PX, MARGIN_PX = 6, 22
DEPTH_PANELS = ("depth_z", "depth_sim")


def contact_sheet(video: Video, cell_width_px: int = 320, panels: Sequence[str] = NAMES, max_frames: int = 6) -> Rgb:
    """(H, W, 3) uint8: rows = modalities with their names on the left, columns = frames, scales on the right.

    Of a longer clip, ``max_frames`` frames at even distances. RecordError when the video has no images.
    """
    rows = available(video, tuple(panels))
    if not rows:
        raise RecordError("contact sheet: the video has none of the modalities asked for; render with modalities: [all]")
    chosen = spread(video.frame_count, max_frames)
    range_m = clip_range_m(video)
    cell_h = blank(video, cell_width_px).shape[0]
    small, base = max(10, cell_width_px // 26), max(11, cell_width_px // 21)
    label_w = max(text_width(s, base, True) for s in (*(p.label for p in rows), "Objects, amodal")) + 14
    head = round(base * 3.9)
    bar_w = 14 + text_width("+20 mm", small) + 16
    width = MARGIN_PX * 2 + label_w + len(chosen) * (cell_width_px + GAP_PX) - GAP_PX + bar_w
    sheet = canvas(head + MARGIN_PX + len(rows) * (cell_h + GAP_PX) - GAP_PX + MARGIN_PX, width)
    left = MARGIN_PX + label_w
    texts = [
        Text(fitted(title(video), base + 3, width - 2 * MARGIN_PX, True), MARGIN_PX, MARGIN_PX, base + 3, anchor="lt", bold=True),
        *(
            Text(column_title(video, f), left + c * (cell_width_px + GAP_PX), head + MARGIN_PX - 7, small, MUTED, "ls")
            for c, f in enumerate(chosen)
        ),
    ]
    for r, row in enumerate(rows):
        top = head + MARGIN_PX + r * (cell_h + GAP_PX)
        for c, f in enumerate(chosen):
            picture = draw(video, f, row.name, range_m, cell_width_px)
            paste(sheet, picture, top, left + c * (cell_width_px + GAP_PX))
        texts += row_label(row, MARGIN_PX, top + cell_h / 2, base, small, label_w)
        texts += scale(sheet, row, range_m, top, left + len(chosen) * (cell_width_px + GAP_PX) + 4, cell_h, small)
    return draw_texts(sheet, texts)


def dataset_strip(videos: Iterable[Video], cell_width_px: int = 210, panels: Sequence[str] = STRIP) -> Rgb:
    """(H, W, 3) uint8: one row per video (its middle frame), one column per modality, labelled on top.

    A modality that a video lacks stays dark. RecordError without videos.
    """
    rows = list(videos)
    if not rows:
        raise RecordError("dataset strip: no videos given; render at least one")
    shown = [panel(n) for n in panels if any(panel(n) in available(v) for v in rows)]
    base = max(11, cell_width_px // 15)
    heights = [blank(v, cell_width_px).shape[0] for v in rows]
    width = MARGIN_PX * 2 + len(shown) * (cell_width_px + GAP_PX) - GAP_PX
    top = MARGIN_PX + round(base * 1.7)
    sheet = canvas(top + sum(heights) + GAP_PX * (len(rows) - 1) + MARGIN_PX, width)
    texts = [
        Text(fitted(p.label, base, cell_width_px, True), MARGIN_PX + (i + 0.5) * cell_width_px + i * GAP_PX, top - 8, base, INK, "ms", True)
        for i, p in enumerate(shown)
    ]
    for video, height in zip(rows, heights, strict=True):
        frame, range_m, has = video.frame_count // 2, clip_range_m(video), available(video)
        for i, p in enumerate(shown):
            cell = draw(video, frame, p.name, range_m, cell_width_px) if p in has else blank(video, cell_width_px)
            paste(sheet, cell, top, MARGIN_PX + i * (cell_width_px + GAP_PX))
        top += height + GAP_PX
    return draw_texts(sheet, texts)


def save_png(path: str | Path, image: Rgb) -> Path:
    """Write a picture as PNG (equal pictures give equal bytes); creates the folder; returns the path."""
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, optimize=True)
    return path


def spread(count: int, most: int) -> list[int]:
    """All indices, or ``most`` at even distances with both ends."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def title(video: Video) -> str:
    """Dataset, video, seed, split: whatever the scene says."""
    scene = video.scene
    words = [str(scene.get("dataset", video.source))]
    words += [f"video {scene['video']}"] if "video" in scene else []
    words += [f"seed {scene['seed']}"] if "seed" in scene else []
    words += [str(scene["split"])] if "split" in scene else []
    return "  ·  ".join(words)


def column_title(video: Video, frame: int) -> str:
    time_ms = float(video.frames["timestamp_s"][frame]) * 1000
    return f"frame {frame}   t = {time_ms:.0f} ms"


def row_label(row: Panel, x: float, y: float, base: int, small: int, width: int) -> list[Text]:
    """Name of a row and, below it, its note in as many lines as it needs."""
    lines = wrapped(row.note, small, width - 8)
    block = base + len(lines) * (small + 4)
    texts = [Text(row.label, x, y - block / 2 + base / 2, base, INK, "lm", True)]
    step = small + 4
    texts += [Text(s, x, y - block / 2 + base + 4 + i * step + small / 2, small, MUTED, "lm") for i, s in enumerate(lines)]
    return texts


def wrapped(text: str, size_px: int, width_px: int) -> list[str]:
    """Words broken into lines of at most ``width_px``."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size_px) <= width_px:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def scale(sheet: Rgb, row: Panel, range_m: tuple[float, float], top: int, left: int, height: int, small: int) -> list[Text]:
    """Draw the colour scale of a depth or error row on the sheet; returns its numbers."""
    if row.name in DEPTH_PANELS:
        near, far = max(range_m[0], 1e-3), range_m[1]
        marks = depth_marks(near, far)
        places = [((1 / z - 1 / near) / (1 / far - 1 / near), f"{z:g} m") for z in marks]
        bar = colour_bar(height, 12, DEPTH_MAP)
    elif row.name == "depth_error":
        limit = ERROR_LIMIT_M
        places = [(0.5 + 0.5 * e / limit, f"{e * 1000:+.0f} mm" if e else "0") for e in (-limit, -limit / 2, 0, limit / 2, limit)]
        bar = colour_bar(height, 12, ERROR_MAP)
    else:
        return []
    paste(sheet, bar, top, left)
    texts = []
    for unit, label in places:
        y = top + (1 - unit) * (height - 1)
        sheet[min(round(y), top + height - 1), left + 12 : left + 16] = MUTED
        texts.append(Text(label, left + 20, float(np.clip(y, top + small * 0.5, top + height - small * 0.5)), small, MUTED, "lm"))
    return texts


def depth_marks(near: float, far: float) -> list[float]:
    """Round depths about evenly apart in inverse depth, at most seven."""
    candidates = sorted({*ticks(near, far, 24)})
    marks: list[float] = []
    for z in candidates:
        position = (1 / near - 1 / z) / (1 / near - 1 / far)
        last = (1 / near - 1 / marks[-1]) / (1 / near - 1 / far) if marks else -1.0
        if position - last >= 0.15:
            marks.append(z)
    return marks
