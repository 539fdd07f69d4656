"""Refinement: derivatives, recovery, outliers, priors, limits, covariance, independence of the batch, bad input."""

import dataclasses

import pytest
import roma
import torch

from dataengine.errors import ConfigError
from dataengine.robot.catalogue import load_robot
from training.kinematics import KeypointChain
from training.normal_equations import State, cost, expand, weights
from training.refine import Estimate, Observation, RefineOptions, Starts, TemporalPrior, _move, make_target, refine
from training.rotations import rotation_from_vector, vector_from_rotation
from training.scene_statistics import DetectorNoise, Scenes, joint_prior, sample_scenes

F64 = torch.float64


@pytest.fixture(scope="module")
def chain() -> KeypointChain:
    return KeypointChain.from_model(load_robot("panda"), "panda15")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(chain: KeypointChain, n: int, noise: DetectorNoise, sigma_px: float, seed: int = 0) -> tuple[Scenes, Observation]:
    scenes = sample_scenes(chain, n, 62.73, generator(seed))
    uv, seen = noise.apply(scenes.uv, generator(seed + 1))
    return scenes, Observation.isotropic(uv, scenes.K, sigma_px, seen)


def near(scenes: Scenes, K: int = 1, off: float = 0.1) -> Starts:
    """Starts about the truth."""
    noise = off * torch.randn(len(scenes.q), K, scenes.q.shape[1], generator=generator(9), dtype=F64)
    return Starts(scenes.q[:, None] + noise, scenes.R[:, None].expand(-1, K, 3, 3), scenes.T[:, None].expand(-1, K, 3))


def add_m(estimate: Estimate, scenes: Scenes) -> torch.Tensor:
    return (estimate.X_cam - scenes.X_cam).norm(dim=-1).mean(1)


def test_rotation_vectors_equal_roma():
    vector = torch.cat(
        [torch.randn(50, 3, generator=generator(), dtype=F64), torch.zeros(1, 3, dtype=F64), torch.full((1, 3), 1e-9, dtype=F64)]
    )
    R = rotation_from_vector(vector.T)
    torch.testing.assert_close(R.permute(2, 0, 1), roma.rotvec_to_rotmat(vector), atol=1e-12, rtol=0)
    small = vector[vector.norm(dim=1) < 3.0]
    torch.testing.assert_close(vector_from_rotation(rotation_from_vector(small.T)).T, small, atol=1e-9, rtol=0)


@pytest.mark.parametrize("robot_points", [("panda", "panda15"), ("panda", "links"), ("so101", "links")])
def test_gradient_by_differences(robot_points):
    """Of the widened robust cost with joint and temporal prior, anisotropic covariances and unseen points; `links` has a slider."""
    robot, points = robot_points
    chain = KeypointChain.from_model(load_robot(robot), points)
    scenes = sample_scenes(chain, 3, 70.21, generator())
    root = torch.randn(3, len(chain), 2, 2, generator=generator(1), dtype=F64)
    seen = torch.ones(3, len(chain), dtype=torch.bool)
    seen[1, 2] = False
    observation = Observation(scenes.uv + 3.0, scenes.K, root @ root.mT + 0.5 * torch.eye(2), seen)
    size = chain.dof + 6
    prior_root = torch.randn(3, size, size, generator=generator(2), dtype=F64)
    before = TemporalPrior(scenes.q + 0.02, scenes.R, scenes.T - 0.01, prior_root @ prior_root.mT)
    target = make_target(observation, joint_prior(chain), RefineOptions(), scenes.q, before)
    state = State(scenes.q.T + 0.05, scenes.R.permute(1, 2, 0), scenes.T.T)
    wide = torch.full_like(target.sigma_px, 4.0)
    low, high = torch.full((chain.dof, 1), -9.0, dtype=F64), torch.full((chain.dof, 1), 9.0, dtype=F64)
    model = expand(chain, target, state, wide)

    def cost_at(step: torch.Tensor) -> torch.Tensor:
        return cost(expand(chain, target, _move(state, step[:, None].expand(size, 3), low, high), wide), target.k, wide)

    steps = 1e-6 * torch.eye(size, dtype=F64)
    numeric = torch.stack([(cost_at(s) - cost_at(-s)) / 2e-6 for s in steps], 1)
    # rotation differences of the temporal prior are taken as small: their slope is exact to second order only
    torch.testing.assert_close(model.g, numeric, rtol=1e-4, atol=5e-3)
    assert (torch.linalg.eigvalsh(model.H) > 0).all()


