"""Keypoints and the robot's skeleton drawn over a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE
from dataengine.record.video import Names
from dataengine.view.palette import Rgb, srgb_from_oklch

Edge = tuple[int, int]
ON_AXIS_M = 2e-3
"""A keypoint this close to its link's origin belongs to the chain itself."""
SUBPIXEL_BITS = 4
SUPERSAMPLES = 4


def skeleton_edges(names: Names) -> tuple[Edge, ...]:
    """Pairs of keypoint indices to join.

    Links come in URDF order, base first, so the keypoints at link origins, sorted by link, are the chain (for the
    Panda's `dream7`: link0-2-3-4-6-7-hand). Fingers fork from the last link before them. Every other keypoint hangs
    on the chain's keypoint of its own link, or of the nearest link before it.
    """
    offsets = np.asarray(names.keypoint_offsets_m, np.float64).reshape(-1, 3)
    distance = np.linalg.norm(offsets, axis=1)
    on_axis = [k for k in range(len(distance)) if distance[k] < ON_AXIS_M]
    by_link: dict[int, int] = {}
    for k in sorted(on_axis if len(on_axis) > 1 else range(len(distance)), key=lambda k: distance[k]):
        by_link.setdefault(names.keypoint_links[k], k)
    edges: list[Edge] = []
    trunk: int | None = None
    for link in sorted(by_link):
        if trunk is not None:
            edges.append((trunk, by_link[link]))
        if "finger" not in names.links[link]:
            trunk = by_link[link]
    for k, link in enumerate(names.keypoint_links):
        if by_link and k not in by_link.values():
            before = [other for other in by_link if other <= link]
            edges.append((by_link[max(before) if before else min(by_link)], k))
    return tuple(edges)


def is_stub(names: Names, edge: Edge) -> bool:
    """Whether an edge only ties an off-axis keypoint to the chain."""
    return float(np.linalg.norm(names.keypoint_offsets_m[edge[1]])) >= ON_AXIS_M


def keypoint_colours(names: Names) -> Rgb:
    """(P, 3): yellow at the base to magenta at the tip, by link order."""
    order = np.asarray(names.keypoint_links, np.float64)
    span = max(float(np.ptp(order)) if order.size else 0.0, 1.0)
    unit = (order - (order.min() if order.size else 0)) / span
    return srgb_from_oklch(0.86 - 0.18 * unit, 0.17 + 0.06 * unit, 0.27 - 0.30 * unit)


