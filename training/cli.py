"""What `dataengine train`, `evaluate`, `predict` and `ablations` do. They print and return exit codes; errors are raised.

Also a program: `torchrun -m training.cli RECIPE OUT [--data …] [--set key=value …]` trains on several GPUs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from dataengine.errors import ConfigError, DataEngineError


def train(
    recipe: str,
    out: Path | None = None,
    data: Sequence[str] = (),
    settings: Sequence[str] = (),
    start_from: Path | None = None,
    resume: bool = True,
    dry_run: bool = False,
    ray_workers: int = 0,
    keypoint_set: str = "panda15",
    robot: str = "panda",
) -> int:
    """Train a preset (`robokeygen-small`, `lifter-small`, `detector-gpu` …) into `out`; the same command goes on after a kill.

    data: datasets for images. settings: `loop.steps=100` or, with several stages, `lifter.loop.steps=100`. start_from: a run to
    take the weights from (`make retrain`). ray_workers: processes of Ray Train instead of this one.
    """
    from training.distributed import train_with_ray
    from training.recipes.robokeygen import override_stages, stages, summary, train_stages

    folder = out or Path("out") / recipe
    chosen = override_stages(stages(recipe, data, robot, keypoint_set), settings)
    if ray_workers:
        run = partial(
            _ray_run, recipe, str(folder.resolve()), tuple(str(Path(d).resolve()) for d in data), tuple(settings), keypoint_set, robot
        )
        print(json.dumps(train_with_ray(run, folder, ray_workers)))
        return 0
    results = train_stages(chosen, folder, resume, start_from, dry_run, _teller())
    print(json.dumps(summary(results), indent=1))
    if not dry_run:
        print(f"trained: {folder}")
    return 0


def evaluate(
    checkpoint: Path, dataset: str, out: Path | None = None, split: str = "", limit: int | None = None, online: bool = False
) -> int:
    """Judge a trained pipeline on a dataset: report.json, report.html and the estimates in `out`."""
    from training.evaluate import evaluate as judge
    from training.evaluate import write
    from training.predict import predict_dataset, with_source
    from training.predictor import RobotPoseEstimator
    from training.truth import save_estimates

    folder = out or Path(checkpoint) / f"evaluation_{Path(dataset).name}"
    estimator = RobotPoseEstimator.load(checkpoint)
    truth, estimates, timed = predict_dataset(estimator, dataset, split or None, limit, online)
    estimates = with_source(estimates, str(checkpoint), mode="online" if online else "single frame")
    save_estimates(estimates, folder / "estimates.npz")
    command = f"dataengine evaluate {checkpoint} {dataset}" + (f" --split {split}" if split else "") + (" --online" if online else "")
    evaluation = judge(truth, estimates, speed=timed.speed())
    paths = write(evaluation, folder, command)
    score = evaluation.report.overall
    print(
        f"{score.frames} frames, {score.failures} without estimate: AUC@0.1 {_percent(score.auc)}, "
        f"median {_mm(score.median_m)}, mean {_mm(score.mean_m)}; {paths[0]}, {paths[1]}"
    )
    return 0


def predict(
    checkpoint: Path,
    source: str,
    out: Path | None = None,
    camera: str | None = None,
    fov_deg: float | None = None,
    split: str = "",
    online: bool = True,
) -> int:
    """An image → JSON and overlay; a video → JSON lines and overlay mp4; a dataset → estimates.npz, all below `out`."""
    from training.predict import IMAGES, VIDEOS, camera_of, predict_dataset, predict_image, predict_video, with_source
    from training.predictor import RobotPoseEstimator

    path, folder = Path(source), out or Path("out/predictions")
    kind = path.suffix.lower()
    if kind not in (*IMAGES, *VIDEOS) and "://" not in source and not path.is_dir():
        raise ConfigError(f"{source} is no image ({', '.join(IMAGES)}), video ({', '.join(VIDEOS)}) or dataset folder")
    estimator = RobotPoseEstimator.load(checkpoint)
    if kind in IMAGES:
        estimate = predict_image(estimator, path, camera_of(camera, fov_deg), folder)
        print(f"{estimate.status}, confidence {estimate.confidence:.2f}: {folder / path.stem}.json, .png")
    elif kind in VIDEOS:
        found = predict_video(estimator, path, camera_of(camera, fov_deg), folder, online)
        print(f"{len(found)} frames, {sum(e.status == 'found' for e in found)} with a robot: {folder / path.stem}.mp4, .jsonl")
    else:
        from training.truth import save_estimates

        _, estimates, _ = predict_dataset(estimator, source, split or None, None, online)
        print(save_estimates(with_source(estimates, str(checkpoint)), folder / "estimates.npz"))
    return 0


def overfit(dataset: str, out: Path, frames: int = 12, settings: Sequence[str] = ()) -> int:
    """Learn a few frames by heart, then draw what was predicted over the truth: does the pipeline fit together?"""
    import cv2

    from training.predict import dataset_images, draw_estimate
    from training.predictor import RobotPoseEstimator
    from training.recipes.robokeygen import override_stages, stages, train_stages
    from training.truth import truth_of_dataset

    chosen = override_stages(stages("robokeygen-overfit", [dataset]), settings)
    result = train_stages(chosen, out / "detector", resume=False, progress=_teller())["detector"]
    estimator = RobotPoseEstimator.load(out / "detector")
    chain = estimator.chain
    truth = truth_of_dataset(dataset, None, chain.keypoint_names, chain.keypoint_set, frames)
    errors = []
    for row, image in enumerate(dataset_images(truth)):
        estimate = estimator(image, truth.K[row])
        errors.append(float(((estimate.keypoints_cam_m - truth.keypoints_m[row]) ** 2).sum(1).mean() ** 0.5))
        drawn = draw_estimate(image, estimate, chain, truth.keypoints_px[row])
        cv2.imwrite(str(out / f"frame_{row:02d}.png"), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    middle = sorted(errors)[len(errors) // 2]
    print(
        f"{len(errors)} frames after {result.steps} steps, {result.seconds:.0f} s: "
        f"median 3-D error {1e3 * middle:.1f} mm; pictures in {out}"
    )
    return 0


def ablations(arguments: Sequence[str]) -> int:
    """`python -m training.ablations` under another name."""
    from training.ablations import main

    return main(list(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """For torchrun: `train` alone."""
    parser = argparse.ArgumentParser(description="train a recipe; start with torchrun for several GPUs")
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--from", type=Path, default=None, dest="start_from")
    parser.add_argument("--no-resume", action="store_false", dest="resume")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(arguments)
    try:
        return train(given.recipe, given.out, given.data, given.settings, given.start_from, given.resume, given.dry_run)
    except DataEngineError as error:
        print(error, file=sys.stderr)
        return 2


def _ray_run(recipe: str, out: str, data: tuple[str, ...], settings: tuple[str, ...], keypoint_set: str, robot: str) -> dict[str, float]:
    from training.recipes.robokeygen import override_stages, stages, train_stages

    chosen = override_stages(stages(recipe, data, robot, keypoint_set), settings)
    results = train_stages(chosen, out)
    return {f"{name}/steps": float(r.steps) for name, r in results.items()}


def _teller() -> Callable[[str, int, Mapping[str, float]], None]:
    began = time.perf_counter()

    def tell(stage: str, step: int, values: Mapping[str, float]) -> None:
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        print(f"{stage} {step:>7}  {time.perf_counter() - began:6.0f} s  {numbers}", flush=True)

    return tell


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{1e3 * value:.1f} mm"


if __name__ == "__main__":
    raise SystemExit(main())
