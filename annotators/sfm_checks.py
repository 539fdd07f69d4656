"""Is this capture one that structure from motion can solve? Numbers measured on features, matches and model, each with its limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_FEATURES = 80
MIN_MATCHES = 30
MIN_PARALLAX_PX = 1.0
"""Three times the noise of matching: below, the camera may only have turned. How good a baseline is, is for the angles to say."""
MIN_ANGLE_DEG = 2.0
MIN_POSED_SHARE = 0.5
MIN_VIEWS = 3
MIN_TRACKED = 200
FOCAL_CHANGE, SIGNIFICANT = 0.01, 4.0


def rotation_residual_px(rays_1: Array, rays_2: Array, focal_px: float) -> float:
    """Median distance between matched rays (n, 3) after the best pure rotation, in pixels of the given focal length.

    It is the parallax a pair carries: near the noise of matching (< 1 px) when the camera only turned, whatever the scene's shape.
    Robust Kabsch by iterative reweighting (Cauchy weights).
    """
    a, b = rays_1 / np.linalg.norm(rays_1, axis=1, keepdims=True), rays_2 / np.linalg.norm(rays_2, axis=1, keepdims=True)
    weight = np.ones(len(a))
    residual = np.zeros(len(a))
    for _ in range(10):
        u, _, vt = np.linalg.svd((a * weight[:, None]).T @ b)
        turn = vt.T @ np.diag([1.0, 1.0, np.linalg.det(vt.T @ u.T)]) @ u.T
        residual = np.linalg.norm(a @ turn.T - b, axis=1) * focal_px
        weight = 1.0 / (1.0 + (residual / max(float(np.median(residual)), 0.5)) ** 2)
    return float(np.median(residual))


def triangulation_angles_deg(T_world_cam: Array, points: Array, obs_point: NDArray, obs_frame: NDArray, limit: int = 1500) -> Array:
    """Largest angle between two rays of each point, degrees, for at most `limit` points evenly taken."""
    order = np.argsort(obs_point, kind="stable")
    ids, start = np.unique(obs_point[order], return_index=True)
    groups = np.split(obs_frame[order], start[1:])
    chosen = np.linspace(0, len(ids) - 1, min(limit, len(ids))).astype(int) if len(ids) else []
    angles = []
    for k in chosen:
        rays = T_world_cam[groups[k], :3, 3] - points[ids[k]]
        rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        angles.append(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1.0, 1.0))))
    return np.asarray(angles, float)


def refuse_features(features: NDArray[np.int64], matches: NDArray[np.int64]) -> str | None:
    """Too little texture? `features` per keyframe, `matches` = verified matches of each pair of neighbouring keyframes."""
    seen = float(np.median(features))
    if seen < MIN_FEATURES:
        return (
            f"too little texture: {seen:.0f} features in the median keyframe, at least {MIN_FEATURES} needed; "
            "add posters or objects to the scene, or more light"
        )
    linked = float(np.median(matches)) if len(matches) else 0.0
    if linked < MIN_MATCHES:
        return (
            f"too little texture in common: {linked:.0f} matches between the median pair of neighbouring keyframes, at least {MIN_MATCHES} "
            "needed; move slower, or add texture that does not repeat"
        )
    return None


def refuse_parallax(parallax_px: NDArray[np.float64], turned_deg: float) -> str | None:
    """Did the camera only turn? `parallax_px` = `rotation_residual_px` of each pair; the pair with most parallax decides."""
    best = float(np.max(parallax_px)) if len(parallax_px) else 0.0
    if best >= MIN_PARALLAX_PX:
        return None
    what = f"a rotation of {turned_deg:.0f} degrees alone" if turned_deg > 1.0 else "no motion at all"
    advice = "move the camera sideways" if turned_deg > 1.0 else "name the frames as static, or move the camera"
    return (
        f"rotation only: {what} explains the matches of every pair to {best:.2f} px, "
        f"at least {MIN_PARALLAX_PX} px of parallax needed; {advice}"
    )


def refuse_model(posed: int, keyframes: int, angles_deg: Array, parallax_px: float) -> str | None:
    """Did the mapper explain enough keyframes, from far enough apart?"""
    least = max(MIN_VIEWS, int(np.ceil(MIN_POSED_SHARE * keyframes)))
    if posed < least:
        return (
            f"only {posed} of {keyframes} keyframes could be posed, at least {least} needed "
            f"(largest parallax {parallax_px:.1f} px); move slower and sideways, over a textured scene"
        )
    angle = float(np.median(angles_deg)) if len(angles_deg) else 0.0
    if angle < MIN_ANGLE_DEG:
        return (
            f"baseline too small: points are seen from directions {angle:.2f} degrees apart (median), at least {MIN_ANGLE_DEG} needed; "
            "move the camera sideways by a tenth of the distance to the scene or more"
        )
    return None


def weak_texture(tracked: NDArray[np.int64]) -> str | None:
    """Do the poses hang on few points? `tracked` = points seen in each posed view.

    Rendered rooms and the real captures show 300 and more; below the limit what little is seen lies mostly on the robot itself.
    """
    seen = float(np.median(tracked)) if len(tracked) else 0.0
    if seen >= MIN_TRACKED:
        return None
    return (
        f"little texture: the median frame is posed by {seen:.0f} points, {MIN_TRACKED} would be sound; check the poses, "
        "add posters or objects to the scene, or more light"
    )


def wrong_focal(log_change: float, sigma: float, focal_px: float) -> str | None:
    """Do the pictures ask for another focal length? `log_change` ± `sigma`: see `sfm_covariance.focal_correction`."""
    if abs(log_change) < max(FOCAL_CHANGE, SIGNIFICANT * sigma):
        return None
    return (
        f"the pictures fit a focal length {100 * np.expm1(log_change):+.1f} % (± {100 * sigma:.1f} %) from the given {focal_px:.1f} px; "
        "is K of this camera, zoom and resolution, and is the lens's distortion given?"
    )


def rotation_angle_deg(R: Array) -> Array:
    """Angle of rotations (…, 3, 3), degrees, accurate near zero."""
    skew = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    return np.degrees(np.arctan2(np.linalg.norm(skew, axis=-1), np.trace(R, axis1=-2, axis2=-1) - 1.0))


def similarity(source: Array, target: Array) -> tuple[float, Array, Array]:
    """Scale s, rotation R, translation t with s·R·source + t ≈ target (n, 3), least squares (Umeyama 1991)."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    a, b = source - mean_s, target - mean_t
    u, d, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    R = u @ np.diag(sign) @ vt
    s = float((d * sign).sum() / max((a**2).sum(), 1e-30))
    return s, R, mean_t - s * R @ mean_s


def disagreement(first: Array, second: Array) -> dict[str, float]:
    """How far two sets of poses (n, 4, 4) of the same frames differ after a similarity fit: `translation_share` = median distance of
    camera centres over the length of the first's path, `rotation_deg` = median angle. Rotations align through the median relative turn."""
    if len(first) < 3:
        return {"translation_share": float("nan"), "rotation_deg": float("nan")}
    s, R, t = similarity(second[:, :3, 3], first[:, :3, 3])
    apart = np.linalg.norm(s * second[:, :3, 3] @ R.T + t - first[:, :3, 3], axis=1)
    path = np.linalg.norm(np.diff(first[:, :3, 3], axis=0), axis=1).sum()
    turn = first[:, :3, :3] @ np.swapaxes(second[:, :3, :3], -1, -2)
    u, _, vt = np.linalg.svd(turn.sum(0))
    mean = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return {
        "translation_share": float(np.median(apart) / max(path, 1e-30)),
        "rotation_deg": float(np.median(rotation_angle_deg(np.swapaxes(turn, -1, -2) @ mean))),
    }
