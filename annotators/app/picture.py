"""Pictures of the app: the posed robot over a frame, the loupe, the guide that shows where a landmark sits on the CAD model."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from annotators.landmarks import Landmark
from dataengine.geometry import camera, se3
from dataengine.raycast.scene import RayScene, TriMesh
from dataengine.raycast.views import point_visible, render_labels
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes
from dataengine.robot.model import RobotModel
from dataengine.view.palette import link_colours

Array = np.ndarray
Style = Literal["edges", "solid", "off"]
GUIDE_PX, LOUPE_PX, LOUPE_SCALE = 340, 33, 7
OVERLAY_WIDTH_PX = 1280
EDGE_COLOUR, MARK_COLOUR = (90, 255, 140), (255, 64, 160)
FOLD_COSINE, JUMP = 0.75, 0.03
"""An edge is drawn where normals differ by more than 41° or depth jumps by 3 %."""


class RobotPicture:
    """The robot's meshes, ready to be drawn in any pose."""

    def __init__(self, model: RobotModel) -> None:
        meshes = load_link_meshes(model)
        self.model = model
        self._links = np.array([mesh.link_index for mesh in meshes], np.int64)
        self._scene = RayScene([TriMesh(mesh.vertices_m, mesh.faces) for mesh in meshes])
        self.guide = lru_cache(maxsize=64)(self._guide)

    def overlay(self, K: Array, size: tuple[int, int], T_cam_base: Array, q: Array, style: Style, opacity: float) -> Array:
        """(H', W', 4) uint8 RGBA of the robot as the camera sees it; transparent elsewhere. ``size`` (width, height) of the image.

        A small image is drawn at twice its resolution, so that edges stay fine under zoom.
        """
        if style == "off":
            return np.zeros((2, 2, 4), np.uint8)
        finer = 2 if 2 * size[0] <= OVERLAY_WIDTH_PX else 1
        width, height = finer * size[0], finer * size[1]
        K = camera.resize_intrinsics(K, finer, finer)
        poses = self._pose(q, T_cam_base)
        self._scene.pose(poses)
        seen = render_labels(self._scene, K, np.eye(4), width, height)
        hit = seen.mesh_index >= 0
        if style == "edges":
            alpha = _edges(seen.mesh_index, seen.depth_z_m, seen.normal_cam) * opacity
            colour = np.broadcast_to(np.array(EDGE_COLOUR, np.uint8), (height, width, 3))
        else:
            link = np.where(hit, self._links[np.maximum(seen.mesh_index, 0)] + 1, 0)
            colour = (link_colours()[link] * _shade(seen.normal_cam)[..., None]).astype(np.uint8)
            alpha = hit * opacity
        return np.dstack([colour, np.round(255 * alpha).astype(np.uint8)])

    def landmarks_px(self, K: Array, T_cam_base: Array, q: Array, landmarks: tuple[Landmark, ...]) -> Array:
        """(L, 2) where the landmarks of the posed robot fall; nan behind the camera."""
        return camera.project(K, self._landmarks(np.asarray(T_cam_base) @ self._links_base(q), landmarks))

    def _guide(self, landmark: Landmark) -> Array:
        """(GUIDE_PX, 2·GUIDE_PX, 3): the whole robot and a close-up, shaded, from where the landmark is seen best, with it marked."""
        import cv2

        q = _presentation(self.model)
        poses = self._links_base(q)
        self._scene.pose(poses[self._links])
        target = self._landmarks(poses, (landmark,))[0]
        everything = self._scene.triangles_world.reshape(-1, 3)
        low, high = everything.min(0), everything.max(0)
        middle, reach = (low + high) / 2, float(np.linalg.norm(high - low))
        direction = self._best_direction(target, middle, reach, landmark.inside)
        views = []
        for centre, distance, field in ((middle, 1.75 * reach, 0.56), (target, 0.42 * reach, 0.62)):
            eye = centre + distance * direction
            K = camera.intrinsics_from_fov(GUIDE_PX, GUIDE_PX, field)
            T_world_cam = se3.look_at(eye, centre)
            seen = render_labels(self._scene, K, T_world_cam, GUIDE_PX, GUIDE_PX)
            picture = _studio(seen.mesh_index >= 0, seen.normal_cam)
            u, v = camera.project(K, se3.transform(se3.inverse(T_world_cam), target[None])[0])
            spot = (round(16 * u), round(16 * v))
            cv2.circle(picture, spot, 16 * 11, MARK_COLOUR, 2, cv2.LINE_AA, 4)
            cv2.circle(picture, spot, 16 * 2, MARK_COLOUR, -1, cv2.LINE_AA, 4)
            views.append(picture)
        return np.concatenate(views, axis=1)

    def _best_direction(self, target: Array, middle: Array, reach: float, inside: bool) -> Array:
        """Of 24 directions around the robot the one that shows the landmark, most from its own side."""
        turns, heights = np.meshgrid(np.arange(12) * np.pi / 6 + 0.3, (0.25, 0.7))
        ring = np.stack([np.cos(heights) * np.cos(turns), np.cos(heights) * np.sin(turns), np.sin(heights)], -1).reshape(-1, 3)
        outward = (target - middle) * (1, 1, 0.3)
        outward = outward / max(float(np.linalg.norm(outward)), 1e-9)
        score = ring @ outward - 0.3 * ring[:, 2]
        for k, direction in enumerate(ring):
            T_world_cam = se3.look_at(target + 1.5 * reach * direction, target)
            depth = 0.15 if inside else 0.012
            seen = point_visible(self._scene, target[None], np.array([-1]), T_world_cam, slack_m=depth, embedded_m=depth)
            score[k] += 2.0 * bool(seen[0])
        return ring[int(np.argmax(score))]

    def _links_base(self, q: Array) -> Array:
        return forward_kinematics(self.model, np.asarray(q, np.float64)[None])[0]

    def _pose(self, q: Array, T_cam_base: Array) -> Array:
        return (np.asarray(T_cam_base, np.float64) @ self._links_base(q))[self._links]

    def _landmarks(self, T_any_link: Array, landmarks: tuple[Landmark, ...]) -> Array:
        rows = [self.model.link_index(landmark.link) for landmark in landmarks]
        offsets = np.stack([landmark.offset_m for landmark in landmarks])
        return np.einsum("nij,nj->ni", T_any_link[rows][:, :3, :3], offsets) + T_any_link[rows][:, :3, 3]


