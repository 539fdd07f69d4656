"""One inner chunk ↔ bytes by the codec chain that a zarr v3 array's metadata states. No zarr import, no threads.

The first codec of a chain turns an array into bytes (a *serializer*: `bytes`, `jpeg`), the others turn bytes into bytes
(`blosc`, `zstd`, `crc32c`). Names and configurations are those of the zarr v3 codec specifications, so a chain that
we write opens in every zarr v3 implementation, and a further codec is one more entry in a dictionary.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

from dataengine.errors import StoreError, unknown_name
from dataengine.record.modalities import Codec
from dataengine.store.jpeg_codec import JpegCodec, NotAJpeg, from_configuration, halved

# Blosc's thread pool places blocks in the order in which threads finish, so its bytes differ from run to run, and its
# lock does not survive fork. One thread has neither fault. (zarr-python sets the same.)
blosc.use_threads = False  # pyright: ignore[reportAttributeAccessIssue]

COLOUR_QUALITY, INFRARED_QUALITY = 95, 90
"""JPEG qualities of the profile `train`: about 40 dB each on rendered frames. Infrared speckle at 95 is hardly smaller than lossless."""

BLOCK = 1 << 20
"""Blosc block in bytes. Against its own choice: depth decodes in 0.33 instead of 0.44 ms and takes 4 % more, colour 0.63 and
2 % less, normals 0.30 and 1 % less, object coordinates 0.14 instead of 0.22 ms."""

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_BLOSC_HEADER = struct.Struct("<4xI8x")


class Decayed(Exception):
    """The bytes of one chunk do not decode; the reader adds which file and frame."""


def crc32c(data: Any) -> int:
    """CRC-32C (Castagnoli, RFC 3720) of bytes or of a contiguous uint8 array."""
    return google_crc32c.value(data)


class Serializer(Protocol):
    """Array → bytes, and back into a C-contiguous `out`."""

    def encode(self, array: np.ndarray) -> Any: ...
    def decode(self, data: Any, out: np.ndarray) -> None: ...


class Compressor(Protocol):
    """Bytes → bytes. `decode` may fill `out` (uint8) instead of returning new bytes; it always returns the result."""

    def encode(self, data: Any) -> Any: ...
    def decode(self, data: Any, out: np.ndarray | None = None) -> Any: ...


@dataclass(frozen=True)
class BytesCodec:
    """Raw little- or big-endian values in C order."""

    big_endian: bool = False

    def encode(self, array: np.ndarray) -> Any:
        stored = array.dtype.newbyteorder(">" if self.big_endian else "<")
        return _flat(np.ascontiguousarray(array, stored))

    def decode(self, data: Any, out: np.ndarray) -> None:
        flat = _flat(out)
        if len(data) != len(flat):
            raise Decayed(f"{len(data)} bytes where {len(flat)} belong")
        flat[:] = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        self.finish(out)

    def finish(self, out: np.ndarray) -> None:
        """What is left to do when the bytes lie in `out` already."""
        if self.big_endian:
            out.byteswap(inplace=True)


@dataclass(frozen=True)
class BloscCodec:
    """Blosc 1 container."""

    cname: str
    clevel: int
    shuffle: int
    typesize: int
    blocksize: int = 0

    def encode(self, data: Any) -> Any:
        return blosc.compress(data, self.cname.encode(), self.clevel, self.shuffle, self.blocksize, self.typesize)

    def decode(self, data: Any, out: np.ndarray | None = None) -> Any:
        if len(data) < _BLOSC_HEADER.size:
            raise Decayed("shorter than a blosc header")
        return _checked_decode(blosc.decompress, data, out, _BLOSC_HEADER.unpack_from(data)[0])


@dataclass(frozen=True)
class ZstdCodec:
    """One Zstandard frame."""

    level: int
    checksum: bool = False

    def encode(self, data: Any) -> Any:
        return zstd.compress(data, self.level, self.checksum)

    def decode(self, data: Any, out: np.ndarray | None = None) -> Any:
        return _checked_decode(zstd.decompress, data, out, zstd_content_size(data))


@dataclass(frozen=True)
class Crc32cCodec:
    """Four little-endian bytes of CRC-32C at the end."""

    def encode(self, data: Any) -> Any:
        return b"".join((data, crc32c(data).to_bytes(4, "little")))

    def decode(self, data: Any, out: np.ndarray | None = None) -> Any:
        if len(data) < 4:
            raise Decayed("shorter than its checksum")
        body, stored = data[:-4], int.from_bytes(bytes(data[-4:]), "little")
        computed = crc32c(body)
        if computed != stored:
            raise Decayed(f"crc32c is {computed:08x}, recorded {stored:08x}")
        return body


SERIALIZERS: dict[str, Callable[[dict], Serializer]] = {
    "bytes": lambda c: BytesCodec(c.get("endian", "little") == "big"),
    "jpeg": from_configuration,
}
"""Array → bytes codecs by their zarr name."""

COMPRESSORS: dict[str, Callable[[dict], Compressor]] = {
    "blosc": lambda c: BloscCodec(c["cname"], c["clevel"], _SHUFFLES[c["shuffle"]], c.get("typesize", 1), c.get("blocksize", 0)),
    "zstd": lambda c: ZstdCodec(c["level"], c.get("checksum", False)),
    "crc32c": lambda c: Crc32cCodec(),
}
"""Bytes → bytes codecs by their zarr name."""


@dataclass(frozen=True)
class Window:
    """Part of an image: rows top … top + height - 1, columns left … left + width - 1."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Half:
    """The whole image at half size, (⌈H/2⌉, ⌈W/2⌉). `mean`: of 2×2 pixels (colours), else their top left one (depth, ids)."""

    mean: bool


