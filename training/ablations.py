"""Ablations and goals of the RoboKeyGen recipe: one command each, one JSON row each.

python -m training.ablations noise --frames 1000 --lifter out/lifter     # prints the row
python -m training.ablations --list

A row: {id, title, commit, machine, threads, torch, seed, n, metric, ci95, details}: `metric` and `ci95` give AUC@0.1 m in
percent by level, `details` the rest by level. All scenes are those of `scene_statistics`; 2D keypoints follow a stated error
model. Lifters that are compared with each other are trained here, with the same data and budget, unless the folder has them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dataengine.errors import ConfigError, DataEngineError, unknown_name
from training.evaluate import environment, evaluate, write
from training.kinematics import KeypointChain
from training.scene_statistics import DetectorNoise
from training.synthetic import Method, Trial, bound_draws, draw, judged_on, moved, run

if TYPE_CHECKING:
    from training.lifter import Lifter

CAMERAS = {"cross_camera_xbox360": 62.73, "cross_camera_realsense": 70.21, "cross_camera_azure": 93.01}
"""Presets of the cross-camera protocol and their horizontal fields of view in degrees."""
FOVS_DEG = tuple(CAMERAS.values())
MIDDLE_DEG, TRAINED_DEG = 70.21, 65.0
EXACT, NOISY, OUTLIERS = DetectorNoise(0.0), DetectorNoise(1.5), DetectorNoise(1.5, 0.03, 20.0)
STARTS = 10
JUDGES = ("dream7", "panda15")
"""Sets by whose points estimates are judged as well, so that seeing other points does not change the measure."""


@dataclass(frozen=True)
class Bench:
    """Settings of a run. `lifters` holds (or will hold) the networks that are compared; `lifter` is the one to show, else `diffusion`."""

    frames: int = 500
    seed: int = 0
    lifters: Path = Path("out/ablations")
    lifter: Path | None = None
    steps: int = 4000
    batch: int = 256
    threads: int = 1
    keypoint_set: str = "panda15_surface"
    reports: Path | None = None
    """Folder for a report.json and page of every level; None: rows only."""

    def levels(self) -> Levels:
        return Levels(self.reports)

    def chain(self, keypoint_set: str = "") -> KeypointChain:
        """Of a set by name; without a name that of the run."""
        return _chain(keypoint_set or self.keypoint_set)

    def network(self, name: str = "") -> Lifter:
        """A lifter by name of `VARIANTS`, trained when the folder has none; without a name the one to show."""
        from training.lifter import load_lifter

        if not name and self.lifter is not None:
            return load_lifter(str(self.lifter))
        return load_lifter(str(train_variant(self, name or "diffusion")))


@dataclass
class Levels:
    """What a run measured, level by level; reports go to `folder`."""

    folder: Path | None = None
    metric: dict[str, float] = field(default_factory=dict)
    ci95: dict[str, list[float] | None] = field(default_factory=dict)
    details: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def add(self, level: str, trial: Trial, bound_add_m: Any = None) -> None:
        evaluation = evaluate(trial.truth, trial.estimates, bound_add_m)
        report, score = evaluation.report, evaluation.report.overall
        if self.folder is not None:
            write(evaluation, self.folder / level.replace(", ", "-").replace(" ", "-"))
        self.metric[level] = round(100 * (score.auc or 0.0), 2)
        self.ci95[level] = None if score.auc_ci95 is None else [round(100 * v, 2) for v in score.auc_ci95]
        found: dict[str, float | None] = {
            "median_mm": _mm(score.median_m),
            "mean_mm": _mm(score.mean_m),
            "failures": score.failures,
            "cpu_ms_per_frame": round(trial.cpu_ms_per_frame, 3),
        }
        found |= {f"covered_{c.level:g}": c.covered for c in report.calibration}
        if report.efficiency is not None:
            e = report.efficiency
            found |= {"ratio_median": e.median_ratio, "ratio_mean": e.mean_ratio, "ratio_median_of_bound": e.median_of_bound}
            found |= {"bound_auc": None if e.bound_auc is None else 100 * e.bound_auc, "bound_median_mm": _mm(e.bound_median_m)}
        self.details[level] = {k: None if v is None else round(float(v), 4) for k, v in found.items()}


@dataclass(frozen=True)
class Ablation:
    """One factor. `run` fills the levels."""

    title: str
    run: Callable[[Bench], Levels]


# ---- goals: search without a network, and with the lifter ----------------------------------------------------------------


def over_cameras(bench: Bench, noise: DetectorNoise, bounded: bool) -> Levels:
    """Refinement from the lifter's samples, from a search without a network, and from both, at each field of view.

    `bounded`: also against the Cramér–Rao bound, and the same estimates judged by the points of the other sets.
    """
    out, chain = bench.levels(), bench.chain()
    lifter = bench.network()
    for fov in FOVS_DEG:
        scenes = draw(chain, bench.frames, fov, bench.seed)
        bound = bound_draws(chain, scenes, noise) if bounded else None
        for starts in ("lifter", "search", "both"):
            trial = run(chain, scenes, noise, Method(starts, True, STARTS), lifter, bench.seed)
            out.add(f"{starts}, {fov:g}°", trial, bound)
            if bounded and starts == "both":
                for other in JUDGES:
                    out.add(f"both, ADD over {other}, {fov:g}°", judged_on(trial, scenes, chain, bench.chain(other)))
    return out


def exact(bench: Bench) -> Levels:
    return over_cameras(bench, EXACT, False)


def noise(bench: Bench) -> Levels:
    return over_cameras(bench, NOISY, True)


def outliers(bench: Bench) -> Levels:
    return over_cameras(bench, OUTLIERS, False)


# ---- factors -------------------------------------------------------------------------------------------------------------


def nccs(bench: Bench) -> Levels:
    """Both lifters are trained with one camera, as the paper's; then another camera comes."""
    out, chain = bench.levels(), bench.chain()
    for name, label in (("one camera", "NCCS"), ("one camera, pixels", "raw pixels")):
        lifter = bench.network(name)
        for fov, seen in ((TRAINED_DEG, "trained camera"), (FOVS_DEG[0], "62.73°"), (FOVS_DEG[2], "93.01°")):
            scenes = draw(chain, bench.frames, fov, bench.seed)
            trial = run(chain, scenes, NOISY, Method("lifter", False, STARTS), lifter, bench.seed)
            out.add(f"{label}, {seen}", trial)
    return out


