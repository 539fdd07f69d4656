"""Pose covariances of a bundle adjustment in the gauge of all cameras together, and of single absolute poses.

Perturbation as in `annotators.types`: T_world_cam · exp([rho, phi]). Lengths in the model's units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import se3

Array = NDArray[np.float64]
TRIM = 3.0
_GAUGE_FREEDOM = 7  # rotation, translation, scale


def jacobians(K: Array, T_world_cam: Array, points: Array) -> tuple[Array, Array, Array]:
    """Projection (O, 2) of points (O, 3) seen from poses (O, 4, 4) and its derivatives by the pose (O, 2, 6) and the point (O, 2, 3).

    p_cam changes by −rho + p × phi under the right perturbation of T_world_cam.
    """
    T_cam_world = se3.inverse(T_world_cam)
    p = np.einsum("oij,oj->oi", T_cam_world[:, :3, :3], points) + T_cam_world[:, :3, 3]
    z = p[:, 2]
    by_cam = np.zeros((len(p), 2, 3))
    by_cam[:, 0, 0], by_cam[:, 0, 2] = K[0, 0] / z, -K[0, 0] * p[:, 0] / z**2
    by_cam[:, 1, 1], by_cam[:, 1, 2] = K[1, 1] / z, -K[1, 1] * p[:, 1] / z**2
    cross = np.zeros((len(p), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -z, p[:, 1], -p[:, 0]
    cross -= np.swapaxes(cross, -1, -2)
    by_pose = np.concatenate([-by_cam, by_cam @ cross], -1)
    uv = np.stack([K[0, 0] * p[:, 0] / z + K[0, 2], K[1, 1] * p[:, 1] / z + K[1, 2]], -1)
    return uv, by_pose, by_cam @ T_cam_world[:, :3, :3]


def bundle_covariance(
    K: Array, T_world_cam: Array, points: Array, obs_point: NDArray[np.int64], obs_frame: NDArray[np.int64], sigma_px: float
) -> tuple[Array, Array]:
    """Covariance (n, 6, 6) of each pose after points are marginalised, and the part of it that comes from the points (n, 6, 6).

    The seven free directions of the gauge are removed by the pseudo-inverse of the reduced normal matrix, that is: the mean of all
    cameras is held, not one of them (inner constraints; Triggs et al. 2000, section 9). Works in units of the median depth so that
    lengths and angles weigh alike, and returns to the model's units.
    """
    from scipy import linalg

    n = len(T_world_cam)
    T, scale = normalise_scale(T_world_cam, points, obs_point, obs_frame)
    _, A, B = jacobians(K, T[obs_frame], (points / scale)[obs_point])
    U = np.zeros((n, 6, 6))
    np.add.at(U, obs_frame, np.einsum("oki,okj->oij", A, A))
    coupled, whitened, _ = _through_points(A, B, obs_point, obs_frame)
    values, vectors = _without_gauge(linalg.block_diag(*U) - (whitened @ coupled.T).toarray())
    wide = vectors.reshape(n, 6, -1)
    total = np.einsum("nik,nk,njk->nij", wide, np.broadcast_to(1.0 / values, (n, len(values))), wide)
    structure = positive_part(total - np.linalg.inv(U + 1e-9 * np.trace(U, axis1=1, axis2=2)[:, None, None] * np.eye(6)))
    return _restore(total, scale, sigma_px), _restore(structure, scale, sigma_px)


def focal_correction(
    K: Array, T_world_cam: Array, points: Array, obs_point: NDArray[np.int64], obs_frame: NDArray[np.int64], uv_px: Array, sigma_px: float
) -> tuple[float, float]:
    """By how much the logarithm of the focal length should change for the pictures to fit best, and its standard deviation.

    One Gauss–Newton step of a bundle adjustment in which the focal length is free, from one that has converged with it held (a score
    test, Rao 1948), observations beyond `TRIM` times the mean error left out. The deviation counts all poses and points as unknown too.
    """
    from scipy import linalg

    n = len(T_world_cam)
    T, scale = normalise_scale(T_world_cam, points, obs_point, obs_frame)
    predicted, A, B = jacobians(K, T[obs_frame], (points / scale)[obs_point])
    r = predicted - uv_px
    length = np.linalg.norm(r, axis=1)
    good = (length < TRIM * max(float(length.mean()), 0.1)).astype(float)
    F, r = (predicted - K[:2, 2]) * good[:, None], r * good[:, None]
    A, B = A * good[:, None, None], B * good[:, None, None]
    U, by_focal, gradient = np.zeros((n, 6, 6)), np.zeros((n, 6)), np.zeros((n, 6))
    np.add.at(U, obs_frame, np.einsum("oki,okj->oij", A, A))
    np.add.at(by_focal, obs_frame, np.einsum("oki,ok->oi", A, F))
    np.add.at(gradient, obs_frame, np.einsum("oki,ok->oi", A, r))
    coupled, whitened, V_inverse = _through_points(A, B, obs_point, obs_frame)
    focal_point, point_gradient = np.zeros((len(points), 3)), np.zeros((len(points), 3))
    np.add.at(focal_point, obs_point, np.einsum("oki,ok->oi", B, F))
    np.add.at(point_gradient, obs_point, np.einsum("oki,ok->oi", B, r))
    across = np.einsum("pij,pj->pi", V_inverse, focal_point)
    values, vectors = _without_gauge(linalg.block_diag(*U) - (whitened @ coupled.T).toarray())
    cross = (by_focal.ravel() - whitened @ focal_point.ravel()) @ vectors
    pose = (gradient.ravel() - whitened @ point_gradient.ravel()) @ vectors
    curvature = np.sum(F**2) - np.sum(focal_point * across) - np.sum(cross**2 / values)
    slope = np.sum(F * r) - np.sum(across * point_gradient) - np.sum(cross * pose / values)
    return float(-slope / curvature), float(sigma_px / np.sqrt(curvature))


def _through_points(A: Array, B: Array, obs_point: NDArray[np.int64], obs_frame: NDArray[np.int64]) -> tuple[Any, Any, Array]:
    """Coupling W of poses and points (6n, 3m, sparse), W V⁻¹, and V⁻¹ (m, 3, 3) of the points' own normal matrices."""
    from scipy import sparse

    n, m = int(obs_frame.max()) + 1, int(obs_point.max()) + 1
    V = np.zeros((m, 3, 3))
    np.add.at(V, obs_point, np.einsum("oki,okj->oij", B, B))
    # The second term is for points that nothing is left of: their rows of W are zero.
    V_inverse = np.linalg.inv(V + (1e-9 * np.trace(V, axis1=1, axis2=2)[:, None, None] + 1e-12) * np.eye(3))
    W = np.einsum("oki,okj->oij", A, B)
    rows = np.broadcast_to(obs_frame[:, None, None] * 6 + np.arange(6)[:, None], W.shape).ravel()
    columns = np.broadcast_to(obs_point[:, None, None] * 3 + np.arange(3), W.shape).ravel()
    whitened = np.einsum("oij,ojk->oik", W, V_inverse[obs_point])
    coupled, scaled = (sparse.csr_matrix((x.ravel(), (rows, columns)), (6 * n, 3 * m)) for x in (W, whitened))
    return coupled, scaled, V_inverse


