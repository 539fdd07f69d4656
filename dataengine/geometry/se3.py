"""Rigid transforms as 4×4 float64 matrices: `p_a = T_a_b @ p_b`. All functions broadcast over leading axes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


def make(rotation: ArrayLike, translation_m: ArrayLike) -> Matrix:
    """(…,3,3) rotation and (…,3) translation → (…,4,4)."""
    r, t = np.asarray(rotation, float), np.asarray(translation_m, float)
    shape = np.broadcast_shapes(r.shape[:-2], t.shape[:-1])
    out = np.zeros((*shape, 4, 4))
    out[..., :3, :3], out[..., :3, 3], out[..., 3, 3] = r, t, 1.0
    return out


def inverse(T: ArrayLike) -> Matrix:
    """Inverse of rigid transforms (…,4,4): (Rᵀ, −Rᵀt)."""
    T = np.asarray(T, float)
    Rt = np.swapaxes(T[..., :3, :3], -1, -2)
    return make(Rt, -np.einsum("...ij,...j->...i", Rt, T[..., :3, 3]))


def transform(T: ArrayLike, points_m: ArrayLike) -> Matrix:
    """Apply one transform (…,4,4) to points (…,N,3)."""
    T, p = np.asarray(T, float), np.asarray(points_m, float)
    return np.asarray(p @ np.swapaxes(T[..., :3, :3], -1, -2) + T[..., None, :3, 3], float)


def rotation_from_axis_angle(axis: ArrayLike, angle_rad: ArrayLike) -> Matrix:
    """Rodrigues: unit axis (…,3), angle (…) → (…,3,3)."""
    a, th = np.asarray(axis, float), np.asarray(angle_rad, float)
    x, y, z = a[..., 0], a[..., 1], a[..., 2]
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*a.shape[:-1], 3, 3)
    s, c = np.sin(th)[..., None, None], np.cos(th)[..., None, None]
    return np.eye(3) + s * k + (1 - c) * (k @ k)


def rotation_from_rpy(rpy_rad: ArrayLike) -> Matrix:
    """URDF roll, pitch, yaw (…,3) about fixed x, y, z: R = Rz(yaw) Ry(pitch) Rx(roll) → (…,3,3)."""
    rpy = np.asarray(rpy_rad, float)
    rx, ry, rz = (rotation_from_axis_angle(np.eye(3)[i], rpy[..., i]) for i in range(3))
    return rz @ ry @ rx


def quaternion_wxyz(R: ArrayLike) -> Matrix:
    """Rotation (…,3,3) → unit quaternion (…,4), w ≥ 0. Largest component first (Shepperd 1978), so it never divides by ~0."""
    R = np.asarray(R, float)
    d = np.einsum("...ii->...i", R)
    trace = d.sum(-1)
    # four times the square of each component: w, x, y, z
    four_sq = np.stack([1 + trace, *(1 - trace + 2 * d[..., i] for i in range(3))], -1)
    best = four_sq.argmax(-1)
    a = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    s = R + np.swapaxes(R, -1, -2)
    rows = np.zeros((*R.shape[:-2], 4, 4))
    rows[..., 0, 0], rows[..., 0, 1:], rows[..., 1:, 0] = four_sq[..., 0], a, a
    for i in range(3):
        for j in range(3):
            rows[..., i + 1, j + 1] = four_sq[..., i + 1] if i == j else s[..., i, j]
    q = np.take_along_axis(rows, best[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def rotation_from_quaternion(q_wxyz: ArrayLike) -> Matrix:
    """Quaternion (…,4), normalised here → (…,3,3)."""
    q = np.asarray(q_wxyz, float)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return np.stack(rows, -1).reshape(*q.shape[:-1], 3, 3)


def look_at(eye_m: ArrayLike, target_m: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0), roll_rad: float = 0.0) -> Matrix:
    """`T_world_cam` (4,4) of an OpenCV camera (x right, y down, z forward) at `eye_m` looking at `target_m`.

    Raises ValueError when the view direction is parallel to `up`.
    """
    eye, target = np.asarray(eye_m, float), np.asarray(target_m, float)
    z = target - eye
    z = z / np.linalg.norm(z)
    x = np.cross(z, np.asarray(up, float))
    if np.linalg.norm(x) < 1e-9:
        raise ValueError("look_at: the view direction is parallel to the up vector")
    x = x / np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z], -1) @ rotation_from_axis_angle((0.0, 0.0, 1.0), roll_rad)
    return make(R, eye)


def is_rigid(T: ArrayLike, tolerance: float = 1e-6) -> bool:
    """True when every (…,4,4) has an orthonormal right-handed rotation and the bottom row 0 0 0 1."""
    T = np.asarray(T, float)
    R = T[..., :3, :3]
    return bool(
        np.isfinite(T).all()
        and np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max(initial=0.0) < tolerance
        and (np.linalg.det(R) > 0).all()
        and np.abs(T[..., 3, :] - (0, 0, 0, 1)).max(initial=0.0) < tolerance
    )
