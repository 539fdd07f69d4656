"""`make ablations`: every goal and ablation of the RoboKeyGen recipe, kept in docs/benchmarks/robokeygen.json; writes robokeygen.md.

python benchmarks/robokeygen_bench.py [ID …] [--frames N] [--steps N] [--lifter RUN] [--estimator RUN] [--images FOLDER]

IDs: those of `python -m training.ablations --list`, and solver (refinement, kinematics), pipeline and speed (rendered images, a
trained detector). The page can be written again without measuring: ID `page`. Sections that are not run keep their last figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/robokeygen_bench.py` finds the package `benchmarks`

from benchmarks.robokeygen.page import page  # noqa: E402
from training.ablations import ABLATIONS, Bench, row  # noqa: E402
from training.evaluate import environment  # noqa: E402

RESULTS = ROOT / "docs" / "benchmarks" / "robokeygen.json"
PAGE = RESULTS.with_suffix(".md")
ON_IMAGES = ("pipeline", "speed")
ORDER = (*ABLATIONS, "solver", *ON_IMAGES)


def stamped(name: str, title: str, bench: Bench, frames: int, found: dict[str, Any]) -> dict[str, Any]:
    """A row like those of `training.ablations`."""
    here = environment()
    said = {"id": name, "title": title, "commit": here.commit, "machine": here.machine, "threads": here.threads}
    return said | {"torch": here.versions["torch"], "seed": bench.seed, "n": frames} | found


def solver_row(bench: Bench) -> dict[str, Any]:
    """Refinement and kinematics."""
    import torch

    from benchmarks.robokeygen import solver

    torch.set_num_threads(bench.threads)
    frames = min(bench.frames, 256)
    return stamped("solver", "cost of the solver", bench, frames, {"details": solver.measure(bench.chain(), frames, bench.seed)})


def images_row(name: str, bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """The whole pipeline on images."""
    import torch

    from benchmarks.robokeygen import images
    from training.predictor import RobotPoseEstimator

    torch.set_num_threads(given.threads)
    estimator = RobotPoseEstimator.load(given.estimator)
    if name == "speed":
        found = images.measure_speed(estimator, given.images / "cross_camera_xbox360", videos=8)
        return stamped("speed", "speed", bench, found["online"]["frames"], {"details": found})
    levels, frames = images.measure(estimator, given.images, ROOT / "build" / "evaluations", given.split, given.limit)
    return stamped(
        "pipeline", "the whole pipeline on rendered images", bench, frames, images.as_row(levels) | {"trained_on": given.trained_on}
    )


def store(name: str, found: dict[str, Any]) -> None:
    """Put a row among the others and write the page again."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows[name] = found
    write_page({n: rows[n] for n in ORDER if n in rows})


def write_page(rows: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=[], choices=[*ORDER, "page", []], metavar="ID")
    parser.add_argument("--frames", type=int, default=Bench.frames)
    parser.add_argument("--steps", type=int, default=Bench.steps, help="training steps of each lifter that is compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lifters", type=Path, default=ROOT / "build" / "ablations")
    parser.add_argument("--lifter", type=Path, help="a run of the lifter to show; default: the compared `diffusion` one")
    parser.add_argument("--estimator", type=Path, help="a trained run with detector/ and lifter/: needed by pipeline and speed")
    parser.add_argument("--images", type=Path, default=ROOT / "build" / "cross", help="folder of the three rendered datasets")
    parser.add_argument("--split", help="of those datasets; default: all of them")
    parser.add_argument("--limit", type=int, help="frames per camera")
    parser.add_argument("--trained-on", default="CPU", help="where the detector was trained, for the page")
    given = parser.parse_args()
    bench = Bench(given.frames, given.seed, given.lifters, given.lifter, given.steps, threads=given.threads)
    chosen = given.ids or [n for n in ORDER if n not in ON_IMAGES or given.estimator]
    for name in chosen:
        if name == "page":
            write_page(json.loads(RESULTS.read_text()) if RESULTS.exists() else {})
        elif name in ON_IMAGES:
            if given.estimator is None:
                parser.error(f"{name} needs --estimator, a trained run")
            store(name, images_row(name, bench, given))
        else:
            store(name, solver_row(bench) if name == "solver" else row(name, bench))
        print(f"{name}: {RESULTS}, {PAGE}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
