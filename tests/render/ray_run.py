"""A driver of its own for the tests: `python ray_run.py OUT VIDEOS WORKERS ADDRESS SLEEP_S`. Writes OUT/result.json."""

import json
import sys
from pathlib import Path

from dataengine.config.spec import LimitSpec
from dataengine.errors import DataEngineError
from dataengine.render.driver import Callbacks, run_units
from dataengine.render.pool import RayPool
from dataengine.render.progress import Progress
from dataengine.render.zygote import Recipe


def main(out: Path, videos: int, workers: int, address: str | None, sleep_s: float) -> None:
    todo = [i for i in range(videos) if not (out / f"{i}.txt").exists()]
    before = videos - len(todo)
    pool = RayPool(Recipe("toys:make", python_path=(str(Path(__file__).parent),)), workers, address)
    request = {"action": "write", "out": str(out), "sleep_s": sleep_s, "poison": [3], "unsampleable": [5]}
    given_up: list[int] = []
    callbacks = Callbacks(lambda unit: request | {"video": unit}, quarantined=lambda g: given_up.append(g.unit))
    result = run_units(todo, pool, LimitSpec(), Progress(len(todo), before, folder=out), callbacks, before)
    (out / "result.json").write_text(json.dumps({"done": sorted(result.receipts), "given_up": sorted(given_up)}))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    try:
        main(Path(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3] or None, float(arguments[4]))
    except DataEngineError as error:
        sys.exit(f"{type(error).__name__}: {error}")
