"""Captures with exact truth: a rendered video the way a person with a camera would have recorded it, for testing the annotator.

rgb/NNNNNN.png  depth/NNNNNN.png (16 bit, millimetres)  masks/NNNNNN.png (255 = robot)  ir_left/ ir_right/
K.txt  times.txt  joints.csv (time and joint positions, 100 per second)  capture.yaml  truth.json
"""

import csv
import io
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dataengine.convert import disk
from dataengine.convert.common import depth_image, require
from dataengine.convert.disk import Array, ConvertError
from dataengine.record.video import Video

ENCODER_HZ = 100.0
DEPTH_UNIT_M = 0.001


def export_captures(videos: Iterable[Video], out: Path) -> int:
    """One video becomes the folder `out`, several become `out/NNNNNN` each; returns how many.

    ConvertError: not an empty folder, no colour, labels that are unknown (nan), a camera that zooms.
    """
    disk.new_folder(out)
    remaining = iter(videos)
    first, second = next(remaining, None), next(remaining, None)
    if first is None:
        return 0
    if second is None:
        _write(first, out)
        return 1
    count = 0
    for video in chain((first, second), remaining):
        _write(video, out / f"{count:06d}")
        count += 1
    return count


def _write(video: Video, out: Path) -> None:
    rows = video.frames
    if np.ptp(rows["K"], axis=0).any():
        raise ConvertError("a capture has one K for all frames, this video's K changes; export it as folders")
    files = _write_images(video, out)
    disk.write_bytes(out / "K.txt", _lines(rows["K"][0]))
    disk.write_bytes(out / "times.txt", _lines(rows["timestamp_s"][:, None]))
    disk.write_bytes(out / "joints.csv", _joint_log(video))
    capture = {
        "name": f"{video.scene.get('dataset', 'capture')}_{video.scene.get('video', 0)}",
        **files,
        "intrinsics": {"file": "K.txt", "width": video.size[1], "height": video.size[0]},
        "timestamps": "times.txt",
        "robot": str(video.scene.get("robot", {}).get("name", "panda")),
        "joints": {"path": "joints.csv", "mode": "known"},
    }
    text = "# written by `dataengine export --format capture`; truth.json beside it holds what the annotator has to find\n"
    disk.write_bytes(out / "capture.yaml", (text + yaml.safe_dump(capture, sort_keys=False)).encode())
    disk.write_json(out / "truth.json", truth_of(video), indent=None)


def _write_images(video: Video, out: Path) -> dict[str, Any]:
    """Write all pictures; returns the entries of capture.yaml that name them."""
    entries: dict[str, Any] = {"images": "rgb"}
    pictures: dict[str, Array] = {"rgb": require(video, "rgb", "a capture")}
    if "depth_sim" in video.images or "depth_z" in video.images:
        name = "depth_sim" if "depth_sim" in video.images else depth_image(video, "a capture")[0]
        millimetres = np.rint(video.images[name].astype(np.float64) / DEPTH_UNIT_M)
        pictures["depth"] = np.where(millimetres < 65536, millimetres, 0).astype(np.uint16)
        entries["depth"] = {"path": "depth", "unit_m": DEPTH_UNIT_M}
    if "mask_link" in video.images:
        pictures["masks"] = np.where(video.images["mask_link"] > 0, 255, 0).astype(np.uint8)
        entries["masks"] = {"path": "masks"}
    if "ir_left" in video.images and "ir_right" in video.images:
        pictures |= {side: video.images[side] for side in ("ir_left", "ir_right")}
        baseline_m = float(video.scene.get("depth_sensor", {}).get("baseline_m", 0.055))
        entries["infrared"] = {"left": "ir_left", "right": "ir_right", "baseline_m": baseline_m}
    for folder, stack in pictures.items():
        for f, picture in enumerate(stack):
            disk.write_png(out / folder / f"{f:06d}.png", picture)
    return entries


def joint_log(video: Video, hz: float = ENCODER_HZ) -> tuple[Array, Array]:
    """Times (M,) in s and joint positions (M,J) between the frames: cubic Hermite through the frames' positions and velocities."""
    t, q, v = (np.asarray(video.frames[c], float) for c in ("timestamp_s", "joint_position", "joint_velocity"))
    if len(t) < 2:
        return t, q
    times = np.linspace(t[0], t[-1], int(round((t[-1] - t[0]) * hz)) + 1)
    k = np.clip(np.searchsorted(t, times, side="right") - 1, 0, len(t) - 2)
    step = (t[k + 1] - t[k])[:, None]
    u = (times - t[k])[:, None] / step
    start = (1 + 2 * u) * (1 - u) ** 2 * q[k] + u * (1 - u) ** 2 * step * v[k]
    return times, start + u**2 * (3 - 2 * u) * q[k + 1] + u**2 * (u - 1) * step * v[k + 1]


def _joint_log(video: Video) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", *video.names.joints])
    times, q = joint_log(video)
    writer.writerows([f"{t:.6f}", *(f"{x:.9g}" for x in row)] for t, row in zip(times, q, strict=True))
    return text.getvalue().encode()


def truth_of(video: Video) -> dict[str, Any]:
    """What the annotator has to find, as plain lists: poses, joints, keypoints and objects per frame. Metres, radians."""
    rows = video.frames
    columns = ("timestamp_s", "T_world_cam", "T_cam_base", "joint_position", "keypoints_cam_m", "keypoint_visibility", "T_cam_object")
    for name in columns:
        if not np.isfinite(rows[name]).all():
            raise ConvertError(f"{name} is unknown in this video (nan); only videos with all labels make a capture with truth")
    names = video.names
    return {
        "joint_names": list(names.joints),
        "keypoint_names": list(names.keypoints),
        "objects": list(names.objects),
        "K": rows["K"][0].tolist(),
        **{name: rows[name].tolist() for name in columns},
    }


def _lines(table: Array) -> bytes:
    return ("\n".join(" ".join(repr(float(x)) for x in row) for row in table) + "\n").encode()
