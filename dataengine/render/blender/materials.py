"""Procedural surfaces: one Blender material per `scene.spec.Material`, and the robot maker's plain materials.

Patterns live in the object's own coordinates (metres), so they stick to it and need no texture coordinates; the seed moves
them to another part of space and picks a variant. Noises stay at two octaves: shading is the largest cost of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataengine.render.blender.adapter import bpy
from dataengine.render.blender.nodes import Graph, Socket
from dataengine.scene.assets import texture_path
from dataengine.scene.spec import Material, Vector

WHITE_LIMIT = 0.8
"""Albedo of good white paint. Makers' files say 1.0, which no surface reaches and which bleaches all shading."""
GREY_SPREAD = 0.02
"""A picture whose mean linear channels differ by less is a grey one."""
FAINT = 0.1
"""Relief below this is left out: it cannot be seen, and bumps make a sample 15 % dearer."""
PLANK_M = 0.14
"""Width of the boards of a wooden table top."""


@dataclass(frozen=True)
class Surface:
    """What a builder works with: the tree, the numbers, coordinates in pattern features and a generator for variants."""

    graph: Graph
    spec: Material
    at: Socket
    rng: np.random.Generator
    is_table: bool

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def stretched(self, x: float, y: float, z: float) -> Socket:
        """Coordinates with axes scaled: small factors make long features."""
        return self.graph.vector("MULTIPLY", self.at, (x, y, z))

    def shade(self, factor: Socket, low: float, high: float, color: Socket) -> Socket:
        """Colour times a brightness that goes from low to high as factor goes from 0 to 1."""
        bright = self.graph.ramp(factor, 0.0, 1.0, low, high)
        return self.graph.scaled(color, bright)

    def relief(self, height: Socket, depth: float) -> dict[str, Socket]:
        """Shader input for bumps `depth` pattern features high at bump 1; nothing for a nearly smooth surface."""
        if self.spec.bump < FAINT:
            return {}
        inputs = {"Height": height, "Strength": min(1.0, self.spec.bump), "Distance": depth * self.spec.pattern_scale_m}
        return {"normal": self.graph.add("ShaderNodeBump", inputs)}


def new_material(name: str) -> tuple[Any, Graph]:
    """An empty material and its node tree."""
    material = bpy.data.materials.new(name)
    return material, Graph(material)


def build_material(name: str, spec: Material, is_table: bool = False) -> Any:
    """The Blender material of a procedural surface; wooden tables get boards."""
    material, graph = new_material(name)
    rng = np.random.default_rng(spec.seed)
    inputs = {
        "Vector": graph.local(),
        "Location": rng.uniform(-40.0, 40.0, 3).tolist(),
        "Scale": (1.0 / max(spec.pattern_scale_m, 1e-4),) * 3,
    }
    at = graph.add("ShaderNodeMapping", inputs, vector_type="POINT")
    surface = Surface(graph, spec, at, rng, is_table)
    builder = _textured if spec.texture else BUILDERS[spec.kind]
    graph.output("ShaderNodeOutputMaterial", builder(surface))
    return material


def plain_material(name: str, color: Vector, roughness: float, metallic: float) -> Any:
    """A uniform surface: what robot makers give."""
    material, graph = new_material(name)
    shader = principled(graph, base_color=printable_color(color), roughness=roughness, metallic=metallic, ior=1.5)
    graph.output("ShaderNodeOutputMaterial", shader)
    return material


def printable_color(color: Vector, factor: Vector = (1.0, 1.0, 1.0)) -> Vector:
    """Maker's colour times a tint, its brightest channel limited to what real paint reflects; the hue stays."""
    tinted = np.clip(np.asarray(color, float) * factor, 0.0, None)
    r, g, b = (tinted * min(1.0, WHITE_LIMIT / max(tinted.max(), 1e-9))).tolist()
    return r, g, b


def principled(graph: Graph, **inputs: Socket) -> Socket:
    """A Principled BSDF; keyword base_color is the input `Base Color`, and so on."""
    names = {key.replace("_", " ").title().replace("Ior", "IOR"): value for key, value in inputs.items()}
    return graph.add("ShaderNodeBsdfPrincipled", names)


def _smudged(s: Surface, spread: float = 0.25) -> Socket:
    """Roughness with slow variation, as handled surfaces have."""
    slow = s.graph.noise(s.at, 0.35, 1.0)
    r = s.spec.roughness
    return s.graph.ramp(slow, 0.3, 0.7, max(0.02, r * (1 - spread)), min(1.0, r * (1 + spread)))


def _textured(s: Surface) -> Socket:
    """A picture projected from the six sides of a box; a grey one takes the surface's colour on average, a coloured one keeps its own."""
    assert s.spec.texture is not None
    image = bpy.data.images.load(str(texture_path(s.spec.texture)), check_existing=True)
    picture = s.graph.add("ShaderNodeTexImage", {"Vector": s.at}, image=image, projection="BOX", projection_blend=0.15)
    pixels = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(pixels)
    mean = pixels.reshape(-1, image.channels)[:, :3].astype(float) ** 2.2
    grey = np.ptp(mean.mean(0)) < GREY_SPREAD
    color = s.graph.vector("MULTIPLY", picture, tuple((np.asarray(s.spec.color) / max(mean.mean(), 0.02)).tolist())) if grey else picture
    return principled(s.graph, base_color=color, roughness=s.spec.roughness, ior=1.45, **s.relief(picture, 0.01))


