"""Small SVG plots of the QA page: a value per frame, scale sources side by side, the camera's way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from annotators.types import ScaleEstimate

Array = np.ndarray


def series_svg(values: Array, bad: Array, unit: str, limit: float | None = None, width: int = 620, height: int = 110) -> Markup:
    """Values (N,) over the frames, nan as gaps; frames with `bad` (N,) set are marked; `limit` is drawn as a line."""
    left, bottom = 46, 18
    shown = values[np.isfinite(values)]
    top = float(max([*shown, limit or 0.0, 1e-9])) * 1.08
    x = left + (width - left - 8) * (np.arange(len(values)) + 0.5) / max(len(values), 1)
    y = height - bottom - (height - bottom - 8) * np.nan_to_num(values) / top
    parts = [_line(left, height - bottom, width - 8, height - bottom, "axis")]
    for tick in (0.5 * top / 1.08, top / 1.08):
        at = height - bottom - (height - bottom - 8) * tick / top
        parts += [_line(left, at, width - 8, at, "grid"), _text(left - 6, at + 4, f"{tick:.3g}", "end")]
    if limit is not None:
        at = height - bottom - (height - bottom - 8) * limit / top
        parts.append(_line(left, at, width - 8, at, "limit"))
    for run in _runs(np.isfinite(values)):
        points = " ".join(f"{x[k]:.1f},{y[k]:.1f}" for k in run)
        parts.append(f'<polyline class="curve" points="{points}"/>')
    for k in range(len(values)):
        if np.isfinite(values[k]):
            kind = "dot bad" if bad[k] else "dot"
            parts.append(
                f'<circle class="{kind}" cx="{x[k]:.1f}" cy="{y[k]:.1f}" r="2.6"><title>frame {k}: {values[k]:.3g} {unit}</title></circle>'
            )
        elif bad[k]:
            parts.append(
                f'<circle class="dot bad" cx="{x[k]:.1f}" cy="{height - bottom:.1f}" r="2.6"><title>frame {k}: none</title></circle>'
            )
    parts += [_text(left, height - 4, "0", "start"), _text(width - 8, height - 4, f"frame {len(values) - 1}", "end")]
    return _svg(width, height, parts, f"{unit} per frame")


def scales_svg(scales: Sequence[ScaleEstimate], used: float, width: int = 620) -> Markup:
    """Each source's difference from the scale that was used, in per cent, with its standard deviation as a bar."""
    height, left = 30 * len(scales) + 30, 90
    percent = [100 * (s.metres_per_unit / used - 1) for s in scales]
    sigma = [100 * s.sigma / used for s in scales]
    reach = max([1.0, *(abs(p) + s for p, s in zip(percent, sigma, strict=True))]) * 1.1
    middle, unit = (left + width - 8) / 2, (width - left - 8) / 2 / reach
    parts = [_line(middle, 6, middle, height - 20, "axis")]
    for side in (-1, 1):
        parts += [_line(middle + side * unit, 6, middle + side * unit, height - 20, "limit")]
        parts.append(_text(middle + side * unit, height - 6, f"{side:+d} %", "middle"))
    for k, s in enumerate(scales):
        y, x = 20 + 30 * k, middle + unit * percent[k]
        parts += [_line(x - unit * sigma[k], y, x + unit * sigma[k], y, "error"), _text(left - 10, y + 4, s.source, "end")]
        told = f"{escape(s.source)}: {percent[k]:+.2f} ± {sigma[k]:.2f} %"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y}" r="4"><title>{told}</title></circle>')
    return _svg(width, height, parts, "scale sources")


def trajectory_svg(eyes_m: Array, base_m: Array, bad: Array, size: int = 360) -> Markup:
    """Camera centres (N,3) and the base (3,), seen along the direction in which they spread least, to scale; a bar of 10 cm."""
    posed = np.isfinite(eyes_m).all(1)
    points = np.vstack([eyes_m[posed], base_m[None]])
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    flat = centred @ axes.T
    low, high = flat.min(0), flat.max(0)
    unit = (size - 60) / max(float((high - low).max()), 0.05)
    at = 30 + (flat - low) * unit
    track = at[:-1]
    parts = ['<polyline class="curve" points="' + " ".join(f"{u:.1f},{v:.1f}" for u, v in track) + '"/>']
    for k, (u, v) in zip(np.flatnonzero(posed), track, strict=True):
        kind = "dot bad" if bad[k] else "dot"
        parts.append(f'<circle class="{kind}" cx="{u:.1f}" cy="{v:.1f}" r="3"><title>frame {k}</title></circle>')
    u, v = at[-1]
    parts += [f'<rect class="base" x="{u - 5:.1f}" y="{v - 5:.1f}" width="10" height="10"/>', _text(u + 9, v + 4, "base", "start")]
    parts += [_line(12, size - 10, 12 + 0.1 * unit, size - 10, "error"), _text(16 + 0.1 * unit, size - 6, "10 cm", "start")]
    return _svg(size, size, parts, "camera positions")


def _runs(good: Array) -> list[list[int]]:
    """Maximal runs of consecutive indices that are true."""
    found: list[list[int]] = []
    for k in np.flatnonzero(good).tolist():
        if found and found[-1][-1] == k - 1:
            found[-1].append(k)
        else:
            found.append([k])
    return found


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], label: str) -> Markup:
    body = "".join(parts)
    return Markup(f'<svg class="plot" viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{escape(label)}">{body}</svg>')