def generation(bench: Bench) -> Levels:
    """Diffusion against regression; the regression lifter has one guess, which is its only start."""
    out, chain = bench.levels(), bench.chain()
    for fov in (FOVS_DEG[0], FOVS_DEG[2]):
        scenes = draw(chain, bench.frames, fov, bench.seed)
        for name, count in (("regression", 1), ("diffusion", STARTS)):
            lifter = bench.network(name)
            for refined in (False, True):
                trial = run(chain, scenes, NOISY, Method("lifter", refined, count), lifter, bench.seed)
                out.add(f"{name}{', refined' if refined else ''}, {fov:g}°", trial)
    return out


def condition(bench: Bench) -> Levels:
    """True against detected 2D keypoints: none, normal errors of several sizes, outliers, missing points."""
    out, chain = bench.levels(), bench.chain()
    lifter, scenes = bench.network(), draw(chain, bench.frames, MIDDLE_DEG, bench.seed)
    kinds = {"exact": EXACT, "0.5 px": DetectorNoise(0.5), "1.5 px": NOISY, "3 px": DetectorNoise(3.0)}
    kinds |= {
        "1.5 px, 3 % outliers": OUTLIERS,
        "1.5 px, 10 % outliers": DetectorNoise(1.5, 0.10),
        "1.5 px, 20 % missing": DetectorNoise(1.5, 0, 20, 0.2),
    }
    for label, kind in kinds.items():
        for refined in (False, True):
            trial = run(chain, scenes, kind, Method("lifter", refined, STARTS), lifter, bench.seed)
            out.add(label + (", refined" if refined else ""), trial)
    return out


def sampler(bench: Bench) -> Levels:
    """The same network and noise, other solvers of its differential equation."""
    from training.lifter import SamplingConfig

    out, chain = bench.levels(), bench.chain()
    lifter, scenes = bench.network(), draw(chain, bench.frames, MIDDLE_DEG, bench.seed)
    kinds = {f"{s}, {steps} steps": SamplingConfig(s, steps) for s in ("ddim", "dpm++", "heun") for steps in (5, 10)}
    kinds |= {"ddim, 50 steps": SamplingConfig("ddim", 50), "RK45 (ODE)": SamplingConfig("ode")}
    for label, sampling in kinds.items():
        for refined in (False, True):
            trial = run(chain, scenes, NOISY, Method("lifter", refined, STARTS, sampling), lifter, bench.seed)
            out.add(label + (", refined" if refined else ""), trial)
    return out


