"""Keypoint sets: the published tables, what they make observable, and sets for any robot."""

import numpy as np
import pytest

from dataengine.errors import RobotError
from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import available_sets, keypoint_set, keypoint_union, observability
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes

ARM_AND_BASE = 7 + 6


def uniform_q(model, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(model.q_lower, model.q_upper, (count, model.dof))


def rank(model, keypoints, q) -> np.ndarray:
    return (observability(model, keypoints, q) > 1e-6).sum(axis=-1)


def test_dream7_are_link_origins_in_published_order():
    panda = load_robot("panda")
    points = keypoint_set(panda, "dream7")
    assert points.names == (*(f"panda_link{i}" for i in (0, 2, 3, 4, 6, 7)), "panda_hand")
    poses = forward_kinematics(panda, uniform_q(panda, 3))
    np.testing.assert_array_equal(points.positions(poses)[:, 3], poses[:, panda.link_index("panda_link4"), :3, 3])


def test_simrgbd14_positions_of_the_zero_pose():
    """Joint offsets of the Panda's datasheet: shoulder at 0.333 m, elbow 0.316 m above it."""
    panda = load_robot("panda")
    points = keypoint_set(panda, "simrgbd14").positions(forward_kinematics(panda, np.zeros(8)))
    assert points.shape == (14, 3)
    np.testing.assert_allclose(points[[0, 1, 3]], [[0, 0, 0], [0, 0, 0.14], [0, 0, 0.333]], atol=1e-12)
    np.testing.assert_allclose(points[5], [0, 0, 0.333 + 0.194], atol=1e-12)
    np.testing.assert_allclose(points[6], [0.0825, 0, 0.333 + 0.316], atol=1e-12)


def test_share_of_uniform_configurations_below_the_base_plane():
    """Published measurement over 20 000 uniform configurations: an origin or one of the 14 points lies below the
    base plane in 7.2 %, deeper than 5 cm in 4.9 %."""
    panda = load_robot("panda")
    poses = forward_kinematics(panda, uniform_q(panda, 20_000))
    origins = [panda.link_index(f"panda_link{i}") for i in range(8)] + [panda.link_index("panda_hand")]
    points = keypoint_set(panda, "simrgbd14").positions(poses)
    lowest = np.minimum(poses[:, origins, 2, 3].min(axis=1), points[..., 2].min(axis=1))
    assert (lowest < -1e-9).mean() == pytest.approx(0.072, abs=0.004)
    assert (lowest < -0.05).mean() == pytest.approx(0.049, abs=0.004)


def test_panda15_sees_all_arm_joints_and_the_base_but_dream7_does_not():
    panda = load_robot("panda")
    q = uniform_q(panda, 100)
    assert (rank(panda, keypoint_set(panda, "panda15"), q) == ARM_AND_BASE).all()
    assert (rank(panda, keypoint_set(panda, "simrgbd14"), q) == ARM_AND_BASE).all()
    assert (rank(panda, keypoint_set(panda, "dream7"), q) == ARM_AND_BASE - 2).all()


def test_what_dream7_cannot_see_is_the_last_joint_and_base_yaw_against_the_first():
    panda = load_robot("panda")
    points = keypoint_set(panda, "dream7")
    q = uniform_q(panda, 1)[0]
    turned = q.copy()
    turned[6] += 0.3
    here, there = (points.positions(forward_kinematics(panda, x)) for x in (q, turned))
    np.testing.assert_allclose(here, there, atol=1e-12)
    turned = q.copy()
    turned[0] += 0.3
    yaw_back = np.array([[np.cos(0.3), np.sin(0.3), 0], [-np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    np.testing.assert_allclose(points.positions(forward_kinematics(panda, turned)) @ yaw_back.T, here, atol=1e-12)


def test_surface_points_tell_the_flipped_shoulder_and_panda15_does_not(robot_cache):
    panda = load_robot("panda")
    q = uniform_q(panda, 50)
    flipped = q.copy()
    flipped[:, :3] = np.stack([q[:, 0] + np.pi, -q[:, 1], q[:, 2] + np.pi], -1)
    here, there = (forward_kinematics(panda, x) for x in (q, flipped))
    old, new = (keypoint_set(panda, name) for name in ("panda15", "panda15_surface"))
    np.testing.assert_allclose(old.positions(there), old.positions(here), atol=1e-9)
    moved = np.linalg.norm(new.positions(there) - new.positions(here), axis=-1)
    assert ((moved > 0.15).sum(axis=1) == 2).all()  # on link1 and link2
    assert (rank(panda, new, q) == ARM_AND_BASE).all()


def test_surface_points_lie_on_their_links(robot_cache):
    panda = load_robot("panda")
    points = keypoint_set(panda, "panda15_surface")
    vertices = {mesh.link: mesh.vertices_m for mesh in load_link_meshes(panda, robot_cache)}
    for link, offset in zip(points.link_index[7:], points.offset_m[7:], strict=True):
        assert np.linalg.norm(vertices[panda.links[link]] - offset, axis=1).min() < 1.5e-3


@pytest.mark.parametrize("name", ["panda", "xarm7", "ur5"])
def test_auto_makes_everything_observable(name, robot_cache):
    model = load_robot(name)
    points = keypoint_set(model, "auto", robot_cache)
    assert (rank(model, points, uniform_q(model, 50)) == 6 + model.dof).all()
    assert len(set(points.names)) == len(points)
    origins = keypoint_set(model, "links")
    assert points.names[: len(origins)] == origins.names and origins.names[0] == model.root
    apart = np.linalg.norm(np.diff(origins.positions(forward_kinematics(model, uniform_q(model, 20))), axis=1), axis=-1)
    assert (apart.max(axis=0) > 1e-3).all()  # origins that always coincide are kept once


def test_auto_works_without_meshes(tmp_path):
    (tmp_path / "bare.urdf").write_text(
        '<robot name="bare"><link name="a"/><link name="b"/><joint name="j" type="continuous"><parent link="a"/>'
        '<child link="b"/><origin xyz="0 0 1"/><axis xyz="0 0 1"/></joint></robot>'
    )
    model = load_robot(tmp_path / "bare.urdf")
    assert (rank(model, keypoint_set(model, "auto", tmp_path), uniform_q(model, 5)) == 7).all()


def test_union_keeps_first_mentions_and_finds_its_parts():
    panda = load_robot("panda")
    dream, fifteen, fourteen = (keypoint_set(panda, name) for name in ("dream7", "panda15", "simrgbd14"))
    union = keypoint_union(panda, ["dream7", "panda15", "simrgbd14"])
    assert union.names[:15] == fifteen.names and len(union) == 15 + 14 - 2  # link0 and link4 origins are shared
    for part in (dream, fifteen, fourteen):
        rows = union.rows(part)
        np.testing.assert_array_equal(union.offset_m[rows], part.offset_m)
        np.testing.assert_array_equal(union.link_index[rows], part.link_index)
    with pytest.raises(RobotError, match="not labelled here: panda_link0@0,0,140mm, .*; labelled: panda_link0, "):
        dream.rows(fourteen)


@pytest.mark.parametrize(
    ("robot", "name", "message"),
    [
        ("xarm7", "dream7", "robot xarm7: unknown keypoint set 'dream7'; available: links, auto"),
        ("panda", "panda16", "did you mean 'panda15'.*available: dream7, simrgbd14, panda15, panda15_surface, links, auto"),
    ],
)
def test_unknown_sets_list_those_of_this_robot(robot, name, message):
    model = load_robot(robot)
    with pytest.raises(RobotError, match=message):
        keypoint_set(model, name)
    assert name not in available_sets(model)


def test_empty_union_is_refused():
    with pytest.raises(RobotError, match="no keypoint set given; available"):
        keypoint_union(load_robot("panda"), [])
