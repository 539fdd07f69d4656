"""`dataengine status` and `dataengine explain`: what a run does, what a video was drawn from."""

from pathlib import Path

from rich.console import Console

from dataengine.render.progress import read_status
from dataengine.render.status_view import status_table
from dataengine.scene.explain import explain as explain_scene
from dataengine.scene.spec import SceneSpec
from dataengine.store.dataset import open_dataset


def status(folder: Path) -> int:
    """Show the state that the last run left."""
    Console(highlight=False).print(status_table(read_status(folder)))
    return 0


def explain(folder: Path, video: int) -> int:
    """Every draw of a video: key, distribution, value."""
    with open_dataset(folder).reader(video) as reader:
        scene = SceneSpec.model_validate(reader.scene)
    Console(highlight=False, soft_wrap=True).print(explain_scene(scene), markup=False)
    return 0