def online(bench: Bench) -> Levels:
    """From noise against from the last frame's estimate, which is refined itself; joints move by 0.05 rad (a standard deviation)."""
    from training.lifter import SamplingConfig

    out, chain = bench.levels(), bench.chain()
    lifter, scenes = bench.network(), draw(chain, bench.frames, MIDDLE_DEG, bench.seed)
    before = run(chain, moved(chain, scenes, 0.05, bench.seed), NOISY, Method("lifter", True, STARTS), lifter, bench.seed + 10)
    X_prev = torch.from_numpy(before.estimates.keypoints_m).float()
    kinds: dict[str, tuple[SamplingConfig, int]] = {
        "scratch, 10 steps, K 10": (SamplingConfig(), 10),
        "scratch, 4 steps, K 1": (SamplingConfig(steps=4), 1),
    }
    kinds |= {
        f"online from {t:g}, 4 steps, K {k}": (SamplingConfig(steps=4, start=t), k) for t, k in ((0.05, 1), (0.15, 1), (0.15, 10), (0.3, 1))
    }
    for label, (sampling, count) in kinds.items():
        for refined in (False, True):
            given = X_prev if sampling.start is not None else None
            trial = run(chain, scenes, NOISY, Method("lifter", refined, count, sampling), lifter, bench.seed, given)
            out.add(label + (", refined" if refined else ""), trial)
    return out


def samples(bench: Bench) -> Levels:
    """K samples: averaged as in the paper, or each a start of the refinement."""
    out, chain = bench.levels(), bench.chain()
    lifter, scenes = bench.network(), draw(chain, bench.frames, MIDDLE_DEG, bench.seed)
    for count in (1, 2, 5, 10, 20, 50):
        for refined in (False, True):
            trial = run(chain, scenes, NOISY, Method("lifter", refined, count), lifter, bench.seed)
            out.add(f"K {count}" + (", refined" if refined else ""), trial)
    return out


def keypoints(bench: Bench) -> Levels:
    """7 keypoints on the joint axes, 15, and 15 placed by their information; no network, so that nothing but the points differs.

    Each ADD is over its own set, and over dream7.
    """
    out, seven = bench.levels(), bench.chain("dream7")
    for keypoint_set in ("dream7", "panda15", "panda15_surface"):
        chain = bench.chain(keypoint_set)
        for fov in FOVS_DEG:
            scenes = draw(chain, bench.frames, fov, bench.seed)
            trial = run(chain, scenes, NOISY, Method(), seed=bench.seed)
            out.add(f"{keypoint_set}, {fov:g}°", trial, bound_draws(chain, scenes, NOISY))
            if chain is not seven:
                out.add(f"{keypoint_set}, ADD over dream7, {fov:g}°", judged_on(trial, scenes, chain, seven))
    return out


def refinement(bench: Bench) -> Levels:
    """The paper's pipeline (mean of samples, joints, rigid fit) against the refinement of every sample."""
    out, chain, lifter = bench.levels(), bench.chain(), bench.network()
    for fov in FOVS_DEG:
        scenes = draw(chain, bench.frames, fov, bench.seed)
        for refined in (False, True):
            trial = run(chain, scenes, NOISY, Method("lifter", refined, STARTS), lifter, bench.seed)
            out.add(f"{'refined' if refined else 'not refined'}, {fov:g}°", trial)
    return out


ABLATIONS: dict[str, Ablation] = {
    "exact": Ablation("exact 2D, refined", exact),
    "noise": Ablation("2D with 1.5 px noise, refined; certificate and calibration", noise),
    "outliers": Ablation("the same with 3 % outliers of 20 px", outliers),
    "nccs": Ablation("NCCS on and off, lifters trained with one camera of 65°, not refined", nccs),
    "generation": Ablation("regression and generation, same data and budget", generation),
    "condition": Ablation("true and detected 2D keypoints", condition),
    "sampler": Ablation("DDIM, DPM-Solver++, Heun, probability-flow ODE", sampler),
    "online": Ablation("from the last frame and from scratch", online),
    "samples": Ablation("number of samples K", samples),
    "keypoints": Ablation("7 and 15 keypoints, and where they lie", keypoints),
    "refinement": Ablation("refinement on and off", refinement),
}

