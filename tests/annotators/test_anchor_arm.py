"""The solver's own kinematics against the plain version."""

from __future__ import annotations

import numpy as np
import pytest

from annotators.anchor_arm import arm_of, link_derivatives, link_poses
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics, point_jacobians


@pytest.mark.parametrize("robot", ["panda", "ur5"])
def test_equals_the_plain_kinematics(robot: str):
    model, rng = load_robot(robot), np.random.default_rng(0)
    q = rng.uniform(model.q_lower, model.q_upper, (5, model.dof))
    arm = arm_of(model)
    poses = link_poses(arm, q)
    np.testing.assert_allclose(poses, forward_kinematics(model, q), atol=1e-12)
    links, offset = np.arange(len(model.links)), rng.normal(size=(len(model.links), 3))
    origin, slope = link_derivatives(arm, poses)
    np.testing.assert_allclose(origin + np.einsum("lk,flkid->flid", offset, slope), point_jacobians(model, q, links, offset), atol=1e-12)
