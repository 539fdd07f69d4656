"""Which point of the robot's surface a depth pixel or an outline pixel belongs to, for the current state of the solve.

Association is projective: the robot is cast as it is believed to stand, and a measured depth at a pixel is compared with the surface that
the pixel shows (Blais and Levine 1995). Outlines are compared through the signed distance to the given mask's edge, both from the robot's
outline to the mask and back, so that neither may be larger than the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from annotators import anchor_edges
from annotators.anchor_state import Problem, State
from annotators.anchor_terms import Measurements, link_poses_in_camera
from dataengine.geometry import se3
from dataengine.raycast.scene import TriMesh
from dataengine.robot.meshes import load_link_meshes
from dataengine.robot.model import RobotModel

Array = np.ndarray
DEPTH_PER_SLOT, MASKED_DEPTH_PER_SLOT, OUTLINE_PER_SLOT = 500, 4000, 2000
"""Pixels of a frame that take part. With a mask all of the robot's: 500 and 160 of them, drawn anew with every seed, moved the base of
a capture of five frames by 2 mm from seed to seed, all by half a millimetre, in a tenth more time."""
EDGES_PER_SLOT, EDGE_GATE_PX, EDGE_SIGMA_PX = 400, 4.0, 0.5
BORDER_PX = 3


@dataclass(frozen=True, eq=False)
class RobotShape:
    """One mesh per link that has one: `link` (M,) index, and the mesh in the link's frame."""

    link: Array
    meshes: tuple[TriMesh, ...]


@dataclass(frozen=True, eq=False)
class RobotView:
    """The robot alone as a camera sees it on a grid of every `stride`-th pixel: (h, w) planar depth (0 none), link (-1 none), unit
    normal in the link's frame, towards the camera. Grid cell (i, j) is pixel (stride·j, stride·i)."""

    stride: int
    depth_z_m: Array
    link: Array
    normal: Array

    @property
    def mask(self) -> Array:
        """(h, w) bool."""
        return self.link >= 0


@dataclass(frozen=True, eq=False)
class SlotImages:
    """What was measured in a slot: planar depth (H, W) or None; the given mask's signed distance (H, W), negative inside, or None; the
    photograph's grey levels (H, W), or None where its edges are not to be used."""

    depth_z_m: Array | None
    mask: Array | None
    distance_px: Array | None
    grey: Array | None = None


def robot_shape(model: RobotModel) -> RobotShape:
    """Meshes of the robot, cached per model."""
    return _shape(model)


@lru_cache(maxsize=8)
def _shape(model: RobotModel) -> RobotShape:
    meshes = load_link_meshes(model)
    return RobotShape(np.array([m.link_index for m in meshes]), tuple(TriMesh(m.vertices_m, m.faces) for m in meshes))


def view_robot(shape: RobotShape, T_cam_link: Array, K: Array, size: tuple[int, int], stride: int) -> RobotView:
    """Cast every link within its own projected window and keep the nearest."""
    w, h = (size[0] + stride - 1) // stride, (size[1] + stride - 1) // stride
    depth, link, normal = np.full((h, w), np.inf), np.full((h, w), -1), np.zeros((h, w, 3), np.float32)
    for index, mesh in zip(shape.link, shape.meshes, strict=True):
        T_cam = T_cam_link[index]
        window = _window(mesh.vertices_m, T_cam, K, (w, h), stride)
        if window is None:
            continue
        left, top, right, bottom = window
        v, u = np.mgrid[top:bottom, left:right] * stride
        rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1).reshape(-1, 3)
        T_link_cam = se3.inverse(T_cam)
        along = rays @ T_link_cam[:3, :3].T
        distance, triangle, n = mesh.bvh.first_hit(T_link_cam[:3, 3], along)
        here = (slice(top, bottom), slice(left, right))
        distance = np.where(triangle >= 0, distance, np.inf).reshape(u.shape)
        nearer = distance < depth[here]
        depth[here][nearer] = distance[nearer]
        link[here][nearer] = index
        n = n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-20)
        n = np.where(np.sum(n * along, axis=1, keepdims=True) > 0, -n, n).reshape(*u.shape, 3)
        normal[here][nearer] = n[nearer]
    return RobotView(stride, np.where(np.isfinite(depth), depth, 0.0), link, normal)


