"""What a preset may say: one frozen pydantic model per section. These are the only defaults in the project.

Metres, degrees (in YAML, since people write them), seconds, pixels; names carry the unit.
"""

import hashlib
import json
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from dataengine.config.distributions import (
    Choice,
    Integers,
    LogUniform,
    Normal,
    NormalParameters,
    Real,
    Uniform,
    Whole,
    kind_of,
    support,
    within,
)
from dataengine.errors import RecordError
from dataengine.record.modalities import NAMES as MODALITIES
from dataengine.record.modalities import resolve

MaterialName = Literal["metal", "plastic", "wood", "fabric", "ceramic", "stone", "paint", "glass"]
EnvironmentName = Literal["city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset", "room"]
ShapeName = Literal["box", "cylinder", "sphere", "capsule", "cone", "torus", "mug", "bowl", "bottle", "can"]
MATERIALS: tuple[str, ...] = get_args(MaterialName)
ENVIRONMENTS: tuple[EnvironmentName, ...] = get_args(EnvironmentName)
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)

Environments = Annotated[
    Annotated[EnvironmentName, Tag("constant")] | Annotated[Choice[EnvironmentName], Tag("choice")], Discriminator(kind_of)
]
Positive = Annotated[Real, within(0.0, open_low=True)]
NotNegative = Annotated[Real, within(0.0)]

