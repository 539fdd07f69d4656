"""Metres per unit of structure from motion, from sources that know nothing of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from annotators.motion_mask import gray
from annotators.types import Array, CameraTrack, Capture, Flag, ScaleEstimate
from dataengine.geometry import camera, se3

MAX_FRAMES = 24
TAG_DICTIONARIES = {
    "apriltag_36h11": "DICT_APRILTAG_36H11",
    "apriltag_25h9": "DICT_APRILTAG_25H9",
    "apriltag_16h5": "DICT_APRILTAG_16H5",
    "aruco_4x4": "DICT_4X4_250",
    "aruco_5x5": "DICT_5X5_250",
    "aruco_6x6": "DICT_6X6_250",
    "aruco_original": "DICT_ARUCO_ORIGINAL",
}
"""Families of square tags by their names in a capture's YAML."""
TAG_VIEWS = 4
TAG_ERROR_PX = 2.0
"""A corner whose rays miss each other by more is of a tag that moved, or of two tags with one number."""


def depth_scale(capture: Capture, track: CameraTrack) -> ScaleEstimate | None:
    """Median of measured over reconstructed depth at the points that structure from motion sees.

    Both are depths along the optical axis; dividing by the length of the ray instead is wrong by the cosine of its angle (several percent).
    The standard deviation is that of the mean over frames, whose errors are the correlated part, and not below 0.15 %: no calibrated sensor
    is better.
    """
    if capture.depth_z_m is None or not len(track.obs_point):
        return None
    frames = np.unique(track.obs_frame)
    frames = frames[track.posed[frames]]
    chosen = frames[np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames))).astype(int)] if len(frames) else frames
    per_frame = [ratio for ratio in (_depth_ratio(capture, track, int(frame)) for frame in chosen) if ratio is not None]
    if len(per_frame) < 2:
        return None
    ratios = np.array(per_frame)
    scale = float(np.median(ratios))
    spread = 1.4826 * float(np.median(np.abs(ratios / scale - 1)))
    return ScaleEstimate("depth", scale, scale * max(1.25 * spread / np.sqrt(len(ratios)), 1.5e-3))