def _without_gauge(reduced: Array) -> tuple[Array, Array]:
    """Eigenvalues and vectors of a reduced normal matrix without its seven free directions."""
    from scipy import linalg

    values, vectors = linalg.eigh((reduced + reduced.T) / 2)
    return np.maximum(values[_GAUGE_FREEDOM:], 1e-9 * values[-1]), vectors[:, _GAUGE_FREEDOM:]


def pose_covariance(K: Array, T_world_cam: Array, points: Array, sigma_px: float) -> Array:
    """Covariance (6, 6) of one pose that sees exact `points` (n, 3), world frame, with `sigma_px` noise."""
    _, A, _ = jacobians(K, np.broadcast_to(T_world_cam, (len(points), 4, 4)), points)
    return np.asarray(np.linalg.inv(np.einsum("oki,okj->ij", A, A)) * sigma_px**2, float)


def residual_sigma_px(residuals_px: Array, parameters: int) -> float:
    """Noise of one image coordinate from residuals (O, 2), corrected for the number of fitted parameters; robust to a tail of outliers.

    Scaled median absolute deviation and root mean square are both taken, the larger counts.
    """
    spare = max(residuals_px.size - parameters, 1) / max(residuals_px.size, 1)
    robust = 1.4826 * float(np.median(np.abs(residuals_px)))
    return max(robust, float(np.sqrt(np.mean(residuals_px**2)))) / np.sqrt(spare)


