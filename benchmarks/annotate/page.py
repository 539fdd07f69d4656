"""The page docs/benchmarks/annotate.md from annotate.json: what must hold, what was measured, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.annotate.runs import COUNTED, EXPECTED

Clip = dict[str, Any]
INTRODUCTION = (
    "Made by `make bench-annotate`. Rendered captures of 36 frames with exact truth, ten clicked frames, every visible landmark clicked "
    "with 2 px of noise by a program; no masks are given. The baseline is the first-frame method (`annotators/baseline.py`) on the same "
    "captures, camera poses and clicks; it uses the depth for its scale, ours in the rows marked RGB only does not. Ours also compares the "
    "robot's outline with the edges of the photographs; in a rendering the outline is exactly that of the CAD model, which no real robot's "
    "is. A fault counts as flagged when the flag meant for it is raised; others may come along. "
)


UNUSABLE = {
    "rotation": "unusable: the camera only turns",
    "short_baseline_robot_moving": "unusable: with the limit off, poses were wrong by 2.5 mm over five frames, 1.5 are allowed",
}
"""Captures that ought to be refused, by the beginning of their name, and why."""


def page(results: dict[str, Any]) -> str:
    """Markdown of everything measured so far."""
    clips: list[Clip] = list(results.get("clips", {}).values())
    solved = [clip for clip in clips if "variants" in clip]
    parts = [
        "# Annotation: what was measured\n",
        INTRODUCTION + f"{len(clips)} captures, {len(solved)} with camera poses. A line that misses says so.\n",
        _table(rows(clips, solved)),
        _per_clip(solved),
        _fault_table(solved),
        _refusals(clips),
        _real(results.get("real", {})),
    ]
    return "\n".join(part for part in parts if part)


def rows(clips: Sequence[Clip], solved: Sequence[Clip]) -> list[tuple[str, str, str, str, bool | None]]:
    """(measure, must, measured, baseline, met)."""
    if not solved:
        return []
    known, p95 = _middle(solved, "known_rgb", "median"), _middle(solved, "known_rgb", "p95")
    base_known, base_unknown = _baseline(solved, "known"), _baseline(solved, "unknown")
    depth, joints = _middle(solved, "unknown_rgbd", "median"), _middle(solved, "unknown_rgbd", "median", "joints_deg")
    known_depth = _middle(solved, "known_rgbd", "median")
    scales = [abs(v["scale_percent"]) for c in solved for v in [c["variants"]["known_rgb"]] if v.get("scale_percent") is not None]
    fused = [abs(v["scale_percent"]) for c in solved for v in [c["variants"]["known_rgbd"]] if v.get("scale_percent") is not None]
    poses = [c["variants"]["known_rgbd"]["relative_pose"] for c in solved if "relative_pose" in c["variants"]["known_rgbd"]]
    alone = [c["colmap_alone"] for c in solved if c.get("colmap_alone")]
    inside, false, flagged, injected = coverage(solved), false_flags(solved), *found_faults(solved)
    usable = [c for c in clips if not _unusable(c)]
    labelled = [c for c in usable if c.get("variants", {}).get("known_rgb", {}).get("accepted", 0) >= 0.8]
    keyframe = [c["sfm"]["cpu_s"] / c["frames"] for c in solved if c["sfm"]["mapper"] != "static"]
    solves = [v["cpu_s"] for c in solved for v in c["variants"].values() if "cpu_s" in v]
    mm, deg = _mid([p["mm"] for p in poses]), _mid([p["deg"] for p in poses])
    return [
        ("keypoints, joints known, scale unknown, RGB only", "median ≤ 3 mm, p95 ≤ 8 mm",
         f"{known:.2f} mm, p95 {p95:.2f} mm", f"{base_known:.2f} mm", known <= 3 and p95 <= 8),
        ("… against the baseline", "≥ 5 times better", f"{base_known / known:.1f} times", "1", base_known >= 5 * known),
        ("… the same with depth, as the baseline has it", "",
         f"{known_depth:.2f} mm, {base_known / known_depth:.1f} times", f"{base_known:.2f} mm", None),
        ("keypoints, joints unknown, RGB-D", "median ≤ 2 mm", f"{depth:.2f} mm", f"{base_unknown:.2f} mm", depth <= 2),
        ("joints, unknown, RGB-D", "≤ 1°", f"{joints:.2f}°", "", joints <= 1),
        ("metric scale from links alone (RGB only), median", "≤ 0.3 %", f"{_mid(scales):.2f} %", "", _mid(scales) <= 0.3),
        ("metric scale with depth, median", "≤ 0.3 %", f"{_mid(fused):.2f} %", "", _mid(fused) <= 0.3),
        ("relative camera pose over five frames, median", "≤ 1.5 mm, 0.1°", f"{mm:.2f} mm, {deg:.3f}°",
         f"COLMAP alone {_mid([a['mm'] for a in alone]):.2f} mm, {_mid([a['deg'] for a in alone]):.3f}°", mm <= 1.5 and deg <= 0.1),
        ("68 % intervals of keypoints hold", "60–76 %", f"{100 * inside:.0f} %", "none states any", 0.60 <= inside <= 0.76),
        ("injected faults flagged", "all", f"{flagged} of {injected}", "", flagged == injected),
        ("false flags on clean captures", "≤ 2 %", f"{100 * false:.1f} % of (capture, kind)", "", false <= 0.02),
        ("usable captures labelled", "≥ 95 %", f"{len(labelled)} of {len(usable)}", "75 %", len(labelled) >= 0.95 * len(usable)),
        ("CPU per VGA frame, one mapper", "≤ 1.5 s", f"{_mid(keyframe):.2f} s", "1.45 s", _mid(keyframe) <= 1.5),
        ("CPU of a solve", "≤ 10 s", f"median {_mid(solves):.1f} s, most {max(solves):.1f} s", "", max(solves) <= 10),
    ]  # fmt: skip


def coverage(solved: Sequence[Clip]) -> float:
    """Share of keypoint errors, per axis and over all variants, within one stated standard deviation."""
    parts = [v["within_sigma"] for c in solved for v in c["variants"].values() if "within_sigma" in v]
    return sum(p["count"] for p in parts) / max(sum(p["of"] for p in parts), 1)


def false_flags(solved: Sequence[Clip]) -> float:
    """Share of (capture, kind of flag) pairs raised without the fault."""
    raised = total = 0
    for clip in solved:
        kinds = {flag["kind"] for flag in clip["variants"]["known_rgbd"].get("flags", [])} | set(clip.get("checks", []))
        allowed = {"object_moved"} if clip.get("object_moved") else set()
        raised += len((kinds & set(COUNTED)) - allowed)
        total += len(set(COUNTED) - allowed)
    return raised / max(total, 1)


def found_faults(solved: Sequence[Clip]) -> tuple[int, int]:
    """(flagged, injected) over all captures and faults."""
    pairs = [(fault, result) for clip in solved for fault, result in clip.get("faults", {}).items()]
    flagged = sum(_flagged(fault, result) for fault, result in pairs)
    moved = [clip for clip in solved if clip.get("object_moved")]
    flagged += sum(any(f["kind"] == "object_moved" for f in clip["variants"]["known_rgbd"].get("flags", [])) for clip in moved)
    return flagged, len(pairs) + len(moved)


def _flagged(fault: str, result: dict[str, Any]) -> bool:
    return any(flag["kind"] == EXPECTED[fault] for flag in result.get("flags", []))


def _unusable(clip: Clip) -> bool:
    return clip["sfm"]["refusal"] is not None and any(clip["name"].startswith(name) for name in UNUSABLE)


def _middle(solved: Sequence[Clip], variant: str, what: str, field: str = "keypoints_mm") -> float:
    return _mid([clip["variants"][variant][field][what] for clip in solved if field in clip["variants"][variant]])


def _baseline(solved: Sequence[Clip], name: str) -> float:
    return _mid([clip["baseline"][name]["keypoints_mm"]["median"] for clip in solved if "keypoints_mm" in clip["baseline"][name]])


def _mid(values: Sequence[float]) -> float:
    finite = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.median(finite)) if finite else float("nan")


def _table(lines: Sequence[tuple[str, str, str, str, bool | None]]) -> str:
    head = "| measure | must | measured | baseline | |\n|---|---|---|---|---|\n"
    word = {True: "met", False: "**missed**", None: ""}
    return head + "".join(f"| {a} | {b} | {c} | {d} | {word[met]} |\n" for a, b, c, d, met in lines)


def _per_clip(solved: Sequence[Clip]) -> str:
    names = ("known_rgb", "known_rgbd", "unknown_rgb", "unknown_rgbd")
    lines = [
        f"| {clip['name']} | {clip['clicks']} | "
        + " | ".join(_cell(clip["variants"][name]) for name in names)
        + " | "
        + " | ".join(_cell(clip["baseline"][name]) for name in ("known", "unknown"))
        + " |\n"
        for clip in solved
    ]
    head = "## Each capture\n\nMedian (95th percentile) keypoint error, mm.\n\n| capture | clicks | "
    columns = " | ".join(["known, RGB", "known, RGB-D", "unknown, RGB", "unknown, RGB-D", "baseline, known", "baseline, unknown"])
    return head + columns + " |\n|" + "---|" * 8 + "\n" + "".join(lines)


def _cell(result: dict[str, Any]) -> str:
    if "keypoints_mm" not in result:
        return result.get("error", "–")[:60]
    return f"{result['keypoints_mm']['median']:.2f} ({result['keypoints_mm']['p95']:.2f})"


def _fault_table(solved: Sequence[Clip]) -> str:
    lines = []
    for fault in EXPECTED:
        results = [clip["faults"][fault] for clip in solved if fault in clip.get("faults", {})]
        if results:
            after = _mid([r["keypoints_mm"]["median"] for r in results if "keypoints_mm" in r])
            error = f"{after:.2f} mm" if np.isfinite(after) else "–"
            lines.append(f"| {fault} | {sum(_flagged(fault, r) for r in results)} of {len(results)} | {error} |\n")
    head = "## Faults, one at a time\n\n| fault | flagged | keypoint error with the fault in, joints known, RGB-D |\n|---|---|---|\n"
    return head + "".join(lines)


def _refusals(clips: Sequence[Clip]) -> str:
    refused = [clip for clip in clips if clip["sfm"]["refusal"] is not None]
    why = {clip["name"]: next((told for name, told in UNUSABLE.items() if clip["name"].startswith(name)), "usable") for clip in refused}
    lines = [f"* {clip['name']} ({why[clip['name']]}): {clip['sfm']['refusal']}\n" for clip in refused]
    return "## Refused\n\nIn brackets: whether the capture is usable.\n\n" + "".join(lines) if refused else ""


def _real(real: dict[str, Any]) -> str:
    if not real:
        return ""
    word = {True: "met", False: "**missed**", None: ""}
    lines = [f"| {name} | {must} | {value} | {word[met]} |\n" for name, must, value, met in real["rows"]]
    return "## Real captures\n\n" + real.get("note", "") + "\n\n| measure | must | measured | |\n|---|---|---|---|\n" + "".join(lines)
