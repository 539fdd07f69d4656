"""Path-traced infrared pair: the slow reference that the fast ray-cast pair is checked against.

Same projector, albedos, ambient light, noise and exposure as `dataengine.sensor.ir`; what it adds is light between surfaces, true
shadows of soft lights and pixels that average over geometry. Laser and other light are separate light groups of one render,
since speckle belongs to the laser alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import se3
from dataengine.render.blender.adapter import bpy
from dataengine.render.blender.capture import render_frame
from dataengine.render.blender.materials import new_material, principled
from dataengine.render.blender.meshes import set_pose
from dataengine.render.blender.nodes import Graph
from dataengine.render.blender.settings import frame_seed
from dataengine.render.blender.surroundings import set_intrinsics
from dataengine.scene.spec import SceneSpec
from dataengine.sensor.ir import GAMMA, LIGHT_SHARE, IrNoise, IrSurface, auto_exposure
from dataengine.sensor.pattern import CELL_PX, DOT_SIGMA_PX, PIXEL_SIGMA_PX, TABLE, dot_table
from dataengine.sensor.rig import StereoRig

POINT_POWER_W = 4 * np.pi**2
"""A point light of this power makes a white Lambertian wall at 1 m have radiance 1."""
AREA_POWER_W = np.pi**2
"""Likewise a small disk light, on its axis."""
TEXELS_PER_PX = 2
PATTERN_MARGIN_PX = 160.0
"""The pattern reaches this far beyond the image, for surfaces that the projector sees further to the side."""
LASER, AMBIENT = "laser", "ambient"


def pattern_image(width: float, height: float, offset_u: float, offset_v: float, seed: int) -> NDArray[np.float32]:
    """Dot pattern (H,W), row 0 at the bottom, of the window of native px whose upper left corner is (offset_u, offset_v)."""
    table = dot_table(seed)
    u = offset_u + (np.arange(round(width * TEXELS_PER_PX)) + 0.5) / TEXELS_PER_PX
    v = offset_v + (np.arange(round(height * TEXELS_PER_PX)) + 0.5) / TEXELS_PER_PX
    first_u, first_v = (np.floor(axis / CELL_PX - 0.5).astype(int) for axis in (u, v))
    out = np.zeros((len(v), len(u)), np.float32)
    for dj in (0, 1):
        for di in (0, 1):
            i, j = first_u + di, first_v + dj
            cell = table[np.ix_(j % TABLE, i % TABLE)]
            du = u - (i + cell[..., 0]) * CELL_PX
            dv = v[:, None] - (j[:, None] + cell[..., 1]) * CELL_PX
            out += cell[..., 2] * np.exp(-(du**2 + dv**2) / (2 * DOT_SIGMA_PX**2)).astype(np.float32)
    # the fast path's unit is the peak of a dot after the pixel's blur
    return out[::-1] * np.float32((DOT_SIGMA_PX**2 + PIXEL_SIGMA_PX**2) / DOT_SIGMA_PX**2)


class InfraredRig:
    """Turns the scene of a video into what the infrared eyes see; use within `infrared_scene`."""

    def __init__(self, spec: SceneSpec, rig: StereoRig, noise: IrNoise) -> None:
        self.spec, self.rig, self.noise = spec, rig, noise
        self.projector = self._add_projector()

    def render_eyes(self, frame: int, blender_pose: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """The native 8-bit pair (h,w) of one frame from Blender's pose of the left eye; things must already be in place."""
        set_pose(self.projector, blender_pose @ shift_x(self.rig.projector_x_m))
        light = []
        for eye, x_m in (("left", 0.0), ("right", self.rig.baseline_m)):
            set_pose(bpy.context.scene.camera, blender_pose @ shift_x(x_m))
            bpy.context.scene.cycles.seed = frame_seed(self.spec, frame, f"ir {eye}")
            passes = render_frame((f"Combined_{LASER}", f"Combined_{AMBIENT}"))
            laser, ambient = (passes[name][..., :3].mean(-1) for name in passes)
            grain = rng.standard_normal(laser.shape, np.float32)
            light.append(laser * np.maximum(0.0, 1.0 + self.noise.speckle * grain) + ambient)
        gain = auto_exposure(light[0])
        left, right = (develop_grey(image, gain, self.noise, rng) for image in light)
        return left, right

    def _add_projector(self) -> Any:
        """A point light whose colour is looked up in the pattern by direction."""
        K, rig = self.rig.native_K, self.rig
        width, height = rig.native_width + 2 * PATTERN_MARGIN_PX, rig.native_height + 2 * PATTERN_MARGIN_PX
        u0, v0 = -K[0, 2] - 0.5 - PATTERN_MARGIN_PX, -K[1, 2] - 0.5 - PATTERN_MARGIN_PX
        pattern = pattern_image(width, height, u0, v0, self.noise.pattern_seed)
        peak = float(pattern.max())
        image = bpy.data.images.new("dots", pattern.shape[1], pattern.shape[0], is_data=True)
        texels = np.ones((*pattern.shape, 4), np.float32)
        texels[..., :3] = pattern[..., None] / peak
        image.pixels.foreach_set(texels.ravel())
        image.pack()
        data = bpy.data.lights.new("projector", "POINT")
        data.energy, data.shadow_soft_size = POINT_POWER_W, 0.0
        graph = Graph(data)
        ray = graph.node("ShaderNodeSeparateXYZ", (graph.node("ShaderNodeTexCoord").outputs["Normal"],)).outputs
        u = graph.math("MULTIPLY", graph.math("DIVIDE", ray["X"], ray["Z"]), -K[0, 0])
        v = graph.math("MULTIPLY", graph.math("DIVIDE", ray["Y"], ray["Z"]), K[1, 1])
        at_u = graph.math("DIVIDE", graph.math("SUBTRACT", u, u0), width)
        at_v = graph.math("SUBTRACT", 1.0, graph.math("DIVIDE", graph.math("SUBTRACT", v, v0), height))
        dots = graph.add(
            "ShaderNodeTexImage", (graph.add("ShaderNodeCombineXYZ", (at_u, at_v)),), image=image, extension="CLIP", interpolation="Linear"
        )
        ahead = graph.math("LESS_THAN", ray["Z"], 0.0)
        emission = graph.add("ShaderNodeEmission", {"Color": dots, "Strength": graph.math("MULTIPLY", ahead, peak)})
        graph.output("ShaderNodeOutputLight", emission)
        projector = bpy.data.objects.new("projector", data)
        projector.lightgroup = LASER
        bpy.context.scene.collection.objects.link(projector)
        return projector

    def close(self) -> None:
        data = self.projector.data
        bpy.data.objects.remove(self.projector)
        bpy.data.lights.remove(data)
        bpy.data.images.remove(bpy.data.images["dots"])


