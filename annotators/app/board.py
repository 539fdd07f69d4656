"""The picture as a flat board in viser's scene: pixel ↔ scene, camera, clicks, residuals. Any viewpoint clicks exactly.

Scene axes: x right, y down, z away from the eye; the board lies in z = 0 and is centred; `PX` scene units are one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dataengine.view.palette import srgb_from_oklch

if TYPE_CHECKING:
    import viser

Array = np.ndarray
PX = 0.01
FIELD_RAD = 0.5
OVERLAY_Z, MARK_Z = -0.002, -0.004
"""Overlay and marks float this far before the board: too little to be seen from the side, enough to be drawn on top."""
SELECTED, WORST, BELIEVED = (255, 64, 160), (255, 72, 48), (90, 255, 140)
TARGET = (255, 214, 64)


@dataclass(frozen=True)
class Mark:
    """A click to draw: where, its label, its colour; `residual_px` towards the believed place, None before the first solve."""

    uv_px: tuple[float, float]
    text: str
    colour: tuple[int, int, int]
    residual_px: tuple[float, float] | None = None


class Board:
    """The picture, its overlay and its marks on one server."""

    def __init__(self, server: viser.ViserServer, size: tuple[int, int]) -> None:
        self.server, self.width, self.height = server, *size
        server.scene.set_up_direction("-y")
        blank = np.zeros((size[1], size[0], 3), np.uint8)
        wide, tall = self.width * PX, self.height * PX
        self.image = server.scene.add_image(
            "/board/image", blank, wide, tall, format="jpeg", jpeg_quality=95, cast_shadow=False, receive_shadow=False
        )
        clear, before = np.zeros((2, 2, 4), np.uint8), (0.0, 0.0, OVERLAY_Z)
        self.overlay = server.scene.add_image(
            "/board/overlay", clear, wide, tall, format="png", position=before, cast_shadow=False, receive_shadow=False
        )
        self._labels = 0
        position, look_at = self.eye(1.5)
        server.initial_camera.position, server.initial_camera.look_at = position, look_at
        server.initial_camera.fov = FIELD_RAD

    def scene(self, uv_px: Array, z: float = 0.0) -> Array:
        """Pixels (…, 2) → scene (…, 3)."""
        uv = np.asarray(uv_px, np.float64)
        flat = (uv - ((self.width - 1) / 2, (self.height - 1) / 2)) * PX
        return np.concatenate([flat, np.full((*flat.shape[:-1], 1), z)], -1)

    def pixel(self, origin: Array, direction: Array) -> tuple[float, float] | None:
        """Where a ray meets the board, in pixels; None outside the image."""
        origin, direction = np.asarray(origin, np.float64), np.asarray(direction, np.float64)
        if abs(direction[2]) < 1e-12 or -origin[2] / direction[2] <= 0:
            return None
        hit = (origin - direction * origin[2] / direction[2])[:2] / PX
        u, v = hit + ((self.width - 1) / 2, (self.height - 1) / 2)
        inside = -0.5 <= u <= self.width - 0.5 and -0.5 <= v <= self.height - 0.5
        return (float(u), float(v)) if inside else None

    def eye(self, aspect: float, uv_px: tuple[float, float] | None = None, zoom: float = 1.0) -> tuple[Array, Array]:
        """Position and target from which the board fills a window, or a ``zoom``-th of it around a pixel."""
        tall = max(self.height, self.width / max(aspect, 1e-3)) * PX * 1.03 / zoom
        target = np.zeros(3) if uv_px is None else self.scene(np.array(uv_px))
        return target - (0, 0, tall / 2 / np.tan(FIELD_RAD / 2)), target

    def show(self, client: Any, uv_px: tuple[float, float] | None = None, zoom: float = 1.0) -> None:
        """Turn a browser to the board."""
        position, target = self.eye(client.camera.aspect, uv_px, zoom)
        with client.atomic():
            client.camera.fov = FIELD_RAD
            client.camera.up_direction = (0.0, -1.0, 0.0)
            client.camera.position, client.camera.look_at = position, target

    def draw_marks(self, marks: Sequence[Mark], believed_px: Array) -> None:
        """Crosses at the clicks with names, lines to where the robot says they are, dots at all landmarks of the posed robot."""
        scene = self.server.scene
        self._crosses(marks)
        for index in range(max(self._labels, len(marks))):
            if index < len(marks):
                place = self.scene(np.array(marks[index].uv_px) + (5, -5), MARK_Z)
                scene.add_label(f"/board/label{index}", marks[index].text, position=place, anchor="bottom-left", font_screen_scale=0.8)
            else:
                scene.remove_by_name(f"/board/label{index}")
        self._labels = len(marks)
        known = believed_px[np.isfinite(believed_px).all(-1)] if len(believed_px) else np.zeros((0, 2))
        scene.add_point_cloud(
            "/board/believed", self.scene(known, MARK_Z).astype(np.float32), BELIEVED, point_size=1.2 * PX, point_shape="diamond",
            point_shading="flat", precision="float32",
        )  # fmt: skip

    def draw_target(self, uv_px: tuple[float, float] | None, reach_px: float = 14) -> None:
        """A square around the place to click next."""
        if uv_px is None:
            self.server.scene.remove_by_name("/board/target")
            return
        around = np.array(uv_px) + reach_px * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        self._lines("/board/target", np.stack([around, np.roll(around, -1, 0)], 1), TARGET)

    def _crosses(self, marks: Sequence[Mark]) -> None:
        """One node per click: viser shows colours per vertex paler than one colour for all."""
        for index in range(max(self._labels, len(marks))):
            name, error = f"/board/cross{index}", f"/board/residual{index}"
            mark = marks[index] if index < len(marks) else None
            if mark is None or mark.residual_px is None:
                self.server.scene.remove_by_name(error)
            if mark is None:
                self.server.scene.remove_by_name(name)
                continue
            uv = np.array(mark.uv_px)
            steps = np.array([(6.0, 0), (-6, 0), (0, 6), (0, -6)])
            self._lines(name, np.stack([uv + steps / 4, uv + steps], 1), mark.colour)
            if mark.residual_px is not None:
                self._lines(error, np.array([[uv, uv + mark.residual_px]]), WORST)

    def _lines(self, name: str, segments_px: Array, colour: tuple[int, int, int]) -> None:
        points = self.scene(segments_px, MARK_Z).astype(np.float32)
        self.server.scene.add_line_segments(name, points, colour, thickness=2.0, thickness_units="screen")


def landmark_colour(index: int) -> tuple[int, int, int]:
    """A bright colour per landmark, neighbours far apart in hue."""
    r, g, b = srgb_from_oklch(0.8, 0.14, 0.1 + 0.381966 * index)
    return int(r), int(g), int(b)
