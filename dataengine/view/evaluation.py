"""The page of an evaluation: one file, no network; scores, slices, the error curve, and the frames that went worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from dataengine.record import report as record
from dataengine.view.plots import without_common_prefix
from dataengine.view.typography import ticks

Array = NDArray[np.float64]
CURVE_POINTS = 201
CURVE_MAXIMUM_M = 0.1


@dataclass(frozen=True)
class Picture:
    """A frame of the gallery: the image as a data URI ("" for none), true and estimated keypoints (N, 2) px, NaN where there is none."""

    image: str
    width: int
    height: int
    truth_px: Array
    estimate_px: Array
    seen: NDArray[np.bool_]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Curve:
    """A line of the plot of errors: ADD of F frames, NaN for failures."""

    label: str
    errors_m: Array
    kind: str = "estimate"
    """estimate or bound."""


def write_evaluation(
    path: str | Path, report: record.Report, curves: Sequence[Curve], pictures: Sequence[Picture], command: str = ""
) -> Path:
    """Write the page, complete or not at all; creates the folder; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(evaluation_html(report, curves, pictures, command), encoding="utf-8")
    partial.replace(path)
    return path


def evaluation_html(report: record.Report, curves: Sequence[Curve], pictures: Sequence[Picture], command: str = "") -> str:
    """The page as text. `pictures` belong to the report's worst cases, in their order; there may be fewer."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("dataengine.view"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"score": score, "mm": millimetres, "degrees": degrees, "label": record.axis_label}
    axes: dict[str, list[record.Slice]] = {}
    for s in report.slices:
        axes.setdefault(s.axis, []).append(s)
    told = {axis: parts for axis, parts in axes.items() if len(parts) > 1}
    return environment.get_template("evaluation.html.j2").render(
        r=report,
        curve=curve_svg(curves),
        scenes={a: (slice_svg(p, report.overall.auc), p) for a, p in told.items() if not a.startswith(record.JOINT_AXIS)},
        joints={a: (slice_svg(p, report.overall.auc), p) for a, p in told.items() if a.startswith(record.JOINT_AXIS)},
        one_value={a: p[0] for a, p in axes.items() if len(p) == 1},
        joint_bars=[b for b in (joint_svg([j for j in report.joints if j.unit == unit]) for unit in ("rad", "m")) if b],
        weak=record.weakest(report)[:6],
        gallery=list(zip(report.worst, map(picture_svg, pictures), strict=False)),
        axis={a.name: a for a in record.AXES},
        bounds=bounds,
        command=command,
    )


# ---- numbers -------------------------------------------------------------------------------------------------------------


def score(value: float | None) -> str:
    """AUC as published tables have it: 77.47 for 0.7747."""
    return "–" if value is None else f"{100 * value:.1f}"


def millimetres(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.2f} mm" if value < 0.001 else f"{1000 * value:.1f} mm"


def degrees(value: float | None) -> str:
    return "–" if value is None else f"{math.degrees(value):.2f}°"


def bounds(s: record.Slice) -> str:
    """A slice's interval for people; shares as percent."""
    if s.unit == "0–1":
        return f"{s.low:.0%} to {s.high:.0%}"
    if s.high - s.low <= 1e-3 * abs(s.high):
        return f"{(s.low + s.high) / 2:.4g} {s.unit}"
    return f"{s.low:.4g} to {s.high:.4g} {s.unit}".replace("-", "−")


# ---- drawings --------------------------------------------------------------------------------------------------------------


def curve_svg(curves: Sequence[Curve], width: int = 640, height: int = 300) -> Markup:
    """Share of frames with an ADD of at most t, over t from 0 to 10 cm. The area under it is the AUC."""
    left, right, top, bottom = 46, 14, 10, 34
    thresholds = np.linspace(0, CURVE_MAXIMUM_M, CURVE_POINTS)

    def at(t: float, share: float) -> tuple[float, float]:
        return left + t / CURVE_MAXIMUM_M * (width - left - right), top + (1 - share) * (height - top - bottom)

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = at(0, share)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for t in range(0, 101, 20):
        x = at(t / 1000, 0)[0]
        anchor = "end" if t == 100 else "middle"
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{height - bottom}" y2="{height - bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 17}" text-anchor="{anchor}">{t} mm</text>')
    for c in curves:
        found = np.sort(c.errors_m[np.isfinite(c.errors_m)])
        shares = np.searchsorted(found, thresholds, side="right") / max(len(c.errors_m), 1)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(t, s) for t, s in zip(thresholds.tolist(), shares.tolist(), strict=True)))
        if c.kind == "estimate":
            x0, y0 = at(0, 0)
            x1, _ = at(CURVE_MAXIMUM_M, 0)
            parts.append(f'<polygon class="area" points="{x0:.1f},{y0:.1f} {points} {x1:.1f},{y0:.1f}"/>')
        parts.append(f'<polyline class="line {c.kind}" points="{points}"><title>{escape(c.label)}</title></polyline>')
    return _svg(width, height, "".join(parts), "share of frames over the threshold of ADD")