def correlation_in_tracks(residuals_px: Array, obs_point: NDArray[np.int64], obs_pose: NDArray[np.int64], lags: int = 6) -> float:
    """Factor (≥ 1) by which errors that last from picture to picture of one track raise variances: 1 + 2 Σ of their autocorrelation.

    Residuals of a fitted point sum to zero, so independent errors would show −1 / (n − 1) for a track of n: that is taken out.
    """
    order = np.lexsort((obs_pose, obs_point))
    r, point = residuals_px[order], obs_point[order]
    length = np.bincount(point)[point]
    total = 0.0
    for lag in range(1, lags + 1):
        same = point[lag:] == point[:-lag]
        if same.sum() < 100:
            break
        found = float((r[lag:] * r[:-lag]).sum(1)[same].mean()) / (2.0 * float(np.mean(r**2)))
        total += max(0.0, found + float(np.mean(1.0 / (length[lag:][same] - 1))))
    return 1.0 + 2.0 * total


def correlation_in_pictures(residuals_px: Array, obs_pose: NDArray[np.int64], obs_uv_px: Array, reach_px: float) -> float:
    """Factor (≥ 1) by which errors that neighbours within `reach_px` share (lens distortion, rolling shutter) raise variances."""
    from scipy.spatial import KDTree

    poses = np.unique(obs_pose)
    shared = own = 0.0
    for pose in poses[np.linspace(0, len(poses) - 1, min(12, len(poses))).astype(int)]:
        here = np.flatnonzero(obs_pose == pose)
        pairs = KDTree(obs_uv_px[here]).query_pairs(reach_px, output_type="ndarray")
        apart = np.linalg.norm(obs_uv_px[here][pairs[:, 0]] - obs_uv_px[here][pairs[:, 1]], axis=1) > 0.5  # one place, two orientations
        i, j = here[pairs[apart]].T
        shared += 2.0 * float((residuals_px[i] * residuals_px[j]).sum())
        own += float((residuals_px[here] ** 2).sum())
    return max(1.0, 1.0 + shared / max(own, 1e-30))


def normalise_scale(T_world_cam: Array, points: Array, obs_point: NDArray[np.int64], obs_frame: NDArray[np.int64]) -> tuple[Array, float]:
    """Poses in units of the median depth of the observations, and that depth."""
    away = points[obs_point] - T_world_cam[obs_frame, :3, 3]
    depth = np.einsum("oi,oi->o", away, T_world_cam[obs_frame, :3, 2])
    scale = float(np.median(depth))
    T = T_world_cam.copy()
    T[:, :3, 3] /= scale
    return T, scale


def positive_part(matrices: Array) -> Array:
    """Nearest positive semi-definite matrices (…, n, n)."""
    values, vectors = np.linalg.eigh((matrices + np.swapaxes(matrices, -1, -2)) / 2)
    return np.asarray((vectors * np.maximum(values, 0.0)[..., None, :]) @ np.swapaxes(vectors, -1, -2), float)


def _restore(covariance: Array, scale: float, sigma_px: float) -> Array:
    unit = np.diag([scale] * 3 + [1.0] * 3)
    return np.asarray(sigma_px**2 * unit @ covariance @ unit, float)