def _window(vertices: Array, T_cam: Array, K: Array, size: tuple[int, int], stride: int) -> tuple[int, int, int, int] | None:
    x = se3.transform(T_cam, vertices[:: max(1, len(vertices) // 2000)])
    if x[:, 2].max() < 0.05:
        return None
    if x[:, 2].min() < 0.05:
        return 0, 0, size[0], size[1]
    uv = x[:, :2] / x[:, 2:] * (K[0, 0], K[1, 1]) + (K[0, 2], K[1, 2])
    low = np.clip(np.floor((uv.min(axis=0) - 4) / stride), 0, size).astype(int)
    high = np.clip(np.ceil((uv.max(axis=0) + 4) / stride) + 1, 0, size).astype(int)
    return None if (low >= high).any() else (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def signed_distance(mask: Array) -> Array:
    """Pixels to the mask's edge, negative inside; the edge runs between pixels, so those on either side of it are at ∓0.5."""
    import cv2

    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.where(mask, 0.5 - inside, outside - 0.5).astype(np.float32)


def clean_mask(mask: Array, share: float = 0.02) -> Array:
    """A given mask without its specks and pinholes: regions, and holes, smaller than `share` of the mask are dropped, and filled.

    Segmenters punch holes into shiny rings; their edges are no outline of the robot.
    """
    import cv2

    limit = share * mask.sum()
    out = mask.copy()
    for value in (True, False):
        count, label, stats, _ = cv2.connectedComponentsWithStats((out == value).astype(np.uint8), connectivity=4)
        small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < limit)
        out[np.isin(label, small[small > 0])] = not value
    return out


def associate(
    problem: Problem, state: State, images: list[SlotImages], shape: RobotShape, gate_m: float, gate_px: float, rng: np.random.Generator
) -> list[Measurements]:
    """Depth and outline measurements of all slots. Measured depths farther than `gate_m` from the robot, outlines farther than `gate_px`
    from an edge, are left out."""
    poses = link_poses_in_camera(problem, state)
    stride = max(2, round(problem.slots.size[0] / 320))
    depth_parts, outline_parts, edge_parts = [], [], []
    for slot, image in enumerate(images):
        if image.depth_z_m is None and image.distance_px is None and image.grey is None:
            continue
        view = view_robot(shape, poses[slot], state.K, problem.slots.size, stride)
        if not view.mask.any():
            continue
        if image.depth_z_m is not None:
            depth_parts.append(_depth_samples(problem, state, slot, image, view, poses[slot], gate_m, rng))
        if image.distance_px is not None:
            outline_parts += _outline_samples(problem, state, slot, image, view, poses[slot], gate_px, rng)
        if image.grey is not None:
            whole = view if stride == 1 else view_robot(shape, poses[slot], state.K, problem.slots.size, 1)
            edge_parts.append(_edge_samples(state, slot, image.grey, whole, poses[slot], min(gate_px, EDGE_GATE_PX), rng))
    return [part for part in (_join(depth_parts), _join(outline_parts), _join(edge_parts)) if part is not None]


def _join(parts: list[Measurements]) -> Measurements | None:
    if not parts:
        return None
    names = ("slot", "link", "offset_m", "target", "normal", "sigma", "weight")
    return Measurements(parts[0].kind, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _depth_samples(
    problem: Problem, state: State, slot: int, image: SlotImages, view: RobotView, poses: Array, gate_m: float, rng: np.random.Generator
) -> Measurements:
    s = view.stride
    assert image.depth_z_m is not None
    measured = image.depth_z_m[::s, ::s].astype(float)
    true = measured / (state.depth_gain * (1 + state.depth_slope_per_m * (measured - 1)))
    grazing = np.zeros(view.mask.shape, bool)
    padded = np.pad(view.depth_z_m, 1, mode="edge")
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = padded[dy : dy + view.depth_z_m.shape[0], dx : dx + view.depth_z_m.shape[1]]
        grazing |= np.abs(neighbour - view.depth_z_m) > 0.03
    good = view.mask & ~grazing & (measured > 0) & (np.abs(true - view.depth_z_m) < gate_m)
    if image.mask is not None:
        good &= image.mask[::s, ::s]
    i, j = np.nonzero(good)
    count = DEPTH_PER_SLOT if image.mask is None else MASKED_DEPTH_PER_SLOT
    if len(i) > count:  # as many from a small link as from a large one
        link = view.link[i, j]
        share = 1 / np.bincount(link)[link]
        keep = rng.choice(len(i), count, replace=False, p=share / share.sum())
        i, j = i[keep], j[keep]
    rays = np.stack([(j * s - state.K[0, 2]) / state.K[0, 0], (i * s - state.K[1, 2]) / state.K[1, 1], np.ones(len(i))], -1)
    link = view.link[i, j]
    offset = _in_link(poses, link, rays * view.depth_z_m[i, j, None])
    sigma = problem.options.depth_sigma_m * np.maximum(measured[i, j], 0.3) ** 2
    n = len(i)
    return Measurements(
        "depth", np.full(n, slot), link, offset, rays * measured[i, j, None], view.normal[i, j].astype(float), sigma, np.ones(n)
    )


def _in_link(poses: Array, link: Array, x_cam: Array) -> Array:
    return np.einsum("nij,nj->ni", se3.inverse(poses[link])[:, :3, :3], x_cam - poses[link][:, :3, 3])


def _outline_samples(
    problem: Problem, state: State, slot: int, image: SlotImages, view: RobotView, poses: Array, gate_px: float, rng: np.random.Generator
) -> list[Measurements]:
    import cv2
    from scipy.spatial import cKDTree

    assert image.distance_px is not None and image.mask is not None
    s, mask = view.stride, view.mask
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=[1]) > 0
    i, j = np.nonzero(mask & ~inner)
    edge_px = np.stack([j * s, i * s], -1)
    gradient = _gradient(image.distance_px)
    width, height = problem.slots.size
    on = _off_border(edge_px, width, height)
    i, j, edge_px = i[on], j[on], edge_px[on]
    if not len(i):
        return []
    link = view.link[i, j]
    rays = np.stack([(edge_px[:, 0] - state.K[0, 2]) / state.K[0, 0], (edge_px[:, 1] - state.K[1, 2]) / state.K[1, 1], np.ones(len(i))], -1)
    offset = _in_link(poses, link, rays * view.depth_z_m[i, j, None])

    def build(rows: Array, residual: Array, normal: Array) -> Measurements:
        near = np.abs(residual) < gate_px
        rows, residual, normal = rows[near], residual[near], normal[near]
        target = edge_px[rows] - normal * residual[:, None]
        n = len(rows)
        sigma = np.full(n, float(np.hypot(problem.options.contour_sigma_px, s / np.sqrt(12))))
        return Measurements("outline", np.full(n, slot), link[rows], offset[rows], target, normal, sigma, np.ones(n))

    rows = rng.choice(len(i), min(OUTLINE_PER_SLOT, len(i)), replace=False)
    here = edge_px[rows]
    out = [build(rows, image.distance_px[here[:, 1], here[:, 0]] + s / 2, gradient[here[:, 1], here[:, 0]])]
    v, u = np.nonzero(image.mask & (image.distance_px > -1))
    border = np.stack([u, v], -1)
    border = border[_off_border(border, width, height)]
    if len(border):
        border = border[rng.choice(len(border), min(OUTLINE_PER_SLOT, len(border)), replace=False)]
        _, nearest = cKDTree(edge_px).query(border)
        normal = gradient[border[:, 1], border[:, 0]]
        out.append(build(nearest, np.sum(normal * (edge_px[nearest] - border), axis=1) + s / 2 - 0.5, normal))
    return out


def _edge_samples(
    state: State, slot: int, grey: Array, view: RobotView, poses: Array, gate_px: float, rng: np.random.Generator
) -> Measurements:
    """The outline against the photograph's own edges."""
    px, normal, out = anchor_edges.outline_points(view.mask, EDGES_PER_SLOT, rng)
    found = anchor_edges.edges_along(grey, px + out[:, None] * normal, normal, gate_px)
    seen = np.isfinite(found)
    px, normal, found = px[seen], normal[seen], found[seen]
    j, i = px.T
    link = view.link[i, j]
    rays = np.stack([(j - state.K[0, 2]) / state.K[0, 0], (i - state.K[1, 2]) / state.K[1, 1], np.ones(len(px))], -1)
    offset = _in_link(poses, link, rays * view.depth_z_m[i, j, None])
    n = len(px)
    return Measurements("edge", np.full(n, slot), link, offset, px + normal * found[:, None], normal, np.full(n, EDGE_SIGMA_PX), np.ones(n))


def _gradient(distance_px: Array) -> Array:
    import cv2

    smooth = cv2.GaussianBlur(distance_px, (0, 0), 1.0)
    g = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)], -1)
    return g / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), 1e-9)


def _off_border(px: Array, width: int, height: int) -> Array:
    return (px[:, 0] >= BORDER_PX) & (px[:, 1] >= BORDER_PX) & (px[:, 0] < width - BORDER_PX) & (px[:, 1] < height - BORDER_PX)
