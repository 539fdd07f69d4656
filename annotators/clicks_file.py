"""clicks.json: `{"clicks": [{"frame": 0, "landmark": "elbow", "u_px": 312.5, "v_px": 140.0}, …]}`.

Clicks on objects stand beside them: `"objects": [{"frame": 0, "object": "mug", "point_m": [0, 0, 0.09], "u_px": 301, "v_px": 222}, …]`,
where `point_m` is a point of the object's own frame.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotators.capture_spec import CaptureError
from annotators.landmarks import landmark_set
from annotators.objects import ObjectClick
from annotators.types import Capture, Click
from dataengine.errors import unknown_name
from dataengine.robot.catalogue import load_robot


def read_clicks(path: Path, capture: Capture) -> tuple[Click, ...]:
    """The clicks of a file. CaptureError for a file that is no clicks.json, and for frames or landmarks that the capture lacks."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["clicks"]
        clicks = tuple(_click(row) for row in rows)
    except OSError as error:
        raise CaptureError(f"{path}: cannot read: {error.strerror}; give a clicks.json, or click with --ui") from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CaptureError(f"{path} is no list of clicks ({what}); expected frame, landmark, u_px and v_px of each") from None
    names = landmark_set(load_robot(capture.robot)).names
    for k, click in enumerate(clicks):
        if not 0 <= click.frame < len(capture.frames):
            raise CaptureError(f"{path}: click {k + 1} is in frame {click.frame}, the capture has frames 0 to {len(capture.frames) - 1}")
        if click.landmark not in names:
            raise CaptureError(f"{path}: click {k + 1}: " + unknown_name("landmark", click.landmark, names))
    return clicks


def read_object_clicks(path: Path, capture: Capture, names: Sequence[str]) -> dict[str, list[ObjectClick]]:
    """Clicks by object's name; objects without any have an empty list. CaptureError as `read_clicks`."""
    found: dict[str, list[ObjectClick]] = {name: [] for name in names}
    try:
        rows = json.loads(path.read_text(encoding="utf-8")).get("objects", [])
        clicks = [(str(row["object"]), _object_click(row)) for row in rows]
    except OSError as error:
        raise CaptureError(f"{path}: cannot read: {error.strerror}; give a clicks.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CaptureError(f"{path}: bad clicks on objects ({what}); expected frame, object, point_m, u_px and v_px of each") from None
    for k, (name, click) in enumerate(clicks):
        if not 0 <= click.frame < len(capture.frames):
            raise CaptureError(
                f"{path}: object click {k + 1} is in frame {click.frame}, the capture has frames 0 to {len(capture.frames) - 1}"
            )
        if name not in found:
            raise CaptureError(f"{path}: object click {k + 1}: " + unknown_name("object", name, names))
        found[name].append(click)
    return found


def _object_click(row: dict[str, Any]) -> ObjectClick:
    x, y, z = (float(v) for v in row["point_m"])
    return ObjectClick(int(row["frame"]), np.array([x, y, z]), (float(row["u_px"]), float(row["v_px"])))


def _click(row: dict[str, Any]) -> Click:
    return Click(int(row["frame"]), str(row["landmark"]), (float(row["u_px"]), float(row["v_px"])))
