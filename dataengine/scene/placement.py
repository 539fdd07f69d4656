"""Where things stand: on the table, clear of each other, of the robot's sweep and of the camera.

A thing counts as the upright cylinder about it, so what is found is free of penetration for certain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dataengine.config.spec import DistractorSpec
from dataengine.geometry import se3
from dataengine.scene.draws import Draws
from dataengine.scene.robot_sweep import RobotSweep
from dataengine.scene.surroundings import Table
from dataengine.scene.things import Thing, draw_occluder, draw_thing

Array = NDArray[np.float64]
GAP_M = 0.005
"""Free space between things."""
CAMERA_GAP_M = 0.12
TRIES = 60
OCCLUDER_THINGS = 6
MOST_HIDDEN = 0.35
"""No single thing hides more than this share of the robot's surface points."""
LEAST_HIDDEN = 0.02
"""An occluder hides at least this share."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A thing with its pose."""

    thing: Thing
    xy_m: Array
    key: str
    role: str

    @property
    def T_world_object(self) -> Array:
        return se3.make(self.thing.rotation, (self.xy_m[0], self.xy_m[1], self.thing.lift_m))


@dataclass(eq=False)
class TableTop:
    """What stands on the table so far, and what must stay free. eyes_m (F,3)."""

    table: Table
    robot: RobotSweep
    eyes_m: Array
    placed: list[Placed] = field(default_factory=list)
    rejections: Counter[str] = field(default_factory=Counter)

    def objection(self, thing: Thing, xy_m: Array) -> str | None:
        """Why the thing cannot stand here, or None."""
        if not self.table.holds(xy_m, thing.radius_m):
            return "off the table"
        for other in self.placed:
            if np.linalg.norm(xy_m - other.xy_m) < thing.radius_m + other.thing.radius_m + GAP_M:
                return "touches another thing"
        clearance = self.robot.cover_m + GAP_M
        near = np.linalg.norm(self.robot.surface_m[..., :2] - xy_m, axis=-1) < thing.radius_m + clearance
        if (near & (self.robot.surface_m[..., 2] < thing.height_m + clearance)).any():
            return "touches the robot"
        if _camera_too_near(thing, xy_m, self.eyes_m):
            return "too near the camera"
        return None

    def hidden_share(self, thing: Thing, xy_m: Array) -> float:
        """Largest share over the frames of robot surface points that the thing's cylinder hides from the camera."""
        shares = [
            hidden_by_cylinder(eye, points, xy_m, thing.radius_m, thing.height_m).mean()
            for eye, points in zip(self.eyes_m, self.robot.surface_m, strict=True)
        ]
        return float(max(shares))


