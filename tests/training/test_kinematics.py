"""Keypoint chains: against the robot package, pytorch-kinematics, autograd; tables that travel as JSON."""

import json
import re

import numpy as np
import pytest
import pytorch_kinematics
import torch

from dataengine.errors import RobotError
from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import keypoint_set
from dataengine.robot.kinematics import forward_kinematics, point_jacobians
from dataengine.robot.urdf import parse_urdf
from training.kinematics import KeypointChain

ROBOTS = [("panda", "dream7"), ("panda", "panda15"), ("panda", "links"), ("xarm7", "links"), ("ur5", "links"), ("so101", "links")]


def chain_of(robot: str = "panda", points: str = "panda15") -> KeypointChain:
    return KeypointChain.from_model(load_robot(robot), points)


def random_q(model, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(model.q_lower, model.q_upper, (count, model.dof))


@pytest.mark.parametrize(("robot", "points"), ROBOTS)
def test_points_and_jacobians_equal_the_robot_package(robot, points):
    """The finger of the Panda's `links` slides and mimics; SO-101 branches."""
    model, chain = load_robot(robot), chain_of(robot, points)
    q, labels = random_q(model, 20), keypoint_set(model, points)
    jacobians = point_jacobians(model, q, labels.link_index, labels.offset_m)
    mine = torch.tensor(q[:, chain.joint_columns])
    np.testing.assert_allclose(chain.forward(mine), labels.positions(forward_kinematics(model, q)), atol=1e-12)
    np.testing.assert_allclose(chain.jacobian(mine), jacobians[..., chain.joint_columns], atol=1e-12)
    assert not np.delete(jacobians, chain.joint_columns, -1).any()  # joints left out move no keypoint
    np.testing.assert_allclose(chain.forward_one(mine[3]), chain.forward(mine)[3], atol=1e-12)
    np.testing.assert_allclose(chain.jacobian_one(mine[3]), chain.jacobian(mine)[3], atol=1e-12)
    assert chain.joint_names == tuple(model.actuated[c] for c in chain.joint_columns)


def test_mimics_sliders_and_branches(tmp_path):
    """A turning stem with two sliding fingers of opposite sign, the second following at half speed plus an offset."""
    path = tmp_path / "claw.urdf"
    path.write_text(
        "<robot name='claw'><link name='base'/><link name='stem'/><link name='left'/><link name='right'/>"
        "<joint name='turn' type='revolute'><parent link='base'/><child link='stem'/><origin xyz='0 0 1' rpy='0.3 0 0'/>"
        "<axis xyz='0 0.6 -0.8'/><limit lower='-2' upper='2' velocity='1' effort='1'/></joint>"
        "<joint name='slide' type='prismatic'><parent link='stem'/><child link='left'/><origin xyz='0.2 0 0'/>"
        "<axis xyz='0 -1 0'/><limit lower='0' upper='0.1' velocity='1' effort='1'/></joint>"
        "<joint name='follow' type='prismatic'><parent link='stem'/><child link='right'/><origin xyz='0.2 0.1 0'/>"
        "<axis xyz='0 0 -1'/><limit lower='-1' upper='1' velocity='1' effort='1'/>"
        "<mimic joint='slide' multiplier='-0.5' offset='0.03'/></joint></robot>"
    )
    model = parse_urdf(path)
    chain, labels, q = KeypointChain.from_model(model, "links"), keypoint_set(model, "links"), random_q(model, 8)
    mine = torch.tensor(q[:, chain.joint_columns], requires_grad=True)
    np.testing.assert_allclose(chain.forward(mine).detach(), labels.positions(forward_kinematics(model, q)), atol=1e-12)
    slopes = torch.autograd.functional.jacobian(lambda v: chain.forward(v).sum(0), mine)
    np.testing.assert_allclose(slopes.permute(2, 0, 1, 3), chain.jacobian(mine.detach()), atol=1e-12)
    np.testing.assert_allclose(chain.jacobian_one(q[2][chain.joint_columns]), chain.jacobian(mine.detach())[2], atol=1e-12)
    assert set(chain.source.tolist()) == {0, 1}
    assert chain.parent.max() == 0


def test_jacobian_equals_autograd_and_finite_differences():
    chain = chain_of()
    q = torch.tensor(random_q(load_robot("panda"), 1)[0, :7], requires_grad=True)
    by_autograd = torch.autograd.functional.jacobian(chain.forward, q)
    analytic = chain.jacobian(q.detach())
    torch.testing.assert_close(analytic, by_autograd, atol=1e-12, rtol=0)
    step = 1e-6 * torch.eye(7, dtype=q.dtype)
    numeric = torch.stack([(chain.forward(q.detach() + s) - chain.forward(q.detach() - s)) / 2e-6 for s in step], -1)
    torch.testing.assert_close(analytic, numeric, atol=1e-9, rtol=0)


@pytest.fixture(scope="module")
def peer() -> pytorch_kinematics.SerialChain:
    """The Panda to its hand by pytorch-kinematics; tags that it does not know are cut out."""
    text = load_robot("panda").urdf_path.read_text()
    text = re.sub(r"<(dynamics|mimic)[^>]*/>", "", text)
    return pytorch_kinematics.build_serial_chain_from_urdf(text.encode(), "panda_hand")


@pytest.mark.parametrize("batch", [1, 4096])
def test_single_precision_equals_pytorch_kinematics(peer, batch):
    """To 1e-6 m: ours in float32 against the peer in float64, which is exact here."""
    chain, model = chain_of(points="dream7"), load_robot("panda")
    q = torch.tensor(random_q(model, batch)[:, :7])
    found = peer.to(dtype=torch.float64).forward_kinematics(q, end_only=False)
    theirs = torch.stack([found[name].get_matrix()[:, :3, 3].expand(batch, 3) for name in chain.keypoint_names], 1)
    assert (chain.forward(q.float()).double() - theirs).abs().max() < 1e-6
    hand = peer.jacobian(q)[:, :3]
    assert (chain.jacobian(q.float())[:, -1].double() - hand).abs().max() < 2e-6


def test_tables_travel_as_json():
    chain = chain_of()
    copy = KeypointChain.from_dict(json.loads(json.dumps(chain.to_dict())))
    q = torch.tensor(random_q(load_robot("panda"), 5)[:, :7])
    assert torch.equal(copy.forward(q), chain.forward(q))
    assert torch.equal(copy.jacobian(q), chain.jacobian(q))
    assert (copy.joint_names, copy.keypoint_names, copy.dof, len(copy)) == (chain.joint_names, chain.keypoint_names, 7, 15)


def test_leading_shape_is_kept():
    chain = chain_of()
    assert chain.forward(torch.zeros(2, 3, 7)).shape == (2, 3, 15, 3)
    assert chain.jacobian(torch.zeros(7)).shape == (15, 3, 7)
    assert chain.forward(torch.zeros(0, 7)).shape == (0, 15, 3)


def test_bad_input_is_named():
    with pytest.raises(RobotError, match=r"q has shape \(4, 8\), expected \(..., 7\): panda_joint1"):
        chain_of().forward(torch.zeros(4, 8))
    with pytest.raises(RobotError, match="kinematic tables lack joint_names"):
        KeypointChain.from_dict({k: v for k, v in chain_of().to_dict().items() if k != "joint_names"})
    with pytest.raises(RobotError, match="available: dream7"):
        chain_of(points="panda16")
