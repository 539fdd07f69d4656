"""The same shards through zarr-python: interoperability, and the oracle of the direct reader. The only importer of zarr."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dataengine.store.files import json_bytes, write_new
from dataengine.store.shard_file import ArrayInfo


def read_shard_with_zarr(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(attributes of the group, {array name: whole array}) as zarr-python sees them; `frames` stays raw bytes."""
    group = zarr.open_group(str(directory), mode="r")
    return dict(group.attrs), {name: np.asarray(array[...]) for name, array in group.arrays()}


def write_array_with_zarr(folder: Path, info: ArrayInfo, values: np.ndarray) -> None:
    """Let zarr-python encode `values` (F, …) into a new folder, under the metadata of `info`."""
    folder.mkdir(parents=True)
    write_new(folder / "zarr.json", [json_bytes(info.metadata())])
    zarr.open_array(str(folder), mode="r+")[...] = values
