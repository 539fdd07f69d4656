"""One video's scene as plain immutable data: what the renderer, the ray caster and the labels are all built from.

World frame: z up, metres; the table top is z = 0; the robot's base stands on it. Transforms are 4×4 nested tuples.
Colours are linear RGB in 0…1.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Vector = tuple[float, float, float]
Matrix4 = tuple[
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Material(Part):
    """A procedural surface. `kind` picks the node set-up, the numbers its look; `seed` its pattern."""

    kind: Literal["metal", "plastic", "wood", "fabric", "ceramic", "stone", "paint", "glass"]
    color: Vector
    color2: Vector = Field(description="second colour of the pattern (grain, weave, veins)")
    roughness: float
    pattern_scale_m: float = Field(description="size of the pattern's features")
    bump: float = Field(default=0.0, description="0 = smooth … 1 = strong relief, shading only")
    texture: str | None = Field(default=None, description="packaged texture or picture laid over it; pattern_scale_m is then its width")
    texture_sha256: str | None = None
    seed: int = 0
    ir_albedo: float = Field(description="diffuse reflectance at 850 nm, 0…1")


class SceneObject(Part):
    """A rigid thing with a label. `instance_id` ≥ 1 is the value in `mask_object`; the table is 255, the room 254."""

    instance_id: int
    name: str
    category: str = Field(description="shape name, mesh stem, or `table` / `room`")
    shape: str = Field(description="procedural shape name, or `mesh`")
    parameters: tuple[float, ...] = Field(default=(), description="shape parameters, see dataengine/scene/shapes.py")
    mesh_path: str | None = None
    mesh_sha256: str | None = None
    size_m: Vector = Field(description="extent of the object's own axis-aligned bounding box, which is centred at its origin")
    T_world_object: tuple[Matrix4, ...] = Field(description="one per frame, or one for all frames")
    material: Material
    role: Literal["distractor", "occluder", "table", "room"]


class Light(Part):
    """An area (disk) light at `position_m` pointing at `target_m`."""

    position_m: Vector
    target_m: Vector
    power_w: float
    size_m: float
    color: Vector


class Environment(Part):
    """Surrounding light: a packaged HDR image turned by yaw, or a closed room of uniform dim light."""

    kind: Literal["hdri", "room"]
    name: str = Field(description="HDR file stem, or `room`")
    yaw_rad: float
    strength: float
    color: Vector = (1.0, 1.0, 1.0)


class Camera(Part):
    width: int
    height: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    T_world_cam: tuple[Matrix4, ...] = Field(description="one per frame, OpenCV axes, at the middle of the exposure")
    T_world_cam_end: tuple[Matrix4, ...] | None = Field(default=None, description="at the end of the exposure, when motion blur is on")


class ImageEffects(Part):
    exposure_ev: float
    view_transform: Literal["Standard", "Filmic", "AgX"]
    noise: float
    shot_noise: float
    motion_blur: float


class RobotState(Part):
    """Joint positions (rad, m) and velocities (rad/s, m/s) per frame, in URDF order of the actuated joints."""

    name: str
    urdf_sha256: str
    T_world_base: Matrix4
    joint_names: tuple[str, ...]
    joint_position: tuple[tuple[float, ...], ...]
    joint_velocity: tuple[tuple[float, ...], ...]
    link_tints: tuple[Vector, ...] | None = Field(default=None, description="per link factor on the maker's colours; None = original")


class DepthSensor(Part):
    model: Literal["active_stereo", "kinect_v1", "azure_tof", "none"]
    ir: Literal["fast", "cycles", "none"]
    baseline_m: float
    projector_x_m: float
    native_scale: int
    ir_samples: int
    speckle: float
    ambient: float
    max_depth_m: float


class Draw(Part):
    """One explained draw: which key, from which distribution, which value."""

    key: str
    distribution: str
    value: Any


class SceneSpec(Part):
    schema_version: Literal[1] = 1
    dataset: str
    spec_digest: str
    seed: int
    video: int
    split: Literal["train", "val", "test"]
    frames: int
    timestamp_s: tuple[float, ...]
    robot: RobotState
    keypoint_sets: tuple[str, ...]
    camera: Camera
    image: ImageEffects
    objects: tuple[SceneObject, ...]
    lights: tuple[Light, ...]
    environment: Environment
    depth_sensor: DepthSensor
    samples_per_pixel: int
    denoise_quality: Literal["FAST", "BALANCED", "HIGH"]
    denoise_prefilter: Literal["NONE", "FAST", "ACCURATE"]
    max_bounces: int
    modalities: tuple[str, ...] = Field(description="names from the table of modalities, resolved")
    rejections: dict[str, int] = Field(default_factory=dict, description="rejected draws by reason while sampling this scene")
    draws: tuple[Draw, ...] = ()
