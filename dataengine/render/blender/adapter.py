"""Imports bpy 4.5 and the parts of BlenderProc 2.8.0 that we use; everything else here imports them from this module.

BlenderProc expects to live inside a Blender installation: its package start-up installs packages with pip, edits `sys.path` and
refuses plain interpreters. Its modules are sound, so they are imported under a bare parent package that skips the start-up.
Its file writer (never used here; 1 s of imports) is replaced by an empty stand-in.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dataengine.errors import RenderError
from dataengine.render.blender.libraries import explain_missing, missing_libraries

BLENDER_VERSION = (4, 5)


@contextmanager
def silenced() -> Iterator[None]:
    """Send file descriptor 1 to /dev/null meanwhile: Blender prints from C, past `sys.stdout`."""
    sys.stdout.flush()
    saved = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(nowhere)
        os.close(saved)


def _import_bpy() -> Any:
    missing = missing_libraries()
    if missing:
        raise RenderError(explain_missing(missing))
    try:
        with silenced():
            module = importlib.import_module("bpy")
    except ImportError as error:
        raise RenderError(f"bpy cannot be imported: {error}; run `dataengine doctor`") from error
    if module.app.version[:2] != BLENDER_VERSION:
        found = ".".join(map(str, module.app.version))
        raise RenderError(f"bpy is version {found}; this project reads Cycles' results in a way that is checked for 4.5 only")
    return module


def _bare_package(name: str) -> None:
    """Register BlenderProc's package without running its `__init__`."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RenderError(f"{name} is not installed; install the `render` extra (pip install 'dataengine[render]')")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package


def _stand_in(name: str, **attributes: Any) -> None:
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules[name] = module


def _import_blenderproc(module: str) -> Any:
    try:
        with silenced():
            return importlib.import_module(f"blenderproc.python.{module}")
    except ImportError as error:
        raise RenderError(f"BlenderProc's {module} cannot be imported: {error}; install the `render` extra again") from error


bpy: Any = _import_bpy()
_bare_package("blenderproc")
_stand_in("blenderproc.python.writer.WriterUtility", _WriterUtility=None)
mesh_objects: Any = _import_blenderproc("types.MeshObjectUtility")
lights: Any = _import_blenderproc("types.LightUtility")
materials: Any = _import_blenderproc("types.MaterialUtility")
camera: Any = _import_blenderproc("camera.CameraUtility")
rendering: Any = _import_blenderproc("renderer.RendererUtility")
mathutils: Any = importlib.import_module("mathutils")
cycles: Any = importlib.import_module("cycles")


def empty_scene() -> Any:
    """Throw everything away and return a scene with a world, a camera and Cycles on the CPU, one thread."""
    with silenced():
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        rendering.set_render_devices(use_only_cpu=True)
        rendering.set_cpu_threads(1)
        rendering.toggle_light_tree(False)
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(scene.camera)
    return scene
