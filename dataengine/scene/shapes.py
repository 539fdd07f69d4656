"""Procedural things and mesh files as closed triangle meshes.

`parameters` of each shape (lengths in m, ratios without unit):

| shape | parameters |
|---|---|
| box, cylinder | bevel |
| sphere, capsule, torus | none |
| cone | top radius / bottom radius |
| mug | wall (the handle fills the longer side, x) |
| bowl | wall, foot radius / rim radius |
| bottle | neck radius / body radius, shoulder height / height |
| can | rim depth |
| table | thickness of the top, width of a leg, 1 for a round top or 0 |
| room | thickness of walls and floor (no ceiling) |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import AssetError, unknown_name
from dataengine.scene.assets import asset_path, file_sha256
from dataengine.scene.mesh_building import Array, ShapeMesh, bevelled_box, merge, mesh, outward, revolve, revolve_ring, tube
from dataengine.scene.spec import SceneObject, Vector

Parts = tuple[Array, NDArray[np.int32]]
MESH_SUFFIXES = (".obj", ".stl", ".glb", ".ply")


def object_mesh(obj: SceneObject) -> ShapeMesh:
    """The mesh of a scene's object. AssetError (one line) for a mesh file that is missing, broken or has changed."""
    if obj.shape != "mesh":
        return shape_mesh(obj.shape, obj.parameters, obj.size_m)
    if obj.mesh_path is None:
        raise AssetError(f"object {obj.name}: shape is 'mesh' but it has no mesh_path")
    if obj.mesh_sha256 is not None and file_sha256("mesh", obj.mesh_path) != obj.mesh_sha256:
        raise AssetError(f"mesh {obj.mesh_path}: the file changed since the scene was sampled; restore it or sample anew")
    return _resized(load_mesh_file(obj.mesh_path), obj.size_m)


@lru_cache(maxsize=256)
def shape_mesh(shape: str, parameters: tuple[float, ...], size_m: Vector) -> ShapeMesh:
    """A procedural shape that fills the box `size_m`, centred at the origin, z up. AssetError for an unknown shape."""
    if shape not in _BUILDERS:
        raise AssetError(unknown_name("shape", shape, _BUILDERS))
    build, smooth = _BUILDERS[shape]
    vertices, faces = build(parameters, size_m)
    return _resized(mesh(vertices, faces, smooth), size_m)


