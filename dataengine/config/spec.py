"""What a preset may say: one frozen pydantic model per section. These are the only defaults in the project.

Metres, degrees (in YAML, since people write them), seconds, pixels; names carry the unit.
"""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataengine.config.distributions import Choice, Integers, LogUniform, Name, Normal, NormalParameters, Real, Uniform, Whole

MATERIALS = ("metal", "plastic", "wood", "fabric", "ceramic", "stone", "paint", "glass")
ENVIRONMENTS = ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset", "room")
SHAPES = ("box", "cylinder", "sphere", "capsule", "cone", "torus", "mug", "bowl", "bottle", "can")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RobotSpec(Section):
    """Which robot, where it stands and how it moves."""

    name: str = Field("panda", description="catalogue name (panda, xarm7, ur5, so101) or path of a .urdf file")
    keypoints: tuple[str, ...] = Field(("dream7", "panda15"), description="keypoint sets to label; the union is stored, in this order")
    mesh_detail: Literal["visual"] = "visual"
    joint_range: float = Field(0.95, gt=0, le=1, description="fraction of each joint's limits that is used, about the middle")
    speed: Real = Field(Uniform(uniform=(0.05, 0.6)), description="peak joint speed as a fraction of the velocity limits")
    base_yaw_deg: Real = Uniform(uniform=(-180.0, 180.0))
    material: Literal["original", "tinted", "random"] = Field("original", description="tinted jitters the maker's colours")
    floor_clearance_m: float = Field(0.01, description="every link stays at least this far above the table")


class CameraSpec(Section):
    """Intrinsics (a preset or free) and placement on a shell around the robot."""

    preset: Literal["simrgbd", "realsense_d415", "realsense_d435", "azure_kinect", "xbox360_kinect", "free"] = "simrgbd"
    width: int = Field(640, ge=32, le=8192)
    height: int = Field(360, ge=32, le=8192)
    fx_px: float | None = Field(None, gt=0, description="preset `free` needs fx_px; fy_px, cx_px, cy_px default to fx_px and the image centre")
    fy_px: float | None = Field(None, gt=0)
    cx_px: float | None = None
    cy_px: float | None = None
    horizontal_fov_deg: float | None = Field(None, gt=1, lt=170, description="alternative to fx_px for preset `free`")
    distance_m: Real = Uniform(uniform=(0.9, 2.0))
    azimuth_deg: Real = Uniform(uniform=(-180.0, 180.0))
    elevation_deg: Real = Uniform(uniform=(0.0, 60.0))
    roll_deg: Real = Normal(normal=NormalParameters(mean=0.0, std=4.0, min=-12.0, max=12.0))
    look_at_offset_m: Real = Field(Uniform(uniform=(-0.15, 0.15)), description="drawn for x, y and z around the middle of the robot")
    path: Literal["static", "moving"] = "static"
    speed_m_s: Real = Field(Uniform(uniform=(0.02, 0.15)), description="used when path is `moving`")
    min_keypoints_in_image: int = Field(4, ge=0)
    min_robot_fraction: float = Field(0.01, ge=0, le=1, description="of the image covered by the robot in every frame")
    tries: int = Field(200, ge=1, description="camera draws before the video is given up")


class ImageSpec(Section):
    """What the colour camera adds to the light that reaches it."""

    exposure_ev: Real = Uniform(uniform=(-0.5, 0.5))
    view_transform: Literal["Standard", "Filmic", "AgX"] = "Standard"
    noise: Real = Field(Uniform(uniform=(0.0, 0.012)), description="read noise, standard deviation in units of full scale")
    shot_noise: Real = Field(Uniform(uniform=(0.0, 0.015)), description="standard deviation at full scale; grows with √signal")
    motion_blur: Real = Field(0.0, description="shutter time as a fraction of the frame time; 0 = none")


class DistractorSpec(Section):
    """Things on the table."""

    count: Whole = Integers(integers=(2, 7))
    shapes: tuple[str, ...] = SHAPES
    meshes: tuple[str, ...] = Field((), description="paths of .obj/.stl/.glb/.ply meshes in metres, scaled to size_m")
    size_m: Real = Uniform(uniform=(0.05, 0.22))
    radius_m: Real = Field(Uniform(uniform=(0.25, 0.8)), description="distance from the robot's base axis")
    occluders: Whole = Field(Choice[int](choice=(0, 1), weights=(0.7, 0.3)), description="objects put between camera and robot")
    materials: tuple[str, ...] = ("metal", "plastic", "wood", "fabric", "ceramic", "paint")


