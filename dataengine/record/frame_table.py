"""The small per-frame numbers as ONE numpy structured dtype, so that a frame's labels are one read.

Reading many tiny arrays costs zarr-python about 0.85 ms each; one structured row costs one read.
"""

from dataclasses import dataclass

import numpy as np

KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE = 2, 1, 0
"""Keypoint states (COCO's numbers): in the image and seen; in the image but hidden; outside the image or behind the camera."""


@dataclass(frozen=True)
class Column:
    """One field of the frame table. Dimensions: J joints, L links, P keypoints, N objects."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    unit: str
    frame: str
    meaning: str
    optional: bool = False


COLUMNS: tuple[Column, ...] = (
    Column("timestamp_s", "<f8", (), "s", "", "time since the first frame"),
    Column("K", "<f8", (3, 3), "px", "image", "intrinsics of the colour image, pixel centres at integers"),
    Column("T_world_cam", "<f8", (4, 4), "m", "world ← camera", "camera pose"),
    Column("T_cam_base", "<f8", (4, 4), "m", "camera ← base", "robot base pose"),
    Column("joint_position", "<f8", ("J",), "rad or m", "", "actuated joints in URDF order"),
    Column("joint_velocity", "<f8", ("J",), "rad/s or m/s", "", "time derivative of joint_position"),
    Column("T_cam_link", "<f8", ("L", 4, 4), "m", "camera ← link", "every link's pose, in URDF link order"),
    Column("keypoints_cam_m", "<f8", ("P", 3), "m", "camera", "keypoints in 3D"),
    Column("keypoints_px", "<f8", ("P", 2), "px", "image", "keypoints projected; nan behind the camera"),
    Column("keypoint_state", "u1", ("P",), "", "", "2 visible, 1 occluded, 0 outside the image"),
    Column("keypoint_visibility", "<f4", ("P",), "0–1", "", "share of a 5 mm neighbourhood of the keypoint's surface that is seen"),
    Column("link_visibility", "<f4", ("L",), "0–1", "", "visible over amodal pixels of the link within the image; 0 when it has none"),
    Column("T_cam_object", "<f8", ("N", 4, 4), "m", "camera ← object", "object poses, in the order of the scene's objects"),
    Column("object_visibility", "<f4", ("N",), "0–1", "", "visible over amodal pixels of the object within the image"),
    Column("accepted", "u1", (), "0/1", "", "1 = the frame passed its checks; the reason for 0 is in the record's attributes"),
    Column("base_covariance", "<f8", (6, 6), "m², rad²", "camera", "covariance of T_cam_base (translation, rotation vector)", True),
    Column("keypoint_covariance", "<f8", ("P", 3, 3), "m²", "camera", "covariance of keypoints_cam_m", True),
)


def frame_dtype(joints: int, links: int, keypoints: int, objects: int, with_covariance: bool = False) -> np.dtype:
    """Packed little-endian structured dtype of one frame's row."""
    size = {"J": joints, "L": links, "P": keypoints, "N": objects}
    return np.dtype(
        [
            (c.name, c.dtype, tuple(size[s] if isinstance(s, str) else s for s in c.shape))
            for c in COLUMNS
            if with_covariance or not c.optional
        ]
    )


def describe(dtype: np.dtype) -> list[list]:
    """JSON form of a frame dtype: [name, dtype, shape] per column. Inverse: `from_description`."""
    assert dtype.names is not None
    return [[n, dtype[n].base.str, list(dtype[n].shape)] for n in dtype.names]


def from_description(rows: list[list]) -> np.dtype:
    """Frame dtype from its JSON form."""
    return np.dtype([(name, base, tuple(shape)) for name, base, shape in rows])


def markdown_table() -> str:
    """The columns as Markdown, for the README."""
    head = "| name | dtype | shape | unit | frame | meaning |\n|---|---|---|---|---|---|\n"
    rows = (
        f"| `{c.name}` | {np.dtype(c.dtype)} | {' × '.join(map(str, c.shape)) or 'scalar'} | {c.unit} | {c.frame} | "
        f"{c.meaning}{' (optional)' if c.optional else ''} |"
        for c in COLUMNS
    )
    return head + "\n".join(rows) + "\n"
