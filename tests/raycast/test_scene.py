"""Ray queries against closed forms, trimesh's own ray tests, and the guarantees of the class."""

import os

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import DataEngineError
from dataengine.geometry import se3
from dataengine.raycast import RayScene, TriMesh


def box(size=(1.0, 1.0, 1.0)) -> TriMesh:
    mesh = trimesh.creation.box(extents=size)
    return TriMesh(mesh.vertices, mesh.faces)


def at(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    return se3.make(np.eye(3), [x, y, z])


def posed(*meshes_and_poses) -> RayScene:
    scene = RayScene([mesh for mesh, _ in meshes_and_poses])
    scene.pose([pose for _, pose in meshes_and_poses])
    return scene


def test_distance_is_in_units_of_the_direction_vector():
    scene = posed((box(), at(z=3.0)))
    hits = scene.cast([0, 0, 0], [[0, 0, 1], [0, 0, 5], [0.1, 0.05, 1], [0, 0, -1]])
    np.testing.assert_allclose(hits.distance, [2.5, 0.5, 2.5, np.inf], rtol=1e-6)
    assert hits.mesh_index.tolist() == [0, 0, 0, -1]
    np.testing.assert_array_equal(hits.normal, [[0, 0, -1], [0, 0, -1], [0, 0, -1], [0, 0, 0]])


def test_sphere_matches_the_quadratic_formula():
    ball = trimesh.creation.icosphere(subdivisions=6, radius=1.0)
    scene = posed((TriMesh(ball.vertices, ball.faces), at(0.3, -0.2, 4.0)))
    rng = np.random.default_rng(0)
    rays = np.concatenate([rng.uniform(-0.15, 0.15, (500, 2)) + [0.075, -0.05], np.ones((500, 1))], axis=1)
    hits = scene.cast([0, 0, 0], rays)
    centre = np.array([0.3, -0.2, 4.0])
    a, b, c = (rays**2).sum(1), rays @ centre, centre @ centre - 1.0
    expected = (b - np.sqrt(b**2 - a * c)) / a
    np.testing.assert_allclose(hits.distance, expected, atol=1e-3)  # facets of the icosphere lie up to 2e-4 inside
    outward = (rays * expected[:, None] - centre) * hits.normal
    assert outward.sum(1).min() > 0.999


def test_first_hit_agrees_with_trimesh_triangle_by_triangle():
    rng = np.random.default_rng(1)
    knot = trimesh.creation.torus(0.4, 0.15)
    pose = se3.make(se3.rotation_from_rpy([0.4, 1.1, -0.7]), [0.1, 0.2, 2.0])
    scene = posed((box((0.1, 0.1, 0.1)), at(5, 5, 5)), (TriMesh(knot.vertices, knot.faces), pose))
    rays = np.concatenate([rng.uniform(-0.3, 0.3, (300, 2)), np.ones((300, 1))], axis=1)
    hits = scene.cast([0, 0, 0], rays)
    moved = knot.copy().apply_transform(pose)
    points, ray, triangle = trimesh.ray.ray_triangle.RayMeshIntersector(moved).intersects_location(
        np.zeros_like(rays), rays, multiple_hits=False
    )
    depth = np.full(len(rays), np.inf)
    depth[ray] = points[:, 2]
    np.testing.assert_allclose(hits.distance, depth, rtol=1e-5)
    same = hits.triangle[ray] == triangle
    assert same.mean() > 0.99  # a ray through a shared edge may report either side
    assert set(hits.mesh_index.tolist()) == {-1, 1}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_hit_point_lies_on_the_reported_world_triangle(seed, skip_first):
    rng = np.random.default_rng(seed)
    poses = [se3.make(se3.rotation_from_rpy(rng.uniform(-3, 3, 3)), rng.uniform(-1, 1, 3) + [0, 0, 4]) for _ in range(3)]
    scene = RayScene([box(rng.uniform(0.5, 1.5, 3)) for _ in poses])
    scene.pose(poses, include=[not skip_first, True, True])
    rays = np.concatenate([rng.uniform(-0.3, 0.3, (50, 2)), np.ones((50, 1))], axis=1)
    hits = scene.cast([0, 0, 0], rays)
    hit = hits.mesh_index >= 0
    rows = scene.first_triangle[hits.mesh_index[hit]] + hits.triangle[hit]
    assert (scene.mesh_of_triangle[rows] == hits.mesh_index[hit]).all()
    corners = scene.triangles_world[rows].astype(float)
    points = rays[hit] * hits.distance[hit, None]
    plane = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    offset = np.einsum("ij,ij->i", plane / np.linalg.norm(plane, axis=1)[:, None], points - corners[:, 0])
    np.testing.assert_allclose(offset, 0, atol=1e-5)
    assert not (skip_first and (hits.mesh_index == 0).any())


def test_occluded_respects_both_end_points():
    scene = posed((box((1, 1, 0.2)), at(z=1.0)))
    origins = np.zeros((4, 3))
    targets = [[0, 0, 0.5], [0, 0, 0.9], [0, 0, 2.0], [3, 0, 2.0]]
    assert scene.occluded(origins, targets).tolist() == [False, False, True, False]
    assert scene.occluded([[0, 0, 0.9]], [[0, 0, 0.0]]).tolist() == [False]  # starts on the surface
    assert scene.occluded([[0, 0, 0]], [[0, 0, 0]]).tolist() == [False]


def test_no_ray_slips_through_shared_edges():
    plane = trimesh.creation.box(extents=(2, 2, 0.01)).subdivide_loop(3)
    scene = posed((TriMesh(plane.vertices, plane.faces), at(z=1.7)))
    targets = np.concatenate([plane.triangles.mean(1), plane.vertices[plane.edges].mean(1), plane.vertices])
    rays = targets * 0.9 + [0, 0, 1.7]
    assert (scene.cast([0, 0, 0], rays).mesh_index == 0).all()


def test_empty_scene_and_no_rays():
    empty = posed((TriMesh(np.zeros((0, 3)), np.zeros((0, 3), int)), at()))
    assert empty.cast([0, 0, 0], [[0, 0, 1]]).mesh_index.tolist() == [-1]
    assert empty.occluded([[0, 0, 0]], [[0, 0, 1]]).tolist() == [False]
    assert posed((box(), at())).cast([0, 0, 0], np.zeros((0, 3))).distance.shape == (0,)


def test_mesh_keeps_one_structure_in_its_own_frame():
    mesh = box()
    distance, triangle, _ = mesh.bvh.first_hit([0, 0, -3], [[0, 0, 2], [0, 1, 0]])
    np.testing.assert_allclose(distance, [1.25, np.inf])
    assert triangle[0] >= 0 and triangle[1] == -1
    assert mesh.bvh is mesh.bvh
    assert mesh.bvh.any_hit([0, 0, -3], [[0, 0, 1]] * 2, np.array([2.4, 2.6], np.float32)).tolist() == [False, True]


def test_same_cast_twice_is_bitwise_equal():
    rng = np.random.default_rng(8)
    knot = trimesh.creation.torus(0.4, 0.15)
    rays = np.concatenate([rng.uniform(-0.3, 0.3, (2000, 2)), np.ones((2000, 1))], axis=1)
    pose = se3.make(se3.rotation_from_rpy([0.4, 1.1, -0.7]), [0.1, 0.2, 2.0])
    first, second = (posed((TriMesh(knot.vertices, knot.faces), pose)).cast([0, 0, 0], rays) for _ in range(2))
    for field in ("distance", "mesh_index", "triangle", "normal"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


def test_works_after_fork():
    scene = posed((box(), at(z=3.0)))
    scene.cast([0, 0, 0], [[0, 0, 1]])
    child = os.fork()
    if child == 0:
        scene.pose([at(z=4.0)])
        good = abs(float(scene.cast([0, 0, 0], [[0, 0, 1]]).distance[0]) - 3.5) < 1e-5
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RayScene([box()]).cast([0, 0, 0], [[0, 0, 1]]), "call pose"),
        (lambda: RayScene([box()]).pose(np.zeros((2, 4, 4))), "expected \\(1, 4, 4\\)"),
        (lambda: RayScene([box()]).pose([at()], include=[True, True]), "a flag per mesh"),
        (lambda: posed((box(), at())).cast([0, 0, 0], [0, 0, 1]), "expected \\(N, 3\\)"),
        (lambda: TriMesh(np.zeros((3, 3)), np.array([[0, 1, 3]])), "there are 3 vertices"),
        (lambda: TriMesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]])), "NaN"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(DataEngineError, match=message):
        call()
