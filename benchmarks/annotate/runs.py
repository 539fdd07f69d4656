"""One rendered capture through everything the benchmark measures; the result is one JSON value."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from annotators import capture_checks
from annotators.anchor import solve
from annotators.anchor_state import AnchorOptions
from annotators.baseline import first_frame_solve
from annotators.capture import load_capture
from annotators.sfm import solve_cameras
from annotators.static_camera import static_segments
from annotators.types import CameraTrack, Capture, Click
from benchmarks.annotate import faults
from benchmarks.annotate.scoring import colmap_alone, score, score_baseline
from benchmarks.annotate.simulated import read_truth, simulated_clicks, spoiled, spread_frames
from dataengine.errors import DataEngineError

T = TypeVar("T")
CLICKED_FRAMES = 10
VARIANTS: dict[str, tuple[bool, AnchorOptions]] = {
    "known_rgb": (True, AnchorOptions(use_depth=False, use_masks=False)),
    "known_rgbd": (True, AnchorOptions(use_masks=False)),
    "unknown_rgb": (False, AnchorOptions(use_depth=False, use_masks=False)),
    "unknown_rgbd": (False, AnchorOptions(use_masks=False)),
}
"""Name → (the joint log is given, options). Masks are never given: that would be truth."""
EXPECTED = {
    "depth_scale": "depth_scale",
    "blur": "blur",
    "encoder_lag": "time_offset",
    "base_bumped": "base_moved",
    "joint_pairing": "joint_pairing",
    "wrong_click": "wrong_click",
    "weak_texture": "texture",
    "wrong_K": "intrinsics",
    "object_moved": "object_moved",
}
"""Fault → kind of the flag it must raise. A refusal counts for weak texture."""
COUNTED = (*EXPECTED.values(), "scale_disagreement", "joint_offset")
"""Flags that would be false on a clean capture."""


def cpu_s() -> float:
    """Of this process and its children."""
    return sum(r.ru_utime + r.ru_stime for r in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result and the CPU seconds it took."""
    start = cpu_s()
    return work(), cpu_s() - start


def measure_clip(path: Path, scratch: Path, mapper: str = "global", textures: bool = True) -> dict[str, Any]:
    """All variants, the baseline and all faults of the capture whose YAML is `path`."""
    _, capture = load_capture(path)
    truth = read_truth(path.parent)
    static, static_cpu = timed(lambda: static_segments(capture))
    track, sfm_cpu = timed(lambda: solve_cameras(capture, scratch / "sfm", static, None, mapper))  # type: ignore[arg-type]
    frames = spread_frames(len(capture.frames), CLICKED_FRAMES)
    clicks = simulated_clicks(capture, truth, frames, np.random.default_rng(len(capture.name)))
    moved = "moved" in path.parent.name or "moved" in capture.name
    out: dict[str, Any] = {
        "name": capture.name,
        "frames": len(capture.frames),
        "clicks": len(clicks),
        "sfm": {
            "refusal": track.refusal,
            "posed": int(track.posed.sum()),
            "cpu_s": sfm_cpu,
            "static_cpu_s": static_cpu,
            "mapper": track.mapper,
        },
        "object_moved": moved,
    }
    if track.refusal is not None:
        return out
    out["colmap_alone"] = colmap_alone(track, truth)
    out["variants"] = {name: _variant(capture, track, clicks, truth, name) for name in VARIANTS}
    out["baseline"] = {name: _baseline(capture, track, clicks, truth, known) for name, known in (("known", True), ("unknown", False))}
    out["checks"] = sorted({flag.kind for flag in capture_checks.inspect(capture)} & set(COUNTED))
    out["faults"] = {} if moved else _faults(path, capture, track, clicks, truth, scratch, textures)
    return out


def _variant(capture: Capture, track: CameraTrack, clicks: list[Click], truth: dict[str, Any], name: str) -> dict[str, Any]:
    known, options = VARIANTS[name]
    given = capture if known else replace(capture, joints=None)
    try:
        solution, cpu = timed(lambda: solve(given, track, clicks, options))
    except DataEngineError as error:
        return {"error": str(error)}
    return {**score(solution, track, truth), "cpu_s": cpu}


def _baseline(capture: Capture, track: CameraTrack, clicks: list[Click], truth: dict[str, Any], known: bool) -> dict[str, Any]:
    given = capture if known else replace(capture, joints=None)
    try:
        return score_baseline(first_frame_solve(given, track, clicks), track, truth)
    except DataEngineError as error:
        return {"error": str(error)}


def _faults(
    path: Path, capture: Capture, track: CameraTrack, clicks: list[Click], truth: dict[str, Any], scratch: Path, textures: bool
) -> dict[str, Any]:
    """Flags raised by each fault. Camera poses of the clean capture are reused where the pictures are the same, or only softer."""
    rng = np.random.default_rng(1)
    bad_clicks, wrong = spoiled(clicks, capture.size, rng)
    known = VARIANTS["known_rgbd"][1]
    solution = solve(capture, track, bad_clicks, known)
    missed = int(np.sum(wrong & solution.click_inlier))
    out: dict[str, Any] = {"wrong_click": {**score(solution, track, truth), "missed": missed, "wrong": int(wrong.sum())}}
    moving = bool(np.ptp(truth["joint_position"], axis=0).max() > 0.02)
    names = ["depth_scale", "base_bumped", "blur"]
    names += ["encoder_lag", "joint_pairing"] if moving else []
    names += ["weak_texture", "wrong_K"] if textures and track.mapper != "static" else []
    for fault in names:
        folder = scratch / fault
        if folder.exists():
            shutil.rmtree(folder)
        changed = faults.inject(fault, path, folder, np.random.default_rng(2))
        out[fault] = _one_fault(fault, changed, track, clicks, known, scratch)
        faults.remove(folder)
    return out


def _one_fault(fault: str, path: Path, track: CameraTrack, clicks: list[Click], options: AnchorOptions, scratch: Path) -> dict[str, Any]:
    _, capture = load_capture(path)
    if fault == "blur":
        return {"flags": [{"kind": flag.kind, "text": flag.text} for flag in capture_checks.inspect(capture)]}
    if fault in ("weak_texture", "wrong_K"):
        track = solve_cameras(capture, scratch / f"sfm_{fault}", static_segments(capture), None, "global")
        if track.refusal is not None:
            flags = [{"kind": flag.kind, "text": flag.text} for flag in track.flags]
            flags += [{"kind": "texture", "text": track.refusal}] if "texture" in track.refusal else []
            return {"refusal": track.refusal, "flags": flags}
        clicks = [click for click in clicks if track.posed[click.frame]]
    try:
        return score(solve(capture, track, clicks, options), track, read_truth(path.parent))
    except DataEngineError as error:
        return {"error": str(error), "flags": []}