@lru_cache(maxsize=64)
def load_mesh_file(path: str) -> ShapeMesh:
    """A mesh file in its own units and axes, centred. AssetError (one line) if it is missing, unreadable or empty."""
    import trimesh

    file = Path(path)
    if file.suffix.lower() not in MESH_SUFFIXES:
        raise AssetError(f"mesh {path}: unknown kind of file '{file.suffix}'; give one of {', '.join(MESH_SUFFIXES)}")
    file = asset_path("mesh", path)
    try:
        loaded = trimesh.load(file, force="mesh", process=True)
        vertices, faces = np.asarray(loaded.vertices, np.float64), np.asarray(loaded.faces, np.int32)  # type: ignore[union-attr]
    except Exception as error:  # the readers raise whatever their parsers raise
        raise AssetError(f"mesh {path}: cannot read it ({type(error).__name__}: {_one_line(error)})") from None
    if len(faces) == 0 or not np.isfinite(vertices).all() or np.ptp(vertices, axis=0).max() <= 0:
        raise AssetError(f"mesh {path}: has no usable triangles; repair the file")
    return mesh(vertices, faces, smooth=False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _resized(m: ShapeMesh, size_m: Vector) -> ShapeMesh:
    extent = np.ptp(m.vertices_m, axis=0)
    scale = np.asarray(size_m, float) / np.where(extent > 0, extent, 1.0)
    return ShapeMesh(m.vertices_m * scale, m.faces, m.smooth)


def _box(p: tuple[float, ...], size: Vector) -> Parts:
    return bevelled_box(size, p[0])


def _cylinder(p: tuple[float, ...], size: Vector) -> Parts:
    r, h = size[0] / 2, size[2]
    b = min(p[0], 0.4 * r, 0.4 * h)
    return revolve([(0, 0), (r - b, 0), (r, b), (r, h - b), (r - b, h), (0, h)])


def _arc(radius: float, start: float, stop: float, steps: int, centre: tuple[float, float] = (0.0, 0.0)) -> list[tuple[float, float]]:
    a = np.linspace(start, stop, steps)
    return [(centre[0] + radius * float(np.cos(t)), centre[1] + radius * float(np.sin(t))) for t in a]


def _sphere(p: tuple[float, ...], size: Vector) -> Parts:
    del p, size  # resized afterwards
    return revolve([(0, -1), *_arc(1.0, -np.pi / 2, np.pi / 2, 25)[1:-1], (0, 1)])


def _capsule(p: tuple[float, ...], size: Vector) -> Parts:
    del p
    r = size[0] / 2
    half = max(size[2] / 2 - r, 1e-4)
    low = _arc(r, -np.pi / 2, 0, 11, (0, -half))[1:]
    high = _arc(r, 0, np.pi / 2, 11, (0, half))[:-1]
    return revolve([(0, -half - r), *low, *high, (0, half + r)])


def _cone(p: tuple[float, ...], size: Vector) -> Parts:
    r, h = size[0] / 2, size[2]
    b = 0.03 * r
    top = max(r * p[0], 1.5 * b)
    return revolve([(0, 0), (r - b, 0), (r, b), (top, h - b), (top - b, h), (0, h)])


def _torus(p: tuple[float, ...], size: Vector) -> Parts:
    del p
    r = size[2] / 2
    return revolve_ring(_arc(r, 0, 2 * np.pi, 21, (size[0] / 2 - r, 0))[:-1])


def _mug(p: tuple[float, ...], size: Vector) -> Parts:
    """Handle along +x, as far as the box reaches; the body's diameter is the width size[1]."""
    wall = p[0]
    r, h = size[1] / 2, size[2]
    w = min(wall, 0.3 * r)
    b = 0.4 * w
    body = revolve(
        [
            (0, 0),
            (r - 2 * b, 0),
            (r, 2 * b),
            (r, h - b),
            (r - b, h),
            (r - w + b, h),
            (r - w, h - b),
            (r - w, 1.5 * w),
            (r - w - b, w),
            (0, w),
        ]
    )
    thick = min(0.12 * r, 0.008)
    a = np.linspace(-np.pi / 2, np.pi / 2, 15)
    reach = max(size[0] - 2 * r - thick, thick)
    bow = np.stack([r + reach * np.cos(a), 0 * a, h / 2 + 0.3 * h * np.sin(a)], -1)
    # both ends go straight into the middle of the wall
    ends = [[[r - w / 2, 0, h / 2 + s * 0.3 * h]] for s in (-1, 1)]
    return merge([body, tube(np.concatenate([ends[0], bow, ends[1]]), thick)])


def _bowl(p: tuple[float, ...], size: Vector) -> Parts:
    wall, foot = p
    r, h = size[0] / 2, size[2]
    w = min(wall, 0.3 * h, 0.3 * r)
    t = np.linspace(0, np.pi / 2, 11)
    outer = np.stack([foot * r + (1 - foot) * r * np.sin(t), h * (1 - np.cos(t))], -1)
    inner = np.stack([foot * r + (r - w - foot * r) * np.sin(t), w + (h - w) * (1 - np.cos(t))], -1)[::-1]
    rim = [(r - 0.2 * w, h + 0.35 * w), (r - 0.8 * w, h + 0.35 * w)]
    return revolve([(0, 0), *outer.tolist(), *rim, *inner.tolist(), (0, w)])


def _bottle(p: tuple[float, ...], size: Vector) -> Parts:
    neck, shoulder = p
    r, h = size[0] / 2, size[2]
    n, s, b = neck * r, shoulder * h, 0.08 * r
    t = np.linspace(0, 1, 9)[1:]
    ease = t * t * (3 - 2 * t)
    curve = np.stack([r + (n - r) * ease, s + (0.82 * h - s) * t], -1)
    cap = 1.15 * n
    top = [(n, 0.88 * h), (cap, 0.885 * h), (cap, h - 0.5 * b), (cap - 0.5 * b, h)]
    return revolve([(0, 0), (r - b, 0), (r, b), (r, s), *curve.tolist(), *top, (0, h)])


def _can(p: tuple[float, ...], size: Vector) -> Parts:
    r, h = size[0] / 2, size[2]
    d = min(p[0], 0.1 * h)
    e = 0.07 * r
    side = [(r - 2 * e, 0), (r - e, 0.4 * d), (r, 2 * d), (r, h - 2 * d), (r - e, h - 0.5 * d), (r - e, h)]
    return revolve([(0, 0.5 * d), (r - 2.4 * e, 0.5 * d), *side, (r - 1.6 * e, h), (r - 2 * e, h - d), (0, h - d)])


def _table(p: tuple[float, ...], size: Vector) -> Parts:
    top, leg, is_round = p
    x, y, h = size
    height = h - top
    if is_round:
        disc = revolve([(0, 0), (x / 2 - 0.004, 0), (x / 2, 0.004), (x / 2, top - 0.004), (x / 2 - 0.004, top), (0, top)], 96)
        column = revolve([(0, 0), (leg / 2, 0), (leg / 2, height), (0, height)])
        foot = revolve([(0, 0), (0.28 * x, 0), (0.28 * x, 0.02), (0, 0.03)])
        return merge([_moved(disc, (0, 0, height)), column, foot])
    slab = _moved(bevelled_box((x, y, top), 0.004), (0, 0, height + top / 2))
    inset = (x / 2 - 0.06 - leg / 2, y / 2 - 0.06 - leg / 2)
    legs = [_moved(bevelled_box((leg, leg, height), 0.003), (sx * inset[0], sy * inset[1], height / 2)) for sx in (-1, 1) for sy in (-1, 1)]
    return merge([slab, *legs])


def _room(p: tuple[float, ...], size: Vector) -> Parts:
    """A box without lid: outer skin, inner skin, rim."""
    t = p[0]
    outer, inner = np.asarray(size, float) / 2, np.asarray(size, float) / 2 - (t, t, 0)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    rings = [
        np.column_stack([corners * half[:2], np.full(4, z)])
        for half, z in ((outer, -outer[2]), (outer, outer[2]), (inner, outer[2]), (inner, -outer[2] + t))
    ]
    faces = [[0, 2, 1], [0, 3, 2], [12, 13, 14], [12, 14, 15]]
    for low in (0, 4, 8):
        for i in range(4):
            j = (i + 1) % 4
            faces += [[low + i, low + j, low + 4 + j], [low + i, low + 4 + j, low + 4 + i]]
    return outward(np.concatenate(rings), np.array(faces, np.int32))


def _moved(part: Parts, offset: tuple[float, float, float]) -> Parts:
    return part[0] + np.asarray(offset, float), part[1]


_BUILDERS: dict[str, tuple[Callable[[tuple[float, ...], Vector], Parts], bool]] = {
    "box": (_box, True),
    "cylinder": (_cylinder, True),
    "sphere": (_sphere, True),
    "capsule": (_capsule, True),
    "cone": (_cone, True),
    "torus": (_torus, True),
    "mug": (_mug, True),
    "bowl": (_bowl, True),
    "bottle": (_bottle, True),
    "can": (_can, True),
    "table": (_table, True),
    "room": (_room, False),
}
"""Shape → (builder, shaded smoothly)."""
