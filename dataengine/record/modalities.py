"""THE table: every per-frame image modality's name, dtype, shape, unit, frame, fill value and codec.

The writer, the reader, the validator, the documentation and the viewers all read this table; nothing about a modality is
stated anywhere else. Small per-frame numbers (poses, joints, keypoints …) live in one structured row per frame: see
`dataengine/record/frame_table.py`.
"""

from dataclasses import dataclass
from typing import Literal

from dataengine.errors import RecordError, unknown_name

Codec = Literal["image", "depth", "mask"]
"""What kind of compression suits the content; the store maps it to a codec chain."""

DEPTH_QUANTUM_M = 2.0**-14
"""Depth is rounded to 1/16384 m (0.061 mm): a float32 with empty low bits, so that it compresses. 0 means no surface."""


@dataclass(frozen=True)
class Modality:
    """One per-frame array. `shape` is per frame; H, W are the colour image's height and width."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    unit: str
    frame: str
    fill: float
    codec: Codec
    meaning: str


TABLE: tuple[Modality, ...] = (
    Modality("rgb", "uint8", ("H", "W", 3), "sRGB 0–255", "image", 0, "image", "colour image with exposure, noise and blur"),
    Modality("ir_left", "uint8", ("H", "W"), "grey 0–255", "image", 0, "image", "left infrared eye, in the colour camera"),
    Modality("ir_right", "uint8", ("H", "W"), "grey 0–255", "right eye's image", 0, "image", "right infrared eye, baseline along +x"),
    Modality("depth_z", "float32", ("H", "W"), "m", "camera", 0, "depth", "true planar depth at the pixel centre; 0 = no surface"),
    Modality("depth_sim", "float32", ("H", "W"), "m", "camera", 0, "depth", "what the simulated depth camera measures; 0 = no measurement"),
    Modality(
        "normals", "int8", ("H", "W", 3), "1/127", "camera", 0, "depth", "unit shading normal × 127, mean over the pixel; 0 = no surface"
    ),
    Modality("mask_link", "uint8", ("H", "W"), "id", "image", 0, "mask", "visible robot link: link index + 1; 0 = not the robot"),
    Modality("mask_object", "uint8", ("H", "W"), "id", "image", 0, "mask", "visible object's instance id; 255 table, 254 room, 0 other"),
    Modality("amodal_robot", "uint8", ("H", "W"), "0/1", "image", 0, "mask", "robot silhouette as if nothing stood before it"),
    Modality("amodal_objects", "uint32", ("H", "W"), "bit set", "image", 0, "mask", "bit k = silhouette of instance k + 1 as if alone"),
    Modality("nocs", "uint16", ("H", "W", 3), "1/65535", "object", 0, "depth", "visible point in its object's bounding box, 0…1 per axis"),
)

NAMES = tuple(m.name for m in TABLE)


def modality(name: str) -> Modality:
    """Look one up. Raises RecordError naming the known ones."""
    for m in TABLE:
        if m.name == name:
            return m
    raise RecordError(unknown_name("modality", name, NAMES))


def resolve(names: tuple[str, ...]) -> tuple[str, ...]:
    """`("all",)` or a list of names → names in table order. Raises RecordError for an unknown one."""
    if "all" in names:
        return NAMES
    chosen = {modality(n).name for n in names}
    return tuple(n for n in NAMES if n in chosen)


def concrete_shape(m: Modality, height: int, width: int) -> tuple[int, ...]:
    """Per-frame shape with H and W filled in."""
    return tuple({"H": height, "W": width}[s] if isinstance(s, str) else s for s in m.shape)


def markdown_table() -> str:
    """The table as Markdown, for the README."""
    head = "| name | dtype | shape per frame | unit | frame | fill | codec | meaning |\n|---|---|---|---|---|---|---|---|\n"
    rows = (
        f"| `{m.name}` | {m.dtype} | {' × '.join(map(str, m.shape))} | {m.unit} | {m.frame} | {m.fill:g} | {m.codec} | {m.meaning} |"
        for m in TABLE
    )
    return head + "\n".join(rows) + "\n"