def loupe(picture: Array, uv_px: tuple[float, float]) -> Array:
    """(side, side, 3) surroundings of a point, magnified, with a hair cross exactly at it, to a fraction of a pixel."""
    import cv2

    side = LOUPE_PX * LOUPE_SCALE
    u, v = uv_px
    # Output pixel centre x shows image position u + (x + 0.5 − side/2) / scale.
    first_u, first_v = u + (0.5 - side / 2) / LOUPE_SCALE, v + (0.5 - side / 2) / LOUPE_SCALE
    to_image = np.array([[1 / LOUPE_SCALE, 0, first_u], [0, 1 / LOUPE_SCALE, first_v]])
    shown = cv2.warpAffine(picture, to_image, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)
    shown = np.ascontiguousarray(shown)
    middle, gap, arm = side // 2, 2 * LOUPE_SCALE // 3, side // 3
    for a, b in ((-arm, -gap), (gap, arm)):
        cv2.line(shown, (middle + a, middle), (middle + b, middle), MARK_COLOUR, 1)
        cv2.line(shown, (middle, middle + a), (middle, middle + b), MARK_COLOUR, 1)
    shown[middle, middle] = MARK_COLOUR
    return shown


def _presentation(model: RobotModel) -> Array:
    """A pose that shows all links: joints in the middle of their range, moved a little off so that no two links line up."""
    finite = np.isfinite(model.q_lower) & np.isfinite(model.q_upper)
    middle = np.where(finite, (model.q_lower + model.q_upper) / 2, 0.0)
    span = np.where(finite, model.q_upper - model.q_lower, 1.0)
    return middle + 0.07 * span * np.where(np.arange(model.dof) % 2, 1.0, -1.0)


def _shade(normal_cam: Array) -> Array:
    """Brightness 0.35…1 from a lamp above the left shoulder of the camera."""
    lamp = np.array([-0.35, -0.45, -0.82])
    return 0.35 + 0.65 * np.clip(normal_cam @ lamp, 0, 1)


def _studio(hit: Array, normal_cam: Array) -> Array:
    grey = np.round(235 * _shade(normal_cam))
    return np.repeat(np.where(hit, grey, 34).astype(np.uint8)[..., None], 3, -1)


def _edges(mesh: Array, depth: Array, normal: Array) -> Array:
    """(H, W) bool: outlines of links, folds and jumps of depth, one pixel wide, on the side of the robot."""
    out = np.zeros(mesh.shape, bool)
    for axis in (0, 1):
        a, b = (slice(None, -1), slice(1, None))
        first, second = ((a, slice(None)), (b, slice(None))) if axis == 0 else ((slice(None), a), (slice(None), b))
        both = (mesh[first] >= 0) & (mesh[second] >= 0)
        fold = both & ((normal[first] * normal[second]).sum(-1) < FOLD_COSINE)
        jump = both & (np.abs(depth[first] - depth[second]) > JUMP * np.minimum(depth[first], depth[second]))
        edge = (mesh[first] != mesh[second]) | fold | jump
        out[first] |= edge & (mesh[first] >= 0)
        out[second] |= edge & (mesh[first] < 0)
    return out
