"""A simulated annotator: clicks on visible landmarks, from exact truth, with a hand's error. `python benchmarks/annotate/simulated.py`
writes `clicks.json` beside a capture that was exported with its truth; these clicks are made by a program, not by a person."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from annotators.capture import load_capture
from annotators.landmarks import landmark_set
from annotators.robot_view import RobotView
from annotators.types import Capture, Click
from dataengine.geometry import camera
from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import KeypointSet

Array = np.ndarray

SIGMA_PX = 2.0
GROSS_SHARE = 0.03
VISIBLE = 0.5


def read_truth(folder: Path) -> dict[str, Any]:
    """`truth.json` of an exported capture, its lists as arrays."""
    truth = json.loads((folder / "truth.json").read_text())
    names = ("joint_names", "keypoint_names", "objects")
    return {k: np.array(v) if isinstance(v, list) and k not in names else v for k, v in truth.items()}


def spread_frames(count: int, clicked: int) -> list[int]:
    """`clicked` frame numbers spread evenly over the capture, ends included."""
    return sorted({int(i) for i in np.linspace(0, count - 1, clicked).round()})


@lru_cache(maxsize=4)
def _landmarks_and_view(robot: str) -> tuple[KeypointSet, RobotView]:
    model = load_robot(robot)
    return landmark_set(model), RobotView(model)


def simulated_clicks(
    capture: Capture, truth: dict[str, Any], frames: Sequence[int], rng: np.random.Generator, sigma_px: float = SIGMA_PX
) -> list[Click]:
    """Every landmark that the image shows in the given frames, off by `sigma_px` in u and in v."""
    points, robot = _landmarks_and_view(capture.robot)
    clicks = []
    for f in frames:
        T_cam_link = robot.poses(truth["joint_position"][f], truth["T_cam_base"][f])
        seen = capture.mask(f) if capture.mask is not None else None
        share = robot.visibility(points, T_cam_link, seen, capture.K)
        uv = camera.project(capture.K, points.positions(T_cam_link)) + rng.normal(0, sigma_px, (len(points), 2))
        for p in np.flatnonzero((share >= VISIBLE) & camera.in_image(uv, *capture.size)):
            clicks.append(Click(f, points.names[p], (float(uv[p, 0]), float(uv[p, 1]))))
    return clicks


def spoiled(
    clicks: Sequence[Click], size: tuple[int, int], rng: np.random.Generator, share: float = GROSS_SHARE
) -> tuple[list[Click], Array]:
    """The same clicks with gross errors, and which (C,) bool are wrong: that share anywhere in the image, and one pair swapped."""
    out, wrong = list(clicks), np.zeros(len(clicks), bool)
    for k in rng.choice(len(out), max(1, round(share * len(out))), replace=False):
        out[k] = Click(out[k].frame, out[k].landmark, (float(rng.uniform(0, size[0] - 1)), float(rng.uniform(0, size[1] - 1))))
        wrong[k] = True
    frame = out[int(rng.integers(len(out)))].frame
    mates = [k for k, c in enumerate(out) if c.frame == frame and not wrong[k]]
    if len(mates) >= 2:
        a, b = (int(k) for k in rng.choice(mates, 2, replace=False))
        out[a], out[b] = Click(frame, out[a].landmark, out[b].uv_px), Click(frame, out[b].landmark, out[a].uv_px)
        wrong[[a, b]] = True
    return out, wrong


def write_clicks(path: Path, clicks: Sequence[Click]) -> None:
    """`clicks.json` as the annotator reads it."""
    rows = [{"frame": c.frame, "landmark": c.landmark, "u_px": round(c.uv_px[0], 3), "v_px": round(c.uv_px[1], 3)} for c in clicks]
    path.write_text(json.dumps({"simulated": True, "clicks": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path, help="capture.yaml with truth.json beside it")
    parser.add_argument("--frames", type=int, default=10, help="how many frames are clicked")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    _, capture = load_capture(given.capture)
    rng = np.random.default_rng(given.seed)
    clicks = simulated_clicks(capture, read_truth(given.capture.parent), spread_frames(len(capture.frames), given.frames), rng)
    write_clicks(given.capture.parent / "clicks.json", clicks)


if __name__ == "__main__":
    main()
