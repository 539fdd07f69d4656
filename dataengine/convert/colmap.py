"""COLMAP's text models: cameras.txt, images.txt, points3D.txt, one folder per video with its images.

https://colmap.github.io/format.html: poses map world to camera, quaternion w x y z first; the first pixel's centre is (0.5, 0.5).
The robot's keypoints that stand still in the world are the 3-D points, with an observation in every frame in which they are visible.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import finite, require
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera, se3
from dataengine.record.frame_table import KEYPOINT_VISIBLE
from dataengine.record.video import Video

STILL_M = 1e-3
"""Keypoints that move less than this in the world over the clip are points of a model."""


def export_colmap(videos: Iterable[Video], out: Path) -> int:
    """Write `out`/NNNNNN/{images,sparse}; returns the number of videos.

    ConvertError: not an empty folder, no colour, a pose that is unknown.
    """
    disk.new_folder(out)
    count = 0
    for video in videos:
        folder = out / f"{count:06d}"
        for f, image in enumerate(require(video, "rgb", "COLMAP")):
            disk.write_png(folder / "images" / f"{f:06d}.png", image)
        for name, text in model_of(video).items():
            disk.write_bytes(folder / "sparse" / name, text.encode())
        count += 1
    return count


def model_of(video: Video) -> dict[str, str]:
    """File name → content of one video's model. Cameras are shared by frames with equal K."""
    rows, (height, width) = video.frames, video.size
    finite(rows["T_world_cam"], "a camera pose")
    finite(rows["K"], "K")
    K, camera_of = np.unique(rows["K"].reshape(len(rows), 9), axis=0, return_inverse=True)
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, fx, fy, cx, cy"]
    for k, values in enumerate(K):
        if values[1]:
            raise ConvertError("COLMAP's PINHOLE camera has no skew, this video's K has one; export it as folders")
        c = camera.intrinsics_to_colmap(values.reshape(3, 3))
        cameras.append(f"{k + 1} PINHOLE {width} {height} {_numbers([c[0, 0], c[1, 1], c[0, 2], c[1, 2]])}")
    points, tracks = _points(video)
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; then X, Y, POINT3D_ID of each observation"]
    listed: dict[int, list[str]] = {p: [] for p in range(len(points))}
    for f, row in enumerate(rows):
        T = se3.inverse(row["T_world_cam"])
        pose = [*se3.quaternion_wxyz(T[:3, :3]), *T[:3, 3]]
        seen = np.flatnonzero(tracks[f])
        for at, p in enumerate(seen.tolist()):
            listed[p].append(f"{f + 1} {at}")
        marks = " ".join(f"{_numbers(row['keypoints_px'][p] + 0.5)} {p + 1}" for p in seen)
        images += [f"{f + 1} {_numbers(pose)} {int(np.ravel(camera_of)[f]) + 1} {f:06d}.png", marks]
    lines = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    lines += [f"{p + 1} {_numbers(points[p])} 255 255 255 0 {' '.join(listed[p])}" for p in range(len(points)) if len(listed[p]) > 1]
    kept = {int(line.split()[0]) for line in lines[1:]}
    images = [line if k % 2 or k == 0 else _without(line, kept) for k, line in enumerate(images)]
    return {name: "\n".join(text) + "\n" for name, text in (("cameras.txt", cameras), ("images.txt", images), ("points3D.txt", lines))}


def _without(marks: str, kept: set[int]) -> str:
    """Observations of points that are not listed get the id -1, as COLMAP marks them."""
    words = marks.split()
    for k in range(2, len(words), 3):
        if int(words[k]) not in kept:
            words[k] = "-1"
    return " ".join(words)


def _points(video: Video) -> tuple[Array, Array]:
    """World positions (P,3) of keypoints that stand still, and in which frames (F,P) each is visible."""
    rows = video.frames
    world = se3.transform(rows["T_world_cam"], rows["keypoints_cam_m"])
    with np.errstate(invalid="ignore"):
        still = np.linalg.norm(world - world[:1], axis=-1).max(0, initial=0) < STILL_M
    return world.mean(0), (rows["keypoint_state"] == KEYPOINT_VISIBLE) & still & np.isfinite(rows["keypoints_px"]).all(-1)


def _numbers(values: Iterable[float]) -> str:
    return " ".join(repr(float(v)) for v in values)
