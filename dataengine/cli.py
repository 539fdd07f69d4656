"""The `dataengine` command: parses, imports the stage lazily, prints. Bad input is one line and exit code 2."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, UseAppendAction, arg, subcommand

from dataengine import __version__
from dataengine.commands.ds_cli import Ds
from dataengine.commands.train_cli import Evaluate, Overfit, Predict, Train
from dataengine.errors import ConfigError, DataEngineError, Interrupted

Set = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE", help="override a field, e.g. camera.distance_m=1.2")]
Dataset = Annotated[Positional[Path], arg(metavar="DATASET", help="folder of a dataset")]
Video = Annotated[Positional[int], arg(metavar="VIDEO", help="index of the video")]


@dataclass
class Render:
    """Render a preset to labelled videos with a report; the same command resumes."""

    preset: Annotated[Positional[str], arg(metavar="PRESET", help="preset name or YAML file")] = "hello"
    out: Annotated[Path | None, arg(help="dataset folder; default out/PRESET")] = None
    set: Set = field(default_factory=tuple)
    workers: Annotated[int | None, arg(help="render processes; default: one per core")] = None
    serial: Annotated[bool, arg(help="no Ray: one process after another")] = False
    report: Annotated[bool, arg(help="write contact sheets, movies and report.html at the end")] = True

    def run(self) -> int:
        from dataengine.commands.render import render

        out = self.out or Path("out") / Path(self.preset).stem
        return render(self.preset, out, self.set, self.workers, self.serial, self.report)


@dataclass
class Plan:
    """Render a small pilot, then forecast time, CPU-hours and bytes for the whole preset."""

    preset: Annotated[Positional[str], arg(metavar="PRESET")] = "simrgbd_franka"
    set: Set = field(default_factory=tuple)
    nodes: int = 1
    cores: Annotated[int | None, arg(help="per node; default: this machine's")] = None
    pilot: Annotated[int, arg(help="videos to measure")] = 16

    def run(self) -> int:
        from dataengine.commands.plan import plan

        return plan(self.preset, self.set, self.nodes, self.cores, self.pilot)


@dataclass
class Status:
    """How far a render is."""

    dataset: Dataset

    def run(self) -> int:
        from dataengine.commands.inspect import status

        return status(self.dataset)


@dataclass
class Validate:
    """Check every label of a dataset against independent computations."""

    dataset: Dataset

    def run(self) -> int:
        from dataengine.commands.validate import validate

        return validate(self.dataset)


@dataclass
class Explain:
    """Print every random draw of a video: key, distribution, value."""

    dataset: Dataset
    video: Video

    def run(self) -> int:
        from dataengine.commands.inspect import explain

        return explain(self.dataset, self.video)


@dataclass
class Replay:
    """Render a video again from its record and compare, bit by bit."""

    dataset: Dataset
    video: Video
    frame: Annotated[Positional[int | None], arg(metavar="FRAME", help="compare and show only this frame")] = None
    out: Annotated[Path | None, arg(help="write the contact sheet of the replay here")] = None

    def run(self) -> int:
        from dataengine.commands.replay import replay

        return replay(self.dataset, self.video, self.frame, self.out)


@dataclass
class Report:
    """Write contact sheets, movies and report.html of a dataset again."""

    dataset: Dataset

    def run(self) -> int:
        from dataengine.commands.report import report

        return report(self.dataset)


@dataclass
class View:
    """Look at a dataset in the browser, or write it for the Rerun viewer."""

    dataset: Dataset
    video: Annotated[int | None, arg(help="video to show first; with --rerun the only one written")] = None
    host: Annotated[str, arg(help="address to listen at; the default is reachable from this machine only")] = "127.0.0.1"
    port: int = 8080
    rerun: Annotated[Path | None, arg(metavar="FILE.rrd", help="write a Rerun recording and exit")] = None

    def run(self) -> int:
        from dataengine.commands.view import view

        return view(self.dataset, self.video, self.host, self.port, self.rerun)


@dataclass
class Export:
    """Write a dataset in another project's layout: simrgbd, ndds, bop, coco, nocs, sope, hdf5, folders, colmap, capture."""

    dataset: Dataset
    format: Annotated[Positional[str], arg(metavar="FORMAT")]
    out: Annotated[Path, arg(help="new folder")]
    videos: Annotated[tuple[int, ...], arg(help="only these videos")] = ()

    def run(self) -> int:
        from dataengine.commands.convert import export_dataset

        return export_dataset(self.dataset, self.format, self.out, self.videos)


