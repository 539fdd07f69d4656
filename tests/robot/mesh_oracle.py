"""Exact intersection of posed triangle meshes, for judging the fast collision test: every edge of one against all
triangles of the other (two surfaces that cross always have an edge of one piercing a face of the other)."""

import numpy as np

from dataengine.geometry import se3
from dataengine.raycast.scene import Bvh
from dataengine.robot.collision import CollisionModel
from dataengine.robot.kinematics import forward_kinematics, rigid_bodies
from dataengine.robot.meshes import LinkMesh


class MeshOracle:
    """The bodies of a collision model as full meshes."""

    def __init__(self, collision: CollisionModel, meshes: list[LinkMesh]) -> None:
        self.collision = collision
        links = rigid_bodies(collision.model)
        self.solids = []
        for body in collision.bodies:
            inside = links[collision.model.links[body.link_index]]
            soups = [se3.transform(inside[m.link], m.vertices_m)[m.faces] for m in meshes if m.link in inside]
            corners = np.concatenate(soups).astype(np.float32)
            faces = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
            edges = np.stack([corners, np.roll(corners, -1, axis=1)], axis=2).reshape(-1, 2, 3)
            edges = edges[(edges[:, 0] < edges[:, 1]).any(axis=1)]
            self.solids.append((Bvh(corners.reshape(-1, 3), faces), np.unique(edges, axis=0).astype(np.float64)))

    def pairs(self, q: np.ndarray) -> np.ndarray:
        """Which tested pairs of bodies truly intersect at one configuration: (K,) bool."""
        poses = forward_kinematics(self.collision.model, q)
        return np.array([self._intersect(i, j, poses) for i, j in self.collision.pairs])

    def _intersect(self, i: int, j: int, poses: np.ndarray) -> bool:
        a, b = self.collision.bodies[i], self.collision.bodies[j]
        T_a_b = se3.inverse(poses[a.link_index]) @ poses[b.link_index]
        if np.linalg.norm(se3.transform(T_a_b, b.centre_m[None])[0] - a.centre_m) > a.radius_m + b.radius_m:
            return False
        return self._pierces(j, i, T_a_b) or self._pierces(i, j, se3.inverse(T_a_b))

    def _pierces(self, edges_of: int, solid: int, T_solid_edges: np.ndarray) -> bool:
        bvh, edges = self.solids[solid][0], self.solids[edges_of][1]
        start, end = se3.transform(T_solid_edges, edges[:, 0]), se3.transform(T_solid_edges, edges[:, 1])
        target = self.collision.bodies[solid]
        close = np.linalg.norm(start - target.centre_m, axis=1) < target.radius_m + 0.05
        return bool(bvh.any_hit(start[close], (end - start)[close], np.ones(close.sum(), np.float32)).any())
