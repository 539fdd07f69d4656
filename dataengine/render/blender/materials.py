"""Procedural surfaces: one Blender material per `scene.spec.Material`, and the robot maker's plain materials.

Patterns live in the object's own coordinates (metres), so they stick to it and need no texture coordinates; the seed moves
them to another part of space. Noises stay at two octaves: shading is the largest cost of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dataengine.render.blender.adapter import bpy, materials
from dataengine.render.blender.nodes import Graph, Socket
from dataengine.scene.spec import Material, Vector


def new_material(name: str) -> tuple[Any, Graph]:
    """An empty material and its node tree."""
    material = bpy.data.materials.new(name)
    return material, Graph(material)


def build_material(name: str, spec: Material) -> Any:
    """The Blender material of a procedural surface."""
    material, graph = new_material(name)
    graph.output("ShaderNodeOutputMaterial", BUILDERS[spec.kind](graph, spec))
    return material


def plain_material(name: str, color: Vector, roughness: float, metallic: float) -> Any:
    """A uniform surface: what robot makers give."""
    material, graph = new_material(name)
    shader = graph.add("ShaderNodeBsdfPrincipled", {"Base Color": color, "Roughness": roughness, "Metallic": metallic, "IOR": 1.5})
    graph.output("ShaderNodeOutputMaterial", shader)
    return material


def tint(material: Any, factor: Vector) -> None:
    """Multiply the base colour of a plain material."""
    wrapped = materials.Material(material)
    base = wrapped.get_principled_shader_value("Base Color")
    wrapped.set_principled_shader_value("Base Color", (*(np.clip(np.array(base[:3]) * factor, 0.0, 1.0).tolist()), 1.0))


def _coordinates(graph: Graph, spec: Material) -> Socket:
    """Object coordinates in units of the pattern's features, moved by the seed."""
    local = graph.node("ShaderNodeTexCoord").outputs["Object"]
    offset = np.random.default_rng(spec.seed).uniform(-50.0, 50.0, 3)
    scale = (1.0 / spec.pattern_scale_m,) * 3
    return graph.add("ShaderNodeMapping", {"Vector": local, "Location": offset.tolist(), "Scale": scale}, vector_type="POINT")


def _bump(graph: Graph, height: Socket, spec: Material, depth: float = 0.05) -> dict[str, Socket]:
    """Input of a shader for relief `depth` (in pattern features) at bump 1; nothing for a smooth surface."""
    if spec.bump <= 0:
        return {}
    inputs = {"Height": height, "Strength": min(1.0, spec.bump), "Distance": depth * spec.pattern_scale_m}
    return {"Normal": graph.add("ShaderNodeBump", inputs)}


def _principled(graph: Graph, **inputs: Socket) -> Socket:
    names = {key.replace("_", " ").title().replace("Ior", "IOR"): value for key, value in inputs.items()}
    return graph.add("ShaderNodeBsdfPrincipled", names)


def _metal(graph: Graph, spec: Material) -> Socket:
    at = _coordinates(graph, spec)
    brushed = graph.noise(graph.vector("MULTIPLY", at, (0.3, 12.0, 12.0)), 1.0, 1.0)
    rough = graph.ramp(brushed, 0.3, 0.7, 0.8 * spec.roughness, min(1.0, 1.25 * spec.roughness))
    return _principled(graph, base_color=spec.color, metallic=1.0, roughness=rough, **_lower(_bump(graph, brushed, spec)))


def _plastic(graph: Graph, spec: Material) -> Socket:
    at = _coordinates(graph, spec)
    grain = graph.noise(at, 2.0, 1.0)
    return _principled(graph, base_color=spec.color, roughness=spec.roughness, ior=1.46, **_lower(_bump(graph, grain, spec, 0.03)))


def _wood(graph: Graph, spec: Material) -> Socket:
    at = _coordinates(graph, spec)
    wave = graph.add("ShaderNodeTexWave", {"Vector": at, "Scale": 0.3, "Distortion": 4.0, "Detail": 1.0}, wave_type="RINGS")
    color = graph.mix_colors(wave, spec.color, spec.color2)
    return _principled(graph, base_color=color, roughness=spec.roughness, ior=1.5, **_lower(_bump(graph, wave, spec)))


def _simple(graph: Graph, spec: Material) -> Socket:
    at = _coordinates(graph, spec)
    noise = graph.noise(at, 1.0, 2.0)
    color = graph.mix_colors(graph.ramp(noise, 0.35, 0.65), spec.color, spec.color2)
    return _principled(graph, base_color=color, roughness=spec.roughness, ior=1.5, **_lower(_bump(graph, noise, spec)))


def _glass(graph: Graph, spec: Material) -> Socket:
    return _principled(graph, base_color=spec.color, roughness=0.0, ior=1.45, transmission_weight=1.0)


def _lower(inputs: dict[str, Socket]) -> dict[str, Socket]:
    return {key.lower(): value for key, value in inputs.items()}


BUILDERS: dict[str, Callable[[Graph, Material], Socket]] = {
    "metal": _metal,
    "plastic": _plastic,
    "wood": _wood,
    "fabric": _simple,
    "ceramic": _simple,
    "stone": _simple,
    "paint": _plastic,
    "glass": _glass,
}