def place_occluder(top: TableTop, draws: Draws, key: str, spec: DistractorSpec) -> bool:
    """Put something tall on a line from the camera to a low point of the robot; False if no place was found.

    A thing that fits nowhere is exchanged for another one, since few fit under a steep line of sight.
    """
    for _ in range(OCCLUDER_THINGS):
        thing = draw_occluder(draws, key, spec)
        for _ in range(TRIES // OCCLUDER_THINGS):
            xy = _on_line_of_sight(top, draws.rng(f"{key}.place"), thing)
            reason = "robot too high for it" if xy is None else top.objection(thing, xy)
            if reason is None and xy is not None:
                if LEAST_HIDDEN <= top.hidden_share(thing, xy) <= MOST_HIDDEN:
                    _accept(top, draws, key, thing, xy, "occluder", "on a line from the camera to the robot")
                    return True
                reason = "hides too much or nothing"
            top.rejections[f"occluder: {reason}"] += 1
    return _give_up(top, draws, key, "occluder")


def _on_line_of_sight(top: TableTop, rng: np.random.Generator, thing: Thing) -> Array | None:
    """Foot (2,) of a point on a line of sight that the thing reaches up to."""
    eye, points = top.eyes_m[0], top.robot.surface_m[0]
    low = points[points[:, 2] < 0.9 * thing.height_m]
    if len(low) == 0:
        return None
    point = low[int(rng.integers(len(low)))]
    climb = max(float(eye[2] - point[2]), 1e-9)
    highest = min(0.7, (0.95 * thing.height_m - float(point[2])) / climb)  # share of the way where the line is low enough
    return (point + max(highest, 0.03) * rng.uniform(0.4, 1.0) * (eye - point))[:2]


def place_distractor(top: TableTop, draws: Draws, key: str, spec: DistractorSpec) -> bool:
    """Put a thing somewhere around the robot's base; False if no place was found."""
    thing = draw_thing(draws, key, spec)
    rng = draws.rng(f"{key}.angle")
    for _ in range(TRIES):
        distance = draws.real(f"{key}.radius_m", spec.radius_m)
        angle = rng.uniform(-np.pi, np.pi)
        xy = distance * np.array([np.cos(angle), np.sin(angle)])
        reason = top.objection(thing, xy)
        if reason is None and top.hidden_share(thing, xy) > MOST_HIDDEN:
            reason = "hides too much"
        if reason is None:
            _accept(top, draws, key, thing, xy, "distractor", "uniform angle about the base")
            return True
        top.rejections[f"distractor: {reason}"] += 1
    return _give_up(top, draws, key, "distractor")


def move_one(top: TableTop, draws: Draws, distance_m: float, seen: Callable[[Array], bool]) -> tuple[int, Array] | None:
    """Find the largest thing that is seen a second place at that distance where it is seen too: (its index, T_world_object there).

    `seen` tells of a point (3,) whether the camera looks at it. None if no thing can move.
    """
    rng = draws.rng("distractors.moved")
    by_size = sorted(range(len(top.placed)), key=lambda k: -top.placed[k].thing.radius_m * top.placed[k].thing.height_m)
    for index in by_size:
        placed = top.placed[index]
        others = replace(top, placed=[p for p in top.placed if p is not placed])
        if not seen(_middle(placed)):
            continue
        for angle in rng.uniform(-np.pi, np.pi, TRIES):
            moved = replace(placed, xy_m=placed.xy_m + distance_m * np.array([np.cos(angle), np.sin(angle)]))
            hidden = others.hidden_share(placed.thing, moved.xy_m) > MOST_HIDDEN
            if others.objection(placed.thing, moved.xy_m) is None and not hidden and seen(_middle(moved)):
                draws.note("distractors.moved", "the largest thing that is seen, uniform direction", placed.key)
                return index, moved.T_world_object
    top.rejections["moved object: no place"] += 1
    return None


def _middle(placed: Placed) -> Array:
    return np.array([placed.xy_m[0], placed.xy_m[1], placed.thing.height_m / 2])


def hidden_by_cylinder(eye_m: Array, points_m: Array, xy_m: Array, radius_m: float, height_m: float) -> NDArray[np.bool_]:
    """Which points (S,3) the solid upright cylinder on z = 0 hides from the eye (3,)."""
    way = points_m - eye_m
    offset = eye_m[:2] - xy_m
    a = (way[:, :2] ** 2).sum(1)
    b = way[:, :2] @ offset
    c = offset @ offset - radius_m**2
    root = b * b - a * c
    crosses = (root > 0) & (a > 0)
    safe = np.where(a > 0, a, 1.0)
    half = np.sqrt(np.where(crosses, root, 0.0))
    enter, leave = np.clip((-b - half) / safe, 0, 1), np.clip((-b + half) / safe, 0, 1)
    lowest = eye_m[2] + np.minimum(enter * way[:, 2], leave * way[:, 2])
    return crosses & (leave > enter) & (lowest < height_m)


def _camera_too_near(thing: Thing, xy_m: Array, eyes_m: Array) -> bool:
    across = np.linalg.norm(eyes_m[:, :2] - xy_m, axis=1) - thing.radius_m
    above = eyes_m[:, 2] - thing.height_m
    return bool(((across < CAMERA_GAP_M) & (above < CAMERA_GAP_M)).any())


def _accept(top: TableTop, draws: Draws, key: str, thing: Thing, xy_m: Array, role: str, how: str) -> None:
    draws.note(f"{key}.position_m", how, [float(v) for v in xy_m])
    top.placed.append(Placed(thing, xy_m, key, role))


def _give_up(top: TableTop, draws: Draws, key: str, kind: str) -> bool:
    """Left out: the table is too crowded for it."""
    draws.forget(key)
    top.rejections[f"{kind}: left out, no place in {TRIES} tries"] += 1
    return False