def slice_svg(parts: Sequence[record.Slice], overall: float | None, width: int = 360) -> Markup:
    """AUC of each slice with its 95 % interval, over the dashed line of all frames; the size of a dot tells its frames."""
    row, label_w, right, bottom = 24, 128, 44, 20
    height = row * len(parts) + bottom
    most = max(max(s.score.frames for s in parts), 1)

    def x(auc: float) -> float:
        return label_w + auc * (width - label_w - right)

    out = [f'<line class="grid" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="0" y2="{height - bottom}"/>' for v in (0, 0.25, 0.5, 0.75, 1)]
    out += [f'<text x="{x(v):.1f}" y="{height - 5}" text-anchor="middle">{100 * v:g}</text>' for v in (0, 0.25, 0.5, 0.75, 1)]
    if overall is not None:
        out.append(f'<line class="overall" x1="{x(overall):.1f}" x2="{x(overall):.1f}" y1="0" y2="{height - bottom}"/>')
    for i, s in enumerate(parts):
        y, auc, interval = row * i + row / 2, s.score.auc or 0.0, s.score.auc_ci95
        weak = "weak" if overall is not None and interval is not None and interval[1] < overall else ""
        told = f"AUC {score(s.score.auc)}, median {millimetres(s.score.median_m)}, {s.score.frames} frames, {s.score.failures} failed"
        out.append(f'<g class="slice {weak}"><title>{escape(bounds(s))}: {escape(told)}</title>')
        out.append(f'<rect class="hit" x="0" y="{y - row / 2}" width="{width}" height="{row}"/>')
        out.append(f'<text x="{label_w - 10}" y="{y + 4}" text-anchor="end">{escape(bounds(s))}</text>')
        if interval is not None:
            out.append(f'<line class="whisker" x1="{x(interval[0]):.1f}" x2="{x(interval[1]):.1f}" y1="{y}" y2="{y}"/>')
        out.append(f'<circle class="mean" cx="{x(auc):.1f}" cy="{y}" r="{2.4 + 3.2 * math.sqrt(s.score.frames / most):.1f}"/>')
        out.append(f'<text class="value" x="{width - 4}" y="{y + 4}" text-anchor="end">{score(s.score.auc)}</text></g>')
    return _svg(width, height, "".join(out), "AUC by slice")


def joint_svg(joints: Sequence[record.JointScore], width: int = 520) -> Markup:
    """Median (bar) and 95th percentile (line) of each joint's error: degrees, mm for sliding joints."""
    row, label_w, number_w, bottom = 22, 136, 156, 20
    height = row * len(joints) + bottom
    factor, unit = (1000.0, "mm") if joints and joints[0].unit == "m" else (math.degrees(1), "°")
    most = max([factor * (j.p95 or 0.0) for j in joints] + [1e-9])

    def x(value: float) -> float:
        return label_w + value / most * (width - label_w - number_w)

    out = []
    for t in ticks(0, most, 4):
        out.append(f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="0" y2="{height - bottom}"/>')
        out.append(f'<text x="{x(t):.1f}" y="{height - 5}" text-anchor="middle">{t:g}</text>')
    for i, (j, name) in enumerate(zip(joints, without_common_prefix([j.joint for j in joints]), strict=True)):
        y = row * i
        out.append(f'<text x="{label_w - 10}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        if j.median is None or j.p95 is None:
            continue
        out.append(f'<line class="whisker" x1="{label_w}" x2="{x(factor * j.p95):.1f}" y1="{y + 11}" y2="{y + 11}"/>')
        out.append(f'<rect class="bar" x="{label_w}" y="{y + 5}" width="{max(x(factor * j.median) - label_w, 1):.1f}" height="12" rx="2"/>')
        text = f"{factor * j.median:.2f} {unit}, 95 % {factor * j.p95:.2f} {unit}"
        out.append(f'<text class="value" x="{width - 4}" y="{y + 15}" text-anchor="end">{text}</text>')
    return _svg(width, height, "".join(out), "errors of the joints") if joints else Markup("")


def picture_svg(p: Picture) -> Markup:
    """The image with the true skeleton (solid) and the estimated one (dashed), and a thin line from each to each."""
    parts = [f'<rect class="nothing" width="{p.width}" height="{p.height}"/>']
    if p.image:
        parts.append(f'<image href="{escape(p.image)}" width="{p.width}" height="{p.height}"/>')
    unit = p.width / 640
    for kind, points in (("truth", p.truth_px), ("guess", p.estimate_px)):
        for a, b in p.edges:
            if _drawable(points[[a, b]], p):
                (x1, y1), (x2, y2) = points[a].tolist(), points[b].tolist()
                parts.append(
                    f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{3 * unit:.1f}"/>'
                )
    for k, (a, b) in enumerate(zip(p.truth_px, p.estimate_px, strict=True)):
        if _drawable(np.stack([a, b]), p):
            parts.append(
                f'<line class="gap" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke-width="{1.4 * unit:.1f}"/>'
            )
        for kind, point in (("truth", a), ("guess", b)):
            if _drawable(point[None], p):
                kind += "" if p.seen[k] or kind == "guess" else " hidden"
                place = f'cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{4 * unit:.1f}"'
                parts.append(f'<circle class="{kind}" {place} stroke-width="{2 * unit:.1f}"/>')
    return Markup(f'<svg class="shot" viewBox="-0.5 -0.5 {p.width} {p.height}" role="img">{"".join(parts)}</svg>')


def _drawable(points: Array, p: Picture) -> bool:
    """Whether all points are known and not far off the image."""
    return bool(np.isfinite(points).all() and np.abs(points).max() < 4 * max(p.width, p.height))


def _svg(width: int, height: int, body: str, label: str) -> Markup:
    return Markup(f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>')
