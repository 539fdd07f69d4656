"""The path of a camera in somebody's hand: it rests for a while, then goes along an arc or turns on the spot, and trembles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dataengine.config.spec import HandheldSpec
from dataengine.geometry import se3
from dataengine.scene.draws import Draws

Array = NDArray[np.float64]
Path = Callable[[Array], Array]

RISE = 0.25
"""Height of the arc's wave over its length: a path along a line would tell a camera solver little about the depth of points."""
TREMOR_HZ = (0.4, 4.0)
TREMOR_WAVES = 5
"""A hand's tremor is the sum of so many sines per axis, weaker where faster."""
SETTLE_S = 0.4
"""The tremor fades in over this time after the rest."""


def handheld_path(spec: HandheldSpec, draws: Draws, eye_m: Array, target_m: Array, roll_rad: float, duration_s: float) -> Path:
    """Path (times (F,) s → T_world_cam (F,4,4)) that starts at `eye_m` (3,), looking at `target_m` (3,), and takes `duration_s`.

    Resting: exactly one pose. Afterwards the eye moves `travel_m` on a circle about the vertical through the target and up and
    down by a share RISE of that, while the view pans `turn_deg` to one side, to the other and back. Tremor has the standard
    deviations `tremor_mm` per axis and `tremor_deg` about each axis of the camera.
    """
    travel = draws.real("camera.handheld.travel_m", spec.travel_m)
    turn = np.radians(draws.real("camera.handheld.turn_deg", spec.turn_deg))
    side = 1.0 if draws.uniform("camera.handheld.side", -1.0, 1.0) >= 0 else -1.0
    shake = _tremor(draws.rng("camera.handheld.tremor"))
    sway_m = draws.real("camera.handheld.tremor_mm", spec.tremor_mm) / 1e3
    sway_rad = np.radians(draws.real("camera.handheld.tremor_deg", spec.tremor_deg))
    from_axis = eye_m - target_m
    radius = float(np.hypot(from_axis[0], from_axis[1]))
    moving_s = max(duration_s - spec.still_s, 1e-9)

    def path(times_s: Array) -> Array:
        t = np.asarray(times_s, float) - spec.still_s
        done = _smooth(t / moving_s)
        angle = side * done * travel / radius
        offset = np.einsum("fij,j->fi", se3.rotation_from_axis_angle(np.array([0.0, 0.0, 1.0]), angle), from_axis)
        offset[:, 2] += RISE * travel * np.sin(2 * np.pi * done) / 2
        pan = side * turn / 2 * np.sin(2 * np.pi * done)
        awake = _smooth(t / SETTLE_S)[:, None]
        tremble = awake * shake(t)
        aimed = np.stack([se3.look_at(target_m + o, target_m, roll_rad=roll_rad) for o in offset])
        turned = (
            aimed[:, :3, :3] @ se3.rotation_from_axis_angle(np.array([0.0, 1.0, 0.0]), pan) @ _small_rotation(sway_rad * tremble[:, 3:])
        )
        return se3.make(turned, aimed[:, :3, 3] + sway_m * tremble[:, :3])

    return path


def _smooth(u: Array) -> Array:
    """0 before 0, 1 after 1, with no jump in speed or acceleration between (minimum jerk)."""
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10 - 15 * u + 6 * u**2)


def _tremor(rng: np.random.Generator) -> Path:
    """Six noises of standard deviation 1 as functions of time (F,) → (F,6)."""
    slow, fast = np.log(TREMOR_HZ)
    hz = np.exp(rng.uniform(slow, fast, (6, TREMOR_WAVES)))
    phase = rng.uniform(0, 2 * np.pi, (6, TREMOR_WAVES))
    weight = 1 / hz
    weight *= np.sqrt(2) / np.linalg.norm(weight, axis=1, keepdims=True)
    return lambda t: (weight * np.sin(2 * np.pi * hz * np.asarray(t)[:, None, None] + phase)).sum(-1)


def _small_rotation(vector_rad: Array) -> Array:
    """Rotation vectors (F,3) → (F,3,3)."""
    angle = np.linalg.norm(vector_rad, axis=-1)
    return se3.rotation_from_axis_angle(vector_rad / np.maximum(angle, 1e-12)[..., None], angle)
