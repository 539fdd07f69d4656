"""Colour and infrared images as JPEG: the codec `jpeg` of zarr-extensions pull request 66 (a draft), cut for training.

A chunk is a baseline JPEG that every decoder opens. Two liberties that JPEG gives are used so that a trainer pays only
for what it needs:
* Restart markers split every row of 8×8 blocks into tiles whose bits do not depend on each other. A crop is decoded
  from a smaller JPEG put together from its tiles' bytes; it equals the same window of the whole image exactly.
* Behind the end of the image follows a second JPEG of half the size (mean of 2×2 pixels), and an APP9 segment at the
  front says where. Entropy decoding dominates the cost of a JPEG, so decoding the large one at half scale saves nothing.
Other decoders ignore both. Where they are missing, the whole image is decoded.
Source: ITU-T T.81 (markers: table B.1; restart intervals: B.2.4.4, E.2.4); pixels: libjpeg-turbo's.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from dataengine.errors import StoreError

COLOUR, GREY = "YCbCr", "grayscale"
TILE_BLOCKS = 4
"""Wanted width of a tile in blocks. Crops start and end at tiles, and every tile costs about 5 bytes."""

_TAG = b"dataengine-half\0"
_APP9 = struct.Struct(">2sH16sI")
"""Marker, length, tag, offset of the half-size JPEG from the start of the chunk."""
_FRAME, _TABLES_END, _RESTART_INTERVAL = 0xC0, 0xDA, 0xDD
_LARGEST_SIDE = 65_500


class NotAJpeg(Exception):
    """Bytes that are no JPEG of the expected kind and size."""


@dataclass(frozen=True)
class JpegCodec:
    """(…, H, W, 3) or (…, H, W) uint8 with leading axes of length 1 ↔ JPEG without chroma subsampling."""

    quality: int = 95
    colour: bool = True

    def metadata(self) -> dict[str, Any]:
        """The codec as `zarr.json` states it; inverse of `from_configuration`."""
        space = {"encoded_color_space": COLOUR, "chroma_subsampling": "4:4:4"} if self.colour else {"encoded_color_space": GREY}
        return {"name": "jpeg", "configuration": {"quality": self.quality} | space}

    def encode(self, array: np.ndarray) -> bytes:
        """Bytes of one image; equal images give equal bytes. Raises StoreError for anything but an 8-bit image."""
        image = self._image(array)
        height, width = image.shape[:2]
        if array.dtype != np.uint8 or not 0 < max(height, width) <= _LARGEST_SIDE:
            raise StoreError(f"jpeg holds uint8 images of up to {_LARGEST_SIDE} pixels a side, got {array.dtype}{array.shape}")
        whole = self._compress(image, tile_blocks(-(-width // 8)))
        offset = len(whole) + _APP9.size
        note = _APP9.pack(b"\xff\xe9", _APP9.size - 2, _TAG, offset)
        return b"".join((whole[:2], note, whole[2:], self._compress(halved(image), 0)))

    def decode(self, data: Any, out: np.ndarray) -> None:
        """The whole image into `out` (C-contiguous). Raises NotAJpeg."""
        self._decompress(data, self._image(out))

    def decode_half(self, data: Any, out: np.ndarray) -> None:
        """The image at half size into `out` (⌈H/2⌉, ⌈W/2⌉[, 3]). Raises NotAJpeg."""
        tag = bytes(data[2 : 2 + _APP9.size])
        if len(tag) == _APP9.size and tag[4:20] == _TAG:
            self._decompress(data[_APP9.unpack(tag)[3] :], out)
            return
        try:
            image = simplejpeg.decode_jpeg(data, self._space, min_height=out.shape[0], min_width=out.shape[1], min_factor=2)
        except ValueError as error:
            raise NotAJpeg(str(error)) from None
        if image.shape[:2] != out.shape[:2]:
            raise NotAJpeg(f"an image of {image.shape[1]}×{image.shape[0]} where {out.shape[1]}×{out.shape[0]} belong")
        out[...] = image.reshape(out.shape)

    def decode_window(self, data: Any, shape: tuple[int, ...], top: int, left: int, out: np.ndarray) -> None:
        """Rows from `top` and columns from `left` of an image of `shape` into `out` (h, w[, 3]). Raises NotAJpeg."""
        height, width = (shape[-3:] if self.colour else shape[-2:])[:2]
        tiles = _tiles(data, height, width)
        if tiles is None:
            image = np.empty((height, width, *out.shape[2:]), np.uint8)
            self._decompress(data, image)
            out[...] = image[top : top + out.shape[0], left : left + out.shape[1]]
            return
        small, size, (y, x) = tiles.crop(top, left, *out.shape[:2])
        image = np.empty((*size, *out.shape[2:]), np.uint8)
        self._decompress(small, image)
        out[...] = image[y : y + out.shape[0], x : x + out.shape[1]]

    @property
    def _space(self) -> str:
        return "RGB" if self.colour else "GRAY"

    def _image(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) or (H, W) view."""
        rank = 3 if self.colour else 2
        lead, shape = array.shape[:-rank], array.shape[-rank:]
        if len(shape) != rank or any(n != 1 for n in lead) or (self.colour and shape[-1] != 3):
            raise StoreError(f"jpeg in {COLOUR if self.colour else GREY} cannot hold a chunk of shape {array.shape}")
        return array.reshape(shape)

    def _compress(self, image: np.ndarray, restart_blocks: int) -> bytes:
        import cv2  # the encoder that can set restart markers; only writers need it

        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if self.colour else np.ascontiguousarray(image)
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, restart_blocks]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444] if self.colour else []
        done, data = cv2.imencode(".jpg", pixels, options)
        if not done:
            raise StoreError(f"OpenCV could not encode an image of {image.shape} as JPEG; update opencv-python-headless")
        return data.tobytes()

    def _decompress(self, data: Any, out: np.ndarray) -> None:
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            if (height, width) != out.shape[:2]:
                raise NotAJpeg(f"an image of {width}×{height} where {out.shape[1]}×{out.shape[0]} belong")
            simplejpeg.decode_jpeg(data, self._space, buffer=out)
        except ValueError as error:
            raise NotAJpeg(str(error)) from None


