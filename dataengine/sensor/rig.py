"""Geometry of a rectified active-stereo camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import SensorError
from dataengine.geometry.camera import resize_intrinsics


@dataclass(frozen=True, eq=False)
class StereoRig:
    """Two infrared eyes and a dot projector on one line.

    The left eye is the colour camera (same frame, same K); the right eye is ``baseline_m`` along its +x,
    the projector ``projector_x_m``. All three look along +z, rows are epipolar lines.

    K: (3, 3) of the output image, skew 0, pixel centres at integers. width, height: output size.
    native_scale: the infrared images are this many times larger than the output.
    """

    K: NDArray[np.float64]
    width: int
    height: int
    baseline_m: float = 0.055
    projector_x_m: float = 0.029
    native_scale: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", checked_intrinsics(self.K))
        if self.width < 16 or self.height < 16:
            raise SensorError(f"output size {self.width}x{self.height} px is too small to match; use at least 16x16")
        if not (np.isfinite(self.baseline_m) and self.baseline_m > 0):
            raise SensorError(f"baseline_m is {self.baseline_m}; it must be a positive distance in metres")
        if not np.isfinite(self.projector_x_m):
            raise SensorError(f"projector_x_m is {self.projector_x_m}; give a finite distance in metres")
        if self.native_scale not in (1, 2, 3, 4):
            raise SensorError(f"native_scale is {self.native_scale}; allowed are 1, 2, 3 and 4")

    @property
    def native_width(self) -> int:
        return self.width * self.native_scale

    @property
    def native_height(self) -> int:
        return self.height * self.native_scale

    @property
    def native_K(self) -> NDArray[np.float64]:
        """K (3, 3) of the infrared images."""
        return resize_intrinsics(self.K, self.native_scale, self.native_scale)

    @property
    def native_focal_px(self) -> float:
        """Horizontal focal length of the infrared images."""
        return float(self.K[0, 0] * self.native_scale)

    @property
    def disparity_of_1m_px(self) -> float:
        """f·b: native disparity (px) of a point at z = 1 m; disparity = this / z."""
        return self.native_focal_px * self.baseline_m


def checked_intrinsics(K: ArrayLike) -> NDArray[np.float64]:
    """K as (3, 3) float64, or a SensorError: a rectified camera has positive focal lengths and no skew."""
    matrix = np.array(K, np.float64, order="C")
    if matrix.shape != (3, 3):
        raise SensorError(f"K has shape {matrix.shape}; it must be a 3x3 matrix of pixel intrinsics")
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise SensorError(f"K has focal lengths {matrix[0, 0]}, {matrix[1, 1]} px; they must be positive and finite")
    if matrix[0, 1] != 0:
        raise SensorError(f"K has skew {matrix[0, 1]}; rectify the camera, sensors need skew 0")
    return matrix