@dataclass
class Import:
    """Read a folder in another project's layout into a dataset."""

    format: Annotated[Positional[str], arg(metavar="FORMAT")]
    source: Annotated[Positional[Path], arg(metavar="FOLDER")]
    out: Annotated[Path, arg(help="new dataset folder")]
    frames_per_video: Annotated[int | None, arg(help="cut long sequences; default: as the layout says")] = None
    split: str = "train"

    def run(self) -> int:
        from dataengine.commands.convert import import_folder

        return import_folder(self.format, self.source, self.out, None, self.frames_per_video, self.split)


@dataclass
class Annotate:
    """Label a real capture: camera, robot, joints, keypoints, masks with uncertainties; `annotate review OUT` tells the verdict again."""

    capture: Annotated[Positional[Path], arg(metavar="CAPTURE", help="YAML file that describes the capture, or the word review")]
    reviewed: Annotated[Positional[Path | None], arg(metavar="OUT", help="with review: folder of a finished annotation")] = None
    out: Annotated[Path | None, arg(help="folder for the dataset and the QA page; default out/annotated/NAME")] = None
    clicks: Annotated[Path | None, arg(help="clicks.json; default: those of an earlier session in the folder")] = None
    ui: Annotated[bool, arg(help="open the annotation app in the browser")] = False
    port: Annotated[int, arg(help="of the app, on this machine only")] = 8080
    strict: Annotated[bool, arg(help="exit code 1 where anything was flagged or frames were rejected")] = False

    def run(self) -> int:
        from annotators.cli import annotate, review

        if str(self.capture) == "review":
            if self.reviewed is None:
                raise ConfigError("annotate review: no folder given; name that of a finished annotation, e.g. out/annotated/demo")
            return review(self.reviewed)
        out = self.out or Path("out/annotated") / (self.capture.parent.name if self.capture.stem == "capture" else self.capture.stem)
        return annotate(self.capture, out, self.clicks, self.ui, self.strict, self.port)


@dataclass
class Doctor:
    """Versions, machine and missing pieces, for bug reports."""

    def run(self) -> int:
        from dataengine.commands.doctor import doctor

        return doctor()


Command = (
    Annotated[Render, subcommand("render")]
    | Annotated[Plan, subcommand("plan")]
    | Annotated[Status, subcommand("status")]
    | Annotated[Validate, subcommand("validate")]
    | Annotated[Explain, subcommand("explain")]
    | Annotated[Replay, subcommand("replay")]
    | Annotated[Report, subcommand("report")]
    | Annotated[View, subcommand("view")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Import, subcommand("import")]
    | Annotated[Annotate, subcommand("annotate")]
    | Annotated[Ds, subcommand("ds")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Predict, subcommand("predict")]
    | Annotated[Overfit, subcommand("overfit")]
    | Annotated[Doctor, subcommand("doctor")]
)


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 1 the data has faults (validate, replay, quarantined videos), 2 bad input, 130 stopped."""
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(__version__)
        return 0
    return run(lambda: parse(arguments).run())


def parse(arguments: list[str] | None) -> Command:
    """The command that the arguments (default: the process') name; exits with code 2 where they name none."""
    description = "Render, label, pack and check data for robot- and object-pose research."
    return tyro.cli(Command, prog="dataengine", description=description, args=arguments, config=(tyro.conf.OmitArgPrefixes,))


def run(stage: Callable[[], int]) -> int:
    """Run a stage; an error that is the input's fault becomes one line on stderr (a bad preset: one line per mistake)."""
    try:
        return stage()
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except DataEngineError as error:
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