Part = Window | Half


def cut(image: np.ndarray, part: Part) -> np.ndarray:
    """A part of a whole image (H, W, …)."""
    if isinstance(part, Window):
        return image[part.top : part.top + part.height, part.left : part.left + part.width]
    return halved(image) if part.mean else image[::2, ::2]


def part_shape(part: Part, whole: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a part of an image of shape `whole` (H, W, …). Raises StoreError for a window outside of it."""
    if isinstance(part, Half):
        return (-(-whole[0] // 2), -(-whole[1] // 2), *whole[2:])
    bottom, right = part.top + part.height, part.left + part.width
    if min(part.top, part.left) < 0 or min(part.height, part.width) < 1 or bottom > whole[0] or right > whole[1]:
        raise StoreError(f"{part} does not lie within an image of {whole[1]}×{whole[0]}; choose a window inside")
    return (part.height, part.width, *whole[2:])


@dataclass(frozen=True)
class Chain:
    """The inner codecs of an array, in encoding order."""

    serializer: Serializer
    compressors: tuple[Compressor, ...]

    def encode(self, array: np.ndarray) -> Any:
        """One chunk as bytes."""
        data = self.serializer.encode(array)
        for codec in self.compressors:
            data = codec.encode(data)
        return data

    def decode(self, data: Any, out: np.ndarray) -> None:
        """One chunk into `out` (C-contiguous, the chunk's dtype and shape). Raises Decayed."""
        # The innermost decompressor writes straight into the caller's array: no copy of a frame.
        if isinstance(self.serializer, BytesCodec):
            target = _flat(out)
            data = self._decompress(data, target)
            if data is target:
                self.serializer.finish(out)
            else:
                self.serializer.decode(data, out)
            return
        data = self._decompress(data, None)
        try:
            self.serializer.decode(data, out)
        except NotAJpeg as error:
            raise Decayed(str(error)) from None

    def decode_part(self, data: Any, part: Part, whole: tuple[int, ...], out: np.ndarray) -> None:
        """A window or the half size of a chunk of shape `whole` into `out`. Raises Decayed.

        Cheap where the serializer is `jpeg`; otherwise the whole chunk is decoded and cut.
        """
        if not isinstance(self.serializer, JpegCodec):
            image = np.empty(whole, out.dtype)
            self.decode(data, image)
            out[...] = cut(image, part)
            return
        try:
            if isinstance(part, Window):
                self.serializer.decode_window(self._decompress(data, None), whole, part.top, part.left, out)
            else:
                self.serializer.decode_half(self._decompress(data, None), out)
        except NotAJpeg as error:
            raise Decayed(str(error)) from None

    def _decompress(self, data: Any, target: np.ndarray | None) -> Any:
        for codec in reversed(self.compressors[1:]):
            data = codec.decode(data)
        return self.compressors[0].decode(data, target) if self.compressors else data


def parse_chain(metadata: list[dict[str, Any]]) -> Chain:
    """Chain of a `codecs` list. Raises StoreError naming a codec we do not have or cannot configure."""
    if not metadata:
        raise StoreError("an array states no codecs; it is not a zarr v3 array")
    first, *rest = metadata
    try:
        return Chain(_build(SERIALIZERS, first), tuple(_build(COMPRESSORS, m) for m in rest))
    except (KeyError, TypeError) as error:
        raise StoreError(f"codec configuration not understood ({error!r} in {metadata}); update dataengine") from None


PROFILES = ("portable", "train", "archive")
"""`portable`: lossless, standard codecs only. `train`: the same, but colour and infrared as JPEG, a quarter of the size and
quick to crop and halve. `archive`: as portable at the highest levels, 5 to 20 % smaller and 30 times slower to write."""


def codecs_for(kind: Codec | str, dtype: np.dtype, colour: bool = False, profile: str = "portable") -> list[dict[str, Any]]:
    """Metadata of the chain for a kind of content. Only `image` under `train` is lossy.

    Measured on rendered 640×360 frames, kB and CPU ms to decode: colour 461, 0.63 (blosc bitshuffle; byte shuffle 519, 0.75),
    125, 1.33 (jpeg with its half size); measured depth 105, 0.33 (blosc byte shuffle; bitshuffle 126, 0.57: depth's
    exponents repeat, its mantissa bits do not line up; plain zstd 102, 0.51); masks < 3, 0.03 (zstd; blosc 0.05).
    """
    if profile not in PROFILES:
        raise StoreError(unknown_name("codec profile", profile, PROFILES))
    if kind == "image" and profile == "train":
        return [JpegCodec(COLOUR_QUALITY if colour else INFRARED_QUALITY, colour).metadata(), {"name": "crc32c"}]
    serializer: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        serializer["configuration"] = {"endian": "little"}
    best = profile == "archive"
    level = 9 if best else 5 if profile == "train" else 3  # 5 encodes in twice the time of 3 and decodes in 0.9 of it
    if kind in ("image", "depth"):
        shuffle = "bitshuffle" if kind == "image" else "shuffle"
        options = {"cname": "zstd", "clevel": level, "shuffle": shuffle, "typesize": dtype.itemsize, "blocksize": BLOCK}
        squeeze: dict[str, Any] = {"name": "blosc", "configuration": options}
    else:
        squeeze = {"name": "zstd", "configuration": {"level": 19 if best else 1 if kind == "mask" else 3, "checksum": False}}
    return [serializer, squeeze, {"name": "crc32c"}]


def portable(kind: Codec | str, dtype: np.dtype) -> list[dict[str, Any]]:
    """Metadata of our lossless chain for a kind of content; standard codecs only."""
    return codecs_for(kind, dtype)


def zstd_content_size(data: Any) -> int | None:
    """Decompressed size that a Zstandard frame states (RFC 8878 §3.1.1.1), None when it states none."""
    head = bytes(data[:14])  # numpy's scalars are slow
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        raise Decayed("not a zstd frame")
    flag, single = head[4] >> 6, head[4] >> 5 & 1
    start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    width = (single, 2, 4, 8)[flag]
    if width == 0:
        return None
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


def _checked_decode(decompress: Callable[..., Any], data: Any, out: np.ndarray | None, size: int | None) -> Any:
    """Decompress, into `out` where the frame states exactly its size; numcodecs itself would fill only a part of it."""
    if out is not None and size is not None and size != len(out):
        raise Decayed(f"holds {size} bytes where {len(out)} belong")
    direct = out is not None and size is not None
    try:
        result = decompress(data, out) if direct else decompress(data)
    except (RuntimeError, ValueError) as error:
        raise Decayed(str(error)) from None
    return out if direct else result


def _build(table: dict[str, Callable[[dict], Any]], metadata: dict[str, Any]) -> Any:
    name = metadata["name"]
    if name not in table:
        raise StoreError(unknown_name("codec", name, table) + "; update dataengine or install what provides it")
    return table[name](metadata.get("configuration") or {})


def _flat(array: np.ndarray) -> np.ndarray:
    """(nbytes,) uint8 view of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8)
