"""Run Cycles once and take its float32 passes from memory, without compositor or files.

`cycles.CyclesRender.render` is the Python method that Blender calls to render a frame; while it runs, the engine's result with all
passes is reachable through `get_result()`. (The documented ways fail in module mode: the viewer node stays empty and the
`Render Result` image has no pixels.) Rows come bottom-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RenderError
from dataengine.render.blender.adapter import bpy, cycles, silenced

Passes = dict[str, NDArray[np.float32]]
"""Pass name → (H, W, channels) float32, first row on top."""

_wanted: tuple[str, ...] = ()
_captured: Passes = {}
_render_unhooked = cycles.CyclesRender.render


def _render_and_keep(engine: Any, depsgraph: Any) -> None:
    _render_unhooked(engine, depsgraph)
    result = engine.get_result()
    for layer in result.layers:
        for render_pass in layer.passes:
            if render_pass.name in _wanted:
                _captured[render_pass.name] = _pixels(render_pass, result.resolution_x, result.resolution_y)


def _pixels(render_pass: Any, width: int, height: int) -> NDArray[np.float32]:
    flat = np.empty(width * height * render_pass.channels, np.float32)
    render_pass.rect.foreach_get(flat)
    return flat.reshape(height, width, render_pass.channels)[::-1].copy()


cycles.CyclesRender.render = _render_and_keep


def render_frame(passes: tuple[str, ...]) -> Passes:
    """Render the current scene and return the named passes; RenderError when one does not come back."""
    global _wanted
    _wanted = passes
    _captured.clear()
    bpy.context.scene.update_tag()  # else persistent data keeps the last seed, samples and denoiser settings
    with silenced():
        bpy.ops.render.render()
    absent = [name for name in passes if name not in _captured]
    if absent:
        raise RenderError(f"Cycles returned no {', '.join(absent)} pass, only {', '.join(sorted(_captured)) or 'nothing'}")
    return {name: _captured.pop(name) for name in passes}