def from_configuration(configuration: dict[str, Any]) -> JpegCodec:
    """Codec of the `configuration` in `zarr.json`. Raises KeyError, TypeError for one that is not understood."""
    space = configuration["encoded_color_space"]
    if space not in (COLOUR, GREY):
        raise TypeError(f"encoded_color_space {space}, known are {COLOUR} and {GREY}")
    return JpegCodec(int(configuration["quality"]), space == COLOUR)


def tile_blocks(blocks: int) -> int:
    """Blocks per tile for a row of `blocks`: the divisor nearest to TILE_BLOCKS that is not below it, so that rows start tiles."""
    return next((n for n in range(TILE_BLOCKS, blocks + 1) if blocks % n == 0), blocks)


def halved(image: np.ndarray) -> np.ndarray:
    """Mean of 2×2 pixels, rounded half up; a last odd row or column is repeated. (⌈H/2⌉, ⌈W/2⌉[, C]) uint8.

    Pixel c of the result lies at 2c + 0.5 of the original.
    """
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, [(0, height % 2), (0, width % 2)] + [(0, 0)] * (image.ndim - 2), mode="edge")
    rows = image[::2].astype(np.uint16) + image[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


@dataclass(frozen=True)
class _Tiles:
    """Where the tiles of a JPEG lie: `start`, `stop` (rows, tiles per row) byte offsets; `width_px` of a tile."""

    data: np.ndarray
    head: bytes
    size_at: int
    start: np.ndarray
    stop: np.ndarray
    image: tuple[int, int]
    width_px: int

    def crop(self, top: int, left: int, height: int, width: int) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
        """(JPEG of the tiles that cover the window, its (height, width), the window's (top, left) in it)."""
        y0, y1 = top // 8, -(-(top + height) // 8)
        x0, x1 = left // self.width_px, -(-(left + width) // self.width_px)
        size = min(self.image[0], 8 * y1) - 8 * y0, min(self.image[1], self.width_px * x1) - self.width_px * x0
        head = bytearray(self.head)
        struct.pack_into(">HH", head, self.size_at, *size)
        rows = zip(self.start[y0:y1, x0].tolist(), self.stop[y0:y1, x1 - 1].tolist(), strict=True)
        body = bytearray(b"\xff\xd0".join([self.data[a:b].tobytes() for a, b in rows]))
        marks = _restarts(view := np.frombuffer(body, np.uint8))
        view[marks + 1] = 0xD0 + np.arange(len(marks)) % 8
        return b"".join((head, body, b"\xff\xd9")), size, (top - 8 * y0, left - self.width_px * x0)


def _tiles(data: Any, height: int, width: int) -> _Tiles | None:
    """The tiles of a chunk, None where it has no restart markers at the ends of its rows."""
    data = np.asarray(data) if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    head, size_at, interval, scan_at = _header(data)
    blocks, rows = -(-width // 8), -(-height // 8)
    if interval == 0 or blocks % interval or size_at == 0:
        return None
    end = len(data)
    tag = bytes(data[2 : 2 + _APP9.size])
    if len(tag) == _APP9.size and tag[4:20] == _TAG:
        end = min(end, _APP9.unpack(tag)[3])
    scan = data[scan_at:end]
    marks = _restarts(scan) + scan_at
    if len(marks) != rows * (blocks // interval) - 1:
        raise NotAJpeg(f"{len(marks)} restart markers where {rows * (blocks // interval) - 1} belong")
    start = np.concatenate([[scan_at], marks + 2]).reshape(rows, -1)
    stop = np.concatenate([marks, [end - 2]]).reshape(rows, -1)
    return _Tiles(data, head, size_at, start, stop, (height, width), 8 * interval)


def _header(data: np.ndarray) -> tuple[bytes, int, int, int]:
    """(bytes up to the entropy-coded data, offset of height and width in them, restart interval, length of them)."""
    start = bytes(data[: min(len(data), 4096)])
    at, size_at, interval = 2, 0, 0
    while at + 4 <= len(start) and start[at] == 0xFF:
        marker, length = start[at + 1], int.from_bytes(start[at + 2 : at + 4], "big")
        if marker == _FRAME:
            size_at = at + 5
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(start[at + 4 : at + 6], "big")
        at += 2 + length
        if marker == _TABLES_END:
            return start[:at], size_at, interval, at
    raise NotAJpeg("no start of scan")


def _restarts(scan: np.ndarray) -> np.ndarray:
    """Offsets of the restart markers RST0 … RST7 in entropy-coded data, where 0xFF is followed by nothing else but 0."""
    at = np.flatnonzero(scan[:-1] == 0xFF)
    return at[(scan[at + 1] & 0xF8) == 0xD0]
