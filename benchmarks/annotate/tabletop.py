"""A real hand-held RGB-D capture: is a board where the camera poses say it is? Depth, which the poses never saw, is the witness.

`python -m benchmarks.annotate.tabletop WORK [--mapper auto]`, captures in the folder that DATAENGINE_CAPTURES names. A plane is fitted to
each frame's depth inside the hull of the AprilTags; the poses carry all of them into one world, where their mean is the board; the board,
propagated into each frame, is compared with that frame's plane. The capture's own tag poses are scored the same way. Beside it, absolutely:
the plane through tag corners triangulated from our poses against the board from depth, which also shows errors of the given intrinsics
(the capture's lens distortion is said to be zero). Writes WORK/tabletop.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from annotators.sfm import solve_cameras
from annotators.types import CameraTrack, Capture
from dataengine.geometry import se3

Array = np.ndarray
K = np.array([[607.178466796875, 0.0, 321.39129638671875], [0.0, 607.2342529296875, 241.91822814941406], [0.0, 0.0, 1.0]])
_DEPTH_UNIT_M = 0.001


def main() -> None:
    """Solve, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--mapper", default="auto")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    sequence = Path(os.environ["DATAENGINE_CAPTURES"]) / "tabletop_rgbd" / "sequence"
    start = time.perf_counter()
    track = solve_cameras(load(sequence), given.work / "tabletop", mapper=given.mapper)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "frames": len(track.posed),
        "posed": int(track.posed.sum()),
        "mapper": track.mapper,
        "cross_check": track.cross_check,
        "reprojection_px": track.mean_reprojection_px,
        "keyframes": len(json.loads((given.work / "tabletop" / "request.json").read_text())["keyframes"]),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - start,
        **board_against_depth(track, sequence),
    }
    (given.work / "tabletop.json").write_text(json.dumps(result, indent=1))


def load(sequence: Path) -> Capture:
    """The capture, read lazily."""
    files = sorted(sequence.glob("color_image_*.png"))

    def rgb(i: int) -> Array:
        image = cv2.imread(str(files[i]))
        assert image is not None
        return image[..., ::-1]

    return Capture("tabletop", tuple(f.name for f in files), (640, 480), K, np.arange(len(files)) / 30.0, rgb, "none")


def board_against_depth(track: CameraTrack, sequence: Path) -> dict[str, Any]:
    """Median angle (degrees) and standard deviation over frames of the distance (mm) between the propagated board and each frame's depth
    plane, for our poses and for the capture's tag poses; the angle of the triangulated board to the board from depth."""
    data = json.loads((sequence / "apriltag_data.json").read_text())
    detections, tag_poses = data["detections"], np.asarray(data["grid"], float)
    corners = triangulate(track, detections)
    _, normal = fit_plane(np.stack(list(corners.values())))
    ratios = []
    planes = [depth_plane(sequence, i, detections[i]) for i in range(len(detections))]
    for i, (depth, _) in enumerate(planes):
        T = se3.inverse(track.T_world_cam[i])
        for tag, uv in corner_pixels(detections[i]).items():
            u, v = np.round(uv).astype(int)
            if tag in corners and 0 <= u < 640 and 0 <= v < 480 and depth[v, u] > 0:
                ratios.append(depth[v, u] / se3.transform(T, corners[tag][None])[0, 2])
    scale = float(np.median(ratios))
    metric = track.T_world_cam.copy()
    metric[:, :3, 3] *= scale
    ours, board = propagated(metric, [plane for _, plane in planes])
    tags, _ = propagated(se3.inverse(tag_poses), [plane for _, plane in planes])
    tilt = float(np.degrees(np.arccos(min(1.0, abs(float(board @ normal))))))
    return {"scale_m": scale, "ours": summary(ours), "tag_track": summary(tags), "triangulated_board_deg": tilt}


