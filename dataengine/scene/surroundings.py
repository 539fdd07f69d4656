"""Table, room or sky, lamps, and the exposure that suits them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.config.distributions import Choice
from dataengine.config.spec import SurroundingsSpec
from dataengine.geometry import se3
from dataengine.scene.draws import Draws
from dataengine.scene.materials import draw_material, wall_material, with_texture
from dataengine.scene.palette import light_color
from dataengine.scene.spec import Environment, Light, Material, Matrix4, SceneObject, Vector

Array = NDArray[np.float64]
TABLE_ID, ROOM_ID = 255, 254
BASE_MARGIN_M = 0.25
"""The robot's base axis stays this far from the table's edge, where the table is large enough."""
FLOOR_THICKNESS_M = 0.02
OUTLINES = Choice[str](choice=("rectangular", "round"), weights=(0.8, 0.2))
FLOOR_UNDER_SKY = Choice[str](choice=("yes", "no"), weights=(0.35, 0.65))

SKY_RADIANCE: dict[str, tuple[float, float]] = {
    "city": (0.936, 2.176),
    "courtyard": (0.765, 0.676),
    "forest": (0.774, 1.508),
    "interior": (0.973, 1.793),
    "night": (0.165, 0.159),
    "studio": (0.771, 0.483),
    "sunrise": (0.649, 0.529),
    "sunset": (0.494, 0.696),
}
"""Of each packaged image at strength 1, measured: mean radiance (luminance), radiance of a white table (irradiance/π)."""

MEAN_LEVEL, PEAK_LEVEL = 0.65, 1.6
"""Linear values that the automatic exposure allows white surfaces at the robot, on average and facing all lamps."""


@dataclass(frozen=True, eq=False)
class Table:
    """The table top, a rectangle or disc at z = 0, and its object."""

    T_world_table: Array
    half_m: Array
    is_round: bool
    object: SceneObject

    @property
    def floor_z_m(self) -> float:
        return -self.object.size_m[2]

    @property
    def reach_m(self) -> float:
        """Distance from the base axis to no less than the farthest point of the top."""
        return float(np.linalg.norm(self.T_world_table[:2, 3]) + np.linalg.norm(self.half_m))

    def holds(self, xy_m: Array, radius_m: float) -> bool:
        """Whether a disc stands completely on the top."""
        local = se3.transform(se3.inverse(self.T_world_table), np.array([[xy_m[0], xy_m[1], 0.0]]))[0, :2]
        if self.is_round:
            return bool(np.linalg.norm(local) + radius_m <= self.half_m[0])
        return bool((np.abs(local) + radius_m <= self.half_m).all())


def matrix4(T: Array) -> Matrix4:
    """A pose (4,4) as plain data."""
    return tuple(tuple(row) for row in np.asarray(T, float).tolist())  # type: ignore[return-value]


def draw_table(spec: SurroundingsSpec, draws: Draws) -> Table:
    """A table around the origin, where the robot stands."""
    size = draws.real("table.size_m", spec.table_size_m)
    is_round = draws.name("table.outline", OUTLINES) == "round"
    aspect = 1.0 if is_round else draws.uniform("table.aspect", 0.6, 1.0)
    height = draws.uniform("table.height_m", 0.70, 0.78)
    top = draws.uniform("table.thickness_m", 0.025, 0.045)
    half = np.array([size, size * aspect]) / 2
    yaw = draws.uniform("table.yaw_rad", -np.pi, np.pi)
    rng = draws.rng("table.offset_m")
    free = np.maximum(half - BASE_MARGIN_M, 0.0) * (0.7 if is_round else 1.0)
    offset = draws.note("table.offset_m", "uniform with the base on the table", (rng.uniform(-1, 1, 2) * free).tolist())
    R = se3.rotation_from_axis_angle((0.0, 0.0, 1.0), yaw)
    T = se3.make(R, R @ (offset[0], offset[1], -height / 2))
    material = draw_material(draws, "table.material", spec.table_materials, calm=True)
    thing = _fixed(
        TABLE_ID,
        "table",
        "table",
        (top, draws.uniform("table.leg_m", 0.04, 0.08), float(is_round)),
        (size, size * aspect, height),
        T,
        with_texture(draws, "table", material, spec),
        "table",
    )
    return Table(T, half, is_round, thing)


def draw_environment(spec: SurroundingsSpec, draws: Draws) -> Environment:
    """A packaged sky or interior image, or the plain light that falls into a room from above."""
    name = draws.name("environment.name", spec.environment)
    level = draws.real("environment.strength", spec.environment_strength)
    yaw = draws.uniform("environment.yaw_rad", -np.pi, np.pi)
    if name == "room":
        color = light_color(draws.real("environment.temperature_k", spec.light_temperature_k))
        return Environment(kind="room", name="room", yaw_rad=yaw, strength=level, color=color)
    return Environment(kind="hdri", name=name, yaw_rad=yaw, strength=level / SKY_RADIANCE[name][0])


def white_under(environment: Environment) -> float:
    """Radiance of white surfaces, half of them lying and half standing, in the light of the surroundings alone."""
    if environment.kind == "room":
        return environment.strength
    return environment.strength * sum(SKY_RADIANCE[environment.name]) / 2


def draw_room(spec: SurroundingsSpec, draws: Draws, is_room: bool, floor_z_m: float, reach_m: float) -> tuple[SceneObject, ...]:
    """Walls and floor of a room, large enough for everything within `reach_m`; under a sky image a floor or just the image."""
    yaw = draws.uniform("room.yaw_rad", -np.pi, np.pi)
    half = [max(draws.uniform(f"room.half_{axis}_m", 2.2, 3.5), reach_m + 0.4) for axis in "xy"]
    R = se3.rotation_from_axis_angle((0.0, 0.0, 1.0), yaw)
    floor_T = se3.make(R, (0.0, 0.0, floor_z_m - FLOOR_THICKNESS_M / 2))
    kinds = ("wood", "stone", "fabric", "paint") if is_room else ("wood", "stone", "paint")
    floor_material = draw_material(draws, "floor.material", kinds, calm=True)
    floor_material = with_texture(draws, "floor", floor_material, spec)
    if not is_room:
        if draws.name("floor.present", FLOOR_UNDER_SKY) == "no":
            return ()
        width = 2 * max(draws.uniform("floor.radius_m", 10.0, 18.0), reach_m + 0.4)
        return (_fixed(ROOM_ID, "floor", "cylinder", (0.005,), (width, width, FLOOR_THICKNESS_M), floor_T, floor_material, "room"),)
    size = (2 * half[0], 2 * half[1], FLOOR_THICKNESS_M)
    floor = _fixed(ROOM_ID, "floor", "box", (0.001,), size, floor_T, floor_material, "room")
    walls = with_texture(draws, "room", wall_material(draws, "room.material"), spec)
    wall, height = 0.1, draws.uniform("room.height_m", 2.5, 3.2)
    outer = (size[0] + 2 * wall, size[1] + 2 * wall, height + wall + FLOOR_THICKNESS_M)
    T = se3.make(R, (0.0, 0.0, floor_z_m - FLOOR_THICKNESS_M - wall + outer[2] / 2))
    return floor, _fixed(ROOM_ID, "walls", "room", (wall,), outer, T, walls, "room")


def draw_lights(spec: SurroundingsSpec, draws: Draws, target_m: Array) -> tuple[Light, ...]:
    """Lamps on a shell around the base, turned to the robot."""
    lamps = []
    for k in range(draws.whole("lights.count", spec.lights)):
        key = f"light.{k}"
        distance = draws.real(f"{key}.distance_m", spec.light_distance_m)
        elevation = np.radians(draws.real(f"{key}.elevation_deg", spec.light_elevation_deg))
        azimuth = draws.uniform(f"{key}.azimuth_rad", -np.pi, np.pi)
        direction = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        aim = target_m + draws.rng(f"{key}.aim").uniform(-0.2, 0.2, 3)
        lamps.append(
            Light(
                position_m=_vector(distance * direction),
                target_m=_vector(aim),
                power_w=draws.real(f"{key}.power_w", spec.light_power_w),
                size_m=draws.real(f"{key}.size_m", spec.light_size_m),
                color=light_color(draws.real(f"{key}.temperature_k", spec.light_temperature_k)),
            )
        )
    return tuple(lamps)


def ball_brightness(phase_rad: float) -> float:
    """Mean over the visible disc of a matt ball, of a surface that faces the lamp, by the angle between lamp and eye.

    Lambert's phase law: 2/3 · (sin α + (π − α) cos α)/π.
    """
    return float(2 / 3 * (np.sin(phase_rad) + (np.pi - phase_rad) * np.cos(phase_rad)) / np.pi)


def automatic_exposure_ev(environment_level: float, lights: tuple[Light, ...], target_m: Array, eye_m: Array) -> float:
    """Stops that a camera's metering would choose, from what a white ball and a white table at the robot return.

    A lamp of P watts gives a surface that faces it at distance d the radiance P/(π² d²). The ball returns on average 2/3 of
    that times Lambert's phase law, see `ball_brightness`.
    """
    towards_eye = (eye_m - target_m) / np.linalg.norm(eye_m - target_m)
    mean = peak = environment_level
    for lamp in lights:
        way = np.asarray(lamp.position_m) - target_m
        distance = float(np.linalg.norm(way))
        facing = lamp.power_w / (np.pi * distance) ** 2
        phase = float(np.arccos(np.clip(way @ towards_eye / distance, -1, 1)))
        mean += facing * (0.7 * ball_brightness(phase) + 0.3 * max(float(way[2]) / distance, 0.0))
        peak += facing
    return -float(np.log2(max(mean / MEAN_LEVEL, peak / PEAK_LEVEL, 1e-6)))


def _fixed(
    instance_id: int, name: str, shape: str, parameters: tuple[float, ...], size: Vector, T: Array, material: Material, role: str
) -> SceneObject:
    return SceneObject(
        instance_id=instance_id,
        name=name,
        category=role,
        shape=shape,
        parameters=parameters,
        size_m=_vector(np.asarray(size)),
        T_world_object=(matrix4(T),),
        material=material,
        role="table" if role == "table" else "room",
    )


def _vector(v: Array) -> Vector:
    return float(v[0]), float(v[1]), float(v[2])
