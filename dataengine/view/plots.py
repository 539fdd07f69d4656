"""Small SVG plots for the report. Colours come from the page's style sheet, so they follow light and dark."""

from __future__ import annotations

import math
import os.path
from collections.abc import Mapping, Sequence
from typing import Protocol

from markupsafe import Markup, escape

from dataengine.view.palette import apply_map
from dataengine.view.typography import ticks


class HistogramLike(Protocol):
    """Counts between edges, as `dataengine.quality.coverage.Histogram` has them."""

    @property
    def label(self) -> str: ...
    @property
    def edges(self) -> tuple[float, ...]: ...
    @property
    def counts(self) -> tuple[int, ...]: ...


class PlaceLike(Protocol):
    """A camera place as seen from the robot's base."""

    @property
    def azimuth_rad(self) -> float: ...
    @property
    def elevation_rad(self) -> float: ...
    @property
    def distance_m(self) -> float: ...


def histogram_svg(h: HistogramLike, unit: str = "", width: int = 360, height: int = 96) -> Markup:
    """Bars over an axis with round numbers; hovering a bar tells its range and count."""
    pad, bottom = 8, 20
    low, high, most = h.edges[0], h.edges[-1], max(max(h.counts), 1)

    def x(value: float) -> float:
        return pad + (value - low) / (high - low) * (width - 2 * pad)

    bars = []
    for i, c in enumerate(h.counts):
        left, size = x(h.edges[i]), c / most * (height - bottom - 8)
        tip = f"{h.edges[i]:.3g} to {h.edges[i + 1]:.3g} {unit}: {c}"
        bars.append(
            f'<rect class="bar" x="{left + 0.5:.2f}" y="{height - bottom - size:.2f}" '
            f'width="{max(x(h.edges[i + 1]) - left - 1, 0.5):.2f}" height="{size:.2f}"><title>{escape(tip)}</title></rect>'
        )
    marks = "".join(
        f'<line class="axis" x1="{x(t):.2f}" x2="{x(t):.2f}" y1="{height - bottom}" y2="{height - bottom + 4}"/>'
        f'<text x="{x(t):.2f}" y="{height - 4}" text-anchor="{_anchor(x(t), width)}">{t:g}</text>'
        for t in ticks(low, high, 4)
    )
    base = f'<line class="axis" x1="{pad}" x2="{width - pad}" y1="{height - bottom}" y2="{height - bottom}"/>'
    return _svg(width, height, "".join(bars) + base + marks, f"histogram of {h.label}")


def camera_polar_svg(cameras: Sequence[PlaceLike], size: int = 330) -> Markup:
    """Cameras on the sky of the base frame: angle = azimuth (+x up, +y left), centre = overhead, ring = horizon.

    Colour tells the distance (near warm). A camera below the horizon lies outside the ring.
    """
    c, r = size / 2, size / 2 - 32
    rings = "".join(
        f'<circle class="grid" cx="{c}" cy="{c}" r="{r * (90 - e) / 90:.1f}"/>'
        f'<text class="faint" x="{c + 3}" y="{c - r * (90 - e) / 90 + 11:.1f}">{e}°</text>'
        for e in (0, 30, 60)
    )
    spokes = "".join(
        f'<line class="grid" x1="{c}" y1="{c}" x2="{c - r * math.sin(a):.1f}" y2="{c - r * math.cos(a):.1f}"/>'
        for a in (k * math.pi / 6 for k in range(12))
    )
    names = "".join(
        f'<text x="{c - (r + 14) * math.sin(math.radians(a)):.1f}" y="{c - (r + 14) * math.cos(math.radians(a)) + 4:.1f}" '
        f'text-anchor="middle">{label}</text>'
        for a, label in ((0, "0° +x"), (90, "90°"), (180, "180°"), (270, "−90°"))
    )
    return _svg(size, size, rings + spokes + _camera_dots(cameras, c, r) + names, "camera azimuth and elevation")


def _camera_dots(cameras: Sequence[PlaceLike], centre: float, radius: float) -> str:
    distances = [p.distance_m for p in cameras] or [0.0]
    low, high = min(distances), max(max(distances), min(distances) + 1e-6)
    dot = 4.5 if len(cameras) < 100 else 2.2
    out = []
    for p in cameras:
        rho = radius * (90 - math.degrees(p.elevation_rad)) / 90
        red, green, blue = apply_map([p.distance_m], low, high, "turbo_r")[0].tolist()
        tip = f"azimuth {math.degrees(p.azimuth_rad):.0f}°, elevation {math.degrees(p.elevation_rad):.0f}°, {p.distance_m:.2f} m"
        out.append(
            f'<circle class="dot" cx="{centre - rho * math.sin(p.azimuth_rad):.1f}" '
            f'cy="{centre - rho * math.cos(p.azimuth_rad):.1f}" r="{dot}" fill="rgb({red},{green},{blue})"><title>{tip}</title></circle>'
        )
    return "".join(out)


def bars_svg(values: Mapping[str, float], unit: str = "", width: int = 360, digits: int = 0) -> Markup:
    """One horizontal bar per name with its number, as given (largest first is up to the caller)."""
    row, label_w, number_w = 22, 116, 60
    most = max([*values.values(), 1e-12])
    parts = []
    for i, (name, value) in enumerate(values.items()):
        y, size = i * row, max(value / most * (width - label_w - number_w), 1.0)
        shown = f"{value:,.{digits}f}{' ' + unit if unit else ''}"
        text = _short(name)
        parts.append(
            f'<text x="{label_w - 8}" y="{y + 16}" text-anchor="end">{escape(text)}<title>{escape(name)}</title></text>'
            f'<rect class="bar" x="{label_w}" y="{y + 5}" width="{size:.1f}" height="{row - 10}" rx="2"/>'
            f'<text x="{label_w + size + 6:.1f}" y="{y + 16}">{escape(shown)}</text>'
        )
    return _svg(width, max(row * len(values), 1), "".join(parts), "bars")


def states_svg(states: Mapping[str, Sequence[int]], width: int = 360) -> Markup:
    """Per keypoint one bar of three parts: visible, occluded, outside."""
    row, label_w = 20, 124
    parts = []
    for i, (short, (name, counts)) in enumerate(zip(without_common_prefix(list(states)), states.items(), strict=True)):
        total, left, y = max(sum(counts), 1), float(label_w), i * row
        parts.append(f'<text x="{label_w - 8}" y="{y + 14}" text-anchor="end">{escape(_short(short))}</text>')
        for kind, count in zip(("visible", "occluded", "outside"), counts, strict=True):
            size = count / total * (width - label_w - 8)
            tip = f"{name}: {kind} in {count} of {total} frames"
            parts.append(
                f'<rect class="{kind}" x="{left:.1f}" y="{y + 3}" width="{size:.1f}" height="{row - 6}"><title>{escape(tip)}</title></rect>'
            )
            left += size
    return _svg(width, max(row * len(states), 1), "".join(parts), "keypoint states")


def without_common_prefix(names: Sequence[str]) -> list[str]:
    """Names without the words (up to an underscore) that all of them begin with: panda_link0, panda_hand → link0, hand."""
    prefix = os.path.commonprefix(list(names)).rpartition("_")
    cut = len(prefix[0]) + len(prefix[1]) if len(names) > 1 else 0
    return [name[cut:] for name in names]


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _anchor(x: float, width: int) -> str:
    return "start" if x < 14 else "end" if x > width - 14 else "middle"


def _svg(width: int, height: int, body: str, label: str) -> Markup:
    return Markup(f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>')