MAX_OBJECTS = 32
"""`amodal_objects` holds one bit per object in a 32-bit word."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RobotSpec(Section):
    """Which robot, where it stands and how it moves."""

    name: str = Field(default="panda", description="catalogue name (panda, xarm7, ur5, so101) or path of a .urdf file")
    keypoints: tuple[str, ...] = Field(
        default=("dream7", "panda15"), description="keypoint sets to label; the union is stored, in this order"
    )
    mesh_detail: Literal["visual"] = "visual"
    joint_range: float = Field(default=0.95, gt=0, le=1, description="fraction of each joint's limits that is used, about the middle")
    speed: NotNegative = Field(default=Uniform(uniform=(0.05, 0.6)), description="peak joint speed as a fraction of the velocity limits")
    base_yaw_deg: Real = Uniform(uniform=(-180.0, 180.0))
    material: Literal["original", "tinted", "random"] = Field(
        default="original", description="tinted jitters the maker's colours, random replaces them"
    )
    floor_clearance_m: float = Field(default=0.01, description="every link stays at least this far above the table")


class HandheldSpec(Section):
    """How a hand carries the camera, for `path: handheld`: it rests, then goes round the robot or turns on the spot."""

    still_s: float = Field(default=0.0, ge=0, description="the camera rests this long before it moves, without any tremor")
    travel_m: NotNegative = Field(default=0.8, description="length of the arc; 0 = the camera stays where it is")
    turn_deg: NotNegative = Field(default=0.0, description="the view pans over this angle, half of it to each side")
    tremor_mm: NotNegative = Field(default=2.0, description="standard deviation of the hand's tremor along each axis")
    tremor_deg: NotNegative = Field(default=0.3, description="the same about each axis")


class CameraSpec(Section):
    """Intrinsics (a preset or free) and placement on a shell around the robot."""

    preset: Literal["simrgbd", "realsense_d415", "realsense_d435", "azure_kinect", "xbox360_kinect", "free"] = "simrgbd"
    width: int = Field(default=640, ge=32, le=8192)
    height: int = Field(default=360, ge=32, le=8192)
    fx_px: float | None = Field(
        default=None, gt=0, description="preset `free` only; fy_px, cx_px, cy_px default to fx_px and the image centre"
    )
    fy_px: float | None = Field(default=None, gt=0)
    cx_px: float | None = None
    cy_px: float | None = None
    horizontal_fov_deg: float | None = Field(
        default=None, gt=1, lt=170, description="alternative to fx_px for preset `free`: square pixels, centred"
    )
    distance_m: Positive = Field(
        default=Uniform(uniform=(0.9, 2.0)), description="from the middle of the robot's bounding box over the clip"
    )
    azimuth_deg: Real = Field(default=Uniform(uniform=(-180.0, 180.0)), description="0 = in front of the robot, along its +x")
    elevation_deg: Annotated[Real, within(-90.0, 90.0)] = Uniform(uniform=(0.0, 60.0))
    roll_deg: Real = Normal(normal=NormalParameters(mean=0.0, std=4.0, min=-12.0, max=12.0))
    look_at_offset_m: Real = Field(
        default=Uniform(uniform=(-0.15, 0.15)), description="drawn for x, y and z around the middle of the robot"
    )
    path: Literal["static", "moving", "handheld"] = "static"
    speed_m_s: NotNegative = Field(default=Uniform(uniform=(0.02, 0.15)), description="used when path is `moving`")
    handheld: HandheldSpec = Field(default=HandheldSpec(), description="used when path is `handheld`")
    min_keypoints_in_image: int = Field(default=4, ge=0, description="in every frame")
    min_robot_fraction: float = Field(default=0.01, ge=0, le=1, description="of the image covered by the robot in every frame")
    placement_fov_deg: float | None = Field(
        default=None,
        gt=1,
        lt=170,
        description="judge a pose with this horizontal field of view instead of the camera's own, so that datasets "
        "which differ only in intrinsics keep the same poses",
    )
    tries: int = Field(default=200, ge=1, description="camera draws before the video is given up")

    @model_validator(mode="after")
    def _intrinsics_fit_preset(self) -> "CameraSpec":
        free = [n for n in ("fx_px", "fy_px", "cx_px", "cy_px", "horizontal_fov_deg") if getattr(self, n) is not None]
        if self.preset != "free" and free:
            raise ValueError(f"{', '.join(free)} given, but preset '{self.preset}' fixes the intrinsics; set preset: free")
        if self.preset == "free" and (self.fx_px is None) == (self.horizontal_fov_deg is None):
            given = "neither" if self.fx_px is None else "both"
            raise ValueError(f"preset 'free' needs one of fx_px and horizontal_fov_deg, {given} given")
        if self.horizontal_fov_deg is not None and len(free) > 1:
            raise ValueError(f"horizontal_fov_deg excludes {', '.join(free[:-1])}; use fx_px to set them one by one")
        return self


class ImageSpec(Section):
    """What the colour camera adds to the light that reaches it."""

    exposure_ev: Real = Field(
        default=Uniform(uniform=(-0.5, 0.5)), description="stops above or below what an automatic exposure would choose"
    )
    view_transform: Literal["Standard", "Filmic", "AgX"] = "Standard"
    noise: NotNegative = Field(default=Uniform(uniform=(0.0, 0.012)), description="read noise, standard deviation in units of full scale")
    shot_noise: NotNegative = Field(
        default=Uniform(uniform=(0.0, 0.015)), description="standard deviation at full scale; grows with √signal"
    )
    motion_blur: Annotated[Real, within(0.0, 1.0)] = Field(
        default=0.0, description="shutter time as a fraction of the frame time; 0 = none"
    )


class DistractorSpec(Section):
    """Things on the table."""

    count: Annotated[Whole, within(0, MAX_OBJECTS)] = Integers(integers=(2, 7))
    shapes: tuple[ShapeName, ...] = SHAPES
    meshes: tuple[str, ...] = Field(default=(), description="paths of .obj/.stl/.glb/.ply meshes, scaled to size_m")
    size_m: Positive = Field(default=Uniform(uniform=(0.05, 0.22)), description="largest extent")
    radius_m: NotNegative = Field(default=Uniform(uniform=(0.25, 0.8)), description="distance from the robot's base axis")
    occluders: Annotated[Whole, within(0, MAX_OBJECTS)] = Field(
        default=Choice[int](choice=(0, 1), weights=(0.7, 0.3)), description="objects put between camera and robot"
    )
    materials: tuple[MaterialName, ...] = Field(default=("metal", "plastic", "wood", "fabric", "ceramic", "paint"), min_length=1)
    moved_m: NotNegative = Field(default=0.0, description="one object jumps so far on the table, in the middle of the clip")

    @model_validator(mode="after")
    def _few_enough_and_something_to_choose(self) -> "DistractorSpec":
        most = int(support(self.count)[1] + support(self.occluders)[1])
        if most > MAX_OBJECTS:
            raise ValueError(f"count and occluders can be {most} together; at most {MAX_OBJECTS} objects are allowed")
        if most > 0 and not (self.shapes or self.meshes):
            raise ValueError("shapes and meshes are both empty; name some, or set count and occluders to 0")
        return self


class SurroundingsSpec(Section):
    """Table, room or sky, lights."""

    environment: Environments = Choice[EnvironmentName](choice=ENVIRONMENTS)
    environment_strength: Positive = Field(
        default=LogUniform(log_uniform=(0.4, 1.5)), description="mean radiance of sky or room, whatever the image's own scale"
    )
    table_size_m: Positive = Uniform(uniform=(1.4, 2.6))
    table_materials: tuple[MaterialName, ...] = Field(default=("wood", "stone", "plastic", "fabric", "metal", "paint"), min_length=1)
    textures: tuple[str, ...] = Field(
        default=("brick", "gravel", "grass"), description="packaged names or paths of pictures for tables, floors and walls"
    )
    texture_share: float = Field(default=0.2, ge=0, le=1, description="of these surfaces that carry a texture")
    texture_width_m: Positive = Field(default=Uniform(uniform=(0.5, 1.5)), description="width of one copy of the picture")
    lights: Annotated[Whole, within(0, 16)] = Integers(integers=(1, 4))
    light_distance_m: Positive = Field(default=Uniform(uniform=(1.2, 2.5)), description="from the robot's base")
    light_elevation_deg: Annotated[Real, within(0.0, 90.0)] = Uniform(uniform=(35.0, 80.0))
    light_power_w: Positive = Field(default=LogUniform(log_uniform=(6.0, 50.0)), description="of each light")
    light_size_m: Positive = Uniform(uniform=(0.1, 1.0))
    light_temperature_k: Annotated[Real, within(1000.0, 40000.0)] = Uniform(uniform=(3000.0, 7500.0))


class DepthSensorSpec(Section):
    """The simulated depth camera; its left infrared eye sits in the colour camera."""

    model: Literal["active_stereo", "kinect_v1", "azure_tof", "none"] = "active_stereo"
    ir: Literal["fast", "cycles", "none"] = Field(
        default="fast", description="infrared pair by ray casting (fast) or path tracing (cycles)"
    )
    baseline_m: float = Field(default=0.055, gt=0)
    projector_x_m: float = 0.029
    native_scale: int = Field(default=2, ge=1, le=4, description="native infrared size over the stored size")
    ir_samples: int = Field(default=4, ge=1, description="samples per pixel when ir is `cycles`")
    speckle: NotNegative = Field(
        default=Uniform(uniform=(0.12, 0.35)), description="laser speckle contrast, the noise level; 0.25 behaves like a D415"
    )
    ambient: NotNegative = Uniform(uniform=(0.01, 0.05))
    max_depth_m: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _stereo_needs_ir(self) -> "DepthSensorSpec":
        if self.model == "active_stereo" and self.ir == "none":
            raise ValueError("active_stereo needs an infrared pair; set ir to fast or cycles, or model to none")
        return self


QUALITY = {"draft": (1, "FAST", "FAST"), "train": (3, "HIGH", "FAST"), "reference": (128, "HIGH", "ACCURATE")}
"""quality → (samples per pixel, denoiser quality, denoiser prefilter)."""


class RenderSpec(Section):
    quality: Literal["draft", "train", "reference"] = "train"
    samples: int | None = Field(default=None, ge=1, le=16384, description="overrides the samples per pixel of `quality`")
    denoise_quality: Literal["FAST", "BALANCED", "HIGH"] | None = None
    denoise_prefilter: Literal["NONE", "FAST", "ACCURATE"] | None = None
    max_bounces: int = Field(default=3, ge=0, le=64)

    def resolved(self) -> tuple[int, str, str]:
        """(samples per pixel, denoiser quality, prefilter) after the overrides."""
        spp, quality, prefilter = QUALITY[self.quality]
        return self.samples or spp, self.denoise_quality or quality, self.denoise_prefilter or prefilter


class SplitSpec(Section):
    """Shares of the videos; a video is a scene of its own, so no scene is in two splits."""

    train: float = Field(default=0.8, ge=0)
    val: float = Field(default=0.1, ge=0)
    test: float = Field(default=0.1, ge=0)

    @model_validator(mode="after")
    def _not_all_zero(self) -> "SplitSpec":
        if self.train + self.val + self.test <= 0:
            raise ValueError("all split shares are 0; give at least one a positive share")
        return self


class LimitSpec(Section):
    """Safety limits; they change no pixel, so they are not part of the dataset's identity."""

    wall_s: float = Field(default=600.0, gt=0, description="per video, then the attempt is killed")
    memory_mb: int = Field(default=6000, ge=256, description="resident memory of one attempt, then it is killed")
    tries: int = Field(default=3, ge=1, description="attempts before a video is quarantined")


