"""The stage that poses the objects a capture names, from their CAD models and clicks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from annotators.capture_spec import CaptureSpec, read_spec
from annotators.clicks_file import read_object_clicks
from annotators.objects import PosedObject, load_mesh, solve_object
from annotators.progress import Bars
from annotators.run import write_verdict
from annotators.stages import key_of, key_of_files
from annotators.types import Capture, Flag, Solution


def pose_objects(
    path: Path, spec: CaptureSpec, capture: Capture, found: Solution, clicks: Path | None, out: Path, key: str, bars: Bars
) -> tuple[tuple[PosedObject, ...], Solution, str]:
    """Poses of the objects that the capture names, the solution with what was noticed about them, and the key of both."""
    if not spec.objects:
        return (), found, key
    _, source = read_spec(path)
    meshes = [source.path(f"objects.{k}.mesh", thing.mesh) for k, thing in enumerate(spec.objects)]
    for k, mesh in enumerate(meshes):
        if not mesh.is_file():
            raise source.error("objects", f"{spec.objects[k].name}: there is no file {mesh}")
    names = [thing.name for thing in spec.objects]
    marks = read_object_clicks(clicks, capture, names) if clicks is not None else dict.fromkeys(names, [])
    posed: list[PosedObject] = []
    flags: list[Flag] = []
    with bars.task("objects", len(names)) as step:
        for k, (name, mesh) in enumerate(zip(names, meshes, strict=True)):
            if marks[name]:
                shape = load_mesh(mesh)
                solved = solve_object(capture, found.T_world_cam, shape, marks[name])
                posed.append(PosedObject(name, shape, solved))
                flags += [dataclasses.replace(flag, text=f"{name}: {flag.text}") for flag in solved.flags]
            else:
                flags.append(Flag("object_unlabelled", f"{name} has no clicks and is left out of the labels"))
            step(k + 1)
    whole = dataclasses.replace(found, flags=(*found.flags, *flags))
    write_verdict(capture, whole, out)
    clicked = [[name, c.frame, c.point_m.tolist(), c.uv_px] for name in names for c in marks[name]]
    return tuple(posed), whole, key_of("objects 1", key, names, key_of_files(meshes), clicked)