def test_exact_points_give_the_exact_robot(chain):
    scenes, observation = scene(chain, 20, DetectorNoise(), 0.05)
    estimate = refine(chain, observation, near(scenes, K=3), joint_prior(chain))
    assert add_m(estimate, scenes).median() < 1e-4
    assert (estimate.inlier > 0.9).double().mean() > 0.95


def test_pose_and_joints_reproduce_the_keypoints(chain):
    scenes, observation = scene(chain, 5, DetectorNoise(1.5), 1.5)
    estimate = refine(chain, observation, near(scenes), joint_prior(chain))
    torch.testing.assert_close(estimate.X_cam, chain.forward(estimate.q) @ estimate.R.mT + estimate.T[:, None], atol=1e-10, rtol=0)
    torch.testing.assert_close(estimate.R @ estimate.R.mT, torch.eye(3, dtype=F64).expand(5, 3, 3), atol=1e-12, rtol=0)


def test_outliers_lose_their_weight_and_nothing_else(chain):
    """One point 60 px away: its weight goes to zero and the answer is that without the point."""
    scenes, observation = scene(chain, 12, DetectorNoise(1.0), 1.0)
    moved = dataclasses.replace(observation, uv=observation.uv.clone())
    moved.uv[:, 6] += torch.tensor([45.0, -40.0])
    hidden = dataclasses.replace(observation, seen=observation.seen.clone())
    hidden.seen[:, 6] = False
    options = RefineOptions(anneal_iterations=0)
    with_outlier = refine(chain, moved, near(scenes, off=0.0), joint_prior(chain), options)
    without = refine(chain, hidden, near(scenes, off=0.0), joint_prior(chain), options)
    assert (with_outlier.inlier[:, 6] < 1e-3).all()
    assert (add_m(with_outlier, scenes) - add_m(without, scenes)).abs().max() < 2e-4
    assert not without.inlier[:, 6].any()


def test_a_frame_does_not_depend_on_its_batch(chain):
    scenes, observation = scene(chain, 9, DetectorNoise(1.5, 0.05), 1.5)
    starts = near(scenes, K=4)
    together = refine(chain, observation, starts, joint_prior(chain))
    rows = torch.tensor([4])
    alone = refine(chain, observation[rows], Starts(starts.q[rows], starts.R[rows], starts.T[rows]), joint_prior(chain))
    torch.testing.assert_close(together.X_cam[rows], alone.X_cam, atol=1e-7, rtol=0)
    torch.testing.assert_close(together.covariance[rows], alone.covariance, atol=1e-8, rtol=1e-4)


def test_single_precision_agrees_with_double(chain):
    scenes, observation = scene(chain, 12, DetectorNoise(1.5), 1.5)
    starts = near(scenes)
    single = refine(chain, observation, Starts(*(v.float() for v in (starts.q, starts.R, starts.T))), joint_prior(chain))
    double = refine(chain, observation, starts, joint_prior(chain))
    assert single.q.dtype == torch.float32
    assert (single.X_cam.double() - double.X_cam).norm(dim=-1).mean(1).median() < 5e-4


def test_the_lowest_start_wins_and_screening_keeps_it(chain):
    scenes, observation = scene(chain, 10, DetectorNoise(1.5), 1.5)
    starts = near(scenes, K=12, off=0.4)
    everyone = refine(chain, observation, starts, joint_prior(chain), RefineOptions(finalists=0))
    assert everyone.all_costs.shape == (10, 12)
    torch.testing.assert_close(everyone.cost, everyone.all_costs.amin(1), atol=1e-6, rtol=0)
    screened = refine(chain, observation, starts, joint_prior(chain), RefineOptions(finalists=4))
    assert screened.all_costs.shape == (10, 4)
    assert (screened.cost < everyone.cost + 0.1).double().mean() >= 0.9


def test_joints_stay_within_limits(chain):
    """A limit just short of where the elbow is: the estimate stops at it, and the other joints still fit the points."""
    given = joint_prior(chain)
    for seed in range(4):
        scenes, observation = scene(chain, 1, DetectorNoise(1.0), 1.0, seed=10 * seed)
        upper = given.upper.clone()
        upper[3] = scenes.q[0, 3] - 0.05
        estimate = refine(chain, observation, near(scenes), dataclasses.replace(given, upper=upper))
        assert (estimate.q <= upper + 1e-12).all()
        assert (estimate.q >= given.lower - 1e-12).all()
        assert estimate.q[0, 3] == upper[3]
        assert add_m(estimate, scenes).item() < 0.06


