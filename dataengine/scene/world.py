"""The scene as posed triangle meshes for the ray caster: the same geometry that Blender renders, independent of Blender."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dataengine.raycast.scene import RayScene, TriMesh
from dataengine.robot.meshes import LinkMesh
from dataengine.scene.shapes import object_mesh
from dataengine.scene.spec import SceneObject, SceneSpec

MAX_POSED = 4
"""Frames whose posed scene is kept; a SimRGBD clip has three."""


@dataclass(frozen=True, eq=False)
class RayWorld:
    """M meshes over F frames.

    `T_world_mesh` (F,M,4,4); `link_of_mesh` (M,) index of the robot link or −1; `instance_of_mesh` (M,) instance id of the
    object (255 table, 254 room) or 0.
    """

    meshes: tuple[TriMesh, ...]
    T_world_mesh: NDArray[np.float64]
    link_of_mesh: NDArray[np.intp]
    instance_of_mesh: NDArray[np.intp]
    _posed: OrderedDict[int, RayScene] = field(default_factory=OrderedDict, repr=False)

    def posed(self, frame: int) -> RayScene:
        """The ray scene with its meshes where they are in `frame`. The last few are kept: posing costs as much as casting."""
        if frame not in self._posed:
            scene = RayScene(self.meshes)
            scene.pose(self.T_world_mesh[frame])
            self._posed[frame] = scene
            while len(self._posed) > MAX_POSED:
                self._posed.popitem(last=False)
        return self._posed[frame]


@lru_cache(maxsize=256)
def link_triangles(mesh: LinkMesh) -> TriMesh:
    """One TriMesh per link mesh, so that its own ray structure is built once per process."""
    return TriMesh(mesh.vertices_m, mesh.faces)


def object_poses(obj: SceneObject, frames: int) -> NDArray[np.float64]:
    """(frames,4,4) `T_world_object`; an object with one pose stands still."""
    T = np.asarray(obj.T_world_object, float)
    return np.broadcast_to(T, (frames, 4, 4)) if len(T) == 1 else T


def labelled_objects(scene: SceneSpec) -> tuple[SceneObject, ...]:
    """The objects with labels of their own (not table or room), by instance id 1, 2, …"""
    return tuple(sorted((o for o in scene.objects if o.role in ("distractor", "occluder")), key=lambda o: o.instance_id))


def build_ray_world(scene: SceneSpec, link_meshes: Sequence[LinkMesh], T_world_link: NDArray[np.float64]) -> RayWorld:
    """Link meshes at `T_world_link` (F,L,4,4) and the scene's objects."""
    meshes = [link_triangles(m) for m in link_meshes]
    poses = [T_world_link[:, m.link_index] for m in link_meshes]
    for obj in scene.objects:
        mesh = object_mesh(obj)
        meshes.append(TriMesh(mesh.vertices_m, mesh.faces))
        poses.append(object_poses(obj, scene.frames))
    links, objects = [m.link_index for m in link_meshes], [o.instance_id for o in scene.objects]
    return RayWorld(
        meshes=tuple(meshes),
        T_world_mesh=np.stack(poses, axis=1),
        link_of_mesh=np.array(links + [-1] * len(objects)),
        instance_of_mesh=np.array([0] * len(links) + objects),
    )
