"""Arguments of `dataengine train`, `evaluate`, `predict`, `overfit` and `ablations`; torch is imported when one of them runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from dataengine.errors import ConfigError

Checkpoint = Annotated[Positional[Path], arg(metavar="RUN", help="folder that `dataengine train` wrote")]
Data = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="DATASET", help="dataset for images; may be given again")]
Set = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE", help="override a setting, e.g. loop.steps=100")]
Split = Annotated[str, arg(help="only this split; default: all")]


def training(verb: str) -> Callable[..., int]:
    """A function of `training.cli`. Raises ConfigError where the extra `train` is not installed."""
    try:
        from training import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("training", "dataengine"):
            raise
        raise ConfigError(f"{error.name} is not installed; training needs the extra `train`: pip install 'dataengine[train]'") from None
    function: Any = getattr(cli, verb)
    return function


@dataclass
class Train:
    """Train a recipe; the same command goes on after a kill."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="e.g. robokeygen-small, lifter-small, detector-gpu")] = "robokeygen-small"
    out: Annotated[Path | None, arg(help="folder of the run; default out/RECIPE")] = None
    data: Data = field(default_factory=tuple)
    set: Set = field(default_factory=tuple)
    start: Annotated[Path | None, arg(name="from", metavar="RUN", help="take the weights of this run, then train on")] = None
    resume: Annotated[bool, arg(help="go on where this run stopped")] = True
    dry_run: Annotated[bool, arg(help="one batch through everything, nothing written")] = False
    ray_workers: Annotated[int, arg(help="processes of Ray Train; 0: this process")] = 0
    keypoints: Annotated[str, arg(help="keypoint set")] = "panda15"
    robot: Annotated[str, arg(help="name in the catalogue, or a URDF")] = "panda"

    def run(self) -> int:
        return training("train")(
            self.recipe, self.out, self.data, self.set, self.start, self.resume, self.dry_run, self.ray_workers, self.keypoints, self.robot
        )


@dataclass
class Evaluate:
    """Judge a trained pipeline on a dataset: report.json and a page with its worst cases."""

    checkpoint: Checkpoint
    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    out: Annotated[Path | None, arg(help="default: a folder in RUN")] = None
    split: Split = ""
    limit: Annotated[int | None, arg(help="so many frames at most")] = None
    online: Annotated[bool, arg(help="each frame starts from the one before")] = False

    def run(self) -> int:
        return training("evaluate")(self.checkpoint, self.dataset, self.out, self.split, self.limit, self.online)


@dataclass
class Predict:
    """Joint angles, pose and keypoints of the robot in an image, a video (overlay mp4) or a dataset."""

    checkpoint: Checkpoint
    source: Annotated[Positional[str], arg(metavar="SOURCE", help="image, video, or folder of a dataset")]
    out: Annotated[Path | None, arg(help="default out/predictions")] = None
    camera: Annotated[str | None, arg(metavar="FX,FY,CX,CY", help="intrinsics in pixels, centres at integers")] = None
    fov_deg: Annotated[float | None, arg(help="horizontal field of view, where the intrinsics are not known")] = None
    split: Split = ""
    online: Annotated[bool, arg(help="videos: each frame starts from the one before")] = True

    def run(self) -> int:
        return training("predict")(self.checkpoint, self.source, self.out, self.camera, self.fov_deg, self.split, self.online)


@dataclass
class Overfit:
    """Learn a few frames by heart and draw the prediction over the truth: does the pipeline fit together?"""

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    out: Annotated[Path, arg(help="pictures and the run")] = Path("out/overfit")
    frames: int = 12
    set: Set = field(default_factory=tuple)

    def run(self) -> int:
        return training("overfit")(self.dataset, self.out, self.frames, self.set)
