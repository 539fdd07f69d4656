"""Starts and search: the affine score against least squares, POSIT on exact points, masks, and solving without a hint."""

import dataclasses

import pytest
import torch

from dataengine.errors import ConfigError
from dataengine.robot.catalogue import load_robot
from training.kinematics import KeypointChain
from training.refine import Observation, RefineOptions, Starts, refine
from training.scene_statistics import DetectorNoise, Scenes, joint_prior, sample_scenes
from training.search import SearchOptions, doubtful_cost, search
from training.starts import StartPool, affine_error, forget_some, join_starts, last_frame, lifted_starts, make_pool, pool_starts, posit

F64 = torch.float64


@pytest.fixture(scope="module")
def chain() -> KeypointChain:
    return KeypointChain.from_model(load_robot("panda"), "panda15")


@pytest.fixture(scope="module")
def pool(chain) -> StartPool:
    return make_pool(chain, joint_prior(chain), 512, generator(7))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(chain: KeypointChain, n: int, noise: DetectorNoise, sigma_px: float, seed: int = 0) -> tuple[Scenes, Observation]:
    scenes = sample_scenes(chain, n, 62.73, generator(seed))
    uv, seen = noise.apply(scenes.uv, generator(seed + 1))
    return scenes, Observation.isotropic(uv, scenes.K, sigma_px, seen)


def test_affine_error_is_that_of_least_squares(pool, monkeypatch):
    monkeypatch.setattr("training.starts._RIDGE", 1e-9)
    rng = generator()
    c, weight = torch.randn(3, 15, 2, generator=rng, dtype=F64), (torch.rand(3, 15, generator=rng) < 0.7).to(F64)
    found = affine_error(pool.X[:4], c, weight)
    for b in range(3):
        for p in range(4):
            rows = weight[b] > 0
            A = torch.cat([pool.X[p], torch.ones(15, 1, dtype=F64)], 1)[rows]
            residual = A @ torch.linalg.lstsq(A, c[b][rows]).solution - c[b][rows]
            assert found[b, p] == pytest.approx(residual.square().sum().item(), rel=1e-4, abs=1e-4)


