"""The fast collision test against exact intersection of the full meshes, and against common sense."""

import numpy as np
import pytest

from dataengine.robot.catalogue import load_robot
from dataengine.robot.collision import below_floor, load_collision_model, lowest_point, pair_collisions, self_collision
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes
from tests.robot.mesh_oracle import MeshOracle

# Upright, reaching and folded but valid Panda poses, degrees; the fingers are added below.
PANDA_FREE_DEG = [
    (0, -45, 0, -135, 0, 90, 45), (0, 0, 0, -90, 0, 90, 45), (0, 0, 0, -5, 0, 90, 0), (90, -45, 0, -135, 0, 90, 45),
    (-90, -45, 0, -135, 0, 90, 45), (45, 30, 0, -60, 0, 90, 45), (-45, 30, 0, -60, 0, 90, 0), (0, 40, 0, -40, 0, 80, 45),
    (150, -20, 20, -100, 10, 100, -45), (-150, -20, -20, -100, -10, 100, 45), (0, -60, 0, -150, 0, 100, 45),
    (30, 10, 30, -110, 0, 120, 0), (0, -30, 90, -90, 0, 90, 0), (0, -30, -90, -90, 0, 90, 0), (10, 20, -10, -80, 40, 150, 90),
    (0, 0, 0, -135, 0, 135, 45), (0, 60, 0, -30, 0, 90, 45), (60, -10, 45, -70, -45, 110, 120), (0, -90, 0, -90, 0, 90, 45),
    (-60, 15, -30, -95, 60, 140, -100),
]  # fmt: skip
PANDA_FOLDED_DEG = [
    (0, -45, 0, -175, 0, 3, 0),  # hand folded back onto the upper arm
    (0, 100, 0, -170, 0, 90, 0),  # hand driven into the base
    (0, 20, 0, -175, 0, 60, 45),
    (0, 60, 0, -175, 0, 10, 45),
]


def panda_q(degrees) -> np.ndarray:
    rows = np.deg2rad(np.array(degrees, float))
    return np.concatenate([rows, np.full((len(rows), 1), 0.02)], axis=1)


@pytest.fixture(scope="module")
def panda(robot_cache):
    return load_collision_model(load_robot("panda"), robot_cache)


def test_ready_pose_and_hand_picked_poses_are_free(panda):
    q = panda_q(PANDA_FREE_DEG)
    assert (q >= panda.model.q_lower).all() and (q <= panda.model.q_upper).all()
    hits = pair_collisions(panda, forward_kinematics(panda.model, q))
    assert not hits.any(), [panda.pair_name(pair) for pair in np.flatnonzero(hits.any(axis=0))]


def test_folded_poses_collide(panda):
    assert self_collision(panda, panda_q(PANDA_FOLDED_DEG)).all()


@pytest.mark.parametrize(("name", "count", "most_false_alarms"), [("panda", 40, 0.05), ("xarm7", 40, 0.05)])
def test_against_exact_mesh_intersection(name, count, most_false_alarms, robot_cache):
    """No collision is missed; few near misses are reported. Half of the poses are drawn among suspected ones."""
    model = load_robot(name)
    collision = load_collision_model(model, robot_cache)
    q = np.random.default_rng(5).uniform(model.q_lower, model.q_upper, (2000, model.dof))
    suspected = self_collision(collision, q)
    assert 0.03 < suspected.mean() < 0.15
    oracle = MeshOracle(collision, load_link_meshes(model, robot_cache))
    truth_of_suspected = np.array([oracle.pairs(x).any() for x in q[suspected][: count // 2]])
    truth_of_free = np.array([oracle.pairs(x).any() for x in q[~suspected][: count // 2]])
    assert not truth_of_free.any()
    assert truth_of_suspected.mean() > 0.5
    false_alarm_rate = suspected.mean() * (1 - truth_of_suspected.mean())
    assert false_alarm_rate < most_false_alarms


@pytest.mark.slow
@pytest.mark.parametrize("name", ["panda", "xarm7", "ur5"])
def test_no_collision_is_missed_in_many_configurations(name, robot_cache):
    model = load_robot(name)
    collision = load_collision_model(model, robot_cache)
    oracle = MeshOracle(collision, load_link_meshes(model, robot_cache))
    q = np.random.default_rng(6).uniform(model.q_lower, model.q_upper, (400, model.dof))
    truth = np.array([oracle.pairs(x).any() for x in q])
    ours = self_collision(collision, q)
    assert truth.sum() > 10
    assert (ours & truth).sum() >= 0.99 * truth.sum()


def test_lowest_point_is_that_of_the_full_mesh(panda, robot_cache):
    model = panda.model
    q = np.random.default_rng(2).uniform(model.q_lower, model.q_upper, (5, model.dof))
    poses = forward_kinematics(model, q)
    moving = [mesh for mesh in load_link_meshes(model, robot_cache) if mesh.link_index not in model.base_link_indices]
    heights = [(mesh.vertices_m @ poses[:, mesh.link_index, 2, :3].T + poses[:, mesh.link_index, 2, 3]).min(axis=0) for mesh in moving]
    lowest = lowest_point(panda, q)
    np.testing.assert_allclose(lowest, np.min(heights, axis=0), atol=1e-9)
    np.testing.assert_array_equal(below_floor(panda, q, lowest + 1e-6), True)
    np.testing.assert_array_equal(below_floor(panda, q, lowest - 1e-6), False)


def test_bodies_that_touch_by_design_are_not_tested(panda):
    names = {panda.pair_name(pair) for pair in range(len(panda.pairs))}
    assert "panda_link0-panda_link1" not in names and "panda_leftfinger-panda_rightfinger" not in names
    assert "panda_link7-panda_leftfinger" not in names  # the hand is one body with link 7
    assert "panda_link0-panda_link7" in names


def test_rates_shapes_and_speed_of_batches(panda):
    q = np.zeros((2, 3, 8)) + panda_q(PANDA_FREE_DEG[:1])
    assert self_collision(panda, q).shape == below_floor(panda, q).shape == (2, 3)
    assert self_collision(panda, q[0, 0]).shape == ()


def test_robot_without_meshes_never_collides(tmp_path):
    (tmp_path / "bare.urdf").write_text(
        '<robot name="bare"><link name="a"/><link name="b"/><joint name="j" type="continuous"><parent link="a"/>'
        '<child link="b"/><axis xyz="0 0 1"/></joint></robot>'
    )
    bare = load_collision_model(load_robot(tmp_path / "bare.urdf"), tmp_path)
    assert not self_collision(bare, np.zeros((4, 1))).any() and not below_floor(bare, np.zeros((4, 1))).any()


def test_cached_model_equals_the_built_one(panda, robot_cache):
    again = load_collision_model(panda.model, robot_cache)
    np.testing.assert_array_equal(again.pairs, panda.pairs)
    assert again.floor_bodies == panda.floor_bodies and again.resolution_m == panda.resolution_m
    q = np.random.default_rng(3).uniform(panda.model.q_lower, panda.model.q_upper, (200, 8))
    np.testing.assert_array_equal(self_collision(again, q), self_collision(panda, q))
