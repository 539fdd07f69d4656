"""What a dataset says about one pixel, in words: a value per modality of the table, with the names behind the ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.record.modalities import TABLE
from dataengine.record.video import Names, Video

TABLE_ID, ROOM_ID = 255, 254
"""Ids in `mask_object` that are no instances."""
NONE = "–"


@dataclass(frozen=True)
class PixelValue:
    """One row: the modality, its value as a person reads it, the stored number(s) and what the modality means."""

    name: str
    text: str
    stored: tuple[float, ...]
    meaning: str


def pixel_values(video: Video, frame: int, u: int, v: int) -> list[PixelValue]:
    """Every stored modality at column ``u``, row ``v`` of a frame, in the order of the table of modalities.

    Depth in m, normals as unit vectors in camera axes, NOCS as 0…1, masks as names. IndexError outside the image.
    """
    height, width = video.size
    if not (0 <= u < width and 0 <= v < height):
        raise IndexError(f"pixel ({u}, {v}) is outside the image of {width} × {height}")
    rows = []
    for modality in TABLE:
        if modality.name in video.images:
            value = np.atleast_1d(video.images[modality.name][frame, v, u])
            text = _WORDS[modality.name](value, video.names)
            rows.append(PixelValue(modality.name, text, tuple(value.tolist()), modality.meaning))
    return rows


def depth_error_text(values: Sequence[PixelValue]) -> str:
    """Measured − true in mm of the rows of `pixel_values`; a dash where one is missing."""
    stored = {value.name: value.stored[0] for value in values}
    true, measured = stored.get("depth_z", 0), stored.get("depth_sim", 0)
    return f"{1e3 * (measured - true):+.1f} mm" if true > 0 and measured > 0 else NONE


def object_name(identity: int, names: Sequence[str]) -> str:
    """Name of a value of `mask_object`: an instance's, the table, the room, or a dash."""
    if identity in (TABLE_ID, ROOM_ID):
        return {TABLE_ID: "table", ROOM_ID: "room"}[identity]
    return names[identity - 1] if 1 <= identity <= len(names) else NONE


def _integers(value: np.ndarray, names: Names) -> str:
    return " ".join(str(int(x)) for x in value)


def _metres(value: np.ndarray, names: Names) -> str:
    return f"{value[0]:.4f} m" if value[0] > 0 else "0 (none)"


def _normal(value: np.ndarray, names: Names) -> str:
    return " ".join(f"{x / 127:+.3f}" for x in value.astype(np.float64)) if value.any() else NONE


def _link(value: np.ndarray, names: Names) -> str:
    link = int(value[0])
    return f"{link} · {names.links[link - 1]}" if 1 <= link <= len(names.links) else f"{link} · {NONE}"


def _object(value: np.ndarray, names: Names) -> str:
    return f"{int(value[0])} · {object_name(int(value[0]), names.objects)}"


def _yes_no(value: np.ndarray, names: Names) -> str:
    return f"{int(value[0])} · {'yes' if value[0] else 'no'}"


def _object_set(value: np.ndarray, names: Names) -> str:
    ids = [k + 1 for k in range(32) if int(value[0]) >> k & 1]
    return f"{int(value[0])} · " + (", ".join(object_name(k, names.objects) for k in ids) or NONE)


def _unit_cube(value: np.ndarray, names: Names) -> str:
    return " ".join(f"{x / 65535:.4f}" for x in value.astype(np.float64)) if value.any() else NONE


_WORDS: dict[str, Callable[[np.ndarray, Names], str]] = {
    "rgb": _integers, "ir_left": _integers, "ir_right": _integers, "depth_z": _metres, "depth_sim": _metres, "normals": _normal,
    "mask_link": _link, "mask_object": _object, "amodal_robot": _yes_no, "amodal_objects": _object_set, "nocs": _unit_cube,
}  # fmt: skip
