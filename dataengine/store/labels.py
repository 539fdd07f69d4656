"""Columns of label rows as arrays of a batch, following the image where that is cropped or halved."""

from collections.abc import Sequence

import numpy as np

from dataengine.errors import StoreError, unknown_name
from dataengine.record.frame_table import COLUMNS, KEYPOINT_OUTSIDE
from dataengine.store.codecs import Half, Part

_PER_OBJECT = {c.name for c in COLUMNS if c.shape and c.shape[0] == "N"}


class Labels:
    """Shapes and dtypes of some columns, as the rows of a first video have them; others must agree."""

    def __init__(self, columns: Sequence[str], row: np.dtype, objects: int | None) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        for name in columns:
            if name not in (row.names or ()):
                raise StoreError(unknown_name("column", name, row.names or ()))
            shape = row[name].shape
            self.shapes[name] = (objects, *shape[1:]) if name in _PER_OBJECT and objects is not None else shape
            self.dtypes[name] = row[name].base
        self.objects = objects

    def empty(self, rows: int) -> dict[str, np.ndarray]:
        """Arrays (rows, …); missing objects are NaN, or 0 in columns of integers."""
        return {n: np.full((rows, *s), np.nan if self.dtypes[n].kind == "f" else 0, self.dtypes[n]) for n, s in self.shapes.items()}

    def fill(self, out: dict[str, np.ndarray], here: slice, rows: np.ndarray, part: Part | None, where: str) -> None:
        """Put the wanted columns of structured `rows` into `out[…][here]`. Raises StoreError where shapes differ."""
        for name, shape in self.shapes.items():
            if name not in (rows.dtype.names or ()):
                raise StoreError(f"{where} has no column {name}, other videos do; choose columns that all have")
            values = rows[name]
            if name in _PER_OBJECT and self.objects is not None and values.shape[1] <= self.objects:
                out[name][here, : values.shape[1]] = values
            elif values.shape[1:] != shape:
                hint = "give objects= the largest number" if name in _PER_OBJECT else "choose columns that agree"
                raise StoreError(f"{where}: {name} has shape {values.shape[1:]}, the batch {shape}; {hint}")
            else:
                out[name][here] = values if part is None else _moved(name, rows, part)


def _moved(name: str, rows: np.ndarray, part: Part) -> np.ndarray:
    """Column `name` for a part of the image. Pixel centres are integers: x ↦ x - left, or (x + 0.5) / 2 - 0.5."""
    values = rows[name].copy()
    scale, shift = (0.5, (-0.25, -0.25)) if isinstance(part, Half) else (1.0, (-part.left, -part.top))
    if name == "K":
        values[:, :2] *= scale
        values[:, :2, 2] += shift
    elif name == "keypoints_px":
        values = values * scale + shift
    elif name == "keypoint_state" and not isinstance(part, Half):
        x, y = np.moveaxis(rows["keypoints_px"], -1, 0)
        inside = (x >= part.left - 0.5) & (x < part.left + part.width - 0.5) & (y >= part.top - 0.5) & (y < part.top + part.height - 0.5)
        values[~inside] = KEYPOINT_OUTSIDE
    return values
