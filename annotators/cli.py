"""`dataengine annotate`: ingest → camera poses → clicks → solve → dataset → QA page, each stage kept in a file and never done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from annotators import run
from annotators.capture import load_capture
from annotators.capture_spec import CaptureError
from annotators.object_stage import pose_objects
from annotators.progress import Bars
from annotators.stages import load_json
from annotators.types import Capture, Flag, Solution

PORT = 8080
LEAST_ACCEPTED = 0.95
"""Of the frames, in a capture that passes `--strict`."""


def annotate(
    capture_yaml: Path, out: Path, clicks: Path | None = None, ui: bool = False, strict: bool = False, port: int = PORT, seed: int = 0
) -> int:
    """Annotate one capture into the folder `out`; the same command goes on where it was stopped.

    Without `clicks` (a clicks.json) and without `ui`, the clicks of an earlier session in `out` are used, else masks and depth alone.
    Exit code 0; with `strict` 1 where anything was flagged or fewer than 95 % of the frames were accepted.
    """
    console = Console(highlight=False, soft_wrap=True)
    spec, capture = load_capture(capture_yaml)
    with Bars(console) as bars:
        ingest = run.ingest(capture_yaml, spec, capture, out, bars)
        track, key = run.cameras(capture, ingest, out, seed, bars)
        used = run.clicks_of(spec, capture, track, out, clicks, ui, port, bars)
        solution, spreads, key = run.solution(spec, capture, track, used, out, key, bars)
        if run.needs_second_pass(capture, track, solution):
            track, key = run.cameras(capture, ingest, out, seed, bars, solution)
            solution, spreads, key = run.solution(spec, capture, track, used, out, key, bars)
        posed, solution, key = pose_objects(capture_yaml, spec, capture, solution, clicks, out, key, bars)
        dataset = run.dataset(capture, solution, posed, out, key, bars)
        page = run.page(capture, solution, ingest, used, spreads, out, key, bars)
    flags = (*ingest.flags, *solution.flags)
    tell(console, capture, solution, flags)
    console.print(f"dataset {dataset}\nQA page {page}")
    passed = not flags and solution.accepted.mean() >= LEAST_ACCEPTED
    return 1 if strict and not passed else 0


def review(out: Path | None) -> int:
    """Print the verdicts of an annotation in `out` again: flags, accepted frames, why others were not. Exit code as `--strict`."""
    if out is None:
        raise CaptureError("annotate review: give the folder of a finished annotation, such as out/annotated/demo")
    console = Console(highlight=False, soft_wrap=True)
    stored = _newest(out)
    for flag in stored["flags"]:
        console.print(f"[yellow]{flag['kind']}[/] {flag['text']}{_frames(flag['frames'])}")
    rejected = {name: reason for name, reason in zip(stored["frames"], stored["reasons"], strict=True) if reason}
    for name, reason in rejected.items():
        console.print(f"frame {name}: {reason}")
    total = len(stored["frames"])
    console.print(f"{total - len(rejected)} of {total} frames accepted, {len(stored['flags'])} flags; QA page {out / 'qa.html'}")
    return 1 if stored["flags"] or total - len(rejected) < LEAST_ACCEPTED * total else 0


def tell(console: Console, capture: Capture, solution: Solution, flags: tuple[Flag, ...]) -> None:
    """The result in a few lines."""
    for flag in flags:
        console.print(f"[yellow]{flag.kind}[/] {flag.text}{_frames(flag.frames)}")
    trace = np.trace(solution.keypoint_covariance, axis1=-2, axis2=-1)[solution.accepted]
    sigma = f"{1e3 * float(np.nanmedian(np.sqrt(trace / 3))):.2f} mm" if len(trace) else "unknown"
    console.print(f"{capture.name}: {solution.accepted.sum()} of {len(capture.frames)} frames accepted, keypoints ± {sigma} (1 σ per axis)")


def _frames(frames: Any) -> str:
    numbers = list(frames)
    if not numbers:
        return ""
    return f" [dim](frames {', '.join(map(str, numbers[:8]))}{' …' if len(numbers) > 8 else ''})[/]"


def _newest(out: Path) -> dict[str, Any]:
    stored = load_json(out / "stages" / "verdict.json", "verdict")
    if stored is None:
        raise CaptureError(f"{out} holds no finished annotation; run `dataengine annotate CAPTURE.yaml --out {out}` first")
    return stored
