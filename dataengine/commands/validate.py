"""`dataengine validate`: every label of a dataset against independent computations, every byte against its digest."""

from pathlib import Path

from rich.console import Console
from rich.progress import track

from dataengine.commands.spec import rendered_spec
from dataengine.commands.text import counted
from dataengine.quality.validate import Validation, validate_video
from dataengine.store.dataset import open_dataset
from dataengine.worker import load_ready_robot

MAX_LINES = 50


def validate(folder: Path) -> int:
    """Exit code 1 when a label or a byte is wrong."""
    console = Console(highlight=False, soft_wrap=True)
    dataset = open_dataset(folder)
    robot = load_ready_robot(rendered_spec(dataset))
    total, lines = Validation(0, ()), []
    damaged = dataset.verify(full=True)
    for unit, findings in damaged.items():
        lines += [f"{unit}: {finding}" for finding in findings]
    records = [r for unit, r in dataset.committed().items() if unit not in damaged]
    for record in track(records, description="validating", console=console, disable=not console.is_terminal):
        with dataset.reader(record.video) as reader:
            found = validate_video(reader.video(), robot.model, robot.meshes)
        total += found
        lines += [f"{record.unit}: {violation}" for violation in found.violations]
    for line in lines[:MAX_LINES]:
        console.print(line)
    if len(lines) > MAX_LINES:
        console.print(f"… and {len(lines) - MAX_LINES} more")
    console.print(f"{counted(len(records) + len(damaged), 'video')}: {total.verdict()}; {len(damaged)} damaged")
    return 1 if lines else 0
