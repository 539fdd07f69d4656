"""What one render of a video gives, before any sensor effect: plain arrays, no Blender types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TABLE_ID = 255
"""Value of the table in `object_id`."""
ROOM_ID = 254
"""Value of the room (walls, floor, ceiling) in `object_id`."""


@dataclass(frozen=True, eq=False)
class RawPasses:
    """F frames of H×W pixels. Labels belong to the pixel centre and to the middle of the exposure.

    rgb_linear: (F,H,W,3) float32, scene-linear Rec.709, denoised, exposure NOT applied.
    depth_z_m: (F,H,W) float32, planar depth, 0 = nothing hit.
    normal_cam: (F,H,W,3) float32, unit shading normal in the OpenCV camera frame, 0 0 0 = nothing hit. With more than one
        sample it is the normalised mean over the pixel, so pixels on an edge hold a blend of both sides.
    link_id: (F,H,W) uint8, link index + 1, 0 = not the robot.
    object_id: (F,H,W) uint8, instance id, 255 table, 254 room, 0 none or robot.
    ir_left, ir_right: (F,h,w) uint8 at the sensor's native size, only when the scene asks for path-traced infrared.
    cpu_s: CPU seconds of this process by stage.
    """

    rgb_linear: NDArray[np.float32]
    depth_z_m: NDArray[np.float32]
    normal_cam: NDArray[np.float32]
    link_id: NDArray[np.uint8]
    object_id: NDArray[np.uint8]
    ir_left: NDArray[np.uint8] | None = None
    ir_right: NDArray[np.uint8] | None = None
    cpu_s: Mapping[str, float] = field(default_factory=dict)
