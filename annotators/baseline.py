"""The procedure that the anchor solve replaces, implemented as it is described, to be compared on the same captures.

Clicks of the first frame only → pose of the base by perspective-n-point (with the joints where they are known, else base and joints
together by Levenberg–Marquardt from many starts); camera poses from structure from motion; scale as the median ratio of measured to
reconstructed depth; everything else by propagation (RoboKeyGen, Tian et al. 2024, section on real data; scale as in ProgressLabeller,
with z-depth).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotators.anchor_inputs import choose_slots, click_measurements, gather, make_problem, table
from annotators.anchor_optimise import minimise
from annotators.anchor_posterior import output_keypoints
from annotators.anchor_scale import depth_scale
from annotators.anchor_start import pnp, starts
from annotators.anchor_state import AnchorOptions, clicks_alone, configuration, joints_at, metric_cameras
from annotators.types import Array, CameraTrack, Capture, Click
from dataengine.errors import DataEngineError
from dataengine.geometry import se3
from dataengine.robot.kinematics import forward_kinematics


@dataclass(frozen=True, eq=False)
class BaselineSolution:
    """`T_world_cam` (N, 4, 4) metric, `T_world_base` (4, 4), `joints_rad` (N, D), `keypoints_cam_m` (N, K, 3), `metres_per_unit`."""

    metres_per_unit: float
    T_world_cam: Array
    T_world_base: Array
    joints_rad: Array
    keypoints_cam_m: Array


def first_frame_solve(capture: Capture, track: CameraTrack, clicks: Sequence[Click]) -> BaselineSolution:
    """Annotate the first clicked frame and propagate. Without a joint log the joints of that frame hold for all.

    Raises DataEngineError where that frame's clicks give no pose, or the depth no scale.
    """
    first = min(click.frame for click in clicks)
    mine = [click for click in clicks if click.frame == first]
    found = depth_scale(capture, track)
    moved = np.ptp(track.T_world_cam[track.posed][:, :3, 3], axis=0).max() > 1e-9
    if found is None and moved:
        raise DataEngineError(f"{capture.name}: no depth ratio, the first-frame method has no scale")
    scale = found.metres_per_unit if found is not None and moved else 1.0
    T_cam_base, q_first = _known(capture, track, mine, first) if capture.joints is not None else _unknown(capture, track, mine)
    cameras = track.T_world_cam.copy()
    cameras[:, :3, 3] *= scale
    T_world_base = cameras[first] @ T_cam_base
    times = capture.times_s.astype(float)
    q = np.tile(q_first, (len(times), 1)) if capture.joints is None else joints_at(capture.joints, times)[0]
    model = gather(capture, track, mine, clicks_alone(AnchorOptions()), None).model
    points = output_keypoints(model).positions((se3.inverse(cameras) @ T_world_base)[:, None] @ forward_kinematics(model, q))
    return BaselineSolution(scale, cameras, T_world_base, q, points)


def _known(capture: Capture, track: CameraTrack, clicks: list[Click], frame: int) -> tuple[Array, Array]:
    assert capture.joints is not None
    inputs = gather(capture, track, clicks, clicks_alone(AnchorOptions()), None)
    rows = table(inputs, choose_slots(inputs))
    q = joints_at(capture.joints, capture.times_s[[frame]].astype(float))[0][0]
    found = pnp(inputs.landmarks.positions(forward_kinematics(inputs.model, q))[rows.row], rows.uv_px, capture.K)
    if found is None:
        raise DataEngineError(f"{capture.name}: the clicks of frame {frame} give no pose")
    return found[0], q


def _unknown(capture: Capture, track: CameraTrack, clicks: list[Click]) -> tuple[Array, Array]:
    """Base and joints from one frame: the best of several descents."""
    still = replace(track, T_world_cam=np.where(track.posed[:, None, None], np.eye(4), np.nan))
    inputs = gather(capture, still, clicks, clicks_alone(AnchorOptions()), None)
    slots = choose_slots(inputs)
    problem, measured = make_problem(inputs, slots, "constant"), click_measurements(inputs, slots)
    best = None
    for start in starts(problem, inputs.landmarks, table(inputs, slots), capture.K):
        state, cost = minimise(problem, start, [measured], 60)
        if best is None or cost < best[0]:
            best = (cost, state)
    if best is None:
        raise DataEngineError(f"{capture.name}: the clicks of frame {clicks[0].frame} give no pose")
    state = best[1]
    return (se3.inverse(metric_cameras(state)) @ state.T_world_base)[0], configuration(problem, state)[0][0]
