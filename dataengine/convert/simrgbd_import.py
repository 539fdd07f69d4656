"""Reader of SimRGBD-Franka folders, synthetic and real; the layout is described in `simrgbd.py`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import camera_settings, disk
from dataengine.convert.common import blank_rows, by_clip, depth_or_none, image_size, place_keypoints, stack_images
from dataengine.convert.disk import Array, ConvertError
from dataengine.convert.simrgbd import BACKGROUND, COLOURS, FALLBACK_NOTE, LINKS, PARTS, POINTS_3N, PUBLISHED_K
from dataengine.geometry import camera
from dataengine.record.video import Names, Video


@dataclass(frozen=True)
class _Frame:
    """Files of one frame: meta and images by modality."""

    scene: Path
    number: int
    meta: Path
    images: dict[str, Path]
    real: bool


def import_simrgbd(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Videos of a released or exported folder, synthetic or real; `frames_per_video` defaults to 3, for real sequences to 30.

    Tolerates what is in circulation: the modalities in one tree or unzipped side by side, `R2C Mat` and `Panda_hand`, seven
    joints, half-float masks, colour at twice the labels' size (averaged down), no camera settings (see FALLBACK_NOTE).
    """
    found = _frames(disk.source_folder(folder))
    if not found:
        raise ConvertError(f"{folder} holds no NNNN_meta.json (synthetic) and no NNNNNN.json (real): not the SimRGBD-Franka layout")
    clip = frames_per_video or (30 if found[0].real else 3)

    def starts_anew(before: _Frame, frame: _Frame) -> bool:
        return before.scene != frame.scene or frame.number != before.number + 1 or (not frame.real and frame.number % clip == 0)

    for frames in by_clip(found, clip, starts_anew):
        yield _video(frames, folder)


def _frames(folder: Path) -> list[_Frame]:
    """Every frame by scene and number. The six zips may lie in one tree or in one folder each."""
    index: dict[tuple[str, str], Path] = {}
    for path in folder.rglob("*_*"):
        if path.suffix in (".png", ".exr", ".json"):
            index.setdefault((path.parent.name, path.name), path)
    suffixes = COLOURS | {"depth_z": "depth_60.exr", "depth_sim": "simDepthImage.exr", "mask_link": "mask.exr"}
    out = []
    for (scene, name), meta in index.items():
        number = name.removesuffix("_meta.json")
        if number.isdigit() and number != name:
            candidates = {m: index.get((scene, f"{number}_{suffix}")) for m, suffix in suffixes.items()}
            out.append(_Frame(meta.parent, int(number), meta, {m: p for m, p in candidates.items() if p}, False))
    if not out:
        out = [_real_frame(meta) for meta in folder.rglob("*.json") if meta.stem.isdigit()]
    return sorted(out, key=lambda f: (disk.natural(f.scene), f.number))


def _real_frame(meta: Path) -> _Frame:
    mask = meta.with_name(f"{meta.stem}_mask.exr")
    candidates = {"rgb": meta.with_suffix(".png"), "depth_sim": meta.with_suffix(".npy"), "mask_link": mask}
    return _Frame(meta.parent, int(meta.stem), meta, {m: p for m, p in candidates.items() if p.is_file()}, True)


def _video(frames: list[_Frame], top: Path) -> Video:
    notes: list[str] = []
    images = stack_images([_one_size(_images(f, notes), notes) for f in frames], frames[0].scene)
    metas = [_read_meta(f.meta) for f in frames]
    joints = tuple(str(j["Name"]).split("/")[-1] for j in metas[0]["joints"])
    keypoints = tuple(dict.fromkeys([*_links_of(metas[0]), *(name for name, _, _ in POINTS_3N)]))
    at = {name: (LINKS.index(link), offset) for name, link, offset in POINTS_3N} | {n: (LINKS.index(n), (0.0, 0.0, 0.0)) for n in LINKS}
    names = Names(joints, LINKS, keypoints, tuple(at[k][0] for k in keypoints), tuple(at[k][1] for k in keypoints), ())
    rows, real = blank_rows(names, len(frames)), frames[0].real
    points = np.full((len(frames), len(keypoints), 3), np.nan)
    for f, meta in enumerate(metas):
        _fill(rows[f], points[f], meta, names, frames[f].meta)
    size = image_size(images, frames[0].scene)
    rows["K"] = _intrinsics(frames[0], top, size, notes)
    place_keypoints(rows, points, size)
    origin = frames[0].scene.relative_to(top).as_posix()
    scene = {"format": "simrgbd", "origin": origin, "frame_numbers": [f.number for f in frames], "objects": []}
    kind = "real" if real else "rendered"
    return Video(kind, names, images, rows, scene, {"imported_from": "SimRGBD-Franka"}, notes={"import": sorted(set(notes))}).check()


