"""Arrays → Blender mesh objects, and rigid poses on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.render.blender.adapter import bpy, mathutils, mesh_objects


def new_mesh_object(
    name: str,
    vertices_m: NDArray,
    faces: NDArray,
    materials: Sequence[Any],
    material_of_face: NDArray | None = None,
    vertex_normals: NDArray | None = None,
) -> Any:
    """A linked Blender object from vertices (V,3), triangles (F,3), per-face material slots and vertex normals (V,3).

    Without `vertex_normals` every triangle is flat.
    """
    mesh = bpy.data.meshes.new(name)
    triangles = np.ascontiguousarray(faces, np.int32)
    mesh.vertices.add(len(vertices_m))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(vertices_m, np.float32).ravel())
    mesh.loops.add(triangles.size)
    mesh.loops.foreach_set("vertex_index", triangles.ravel())
    mesh.polygons.add(len(triangles))
    mesh.polygons.foreach_set("loop_start", np.arange(0, triangles.size, 3, dtype=np.int32))
    for material in materials:
        mesh.materials.append(material)
    if material_of_face is not None:
        mesh.polygons.foreach_set("material_index", np.ascontiguousarray(material_of_face, np.int32))
    mesh.polygons.foreach_set("use_smooth", np.full(len(triangles), vertex_normals is not None))
    mesh.update(calc_edges=True)
    if vertex_normals is not None:
        attribute = mesh.attributes.new("custom_normal", "FLOAT_VECTOR", "POINT")
        attribute.data.foreach_set("vector", np.ascontiguousarray(vertex_normals, np.float32).ravel())
    return mesh_objects.create_from_blender_mesh(mesh, name).blender_obj


def set_pose(target: Any, T_world_object: ArrayLike) -> None:
    """Move a Blender object to a rigid pose (4,4)."""
    target.matrix_world = mathutils.Matrix(np.asarray(T_world_object, float).tolist())


def set_motion(target: Any, T_start: ArrayLike, T_middle: ArrayLike, T_end: ArrayLike) -> None:
    """Keyframe a rigid motion over Blender frames 0, 1 and 2; frame 1 is the middle of the exposure."""
    target.rotation_mode = "QUATERNION"
    previous = None
    for frame, pose in enumerate((T_start, T_middle, T_end)):
        set_pose(target, pose)
        if previous is not None:
            target.rotation_quaternion.make_compatible(previous)
        previous = target.rotation_quaternion.copy()
        target.keyframe_insert("location", frame=frame)
        target.keyframe_insert("rotation_quaternion", frame=frame)
    for curve in target.animation_data.action.fcurves:
        for point in curve.keyframe_points:
            point.interpolation = "LINEAR"