def shift_x(x_m: float) -> NDArray[np.float64]:
    """Translation along x, which Blender's and OpenCV's camera frames share."""
    return se3.make(np.eye(3), [x_m, 0.0, 0.0])


def develop_grey(irradiance: NDArray, gain: float, noise: IrNoise, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Exposure, shot and read noise, gamma, 8 bit: as the fast path."""
    signal = np.asarray(irradiance, np.float32) * np.float32(gain)
    variance = np.maximum(signal, 0) / np.float32(noise.full_e) + np.float32((noise.read_e / noise.full_e) ** 2)
    signal = signal + np.sqrt(variance) * rng.standard_normal(signal.shape, np.float32)
    return np.rint(255 * np.clip(signal, 0.0, 1.0) ** np.float32(1 / GAMMA)).astype(np.uint8)


def infrared_material(name: str, surface: IrSurface) -> Any:
    """Grey paint with the reflectance of a fast-path surface; mirror- and glass-like ones are black."""
    material, graph = new_material(name)
    base: Any = (surface.albedo,) * 3
    if surface.dropout:
        base = (0.0, 0.0, 0.0)
    elif surface.variation > 0:
        noise = graph.noise(graph.local(), 1.0 / surface.scale_m)
        lightness = graph.ramp(noise, 0.2, 0.8, surface.albedo * (1 - surface.variation), surface.albedo * (1 + surface.variation))
        base = graph.add("ShaderNodeCombineColor", (lightness, lightness, lightness))
    roughness = float((2.0 / (surface.exponent + 2.0)) ** 0.25)  # Blinn–Phong exponent → GGX, Walter et al. 2007
    shader = principled(
        graph, base_color=base, roughness=roughness, specular_ior_level=0.0 if surface.dropout else min(1.0, surface.specular)
    )
    graph.output("ShaderNodeOutputMaterial", shader)
    return material


@contextmanager
def infrared_scene(
    spec: SceneSpec, rig: StereoRig, noise: IrNoise, targets: Sequence[Any], surfaces: Sequence[IrSurface], lamps: Sequence[Any]
) -> Iterator[InfraredRig]:
    """Swap materials (`surfaces`, one per mesh object in `targets`), light and camera for infrared; back to before at the end."""
    scene, layer = bpy.context.scene, bpy.context.scene.view_layers[0]
    kept = [[slot.material for slot in target.material_slots] for target in targets]
    made = [infrared_material(f"ir {k}", surface) for k, surface in enumerate(surfaces)]
    for target, material in zip(targets, made, strict=True):
        for slot in target.material_slots:
            slot.material = material
    graph = Graph(scene.world)
    graph.output("ShaderNodeOutputWorld", graph.add("ShaderNodeBackground", ((noise.ambient,) * 3, 1.0)))
    scene.world.cycles.sampling_method = "NONE"
    scene.world.cycles_visibility.camera = False
    scene.world.update_tag()
    brightest = max((light.power_w for light in spec.lights), default=1.0)
    for lamp, light in zip(lamps, spec.lights, strict=True):
        lamp.data.energy, lamp.data.color = AREA_POWER_W * LIGHT_SHARE * light.power_w / brightest, (1.0, 1.0, 1.0)
        lamp.lightgroup = AMBIENT
    scene.world.lightgroup = AMBIENT
    for name in (LASER, AMBIENT):
        layer.lightgroups.add(name=name)
    set_intrinsics(rig.native_K, rig.native_width, rig.native_height)
    scene.cycles.samples = spec.depth_sensor.ir_samples
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "GAUSSIAN", 4 * PIXEL_SIGMA_PX  # Cycles: σ = width / 4
    infrared = InfraredRig(spec, rig, noise)
    try:
        yield infrared
    finally:
        infrared.close()
        scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 1.5
        scene.world.cycles_visibility.camera = True
        for group in list(layer.lightgroups):
            layer.lightgroups.remove(group)
        for target, materials in zip(targets, kept, strict=True):
            for slot, material in zip(target.material_slots, materials, strict=True):
                slot.material = material
        for material in made:
            bpy.data.materials.remove(material)
