"""What was drawn for a video, from which distribution, under which key."""

from __future__ import annotations

from typing import Any

from dataengine.scene.spec import SceneSpec


def explain_rows(scene: SceneSpec) -> list[tuple[str, str, str]]:
    """(key, distribution, value) of every draw, in the order in which they were made."""
    return [(d.key, d.distribution, _text(d.value)) for d in scene.draws]


def explain(scene: SceneSpec) -> str:
    """The draws as a table of plain text, the rejected draws below it."""
    rows = [("key", "distribution", "value"), *explain_rows(scene)]
    widths = [max(len(row[k]) for row in rows) for k in range(2)]
    head = f"{scene.dataset}, video {scene.video}, seed {scene.seed}, split {scene.split}, spec {scene.spec_digest[:12]}"
    lines = [head, "", *(f"{key:{widths[0]}}  {how:{widths[1]}}  {value}" for key, how, value in rows)]
    if scene.rejections:
        lines += ["", "rejected draws", *(f"{n:5d}  {reason}" for reason, n in sorted(scene.rejections.items()))]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return str(value)
