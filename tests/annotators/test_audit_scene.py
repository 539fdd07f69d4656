"""A thing that moved on a table is told from one that rests, by depth alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from annotators.anchor_surface import RobotShape, view_robot
from annotators.audit_scene import moved_object
from dataengine.geometry import se3
from dataengine.raycast.scene import TriMesh
from tests.annotators.anchor_scene import SIZE, K, make_scene

MESHES = tuple(TriMesh(m.vertices, m.faces) for m in (trimesh.creation.box((0.08, 0.06, 0.16)), trimesh.creation.box((3.0, 3.0, 0.02))))
SHAPE = RobotShape(np.array([0, 1]), MESHES)


def world(moved_from: int | None):
    """(capture, T_world_cam): a box on a table, cameras on an arc, depth noise of 2 mm at 1 m."""
    T_world_cam = np.stack([se3.look_at((0.9 * np.cos(a), 0.9 * np.sin(a), 0.5), (0, 0, 0.05)) for a in np.linspace(-0.4, 0.4, 12)])

    def depth(frame: int) -> np.ndarray:
        y = 0.08 if moved_from is not None and frame >= moved_from else 0.0
        T = np.stack([se3.make(np.eye(3), (0.0, y, 0.08)), se3.make(np.eye(3), (0.0, 0.0, -0.01))])
        z = view_robot(SHAPE, se3.inverse(T_world_cam[frame]) @ T, K, SIZE, 1).depth_z_m
        return np.where(z > 0, z + 0.002 * z**2 * np.random.default_rng(frame).normal(size=z.shape), 0).astype(np.float32)

    return replace(make_scene(frames=12, clicked=2).capture, depth_z_m=depth), T_world_cam


def no_robot(frame: int) -> np.ndarray:
    return np.zeros((SIZE[1], SIZE[0]), bool)


@pytest.mark.parametrize("moved_from", [None, 6])
def test_only_a_moved_thing_is_flagged(moved_from: int | None):
    capture, T_world_cam = world(moved_from)
    flags = moved_object(capture, T_world_cam, no_robot)
    assert [flag.kind for flag in flags] == ([] if moved_from is None else ["object_moved"])
    if flags:
        assert flags[0].frames[-1] == 11 and 4 <= flags[0].frames[0] <= 8


def test_what_the_robot_covers_is_no_evidence():
    capture, T_world_cam = world(6)
    assert not moved_object(capture, T_world_cam, lambda frame: ~no_robot(frame))


def test_without_depth_nothing_is_said():
    capture, T_world_cam = world(6)
    assert not moved_object(replace(capture, depth_z_m=None), T_world_cam, no_robot)