def _metal(s: Surface) -> Socket:
    """Brushed along x, spangled like zinc, or cast."""
    g, rough = s.graph, s.spec.roughness
    variant = s.rng.integers(3)
    spread = 0.25
    if variant == 0:
        grain = g.noise(s.stretched(0.15, 9.0, 9.0), 1.0, 1.0)
    elif variant == 1:
        grain, spread = g.voronoi(s.at, 1.0), 0.12
    else:
        grain = g.noise(s.at, 3.0, 1.0)
    roughness = g.ramp(grain, 0.25, 0.75, max(0.05, (1 - spread) * rough), min(1.0, (1 + spread) * rough))
    color = s.shade(grain, 0.93, 1.03, s.spec.color)
    return principled(g, base_color=color, metallic=1.0, roughness=roughness, **s.relief(grain, 0.004))


def _plastic(s: Surface) -> Socket:
    """Moulded: even colour, fine grain; one in three is speckled with the second colour."""
    g = s.graph
    color: Socket = s.spec.color
    if s.rng.integers(3) == 0:
        color = g.mix_colors(g.ramp(g.noise(s.at, 4.0), 0.68, 0.72), color, s.spec.color2)
    grain = g.noise(s.at, 6.0) if s.spec.bump >= FAINT else 0.5
    return principled(g, base_color=color, roughness=_smudged(s, 0.15), ior=1.46, **s.relief(grain, 0.01))


def _wood(s: Surface) -> Socket:
    """Growth rings around a pith below the surface, long fibres along x; table tops are made of boards with wider rings."""
    g, at, gap = s.graph, s.at, None
    if s.is_table:
        at, gap = _boards(s)
    at = g.scaled(at, 2.5)
    wobble = g.noise(g.vector("MULTIPLY", at, (0.06, 0.3, 0.3)), 1.0, 1.0)
    tilt = (0.0, s.between(0.02, 0.08), s.between(-0.05, 0.05))
    inputs = {"Vector": at, "Location": (0.0, s.between(-2, 2), s.between(3, 8)), "Rotation": tilt}
    pith = g.add("ShaderNodeMapping", inputs, vector_type="POINT")
    across = g.vector("LENGTH", g.vector("MULTIPLY", pith, (0.0, 1.0, 1.0)))
    rings = g.math("FRACT", g.math("ADD", g.math("MULTIPLY", across, 0.5 if s.is_table else 1.3), g.math("MULTIPLY", wobble, 2.0)))
    late = g.math("MULTIPLY", rings, g.ramp(rings, 0.9, 1.0, 0.85, 0.0))
    fibres = g.noise(g.vector("MULTIPLY", at, (0.12, 12.0, 12.0)), 1.0, 1.0)
    color = g.mix_colors(g.math("MULTIPLY", late, late), s.spec.color, s.spec.color2)
    color = s.shade(fibres, 0.75, 1.2, color)
    roughness = g.ramp(fibres, 0.3, 0.7, min(1.0, 1.2 * s.spec.roughness), 0.85 * s.spec.roughness)
    if gap is not None:
        color = s.shade(gap, 0.3, 1.0, color)
    return principled(g, base_color=color, roughness=roughness, ior=1.5, **s.relief(fibres, 0.015))


def _boards(s: Surface) -> tuple[Socket, Socket]:
    """Coordinates that jump from board to board, and 0 in the gaps between boards, else 1."""
    g = s.graph
    width = PLANK_M * s.between(0.7, 1.5) / s.spec.pattern_scale_m
    row = g.math("DIVIDE", g.axis(s.at, "Y"), width)
    jump = g.node("ShaderNodeTexWhiteNoise", {"W": g.math("FLOOR", row)}, noise_dimensions="1D").outputs["Color"]
    moved = g.vector("MULTIPLY_ADD", jump, (60.0, 7.0, 3.0), s.at)
    edge = g.math("ABSOLUTE", g.math("SUBTRACT", g.math("FRACT", row), 0.5))
    gap_half = 0.0015 / (width * s.spec.pattern_scale_m)
    return moved, g.ramp(edge, 0.5 - gap_half, 0.5 - 0.6 * gap_half, 1.0, 0.0)


