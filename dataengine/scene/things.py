"""What a thing on the table is: shape, proportions, size, and how it can rest on a plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.config.distributions import Distribution, Uniform, support
from dataengine.config.spec import DistractorSpec
from dataengine.geometry import se3
from dataengine.scene.assets import file_sha256
from dataengine.scene.draws import Draws
from dataengine.scene.shapes import load_mesh_file, shape_mesh
from dataengine.scene.spec import Vector

Array = NDArray[np.float64]
Proportions = tuple[tuple[float, float, float], tuple[float, ...]]
"""Extents in arbitrary units, and the shape's parameters."""

TALL = ("bottle", "box", "can", "cylinder", "capsule", "mug", "cone")
"""Shapes that can stand high enough to hide something."""
UP, DOWN, ON_SIDE, ON_FRONT = (
    np.eye(3),
    se3.rotation_from_axis_angle((1.0, 0.0, 0.0), np.pi),
    se3.rotation_from_axis_angle((0.0, 1.0, 0.0), np.pi / 2),
    se3.rotation_from_axis_angle((1.0, 0.0, 0.0), np.pi / 2),
)
RESTS: dict[str, tuple[tuple[Array, float], ...]] = {
    "box": ((UP, 1.0), (ON_SIDE, 1.0), (ON_FRONT, 1.0)),
    "cylinder": ((UP, 2.0), (ON_SIDE, 1.0)),
    "sphere": ((UP, 1.0),),
    "capsule": ((ON_SIDE, 1.0),),
    "cone": ((UP, 1.0),),
    "torus": ((UP, 1.0),),
    "mug": ((UP, 5.0), (DOWN, 1.0)),
    "bowl": ((UP, 5.0), (DOWN, 1.0)),
    "bottle": ((UP, 4.0), (ON_SIDE, 1.0)),
    "can": ((UP, 4.0), (ON_SIDE, 1.0)),
}
"""Orientations in which a shape rests on a plane, with weights; the ones on the side may also roll about their axis."""


@dataclass(frozen=True, eq=False)
class Thing:
    """A shape with its size, turned as it rests: vertices_m (V,3) have their lowest point at z = 0."""

    category: str
    shape: str
    parameters: tuple[float, ...]
    size_m: Vector
    mesh_path: str | None
    mesh_sha256: str | None
    rotation: Array
    vertices_m: Array
    lift_m: float
    """Height of the object's own origin above the plane."""

    @property
    def radius_m(self) -> float:
        """Of the circle about the origin that holds everything, seen from above."""
        return float(np.linalg.norm(self.vertices_m[:, :2], axis=1).max())

    @property
    def height_m(self) -> float:
        return float(self.vertices_m[:, 2].max())


def draw_thing(draws: Draws, key: str, spec: DistractorSpec) -> Thing:
    """A distractor: any of the spec's shapes and meshes, resting in any of its ways, turned about the vertical."""
    name = draws.pick(f"{key}.shape", (*spec.shapes, *spec.meshes))
    size = draws.real(f"{key}.size_m", spec.size_m)
    return _build(draws, key, name, size, tall=False)


def draw_occluder(draws: Draws, key: str, spec: DistractorSpec) -> Thing:
    """Something upright and taller than the distractors."""
    tall = tuple(s for s in spec.shapes if s in TALL)
    name = draws.pick(f"{key}.shape", tall or (*spec.shapes, *spec.meshes))
    return _build(draws, key, name, draws.real(f"{key}.size_m", occluder_size(spec)), tall=True)


def occluder_size(spec: DistractorSpec) -> Distribution:
    """Occluders are up to twice as tall as the largest distractor."""
    largest = support(spec.size_m)[1]
    return Uniform(uniform=(1.1 * largest, 2.0 * largest)) if np.isfinite(largest) else spec.size_m


def _build(draws: Draws, key: str, name: str, size: float, tall: bool) -> Thing:
    rng = draws.rng(f"{key}.form")
    path, sha, parameters = None, None, ()
    if name in RESTS:
        category = shape = name
        extents, parameters = _PROPORTIONS[name](rng, size)
        extents = tuple(sorted(extents)) if tall and shape == "box" else extents
    else:
        path, category, shape = str(Path(name).expanduser().resolve()), Path(name).stem, "mesh"
        sha, extents = file_sha256("mesh", path), np.ptp(load_mesh_file(path).vertices_m, axis=0).tolist()
    scale = size / max(extents)
    size_m = (extents[0] * scale, extents[1] * scale, extents[2] * scale)
    vertices = shape_mesh(shape, parameters, size_m).vertices_m if path is None else load_mesh_file(path).vertices_m * scale
    rotation = _resting_rotation(draws, key, name, path, tall)
    turned = vertices @ rotation.T
    lift = -float(turned[:, 2].min())
    return Thing(category, shape, parameters, size_m, path, sha, rotation, turned + (0.0, 0.0, lift), lift)


