"""RoboKeyGen and what goes past it, as stages that are trained apart: `detector` on images, `lifter` on forward kinematics.

A preset names the settings of its stages. A run's folder holds one folder per stage, and is what
`training.predictor.RobotPoseEstimator.load` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataengine.errors import ConfigError, unknown_name
from training.config import Config, LoopConfig, OptimConfig, override
from training.lifter import LifterConfig, LifterRecipe, NoiseConfig
from training.loop import Recipe, Result, train
from training.models.score_net import ScoreNetConfig

Stages = dict[str, Config]
Progress = Callable[[str, int, Mapping[str, float]], None]
LIFTERS = ("small", "tiny", "paper", "gpu")


def lifter_config(preset: str, robot: str = "panda", keypoint_set: str = "panda15") -> Config:
    """`small`: one CPU core, some minutes; `tiny`: a test of the plumbing; `paper`: RoboKeyGen's own sizes, VP and weights;

    `gpu`: one H200-class card, minutes.
    """
    if preset not in LIFTERS:
        raise ConfigError(unknown_name("lifter preset", preset, LIFTERS))
    small = LifterConfig(robot, keypoint_set)
    exact = NoiseConfig((0.3, 0.3), 0.0, 20.0, 0.0)
    plain = ScoreNetConfig(1024, 512, 2, "plain", "eps", 0.25)
    paper = LifterConfig(
        robot, keypoint_set, coordinates="camera", fov_deg=(65.0, 65.0), weighting="likelihood", times="uniform", noise=exact, net=plain
    )
    return {
        "small": Config("lifter", small, OptimConfig(2e-3, ema=0.999), LoopConfig(4000, 256, amp="bf16", save_every=500)),
        "tiny": Config(
            "lifter", replace(small, net=ScoreNetConfig(64, 32, 1)), OptimConfig(2e-3, warmup=10, ema=0.9), LoopConfig(60, 64, log_every=10)
        ),
        # 2000 epochs of 12 000 frames, batch 4096, Adam 2e-4
        "paper": Config("lifter", paper, OptimConfig(2e-4, warmup=5000, schedule="constant", ema=0.9999), LoopConfig(5860, 4096)),
        "gpu": Config(
            "lifter",
            replace(small, net=ScoreNetConfig(1024, 256, 4)),
            OptimConfig(1e-3, warmup=1000, ema=0.9995),
            LoopConfig(60_000, 8192, amp="bf16", save_every=5000, validate_every=10_000, check_every=50, log_every=200),
        ),
    }[preset]


def presets() -> tuple[str, ...]:
    """Names that `stages` knows."""
    whole = ("robokeygen-small", "robokeygen-overfit", "robokeygen-gpu")
    return (*whole, *(f"lifter-{p}" for p in LIFTERS), *(f"detector-{p}" for p in ("small", "overfit", "gpu")))


def stages(preset: str, data: Sequence[str] = (), robot: str = "panda", keypoint_set: str = "panda15") -> Stages:
    """Settings of every stage of a preset; ConfigError lists the presets. `data`: datasets of the detector."""
    if preset not in presets():
        raise ConfigError(unknown_name("recipe", preset, presets()))
    family, _, size = preset.partition("-")
    chosen: Stages = {}
    if family in ("robokeygen", "detector"):
        from training.recipes.detector import detector_config

        if not data:
            raise ConfigError(f"recipe {preset} trains on images: name datasets with --data, e.g. --data out/simrgbd_franka")
        chosen["detector"] = detector_config(size, data, keypoint_set)
    if family == "lifter" or (family == "robokeygen" and size != "overfit"):
        chosen["lifter"] = lifter_config(size, robot, keypoint_set)
    return chosen


def override_stages(chosen: Stages, settings: Sequence[str]) -> Stages:
    """`lifter.loop.steps=10` for one stage, `loop.device=cuda` for all."""
    out: Stages = {}
    for name, config in chosen.items():
        mine = [s.removeprefix(name + ".") for s in settings if s.partition(".")[0] not in chosen or s.startswith(name + ".")]
        out[name] = override(config, mine)
    return out


def make_recipe(config: Config) -> Recipe:
    """What the loop trains, for the settings of one stage."""
    if config.recipe == "detector":
        from training.recipes.detector import DetectorRecipe

        return DetectorRecipe(config.task)
    if config.recipe == "lifter":
        # The description of the robot is needed to train, not to use what was trained.
        from dataengine.robot.catalogue import load_robot
        from training.kinematics import KeypointChain

        task = config.task
        return LifterRecipe(task, KeypointChain.from_model(load_robot(task.robot), task.keypoint_set))
    raise ConfigError(unknown_name("recipe", config.recipe, ("detector", "lifter")))


def train_stages(
    chosen: Stages,
    out: str | Path,
    resume: bool = True,
    start_from: str | Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """One stage after the other, each into its folder below `out`; a single stage goes right into `out`.

    `start_from`: a run's folder, or that of the single stage.
    """
    results: dict[str, Result] = {}
    for name, config in chosen.items():
        alone = len(chosen) == 1
        folder = Path(out) if alone else Path(out) / name
        before = None if start_from is None else Path(start_from) if alone else Path(start_from) / name
        if before is not None and alone and (before / name).is_dir():
            before = before / name
        tell = None if progress is None else _named(progress, name)
        results[name] = train(make_recipe(config), config, folder, resume, before, dry_run, tell)
    return results


def _named(progress: Progress, name: str) -> Callable[[int, Mapping[str, float]], None]:
    return lambda step, values: progress(name, step, values)


def summary(results: Mapping[str, Result]) -> dict[str, Any]:
    """JSON of what was trained."""
    return {
        name: {
            "steps": r.steps,
            "ran": r.ran,
            "seconds": round(r.seconds, 1),
            "checkpoint": r.checkpoint and str(r.checkpoint),
            **r.metrics,
        }
        for name, r in results.items()
    }
