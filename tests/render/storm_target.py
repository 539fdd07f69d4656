"""A render in miniature for the kill storm: `python storm_target.py DATASET VIDEOS [ray]`, with a dataset's folders."""

import hashlib
import json
import sys
from pathlib import Path

from dataengine.config.spec import LimitSpec
from dataengine.render.driver import Callbacks, run_units
from dataengine.render.executor import Executor
from dataengine.render.pool import RayPool
from dataengine.render.progress import Progress
from dataengine.render.serial import SerialExecutor
from dataengine.render.zygote import Recipe

if __name__ == "__main__":
    dataset, videos = Path(sys.argv[1]), int(sys.argv[2])
    for name in ("commits", "shards"):
        (dataset / name).mkdir(parents=True, exist_ok=True)
    todo = [i for i in range(videos) if not (dataset / "commits" / f"{i:03d}.json").exists()]
    recipe = Recipe("toys:make", python_path=(str(Path(__file__).parent),))
    executor: Executor = RayPool(recipe, 2) if sys.argv[3:] == ["ray"] else SerialExecutor(recipe, 2)
    callbacks = Callbacks(lambda unit: {"action": "commit", "video": unit, "out": str(dataset)})
    run_units(todo, executor, LimitSpec(), Progress(len(todo), videos - len(todo), folder=dataset), callbacks, videos - len(todo))
    units = [json.loads(p.read_text()) for p in sorted((dataset / "commits").glob("*.json"))]
    digest = hashlib.sha256(json.dumps(units).encode()).hexdigest()
    (dataset / "manifest.json").write_text(json.dumps({"units": units, "digest": digest}))