def _resting_rotation(draws: Draws, key: str, name: str, path: str | None, tall: bool) -> Array:
    rng = draws.rng(f"{key}.rest")
    rests = RESTS[name] if path is None else stable_rotations(path)
    weights = np.array([w for _, w in rests])
    chosen = 0 if tall and path is None else int(rng.choice(len(rests), p=weights / weights.sum()))
    yaw = draws.uniform(f"{key}.yaw_rad", -np.pi, np.pi)
    roll = rng.uniform(-np.pi, np.pi)
    rotation = UP if tall and path is None else rests[chosen][0]
    if rotation is ON_SIDE and name != "box":
        rotation = rotation @ se3.rotation_from_axis_angle((0.0, 0.0, 1.0), roll)
    draws.note(f"{key}.rest", f"one of {len(rests)} ways to rest", chosen)
    return se3.rotation_from_axis_angle((0.0, 0.0, 1.0), yaw) @ rotation


@lru_cache(maxsize=64)
def stable_rotations(path: str) -> tuple[tuple[Array, float], ...]:
    """How a mesh file can rest on the faces of its convex hull, with the probability of each (Goldberg et al. 1999)."""
    import trimesh

    source = load_mesh_file(path)
    hull = trimesh.Trimesh(source.vertices_m, source.faces).convex_hull
    poses, probabilities = hull.compute_stable_poses(threshold=0.02)
    found = tuple((np.asarray(T[:3, :3], float), float(p)) for T, p in zip(poses, probabilities, strict=True))
    return found or ((UP, 1.0),)


def _box(rng: np.random.Generator, size: float) -> Proportions:
    a, b, c = rng.permutation([1.0, rng.uniform(0.4, 1.0), rng.uniform(0.2, 0.8)]).tolist()
    return (a, b, c), (min(rng.uniform(0.001, 0.005), 0.05 * size),)


def _cylinder(rng: np.random.Generator, size: float) -> Proportions:
    h = float(np.exp(rng.uniform(np.log(0.5), np.log(2.5))))
    return (1.0, 1.0, h), (min(rng.uniform(0.001, 0.004), 0.05 * size),)


def _sphere(rng: np.random.Generator, size: float) -> Proportions:
    return (1.0, 1.0, 1.0), ()


def _capsule(rng: np.random.Generator, size: float) -> Proportions:
    return (1.0, 1.0, rng.uniform(2.0, 4.0)), ()


def _cone(rng: np.random.Generator, size: float) -> Proportions:
    return (1.0, 1.0, rng.uniform(1.0, 1.8)), (rng.uniform(0.05, 0.5),)


def _torus(rng: np.random.Generator, size: float) -> Proportions:
    return (1.0, 1.0, rng.uniform(0.18, 0.32)), ()


def _mug(rng: np.random.Generator, size: float) -> Proportions:
    return (rng.uniform(1.35, 1.5), 1.0, rng.uniform(0.95, 1.3)), (rng.uniform(0.03, 0.05) * size,)


def _bowl(rng: np.random.Generator, size: float) -> Proportions:
    return (1.0, 1.0, rng.uniform(0.3, 0.5)), (rng.uniform(0.025, 0.04) * size, rng.uniform(0.35, 0.5))


def _bottle(rng: np.random.Generator, size: float) -> Proportions:
    return (1.0, 1.0, rng.uniform(2.6, 3.8)), (rng.uniform(0.28, 0.42), rng.uniform(0.5, 0.66))


def _can(rng: np.random.Generator, size: float) -> Proportions:
    return (1.0, 1.0, rng.uniform(1.2, 1.9)), (0.03 * size,)


_PROPORTIONS: dict[str, Callable[[np.random.Generator, float], Proportions]] = {
    "box": _box,
    "cylinder": _cylinder,
    "sphere": _sphere,
    "capsule": _capsule,
    "cone": _cone,
    "torus": _torus,
    "mug": _mug,
    "bowl": _bowl,
    "bottle": _bottle,
    "can": _can,
}
