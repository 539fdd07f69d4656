"""Plausible surfaces: colours, gloss, pattern and infrared reflectance per kind of material."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from dataengine.config.spec import MaterialName, SurroundingsSpec
from dataengine.scene.assets import file_sha256
from dataengine.scene.draws import Draws
from dataengine.scene.palette import HUES, hex_to_linear, jittered, mixed, muted, scaled
from dataengine.scene.spec import Material, Vector

Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """Ranges of one kind. `contrast`: brightness of the second colour over the first; `infrared`: diffuse at 850 nm."""

    roughness: Range
    pattern_m: Range
    contrast: Range
    bump: Range
    infrared: Range


KINDS: dict[str, Kind] = {
    "metal": Kind((0.18, 0.45), (0.02, 0.06), (0.85, 1.0), (0.0, 0.15), (0.45, 0.75)),
    "plastic": Kind((0.25, 0.6), (0.004, 0.02), (0.85, 1.0), (0.0, 0.2), (0.35, 0.8)),
    "wood": Kind((0.35, 0.65), (0.03, 0.09), (0.55, 0.8), (0.05, 0.25), (0.5, 0.75)),
    "fabric": Kind((0.8, 0.98), (0.003, 0.012), (0.7, 0.95), (0.2, 0.6), (0.4, 0.75)),
    "ceramic": Kind((0.08, 0.3), (0.02, 0.08), (0.88, 1.0), (0.0, 0.08), (0.55, 0.85)),
    "stone": Kind((0.35, 0.8), (0.03, 0.12), (0.65, 0.9), (0.05, 0.35), (0.3, 0.6)),
    "paint": Kind((0.4, 0.85), (0.01, 0.05), (0.9, 1.0), (0.0, 0.15), (0.4, 0.8)),
    "glass": Kind((0.0, 0.08), (0.05, 0.1), (1.0, 1.0), (0.0, 0.0), (0.05, 0.12)),
}
"""Infrared reflectances are typical published diffuse values near 850 nm: dyes are mostly transparent there, so
fabrics and plastics of any colour are brighter than they look."""

USUAL: dict[str, tuple[str, ...]] = {
    "mug": ("ceramic", "metal", "paint"),
    "bowl": ("ceramic", "wood", "metal", "plastic"),
    "bottle": ("plastic", "glass", "metal", "ceramic"),
    "can": ("metal", "paint"),
    "torus": ("plastic", "wood", "metal"),
    "sphere": ("plastic", "wood", "fabric", "ceramic"),
}
"""What such a thing is usually made of; other shapes may be made of anything."""


def draw_material(draws: Draws, key: str, allowed: tuple[str, ...], shape: str = "", calm: bool = False) -> Material:
    """A surface of one of the `allowed` kinds, of those that are usual for the shape where there are any.

    `calm`: muted, as large surfaces are.
    """
    usual = tuple(k for k in allowed if k in USUAL.get(shape, allowed)) or allowed
    name = draws.pick(f"{key}.kind", usual)
    kind, rng = KINDS[name], draws.rng(f"{key}.look")
    base = HUES[name][int(rng.integers(len(HUES[name])))]
    color = jittered(hex_to_linear(base), rng)
    color = muted(color) if calm else color
    draws.note(f"{key}.color", f"the {name} palette, jittered", [round(c, 4) for c in color])
    return Material(
        kind=cast(MaterialName, name),
        color=color,
        color2=scaled(color, _draw(rng, kind.contrast)),
        roughness=_draw(rng, kind.roughness),
        pattern_scale_m=_draw(rng, kind.pattern_m),
        bump=_draw(rng, kind.bump),
        seed=int(rng.integers(2**31)),
        ir_albedo=_draw(rng, kind.infrared),
    )


def with_texture(draws: Draws, key: str, material: Material, spec: SurroundingsSpec) -> Material:
    """The surface with a photograph laid over it, in `texture_share` of the cases; its colour tints a grey photograph."""
    if not spec.textures or draws.uniform(f"{key}.textured", 0.0, 1.0) >= spec.texture_share:
        return material
    name = draws.pick(f"{key}.texture", spec.textures)
    width_m = draws.real(f"{key}.texture_width_m", spec.texture_width_m)
    sha = file_sha256("texture", name)
    return material.model_copy(update={"texture": name, "texture_sha256": sha, "pattern_scale_m": width_m})


def wall_material(draws: Draws, key: str) -> Material:
    """Pale matt paint."""
    rng = draws.rng(f"{key}.look")
    tone = hex_to_linear(("f2efe8", "e6e2d8", "d5dbdc", "e9e0d2", "c9d2cc", "b9bfc6")[int(rng.integers(6))])
    color = jittered(tone, rng, 0.01, 0.3, 0.1)
    draws.note(f"{key}.color", "pale paint", [round(c, 4) for c in color])
    return Material(
        kind="paint",
        color=color,
        color2=scaled(color, 0.95),
        roughness=_draw(rng, (0.7, 0.95)),
        pattern_scale_m=0.05,
        bump=0.05,
        seed=int(rng.integers(2**31)),
        ir_albedo=_draw(rng, (0.6, 0.85)),
    )


def draw_link_tints(draws: Draws, style: str, links: int) -> tuple[Vector, ...] | None:
    """Factors on the maker's colours, one per link: None (original), near 1 (tinted), or a new colour (random)."""
    if style == "original":
        return None
    rng = draws.rng("robot.tint")
    whole = jittered((0.9, 0.9, 0.9), rng, 0.5, 0.0, 0.05)
    tints: list[Vector] = []
    for _ in range(links):
        hue = HUES["plastic"][int(rng.integers(len(HUES["plastic"])))]
        strong = jittered(hex_to_linear(hue), rng, 0.05, 0.3, 0.3)
        own = mixed(whole, strong, 1.0 if style == "random" else 0.12)
        tints.append(own)
    draws.note("robot.tint", f"{style}: factor on the colours of each link", [round(c, 3) for c in tints[0]])
    return tuple(tints)


def _draw(rng: np.random.Generator, bounds: Range) -> float:
    return float(rng.uniform(*bounds))
