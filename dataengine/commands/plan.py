"""`dataengine plan`: measure a pilot, forecast the whole preset."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dataengine.commands.render import at_least_one, check_machine, check_scenes, make_executor, open_dataset_of
from dataengine.config.loader import load_spec
from dataengine.render.driver import Callbacks, run_units
from dataengine.render.plan import forecast, forecast_table, pilot_of, pilot_videos
from dataengine.render.progress import Progress
from dataengine.worker import load_ready_robot


def plan(preset: str, overrides: Sequence[str], nodes: int, cores: int | None, pilot: int) -> int:
    """Render `pilot` videos spread over the preset into a scratch folder and print what all of them would cost."""
    console = Console(highlight=False, soft_wrap=True)
    at_least_one(nodes=nodes, cores=cores, pilot=pilot)
    spec = load_spec(preset, overrides)
    check_machine()
    check_scenes(spec, load_ready_robot(spec).model)
    chosen = pilot_videos(spec.videos, pilot)
    console.print(f"measuring {len(chosen)} of {spec.videos} videos of {spec.name} …")
    with tempfile.TemporaryDirectory(prefix="dataengine-plan-") as scratch:
        dataset = open_dataset_of(spec, Path(scratch) / "dataset", console)
        callbacks = Callbacks(request=lambda video: {"video": video, "dataset": str(dataset.path)})
        executor = make_executor(spec, None, serial=False)
        result = run_units(chosen, executor, spec.limits, Progress(len(chosen), 0, spec.frames, None, console), callbacks)
    measured = pilot_of(result)
    per_node = cores or len(os.sched_getaffinity(0))
    console.print(forecast_table(forecast(measured, spec.videos, nodes, per_node), measured))
    return 0
