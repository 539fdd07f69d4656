"""Kinematics against yourdfpy, numeric differentiation and known numbers."""

import logging

import numpy as np
import pytest
import yourdfpy
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import RobotError
from dataengine.robot.catalogue import PACKAGED, load_robot
from dataengine.robot.kinematics import forward_kinematics, jacobian, joint_mapping, point_jacobians, point_positions

ROBOTS = ("panda", "xarm7", "ur5", "so101", "so100", "ur3", "ur10", "z1", "kinova")


def uniform_q(model, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(model.q_lower, model.q_upper, (count, model.dof))


def test_every_packaged_robot_is_tested():
    assert set(ROBOTS) == set(PACKAGED)


@pytest.mark.parametrize("name", ROBOTS)
def test_forward_kinematics_equals_yourdfpy(name):
    logging.getLogger("yourdfpy").setLevel(logging.ERROR)
    model = load_robot(name)
    oracle = yourdfpy.URDF.load(str(model.urdf_path), load_meshes=False, build_scene_graph=True)
    assert tuple(oracle.actuated_joint_names) == model.actuated
    q = uniform_q(model, 20)
    ours = forward_kinematics(model, q)
    for row, configuration in enumerate(q):
        oracle.update_cfg(configuration)
        theirs = np.stack([oracle.get_transform(link) for link in model.links])
        np.testing.assert_allclose(ours[row], theirs, atol=1e-9)


def test_panda_hand_at_zero():
    model = load_robot("panda")
    hand = forward_kinematics(model, np.zeros(8))[model.link_index("panda_hand")]
    np.testing.assert_allclose(hand[:3, 3], [0.088, 0.0, 0.926], atol=1e-12)


def test_fingers_mirror_each_other():
    model = load_robot("panda")
    poses = forward_kinematics(model, [*np.zeros(7), 0.03])
    left, right = (poses[model.link_index(f"panda_{side}finger"), :3, 3] for side in ("left", "right"))
    assert np.linalg.norm(left - right) == pytest.approx(0.06, abs=1e-12)
    A, b = joint_mapping(model)
    assert A.shape == (12, 8) and A[:, 7].sum() == 2 and not b.any()


def test_batch_shapes_and_order_are_those_of_the_input():
    model = load_robot("ur5")
    q = uniform_q(model, 6).reshape(2, 3, 6)
    poses = forward_kinematics(model, q)
    assert poses.shape == (2, 3, len(model.links), 4, 4)
    np.testing.assert_array_equal(poses[1, 2], forward_kinematics(model, q[1, 2]))
    assert jacobian(model, q, "tool0").shape == (2, 3, 3, 6)


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(("panda", "xarm7", "so101")), seed=st.integers(0, 2**31))
def test_jacobian_equals_numeric_differentiation(name, seed):
    model, rng = load_robot(name), np.random.default_rng(seed)
    q = uniform_q(model, 1, seed)[0]
    links = np.arange(len(model.links))
    offsets = rng.uniform(-0.2, 0.2, (len(links), 3))
    step = 1e-6
    probes = q + step * np.concatenate([np.eye(model.dof), -np.eye(model.dof)])
    points = point_positions(forward_kinematics(model, probes), links, offsets)
    numeric = (points[: model.dof] - points[model.dof :]) / (2 * step)
    np.testing.assert_allclose(point_jacobians(model, q, links, offsets), np.moveaxis(numeric, 0, -1), atol=1e-8)
    single = jacobian(model, q, model.links[-1], offsets[-1])
    np.testing.assert_array_equal(single, jacobian(model, q, len(links) - 1, offsets[-1]))
    np.testing.assert_allclose(single, np.moveaxis(numeric, 0, -1)[-1], atol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: forward_kinematics(m, np.zeros(7)), r"q has shape \(7,\), expected \(\.\.\., 8\): panda_joint1"),
        (lambda m: jacobian(m, np.zeros(8), "panda_hnd"), "unknown link 'panda_hnd'.*did you mean 'panda_hand'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(RobotError, match=message):
        call(load_robot("panda"))
