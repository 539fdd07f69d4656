"""The object models of a BOP dataset: numbering, `models_info.json`, ASCII PLY files in millimetres."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import disk
from dataengine.convert.disk import Array


class Models:
    """Numbers object models in the order of their first appearance; the same shape in another video keeps its number."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.objects: dict[int, dict[str, Any]] = {}

    def number(self, thing: dict[str, Any]) -> int:
        """obj_id ≥ 1 of an object as `common.objects_of` tells it."""
        spec = thing["spec"]
        identity = (
            {k: spec.get(k) for k in ("shape", "parameters", "size_m", "mesh_sha256")}
            if spec.get("shape")
            else spec.get("bop_obj_id", thing["name"])
        )
        key = json.dumps([thing["category"], identity], sort_keys=True)
        if key not in self.ids:
            self.ids[key] = len(self.ids) + 1
            self.objects[self.ids[key]] = thing
        return self.ids[key]

    def write(self, folder: Path) -> None:
        """`models_info.json` for all models of known size, `obj_NNNNNN.ply` for those whose geometry the scene states."""
        info = {}
        for number, thing in self.objects.items():
            mesh = _mesh(thing["spec"])
            entry = {"name": thing["category"]}
            if mesh is not None:
                vertices_mm = mesh[0] * 1000
                disk.write_bytes(folder / f"obj_{number:06d}.ply", _ply(vertices_mm, mesh[1]))
                entry |= _extent(vertices_mm.min(0), np.ptp(vertices_mm, axis=0), _diameter(vertices_mm))
            elif all(math.isfinite(s) for s in thing["size_m"]):
                size_mm = np.array(thing["size_m"]) * 1000
                entry |= _extent(-size_mm / 2, size_mm, float(np.linalg.norm(size_mm)))  # of the box: an upper bound
            info[str(number)] = entry
        disk.write_json(folder / "models_info.json", info)


def _extent(low_mm: Array, size_mm: Array, diameter_mm: float) -> dict[str, float]:
    low = {f"min_{a}": float(v) for a, v in zip("xyz", low_mm, strict=True)}
    return {"diameter": diameter_mm} | low | {f"size_{a}": float(v) for a, v in zip("xyz", size_mm, strict=True)}


def _mesh(spec: dict[str, Any]) -> tuple[Array, Array] | None:
    """Vertices (m) and faces of a scene's object, or None where the scene holds only its name."""
    if "shape" not in spec or "material" not in spec:
        return None
    from dataengine.scene.shapes import object_mesh
    from dataengine.scene.spec import SceneObject

    mesh = object_mesh(SceneObject.model_validate(spec))
    return np.asarray(mesh.vertices_m, float), np.asarray(mesh.faces)


def _diameter(vertices: Array) -> float:
    """Largest distance between two vertices; both lie on the convex hull."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    return float(pdist(vertices[ConvexHull(vertices).vertices]).max())


def _ply(vertices: Array, faces: Array) -> bytes:
    """ASCII PLY with vertex normals, as BOP's models have them."""
    normals = _vertex_normals(vertices, faces)
    head = [
        "ply",
        "format ascii 1.0",
        f"element vertex {len(vertices)}",
        *(f"property float {n}" for n in ("x", "y", "z", "nx", "ny", "nz")),
    ]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    rows = [" ".join(f"{v:.7g}" for v in row) for row in np.concatenate([vertices, normals], 1)]
    return "\n".join([*head, *rows, *(f"3 {a} {b} {c}" for a, b, c in faces), ""]).encode()


def _vertex_normals(vertices: Array, faces: Array) -> Array:
    """(V,3) unit normals, faces weighted by their angle at the vertex (Thürrner and Wüthrich 1998), as BOP computes them."""
    corners = vertices[faces]
    edges = np.roll(corners, -1, axis=1) - corners  # edge k leaves corner k
    edges /= np.maximum(np.linalg.norm(edges, axis=-1, keepdims=True), 1e-12)
    face_normals = np.cross(edges[:, 0], edges[:, 1])
    face_normals /= np.maximum(np.linalg.norm(face_normals, axis=1, keepdims=True), 1e-12)
    cosines = np.einsum("fki,fki->fk", edges, -np.roll(edges, 1, axis=1))
    angles = np.arccos(np.clip(cosines, -1, 1))
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], angles[:, k, None] * face_normals)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
