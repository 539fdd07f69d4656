"""Labels of one frame from the posed scene: amodal masks, object coordinates, keypoints and how much of each is seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import camera, se3
from dataengine.raycast.views import amodal_masks, point_visible
from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE
from dataengine.record.modalities import DEPTH_QUANTUM_M
from dataengine.scene.world import RayWorld

NEIGHBOURHOOD_M = 0.005
"""Radius around a keypoint within which its visibility is measured."""

EMBEDDED_M = 0.12
"""A keypoint may lie this deep inside the links that carry it (joint origins do) and still count as seen."""


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """(L,H,W) and (N,H,W) bool: every link and every labelled object as if it stood alone."""

    links: NDArray[np.bool_]
    objects: NDArray[np.bool_]

    @property
    def robot(self) -> NDArray[np.uint8]:
        return self.links.any(0).astype(np.uint8)

    @property
    def object_bits(self) -> NDArray[np.uint32]:
        """Bit k set where instance k + 1 would be seen if alone."""
        bits = np.zeros(self.links.shape[1:], np.uint32)
        for k, mask in enumerate(self.objects):
            bits |= mask.astype(np.uint32) << np.uint32(k)
        return bits


def silhouettes(
    world: RayWorld, frame: int, link_count: int, object_count: int, K: NDArray, T_world_cam: NDArray, size: tuple[int, int]
) -> Silhouettes:
    """Amodal masks by ray casting each part alone; size = (height, width)."""
    groups = [np.flatnonzero(world.link_of_mesh == i).tolist() for i in range(link_count)]
    groups += [np.flatnonzero(world.instance_of_mesh == k + 1).tolist() for k in range(object_count)]
    masks = amodal_masks(world.posed(frame), world.T_world_mesh[frame], groups, K, T_world_cam, size[1], size[0])
    return Silhouettes(masks[:link_count], masks[link_count:])


def visible_share(visible_id: NDArray, first_id: int, amodal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Visible over amodal pixels for the parts whose ids are first_id, first_id + 1, …; 0 for a part with no amodal pixel."""
    seen = np.bincount(visible_id.ravel(), minlength=256)[first_id : first_id + len(amodal)]
    alone = amodal.sum((1, 2))
    return np.where(alone > 0, np.minimum(seen / np.maximum(alone, 1), 1.0), 0.0).astype(np.float32)


def object_coordinates(depth_z_m: NDArray, mask_object: NDArray, K: NDArray, T_cam_object: NDArray, size_m: NDArray) -> NDArray[np.uint16]:
    """NOCS map (H,W,3): the visible point in its object's bounding box, 0…1 per axis as uint16; 0 elsewhere.

    Box-centred: coordinate = p_object / size + 1/2. T_cam_object (N,4,4), size_m (N,3) for instances 1 … N.
    """
    out = np.zeros((*depth_z_m.shape, 3), np.uint16)
    rows, columns = np.nonzero((mask_object > 0) & (mask_object <= len(size_m)))
    if len(rows) == 0:
        return out
    instance = mask_object[rows, columns].astype(int) - 1
    z = depth_z_m[rows, columns].astype(float)
    p_cam = np.linalg.solve(K, np.stack([columns, rows, np.ones_like(rows)]).astype(float)).T * z[:, None]
    T = se3.inverse(T_cam_object)[instance]
    p_object = np.einsum("nij,nj->ni", T[:, :3, :3], p_cam) + T[:, :3, 3]
    out[rows, columns] = np.rint(np.clip(p_object / size_m[instance] + 0.5, 0.0, 1.0) * 65535).astype(np.uint16)
    return out


@dataclass(frozen=True, eq=False)
class Keypoints:
    """cam_m (P,3), px (P,2; nan behind the camera), state (P,), visibility (P,) of one frame."""

    cam_m: NDArray[np.float64]
    px: NDArray[np.float64]
    state: NDArray[np.uint8]
    visibility: NDArray[np.float32]


def keypoints(
    world: RayWorld,
    frame: int,
    points_world_m: NDArray,
    carriers: NDArray[np.bool_],
    K: NDArray,
    T_world_cam: NDArray,
    size: tuple[int, int],
) -> Keypoints:
    """Project the keypoints and test what hides them; size = (height, width).

    `carriers` (P,M): the meshes that carry a keypoint (its link and the links on both sides of the joint), behind whose
    surface it may lie by EMBEDDED_M. Visibility is the share of 13 points within 5 mm, across the line of sight, that are
    seen; the state is `visible` from one half on.
    """
    cam = se3.transform(se3.inverse(T_world_cam), points_world_m)
    px = camera.project(K, cam)
    ring = np.arange(12) * (np.pi / 6)
    radius = np.where(np.arange(12) % 2, 1.0, 0.5) * NEIGHBOURHOOD_M
    disc = np.concatenate([np.zeros((1, 2)), np.stack([np.cos(ring), np.sin(ring)], -1) * radius[:, None]])
    offsets_world = disc @ T_world_cam[:3, :2].T
    probes = (points_world_m[:, None] + offsets_world).reshape(-1, 3)
    see_through = np.repeat(carriers, len(disc), axis=0)
    own = np.full(len(probes), -1)
    seen = point_visible(world.posed(frame), probes, own, T_world_cam, see_through=see_through, slack_m=0.01, embedded_m=EMBEDDED_M)
    inside = camera.in_image(px, size[1], size[0])
    visibility = np.where(inside, seen.reshape(-1, len(disc)).mean(1), 0.0).astype(np.float32)
    state = np.where(inside, np.where(visibility >= 0.5, KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED), KEYPOINT_OUTSIDE).astype(np.uint8)
    return Keypoints(cam, px, state, visibility)


def quantise_depth(depth_z_m: NDArray) -> NDArray[np.float32]:
    """Round to the record's depth quantum; what is not finite or not positive becomes 0."""
    good = np.isfinite(depth_z_m) & (depth_z_m > 0)
    return (np.rint(np.where(good, depth_z_m, 0.0) / DEPTH_QUANTUM_M) * DEPTH_QUANTUM_M).astype(np.float32)
