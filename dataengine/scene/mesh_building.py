"""Closed triangle meshes from profiles and sweeps: the bricks of `shapes.py`. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SEGMENTS = 48
"""Corners of a circle; a multiple of 4, so that a circle's bounding box is its diameter."""


@dataclass(frozen=True, eq=False)
class ShapeMesh:
    """Closed mesh, outward triangles: vertices_m (V,3) float64 centred at the bounding box's centre, faces (F,3) int32.

    `smooth`: shade with `vertex_normals` (V,3), which lean towards the larger faces so that narrow bevels look round
    and flat sides flat; otherwise every triangle is flat.
    """

    vertices_m: Array
    faces: NDArray[np.int32]
    smooth: bool

    @property
    def vertex_normals(self) -> Array:
        """Area-weighted unit normals (V,3)."""
        corners = self.vertices_m[self.faces]
        weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.zeros_like(self.vertices_m)
        for k in range(3):
            np.add.at(total, self.faces[:, k], weighted)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        return np.where(length > 0, total / np.where(length > 0, length, 1.0), (0.0, 0.0, 1.0))


def mesh(vertices: ArrayLike, faces: ArrayLike, smooth: bool) -> ShapeMesh:
    """ShapeMesh with its bounding box's centre moved to the origin."""
    v = np.asarray(vertices, np.float64)
    return ShapeMesh(v - (v.min(0) + v.max(0)) / 2, np.ascontiguousarray(faces, np.int32), smooth)


def merge(parts: Sequence[tuple[Array, NDArray[np.int32]]]) -> tuple[Array, NDArray[np.int32]]:
    """Several closed meshes as one list of triangles."""
    offsets = np.cumsum([0, *(len(v) for v, _ in parts[:-1])])
    faces = np.concatenate([f + o for (_, f), o in zip(parts, offsets, strict=True)])
    return np.concatenate([v for v, _ in parts]), faces.astype(np.int32)


def revolve(profile: ArrayLike, segments: int = SEGMENTS) -> tuple[Array, NDArray[np.int32]]:
    """Turn a profile (N,2) of (radius, z) about z. It starts and ends on the axis, and the solid lies on its left.

    Going up along the outside, then (for a vessel) down the inside.
    """
    p = np.asarray(profile, float)
    inner = p[1:-1]
    rings = _rings(inner, segments)
    poles = np.array([[0.0, 0.0, p[0, 1]], [0.0, 0.0, p[-1, 1]]])
    vertices = np.concatenate([rings, poles])
    first, last = len(vertices) - 2, len(vertices) - 1
    faces = [_band(k * segments, (k + 1) * segments, segments) for k in range(len(inner) - 1)]
    faces.append(_fan(first, 0, segments, flip=True))
    faces.append(_fan(last, (len(inner) - 1) * segments, segments, flip=False))
    return vertices, np.concatenate(faces).astype(np.int32)


def revolve_ring(profile: ArrayLike, segments: int = SEGMENTS) -> tuple[Array, NDArray[np.int32]]:
    """Turn a closed profile (N,2) of (radius > 0, z), counter-clockwise, about z: a ring."""
    p = np.asarray(profile, float)
    n = len(p)
    faces = [_band(k * segments, (k + 1) % n * segments, segments) for k in range(n)]
    return _rings(p, segments), np.concatenate(faces).astype(np.int32)


def tube(path: ArrayLike, radius: float, sides: int = 12) -> tuple[Array, NDArray[np.int32]]:
    """Round tube with flat ends along a path (N,3) in the x-z plane."""
    p = np.asarray(path, float)
    along = np.gradient(p, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.array([0.0, 1.0, 0.0])
    upward = np.cross(along, across)
    angle = np.arange(sides) * (2 * np.pi / sides)
    offsets = np.cos(angle)[:, None] * upward[:, None] + np.sin(angle)[:, None] * across
    vertices = np.concatenate([(p[:, None] + radius * offsets).reshape(-1, 3), p[:1], p[-1:]])
    first, last = len(vertices) - 2, len(vertices) - 1
    faces = [_band(k * sides, (k + 1) * sides, sides)[:, ::-1] for k in range(len(p) - 1)]
    faces.append(_fan(first, 0, sides, flip=False))
    faces.append(_fan(last, (len(p) - 1) * sides, sides, flip=True))
    return outward(vertices, np.concatenate(faces).astype(np.int32))


def bevelled_box(size: ArrayLike, bevel: float) -> tuple[Array, NDArray[np.int32]]:
    """Box centred at the origin with all edges cut by `bevel` (at most 45 % of the shortest side)."""
    half = np.asarray(size, float) / 2
    b = min(bevel, 0.9 * float(half.min()))
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    # vertex 3·corner + axis lies on the face perpendicular to that axis
    vertices = np.concatenate([s * (half - b) + s * b * np.eye(3) for s in signs])
    corner = {tuple(s): k for k, s in enumerate(signs.astype(int).tolist())}
    polygons: list[list[int]] = [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(8)]
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for s in (-1, 1):
            quad = [corner[_signs({axis: s, u: a, v: c})] for a, c in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            polygons.append([3 * k + axis for k in quad])  # a face
            for t in (-1, 1):  # the edge along `axis` at (u = s, v = t)
                low, high = corner[_signs({axis: -1, u: s, v: t})], corner[_signs({axis: 1, u: s, v: t})]
                polygons.append([3 * low + u, 3 * high + u, 3 * high + v, 3 * low + v])
    return vertices, _outward_convex(vertices, polygons)


def outward(vertices: Array, faces: NDArray[np.int32]) -> tuple[Array, NDArray[np.int32]]:
    """A consistently oriented closed mesh with its normals turned outwards (positive volume)."""
    return (vertices, faces) if volume(vertices, faces) >= 0 else (vertices, np.ascontiguousarray(faces[:, ::-1]))


def volume(vertices: Array, faces: NDArray[np.int32]) -> float:
    """Signed volume of a closed mesh, m³ (divergence theorem)."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def _signs(values: dict[int, int]) -> tuple[int, int, int]:
    return values[0], values[1], values[2]


def _outward_convex(vertices: Array, polygons: list[list[int]]) -> NDArray[np.int32]:
    triangles = np.array([[p[0], p[k], p[k + 1]] for p in polygons for k in range(1, len(p) - 1)], np.int32)
    a, b, c = np.moveaxis(vertices[triangles], 1, 0)
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return triangles


def _rings(profile: Array, segments: int) -> Array:
    """Points (N·segments,3) of the circles that the points (N,2) of a profile run through."""
    angle = np.arange(segments) * (2 * np.pi / segments)
    radius, z = profile[:, 0, None], profile[:, 1, None]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z + 0 * angle], -1).reshape(-1, 3)


def _band(low: int, high: int, n: int) -> NDArray[np.intp]:
    """Two triangles per side between the rings that start at vertices `low` and `high`."""
    i, j = np.arange(n), (np.arange(n) + 1) % n
    return np.concatenate([np.stack([low + i, low + j, high + j], -1), np.stack([low + i, high + j, high + i], -1)])


def _fan(centre: int, ring: int, n: int, flip: bool) -> NDArray[np.intp]:
    i, j = ring + np.arange(n), ring + (np.arange(n) + 1) % n
    return np.stack([np.full(n, centre), j, i] if flip else [np.full(n, centre), i, j], -1)
