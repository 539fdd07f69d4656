"""NOCS: REAL275 and CAMERA25 (Wang et al., CVPR 2019).

`<split>/<scene>/FFFF_color.png`, `_depth.png` (16 bit mm; CAMERA: mm = 256·G + R), `_mask.png` (red = instance id, 255 none),
`_coord.png` (RGB = point in the normalised object frame, blue 1 − z), `_meta.txt` (instance id, class id, model; CAMERA has the
synset before the model), and beside them `gts/…/results_<split>_<scene>_<frame>.pkl`. The normalised frame is centred at 0.5 and
divided by the DIAGONAL of the bounding box, gt_RTs hold that scale, gt_scales the box in units of it. y is up there; in our
records z is up and `nocs` runs 0…1 along each side of the box: both are converted here.
"""

import io
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import depth_image, finite, objects_of, require
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera
from dataengine.record.video import Video

CLASSES = ("bottle", "bowl", "camera", "can", "laptop", "mug")
"""Class ids 1 … 6; 0 is anything else."""
FROM_OURS = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Our object axes (z up) → NOCS axes (y up)."""
NONE = 255
MAX_OBJECTS = 253
PUBLISHED_K = {
    "real": camera.intrinsics(591.0125, 590.16775, 322.525, 244.11084),
    "rendered": camera.intrinsics(577.5, 577.5, 319.5, 239.5),
}
"""For 640×480; NOCS states them in its code, no file holds them. Our exports add `camera.json`."""
CAMERA_FILE = "camera.json"


def export_nocs(videos: Iterable[Video], out: Path) -> int:
    """Write rendered videos as CAMERA25 below `train`, real ones as REAL275 below `real_train`; returns how many.

    Coordinates are 8 bit, depth whole millimetres. ConvertError: not an empty folder; rgb, depth, mask_object or nocs missing;
    objects of unknown size or pose.
    """
    disk.new_folder(out)
    count = 0
    for video in videos:
        split, scene = ("train", f"{count:05d}") if video.source == "rendered" else ("real_train", f"scene_{count + 1}")
        things = [thing | {"size_m": np.array(finite(np.array(thing["size_m"]), "an object's size"))} for thing in objects_of(video)]
        folder = out / split / scene
        K = np.asarray(finite(video.frames["K"], "the camera matrix"))
        disk.write_json(folder / CAMERA_FILE, {f"{f:04d}": K[f].tolist() for f in range(video.frame_count)})
        for f in range(video.frame_count):
            _write_images(video, things, f, folder / f"{f:04d}_")
            truth = _truth(video, things, f)
            name = f"results_{split}_{scene}_{f:04d}.pkl"
            disk.write_bytes(out / "gts" / split / name, pickle.dumps(truth | {"image_id": f, "image_path": f"{split}/{scene}/{f:04d}"}, 2))
        count += 1
    return count


def class_id(category: str) -> int:
    return CLASSES.index(category) + 1 if category in CLASSES else 0


def _write_images(video: Video, things: list[dict[str, Any]], f: int, prefix: Path) -> None:
    disk.write_png(Path(f"{prefix}color.png"), require(video, "rgb", "NOCS")[f])
    millimetres = np.rint(depth_image(video, "NOCS")[1][f].astype(np.float64) * 1000)
    disk.write_png(Path(f"{prefix}depth.png"), np.where(millimetres < 65536, millimetres, 0).astype(np.uint16))
    ids = require(video, "mask_object", "NOCS")[f]
    mask = np.where((ids > 0) & (ids <= len(things)), ids, NONE).astype(np.uint8)
    disk.write_png(Path(f"{prefix}mask.png"), np.repeat(mask[..., None], 3, 2))
    disk.write_png(Path(f"{prefix}coord.png"), encode_coord(require(video, "nocs", "NOCS")[f], ids, things))
    lines = []
    for k, thing in enumerate(things):
        model = str(thing["name"]).replace(" ", "_")
        synset = f"{thing['category']} " if video.source == "rendered" else ""
        lines.append(f"{k + 1} {class_id(thing['category'])} {synset}{model}\n")
    disk.write_bytes(Path(f"{prefix}meta.txt"), "".join(lines).encode())


def encode_coord(nocs: Array, ids: Array, things: list[dict[str, Any]]) -> Array:
    """Our (H,W,3) uint16 box coordinates → NOCS' 8-bit image; white where there is no object."""
    out = np.full(nocs.shape, 255, np.uint8)
    for k, thing in enumerate(things):
        here = ids == k + 1
        point_m = (nocs[here] / 65535 - 0.5) * thing["size_m"]
        unit = point_m @ FROM_OURS.T / np.linalg.norm(thing["size_m"]) + 0.5
        unit[:, 2] = 1 - unit[:, 2]
        out[here] = np.rint(unit * 255).astype(np.uint8)
    return out


def decode_coord(coord: Array, mask: Array, sizes: dict[int, Array]) -> Array:
    """Inverse of `encode_coord`: `sizes` maps a value of `mask` to the object's size in our axes (any unit)."""
    out = np.zeros(coord.shape, np.uint16)
    for value, size in sizes.items():
        here = mask == value
        point = unit_points(coord, here) @ FROM_OURS * np.linalg.norm(size)
        out[here] = np.rint(np.clip(point / size + 0.5, 0, 1) * 65535).astype(np.uint16)
    return out


def unit_points(coord: Array, here: Array) -> Array:
    """(n,3) points in the normalised object frame, centred at 0, NOCS axes."""
    unit = coord[here] / 255.0
    unit[:, 2] = 1 - unit[:, 2]
    return unit - 0.5


def _truth(video: Video, things: list[dict[str, Any]], f: int) -> dict[str, Any]:
    """What NOCS' own evaluation files hold, for the visible instances of the six classes."""
    ids = video.images["mask_object"][f]
    seen = [k for k, t in enumerate(things) if class_id(t["category"]) and (ids == k + 1).any()]
    RTs, scales, boxes = [], [], []
    for k in seen:
        size = things[k]["size_m"]
        T = np.array(finite(video.frames["T_cam_object"][f, k], "an object's pose"))
        diagonal = np.linalg.norm(size)
        T[:3, :3] = diagonal * T[:3, :3] @ FROM_OURS.T
        RTs.append(T)
        scales.append(np.abs(FROM_OURS) @ size / diagonal)
        rows, columns = np.nonzero(ids == k + 1)
        boxes.append([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    return {
        "gt_class_ids": np.array([class_id(things[k]["category"]) for k in seen], np.int32),
        "gt_bboxes": np.array(boxes, np.int32).reshape(-1, 4),
        "gt_RTs": np.array(RTs, float).reshape(-1, 4, 4),
        "gt_scales": np.array(scales, float).reshape(-1, 3),
        "gt_handle_visibility": np.ones(len(seen), np.int32),
    }


class _NumpyOnly(pickle.Unpickler):
    """A pickle may run any code on loading; NOCS' files need only arrays, so nothing else is let in."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("_codecs", "encode"),
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_truth(path: Path) -> dict[str, Any]:
    """A results_*.pkl. ConvertError when it is none, or holds anything but numpy arrays and plain values."""
    try:
        truth = _NumpyOnly(io.BytesIO(disk.read_bytes(path)), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, ImportError) as error:
        raise ConvertError(f"{path} is not a NOCS ground-truth pickle: {error}") from None
    if not isinstance(truth, dict) or not {"gt_class_ids", "gt_RTs", "gt_scales"} <= truth.keys():
        raise ConvertError(f"{path} is not a NOCS ground-truth pickle: it needs gt_class_ids, gt_RTs and gt_scales")
    return truth
