"""The lifter: what it is told and what it says are one and the same scene, it learns, and it refuses what does not fit."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dataengine.errors import ConfigError, DataEngineError
from dataengine.robot.catalogue import load_robot
from training import checkpoint
from training.config import Config, LoopConfig, OptimConfig
from training.errors import TrainingError
from training.kinematics import KeypointChain
from training.lifter import (
    SAMPLERS,
    FkData,
    Frames,
    Lifter,
    LifterConfig,
    LifterRecipe,
    NoiseConfig,
    SamplingConfig,
    centre,
    draw_frames,
    initialise,
    lift,
    load_lifter,
    make_noise,
    measure,
    nccs,
)
from training.loop import train
from training.metrics import add_m
from training.models.score_net import ScoreNetConfig
from training.proposals import frames_of, lifted_starts
from training.refine import Observation, refine
from training.scene_statistics import DetectorNoise, joint_prior, sample_scenes

TINY = ScoreNetConfig(hidden=64, time=32, blocks=1)
EXACT = NoiseConfig((1e-3, 1e-3), 0.0, 20.0, 0.0)


@pytest.fixture(scope="module")
def chain() -> KeypointChain:
    return KeypointChain.from_model(load_robot("panda"), "panda15")


@pytest.fixture(scope="module")
def trained(chain: KeypointChain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of training."""
    out = tmp_path_factory.mktemp("lifter")
    task = LifterConfig(net=replace(TINY, hidden=96))
    train(
        LifterRecipe(task, chain),
        Config("lifter", task, OptimConfig(3e-3, ema=0.95), LoopConfig(150, 128, logs=("jsonl",), threads=1)),
        out,
    )
    return out


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(chain: KeypointChain, **changes: object) -> Lifter:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        lifter = Lifter(LifterConfig(**{"net": TINY, **changes}), chain)  # type: ignore[arg-type]
    initialise(lifter, generator(), 2000)
    return lifter.eval()


@pytest.mark.parametrize("coordinates", ["rays", "camera"])
def test_coordinates_and_back(chain: KeypointChain, coordinates: str) -> None:
    lifter = fresh(chain, coordinates=coordinates)
    frames, X_cam, _ = draw_frames(chain, lifter.config, 300, generator(1))
    x = lifter.encode(X_cam, frames)
    torch.testing.assert_close(lifter.decode(x, frames)[:, 0], X_cam, rtol=1e-3, atol=1e-3)
    assert x.mean(0).abs().max() < 0.4 and 0.6 < x.std(0).median() < 1.4
    twice = lifter.decode(x.repeat_interleave(2, 0), frames, 2)
    assert twice.shape == (300, 2, 15, 3) and torch.equal(twice[:, 0], twice[:, 1])


def test_exact_points_lie_on_their_rays(chain: KeypointChain) -> None:
    lifter = fresh(chain, noise=EXACT)
    frames, X_cam, _ = draw_frames(chain, lifter.config, 100, generator(2))
    torch.testing.assert_close(nccs(frames), X_cam[..., :2] / X_cam[..., 2:], rtol=0, atol=1e-4)
    assert lifter.coordinates(X_cam, frames)[:, 16:].abs().max() < 1e-2
    assert frames.seen.all()


