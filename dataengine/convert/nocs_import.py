"""Reader of REAL275 and CAMERA25 folders; the layout is described in `nocs.py`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import NO_NAMES, blank_rows, by_clip, image_size, stack_images
from dataengine.convert.disk import Array, ConvertError
from dataengine.convert.nocs import CAMERA_FILE, CLASSES, FROM_OURS, MAX_OBJECTS, NONE, PUBLISHED_K, decode_coord, read_truth, unit_points
from dataengine.convert.similarity import fit_similarity
from dataengine.geometry import camera, se3
from dataengine.record.video import Video

FAR_OFF = 0.05
"""Share of the image width by which true poses do not miss their masks' middles."""
WORST_FIT = 0.03
"""Median distance between posed coordinates and depth, over the diagonal, above which a fit is not believed."""
Key = tuple[int, str]
"""Instance id and model: in some sequences the ids change their objects."""


@dataclass(frozen=True)
class _Instance:
    value: int
    class_id: int
    model: str
    real: bool

    @property
    def key(self) -> Key:
        return self.value, self.model


def import_nocs(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Every scene folder in clips of `frames_per_video` (default 30); needs _color, _mask and _meta of a frame.

    Object poses come from the `gts` folder in or beside the one given; where it has none, they are fitted to _coord and _depth as
    NOCS does itself. Sizes, and with them the `nocs` images, come from gts, from `obj_models`, or from the coordinates seen.
    """
    found = sorted(disk.source_folder(folder).rglob("*_meta.txt"), key=disk.natural)
    found = [p for p in found if p.with_name(p.name.replace("_meta.txt", "_color.png")).is_file()]
    if not found:
        raise ConvertError(f"{folder} holds no NNNN_meta.txt with NNNN_color.png: not a NOCS folder")
    truths = _index(folder, "gts", "results_*.pkl")
    models = _index(folder, "obj_models", "*.txt")
    for clip in by_clip(found, frames_per_video or 30, lambda before, path: before.parent != path.parent):
        yield _video(clip, folder, truths, models)


def _index(folder: Path, name: str, pattern: str) -> dict[str, Path]:
    """Files below the nearest folder `name`, in the one given or up to two levels above it, by file name."""
    for place in (folder.resolve(), *folder.resolve().parents[:2]):
        if (place / name).is_dir():
            return {p.name: p for p in (place / name).rglob(pattern)}
    return {}


def _video(metas: list[Path], top: Path, truths: dict[str, Path], models: dict[str, Path]) -> Video:
    listed = [_read_meta(path) for path in metas]
    keys = sorted({i.key for instances in listed for i in instances})
    if len(keys) > MAX_OBJECTS:
        raise ConvertError(f"{metas[0].parent} has {len(keys)} objects; mask_object holds {MAX_OBJECTS}, import fewer frames per video")
    kind = "real" if all(i.real for instances in listed for i in instances) else "rendered"
    raw = [_read_images(path) for path in metas]
    size = raw[0]["rgb"].shape[:2]
    names = replace(NO_NAMES, objects=tuple(model for _, model in keys))
    rows = blank_rows(names, len(metas))
    rows["K"] = _intrinsics(metas, size, kind)
    classes = {i.key: i.class_id for instances in listed for i in instances}
    sizes: dict[Key, Array] = {}
    fitted = 0
    told = [_truth_of(path, instances, image["mask"], truths) for path, instances, image in zip(metas, listed, raw, strict=True)]
    turned = not (metas[0].parent / CAMERA_FILE).exists() and _turned(told, [r["mask"] for r in raw], rows["K"])
    for row, truth, instances, image in zip(rows, told, listed, raw, strict=True):
        for i, RT, extent in truth:
            if posed := _pose_and_size(RT, extent, turned):
                row["T_cam_object"][keys.index(i.key)] = posed[0]
                sizes.setdefault(i.key, posed[1])
        for i in instances:
            pose = row["T_cam_object"][keys.index(i.key)]
            if np.isnan(pose).all() and (found := _fit(image, i.value, row["K"])):
                diagonal, pose[:] = found
                fitted += 1
                sizes.setdefault(i.key, diagonal * _proportions(i, image, models))
    images = stack_images([_modalities(i, r, keys, sizes, kind) for i, r in zip(listed, raw, strict=True)], metas[0].parent)
    image_size(images, metas[0].parent)
    things = [
        {"instance_id": k + 1, "name": key[1], "category": CLASSES[classes[key] - 1] if classes[key] else "other"}
        | ({"size_m": sizes[key].tolist()} if key in sizes else {})
        for k, key in enumerate(keys)
    ]
    notes = ["object poses that no gts file states were fitted to coordinates and depth, as NOCS does itself"] if fitted else []
    scene = {
        "format": "nocs",
        "origin": metas[0].parent.relative_to(top).as_posix(),
        "files": [p.name[:-9] for p in metas],
        "objects": things,
    }
    return Video(kind, names, images, rows, scene, {"imported_from": "NOCS"}, notes={"import": notes}).check()


def _read_meta(path: Path) -> list[_Instance]:
    out = []
    for line in disk.read_bytes(path).decode(errors="replace").splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) not in (3, 4) or not (words[0].isdigit() and words[1].isdigit()) or int(words[1]) > len(CLASSES):
            raise ConvertError(f"{path}: '{line}' is not instance id, class id 0 to {len(CLASSES)}, (synset,) model")
        out.append(_Instance(int(words[0]), int(words[1]), words[-1], len(words) == 3))
    return out


def _read_images(meta: Path) -> dict[str, Array]:
    prefix = str(meta).removesuffix("meta.txt")
    out: dict[str, Array] = {"rgb": disk.read_image(Path(f"{prefix}color.png"), colour=True).astype(np.uint8)}
    mask = disk.read_image(Path(f"{prefix}mask.png"))
    out["mask"] = mask[..., 0] if mask.ndim == 3 else mask
    if (path := Path(f"{prefix}coord.png")).is_file():
        out["coord"] = disk.read_image(path, colour=True)
    if (path := Path(f"{prefix}depth.png")).is_file():
        depth = disk.read_image(path).astype(np.float64)
        out["depth"] = (depth if depth.ndim == 2 else 256 * depth[..., 1] + depth[..., 0]) / 1000
    for name, image in out.items():
        if image.shape[:2] != out["rgb"].shape[:2]:
            raise ConvertError(f"{prefix}{name}.png is not of the size of the colour image")
    return out


def _intrinsics(metas: list[Path], size: tuple[int, ...], kind: str) -> Array:
    path = metas[0].parent / CAMERA_FILE
    if path.is_file():
        told = disk.read_json(path)
        try:
            return np.array([told[p.name.removesuffix("_meta.txt")] for p in metas], float).reshape(-1, 3, 3)
        except (KeyError, ValueError, TypeError):
            raise ConvertError(f"{path} must hold a 3×3 matrix for each frame number") from None
    if size != (480, 640):
        raise ConvertError(
            f"{metas[0].parent}: images of {size[1]}×{size[0]}, and NOCS' cameras are published for 640×480; add {CAMERA_FILE}"
        )
    return PUBLISHED_K[kind]


def _truth_of(meta: Path, instances: list[_Instance], mask: Array, truths: dict[str, Path]) -> list[tuple[_Instance, Array, Array]]:
    """(instance, gt_RT, gt_scale) from the frame's ground-truth file; empty where there is none that fits."""
    split, scene, frame = meta.parent.parent.name, meta.parent.name, meta.name.removesuffix("_meta.txt")
    path = next((truths[n] for n in (f"results_{p}{split}_{scene}_{frame}.pkl" for p in ("", "real_")) if n in truths), None)
    if path is None:
        return []
    truth = read_truth(path)
    seen = [i for i in instances if i.class_id and (mask == i.value).any()]
    if [i.class_id for i in seen] != np.asarray(truth["gt_class_ids"]).tolist():
        return []
    RTs, scales = np.reshape(truth["gt_RTs"], (-1, 4, 4)), np.reshape(truth["gt_scales"], (-1, 3))
    return list(zip(seen, RTs.astype(float), scales.astype(float), strict=True))


def _turned(told: list[list[tuple[_Instance, Array, Array]]], masks: list[Array], K: Array) -> bool:
    """Whether poses are in NOCS' internal camera (x left, y up), as some copies have them: then they project far from the masks."""
    middles = [np.argwhere(mask == i.value).mean(0)[::-1] for truth, mask in zip(told, masks, strict=True) for i, _, _ in truth]
    if not middles:
        return False
    centres = np.array([RT[:3, 3] for truth in told for _, RT, _ in truth])
    cameras = np.concatenate([np.broadcast_to(k, (len(truth), 3, 3)) for k, truth in zip(K, told, strict=True)])
    straight, turned = (
        np.mean([np.linalg.norm(camera.project(k, p) - m) for k, p, m in zip(cameras, centres * sign, middles, strict=True)])
        for sign in ((1, 1, 1), (-1, -1, 1))
    )
    return bool(straight > FAR_OFF * masks[0].shape[1] and turned < straight / 2)


def _pose_and_size(RT: Array, extent: Array, turned: bool) -> tuple[Array, Array] | None:
    """Pose and size (m) in our axes."""
    RT = np.diag([-1.0, -1.0, 1.0, 1.0]) @ RT if turned else RT
    diagonal = np.cbrt(np.linalg.det(RT[:3, :3]))
    if not diagonal > 0:
        return None
    return se3.make(RT[:3, :3] / diagonal @ FROM_OURS, RT[:3, 3]), np.abs(FROM_OURS.T) @ extent * diagonal


def _fit(image: dict[str, Array], value: int, K: Array) -> tuple[float, Array] | None:
    """Diagonal (m) and pose (our axes) from coordinates and depth; None where they do not agree, as on things without coordinates."""
    if "coord" not in image or "depth" not in image:
        return None
    here = (image["mask"] == value) & (image["depth"] > 0)
    unit, points = unit_points(image["coord"], here), camera.backproject(K, image["depth"])[here]
    if (fit := fit_similarity(unit, points)) is None:
        return None
    diagonal, R, t = fit
    residual_m = np.median(np.linalg.norm(diagonal * unit @ R.T + t - points, axis=1))
    return (diagonal, se3.make(R @ FROM_OURS, t)) if residual_m < WORST_FIT * diagonal else None


def _proportions(i: _Instance, image: dict[str, Array], models: dict[str, Path]) -> Array:
    """Sides of the box over its diagonal, our axes: of the model's file, else of the coordinates seen, which may be too small."""
    if f"{i.model}.txt" in models:
        sides = np.array(disk.read_bytes(models[f"{i.model}.txt"]).split(), float)[:3]
        return np.abs(FROM_OURS.T) @ (sides / np.linalg.norm(sides))
    reach = 2 * np.abs(unit_points(image["coord"], image["mask"] == i.value)).max(0)
    return np.abs(FROM_OURS.T) @ np.maximum(reach, 1e-3)


def _modalities(instances: list[_Instance], raw: dict[str, Array], keys: list[Key], sizes: dict[Key, Array], kind: str) -> dict[str, Array]:
    numbers = np.zeros(256, np.uint8)
    for i in instances:
        if i.value < NONE:
            numbers[i.value] = keys.index(i.key) + 1
    out = {"rgb": raw["rgb"], "mask_object": numbers[raw["mask"]]}
    if "depth" in raw:
        out["depth_sim" if kind == "real" else "depth_z"] = raw["depth"].astype(np.float32)
    if "coord" in raw:
        out["nocs"] = decode_coord(raw["coord"], raw["mask"], {i.value: sizes[i.key] for i in instances if i.key in sizes})
    return out
