"""What a capture's YAML may say, and reading it: every error names file, line and column."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataengine.config import messages, yaml_tree
from dataengine.config.yaml_tree import Located
from dataengine.errors import ConfigError, DataEngineError

TagFamily = Literal["apriltag_36h11", "apriltag_25h9", "apriltag_16h5", "aruco_4x4", "aruco_5x5", "aruco_6x6", "aruco_original"]
JointsMode = Literal["known", "offset", "unknown_constant", "unknown"]


class CaptureError(DataEngineError):
    """A capture that cannot be read or used: missing, truncated or contradicting files."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IntrinsicsSpec(Section):
    """The colour camera: a file, or four numbers. Pixel centres at integers, except in COLMAP's files, which are converted."""

    file: str | None = Field(default=None, description="3x3 text, YAML (K, or fx fy cx cy), ROS camera_info.yaml, COLMAP cameras.txt")
    fx_px: float | None = Field(default=None, gt=0)
    fy_px: float | None = Field(default=None, gt=0)
    cx_px: float | None = None
    cy_px: float | None = None
    width: int | None = Field(default=None, gt=0, description="size of the image that the numbers belong to, where known")
    height: int | None = Field(default=None, gt=0)
    distortion: tuple[float, ...] = Field(default=(), description="OpenCV's k1 k2 p1 p2 and k3; images are undistorted when read")

    @model_validator(mode="after")
    def _one_of(self) -> IntrinsicsSpec:
        numbers = [v is not None for v in (self.fx_px, self.fy_px, self.cx_px, self.cy_px)]
        if (self.file is None) != all(numbers) or (self.file is not None and any(numbers)):
            raise ValueError("give either file or all of fx_px, fy_px, cx_px, cy_px")
        if self.distortion and len(self.distortion) not in (4, 5):
            raise ValueError(f"distortion has {len(self.distortion)} numbers; give k1 k2 p1 p2, or k1 k2 p1 p2 k3")
        return self


class DepthSpec(Section):
    """Measured depth along the optical axis, aligned to the colour image."""

    path: str | None = Field(default=None, description="folder or pattern of .png (16 bit), .npy or .npz (key `data`)")
    unit_m: float | None = Field(default=None, gt=0, description="metres per stored unit; default 0.001 for integers, 1 for floats")


class InfraredSpec(Section):
    """A rectified infrared pair whose left image has the colour camera's K and pose."""

    left: str | None = None
    right: str | None = None
    baseline_m: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _all_or_nothing(self) -> InfraredSpec:
        given = [self.left, self.right, self.baseline_m]
        if any(v is not None for v in given) and None in given:
            raise ValueError("infrared needs left, right and baseline_m")
        return self


class FiducialsSpec(Section):
    """Square tags of known size somewhere in the scene, all alike: one of the sources of scale. They must rest."""

    side_m: float | None = Field(default=None, gt=0, description="side of the black square, as measured with a ruler")
    family: TagFamily = Field(default="apriltag_36h11", description="which tags")


class ObjectSpec(Section):
    """A rigid object to be labelled too. Its clicks stand in clicks.json under `objects`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    mesh: str = Field(description="its CAD model in metres: .obj, .ply or .stl")


class JointsSpec(Section):
    """What the encoders said."""

    path: str | None = Field(default=None, description="csv with time and one column per joint, or folder or pattern, one file per frame")
    mode: JointsMode = Field(default="known", description="how far the log is to be believed")
    unit: Literal["rad", "deg"] = Field(default="rad", description="of revolute joints; prismatic ones are in metres")
    columns: tuple[str, ...] = Field(default=(), description="joint name of each column, where the file does not say; `-` skips one")

    @model_validator(mode="after")
    def _known_needs_a_log(self) -> JointsSpec:
        if self.path is None and "mode" in self.model_fields_set and self.mode in ("known", "offset"):
            raise ValueError(f"mode '{self.mode}' needs a joint log; give joints.path, or mode unknown_constant or unknown")
        return self


class MasksSpec(Section):
    """Where the robot is."""

    path: str | None = Field(default=None, description="folder or pattern of images")
    polarity: Literal["robot_white", "robot_black"] = "robot_white"


class CaptureSpec(Section):
    """One capture: images of a robot and all that is known about them. Paths are relative to the YAML file; ${NAME} is an
    environment variable."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    images: str = Field(description="folder, pattern such as rgb/*.png, or a video file")
    intrinsics: IntrinsicsSpec
    robot: str = Field(description="name in the robot catalogue, or path of a .urdf file")
    depth: DepthSpec = DepthSpec()
    infrared: InfraredSpec = InfraredSpec()
    fiducials: FiducialsSpec = FiducialsSpec()
    joints: JointsSpec = JointsSpec()
    masks: MasksSpec = MasksSpec()
    objects: tuple[ObjectSpec, ...] = Field(default=(), description="objects of known shape in the scene")
    fps: float | None = Field(default=None, gt=0, description="frames per second; default: the video file's own, else 30")
    timestamps: str | None = Field(default=None, description="text file with the time of each frame in seconds")

    @model_validator(mode="after")
    def _one_clock(self) -> CaptureSpec:
        if self.fps is not None and self.timestamps is not None:
            raise ValueError("fps and timestamps exclude each other; give one")
        return self

    @model_validator(mode="after")
    def _one_name_each(self) -> CaptureSpec:
        names = [thing.name for thing in self.objects]
        if len(set(names)) < len(names):
            raise ValueError(f"two objects have one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        return self

    @property
    def joints_mode(self) -> JointsMode:
        """`joints.mode`, and `unknown` where there is no log and no mode was given."""
        return self.joints.mode if self.joints.path or "mode" in self.joints.model_fields_set else "unknown"


@dataclass(frozen=True)
class Source:
    """The YAML file a spec came from: resolves its paths and says where a field stands."""

    tree: Located
    folder: Path

    def error(self, key: str, text: str) -> CaptureError:
        """An error about the field `key` (dotted), with file, line and column."""
        node = self.tree
        for step in key.split("."):
            node = node.value.get(step, node) if isinstance(node.value, dict) else node
        return CaptureError(f"{node.where}: {key}: {text}")

    def path(self, key: str, text: str) -> Path:
        """A path as the YAML file means it. CaptureError for an environment variable that is not set."""
        missing = [name for name in re.findall(r"\$\{(\w+)\}", text) if name not in os.environ]
        if missing:
            raise self.error(key, f"the environment variable {missing[0]} is not set; set it to the folder that is meant")
        return self.folder / Path(re.sub(r"\$\{(\w+)\}", lambda m: os.environ[m[1]], text)).expanduser()


def read_spec(path: str | Path) -> tuple[CaptureSpec, Source]:
    """Read a capture's YAML. ConfigError, one line per mistake: `c.yaml:5:3: depth.pth: unknown key (did you mean 'path'?)`."""
    path = Path(path)
    try:
        tree = yaml_tree.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}; give the YAML file that describes the capture") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); give the YAML file that describes the capture") from None
    if not isinstance(tree.value, dict):
        raise ConfigError(f"{tree.where}: expected keys with values, such as `images: rgb`")
    try:
        spec = CaptureSpec.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(messages.lines(error, tree, CaptureSpec))) from None
    return spec, Source(tree, path.parent)
