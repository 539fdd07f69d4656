"""Pinhole cameras, OpenCV frame (x right, y down, z forward), pixel centres at integer coordinates.

Blender's and COLMAP's conventions are converted here, each in exactly one function.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


def intrinsics(fx_px: float, fy_px: float, cx_px: float, cy_px: float) -> Matrix:
    """K (3,3) of a pinhole camera."""
    return np.array([[fx_px, 0.0, cx_px], [0.0, fy_px, cy_px], [0.0, 0.0, 1.0]])


def intrinsics_from_fov(width: int, height: int, horizontal_fov_rad: float) -> Matrix:
    """K (3,3) with square pixels and the principal point in the image centre ((w−1)/2, (h−1)/2)."""
    f = 0.5 * width / np.tan(0.5 * horizontal_fov_rad)
    return intrinsics(f, f, (width - 1) / 2, (height - 1) / 2)


def resize_intrinsics(K: ArrayLike, scale_x: float, scale_y: float) -> Matrix:
    """K of the image resized by (scale_x, scale_y): c' = (c + 0.5)·s − 0.5 since pixel centres are integers."""
    K = np.array(K, float)
    K[0, 0] *= scale_x
    K[0, 1] *= scale_x
    K[1, 1] *= scale_y
    K[0, 2] = (K[0, 2] + 0.5) * scale_x - 0.5
    K[1, 2] = (K[1, 2] + 0.5) * scale_y - 0.5
    return K


def crop_intrinsics(K: ArrayLike, left_px: float, top_px: float) -> Matrix:
    """K of the crop whose first pixel is (left_px, top_px) of the original image."""
    K = np.array(K, float)
    K[0, 2] -= left_px
    K[1, 2] -= top_px
    return K


def project(K: ArrayLike, points_cam_m: ArrayLike) -> Matrix:
    """Points (…,3) in the camera frame → pixels (…,2). Points with z ≤ 0 give nan."""
    K, p = np.asarray(K, float), np.asarray(points_cam_m, float)
    z = np.where(p[..., 2:] > 0, p[..., 2:], np.nan)
    uv = p[..., :2] / z
    u = K[0, 0] * uv[..., 0] + K[0, 1] * uv[..., 1] + K[0, 2]
    v = K[1, 1] * uv[..., 1] + K[1, 2]
    return np.stack([u, v], -1)


def in_image(uv_px: ArrayLike, width: int, height: int) -> NDArray[np.bool_]:
    """True for pixels (…,2) inside the image area, whose borders lie at −0.5 and size − 0.5. nan is outside."""
    uv = np.asarray(uv_px, float)
    with np.errstate(invalid="ignore"):
        return ((uv >= -0.5) & (uv < np.array([width, height]) - 0.5)).all(-1)


def backproject(K: ArrayLike, depth_z_m: ArrayLike) -> Matrix:
    """Depth image (H,W) → camera-frame points (H,W,3); depth 0 gives the origin."""
    K, z = np.asarray(K, float), np.asarray(depth_z_m, float)
    v, u = np.mgrid[0 : z.shape[0], 0 : z.shape[1]]
    y = (v - K[1, 2]) / K[1, 1]
    x = (u - K[0, 2] - K[0, 1] * y) / K[0, 0]
    return np.stack([x * z, y * z, z], -1)


def depth_from_disparity(disparity_px: ArrayLike, focal_px: float, baseline_m: float) -> Matrix:
    """z = f·b/d; disparity ≤ 0 or nan gives depth 0 (none)."""
    d = np.asarray(disparity_px, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(d > 0, focal_px * baseline_m / d, 0.0), float)


def disparity_from_depth(depth_z_m: ArrayLike, focal_px: float, baseline_m: float) -> Matrix:
    """d = f·b/z; depth ≤ 0 gives nan."""
    z = np.asarray(depth_z_m, float)
    return np.asarray(np.where(z > 0, focal_px * baseline_m / np.where(z > 0, z, 1.0), np.nan), float)


_BLENDER_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])  # Blender cameras look along −z with y up


def blender_camera_matrix(T_world_cam: ArrayLike) -> Matrix:
    """`matrix_world` (4,4) of a Blender camera object for an OpenCV `T_world_cam`."""
    return np.asarray(np.asarray(T_world_cam, float) @ _BLENDER_FROM_OPENCV, float)


def blender_lens(K: ArrayLike, width: int, height: int) -> dict[str, float]:
    """Blender camera parameters for K: lens_mm on a 36 mm HORIZONTAL sensor, shift_x, shift_y, pixel_aspect_y/x.

    Blender's image centre lies between the middle pixels, at ((w−1)/2, (h−1)/2) in our pixel-centre coordinates;
    shifts are in units of the larger (here: forced horizontal) sensor side, shift_y positive upwards.
    """
    K = np.asarray(K, float)
    sensor_mm = 36.0
    aspect = K[0, 0] / K[1, 1]  # a pixel's height in units of its width
    return {
        "lens_mm": float(K[0, 0] * sensor_mm / width),
        "sensor_width_mm": sensor_mm,
        "shift_x": float(((width - 1) / 2 - K[0, 2]) / width),
        "shift_y": float((K[1, 2] - (height - 1) / 2) * aspect / width),
        "pixel_aspect_x": 1.0 if aspect >= 1 else float(1 / aspect),
        "pixel_aspect_y": float(aspect) if aspect >= 1 else 1.0,
    }


def intrinsics_from_colmap(K: ArrayLike) -> Matrix:
    """COLMAP puts the first pixel's centre at (0.5, 0.5); ours lies at (0, 0)."""
    return crop_intrinsics(K, 0.5, 0.5)


def intrinsics_to_colmap(K: ArrayLike) -> Matrix:
    """Inverse of `intrinsics_from_colmap`."""
    return crop_intrinsics(K, -0.5, -0.5)
