"""The one-file HTML report: opens from a folder without a network, shows every pixel's numbers.

Videos are embedded in full up to a limit; the statistics are those of the whole dataset, handed in by the caller.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dataengine.record.video import Video
from dataengine.view import colour, panels, plots
from dataengine.view.contact_sheet import depth_marks, spread
from dataengine.view.palette import ROOM_ID, TABLE_ID, Rgb, colour_map, link_colours, object_colours
from dataengine.view.pixels import DEPTH_STEP_M, STRIDE, pack_frame, png_uri, webp_uri
from dataengine.view.skeleton import is_stub, keypoint_colours, skeleton_edges, state_counts

MAX_VIDEOS, MAX_FRAMES = 12, 12
"""Embedded in full: so many videos, of each so many frames at even distances."""
THUMBNAIL_PX = 192


@dataclass(frozen=True)
class ReportInfo:
    """What the report says about the dataset as a whole.

    ``location`` is the dataset argument of the printed commands; ``checks`` and ``violations`` count the validator's
    label checks; ``stage_cpu_s`` is CPU seconds per stage, summed over all videos; ``quarantined`` videos by reason.
    """

    name: str
    location: str
    spec_digest: str = ""
    checks: int = 0
    violations: int = 0
    violation_lines: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    stage_cpu_s: Mapping[str, float] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)


class CoverageLike(Protocol):
    """What is read of `dataengine.quality.coverage.Coverage`."""

    @property
    def videos(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def accepted_frames(self) -> int: ...
    @property
    def splits(self) -> Mapping[str, int]: ...
    @property
    def joints(self) -> tuple[plots.HistogramLike, ...]: ...
    @property
    def camera_distance(self) -> plots.HistogramLike: ...
    @property
    def cameras(self) -> tuple[plots.PlaceLike, ...]: ...
    @property
    def keypoint_states(self) -> Mapping[str, tuple[int, int, int]]: ...
    @property
    def keypoint_visibility(self) -> plots.HistogramLike: ...
    @property
    def link_visibility(self) -> plots.HistogramLike: ...
    @property
    def object_visibility(self) -> plots.HistogramLike: ...
    @property
    def categories(self) -> Mapping[str, int]: ...
    @property
    def draw_rejections(self) -> Mapping[str, int]: ...
    @property
    def video_rejections(self) -> Mapping[str, int]: ...


def write_report(path: str | Path, info: ReportInfo, coverage: CoverageLike, videos: Iterable[Video], max_videos: int = MAX_VIDEOS) -> Path:
    """Write the page, complete or not at all; creates the folder; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(report_html(info, coverage, videos, max_videos), encoding="utf-8")
    partial.replace(path)
    return path


