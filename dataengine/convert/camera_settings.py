"""NDDS `_camera_settings.json`, which SimRGBD-Franka and DREAM share."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import finite
from dataengine.convert.disk import Array, ConvertError
from dataengine.geometry import camera
from dataengine.record.video import Video

FILE = "_camera_settings.json"


def settings_json(K: Array, size: tuple[int, int]) -> dict[str, Any]:
    """The NDDS form of one camera; `size` is (height, width)."""
    height, width = size
    intrinsic = {
        "fx": float(K[0, 0]), "fy": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2]), "s": float(K[0, 1]),
        "hfov": math.degrees(2 * math.atan(0.5 * width / K[0, 0])), "resX": width, "resY": height,
        "resolution": {"width": width, "height": height},
    }  # fmt: skip
    captured = {"width": width, "height": height}
    return {"camera_settings": [{"name": "camera", "intrinsic_settings": intrinsic, "captured_image_size": captured}]}


def write_settings(video: Video, folder: Path) -> None:
    """Write the folder's one settings file. ConvertError when the camera differs between frames or from the videos before."""
    path = folder / FILE
    K = np.asarray(finite(video.frames["K"], "the camera matrix"))
    if len(K) == 0:
        raise ConvertError("a video without frames cannot be exported")
    settings = settings_json(K[0], video.size)
    if np.ptp(K, axis=0).any() or (path.exists() and disk.read_json(path) != settings):
        raise ConvertError(f"{FILE} holds one camera, these frames have several; export each camera to a folder of its own")
    disk.write_json(path, settings)


def find_intrinsics(folder: Path, top: Path, size: tuple[int, int]) -> Array | None:
    """K for images of `size` (h,w), from the nearest settings file of `folder` … `top`; None when there is none or it is empty.

    Intrinsics stated for another image size are rescaled. ConvertError when a file holds something else than settings.
    """
    for place in (folder, *folder.parents):
        path = place / FILE
        if path.is_file() and path.read_bytes().strip() not in (b"", b"{}", b"[]"):
            return _scaled(_first_camera(disk.read_json(path), path), size, path)
        if place == top:
            return None
    return None


def _first_camera(data: Any, path: Path) -> dict[str, Any]:
    """NDDS form, or fx, fy, cx, cy at the top, as hand-made files have them."""
    try:
        given = data["camera_settings"][0] if "camera_settings" in data else data
        flat = given.get("intrinsic_settings", given)
        K = camera.intrinsics(*(float(flat[k]) for k in ("fx", "fy", "cx", "cy")))
        K[0, 1] = float(flat.get("s", 0.0))
        size = flat.get("resolution") or given.get("captured_image_size") or {}
        return {"K": K, "size": (int(size["height"]), int(size["width"])) if size else None}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        needs = "fx, fy, cx and cy in camera_settings[0].intrinsic_settings"
        raise ConvertError(f"{path} is not an NDDS camera file: it needs {needs}") from None


def _scaled(given: dict[str, Any], size: tuple[int, int], path: Path) -> Array:
    told = given["size"] or size
    if told == size:
        return given["K"]
    if told[0] * size[1] != told[1] * size[0]:
        raise ConvertError(f"{path} is for images of {told[1]}×{told[0]}, the images are {size[1]}×{size[0]}: not the same shape")
    scale = size[0] / told[0]
    return np.asarray(camera.resize_intrinsics(given["K"], scale, scale))