ADDED_LATER = (("camera", "handheld"), ("surroundings", "texture_width_m"), ("distractors", "moved_m"))
"""Fields (section, name) that are no part of the identity while they have their default, so that datasets from before they existed
can be extended."""


class DatasetSpec(Section):
    """A whole dataset. Everything but `videos` and `limits` is its identity (`digest`), so it can be extended later."""

    name: str = Field(default="hello", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int = Field(default=0, ge=0)
    videos: int = Field(default=4, ge=1)
    frames: int = Field(default=3, ge=1, description="per video")
    fps: float = Field(default=15.0, gt=0)
    robot: RobotSpec = RobotSpec()
    camera: CameraSpec = CameraSpec()
    image: ImageSpec = ImageSpec()
    distractors: DistractorSpec = DistractorSpec()
    surroundings: SurroundingsSpec = SurroundingsSpec()
    depth_sensor: DepthSensorSpec = DepthSensorSpec()
    render: RenderSpec = RenderSpec()
    modalities: tuple[str, ...] = Field(
        default=("all",),
        min_length=1,
        description="`all`, or names from the table of modalities",
        json_schema_extra={"items": {"enum": ["all", *MODALITIES], "type": "string"}},
    )
    codecs: Literal["portable", "train", "archive"] = Field(
        default="portable",
        description="portable opens in any zarr program; train stores JPEG colour for fast loading; archive is lossless and smallest",
    )
    splits: SplitSpec = SplitSpec()
    limits: LimitSpec = LimitSpec()

    @model_validator(mode="after")
    def _sensor_fits_modalities(self) -> "DatasetSpec":
        sensor = self.depth_sensor
        absent = {"depth_sim": sensor.model == "none", "ir_left": sensor.ir == "none", "ir_right": sensor.ir == "none"}
        wrong = [name for name in self.modalities if absent.get(name)]
        if wrong:
            raise ValueError(f"modalities name {', '.join(wrong)}, but depth_sensor is set to none; name a model and ir, or leave them out")
        return self

    def resolved_modalities(self) -> tuple[str, ...]:
        """Names from the table of modalities; `all` leaves out what the depth sensor does not give."""
        sensor = self.depth_sensor
        absent = (("depth_sim",) if sensor.model == "none" else ()) + (("ir_left", "ir_right") if sensor.ir == "none" else ())
        return tuple(n for n in resolve(self.modalities) if n not in absent)

    @field_validator("modalities")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            resolve(names)
        except RecordError as error:
            raise ValueError(str(error)) from None
        return names

    def digest(self) -> str:
        """SHA-256 (hex) of the identity: every field but `videos` and `limits`, as canonical JSON."""
        identity = self.model_dump(mode="json", exclude={"videos", "limits"})
        for section, name in ADDED_LATER:
            part = getattr(self, section)
            if getattr(part, name) == type(part).model_fields[name].default:
                del identity[section][name]
        return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
