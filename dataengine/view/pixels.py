"""Per-pixel values inside a web page: small PNGs whose channels a canvas reads back exactly.

`ids` is at full size, because ids compress to almost nothing: red = `mask_link`, green = `mask_object`, blue =
`amodal_robot`. Everything else is every second pixel of every second row (the value of that pixel, not an average),
which bounds the page's size: `true` and `sim` hold depth in steps of 0.25 mm, high byte red, low byte green, 0 = none,
clipped at 16.38 m; `normals` holds n + 128 (camera axes, n × 127); `nocs` the high byte of each coordinate.
No alpha channel is used: a canvas would multiply the colours by it.
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RecordError
from dataengine.record.video import Video

DEPTH_STEP_M = 0.00025
STRIDE = 2
Packed = NDArray[np.uint8]


def pack_frame(video: Video, frame: int) -> dict[str, Packed]:
    """The packed pictures (H, W, 3) of one frame that the video's modalities allow."""
    images = {name: array[frame] for name, array in video.images.items()}
    packed: dict[str, Packed] = {}
    layers = [images.get(n) for n in ("mask_link", "mask_object", "amodal_robot")]
    if any(layer is not None for layer in layers):
        height, width = video.size
        packed["ids"] = np.stack([np.zeros((height, width), np.uint8) if x is None else x for x in layers], -1)
    for name, key in (("depth_z", "true"), ("depth_sim", "sim")):
        if name in images:
            packed[key] = pack_depth(images[name][::STRIDE, ::STRIDE])
    if "normals" in images:
        packed["normals"] = (images["normals"][::STRIDE, ::STRIDE].astype(np.int16) + 128).astype(np.uint8)
    if "nocs" in images:
        packed["nocs"] = (images["nocs"][::STRIDE, ::STRIDE] >> 8).astype(np.uint8)
    return packed


def pack_depth(depth_m: NDArray[np.floating]) -> Packed:
    """Depth (H, W) in m → (H, W, 3): high byte, low byte, 0 of its number of steps; a valid depth never packs to 0."""
    steps = np.round(np.asarray(depth_m, np.float64) / DEPTH_STEP_M)
    steps = np.where(depth_m > 0, np.clip(steps, 1, 65535), 0).astype(np.uint16)
    return np.stack([(steps >> 8).astype(np.uint8), (steps & 255).astype(np.uint8), np.zeros(steps.shape, np.uint8)], -1)


def unpack_depth(packed: Packed) -> NDArray[np.float64]:
    """Inverse of `pack_depth`, in m."""
    return (packed[..., 0].astype(np.float64) * 256 + packed[..., 1]) * DEPTH_STEP_M


def png_uri(image: NDArray[np.uint8]) -> str:
    """Lossless data address of a picture (H, W, 3)."""
    return _uri(image, ".png", "image/png", [(16, 6)])  # cv2.IMWRITE_PNG_COMPRESSION


def webp_uri(image: NDArray[np.uint8], quality: int = 88) -> str:
    """Small, slightly lossy data address of a picture (H, W, 3)."""
    return _uri(image, ".webp", "image/webp", [(64, quality)])  # cv2.IMWRITE_WEBP_QUALITY


def _uri(image: NDArray[np.uint8], suffix: str, mime: str, options: list[tuple[int, int]]) -> str:
    import cv2

    done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), [v for pair in options for v in pair])
    if not done:
        raise RecordError(f"cannot encode a picture of shape {image.shape} as {mime}; expected (H, W, 3) uint8")
    return f"data:{mime};base64,{base64.b64encode(data.tobytes()).decode()}"