def report_html(info: ReportInfo, coverage: CoverageLike, videos: Iterable[Video], max_videos: int = MAX_VIDEOS) -> str:
    """The page as text. Of ``videos`` only the first ``max_videos`` are read; those without pictures are left out."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("dataengine.view"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    data = {
        "location": shlex.quote(info.location),
        "depthStepM": DEPTH_STEP_M,
        "stride": STRIDE,
        "linkColours": hex_colours(link_colours()),
        "objectColours": hex_colours(object_colours()),
        "errorScale": error_scale(),
        "panels": {p.name: {"label": p.label, "note": p.note} for p in panels.PANELS},
        "videos": [video_data(v, i) for i, v in enumerate(islice(videos, max_videos)) if v.images],
    }
    return environment.get_template("report.html.j2").render(
        info=info, coverage=coverage, data=data, plots=plots, sections=statistics(info, coverage)
    )


def video_data(video: Video, index: int) -> dict[str, Any]:
    """Everything the page needs of one video, as plain JSON data with pictures as data addresses."""
    range_m = panels.clip_range_m(video)
    shown = [p for p in panels.available(video) if p.name != "skeleton"]
    names = video.names
    frames = spread(video.frame_count, MAX_FRAMES)
    height, width = video.size
    return {
        "number": video.scene.get("video", index),
        "split": video.scene.get("split", ""),
        "seed": video.scene.get("seed", ""),
        "source": video.source,
        "rejection": video.rejection,
        "width": width,
        "height": height,
        "panels": [p.name for p in shown],
        "thumbnail": webp_uri(thumbnail(video)),
        "summary": summary(video),
        "links": list(names.links),
        "objects": object_names(video),
        "joints": list(names.joints),
        "keypoints": list(names.keypoints),
        "keypointLabels": plots.without_common_prefix(names.keypoints),
        "keypointColours": hex_colours(keypoint_colours(names)),
        "edges": [[a, b, is_stub(names, (a, b))] for a, b in skeleton_edges(names)],
        "depthScale": depth_scale(range_m),
        "frames": [frame_data(video, f, [p.name for p in shown], range_m) for f in frames],
    }


def frame_data(video: Video, frame: int, names: list[str], range_m: tuple[float, float]) -> dict[str, Any]:
    """One frame: pictures, packed pixels, keypoints, joints."""
    row = video.frames[frame]
    points = [None if np.isnan(p).any() else [round(float(x), 2) for x in p] for p in row["keypoints_px"]]
    return {
        "frame": frame,
        "time_ms": round(float(row["timestamp_s"]) * 1000, 1),
        "accepted": bool(row["accepted"]),
        "pictures": {n: webp_uri(panels.draw(video, frame, n, range_m), 90 if n == "rgb" else 84) for n in names},
        "pixels": {key: png_uri(image) for key, image in pack_frame(video, frame).items()},
        "keypoints": points,
        "states": row["keypoint_state"].tolist(),
        "joints": [None if np.isnan(q) else round(float(q), 4) for q in row["joint_position"]],
    }


def thumbnail(video: Video) -> Rgb:
    """The middle frame, small, with its skeleton where there is a photograph."""
    choice = panels.available(video, ("skeleton", "depth_z", *panels.NAMES))
    if not choice:
        return panels.blank(video, THUMBNAIL_PX)
    return panels.draw(video, video.frame_count // 2, choice[0].name, width_px=THUMBNAIL_PX)


def summary(video: Video) -> dict[str, float | int | None]:
    """Numbers of the table of videos: seen keypoints, and depth fill and error on the robot where it is known."""
    states = state_counts(video.frames["keypoint_state"])
    images = video.images
    fill = error_mm = None
    if {"depth_z", "depth_sim", "mask_link"} <= images.keys() and (images["mask_link"] > 0).any():
        on_robot = (images["mask_link"] > 0) & (images["depth_z"] > 0)
        error = colour.depth_error_m(images["depth_sim"], images["depth_z"])[on_robot]
        fill = float(np.isfinite(error).mean()) if error.size else None
        error_mm = float(np.nanmedian(np.abs(error)) * 1000) if np.isfinite(error).any() else None
    return {
        "frames": video.frame_count,
        "objects": len(video.names.objects),
        "seen": states["visible"] / max(sum(states.values()), 1),
        "fill": fill,
        "error_mm": error_mm,
    }


def object_names(video: Video) -> dict[str, str]:
    """Instance id (as text) → name, from the scene; the record's own order where the scene lists no objects."""
    listed = video.scene.get("objects", ())
    named = {str(o["instance_id"]): str(o["name"]) for o in listed if "instance_id" in o and "name" in o}
    named = named or {str(k + 1): name for k, name in enumerate(video.names.objects)}
    return {str(TABLE_ID): "table", str(ROOM_ID): "room"} | named


def depth_scale(range_m: tuple[float, float]) -> dict[str, Any]:
    """Colours and marks of the depth scale; positions run 0 … 1 from near to far, evenly in inverse depth."""
    near, far = max(range_m[0], 1e-3), range_m[1]
    marks = [[round((1 / near - 1 / z) / (1 / near - 1 / far), 4), f"{z:g} m"] for z in depth_marks(near, far)]
    return {"near": near, "far": far, "stops": _stops(colour.DEPTH_MAP), "marks": marks}


def error_scale() -> dict[str, Any]:
    """Colours and marks of the error scale."""
    limit_mm = colour.ERROR_LIMIT_M * 1000
    marks = [[0.5 + 0.5 * u, f"{u * limit_mm:+.0f} mm" if u else "0"] for u in (-1, -0.5, 0, 0.5, 1)]
    return {"limit_mm": limit_mm, "stops": _stops(colour.ERROR_MAP), "marks": marks}


def statistics(info: ReportInfo, c: CoverageLike) -> dict[str, Any]:
    """What the page's header and its plots need beyond the coverage itself."""
    total = sum(info.stage_cpu_s.values())
    return {
        "per_frame_s": total / c.frames if total and c.frames else None,
        "stage_cpu_s": {k: v / max(c.frames, 1) for k, v in sorted(info.stage_cpu_s.items(), key=lambda i: -i[1])},
        "rejected": {k: float(v) for k, v in sorted(c.draw_rejections.items(), key=lambda i: (-i[1], i[0]))},
        "lost_videos": {**{f"rejected: {k}": v for k, v in c.video_rejections.items()}, **dict(info.quarantined)},
        "categories": dict(islice(((k, float(v)) for k, v in c.categories.items()), 14)),
    }


def hex_colours(table: Rgb) -> list[str]:
    """(N, 3) → #rrggbb."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table.tolist()]


def _stops(name: str) -> list[str]:
    return hex_colours(colour_map(name)[np.linspace(0, 255, 17).round().astype(int)])
