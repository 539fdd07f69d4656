"""Mesh files and primitive shapes → triangles with smooth normals and plain materials."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import RobotError
from dataengine.robot.model import Geometry

CREASE_RAD = np.deg2rad(35.0)
"""Faces meeting at less than this are shaded as one smooth surface. Normals in files are ignored: many are wrong."""
DEFAULT_ROUGHNESS = 0.45
"""Painted or moulded shells; mesh files of robots carry no trustworthy roughness."""

BRIGHTEST = 0.85
"""Linear base colours are scaled down to this: a surface that absorbs nothing looks fake and does not exist."""
SLIVER_M2 = 1e-13
"""Triangles of less area than this (a tenth of a micrometre by a micrometre) have no direction and are dropped."""


@dataclass(frozen=True)
class Material:
    """Plain surface: linear base colour 0..1, roughness 0..1, metallic 0..1."""

    base_color_rgb: tuple[float, float, float]
    roughness: float
    metallic: float
    name: str


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles of one material: vertices_m (V, 3), faces (F, 3), corner_normals (F, 3, 3) unit."""

    vertices_m: NDArray[np.float64]
    faces: NDArray[np.int32]
    corner_normals: NDArray[np.float64]
    material: Material


def load_geometry(geometry: Geometry) -> list[Part]:
    """Parts of one visual element in its LINK's frame. A colour in the mesh file wins over the URDF's."""
    fallback = Material(_linear(geometry.rgba or (0.5, 0.5, 0.5)), DEFAULT_ROUGHNESS, 0.0, geometry.material or "default")
    if geometry.mesh is None:
        shape = _primitive(geometry)
        parts = [_part(shape.vertices, shape.faces, fallback)]
    else:
        parts = _load_mesh(geometry.mesh, geometry.size, fallback)
    T = geometry.T_link_geometry
    return [Part(part.vertices_m @ T[:3, :3].T + T[:3, 3], part.faces, part.corner_normals @ T[:3, :3].T, part.material) for part in parts]


def crease_normals(vertices_m: NDArray, faces: NDArray, crease_rad: float = CREASE_RAD) -> NDArray[np.float64]:
    """Corner normals (F, 3, 3): mean, by area, of the faces around the vertex within ``crease_rad`` of this face.

    Vertices are first joined by position, since formats such as STL repeat them per triangle.
    """
    if not len(faces):
        return np.zeros((0, 3, 3))
    _, joined = np.unique(np.round(vertices_m, 7), axis=0, return_inverse=True)
    corner_vertex = joined.reshape(-1)[faces].ravel()
    area = np.cross(vertices_m[faces[:, 1]] - vertices_m[faces[:, 0]], vertices_m[faces[:, 2]] - vertices_m[faces[:, 0]])
    unit = area / np.maximum(np.linalg.norm(area, axis=1), 1e-30)[:, None]
    corner_face = np.repeat(np.arange(len(faces)), 3)
    order = np.argsort(corner_vertex, kind="stable")
    starts = np.flatnonzero(np.diff(corner_vertex[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    out = np.zeros((len(order), 3))
    for valence in np.unique(counts):
        ring = order[starts[counts == valence][:, None] + np.arange(valence)]
        for chunk in np.array_split(ring, max(1, ring.size * valence // 2_000_000)):
            normals = unit[corner_face[chunk]]
            close = np.einsum("nik,njk->nij", normals, normals) >= np.cos(crease_rad)
            out[chunk] = np.einsum("nij,njk->nik", close.astype(float), area[corner_face[chunk]])
    length = np.linalg.norm(out, axis=1)[:, None]
    return np.where(length > 1e-30, out / np.maximum(length, 1e-30), unit[corner_face]).reshape(-1, 3, 3)


def _load_mesh(path: Path, scale: tuple[float, ...], fallback: Material) -> list[Part]:
    import trimesh  # heavy, and needed only when a mesh is baked

    logging.getLogger("trimesh").setLevel(logging.ERROR)
    try:
        scene: Any = trimesh.load_scene(str(path), process=False)
        nodes = [scene.graph[name] for name in scene.graph.nodes_geometry]
    except Exception as error:  # third-party readers raise anything on broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise RobotError(f"mesh {path} cannot be read ({reason}); supported: .dae .stl .obj .glb .ply") from None
    parts = []
    for T, name in nodes:
        mesh = scene.geometry[name]
        if len(getattr(mesh, "faces", ())) == 0:
            continue
        T = np.asarray(T)
        vertices = (np.asarray(mesh.vertices) @ T[:3, :3].T + T[:3, 3]) * np.asarray(scale) * _unit_m(mesh)
        parts.append(_part(vertices, mesh.faces, _material(mesh, fallback)))
    if not parts:
        raise RobotError(f"mesh {path} contains no triangles; re-export it")
    if not all(np.isfinite(part.vertices_m).all() for part in parts):
        raise RobotError(f"mesh {path} contains NaN or infinite coordinates; re-export it")
    return parts


def _part(vertices_m: ArrayLike, faces: ArrayLike, material: Material) -> Part:
    vertices, triangles = np.asarray(vertices_m, np.float64), np.asarray(faces, np.int32)
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    triangles = triangles[np.linalg.norm(np.cross(b - a, c - a), axis=1) > SLIVER_M2]
    return Part(vertices, triangles, crease_normals(vertices, triangles), material)


def _unit_m(mesh: Any) -> float:
    """Metres per unit: COLLADA's <unit>, which robot viewers honour (its up_axis they ignore: so do we)."""
    units = str(mesh.metadata.get("units", ""))
    return float(units.split("*")[0]) if "*" in units else 1.0


def _material(mesh: Any, fallback: Material) -> Material:
    """Look from the file: texture (its mean colour), plain material or vertex colours (their main one); else the URDF's."""
    visual = mesh.visual
    if not visual.defined:
        return fallback
    material = getattr(visual, "material", None)
    if material is None:
        return replace(fallback, base_color_rgb=_linear(tuple(visual.main_color[:3] / 255.0)))
    texture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    rgba = material.main_color if texture is None else np.asarray(texture.convert("RGB")).reshape(-1, 3).mean(axis=0)
    metallic = float(getattr(material, "metallicFactor", None) or 0.0)
    name = str(getattr(material, "name", None) or fallback.name)
    return Material(_linear(tuple(np.asarray(rgba, float)[:3] / 255.0)), DEFAULT_ROUGHNESS, metallic, name)


def _primitive(geometry: Geometry) -> Any:
    from trimesh import creation

    if geometry.kind == "box":
        return creation.box(extents=geometry.size)
    if geometry.kind == "cylinder":
        return creation.cylinder(radius=geometry.size[0], height=geometry.size[1], sections=48)
    return creation.icosphere(subdivisions=4, radius=geometry.size[0])


def _linear(srgb: tuple[float, ...]) -> tuple[float, float, float]:
    """sRGB 0..1 → linear (IEC 61966-2-1), rounded so that equal colours of different files stay equal."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb[:3]]
    linear = [c * BRIGHTEST / max(BRIGHTEST, *linear) for c in linear]
    return round(linear[0], 5), round(linear[1], 5), round(linear[2], 5)
