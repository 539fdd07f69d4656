"""Colour and infrared images as JPEG: the codec `jpeg` of zarr-extensions pull request 66 (a draft), cut for training.

A chunk is a baseline JPEG that every decoder opens. Two liberties that JPEG gives are used so that a trainer pays only
for what it needs:
* Restart markers split every row of 8×8 blocks into tiles whose bits do not depend on each other. A crop is decoded
  from a smaller JPEG put together from its tiles' bytes; it equals the same window of the whole image exactly.
* Behind the end of the image follows a second JPEG of half the size (mean of 2×2 pixels). Entropy decoding dominates the
  cost of a JPEG, so decoding the large one at half scale would save a tenth only.
An APP9 segment at the front says where the tiles and the second image lie. Other decoders ignore all of it; in a JPEG
without it the whole image is decoded.
Source: ITU-T T.81 (markers: table B.1; restart intervals: B.2.4.4, E.2.4); pixels: libjpeg-turbo's.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from dataengine.errors import StoreError

COLOUR, GREY = "YCbCr", "grayscale"
TILE_BLOCKS = 8
"""Wanted width of a tile in blocks. Crops start and end at tiles, and every tile costs about 5 bytes. Against 4: the whole image
1 % cheaper and 2 % smaller, a crop of 224×224 pixels 5 % dearer."""

HALF_QUALITY = 90
"""At most, of the half-size image: its mean of four pixels holds less noise, so it is as good as the whole one at 95."""

_TAG = b"dataengine-map\0\0"
_APP9 = struct.Struct(">2sH16sIHHHH")
"""Marker; length; tag; then, counted from the start of the chunk, offsets of the half-size JPEG, of the entropy-coded data and
of the image's height and width; blocks per tile and number of tiles. The length in bytes of every tile follows, 16 bits each."""
_FRAME, _SCAN = 0xC0, 0xDA
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
        blocks = tile_blocks(-(-width // 8))
        whole = self._compress(image, self.quality, blocks)
        half = self._compress(halved(image), min(self.quality, HALF_QUALITY), 0)
        return b"".join((whole[:2], _map_of(whole, blocks), whole[2:], half))

    def decode(self, data: Any, out: np.ndarray) -> None:
        """The whole image into `out` (C-contiguous). Raises NotAJpeg."""
        self._decompress(data, self._image(out))

    def decode_half(self, data: Any, out: np.ndarray) -> None:
        """The image at half size into `out` (⌈H/2⌉, ⌈W/2⌉[, 3]). Raises NotAJpeg."""
        found = _read_map(data)
        if found is not None:
            self._decompress(data[found[0] :], out)
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
        found = _read_map(data)
        if found is None:
            image = np.empty((height, width, *out.shape[2:]), np.uint8)
            self._decompress(data, image)
            y, x = top, left
        else:
            small, size, (y, x) = _crop(data, found, (height, width), (top, left, out.shape[0], out.shape[1]))
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

    def _compress(self, image: np.ndarray, quality: int, restart_blocks: int) -> bytes:
        import cv2  # the encoder that can set restart markers; only writers need it

        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if self.colour else np.ascontiguousarray(image)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, restart_blocks]
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


_Map = tuple[int, int, int, int, np.ndarray]
"""Offsets of the half-size JPEG, the entropy-coded data, height and width; blocks per tile; (tiles,) lengths in bytes."""


def _map_of(jpeg: bytes, blocks: int) -> bytes:
    """The APP9 segment of a JPEG with restart markers; empty where the lengths do not fit into it."""
    scan_at, size_at = _header(jpeg)
    data = np.frombuffer(jpeg, np.uint8)
    marks = np.flatnonzero((data[scan_at:-1] == 0xFF) & ((data[scan_at + 1 :] & 0xF8) == 0xD0)) + scan_at
    lengths = np.diff(marks, prepend=scan_at - 2, append=len(data) - 2) - 2
    size = _APP9.size + 2 * len(lengths)
    if size > 0xFFFF or scan_at + size > 0xFFFF or lengths.max() > 0xFFFF:
        return b""
    head = _APP9.pack(b"\xff\xe9", size - 2, _TAG, len(jpeg) + size, scan_at + size, size_at + size, blocks, len(lengths))
    return head + lengths.astype(">u2").tobytes()


def _read_map(data: Any) -> _Map | None:
    """Inverse of `_map_of`; None for a JPEG without one. Raises NotAJpeg where it points outside."""
    head = bytes(data[2 : 2 + _APP9.size])
    if len(head) < _APP9.size or head[4:20] != _TAG:
        return None
    _, _, _, half_at, scan_at, size_at, blocks, count = _APP9.unpack(head)
    start = 2 + _APP9.size
    lengths = np.frombuffer(data[start : start + 2 * count], ">u2").astype(np.int64)
    if len(lengths) != count or not size_at < scan_at < half_at < len(data) or scan_at + int(lengths.sum()) + 2 * count != half_at:
        raise NotAJpeg("its map of tiles does not fit")
    return half_at, scan_at, size_at, blocks, lengths


def _crop(
    data: Any, found: _Map, image: tuple[int, int], window: tuple[int, int, int, int]
) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """(JPEG of the tiles that cover the window (top, left, height, width), its (height, width), the window's (top, left) in it)."""
    _, scan_at, size_at, blocks, lengths = found
    top, left, height, width = window
    rows, wide = -(-image[0] // 8), 8 * blocks
    if lengths.size % rows or lengths.size // rows != -(-image[1] // wide):
        raise NotAJpeg(f"its {lengths.size} tiles do not make an image of {image[1]}×{image[0]}")
    lengths = lengths.reshape(rows, -1)
    start = scan_at + (np.cumsum(lengths + 2) - (lengths + 2).ravel()).reshape(rows, -1)
    y0, y1, x0, x1 = top // 8, -(-(top + height) // 8), left // wide, -(-(left + width) // wide)
    size = min(image[0], 8 * y1) - 8 * y0, min(image[1], wide * x1) - wide * x0
    head = bytearray(data[2 + _APP9.size + 2 * lengths.size : scan_at])
    struct.pack_into(">HH", head, size_at - 2 - _APP9.size - 2 * lengths.size, *size)
    last = start[y0:y1, x1 - 1] + lengths[y0:y1, x1 - 1]
    body = bytearray(b"\xff\xd0".join([bytes(data[a:b]) for a, b in zip(start[y0:y1, x0].tolist(), last.tolist(), strict=True)]))
    marks = np.cumsum(lengths[y0:y1, x0:x1] + 2)[:-1] - 2
    np.frombuffer(body, np.uint8)[marks + 1] = 0xD0 + np.arange(len(marks)) % 8  # they count modulo 8 from the first on
    return b"".join((b"\xff\xd8", head, body, b"\xff\xd9")), size, (top - 8 * y0, left - wide * x0)


def _header(jpeg: bytes) -> tuple[int, int]:
    """Offsets of the entropy-coded data, and of height and width."""
    at, size_at = 2, 0
    while jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        size_at = at + 5 if marker == _FRAME else size_at
        at += 2 + length
        if marker == _SCAN:
            return at, size_at
    raise NotAJpeg("no start of scan")