class SurroundingsSpec(Section):
    """Table, room or sky, lights."""

    environment: Name = Choice[str](choice=ENVIRONMENTS)
    environment_strength: Real = LogUniform(log_uniform=(0.3, 1.2))
    table_size_m: Real = Uniform(uniform=(1.4, 2.6))
    table_materials: tuple[str, ...] = ("wood", "stone", "plastic", "fabric", "metal", "paint")
    lights: Whole = Integers(integers=(1, 4))
    light_power_w: Real = LogUniform(log_uniform=(15.0, 120.0))
    light_size_m: Real = Uniform(uniform=(0.1, 1.0))
    light_temperature_k: Real = Uniform(uniform=(3000.0, 7500.0))


class DepthSensorSpec(Section):
    """The simulated depth camera; its left infrared eye sits in the colour camera."""

    model: Literal["active_stereo", "kinect_v1", "azure_tof", "none"] = "active_stereo"
    ir: Literal["fast", "cycles", "none"] = Field("fast", description="infrared pair by ray casting (fast) or path tracing (cycles)")
    baseline_m: float = Field(0.055, gt=0)
    projector_x_m: float = 0.029
    native_scale: int = Field(2, ge=1, le=4, description="native infrared size over the stored size")
    ir_samples: int = Field(4, ge=1, description="samples per pixel when ir is `cycles`")
    speckle: Real = Field(Uniform(uniform=(0.12, 0.35)), description="laser speckle contrast, the noise level; 0.25 behaves like a D415")
    ambient: Real = Uniform(uniform=(0.01, 0.05))
    max_depth_m: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _stereo_needs_ir(self) -> "DepthSensorSpec":
        if self.model == "active_stereo" and self.ir == "none":
            raise ValueError("active_stereo needs an infrared pair; set ir to fast or cycles, or model to none")
        return self


QUALITY = {"draft": (1, "FAST", "FAST"), "train": (4, "HIGH", "FAST"), "reference": (128, "HIGH", "ACCURATE")}
"""quality → (samples per pixel, denoiser quality, denoiser prefilter)."""


class RenderSpec(Section):
    quality: Literal["draft", "train", "reference"] = "train"
    samples: int | None = Field(None, ge=1, le=16384, description="overrides the samples per pixel of `quality`")
    denoise_quality: Literal["FAST", "BALANCED", "HIGH"] | None = None
    denoise_prefilter: Literal["NONE", "FAST", "ACCURATE"] | None = None
    max_bounces: int = Field(3, ge=0, le=64)

    def resolved(self) -> tuple[int, str, str]:
        """(samples per pixel, denoiser quality, prefilter) after the overrides."""
        spp, quality, prefilter = QUALITY[self.quality]
        return self.samples or spp, self.denoise_quality or quality, self.denoise_prefilter or prefilter


class SplitSpec(Section):
    """Shares of the videos; a video is a scene of its own, so no scene is in two splits."""

    train: float = Field(0.8, ge=0)
    val: float = Field(0.1, ge=0)
    test: float = Field(0.1, ge=0)

    @model_validator(mode="after")
    def _not_all_zero(self) -> "SplitSpec":
        if self.train + self.val + self.test <= 0:
            raise ValueError("all split shares are 0; give at least one a positive share")
        return self


class LimitSpec(Section):
    """Safety limits; they change no pixel, so they are not part of the dataset's identity."""

    wall_s: float = Field(600.0, gt=0, description="per video, then the attempt is killed")
    memory_mb: int = Field(6000, ge=256, description="resident memory of one attempt, then it is killed")
    tries: int = Field(3, ge=1, description="attempts before a video is quarantined")


class DatasetSpec(Section):
    """A whole dataset. Everything but `videos` and `limits` is its identity (`digest`), so it can be extended later."""

    name: str = Field("hello", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int = Field(0, ge=0)
    videos: int = Field(4, ge=1)
    frames: int = Field(3, ge=1, description="per video")
    fps: float = Field(15.0, gt=0)
    robot: RobotSpec = RobotSpec()
    camera: CameraSpec = CameraSpec()
    image: ImageSpec = ImageSpec()
    distractors: DistractorSpec = DistractorSpec()
    surroundings: SurroundingsSpec = SurroundingsSpec()
    depth_sensor: DepthSensorSpec = DepthSensorSpec()
    render: RenderSpec = RenderSpec()
    modalities: tuple[str, ...] = Field(("all",), description="`all`, or names from the table of modalities")
    splits: SplitSpec = SplitSpec()
    limits: LimitSpec = LimitSpec()

    def digest(self) -> str:
        """SHA-256 (hex) of the identity: every field but `videos` and `limits`, as canonical JSON."""
        identity = self.model_dump(mode="json", exclude={"videos", "limits"})
        return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
