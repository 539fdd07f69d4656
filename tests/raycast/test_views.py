"""Camera views of ray scenes against closed forms."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import DataEngineError
from dataengine.geometry import se3
from dataengine.geometry.camera import intrinsics
from dataengine.raycast import RayScene, TriMesh, amodal_masks, pixel_rays, point_visible, render_labels

K = intrinsics(80.0, 82.0, 31.5, 23.5)
W, H = 64, 48


def box(*size: float) -> TriMesh:
    mesh = trimesh.creation.box(extents=size)
    return TriMesh(mesh.vertices, mesh.faces)


def at(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    return se3.make(np.eye(3), [x, y, z])


def camera(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return se3.make(se3.rotation_from_rpy(rng.uniform(-3, 3, 3)), rng.uniform(-2, 2, 3))


def test_pixel_rays_project_back_to_integer_pixels_even_with_skew():
    skewed = K.copy()
    skewed[0, 1] = 3.0
    uv = pixel_rays(skewed, W, H) @ skewed.T
    expected = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).reshape(-1, 2)
    np.testing.assert_allclose(uv[:, :2], expected, atol=1e-9)
    np.testing.assert_array_equal(uv[:, 2], 1)


def test_slanted_plane_has_analytic_planar_depth_and_normal_from_any_camera():
    T_world_cam = camera(3)
    tilt = se3.rotation_from_rpy([0.5, 0.3, 0.0])
    plane_in_cam = se3.make(tilt, [0, 0, 2.0])
    scene = RayScene([box(50, 50, 1e-4)])
    scene.pose([T_world_cam @ plane_in_cam])
    view = render_labels(scene, K, T_world_cam, W, H)
    n = tilt[:, 2]
    front = np.array([0, 0, 2.0]) - np.sign(n[2]) * n * 0.5e-4
    expected = (n @ front) / (pixel_rays(K, W, H) @ n)
    np.testing.assert_allclose(view.depth_z_m.ravel(), expected, rtol=2e-5)
    np.testing.assert_allclose(view.normal_cam.reshape(-1, 3), np.tile(-np.sign(n[2]) * n, (W * H, 1)), atol=1e-5)


def test_fronto_box_covers_exactly_the_pixels_its_face_projects_to():
    scene = RayScene([box(0.5, 0.4, 0.2), box(9, 9, 0.1)])
    scene.pose([at(0.1, 0.0, 1.1), at(z=3.05)])
    view = render_labels(scene, K, np.eye(4), W, H)
    v, u = np.mgrid[0:H, 0:W]
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    inside = (np.abs(x - 0.1) < 0.25) & (np.abs(y) < 0.2)
    np.testing.assert_array_equal(view.mesh_index, np.where(inside, 0, 1))
    np.testing.assert_allclose(view.depth_z_m, np.where(inside, 1.0, 3.0), rtol=1e-6)
    assert view.depth_z_m.dtype == view.normal_cam.dtype == np.float32
    assert view.mesh_index.dtype == view.triangle.dtype == np.int32


def test_background_is_marked_as_nothing():
    scene = RayScene([box(0.1, 0.1, 0.1)])
    scene.pose([at(z=1.0)])
    view = render_labels(scene, K, np.eye(4), W, H)
    none = view.mesh_index == -1
    assert none.any() and not none.all()
    assert (view.depth_z_m[none] == 0).all() and (view.normal_cam[none] == 0).all() and (view.triangle[none] == -1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_amodal_holds_visible_and_equals_a_scene_with_the_group_alone(seed):
    rng = np.random.default_rng(seed)
    T_world_cam = camera(seed)
    meshes = [box(*rng.uniform(0.1, 1.2, 3)) for _ in range(4)]
    # z down to -0.5: some boxes straddle the camera plane or lie behind it
    poses = np.stack(
        [T_world_cam @ se3.make(se3.rotation_from_rpy(rng.uniform(-3, 3, 3)), rng.uniform([-1, -1, -0.5], [1, 1, 4]))
         for _ in meshes]
    )  # fmt: skip
    scene = RayScene(meshes)
    scene.pose(poses)
    groups = [[0, 1], [2], [3], []]
    visible = render_labels(scene, K, T_world_cam, W, H).mesh_index
    amodal = amodal_masks(scene, poses, groups, K, T_world_cam, W, H)
    for mask, group in zip(amodal, groups, strict=True):
        assert (np.isin(visible, group) & ~mask).sum() <= 1  # rounding may move a pixel exactly on an outline
        scene.pose(poses, include=np.isin(np.arange(4), group))
        alone = render_labels(scene, K, T_world_cam, W, H).mesh_index >= 0
        assert (mask != alone).sum() <= 1


def test_amodal_leaves_the_pose_of_the_scene_alone():
    scene = RayScene([box(1, 1, 1)])
    scene.pose([at(z=3.0)])
    amodal_masks(scene, [at(z=9.0)], [[0]], K, np.eye(4), W, H)
    assert scene.cast([0, 0, 0], [[0, 0, 1]]).distance[0] == pytest.approx(2.5)


def test_point_visibility():
    """A 20 cm thick link (0) with its joint inside, a neighbour (1) beside it, an obstacle (2) hiding another point."""
    scene = RayScene([box(0.2, 0.2, 0.2), box(0.2, 0.2, 0.2), box(0.2, 0.2, 0.2)])
    scene.pose([at(0, 0, 2.0), at(0.5, 0, 2.0), at(-0.3, 0, 1.0)])
    points = [[0, 0, 2.0], [0, 0, 1.9], [0.5, 0, 2.0], [0.5, 0, 2.0], [-0.6, 0, 2.0], [0, 0.3, 2.0], [0, 0, 2.4]]
    own = [0, 0, 1, -1, 0, 0, 0]
    visible = point_visible(scene, points, own, np.eye(4), embedded_m=0.15)
    # inside own, on own surface, inside own, inside another's, behind the obstacle, in free space, far behind own
    assert visible.tolist() == [True, True, True, False, False, True, False]
    see_through = np.zeros((7, 3), bool)
    see_through[3, 1] = True  # the same point once the neighbour counts as part of its joint
    assert point_visible(scene, points, own, np.eye(4), see_through, embedded_m=0.15)[3]


def test_point_visible_wants_an_owner_per_point():
    scene = RayScene([box(1, 1, 1)])
    scene.pose([at()])
    with pytest.raises(DataEngineError, match="one per point"):
        point_visible(scene, np.zeros((2, 3)), [0], np.eye(4))