def test_without_points_the_priors_remain(chain):
    """Nothing seen: the joints go to their mean, the covariance to the prior's, and a temporal prior decides the pose."""
    prior = joint_prior(chain)
    scenes, observation = scene(chain, 4, DetectorNoise(), 1.0)
    blind = dataclasses.replace(observation, seen=torch.zeros(4, 15, dtype=torch.bool))
    information = 1e4 * torch.eye(13, dtype=F64).expand(4, 13, 13).clone()
    information[:, :7, :7] = 0.0
    before = TemporalPrior(scenes.q, scenes.R, scenes.T + 0.1, information)
    estimate = refine(chain, blind, near(scenes), prior, temporal=before)
    torch.testing.assert_close(estimate.q, prior.mean.expand(4, 7), atol=1e-6, rtol=0)
    torch.testing.assert_close(estimate.T, scenes.T + 0.1, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        torch.diagonal(estimate.covariance, dim1=1, dim2=2)[:, :7], prior.std.square().expand(4, 7), rtol=1e-6, atol=0
    )
    assert not estimate.inlier.any()


def test_seven_points_on_the_axes_leave_the_last_joint_to_the_prior():
    chain = KeypointChain.from_model(load_robot("panda"), "dream7")
    prior = joint_prior(chain)
    scenes, observation = scene(chain, 6, DetectorNoise(1.0), 1.0)
    estimate = refine(chain, observation, near(scenes), prior)
    torch.testing.assert_close(estimate.q[:, 6], prior.mean[6].expand(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(estimate.covariance[:, 6, 6], prior.std[6].square().expand(6), rtol=1e-4, atol=0)
    assert torch.isfinite(estimate.keypoint_covariance).all()


def test_a_temporal_prior_helps(chain):
    scenes, observation = scene(chain, 60, DetectorNoise(3.0), 3.0)
    spread = torch.tensor([0.01] * 7 + [0.01] * 3 + [0.005] * 3, dtype=F64)
    information = torch.diag(spread**-2).expand(60, 13, 13)
    before = TemporalPrior(scenes.q, scenes.R, scenes.T, information)
    prior, start = joint_prior(chain), near(scenes, off=0.05)
    plain, helped = refine(chain, observation, start, prior), refine(chain, observation, start, prior, temporal=before)
    assert add_m(helped, scenes).median() < 0.5 * add_m(plain, scenes).median()
    assert (torch.diagonal(helped.covariance, dim1=1, dim2=2) < torch.diagonal(plain.covariance, dim1=1, dim2=2)).all()


def test_covariance_is_calibrated(chain):
    """Nine in ten keypoints lie in their 90 % ellipsoid (chi-square of 3), and nine in ten poses in theirs (of 6)."""
    scenes, observation = scene(chain, 300, DetectorNoise(1.0), 1.0, seed=5)
    estimate = refine(chain, observation, near(scenes, off=0.02), joint_prior(chain), RefineOptions(iterations=20))
    error = estimate.X_cam - scenes.X_cam
    precision = torch.linalg.inv(estimate.keypoint_covariance)
    square = torch.einsum("bni,bnij,bnj->bn", error, precision, error)
    assert (square < 6.251).double().mean() == pytest.approx(0.9, abs=0.04)
    turn = vector_from_rotation((estimate.R.mT @ scenes.R).permute(1, 2, 0)).T
    shift = (estimate.R.mT @ (scenes.T - estimate.T)[..., None])[..., 0]
    pose = torch.cat([turn, shift], 1)
    whole = torch.einsum("bi,bij,bj->b", pose, torch.linalg.inv(estimate.covariance[:, 7:, 7:]), pose)
    assert (whole < 10.645).double().mean() == pytest.approx(0.9, abs=0.05)


def test_weights_are_the_mixture_posterior():
    square, k = torch.tensor([[0.0, 9.0, 400.0]], dtype=F64), torch.full((1, 3), 1e-3, dtype=F64)
    found = weights(square, k, torch.ones(1, 3, dtype=F64))
    assert found[0].tolist() == pytest.approx([1 / 1.001, 0.011109 / 0.012109, 0.0], abs=1e-5)
    torch.testing.assert_close(
        weights(square, k, torch.full((1, 3), 1e3, dtype=F64)), torch.full((1, 3), 1 / 1.001, dtype=F64), rtol=1e-3, atol=0
    )


def test_bad_input_is_named(chain):
    scenes, observation = scene(chain, 2, DetectorNoise(), 1.0)
    start = near(scenes)
    other = KeypointChain.from_model(load_robot("panda"), "dream7")
    with pytest.raises(ConfigError, match="15 keypoints were given, the set 'dream7' of panda has 7"):
        refine(other, observation, start, joint_prior(other))
    with pytest.raises(ConfigError, match="expected \\(2 frames, at least 1, 7 joints\\)"):
        refine(chain, observation, Starts(start.q[:1], start.R[:1], start.T[:1]), joint_prior(chain))
