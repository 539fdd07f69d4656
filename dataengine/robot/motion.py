"""Random smooth motions that keep clear of the floor and of the robot itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RobotError
from dataengine.robot.collision import CollisionModel, below_floor, self_collision
from dataengine.robot.model import RobotModel

PEAK_SPEED = 1.875
"""Peak speed of a minimum-jerk move over its mean speed."""
LATEST_START = 0.8
"""A clip begins somewhere in the first 80 % of a move, so that it rarely starts at rest and never at its end."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Positions q (F, J) rad or m, velocities qd (F, J) their time derivative, time_s (F,); F frames.

    rejections: why draws were thrown away, reason → count: ``below_floor``, ``self_collision``.
    """

    q: NDArray[np.float64]
    qd: NDArray[np.float64]
    time_s: NDArray[np.float64]
    rejections: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Move:
    """Straight minimum-jerk move in joint space; ``start`` may lie outside the limits if ``begin_s`` < 0."""

    start: NDArray[np.float64]
    goal: NDArray[np.float64]
    begin_s: float
    duration_s: float

    def at(self, time_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions and velocities at the times (F,): Flash and Hogan 1985, s = 10 u^3 - 15 u^4 + 6 u^5."""
        u = np.clip((time_s - self.begin_s) / self.duration_s, 0.0, 1.0)[:, None]
        way = self.goal - self.start
        return self.start + _progress(u) * way, 30 * u**2 * (1 - u) ** 2 / self.duration_s * way


def used_limits(model: RobotModel, limits_fraction: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper (J,) of the given share of each joint's range about its middle."""
    middle, half = (model.q_lower + model.q_upper) / 2, (model.q_upper - model.q_lower) / 2
    return middle - limits_fraction * half, middle + limits_fraction * half


def sample_motion(
    collision: CollisionModel,
    rng: np.random.Generator,
    frames: int,
    dt_s: float,
    floor_z_m: float = 0.0,
    limits_fraction: float = 1.0,
    speed_fraction: float = 0.3,
    max_tries: int = 200,
) -> Motion:
    """A motion of any length from random goal to random goal, each frame free of collision.

    The first configuration is uniform within the used limits (given that it is free); the clip begins in
    the middle of a move. Each move is as fast as ``speed_fraction`` of the velocity limits allows, the
    slowest joint deciding; 0 stands still. All joints move, the gripper too.
    ``floor_z_m``: base frame, no moving link reaches below it. RobotError with counts after ``max_tries`` refused
    draws of one move.
    """
    if frames < 1 or dt_s <= 0 or not 0 <= speed_fraction <= 1 or not 0 < limits_fraction <= 1:
        raise RobotError(
            f"motion of {frames} frames, {dt_s} s apart, speed fraction {speed_fraction}, limits fraction {limits_fraction}: "
            "frames must be at least 1, dt_s positive, the fractions within 0..1"
        )
    time_s = np.arange(frames) * dt_s
    q, qd = np.empty((frames, collision.model.dof)), np.empty((frames, collision.model.dof))
    limits = used_limits(collision.model, limits_fraction)
    rejections: Counter[str] = Counter()
    move, done, refused = None, 0, 0
    while done < frames:
        candidate = _draw_move(collision.model, rng, limits, speed_fraction, move)
        end_s = candidate.begin_s + candidate.duration_s
        rows = slice(done, max(done, int(np.searchsorted(time_s, end_s, side="left"))))
        positions, velocities = candidate.at(time_s[rows])
        last = rows.stop >= frames
        reason = _objection(collision, positions if last else np.vstack([positions, candidate.goal]), floor_z_m)
        if reason is not None:
            rejections[reason] += 1
            refused += 1
            if refused >= max_tries:
                raise RobotError(_gave_up(collision.model, rejections, max_tries, floor_z_m, limits_fraction))
            continue
        q[rows], qd[rows] = positions, velocities
        move, done, refused = candidate, rows.stop, 0
    return Motion(q, qd, time_s, dict(rejections))


def _draw_move(
    model: RobotModel,
    rng: np.random.Generator,
    limits: tuple[NDArray[np.float64], NDArray[np.float64]],
    speed_fraction: float,
    before: _Move | None,
) -> _Move:
    """The next move: from the goal of the one before, or the first, already under way at time 0."""
    if before is not None:
        goal = rng.uniform(*limits)
        begin_s = before.begin_s + before.duration_s
        return _Move(before.goal, goal, begin_s, _duration_s(model, goal - before.goal, speed_fraction))
    now, goal, u = rng.uniform(*limits), rng.uniform(*limits), rng.uniform(0.0, LATEST_START)
    if speed_fraction == 0:
        return _Move(now, now, 0.0, np.inf)
    # The start that puts the move at `now` at time 0. It may lie outside the limits, but is never visited;
    # all that is visited lies between `now` and `goal`.
    start = goal - (goal - now) / (1 - _progress(u))
    duration_s = _duration_s(model, goal - start, speed_fraction)
    return _Move(start, goal, -u * duration_s, duration_s)


def _duration_s(model: RobotModel, way: NDArray[np.float64], speed_fraction: float) -> float:
    """Shortest duration whose peak speed stays within the share of every joint's velocity limit."""
    return max(float((PEAK_SPEED * np.abs(way) / (speed_fraction * model.qd_limit)).max()), 1e-3)


def _progress(u: NDArray[np.float64] | float) -> NDArray[np.float64] | float:
    return u**3 * (10 - 15 * u + 6 * u**2)


def _objection(collision: CollisionModel, q: NDArray[np.float64], floor_z_m: float) -> str | None:
    if below_floor(collision, q, floor_z_m).any():
        return "below_floor"
    return "self_collision" if self_collision(collision, q).any() else None


def _gave_up(model: RobotModel, rejections: Counter[str], tries: int, floor_z_m: float, limits_fraction: float) -> str:
    counts = ", ".join(f"{reason} {count}" for reason, count in rejections.most_common())
    return (
        f"robot {model.name}: no free motion in {tries} tries ({counts}) above z = {floor_z_m} m within {limits_fraction:g} "
        "of the joint limits; lower the floor, or change the share of the limits"
    )
