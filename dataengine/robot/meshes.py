"""Visual geometry of a robot, one mesh per link, baked once into a cache file.

Reading the mesh files of one arm takes seconds, the baked file milliseconds. The cache key is a hash of all
that went in, so a changed URDF or mesh is baked anew and a stale file is never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RobotError
from dataengine.geometry import se3
from dataengine.robot.cache import Arrays, cached_arrays
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.mesh_files import Material, Part, load_geometry
from dataengine.robot.model import RobotModel

BAKER_VERSION = 1
"""Raise when the baked content changes for the same input."""


@dataclass(frozen=True, eq=False)
class LinkMesh:
    """All visual geometry of one link, in the link's frame.

    link_index: index into ``RobotModel.links``. vertices_m (V, 3) float64, unique by position AND normal, so
    ``vertex_normals`` (V, 3) float64 are also the loop normals. faces (F, 3) int32. material_index (F,) int32
    into ``materials``.
    """

    link_index: int
    link: str
    vertices_m: NDArray[np.float64]
    faces: NDArray[np.int32]
    vertex_normals: NDArray[np.float64]
    material_index: NDArray[np.int32]
    materials: tuple[Material, ...]


def load_link_meshes(model: RobotModel, cache_dir: str | Path | None = None) -> list[LinkMesh]:
    """Meshes of all links that have visual geometry, in link order; from the cache if baked before.

    ``cache_dir``: see `cache.default_cache_dir`. RobotError names the mesh file that is missing or broken.
    """
    name = f"{model.name}-{mesh_digest(model)[:16]}"
    return _unpack(model, cached_arrays(name, cache_dir, lambda: _pack(bake_link_meshes(model))))


def mesh_digest(model: RobotModel) -> str:
    """SHA-256 (hex) of the URDF, all mesh files and the baker's version."""
    digest = hashlib.sha256(f"{BAKER_VERSION} {model.urdf_sha}".encode())
    for visual in model.visuals:
        if visual.mesh is not None:
            materials = visual.mesh.with_suffix(".mtl")  # where an .obj keeps its colours
            for file in (visual.mesh, materials) if materials.is_file() else (visual.mesh,):
                digest.update(_file_digest(file))
    return digest.hexdigest()


def _file_digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as error:
        raise RobotError(f"cannot read mesh {file}: {error.strerror}") from None


def bake_link_meshes(model: RobotModel) -> list[LinkMesh]:
    """The meshes straight from their files, without the cache."""
    meshes = []
    for index, link in enumerate(model.links):
        parts = [part for visual in model.visuals if visual.link == link for part in load_geometry(visual)]
        if parts:
            meshes.append(_merge(index, link, parts))
    return meshes


def base_height_m(model: RobotModel, meshes: Iterable[LinkMesh]) -> float:
    """How high the base frame must be above a table for no fixed part (a cable, a screw head) to sink into it, m."""
    poses = forward_kinematics(model, np.zeros(model.dof))
    lowest = [
        se3.transform(poses[mesh.link_index], mesh.vertices_m)[:, 2].min() for mesh in meshes if mesh.link_index in model.base_link_indices
    ]
    return max(0.0, -float(min(lowest, default=0.0)))


def _merge(index: int, link: str, parts: list[Part]) -> LinkMesh:
    corners = np.concatenate([part.vertices_m[part.faces].reshape(-1, 3) for part in parts])
    normals = np.concatenate([part.corner_normals.reshape(-1, 3) for part in parts])
    key = np.concatenate([np.round(corners, 7), np.round(normals, 4)], axis=1) + 0.0  # + 0.0 turns -0 into 0
    _, first, vertex = np.unique(key, axis=0, return_index=True, return_inverse=True)
    faces = vertex.reshape(-1, 3).astype(np.int32)
    materials = list(dict.fromkeys(_unnamed(part.material) for part in parts))
    names = {_unnamed(part.material): part.material.name for part in reversed(parts)}
    material_index = np.repeat([materials.index(_unnamed(part.material)) for part in parts], [len(part.faces) for part in parts])
    solid = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return LinkMesh(
        link_index=index,
        link=link,
        vertices_m=np.round(corners[first], 7),
        faces=faces[solid],
        vertex_normals=normals[first],
        material_index=material_index[solid].astype(np.int32),
        materials=tuple(Material(*material[:3], names[material]) for material in materials),
    )


def _unnamed(material: Material) -> tuple[tuple[float, float, float], float, float]:
    """Parts of equal look share one material, whatever their names."""
    return material.base_color_rgb, material.roughness, material.metallic


def _pack(meshes: Iterable[LinkMesh]) -> Arrays:
    arrays: Arrays = {}
    for mesh in meshes:
        prefix = f"{mesh.link_index}/"
        arrays[prefix + "vertices_m"] = mesh.vertices_m
        arrays[prefix + "faces"] = mesh.faces
        arrays[prefix + "vertex_normals"] = mesh.vertex_normals
        arrays[prefix + "material_index"] = mesh.material_index
        arrays[prefix + "material_values"] = np.array([[*m.base_color_rgb, m.roughness, m.metallic] for m in mesh.materials])
        arrays[prefix + "material_names"] = np.array([m.name for m in mesh.materials])
    return arrays


def _unpack(model: RobotModel, arrays: Arrays) -> list[LinkMesh]:
    meshes = []
    for index in sorted({int(name.split("/")[0]) for name in arrays}):
        values, names = arrays[f"{index}/material_values"], arrays[f"{index}/material_names"]
        materials = tuple(
            Material((float(v[0]), float(v[1]), float(v[2])), float(v[3]), float(v[4]), str(name))
            for v, name in zip(values, names, strict=True)
        )
        fields = ("vertices_m", "faces", "vertex_normals", "material_index")
        geometry = {field: arrays[f"{index}/{field}"] for field in fields}
        meshes.append(LinkMesh(link_index=index, link=model.links[index], materials=materials, **geometry))
    return meshes
