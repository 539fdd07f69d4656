"""Files in and out of foreign layouts: PNG, OpenEXR, numpy, JSON, each with one-line errors."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import DataEngineError
from dataengine.store import files

Array = NDArray[Any]


class ConvertError(DataEngineError):
    """A folder that is not in the layout it was said to be, or a video that a layout cannot hold."""


def new_folder(path: Path) -> Path:
    """Create an output folder. ConvertError when it exists and holds anything; nothing is ever written over."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConvertError(f"{path} exists and is not an empty folder; give a new folder to export to")
    with files.reported(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def source_folder(path: Path) -> Path:
    """ConvertError unless `path` is a folder."""
    if not path.is_dir():
        raise ConvertError(f"{path} is not a folder; give the folder of the dataset to import")
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, creating its folder. StoreError when the disk refuses."""
    with files.reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Floats are written so that they read back bit by bit; nan is refused, JSON has none."""
    write_bytes(path, (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """ConvertError when the file is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConvertError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ConvertError(f"{path} cannot be read as JSON: {error}") from None


def write_png(path: Path, image: Array) -> None:
    """(H,W) or RGB (H,W,3), uint8 or uint16, lossless."""
    import cv2

    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not ok:
        raise ConvertError(f"{path}: an array {image.dtype}{image.shape} is no PNG")
    write_bytes(path, data.tobytes())


def read_image(path: Path, colour: bool | None = None) -> Array:
    """PNG or JPEG as stored: (H,W) or RGB (H,W,3). `colour` True forces 3 channels (an alpha is dropped), False one: the first stored."""
    import cv2

    data = read_bytes(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise ConvertError(f"{path} is not an image that can be read; it may be cut short")
    if image.ndim == 3:
        image = image[..., :3][..., ::-1]
        return np.ascontiguousarray(image if colour is not False else image[..., 0])
    return np.repeat(image[..., None], 3, 2) if colour else image


def read_bytes(path: Path) -> bytes:
    """ConvertError when the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConvertError(f"{path}: {error.strerror}") from None


def write_exr(path: Path, channels: Mapping[str, Array]) -> None:
    """Scan-line OpenEXR of float32 (never half) or uint32 channels, ZIP (lossless)."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    parts = {name: OpenEXR.Channel(name, np.ascontiguousarray(pixels)) for name, pixels in channels.items()}
    with files.reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with OpenEXR.File(header, parts) as out:
                out.write(str(path))
        except RuntimeError as error:  # its own form of an OSError, without a number
            raise ConvertError(f"{path} cannot be written: {error}; check free space and permissions") from None


def write_grey_exr(path: Path, image: Array) -> None:
    """The same float32 values in R, G and B: readers that index a channel find them in any."""
    write_exr(path, {"R": image, "G": image, "B": image})


def read_exr(path: Path) -> dict[str, Array]:
    """Channel name → (H,W) float16, float32 or uint32, as stored."""
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            return {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, OSError) as error:
        raise ConvertError(f"{path} is not an OpenEXR image that can be read: {error}") from None


def exr_channel(path: Path, *preferred: str) -> Array:
    """One channel as float32: the first of `preferred` that the file has, else the last by name (R of an RGB image)."""
    channels = read_exr(path)
    name = next((p for p in preferred if p in channels), sorted(channels)[-1])
    return channels[name].astype(np.float32)


def natural(path: Path) -> tuple[Any, ...]:
    """Sort key: numbers in names by value, so `2.hdf5` comes before `10.hdf5`."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.as_posix()) if part)


def write_npy(path: Path, array: Array) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_npy(path: Path) -> Array:
    """ConvertError unless it is a plain numpy array."""
    try:
        return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except ValueError as error:
        raise ConvertError(f"{path} is not an array in numpy's format: {error}") from None