VARIANTS: dict[str, Mapping[str, Any]] = {
    "diffusion": {},
    "regression": {"kind": "regression"},
    "one camera": {"fov_deg": (TRAINED_DEG, TRAINED_DEG), "coordinates": "camera"},
    "one camera, pixels": {"fov_deg": (TRAINED_DEG, TRAINED_DEG), "coordinates": "camera", "nccs": False},
}
"""Lifters that are compared: what differs from `LifterConfig`'s defaults. Network size, steps, batch, data and seed are the same."""


def train_variant(bench: Bench, name: str) -> Path:
    """Folder of a trained variant; goes on where it stopped, returns at once when it is done. ConfigError for an unknown name."""
    from training.lifter import LifterConfig, LifterRecipe
    from training.loop import train
    from training.recipes.robokeygen import lifter_config

    if name not in VARIANTS:
        raise ConfigError(unknown_name("lifter", name, VARIANTS))
    config = lifter_config("small", keypoint_set=bench.keypoint_set)
    task: LifterConfig = replace(config.task, **VARIANTS[name])
    loop = replace(config.loop, steps=bench.steps, batch=bench.batch, seed=bench.seed, device="cpu", threads=bench.threads, logs=("jsonl",))
    config = replace(config, task=task, loop=loop)
    folder = bench.lifters / name.replace(", ", "-").replace(" ", "-")
    train(LifterRecipe(task, bench.chain(task.keypoint_set)), config, folder)
    return folder


def row(name: str, bench: Bench) -> dict[str, Any]:
    """Run one; its JSON row. ConfigError for an unknown id."""
    if name not in ABLATIONS:
        raise ConfigError(unknown_name("ablation", name, ABLATIONS))
    torch.set_num_threads(bench.threads)
    levels = ABLATIONS[name].run(bench)
    here = environment()
    return {
        "id": name,
        "title": ABLATIONS[name].title,
        "commit": here.commit,
        "machine": here.machine,
        "threads": here.threads,
        "torch": here.versions.get("torch", ""),
        "seed": bench.seed,
        "n": bench.frames,
        "lifter_steps": bench.steps,
        "lifter_batch": bench.batch,
        "keypoint_set": bench.keypoint_set,
        "metric": levels.metric,
        "ci95": levels.ci95,
        "details": levels.details,
    }


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m training.ablations", description="One ablation, one JSON row on standard output.")
    p.add_argument("id", nargs="?", help=", ".join(ABLATIONS))
    p.add_argument("--list", action="store_true", help="name the ablations")
    p.add_argument("--frames", type=int, default=Bench.frames, help="scenes per camera")
    p.add_argument("--seed", type=int, default=Bench.seed)
    p.add_argument("--lifters", type=Path, default=Bench.lifters, help="folder of the lifters that are compared; trained when missing")
    p.add_argument("--lifter", type=Path, help="checkpoint or run of the lifter to show; default: the `diffusion` one of --lifters")
    p.add_argument("--steps", type=int, default=Bench.steps, help="training steps of each compared lifter")
    p.add_argument("--batch", type=int, default=Bench.batch)
    p.add_argument("--threads", type=int, default=Bench.threads)
    p.add_argument("--keypoint-set", default=Bench.keypoint_set)
    p.add_argument("--reports", type=Path, help="folder for report.json and report.html of every level")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 2 for bad input, with one line that says what."""
    given = vars(parser().parse_args(arguments))
    name, listed = given.pop("id"), given.pop("list")
    if listed or name is None:
        sys.stdout.write("".join(f"{k:12} {a.title}\n" for k, a in ABLATIONS.items()))
        return 0
    try:
        sys.stdout.write(json.dumps(row(name, Bench(**given)), ensure_ascii=False) + "\n")
    except DataEngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


@lru_cache(maxsize=4)
def _chain(keypoint_set: str) -> KeypointChain:
    from dataengine.robot.catalogue import load_robot  # the robot's description is needed only here

    return KeypointChain.from_model(load_robot("panda"), keypoint_set)


def _mm(value_m: float | None) -> float | None:
    return None if value_m is None else 1e3 * value_m


if __name__ == "__main__":
    sys.exit(main())