def _depth_ratio(capture: Capture, track: CameraTrack, frame: int) -> float | None:
    assert capture.depth_z_m is not None
    mine = track.obs_frame == frame
    uv = np.rint(track.obs_uv_px[mine]).astype(int)
    z = se3.transform(se3.inverse(track.T_world_cam[frame]), track.points[track.obs_point[mine]])[:, 2]
    depth = capture.depth_z_m(frame)
    inside = (uv[:, 0] > 0) & (uv[:, 1] > 0) & (uv[:, 0] < depth.shape[1] - 1) & (uv[:, 1] < depth.shape[0] - 1) & (z > 0)
    uv, z = uv[inside], z[inside]
    window = np.stack([depth[uv[:, 1] + dy, uv[:, 0] + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    # A point on an edge has depth of two surfaces around it: only flat neighbourhoods tell the scale.
    flat = (window.min(axis=0) > 0) & (np.ptp(window, axis=0) < 0.02 * np.maximum(window[4], 0.1))
    if flat.sum() < 12:
        return None
    return float(np.median(window[4][flat] / z[flat]))


def fuse(estimates: Sequence[ScaleEstimate]) -> tuple[ScaleEstimate, tuple[Flag, ...]]:
    """Inverse-variance mean of independent estimates (in logarithm) and a flag for every pair that disagrees.

    A pair disagrees by more than 1 % and by more than three of its standard deviations.
    """
    logs = np.array([np.log(e.metres_per_unit) for e in estimates])
    weights = np.array([(e.metres_per_unit / e.sigma) ** 2 for e in estimates])
    mean = float(np.exp(np.sum(weights * logs) / weights.sum()))
    flags = []
    for i, a in enumerate(estimates):
        for b in estimates[i + 1 :]:
            gap = float(np.log(a.metres_per_unit / b.metres_per_unit))
            sigma = np.hypot(a.sigma / a.metres_per_unit, b.sigma / b.metres_per_unit)
            if abs(gap) > 0.01 and abs(gap) > 3 * sigma:
                flags.append(
                    Flag(
                        "scale_disagreement",
                        f"scale from {a.source} is {100 * gap:+.1f} % of scale from {b.source} (± {100 * sigma:.1f} %)",
                    )
                )
    return ScaleEstimate("fused", mean, mean / np.sqrt(float(weights.sum()))), tuple(flags)


def fiducial_scale(capture: Capture, track: CameraTrack) -> ScaleEstimate | None:
    """From square tags of known side: corners triangulated over the frames that see them, in units, against the true side.

    The standard deviation is that of the mean over sides, two of a tag's four counted as independent, and not below 0.2 %: what a ruler
    and a printer leave.
    """
    if capture.tag_side_m is None:
        return None
    sides = []
    for views in tag_views(capture, np.flatnonzero(track.posed)).values():
        if len(views) < TAG_VIEWS:
            continue
        T = track.T_world_cam[[frame for frame, _ in views]]
        quad = [triangulate(capture.K, T, np.stack([corners[k] for _, corners in views])) for k in range(4)]
        missed = [
            camera.project(capture.K, se3.transform(se3.inverse(T), q[None]))[:, 0] - [c[k] for _, c in views] for k, q in enumerate(quad)
        ]
        if np.median(np.linalg.norm(np.stack(missed), axis=-1)) < TAG_ERROR_PX:
            sides += [float(np.linalg.norm(quad[k] - quad[k - 1])) for k in range(4)]
    if not sides:
        return None
    length = float(np.median(sides))
    sigma = 1.25 * float(np.std(sides)) / length / np.sqrt(len(sides) / 2)
    return ScaleEstimate("fiducials", capture.tag_side_m / length, capture.tag_side_m / length * max(sigma, 2e-3))


def tag_views(capture: Capture, frames: Array) -> dict[int, list[tuple[int, Array]]]:
    """Number of each tag → (frame, corners (4, 2) px) in up to `MAX_FRAMES` of the frames, corners refined to fractions of a pixel."""
    import cv2

    options = cv2.aruco.DetectorParameters()
    options.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    tags = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, TAG_DICTIONARIES[capture.tag_family]))
    detector = cv2.aruco.ArucoDetector(tags, options)
    seen: dict[int, list[tuple[int, Array]]] = {}
    for frame in frames[np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames))).astype(int)]:
        corners, ids, _ = detector.detectMarkers(gray(capture, int(frame)))
        for quad, tag in zip(corners, [] if ids is None else ids.ravel(), strict=True):
            seen.setdefault(int(tag), []).append((int(frame), quad.reshape(4, 2).astype(float)))
    return seen


def stereo_scale(capture: Capture, track: CameraTrack) -> ScaleEstimate | None:
    """From an infrared pair of known baseline: depth by block matching at the points of structure from motion, as `depth_scale`.

    Assumes that the left infrared image has the colour image's intrinsics and pose (registered streams).
    """
    import cv2

    if capture.infrared is None or capture.ir_baseline_m is None:
        return None
    matcher = cv2.StereoSGBM.create(0, 128, 5, 200, 800, 1, 31, 10, 100, 2)
    baseline, infrared = capture.ir_baseline_m, capture.infrared

    def depth(frame: int) -> Array:
        disparity = matcher.compute(*infrared(frame)).astype(np.float32) / 16
        return np.where(disparity > 0.5, capture.K[0, 0] * baseline / np.maximum(disparity, 0.5), 0).astype(np.float32)

    found = depth_scale(replace(capture, depth_z_m=depth), track)
    return None if found is None else ScaleEstimate("stereo", found.metres_per_unit, max(found.sigma, 2e-3 * found.metres_per_unit))


def triangulate(K: Array, T_world_cam: Array, uv_px: Array) -> Array:
    """Point (3,) seen from n cameras (n, 4, 4) at pixels (n, 2): nearest to all rays in the least-squares sense."""
    rays = np.linalg.solve(K, np.concatenate([uv_px, np.ones((len(uv_px), 1))], axis=1).T).T
    d = np.einsum("nij,nj->ni", T_world_cam[:, :3, :3], rays)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    across = np.eye(3) - d[:, :, None] * d[:, None, :]
    return np.linalg.solve(across.sum(axis=0), np.einsum("nij,nj->i", across, T_world_cam[:, :3, 3]))
