"""What a dataset covers: joint angles, camera places, visibility, rejections, as histograms over all its frames.

Reads the small labels only: a `Video` without images is enough.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import RecordError
from dataengine.geometry import se3
from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE
from dataengine.record.video import Video

BINS = 24
MAX_CAMERAS = 2000
"""Camera places kept for plotting; of more, every n-th."""


@dataclass(frozen=True)
class Histogram:
    """``counts`` (B) of the values between neighbours of ``edges`` (B + 1), in ``unit``.

    ``limits``: the range that would be full coverage, if known. Values beyond the edges are in the outermost bins.
    """

    label: str
    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    limits: tuple[float, float] | None = None

    @property
    def filled(self) -> float:
        """Share of the bins that hold at least one value."""
        return sum(c > 0 for c in self.counts) / len(self.counts)


@dataclass(frozen=True)
class CameraPlace:
    """A camera's centre in the robot's base frame: z up, azimuth from +x towards +y."""

    azimuth_rad: float
    elevation_rad: float
    distance_m: float


@dataclass(frozen=True)
class Coverage:
    """Statistics of all videos given. Counts are frames unless the name says videos or rejections."""

    videos: int
    frames: int
    accepted_frames: int
    splits: dict[str, int]
    """Videos per split."""
    joints: tuple[Histogram, ...]
    joint_speed: tuple[Histogram, ...]
    camera_distance: Histogram
    cameras: tuple[CameraPlace, ...]
    keypoint_states: dict[str, tuple[int, int, int]]
    """Keypoint name → frames in which it is visible, occluded, outside."""
    keypoint_visibility: Histogram
    link_visibility: Histogram
    """Without the links that no frame of their video shows, since a record does not say which have a surface."""
    object_visibility: Histogram
    objects_per_video: dict[int, int]
    categories: dict[str, int]
    """Object category → objects in all videos."""
    draw_rejections: dict[str, int]
    """Reason → draws refused while sampling scenes."""
    video_rejections: dict[str, int]
    """Reason → videos marked as rejected."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for a dataset card."""
        return asdict(self)


def coverage(videos: Iterable[Video], joint_limits: Mapping[str, tuple[float, float]] | None = None, bins: int = BINS) -> Coverage:
    """Statistics over ``videos``, read once, images ignored; unseen numbers (a real capture's joints) may be nan.

    ``joint_limits``: joint name → (lower, upper) in rad or m; without it a joint's histogram spans what occurs.
    RecordError without any video.
    """
    values: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    joints: dict[str, list[NDArray]] = defaultdict(list)
    speeds: dict[str, list[NDArray]] = defaultdict(list)
    states: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    totals: dict[str, Counter] = defaultdict(Counter)
    count = frames = accepted = 0
    for video in videos:
        rows, scene = video.frames, video.scene
        count, frames, accepted = count + 1, frames + len(rows), accepted + int((rows["accepted"] > 0).sum())
        for j, name in enumerate(video.names.joints):
            joints[name].append(rows["joint_position"][:, j])
            speeds[name].append(rows["joint_velocity"][:, j])
        for k, name in enumerate(video.names.keypoints):
            states[name] += _state_counts(rows["keypoint_state"][:, k])
        values["camera"].append(camera_places(rows["T_cam_base"]))
        for name in ("keypoint_visibility", "object_visibility"):
            values[name].append(np.asarray(rows[name], np.float64).ravel())
        links = np.asarray(rows["link_visibility"], np.float64)
        values["link_visibility"].append(links[:, links.any(0)].ravel())
        objects = [o for o in scene.get("objects", ()) if o.get("role") not in ("table", "room")]
        totals["split"][str(scene.get("split", "none"))] += 1
        totals["objects"][len(objects)] += 1
        totals["category"].update(str(o.get("category", "unknown")) for o in objects)
        totals["draw"].update({str(k): int(v) for k, v in scene.get("rejections", {}).items()})
        if video.rejection:
            totals["video"][video.rejection] += 1
    if not count:
        raise RecordError("coverage: no videos given; a dataset needs at least one")
    cameras = np.concatenate(values["camera"])
    cameras = cameras[np.isfinite(cameras).all(1)]
    limits = joint_limits or {}
    return Coverage(
        videos=count,
        frames=frames,
        accepted_frames=accepted,
        splits=_ordered(totals["split"]),
        joints=tuple(histogram(n, "", np.concatenate(v), limits.get(n), bins) for n, v in joints.items()),
        joint_speed=tuple(histogram(n, "", np.concatenate(v), None, bins) for n, v in speeds.items()),
        camera_distance=histogram("camera distance", "m", cameras[:, 2], None, bins),
        cameras=tuple(CameraPlace(*map(float, c)) for c in cameras[:: max(1, -(-len(cameras) // MAX_CAMERAS))]),
        keypoint_states={n: (int(s[0]), int(s[1]), int(s[2])) for n, s in states.items()},
        keypoint_visibility=_share("keypoint", values["keypoint_visibility"]),
        link_visibility=_share("link", values["link_visibility"]),
        object_visibility=_share("object", values["object_visibility"]),
        objects_per_video=dict(sorted(totals["objects"].items())),
        categories=_ordered(totals["category"]),
        draw_rejections=_ordered(totals["draw"]),
        video_rejections=_ordered(totals["video"]),
    )


def camera_places(T_cam_base: ArrayLike) -> NDArray[np.float64]:
    """Poses (F, 4, 4) → (F, 3): azimuth rad, elevation rad, distance m of the camera's centre in the base frame."""
    centre = se3.inverse(T_cam_base)[..., :3, 3]
    distance = np.linalg.norm(centre, axis=-1)
    azimuth = np.arctan2(centre[..., 1], centre[..., 0])
    elevation = np.arctan2(centre[..., 2], np.hypot(centre[..., 0], centre[..., 1]))
    return np.stack([azimuth, elevation, distance], -1)


def histogram(label: str, unit: str, values: ArrayLike, limits: tuple[float, float] | None = None, bins: int = BINS) -> Histogram:
    """Histogram within ``limits``, or within the values' own range; values beyond go to the outermost bins, nan nowhere."""
    v = np.asarray(values, np.float64).ravel()
    v = v[np.isfinite(v)]
    low, high = limits or ((float(v.min()), float(v.max())) if v.size else (0.0, 1.0))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(v, low, high), bins, (low, high))
    return Histogram(label, unit, tuple(edges.tolist()), tuple(counts.tolist()), limits)


def _share(label: str, values: list[NDArray[np.float64]]) -> Histogram:
    return histogram(f"{label} visibility", "share", np.concatenate(values), (0.0, 1.0), 20)


def _state_counts(states: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.array([(states == s).sum() for s in (KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE)], np.int64)


def _ordered(counter: Counter) -> dict[Any, int]:
    """Most frequent first, equal ones by name."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], str(item[0]))))
