"""The files of a capture: finding, pairing and reading images, depth and masks, one clear line for each that is broken."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotators.capture_spec import CaptureError, Source

Array = np.ndarray

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DEPTHS = (".png", ".npy", ".npz", ".tif", ".tiff")
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm")
PNG_SIGNATURE, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def natural(path: Path) -> tuple[Any, ...]:
    """Sort key: numbers in names by value, so `2.png` comes before `10.png`."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part)


def find_files(source: Source, key: str, text: str, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder or pattern, in natural order. CaptureError when there are none."""
    path = source.path(key, text)
    if any(c in path.name for c in "*?["):
        found = list(path.parent.glob(path.name))
    elif path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in suffixes]
    else:
        raise source.error(key, f"{path} is not a folder; give a folder, or a pattern such as {path.name}/*{suffixes[0]}")
    found = [p for p in found if not p.name.startswith(".")]
    if not found:
        raise source.error(key, f"{path} holds no files of the kinds {', '.join(suffixes)}")
    return sorted(found, key=natural)


def frame_number(path: Path) -> int | None:
    """The last number in a file's name; None without one."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def pair(source: Source, key: str, frames: Sequence[Path], others: Sequence[Path]) -> list[Path | None]:
    """The file of each frame among `others`: by the number in the name, or by order where the numbers are unrelated.

    None where a single frame has no file. CaptureError when neither numbers nor counts agree.
    """
    wanted = [frame_number(p) for p in frames]
    numbered = {frame_number(p): p for p in others}
    usable = None not in wanted and None not in numbered and len(set(wanted)) == len(frames) and len(numbered) == len(others)
    common = sum(n in numbered for n in wanted)
    if usable and common >= max(0.5 * len(frames), 1):
        return [numbered.get(n) for n in wanted]
    if len(frames) == len(others):
        return list(others)
    raise source.error(
        key, f"{len(others)} files for {len(frames)} images, and the numbers in their names do not pair; remove what does not belong"
    )


def check_whole(path: Path) -> tuple[int, int] | None:
    """Raise CaptureError for an empty or truncated picture or array; returns a PNG's (width, height) from its header."""
    try:
        with path.open("rb") as file:
            head = file.read(33)
            file.seek(max(path.stat().st_size - 256, 0))
            tail = file.read()
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    suffix = path.suffix.lower()
    broken = not head
    if suffix == ".png":
        broken = not head.startswith(PNG_SIGNATURE) or PNG_END not in tail
    elif suffix in (".jpg", ".jpeg"):
        broken = not head.startswith(b"\xff\xd8") or b"\xff\xd9" not in tail
    elif suffix == ".npz":
        broken = not zipfile.is_zipfile(path)
    elif suffix == ".npy":
        broken = _npy_is_short(path)
    if broken:
        raise CaptureError(f"{path} is empty, truncated or no {suffix[1:]} file ({path.stat().st_size} bytes); copy it again or remove it")
    return struct.unpack(">II", head[16:24]) if suffix == ".png" else None


def _npy_is_short(path: Path) -> bool:
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return True
    return False


def read_image(path: Path, colour: bool = True) -> Array:
    """(H,W,3) RGB uint8, or (H,W) as stored. CaptureError when it cannot be decoded."""
    import cv2

    check_whole(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if colour else cv2.IMREAD_UNCHANGED)
    if image is None:
        raise CaptureError(f"{path} is not an image that can be read; copy it again or remove it")
    if colour:
        return np.ascontiguousarray(image[..., ::-1])
    return image if image.ndim == 2 else image[..., 0]


def read_depth(path: Path, unit_m: float | None) -> Array:
    """(H,W) float32 metres, 0 = none. Integers are multiples of `unit_m` (default 1 mm), floats of `unit_m` (default 1 m)."""
    check_whole(path)
    stored = read_image(path, colour=False) if path.suffix.lower() not in (".npy", ".npz") else _read_array(path)
    if stored.ndim != 2:
        raise CaptureError(f"{path} holds an array of shape {stored.shape}; depth is (height, width)")
    if stored.dtype == np.uint8:
        raise CaptureError(f"{path} has 8 bits per pixel, too few for depth; give 16-bit PNG or float arrays")
    unit = unit_m or (0.001 if stored.dtype.kind in "ui" else 1.0)
    depth = stored.astype(np.float32) * np.float32(unit)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _read_array(path: Path) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if "data" not in loaded.files:
                raise CaptureError(f"{path} holds {', '.join(loaded.files)}; depth is expected under the key 'data'")
            return loaded["data"]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CaptureError(f"{path} is not an array in numpy's format: {str(error).splitlines()[0]}") from None


def read_mask(path: Path, robot_is_white: bool) -> Array:
    """(H,W) bool, true on the robot. Pictures of 0 and 255, of 0 and 1 or of ids are all understood."""
    image = read_image(path, colour=False)
    return (image > (127 if image.max(initial=0) > 127 else 0)) == robot_is_white


def expect_size(image: Array, size: tuple[int, int], where: Path, what: str) -> Array:
    """The image itself. CaptureError unless it is as large as the colour images (width, height)."""
    if image.shape[1::-1] != size:
        w, h = image.shape[1], image.shape[0]
        raise CaptureError(f"{where}: {what} of {w}×{h} for images of {size[0]}×{size[1]}; give {what} aligned to the colour image")
    return image