def draw_keypoints(image: Rgb, keypoints_px: ArrayLike, state: ArrayLike, names: Names, scale: float = 1.0, labels: bool = False) -> Rgb:
    """Copy of ``image`` with the skeleton: seen keypoints filled, hidden ones hollow, those outside only as line ends.

    ``keypoints_px`` (P, 2) are pixels of the stored image, ``image`` is that image resized by ``scale``. Line widths
    follow the picture's width. Drawn at `SUPERSAMPLES` times the size and averaged down: smooth and sub-pixel exact.
    """
    points = (np.asarray(keypoints_px, np.float64) + 0.5) * scale - 0.5
    states, colours = np.asarray(state), keypoint_colours(names)
    unit = max(image.shape[1] / 640, 0.5)
    layer = Layer(image.shape[0], image.shape[1])
    drawable = np.isfinite(points).all(1) & (np.abs(np.nan_to_num(points)).max(1) < 8 * max(image.shape))
    edges = [e for e in skeleton_edges(names) if drawable[list(e)].all()]
    for a, b in edges:
        layer.line(points[a], points[b], (12, 12, 14), (2.0 if is_stub(names, (a, b)) else 4.2) * unit, 0.55)
    for a, b in edges:
        tone = ((colours[a].astype(int) + colours[b]) // 2).tolist()
        layer.line(points[a], points[b], tone, (1.0 if is_stub(names, (a, b)) else 2.2) * unit)
    for k in np.argsort(states, kind="stable"):  # seen ones last, on top
        if drawable[k] and states[k] != KEYPOINT_OUTSIDE:
            radius = (3.2 if is_stub(names, (0, int(k))) else 4.6) * unit
            layer.dot(points[k], colours[k].tolist(), radius, states[k] == KEYPOINT_VISIBLE)
    drawn = layer.over(image)
    return _with_labels(drawn, points, states, names.keypoints) if labels else drawn


class Layer:
    """A transparent picture to draw on, several times as large as the one it is laid over."""

    def __init__(self, height: int, width: int) -> None:
        self._colour = np.zeros((height * SUPERSAMPLES, width * SUPERSAMPLES, 3), np.uint8)
        self._alpha = np.zeros(self._colour.shape[:2], np.uint8)

    def line(self, a: NDArray, b: NDArray, colour: Sequence[int], width_px: float, alpha: float = 1.0) -> None:
        """A straight stroke between two pixels (x, y)."""
        import cv2

        thickness = max(1, round(width_px * SUPERSAMPLES))
        for target, value in self._targets(colour, alpha):
            cv2.line(target, _fixed(a), _fixed(b), value, thickness, cv2.LINE_8, SUBPIXEL_BITS)

    def dot(self, centre: NDArray, colour: Sequence[int], radius_px: float, filled: bool) -> None:
        """A disk with a white rim, or an open ring with a dark one."""
        outer = (255, 255, 255) if filled else (12, 12, 14)
        self._disk(centre, outer, radius_px * 1.12, 1.0)
        self._disk(centre, colour, radius_px * 0.8, 1.0)
        if not filled:
            self._disk(centre, (12, 12, 14), radius_px * 0.38, 0.55)

    def over(self, image: Rgb) -> Rgb:
        """``image`` with this layer on top."""
        import cv2

        size = (image.shape[1], image.shape[0])
        alpha = cv2.resize(self._alpha, size, interpolation=cv2.INTER_AREA) / 255.0
        weighted = (self._colour * (self._alpha / np.float32(255))[..., None]).astype(np.float32)
        colour = cv2.resize(weighted, size, interpolation=cv2.INTER_AREA)
        return np.round(image * (1 - alpha[..., None]) + colour).clip(0, 255).astype(np.uint8)

    def _disk(self, centre: NDArray, colour: Sequence[int], radius_px: float, alpha: float) -> None:
        import cv2

        radius = round(radius_px * SUPERSAMPLES * (1 << SUBPIXEL_BITS))
        for target, value in self._targets(colour, alpha):
            cv2.circle(target, _fixed(centre), radius, value, -1, cv2.LINE_8, SUBPIXEL_BITS)

    def _targets(self, colour: Sequence[int], alpha: float) -> tuple[tuple[NDArray, tuple], ...]:
        return (self._colour, tuple(colour)), (self._alpha, (round(alpha * 255),))


def state_counts(state: ArrayLike) -> dict[str, int]:
    """How many keypoints are visible, occluded, outside."""
    s = np.asarray(state)
    kinds = {"visible": KEYPOINT_VISIBLE, "occluded": KEYPOINT_OCCLUDED, "outside": KEYPOINT_OUTSIDE}
    return {name: int((s == value).sum()) for name, value in kinds.items()}


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    """Pixel (x, y) of the picture → OpenCV fixed-point coordinates of the large layer."""
    large = (point + 0.5) * SUPERSAMPLES - 0.5
    x, y = np.round(large * (1 << SUBPIXEL_BITS)).astype(int).tolist()
    return x, y


def _with_labels(image: Rgb, points: NDArray, states: NDArray, names: Sequence[str]) -> Rgb:
    from dataengine.view.typography import Text, draw_texts

    size = max(9, round(image.shape[1] / 55))
    texts = [
        Text(str(name), float(points[k][0]) + size * 0.6, float(points[k][1]) - size * 0.5, size, (255, 255, 255), "lm")
        for k, name in enumerate(names)
        if states[k] != KEYPOINT_OUTSIDE and np.isfinite(points[k]).all()
    ]
    return draw_texts(image, texts, halo=True)