def propagated(T_world_cam: Array, planes: list[tuple[Array, Array]]) -> tuple[list[tuple[float, float]], Array]:
    """`against` of each frame for the mean of all frames' planes, and the mean's normal, world frame. Unposed frames are left out."""
    posed = np.flatnonzero(np.isfinite(T_world_cam[:, 0, 0]))
    T = T_world_cam[posed]
    middles = np.stack([se3.transform(T[k], planes[i][0][None])[0] for k, i in enumerate(posed)])
    normals = np.stack([T[k, :3, :3] @ planes[i][1] for k, i in enumerate(posed)])
    normals *= np.sign(normals @ normals[0])[:, None]
    normal = normals.mean(0) / np.linalg.norm(normals.mean(0))
    point = normal * float(np.median(middles @ normal))
    inverse = se3.inverse(T)
    rows = [against(se3.transform(inverse[k], point[None])[0], inverse[k, :3, :3] @ normal, *planes[i]) for k, i in enumerate(posed)]
    return rows, normal


def against(point: Array, normal: Array, middle: Array, measured: Array) -> tuple[float, float]:
    """Angle between two planes (degrees) and the signed distance (mm) at which the ray to `middle` meets the first plane behind it."""
    angle = float(np.degrees(np.arccos(min(1.0, abs(float(normal @ measured))))))
    along = float(point @ normal) / float(middle @ normal)
    return angle, 1e3 * (along - 1.0) * float(np.linalg.norm(middle))


def summary(rows: list[tuple[float, float]]) -> dict[str, float]:
    """Median angle, spread and mean of the distance."""
    angle, distance = np.array(rows).T
    return {"median_deg": float(np.median(angle)), "sd_mm": float(distance.std()), "mean_mm": float(distance.mean())}


def corner_pixels(detection: dict[str, Any]) -> dict[tuple[str, int], Array]:
    """Pixels (u, v) of every tag corner of a frame; the file holds row, column."""
    return {(tag, k): np.array(corner[::-1]) for tag, found in detection.items() for k, corner in enumerate(found["tag_corners"])}


def triangulate(track: CameraTrack, detections: list[dict[str, Any]]) -> dict[tuple[str, int], Array]:
    """Corners seen in at least ten posed frames, world frame, linear (Hartley & Zisserman 2004, 12.2)."""
    seen: dict[tuple[str, int], list[tuple[Array, Array]]] = {}
    for i, detection in enumerate(detections):
        if track.posed[i]:
            P = K @ se3.inverse(track.T_world_cam[i])[:3]
            for tag, uv in corner_pixels(detection).items():
                seen.setdefault(tag, []).append((P, uv))
    out = {}
    for tag, views in seen.items():
        if len(views) >= 10:
            A = np.concatenate([np.stack([uv[0] * P[2] - P[0], uv[1] * P[2] - P[1]]) / np.linalg.norm(P[2, :3]) for P, uv in views])
            x = np.linalg.svd(A)[2][-1]
            out[tag] = x[:3] / x[3]
    return out


def fit_plane(points: Array) -> tuple[Array, Array]:
    """Centre and unit normal of points (n, 3), refitted to what lies within 2.5 robust standard deviations."""

    def through(kept: Array) -> tuple[Array, Array]:
        centre = kept.mean(0)
        return centre, np.linalg.eigh(np.cov((kept - centre).T))[1][:, 0]

    plane = through(points)
    for _ in range(6):
        away = np.abs((points - plane[0]) @ plane[1])
        plane = through(points[away <= max(2.5 * 1.4826 * float(np.median(away)), 1e-9)])
    return plane


def depth_plane(sequence: Path, i: int, detection: dict[str, Any]) -> tuple[Array, tuple[Array, Array]]:
    """Depth (m) of a frame and the plane of its pixels inside the hull of the tags."""
    with np.load(sequence / f"depth_image_{i:04d}.npz") as data:
        depth = data["data"].astype(float) * _DEPTH_UNIT_M
    hull = cv2.convexHull(np.stack(list(corner_pixels(detection).values())).astype(np.float32)).round().astype(np.int32)
    inside = np.zeros(depth.shape, np.uint8)
    cv2.fillConvexPoly(inside, np.asarray(hull, np.int32), [1])
    v, u = np.nonzero((inside > 0) & (depth > 0))
    z = depth[v, u]
    return depth, fit_plane(np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], -1))


if __name__ == "__main__":
    main()
