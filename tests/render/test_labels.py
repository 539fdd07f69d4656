"""Labels in a scene whose answers are known: a robot of one plate, and boxes before and beside it.

The camera stands at the world's origin and looks along +z (its frame is the world's), f = 400 px, 101 × 101 pixels.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dataengine.geometry import camera, se3
from dataengine.raycast.scene import TriMesh
from dataengine.raycast.views import render_labels
from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE
from dataengine.record.modalities import DEPTH_QUANTUM_M
from dataengine.render import labels
from dataengine.scene.world import RayWorld

K = camera.intrinsics(400.0, 400.0, 50.0, 50.0)
SIZE = (101, 101)
T_WORLD_CAM = np.eye(4)


def box(*extents_m: float) -> TriMesh:
    """A box centred at its origin."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * extents_m
    faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)]
    faces += [(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]
    return TriMesh(corners, np.array(faces, np.int32))


def at(x: float, y: float, z: float) -> np.ndarray:
    return se3.make(np.eye(3), (x, y, z))


def world_of(*parts: tuple[TriMesh, np.ndarray, int, int]) -> RayWorld:
    """Parts: (mesh, pose, link index or −1, instance id or 0)."""
    meshes, poses, links, instances = zip(*parts, strict=True)
    return RayWorld(meshes, np.stack(poses)[None], np.array(links), np.array(instances))


PLATE = (box(0.2, 0.2, 0.02), at(0, 0, 1.01), 0, 0)
"""The robot: its front at z = 1, 80 × 80 pixels."""


def seen(world: RayWorld, *points_m: tuple[float, float, float], carried: bool = False) -> labels.Keypoints:
    carriers = np.tile(carried & (world.link_of_mesh >= 0), (len(points_m), 1))
    return labels.keypoints(world, 0, np.array(points_m), carriers, K, T_WORLD_CAM, SIZE)


def test_keypoint_on_the_surface_is_visible() -> None:
    found = seen(world_of(PLATE), (0.05, -0.02, 1.0))
    assert_allclose(found.px, [[70.0, 42.0]])
    assert_array_equal(found.cam_m, [[0.05, -0.02, 1.0]])
    assert (found.state[0], found.visibility[0]) == (KEYPOINT_VISIBLE, 1.0)


def test_keypoint_behind_a_box_is_occluded() -> None:
    found = seen(world_of(PLATE, (box(0.05, 0.05, 0.05), at(0, 0, 0.5), -1, 1)), (0.0, 0.0, 1.0), (0.08, 0.0, 1.0))
    assert_array_equal(found.state, [KEYPOINT_OCCLUDED, KEYPOINT_VISIBLE])  # the box covers 20 px to each side, the second lies 32 px off
    assert_array_equal(found.visibility, [0.0, 1.0])


def test_a_box_beside_the_line_of_sight_hides_the_side_it_covers() -> None:
    """Its edge passes through the keypoint: of the 13 points, the five on its left and none of the six on its right are seen."""
    edge_at_the_axis = (box(0.1, 0.1, 0.02), at(0.05, 0, 0.5), -1, 1)
    found = seen(world_of(PLATE, edge_at_the_axis), (-1e-6, 0.0, 1.0), (0.003, 0.0, 1.0), (-0.003, 0.0, 1.0))
    half = found.visibility[0] * 13
    assert half == pytest.approx(round(half), abs=1e-5)
    assert 5 <= round(half) <= 8
    assert found.visibility[1] < found.visibility[0] < found.visibility[2]
    assert_array_equal(found.state[1:], [KEYPOINT_OCCLUDED, KEYPOINT_VISIBLE])


def test_outside_the_image_and_behind_the_camera() -> None:
    found = seen(world_of(PLATE), (0.2, 0.0, 1.0), (0.0, 0.0, -1.0))
    assert_array_equal(found.state, [KEYPOINT_OUTSIDE] * 2)
    assert_array_equal(found.visibility, [0.0, 0.0])
    assert_allclose(found.px[0], [130.0, 50.0])
    assert np.isnan(found.px[1]).all()


@pytest.mark.parametrize(("depth_m", "state"), [(0.03, KEYPOINT_VISIBLE), (0.11, KEYPOINT_VISIBLE), (0.13, KEYPOINT_OCCLUDED)])
def test_keypoint_inside_the_link_that_carries_it(depth_m: float, state: int) -> None:
    """Joint origins lie inside; but not any deeper than links are thick."""
    assert seen(world_of(PLATE), (0.0, 0.0, 1.0 + depth_m), carried=True).state[0] == state


def test_keypoint_inside_a_link_that_does_not_carry_it() -> None:
    found = seen(world_of(PLATE), (0.0, 0.0, 1.005), (0.0, 0.0, 1.03))
    assert_array_equal(found.state, [KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED])  # 1 cm is forgiven: keypoints on a surface sink into meshes


def test_half_covered_plate() -> None:
    """A box before the plate covers columns 50 … 90 of its columns 10 … 90."""
    world = world_of(PLATE, (box(0.1, 0.2, 0.02), at(0.05, 0, 0.5), -1, 1))
    ids = render_labels(world.posed(0), K, T_WORLD_CAM, SIZE[1], SIZE[0]).mesh_index
    alone = labels.silhouettes(world, 0, 1, 1, K, T_WORLD_CAM, SIZE)
    share = labels.visible_share((ids == 0).astype(np.uint8), 1, alone.links)
    assert alone.links[0].sum() == pytest.approx(81 * 81, abs=2 * 81)
    assert share[0] == pytest.approx(0.5, abs=0.02)
    assert labels.visible_share((ids == 1).astype(np.uint8), 1, alone.objects)[0] == 1.0
    assert_array_equal(alone.robot, alone.links[0])
    assert_array_equal(alone.object_bits > 0, alone.objects[0])


def test_bits_of_overlapping_objects() -> None:
    first, second = (box(0.02, 0.02, 0.02), at(0, 0, 0.5), -1, 1), (box(0.1, 0.1, 0.02), at(0, 0, 0.8), -1, 2)
    bits = labels.silhouettes(world_of(first, second), 0, 0, 2, K, T_WORLD_CAM, SIZE).object_bits
    assert bits[50, 50] == 0b11
    assert bits[50, 50 + 20] == 0b10
    assert bits[0, 0] == 0
    assert bits.dtype == np.uint32


def test_share_of_a_part_out_of_sight_is_zero() -> None:
    amodal = np.zeros((2, 4, 4), bool)
    amodal[1, 0] = True
    ids = np.zeros((4, 4), np.uint8)
    ids[0, :3] = 2
    assert_allclose(labels.visible_share(ids, 1, amodal), [0.0, 0.75])


def test_object_coordinates_round_trip() -> None:
    """NOCS × size through the pose is the point that the depth shows; on the box's faces one coordinate is 0 or 1."""
    size = np.array([[0.10, 0.06, 0.04]])
    pose = se3.make(se3.rotation_from_quaternion((0.8, 0.3, -0.4, 0.35)), (0.02, -0.01, 0.6))
    world = world_of((box(*size[0]), pose, -1, 1), (box(1, 1, 0.1), at(0, 0, 1.5), -1, 255))
    view = render_labels(world.posed(0), K, T_WORLD_CAM, SIZE[1], SIZE[0])
    ids = np.array([1, 255, 0], np.uint8)[view.mesh_index]
    nocs = labels.object_coordinates(view.depth_z_m, ids, K, pose[None], size)
    inside = ids == 1
    assert inside.sum() > 500
    assert not nocs[~inside].any()
    back = se3.transform(pose, (nocs[inside] / 65535 - 0.5) * size[0])
    assert_allclose(back, camera.backproject(K, view.depth_z_m)[inside], atol=2e-6)
    to_face = np.minimum(nocs[inside], 65535 - nocs[inside].astype(int)).min(1)
    assert to_face.max() <= 3


def test_object_coordinates_of_two_objects_use_their_own_size_and_pose() -> None:
    depth, ids = np.full((1, 2), 0.5, np.float32), np.array([[1, 2]], np.uint8)
    points = camera.backproject(K, depth)[0]
    poses = np.stack([at(*points[0]), at(*(points[1] - [0.01, 0, 0]))])
    nocs = labels.object_coordinates(depth, ids, K, poses, np.array([[0.1, 0.1, 0.1], [0.04, 0.1, 0.1]]))
    assert_allclose(nocs[0] / 65535, [[0.5, 0.5, 0.5], [0.75, 0.5, 0.5]], atol=1e-4)


@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf")]), min_size=1, max_size=20))
def test_quantised_depth(values: list[float]) -> None:
    raw = np.array(values, np.float32)
    stored = labels.quantise_depth(raw)
    good = np.isfinite(raw) & (raw > 0)
    assert stored.dtype == np.float32
    assert not stored[~good].any()
    near = good & (raw < 64)
    assert (np.abs(stored[near] - raw[near].astype(float)) <= DEPTH_QUANTUM_M / 2).all()
    assert_array_equal(labels.quantise_depth(stored), stored)
    steps = stored[near].astype(float) / DEPTH_QUANTUM_M
    assert_array_equal(steps, np.rint(steps))
