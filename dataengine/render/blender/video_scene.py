"""The Blender scene of one video: built once, then only moved from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import se3
from dataengine.render.blender.adapter import bpy, materials
from dataengine.render.blender.materials import build_material, plain_material, printable_color
from dataengine.render.blender.meshes import new_mesh_object, set_motion, set_pose
from dataengine.render.blender.surroundings import add_light, camera_end_poses, camera_K, camera_poses, set_environment, set_intrinsics
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import LinkMesh
from dataengine.robot.model import RobotModel
from dataengine.scene.shapes import object_mesh
from dataengine.scene.spec import SceneObject, SceneSpec

OBJECT_INDEX = 1000
"""Cycles' object index of instance i is this + i; of link l it is l + 1."""


def add_robot(link_meshes: Sequence[LinkMesh]) -> list[Any]:
    """One Blender object per link mesh, with its own copies of the maker's materials."""
    made = []
    for mesh in link_meshes:
        surfaces = [plain_material(f"{mesh.link}.{k}", m.base_color_rgb, m.roughness, m.metallic) for k, m in enumerate(mesh.materials)]
        link = new_mesh_object(
            f"link {mesh.link}", mesh.vertices_m, mesh.faces, surfaces, mesh.material_index, vertex_normals=mesh.vertex_normals
        )
        link.pass_index = mesh.link_index + 1
        made.append(link)
    return made


def add_object(obj: SceneObject) -> Any:
    """One thing of the scene, at its first pose."""
    mesh = object_mesh(obj)
    surface = build_material(obj.name, obj.material, is_table=obj.role == "table")
    normals = mesh.vertex_normals if mesh.smooth else None
    made = new_mesh_object(obj.name, mesh.vertices_m, mesh.faces, [surface], vertex_normals=normals)
    made.pass_index = OBJECT_INDEX + obj.instance_id
    set_pose(made, obj.T_world_object[0])
    return made


def exposure_link_poses(
    model: RobotModel, spec: SceneSpec, frame: int, T_world_link: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Link poses (L,4,4) at the start and the end of a frame's exposure, from the joint velocities."""
    state = spec.robot
    order = [state.joint_names.index(name) for name in model.actuated]
    q = np.array(state.joint_position[frame])[order]
    half_s = 0.5 * spec.image.motion_blur * frame_time_s(spec)
    step = half_s * np.array(state.joint_velocity[frame])[order]
    T_world_base = np.asarray(state.T_world_base, float)
    start, end = T_world_base @ forward_kinematics(model, np.stack([q - step, q + step]))
    return start, end


def frame_time_s(spec: SceneSpec) -> float:
    """Time from frame to frame; 1/30 s for a single frame."""
    times = spec.timestamp_s
    return float(times[1] - times[0]) if len(times) > 1 else 1 / 30


def extrapolate(T_middle: NDArray, T_end: NDArray) -> NDArray[np.float64]:
    """The pose as long before the middle as the end is after it, by constant screw motion: M E⁻¹ M."""
    return T_middle @ se3.inverse(T_end) @ T_middle


class VideoScene:
    """Objects, lights, world and camera of one video around an existing robot. Use `close` to take them out again."""

    def __init__(
        self, spec: SceneSpec, model: RobotModel, link_meshes: Sequence[LinkMesh], links: Sequence[Any], T_world_link: NDArray
    ) -> None:
        self.spec, self.model, self.links, self.T_world_link = spec, model, links, T_world_link
        self.link_indices = [mesh.link_index for mesh in link_meshes]
        self.moving: list[tuple[Any, NDArray]] = []
        self.objects: list[Any] = []
        set_environment(bpy.context.scene.world, spec.environment)
        set_intrinsics(camera_K(spec.camera), spec.camera.width, spec.camera.height)
        self.camera_poses = camera_poses(spec.camera, spec.frames)
        self.camera_ends = camera_end_poses(spec.camera, spec.frames)
        for obj in spec.objects:
            made = add_object(obj)
            self.objects.append(made)
            if len(obj.T_world_object) > 1:
                self.moving.append((made, np.asarray(obj.T_world_object, float)))
        self.lamps = [add_light(f"light {k}", light) for k, light in enumerate(spec.lights)]
        self._tint(link_meshes)

    def move_to(self, frame: int) -> None:
        """Pose everything as in the middle of the frame's exposure."""
        for link, index in zip(self.links, self.link_indices, strict=True):
            set_pose(link, self.T_world_link[frame, index])
        for obj, poses in self.moving:
            set_pose(obj, poses[frame])
        set_pose(bpy.context.scene.camera, self.camera_poses[frame])

    def blur_around(self, frame: int) -> None:
        """Keyframe robot and camera over the frame's exposure."""
        start, end = exposure_link_poses(self.model, self.spec, frame, self.T_world_link)
        for link, index in zip(self.links, self.link_indices, strict=True):
            set_motion(link, start[index], self.T_world_link[frame, index], end[index])
        if self.camera_ends is not None:
            middle, last = self.camera_poses[frame], self.camera_ends[frame]
            set_motion(bpy.context.scene.camera, extrapolate(middle, last), middle, last)
        bpy.context.scene.frame_set(1)

    def stop_motion(self) -> None:
        """Forget the keyframes of `blur_around`."""
        for target in (*self.links, bpy.context.scene.camera):
            target.animation_data_clear()

    def close(self) -> None:
        """Remove what this video added, so that the process can render another one."""
        self.stop_motion()
        for made in (*self.objects, *self.lamps):
            data, surfaces = made.data, [slot.material for slot in made.material_slots]
            bpy.data.objects.remove(made)
            (bpy.data.lights if isinstance(data, bpy.types.Light) else bpy.data.meshes).remove(data)
            for material in surfaces:
                bpy.data.materials.remove(material)

    def _tint(self, link_meshes: Sequence[LinkMesh]) -> None:
        tints = self.spec.robot.link_tints
        for link, mesh in zip(self.links, link_meshes, strict=True):
            factor = tints[mesh.link_index] if tints is not None else (1.0, 1.0, 1.0)
            for slot, material in zip(link.material_slots, mesh.materials, strict=True):
                color = (*printable_color(material.base_color_rgb, factor), 1.0)
                materials.Material(slot.material).set_principled_shader_value("Base Color", color)