def test_the_turned_view(chain: KeypointChain) -> None:
    frames, X_cam, _ = draw_frames(chain, LifterConfig(noise=EXACT), 100, generator(3))
    view = centre(frames)
    torch.testing.assert_close(view.R @ view.R.mT, torch.eye(3).expand(100, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(view.R), torch.ones(100))
    turned = X_cam @ view.R.mT
    torch.testing.assert_close(view.rays, turned[..., :2] / turned[..., 2:], rtol=1e-3, atol=1e-3)
    mean = torch.nn.functional.pad(nccs(frames).mean(1), (0, 1), value=1.0)
    assert (view.R @ mean[..., None])[:, :2].abs().max() < 1e-5
    hidden = Frames(frames.uv_px, frames.K, torch.zeros_like(frames.seen), frames.sigma_px)
    assert centre(hidden).rays.abs().max() == 0 and centre(hidden).spread.isfinite().all()


def test_all_cameras_look_alike_in_nccs_and_not_in_pixels(chain: KeypointChain) -> None:
    scenes = [sample_scenes(chain, 20, fov, generator(4), dtype=torch.float32) for fov in (62.73, 93.01)]
    sizes = (s.K[:, 0, 0] / 300 for s in scenes)  # the same errors in NCCS
    frames = [Frames(s.uv, s.K, torch.ones_like(s.visible), size) for s, size in zip(scenes, sizes, strict=True)]
    same = fresh(chain)
    torch.testing.assert_close(same.condition(frames[0]), same.condition(frames[1]), rtol=1e-3, atol=1e-3)
    pixels = fresh(chain, nccs=False, coordinates="camera")
    assert (pixels.condition(frames[0]) - pixels.condition(frames[1])).abs().max() > 0.1


def test_what_is_missing_does_not_matter(chain: KeypointChain) -> None:
    lifter = fresh(chain)
    frames, _, _ = draw_frames(chain, replace(lifter.config, noise=NoiseConfig(dropout_share=0.3)), 50, generator(5))
    assert 0.6 < frames.seen.float().mean() < 0.8
    moved = torch.where(frames.seen[..., None], frames.uv_px, torch.full_like(frames.uv_px, 1e4))
    again = Frames(moved, frames.K, frames.seen, frames.sigma_px)
    torch.testing.assert_close(lifter.condition(again), lifter.condition(frames))
    assert not lifter.condition(again).isnan().any()


def test_noise_is_what_was_asked_for(chain: KeypointChain) -> None:
    config = LifterConfig(noise=NoiseConfig((2.0, 2.0), 0.05, 20.0, 0.0))
    frames, X_cam, _ = draw_frames(chain, config, 3000, generator(6))
    focal = frames.K[:, 0, 0]
    error = frames.uv_px - (X_cam[..., :2] / X_cam[..., 2:] * focal[:, None, None] + frames.K[:, None, :2, 2])
    assert error.abs().median().item() == pytest.approx(0.6745 * 2.0 * 1.05, rel=0.05)
    assert error.square().mean().item() == pytest.approx(0.95 * 4 + 0.05 * 400, rel=0.05)
    fov = 2 * torch.rad2deg(torch.atan(320 / focal))
    assert fov.min() >= 54.9 and fov.max() <= 100.1 and fov.mean().item() == pytest.approx(77.5, abs=1.5)


def test_data_is_a_function_of_the_generator(chain: KeypointChain) -> None:
    one, two = (FkData(chain, LifterConfig(), 8).next(generator(3)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    torch.testing.assert_close((one["X_cam"][:, 0] - one["X_cam"][:, 1]).norm(dim=1), chain_distance(chain, one["q"]), rtol=0, atol=1e-5)


def chain_distance(chain: KeypointChain, q: Tensor) -> Tensor:
    X = chain.forward(q)
    return (X[:, 0] - X[:, 1]).norm(dim=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_gives_finite_samples_and_rows_do_not_mix(chain: KeypointChain, sampler: str) -> None:
    lifter, sampling = fresh(chain), SamplingConfig(sampler, steps=3, samples=2)
    frames, _, _ = draw_frames(chain, lifter.config, 4, generator(7))
    z = make_noise(lifter, 4, sampling, generator(8))
    X = lift(lifter, frames, sampling, z)
    assert X.shape == (4, 2, 15, 3) and X.isfinite().all()
    last = Frames(frames.uv_px[3:], frames.K[3:], frames.seen[3:], frames.sigma_px[3:])
    torch.testing.assert_close(lift(lifter, last, sampling, z[6:])[0], X[3], rtol=1e-2, atol=2e-3)


def test_training_helps_and_online_mode_stays_near(trained: Path, chain: KeypointChain) -> None:
    lifter = load_lifter(str(trained))
    before, after = (measure(one, 70.21, DetectorNoise(1.5), SamplingConfig(), generator(1), 200) for one in (fresh(chain), lifter))
    assert after["median_mm"] < 0.85 * before["median_mm"] and after["angle_deg"] < before["angle_deg"]
    frames, X_cam, _ = draw_frames(chain, replace(lifter.config, noise=EXACT), 100, generator(9))
    sampling = SamplingConfig(steps=4, samples=4)
    z = make_noise(lifter, 100, sampling, generator(10))
    cold, warm = (lift(lifter, frames, s, z, X_cam) for s in (sampling, replace(sampling, start=0.05)))

    def error(X: Tensor) -> float:
        return float(add_m(X.mean(1).numpy(), X_cam.numpy()).mean())

    assert error(warm) < 0.5 * error(cold)


def test_starts_from_the_lifter_are_refined_to_the_truth(trained: Path, chain: KeypointChain) -> None:
    scenes = sample_scenes(chain, 24, 70.21, generator(11))
    observation = Observation.isotropic(scenes.uv, scenes.K, 0.1, scenes.visible)
    lifter = load_lifter(str(trained))
    assert frames_of(observation).sigma_px.tolist() == [pytest.approx(0.1)] * 24
    starts = lifted_starts(lifter, observation, 10, generator(12))
    assert starts.q.shape == (24, 10, chain.dof)
    found = refine(chain, observation, starts, joint_prior(chain))
    assert float((found.X_cam - scenes.X_cam).norm(dim=-1).mean(1).median()) < 3e-3


def test_regression_lifter(chain: KeypointChain, tmp_path: Path) -> None:
    task = LifterConfig(kind="regression", net=TINY)
    train(
        LifterRecipe(task, chain),
        Config("lifter", task, OptimConfig(3e-3, ema=0.9), LoopConfig(30, 64, logs=("jsonl",), threads=1)),
        tmp_path,
    )
    lifter = load_lifter(str(tmp_path))
    frames, _, _ = draw_frames(chain, task, 5, generator())
    X = lift(lifter, frames, SamplingConfig(), make_noise(lifter, 5, SamplingConfig(), generator()))
    assert X.shape == (5, 1, 15, 3) and X.isfinite().all()


def test_checkpoint_needs_no_robot_description(trained: Path, chain: KeypointChain) -> None:
    found = checkpoint.read(trained)
    assert found.identity["robot"] == "panda" and json.loads(json.dumps(chain.to_dict())) == found.identity["kinematics"]
    q = torch.zeros(1, chain.dof)
    torch.testing.assert_close(load_lifter(str(trained)).chain.forward(q), chain.forward(q))


def test_another_keypoint_set_or_robot_is_refused(trained: Path, tmp_path: Path) -> None:
    for robot, keypoint_set, message in (
        ("panda", "dream7", "is for keypoint set panda15, this run for dream7; take a checkpoint of the same keypoint set"),
        ("ur5", "links", "is for robot panda, this run for ur5"),
    ):
        other = KeypointChain.from_model(load_robot(robot), keypoint_set)
        task = LifterConfig(robot, keypoint_set, net=TINY)
        with pytest.raises(TrainingError, match=message):
            train(LifterRecipe(task, other), Config("lifter", task, loop=LoopConfig(2, 8, logs=())), tmp_path / robot, start_from=trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gan"}, "unknown lifter 'gan'"),
        ({"coordinates": "polar"}, "unknown coordinates 'polar'"),
        ({"nccs": False}, "'rays' need the camera"),
        ({"weighting": "snr"}, "unknown loss weighting"),
        ({"fov_deg": (0.0, 90.0)}, "field of view 0.0"),
        ({"sde": "sub-vp"}, "unknown SDE"),
    ],
)
def test_bad_settings(chain: KeypointChain, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Lifter(LifterConfig(**changes), chain)  # type: ignore[arg-type]


def test_bad_use(chain: KeypointChain, trained: Path, tmp_path: Path) -> None:
    lifter = fresh(chain)
    frames, _, _ = draw_frames(chain, lifter.config, 2, generator())
    z = make_noise(lifter, 2, SamplingConfig(), generator())
    with pytest.raises(ConfigError, match="unknown sampler 'euler'"):
        lift(lifter, frames, SamplingConfig("euler"), z)
    with pytest.raises(ConfigError, match="needs the last frame's keypoints"):
        lift(lifter, frames, SamplingConfig(start=0.2), z)
    checkpoint.write(tmp_path / "x.safetensors", {"ema": {"a": z}}, {}, {"recipe": "detector"}, 1)
    with pytest.raises(DataEngineError, match="holds a detector, not a lifter"):
        load_lifter(str(tmp_path / "x.safetensors"))
    assert math.isfinite(float(z.sum()))
