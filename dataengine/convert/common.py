"""What the formats share about videos: frame rows of which only some columns are known, clips, objects.

An imported Video says what its format says and nothing more: what the format does not hold is nan in the frame table or a
missing modality, never a guess.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera
from dataengine.record.frame_table import KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE, frame_dtype
from dataengine.record.video import Names, Video

NO_NAMES = Names((), (), (), (), (), ())
"""A video without robot and objects; `dataclasses.replace` what there is."""


def blank_rows(names: Names, frames: int) -> Array:
    """(frames,) rows in which everything is unknown: nan, state 0, accepted."""
    rows = np.zeros(frames, frame_dtype(len(names.joints), len(names.links), len(names.keypoints), len(names.objects)))
    for column in rows.dtype.names or ():
        if rows.dtype[column].base.kind == "f":
            rows[column] = np.nan
    rows["accepted"] = 1
    return rows


def place_keypoints(rows: Array, points_cam_m: Array, size: tuple[int, int], points_px: Array | None = None) -> None:
    """Fill the keypoint columns from points (F,P,3) in the camera frame, projected with the rows' K where no pixels are given.

    The state says inside (2) or outside (0); formats with only points do not tell hidden ones, so keypoint_visibility stays nan.
    """
    rows["keypoints_cam_m"] = points_cam_m
    projected = np.stack([camera.project(row["K"], p) for row, p in zip(rows, points_cam_m, strict=True)])
    rows["keypoints_px"] = projected if points_px is None else points_px
    inside = camera.in_image(rows["keypoints_px"], size[1], size[0]) & (points_cam_m[..., 2] > 0)
    rows["keypoint_state"] = np.where(inside, KEYPOINT_VISIBLE, KEYPOINT_OUTSIDE)


def keypoint_links(keypoints: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...], tuple[tuple[float, float, float], ...]]:
    """Links, link of each keypoint, offset (m) from names `link` and `link@x,y,zmm`, the way this project names keypoints."""
    links = tuple(dict.fromkeys(name.split("@")[0] for name in keypoints))
    offsets = []
    for name in keypoints:
        numbers = name.partition("@")[2].removesuffix("mm").split(",")
        known = len(numbers) == 3
        x, y, z = (float(v) / 1e3 for v in numbers) if known else (0.0, 0.0, 0.0)
        offsets.append((x, y, z))
    return links, tuple(links.index(name.split("@")[0]) for name in keypoints), tuple(offsets)


def stack_images(frames: Sequence[Mapping[str, Array]], where: Path) -> dict[str, Array]:
    """Per-frame images → (F,…) arrays of the modalities that every frame has. ConvertError when sizes differ."""
    common = [name for name in (frames[0] if frames else {}) if all(name in f for f in frames)]
    for name in common:
        shapes = {f[name].shape[:2] for f in frames} | {frames[0][common[0]].shape[:2]}
        if len(shapes) > 1:
            sizes = ", ".join(f"{w}×{h}" for h, w in sorted(shapes))
            raise ConvertError(f"{where}: {name} comes in several sizes ({sizes}); all images of a video must have one size")
    return {name: np.stack([f[name] for f in frames]) for name in common}


def image_size(images: Mapping[str, Array], where: Path) -> tuple[int, int]:
    """(height, width) of stacked images. ConvertError when there are none."""
    for image in images.values():
        return int(image.shape[1]), int(image.shape[2])
    raise ConvertError(f"{where} has labels but no images beside them")


def by_clip(items: Sequence[Any], frames_per_video: int | None, starts_anew: Callable[[Any, Any], bool]) -> Iterator[list[Any]]:
    """Cut a sequence into videos: every `frames_per_video`, or where `starts_anew(previous, item)` says so."""
    clip: list[Any] = []
    for item in items:
        if clip and (len(clip) == frames_per_video or starts_anew(clip[-1], item)):
            yield clip
            clip = []
        clip.append(item)
    if clip:
        yield clip


def objects_of(video: Video) -> list[dict[str, Any]]:
    """Per labelled object: name, category, size_m (nan where the scene does not say), in the order of `names.objects`."""
    told = {o.get("instance_id"): o for o in video.scene.get("objects", [])}
    out = []
    for k, name in enumerate(video.names.objects):
        known = told.get(k + 1, {})
        size_m = tuple(known.get("size_m") or (math.nan,) * 3)
        out.append({"name": name, "category": known.get("category", name), "size_m": size_m, "spec": known})
    return out


def require(video: Video, modality: str, layout: str) -> Array:
    """The images of one modality. ConvertError when the video has none of it."""
    if modality not in video.images:
        held = ", ".join(video.images) or "no images"
        raise ConvertError(f"{layout} needs the modality '{modality}', this video has {held}; render it with that modality")
    return video.images[modality]


def finite(value: Array, what: str) -> list[Any]:
    """Nested list for JSON. ConvertError when the label is unknown (nan), as it may be in an imported video."""
    if not np.isfinite(value).all():
        raise ConvertError(f"{what} is unknown in this video (nan), and the format must state it")
    return np.asarray(value, float).tolist()


def depth_or_none(depth: Array, far_m: float = 1e4) -> Array:
    """float32 metres where not finite, not positive or beyond any scene becomes 0 = none."""
    with np.errstate(invalid="ignore"):
        return np.where((depth > 0) & (depth < far_m), depth, 0).astype(np.float32)


def depth_image(video: Video, layout: str) -> tuple[str, Array]:
    """The depth a single-depth layout gets: of a rendered video the true one, of a real one the measured one."""
    order = ("depth_z", "depth_sim") if video.source == "rendered" else ("depth_sim", "depth_z")
    name = next((n for n in order if n in video.images), order[0])
    return name, require(video, name, layout)
