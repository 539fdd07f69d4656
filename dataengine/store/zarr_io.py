"""The same shards through zarr-python: interoperability, and the oracle of the direct reader. The only importer of zarr.

`JpegZarrCodec` is found by zarr-python through the entry point `jpeg` of the group `zarr.codecs`, so that shards of the
profile `train` open in any program that has this package installed; `register_jpeg` does the same by hand.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from dataengine.store.files import json_bytes, write_new
from dataengine.store.jpeg_codec import JpegCodec, from_configuration
from dataengine.store.shard_file import ArrayInfo


@dataclass(frozen=True)
class JpegZarrCodec(ArrayBytesCodec):
    """`store.jpeg_codec` as a codec of zarr-python."""

    codec: JpegCodec

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "JpegZarrCodec":  # pyright: ignore[reportIncompatibleMethodOverride]
        return cls(from_configuration(data["configuration"]))

    def to_dict(self) -> dict[str, Any]:
        return self.codec.metadata()

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("the size of a JPEG depends on its content")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        out = np.empty(chunk_spec.shape, np.uint8)
        self.codec.decode(chunk_data.as_numpy_array(), out)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(out)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return chunk_spec.prototype.buffer.from_bytes(self.codec.encode(chunk_data.as_numpy_array()))


def register_jpeg() -> None:
    """Make zarr-python of this process read and write `jpeg`, without the entry point."""
    register_codec("jpeg", JpegZarrCodec)


def read_shard_with_zarr(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(attributes of the group, {array name: whole array}) as zarr-python sees them; `frames` stays raw bytes."""
    group = zarr.open_group(str(directory), mode="r")
    return dict(group.attrs), {name: np.asarray(array[...]) for name, array in group.arrays()}


def write_array_with_zarr(folder: Path, info: ArrayInfo, values: np.ndarray) -> None:
    """Let zarr-python encode `values` (F, …) into a new folder, under the metadata of `info`."""
    folder.mkdir(parents=True)
    write_new(folder / "zarr.json", [json_bytes(info.metadata())])
    zarr.open_array(str(folder), mode="r+")[...] = values
