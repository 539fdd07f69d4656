"""Object poses against exact truth: a box on a table seen from an arc."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from annotators.anchor_state import logarithm
from annotators.anchor_surface import RobotShape, view_robot
from annotators.objects import ObjectClick, solve_object
from dataengine.errors import DataEngineError
from dataengine.geometry import camera, se3
from dataengine.raycast.scene import TriMesh
from tests.annotators.anchor_scene import SIZE, K, make_scene

BOX = TriMesh(*(lambda b: (b.vertices, b.faces))(trimesh.creation.box((0.10, 0.06, 0.16))))
CORNERS = np.array([[x, y, z] for x in (-0.05, 0.05) for y in (-0.03, 0.03) for z in (-0.08, 0.08)])


def scene(moved_from: int | None = None):
    """Capture with depth of the box, camera poses, true poses."""
    eyes = [(np.cos(a) * 0.9, np.sin(a) * 0.9, 0.5) for a in np.linspace(-0.4, 0.4, 10)]
    T_world_cam = np.stack([se3.look_at(eye, (0, 0, 0.05)) for eye in eyes])
    T = np.tile(se3.make(se3.rotation_from_axis_angle((0, 0, 1.0), 0.4), (0.02, -0.03, 0.08)), (10, 1, 1))
    if moved_from is not None:
        T[moved_from:, :3, 3] += (0.06, 0.05, 0.0)
    shape = RobotShape(np.array([0]), (BOX,))

    def depth(frame: int) -> np.ndarray:
        z = view_robot(shape, (se3.inverse(T_world_cam[frame]) @ T[frame])[None], K, SIZE, 1).depth_z_m
        return np.where(z > 0, z + 0.002 * np.random.default_rng(frame).normal(size=z.shape), 0).astype(np.float32)

    capture = replace(make_scene(frames=10, clicked=2).capture, depth_z_m=depth)
    return capture, T_world_cam, T


def clicks(T_world_cam, T, frames, sigma_px=2.0):
    rng = np.random.default_rng(0)
    out = []
    for f in frames:
        uv = camera.project(K, se3.transform(se3.inverse(T_world_cam[f]) @ T[f], CORNERS)) + sigma_px * rng.normal(size=(8, 2))
        out += [ObjectClick(f, point, (float(p[0]), float(p[1]))) for point, p in zip(CORNERS, uv, strict=True)]
    return out


def gap(found, true):
    twist = logarithm(se3.inverse(true) @ found)
    return 1e3 * np.linalg.norm(twist[:3]), np.degrees(np.linalg.norm(twist[3:]))


def test_depth_makes_clicks_of_one_frame_exact():
    capture, T_world_cam, T = scene()
    marks = clicks(T_world_cam, T, [0])
    rough = solve_object(capture, T_world_cam, BOX, marks, use_depth=False)
    fine = solve_object(capture, T_world_cam, BOX, marks)
    assert gap(rough.T_world_object[5], T[5])[0] < 60  # 2 px on 16 cm at a metre, along the ray
    assert gap(fine.T_world_object[5], T[5])[0] < 1.0 and gap(fine.T_world_object[5], T[5])[1] < 0.6
    assert np.trace(fine.covariance[0]) < np.trace(rough.covariance[0])
    assert not fine.flags and fine.starts == (0,)


def test_a_moved_object_splits():
    capture, T_world_cam, T = scene(moved_from=5)
    found = solve_object(capture, T_world_cam, BOX, clicks(T_world_cam, T, [1, 5]))
    assert found.starts == (0, 5) and [flag.kind for flag in found.flags] == ["object_moved"]
    assert gap(found.T_world_object[2], T[2])[0] < 1.5 and gap(found.T_world_object[8], T[8])[0] < 1.5


def test_three_points_are_too_few():
    capture, T_world_cam, T = scene()
    with pytest.raises(DataEngineError, match="4 clicks"):
        solve_object(capture, T_world_cam, BOX, clicks(T_world_cam, T, [0])[:3])
