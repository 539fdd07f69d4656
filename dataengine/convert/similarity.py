"""Poses from corresponding points: what NOCS-style sets leave to their users."""

import numpy as np

from dataengine.convert.disk import Array

MIN_POINTS = 12
ROUNDS = 6
KEEP_WITHIN = 2.5
"""Points farther off than so many times the median residual are left out of the next round: depth edges, mislabelled pixels."""


def fit_similarity(source: Array, target_m: Array) -> tuple[float, Array, Array] | None:
    """Scale s, rotation R (3,3), translation t (3,) with target ≈ s·R·source + t; None where the points do not determine it.

    Least squares after Umeyama (PAMI 1991), repeated on the points with small residuals.
    """
    keep = np.ones(len(source), bool)
    fitted = None
    for _ in range(ROUNDS):
        if keep.sum() < MIN_POINTS:
            return None
        fitted = _umeyama(source[keep], target_m[keep])
        if fitted is None:
            return None
        s, R, t = fitted
        residual = np.linalg.norm(s * source @ R.T + t - target_m, axis=1)
        again = residual <= KEEP_WITHIN * np.median(residual[keep]) + 1e-12
        if np.array_equal(again, keep):
            break
        keep = again
    return fitted


def _umeyama(a: Array, b: Array) -> tuple[float, Array, Array] | None:
    mean_a, mean_b = a.mean(0), b.mean(0)
    U, D, Vt = np.linalg.svd((b - mean_b).T @ (a - mean_a) / len(a))
    if D[1] <= 1e-9 * D[0]:  # all on a line or in one point
        return None
    S = np.diag([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = U @ S @ Vt
    s = float((D * np.diag(S)).sum() / ((a - mean_a) ** 2).sum(1).mean())
    return s, R, mean_b - s * R @ mean_a