def test_posit_finds_the_pose_near_and_far(chain):
    """Ten times as far, where perspective is next to nothing, and near by, with the correction. Unseen points have no say."""
    scenes, _ = scene(chain, 60, DetectorNoise(), 1.0)
    X = chain.forward(scenes.q)
    weight = torch.ones(60, 15, dtype=F64)
    weight[:, 3] = 0.0
    for away, tolerance in ((10.0, 0.03), (1.0, 0.06)):
        T = scenes.T * away
        X_cam = X @ scenes.R.mT + T[:, None]
        c = X_cam[..., :2] / X_cam[..., 2:]
        c[:, 3] = 9.0
        R, found = posit(X, c, weight)
        angle = torch.arccos((((R.mT @ scenes.R).diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
        assert angle.median() < tolerance
        assert ((found - T).norm(dim=1) / T.norm(dim=1)).median() < tolerance
        torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=F64).expand(60, 3, 3), atol=1e-6, rtol=0)


def test_masks_forget_a_few_seen_points():
    seen = torch.ones(2, 15, dtype=torch.bool)
    seen[1, 5:] = False
    trusted = forget_some(seen, 40, generator())
    assert ((~trusted[0]).sum(-1) == 3).all()
    assert trusted[1].all()  # five points are too few to forget any
    assert len({tuple(row.tolist()) for row in trusted[0]}) > 30
    seen[1, :10] = True
    forgotten = ~forget_some(seen, 40, generator())[1]
    assert (forgotten.sum(-1) == 2).all()
    assert not forgotten[:, 10:].any()


def test_starts_fit_better_than_chance(chain, pool):
    scenes, observation = scene(chain, 20, DetectorNoise(1.5, 0.0, 20.0, 0.1), 1.5)
    starts = pool_starts(pool, observation, 8, generator())
    assert starts.q.shape == (20, 8, 7)
    X = chain.forward(starts.q) @ starts.R.mT + starts.T[:, :, None]
    error = (X - scenes.X_cam[:, None]).norm(dim=-1).mean(-1).amin(1)
    prior_spread = (chain.forward(pool.q[:200]) - chain.forward(scenes.q[:1])).norm(dim=-1).mean()
    assert error.median() < 0.6 * prior_spread


def test_search_solves_without_a_hint(chain, pool):
    scenes, observation = scene(chain, 30, DetectorNoise(1.0), 1.0)
    found = search(chain, observation, joint_prior(chain), pool, generator(), SearchOptions(starts=(12, 24)))
    add = (found.X_cam - scenes.X_cam).norm(dim=-1).mean(1)
    assert add.median() < 0.012
    assert (add < 0.05).double().mean() >= 0.9


def test_doubtful_frames_get_more_starts(chain, pool):
    """One start in the first round fails often; the second round mends most and harms none."""
    scenes, observation = scene(chain, 24, DetectorNoise(1.0), 1.0, seed=4)
    one = search(chain, observation, joint_prior(chain), pool, generator(), SearchOptions(starts=(1,)))
    two = search(chain, observation, joint_prior(chain), pool, generator(), SearchOptions(starts=(1, 24)))
    limit = doubtful_cost(observation.seen, 2.5)
    assert (one.cost > limit).sum() > 4
    assert (two.cost > limit).sum() < 0.5 * (one.cost > limit).sum()
    assert (two.cost <= one.cost + 1e-9).all()
    same = one.cost <= limit
    torch.testing.assert_close(two.X_cam[same], one.X_cam[same])


def test_given_starts_take_part(chain, pool):
    scenes, observation = scene(chain, 6, DetectorNoise(0.5), 0.5)
    truth = Starts(scenes.q[:, None], scenes.R[:, None], scenes.T[:, None])
    found = search(chain, observation, joint_prior(chain), pool, generator(), SearchOptions(starts=(2,)), starts=truth)
    assert (found.X_cam - scenes.X_cam).norm(dim=-1).mean(1).max() < 0.03
    joined = join_starts(truth, pool_starts(pool, observation, 2, generator()))
    assert joined.q.shape == (6, 3, 7)
    assert joined.trusted is not None and joined.trusted[:, 0].all()
    assert join_starts(truth, truth).trusted is None


def test_lifted_points_become_starts(chain):
    scenes, observation = scene(chain, 5, DetectorNoise(), 1.0)
    starts = lifted_starts(chain, scenes.q[:, None], scenes.X_cam[:, None], observation, generator())
    torch.testing.assert_close(starts.R[:, 0], scenes.R, atol=1e-8, rtol=0)
    torch.testing.assert_close(starts.T[:, 0], scenes.T, atol=1e-8, rtol=0)


def test_last_frame_tracks(chain):
    """A start and a prior from the last frame: the next one, moved a little, is found from one start and better than alone."""
    scenes, observation = scene(chain, 30, DetectorNoise(1.5), 1.5)
    prior, options = joint_prior(chain), RefineOptions(anneal_iterations=0, iterations=12)
    first = refine(chain, observation, Starts(scenes.q[:, None], scenes.R[:, None], scenes.T[:, None]), prior, options)
    start, before = last_frame(first, 0.002, 0.002, 0.001)
    again, _ = DetectorNoise(1.5).apply(scenes.uv, generator(77))
    second = dataclasses.replace(observation, uv=again)
    tracked = refine(chain, second, start, prior, options, before)
    alone = refine(chain, second, start, prior, options)
    error = [(e.X_cam - scenes.X_cam).norm(dim=-1).mean() for e in (tracked, alone)]
    assert error[0] < 0.9 * error[1]


def test_bad_input_is_named(chain, pool):
    _, observation = scene(chain, 2, DetectorNoise(), 1.0)
    with pytest.raises(ConfigError, match="513 starts for 15 keypoints were asked of a pool of 512 configurations with 15"):
        pool_starts(pool, observation, 513, generator())