def _images(frame: _Frame, notes: list[str]) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for name, path in frame.images.items():
        if name == "mask_link":
            part = np.rint(disk.exr_channel(path, "R") * 255).astype(int)  # rounding mends half-float files; truncation would not
            if frame.real and set(np.unique(part)) <= {0, BACKGROUND}:
                notes.append("the masks are plain silhouettes without part ids: not imported")
                continue
            out[name] = np.where((part > 0) & (part <= len(LINKS)), part, 0).astype(np.uint8)
        elif path.suffix == ".exr":
            out[name] = depth_or_none(disk.exr_channel(path, "R"))
        elif path.suffix == ".npy":
            out[name] = depth_or_none(disk.read_npy(path).astype(np.float64) / 1000)
        else:
            out[name] = disk.read_image(path, colour=name == "rgb").astype(np.uint8)
    return out


def _one_size(images: dict[str, Array], notes: list[str]) -> dict[str, Array]:
    """Bring colour to the size of the labels: DREDS-style sets render RGB and IR at twice the size."""
    label = next((a.shape[:2] for n, a in images.items() if n in ("mask_link", "depth_z", "depth_sim")), None)
    for name in [n for n in COLOURS if n in images and label and images[n].shape[:2] != label]:
        import cv2

        assert label is not None
        notes.append(f"{name} averaged down to the labels' {label[1]}×{label[0]}")
        images[name] = cv2.resize(images[name], (label[1], label[0]), interpolation=cv2.INTER_AREA)
    return images


def _read_meta(path: Path) -> dict[str, Any]:
    data = disk.read_json(path)
    meta = data[0] if isinstance(data, list) and data else data
    if not isinstance(meta, dict) or "keypoints" not in meta or "joints" not in meta:
        raise ConvertError(f"{path} is no SimRGBD meta file: it must be a list of one object with 'keypoints' and 'joints'")
    return meta


def _link_name(name: str) -> str:
    return PARTS.get(name) or PARTS.get(name[:1].lower() + name[1:], "")


def _links_of(meta: dict[str, Any]) -> list[str]:
    return [link for link in (_link_name(str(k["Name"])) for k in meta["keypoints"]) if link]


def _fill(row: Any, points: Array, meta: dict[str, Any], names: Names, path: Path) -> None:
    try:
        rotations = [k.get("R2C_mat", k.get("R2C Mat")) for k in meta["keypoints"]]
        each_its_own = sum(r is not None for r in rotations) > 1 and any(r != rotations[0] for r in rotations[1:])
        for k, R in zip(meta["keypoints"], rotations, strict=True):
            if link := _link_name(str(k["Name"])):
                T = row["T_cam_link"][LINKS.index(link)]
                T[:3, 3], T[3] = k["location_wrt_cam"], (0, 0, 0, 1)
                points[names.keypoints.index(link)] = T[:3, 3]
                # Some converted sets repeat the base's rotation in every entry: then it says nothing of the links.
                if R is not None and (each_its_own or link == "panda_link0"):
                    T[:3, :3] = R
        row["T_cam_base"] = row["T_cam_link"][0]
        for (name, _, _), entry in zip(POINTS_3N, meta.get("joints_3n_fixed_42", []), strict=False):
            points[names.keypoints.index(name)] = entry["location_wrt_cam"]
        row["joint_position"] = [j["position"] for j in meta["joints"]]
    except (KeyError, ValueError, TypeError) as error:
        raise ConvertError(f"{path} is not a whole SimRGBD meta file: {type(error).__name__} {error}") from None


def _intrinsics(frame: _Frame, top: Path, size: tuple[int, int], notes: list[str]) -> Array:
    K = camera_settings.find_intrinsics(frame.scene, top, size)
    if K is not None:
        return K
    if frame.real:
        raise ConvertError(f"{frame.scene} has no {camera_settings.FILE}, so its camera is unknown; add one with fx, fy, cx and cy")
    if size[1] * 9 != size[0] * 16:
        shape = f"images of {size[1]}×{size[0]}, not 16:9 as published"
        raise ConvertError(f"{top} has no {camera_settings.FILE} and {shape}; add one with fx, fy, cx, cy")
    notes.append(FALLBACK_NOTE)
    return camera.resize_intrinsics(PUBLISHED_K, size[1] / 640, size[1] / 640)