def _fabric(s: Surface) -> Socket:
    """Woven threads; plain, striped or checked in the second colour."""
    g = s.graph
    waves = g.vector("SINE", g.scaled(s.at, 1.5 * np.pi))
    part = g.node("ShaderNodeSeparateXYZ", (waves,)).outputs
    rolled = g.add("ShaderNodeCombineXYZ", (part["Y"], part["Z"], part["X"]))
    weave = g.ramp(g.vector("DOT_PRODUCT", waves, rolled), -1.0, 1.0)
    fuzz = g.noise(s.at, 1.7, 1.0)
    variant = s.rng.integers(3)
    color: Socket = g.mix_colors(0.25, s.spec.color, s.spec.color2)
    if variant > 0:
        large = g.node("ShaderNodeSeparateXYZ", (g.vector("SINE", g.vector("MULTIPLY", s.at, (0.25, 0.25, 0.25))),)).outputs
        first = g.ramp(large["X"], 0.1, 0.35, 0.0, 1.0 if variant == 1 else 0.5)
        amount = first if variant == 1 else g.math("ADD", first, g.ramp(large["Y"], 0.1, 0.35, 0.0, 0.5))
        color = g.mix_colors(amount, s.spec.color, s.spec.color2)
    color = s.shade(g.math("ADD", g.math("MULTIPLY", weave, 0.6), g.math("MULTIPLY", fuzz, 0.4)), 0.65, 1.25, color)
    return principled(g, base_color=color, roughness=max(0.7, s.spec.roughness), ior=1.4, sheen_weight=0.15, **s.relief(weave, 0.15))


def _ceramic(s: Surface) -> Socket:
    """Glazed: plain with specks, with painted bands around z, or crackled."""
    g = s.graph
    variant = s.rng.integers(3)
    color: Socket = s.spec.color
    if variant == 0:
        specks = g.noise(s.at, 5.0, 1.0)
        color = g.mix_colors(g.ramp(specks, 0.66, 0.7), color, s.spec.color2)
    elif variant == 1:
        z = g.axis(g.local(), "Z")
        band = g.math("SINE", g.math("MULTIPLY", z, 2 * np.pi / max(2.0 * s.spec.pattern_scale_m, 0.02)))
        color = g.mix_colors(g.ramp(band, 0.45, 0.5), color, s.spec.color2)
    else:
        glaze = g.noise(s.at, 0.8, 2.0)
        color = g.mix_colors(g.ramp(glaze, 0.4, 0.62), color, s.spec.color2)
    lumps = g.noise(s.at, 0.6) if s.spec.bump >= FAINT else 0.5
    return principled(g, base_color=color, roughness=min(0.25, s.spec.roughness), ior=1.55, **s.relief(lumps, 0.05))


def _stone(s: Surface) -> Socket:
    """Granite (grains of both colours) or marble (veins)."""
    g = s.graph
    if s.rng.integers(2) == 0:
        grains = g.voronoi(s.at, 9.0)
        fine = g.noise(s.at, 18.0, 1.0)
        amount = g.ramp(g.math("ADD", grains, g.math("MULTIPLY", fine, 0.6)), 0.45, 1.1)
    else:
        warp = g.node("ShaderNodeTexNoise", {"Vector": s.at, "Scale": 0.25, "Detail": 1.0}).outputs["Color"]
        warped = g.vector("ADD", s.at, g.vector("MULTIPLY", warp, (5.0, 5.0, 5.0)))
        ridge = g.math("ABSOLUTE", g.math("SUBTRACT", g.noise(warped, 0.3, 2.0), 0.5))
        cloud = g.noise(s.at, 0.2)
        amount = g.math("ADD", g.ramp(ridge, 0.0, 0.07, 0.8, 0.0), g.ramp(cloud, 0.4, 0.8, 0.0, 0.35), clamp=True)
    relief = s.relief(g.noise(s.at, 6.0), 0.02) if s.spec.bump >= FAINT else {}
    color = g.mix_colors(amount, s.spec.color, s.spec.color2)
    return principled(g, base_color=color, roughness=_smudged(s), ior=1.54, **relief)


def _paint(s: Surface) -> Socket:
    """Sprayed or brushed enamel; one in two is two-tone along z."""
    g = s.graph
    color: Socket = s.spec.color
    if s.rng.integers(2) == 0 and not s.is_table:
        z = g.axis(g.local(), "Z")
        color = g.mix_colors(g.math("GREATER_THAN", z, s.between(-0.01, 0.02)), color, s.spec.color2)
    tone = g.noise(s.stretched(0.3, 3.0, 3.0), 1.0, 1.0)
    color = s.shade(tone, 0.9, 1.1, color)
    return principled(g, base_color=color, roughness=_smudged(s), ior=1.5, **s.relief(tone, 0.02))


def _glass(s: Surface) -> Socket:
    """Clear, slightly tinted."""
    pale = tuple(0.85 + 0.15 * c for c in s.spec.color)
    return principled(s.graph, base_color=pale, roughness=min(0.1, s.spec.roughness * 0.2), ior=1.45, transmission_weight=1.0)


BUILDERS: dict[str, Callable[[Surface], Socket]] = {
    "metal": _metal,
    "plastic": _plastic,
    "wood": _wood,
    "fabric": _fabric,
    "ceramic": _ceramic,
    "stone": _stone,
    "paint": _paint,
    "glass": _glass,
}
