"""A thin notation for shader node trees: `graph.add("ShaderNodeMath", (a, b), operation="ADD")` returns the first output."""

from __future__ import annotations

from typing import Any

from dataengine.render.blender.adapter import bpy

Socket = Any
"""A node's output, or a plain value for an input."""
Inputs = dict[Any, Socket] | tuple[Socket, ...]
"""Inputs by name or index, or in order."""


class Graph:
    """The node tree of one material, world or light, emptied."""

    def __init__(self, owner: Any) -> None:
        owner.use_nodes = True
        self.tree = owner.node_tree
        self.tree.nodes.clear()

    def node(self, kind: str, inputs: Inputs = (), **properties: Any) -> Any:
        """Add a node; inputs by name, by index or in order, each a value or another node's output."""
        node = self.tree.nodes.new(kind)
        for name, value in properties.items():
            setattr(node, name, value)
        items = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
        for key, value in items:
            self.feed(node.inputs[key], value)
        return node

    def add(self, kind: str, inputs: Inputs = (), **properties: Any) -> Socket:
        """As `node`, returning its first enabled output."""
        made = self.node(kind, inputs, **properties)
        return next(output for output in made.outputs if output.enabled)

    def feed(self, target: Any, value: Socket) -> None:
        """Connect an output, or set a plain value (a 3-vector also fits a colour)."""
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, target)
        elif target.type == "RGBA" and len(value) == 3:
            target.default_value = (*value, 1.0)
        else:
            target.default_value = value

    def math(self, operation: str, a: Socket, b: Socket = 0.0, clamp: bool = False) -> Socket:
        return self.add("ShaderNodeMath", (a, b), operation=operation, use_clamp=clamp)

    def vector(self, operation: str, a: Socket, b: Socket = (0.0, 0.0, 0.0), c: Socket = (0.0, 0.0, 0.0)) -> Socket:
        """A vector operation; DOT_PRODUCT and LENGTH give a number."""
        return self.add("ShaderNodeVectorMath", {0: a, 1: b, 2: c}, operation=operation)

    def scaled(self, a: Socket, factor: Socket) -> Socket:
        """Vector or colour times a number."""
        return self.add("ShaderNodeVectorMath", {0: a, "Scale": factor}, operation="SCALE")

    def axis(self, a: Socket, name: str) -> Socket:
        """Component X, Y or Z of a vector."""
        return self.node("ShaderNodeSeparateXYZ", (a,)).outputs[name]

    def local(self) -> Socket:
        """The object's own coordinates, metres."""
        return self.node("ShaderNodeTexCoord").outputs["Object"]

    def mix_colors(self, factor: Socket, a: Socket, b: Socket) -> Socket:
        node = self.node("ShaderNodeMix", data_type="RGBA")
        for key, value in (("Factor_Float", factor), ("A_Color", a), ("B_Color", b)):
            self.feed(next(i for i in node.inputs if i.identifier == key), value)
        return next(o for o in node.outputs if o.identifier == "Result_Color")

    def ramp(self, value: Socket, low: float, high: float, to_low: float = 0.0, to_high: float = 1.0) -> Socket:
        """Linear map of [low, high] to [to_low, to_high], clamped."""
        return self.add("ShaderNodeMapRange", (value, low, high, to_low, to_high), clamp=True)

    def noise(self, coordinates: Socket, scale: float, detail: float = 0.0, distortion: float = 0.0) -> Socket:
        """Value noise 0…1 (mean 0.5)."""
        inputs = {"Vector": coordinates, "Scale": scale, "Detail": detail, "Distortion": distortion}
        return self.add("ShaderNodeTexNoise", inputs, noise_dimensions="3D")

    def voronoi(self, coordinates: Socket, scale: float) -> Socket:
        """A random value 0…1 for each cell of an irregular mosaic."""
        node = self.node("ShaderNodeTexVoronoi", {"Vector": coordinates, "Scale": scale}, voronoi_dimensions="3D", feature="F1")
        return self.node("ShaderNodeSeparateColor", (node.outputs["Color"],)).outputs["Red"]

    def output(self, kind: str, shader: Socket) -> None:
        self.node(kind, {"Surface": shader})
