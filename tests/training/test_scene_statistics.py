"""Random scenes: the stated statistics, the pinhole, repeatability, and the detector's noise."""

import math

import numpy as np
import pytest
import torch

from dataengine.errors import ConfigError
from dataengine.geometry import camera
from dataengine.robot.catalogue import load_robot
from training.kinematics import KeypointChain
from training.scene_statistics import (
    FOVS_DEG,
    PANDA_MEAN_RAD,
    PANDA_STD_RAD,
    DetectorNoise,
    camera_matrix,
    focal_px,
    in_image,
    joint_prior,
    project,
    sample_scenes,
)


@pytest.fixture(scope="module")
def chain() -> KeypointChain:
    return KeypointChain.from_model(load_robot("panda"), "panda15")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_focal_lengths_of_the_protocol():
    assert [focal_px(fov) for fov in FOVS_DEG] == pytest.approx([525.0, 455.3, 303.6], abs=0.1)
    np.testing.assert_allclose(camera_matrix(70.21), camera.intrinsics_from_fov(640, 480, math.radians(70.21)))
    with pytest.raises(ConfigError, match="between 0 and 180"):
        focal_px(180.0)


def test_scenes_are_consistent(chain):
    scenes = sample_scenes(chain, 200, 70.21, generator())
    torch.testing.assert_close(scenes.X_cam, chain.forward(scenes.q) @ scenes.R.mT + scenes.T[:, None])
    expected = np.stack([camera.project(K, X) for K, X in zip(scenes.K.numpy(), scenes.X_cam.numpy(), strict=True)])
    np.testing.assert_allclose(scenes.uv, expected, atol=1e-9)
    torch.testing.assert_close(torch.linalg.det(scenes.R), torch.ones(200, dtype=torch.float64))
    assert scenes.visible.all()
    assert (scenes.X_cam[..., 2] > 0.3).all()
    eye = -(scenes.R.mT @ scenes.T[..., None])[..., 0] - torch.tensor([0.0, 0.0, 0.25])
    assert ((eye.norm(dim=1) > 0.899) & (eye.norm(dim=1) < 1.901)).all()
    assert (eye[:, 0] > 0).all()  # in front of the robot


def test_joints_follow_the_prior_within_limits(chain):
    prior = joint_prior(chain)
    q = prior.sample(20_000, generator())
    assert ((q >= prior.lower) & (q <= prior.upper)).all()
    # joints whose limits cut next to nothing
    for joint in (2, 4):
        assert q[:, joint].mean() == pytest.approx(PANDA_MEAN_RAD[joint], abs=0.02)
        assert q[:, joint].std() == pytest.approx(PANDA_STD_RAD[joint], rel=0.02)


def test_other_robots_have_a_prior_from_their_limits():
    other = KeypointChain.from_model(load_robot("ur5"), "links")
    prior = joint_prior(other)
    torch.testing.assert_close(prior.mean, torch.tensor((other.lower + other.upper) / 2))
    assert len(sample_scenes(other, 5, 70.21, generator())) == 5


def test_the_same_scenes_for_every_camera(chain):
    one, two = (sample_scenes(chain, 50, fov, generator(3), inside_image=True) for fov in (FOVS_DEG[0], FOVS_DEG[2]))
    assert torch.equal(one.q, two.q)
    assert torch.equal(one.X_cam, two.X_cam)
    centre = one.K[:, None, :2, 2]
    torch.testing.assert_close((one.uv - centre) / one.K[:, :1, :1], (two.uv - centre) / two.K[:, :1, :1])
    assert in_image(one.uv, one.X_cam).all()
    assert not torch.equal(one.q, sample_scenes(chain, 50, FOVS_DEG[0], generator(4), inside_image=True).q)


def test_rows_precision_and_borders(chain):
    scenes = sample_scenes(chain, 6, 70.21, generator())
    assert torch.equal(scenes[2:4].q, scenes.q[2:4])
    small = scenes.to(torch.float32)
    assert (small.uv.dtype, small.visible.dtype) == (torch.float32, torch.bool)
    X = torch.tensor([[0.0, 0.0, 1.0]] * 4)
    uv = torch.tensor([[-0.5, 0.0], [-0.51, 0.0], [639.4, 479.4], [639.5, 0.0]])
    assert in_image(uv, X).tolist() == [True, False, True, False]
    torch.testing.assert_close(project(scenes.K[0], X.double())[0], scenes.K[0, :2, 2])


def test_noise_has_the_stated_parts():
    uv = torch.zeros(4000, 15, 2, dtype=torch.float64)
    noisy, kept = DetectorNoise(1.5, outlier_share=0.03, outlier_px=20.0, dropout_share=0.1).apply(uv, generator())
    assert (~kept).double().mean() == pytest.approx(0.1, abs=0.005)
    far = noisy.norm(dim=-1) > 8.0  # 5 sigma of inliers; exp(-(8/20)^2 / 2) of the outliers
    assert far.double().mean() == pytest.approx(0.03 * math.exp(-0.08), abs=0.002)
    assert noisy[~far].std() == pytest.approx(1.5, rel=0.02)
    exact, all_kept = DetectorNoise().apply(uv, generator())
    assert torch.equal(exact, uv)
    assert all_kept.all()


def test_a_robot_that_fits_no_image_is_refused(chain, monkeypatch):
    monkeypatch.setattr("training.scene_statistics._ROUNDS", 2)
    monkeypatch.setattr("training.scene_statistics._FARTHEST_M", 0.31)
    monkeypatch.setattr("training.scene_statistics._NEAREST_M", 0.3)
    with pytest.raises(ConfigError, match="of 20 scenes show all keypoints"):
        sample_scenes(chain, 20, 70.21, generator(), inside_image=True)
