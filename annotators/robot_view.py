"""The posed robot as a camera sees it, by ray casting: per-link masks, silhouettes, depth, visibility of points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dataengine.geometry import camera, se3
from dataengine.raycast.scene import RayScene, TriMesh
from dataengine.raycast.views import amodal_masks, point_visible, render_labels
from dataengine.robot.keypoints import KeypointSet
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes
from dataengine.robot.model import RobotModel

Array = np.ndarray

EMBEDDED_M = 0.12
"""A point may lie this deep inside the links that carry it (joint origins do) and still count as seen."""
SLACK_M = 0.01
NEIGHBOURHOOD_M = 0.005


@dataclass(frozen=True, eq=False)
class View:
    """One frame: link_id (H,W) uint8, link index + 1 of the visible link, 0 = none; depth_z_m (H,W) float32, 0 = none."""

    link_id: Array
    depth_z_m: Array


@dataclass(frozen=True, eq=False)
class RobotView:
    """Meshes of a robot, ready to be posed. Poses are given as `T_cam_base` (4,4) and joint positions q (D,)."""

    model: RobotModel

    @cached_property
    def _links(self) -> Array:
        return np.array([m.link_index for m in self._meshes])

    @cached_property
    def _meshes(self) -> list:
        return load_link_meshes(self.model)

    @cached_property
    def _scene(self) -> RayScene:
        return RayScene([TriMesh(m.vertices_m, m.faces) for m in self._meshes])

    @cached_property
    def _last(self) -> dict[str, bytes]:
        return {}

    def _posed(self, T_cam_link: Array) -> RayScene:
        """The scene with its links there; posing costs more than casting, so the last pose is kept."""
        key = np.ascontiguousarray(T_cam_link).tobytes()
        if self._last.get("pose") != key:
            self._scene.pose(T_cam_link[self._links])
            self._last["pose"] = key
        return self._scene

    def poses(self, q: Array, T_cam_base: Array) -> Array:
        """T_cam_link (L,4,4)."""
        return np.asarray(T_cam_base, float) @ forward_kinematics(self.model, np.asarray(q, float)[None])[0]

    def view(self, K: Array, size: tuple[int, int], T_cam_link: Array) -> View:
        """What a camera with images of `size` (width, height) sees when nothing but the robot is there."""
        seen = render_labels(self._posed(T_cam_link), K, np.eye(4), *size)
        link = np.where(seen.mesh_index >= 0, self._links[np.maximum(seen.mesh_index, 0)] + 1, 0)
        return View(link.astype(np.uint8), seen.depth_z_m)

    def amodal_links(self, K: Array, size: tuple[int, int], T_cam_link: Array) -> Array:
        """Silhouettes (L,H,W) bool of each link as if it stood alone."""
        groups = [np.flatnonzero(self._links == link).tolist() for link in range(len(self.model.links))]
        return amodal_masks(self._scene, T_cam_link[self._links], groups, K, np.eye(4), *size)

    def visibility(self, points: KeypointSet, T_cam_link: Array, seen: Array | None = None, K: Array | None = None) -> Array:
        """Share (P,) in 0…1 of a 5 mm disc about each point, across the line of sight, that the robot itself does not hide.

        A point counts as seen through the links that carry it and their neighbours, see `raycast.views.point_visible`. With `seen`
        (H,W) bool, the robot as the image shows it, and `K`, a point where the image shows something else is hidden.
        """
        where = points.positions(T_cam_link)
        ring = np.arange(12) * (np.pi / 6)
        radius = np.where(np.arange(12) % 2, 1.0, 0.5) * NEIGHBOURHOOD_M
        disc = np.concatenate([np.zeros((1, 2)), np.stack([np.cos(ring), np.sin(ring)], -1) * radius[:, None]])
        probes = (where[:, None] + np.pad(disc, ((0, 0), (0, 1)))).reshape(-1, 3)
        through = np.repeat(self._carriers(points)[:, self._links], len(disc), axis=0)
        nobody = np.full(len(probes), -1)
        free = point_visible(
            self._posed(T_cam_link), probes, nobody, np.eye(4), see_through=through, slack_m=SLACK_M, embedded_m=EMBEDDED_M
        )
        share = free.reshape(-1, len(disc)).mean(1)
        if seen is not None and K is not None:
            share = share * _shown(seen, camera.project(K, where))
        return share

    def _carriers(self, points: KeypointSet) -> Array:
        """(P,L) bool: the link of each point and the nearest links with geometry on both sides of its joints."""
        parents = {j.child: self.model.link_index(j.parent) for j in self.model.joints}
        parent = {self.model.link_index(child): above for child, above in parents.items()}
        meshed = set(self._links.tolist())
        return np.stack([_neighbours(int(link), parent, meshed, len(self.model.links)) for link in points.link_index])


def _neighbours(link: int, parent: dict[int, int], meshed: set[int], count: int) -> Array:
    found = {link}
    up = parent.get(link)
    while up is not None and up not in meshed:
        up = parent.get(up)
    if up is not None:
        found.add(up)
    down = [child for child, above in parent.items() if above == link]
    while down:
        child = down.pop()
        if child in meshed:
            found.add(child)
        else:
            down += [c for c, above in parent.items() if above == child]
    out = np.zeros(count, bool)
    out[list(found)] = True
    return out


def _shown(seen: Array, uv_px: Array) -> Array:
    """Whether the mask (H,W) is set within two pixels of each (P,2); pixels outside the image are not."""
    height, width = seen.shape
    out = np.zeros(len(uv_px), bool)
    for p in np.flatnonzero(camera.in_image(uv_px, width, height)):
        u, v = np.rint(uv_px[p]).astype(int)
        out[p] = seen[max(v - 2, 0) : v + 3, max(u - 2, 0) : u + 3].any()
    return out


def T_cam_base_of(T_world_cam: Array, T_world_base: Array) -> Array:
    """(…,4,4): the base as the camera sees it."""
    return se3.inverse(T_world_cam) @ T_world_base
