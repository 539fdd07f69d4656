"""`dataengine render`: a preset to a dataset with a report; the same command resumes."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dataengine.commands.text import counted
from dataengine.config.loader import load_spec
from dataengine.config.spec import DatasetSpec, LimitSpec
from dataengine.errors import ConfigError, Interrupted, RenderError, SceneError, StoreError
from dataengine.render.driver import Callbacks, GivenUp, run_units
from dataengine.render.executor import Executor
from dataengine.render.progress import Progress
from dataengine.render.zygote import Recipe
from dataengine.robot.model import RobotModel
from dataengine.scene.assets import texture_path
from dataengine.scene.sample import sample_scene
from dataengine.scene.shapes import load_mesh_file
from dataengine.store.commits import unit_name
from dataengine.store.dataset import Dataset, open_or_create
from dataengine.worker import load_ready_robot

SCENES_TRIED = 8


def render(preset: str, out: Path, overrides: Sequence[str], workers: int | None, serial: bool, report: bool) -> int:
    """Exit code 0, or 1 when videos were given up."""
    console = Console(highlight=False, soft_wrap=True)
    at_least_one(workers=workers)
    spec = load_spec(preset, overrides)
    check_machine()
    robot = load_ready_robot(spec)  # fails early on a bad robot, and bakes its meshes before any worker reads them
    if not (out / "dataset.json").exists():
        check_scenes(spec, robot.model)
    dataset = open_dataset_of(spec, out, console)
    todo = dataset.pending(spec.videos)
    committed = len(dataset.videos())
    banner(console, spec, out, len(todo), committed)
    if todo:
        executor = make_executor(spec, workers, serial)
        progress = Progress(len(todo), committed, spec.frames, out, console)
        callbacks = Callbacks(
            request=lambda video: {"video": video, "dataset": str(dataset.path.resolve())}, quarantined=quarantine_in(dataset)
        )
        try:
            run_units(todo, executor, spec.limits, progress, callbacks, safe_before=committed)
        except Interrupted:  # the last videos may have been committed while the workers were being stopped
            safe = f"{len(dataset.videos())} of {spec.videos} videos are safe"
            raise Interrupted(f"stopped: {safe}; run the same command to go on") from None
    dataset.clean_staging()
    manifest = dataset.write_manifest()
    given_up = dataset.quarantined()
    console.print(f"{counted(len(manifest['units']), 'video')} in {out}, manifest {manifest['digest'][:16]}")
    for unit, record in given_up.items():
        console.print(f"[red]{unit} was given up after {counted(record['attempts'], 'attempt')}:[/] {record['reason']}")
    if given_up:
        console.print(f"to try them again, remove their files from {out / 'quarantine'} and run the same command")
    if report and manifest["units"]:
        from dataengine.commands.report import write_previews

        write_previews(dataset, console)
    return 1 if given_up else 0


def at_least_one(**options: int | None) -> None:
    """Raise ConfigError for a count below 1; None is left to its default."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: must be at least 1")


def check_scenes(spec: DatasetSpec, robot: RobotModel) -> None:
    """Raise what stands in the way of every scene (a camera that never sees the robot) or of some (a broken mesh or texture)
    before anything is written or started. One good scene among the first few is enough: single videos that fail are
    quarantined later."""
    for name in spec.distractors.meshes:
        load_mesh_file(name)
    for name in spec.surroundings.textures:
        texture_path(name)
    failed: SceneError | None = None
    for video in range(min(spec.videos, SCENES_TRIED)):
        try:
            sample_scene(spec, video, robot)
        except SceneError as error:
            failed = error
        else:
            return
    if failed is not None:
        tried = "the only scene cannot" if spec.videos == 1 else f"none of the first {min(spec.videos, SCENES_TRIED)} scenes can"
        raise SceneError(f"{tried} be sampled; {failed}")


def check_machine() -> None:
    """Raise RenderError where Blender cannot start."""
    from dataengine.render.blender.libraries import explain_missing, missing_libraries

    if missing := missing_libraries():
        raise RenderError(explain_missing(missing))


def open_dataset_of(spec: DatasetSpec, out: Path, console: Console) -> Dataset:
    """Open or create the dataset folder, take back what is damaged, remove what dead workers left."""
    identity = spec.model_dump(mode="json", exclude={"videos", "limits"})
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"cannot create {out}: {error.strerror}; choose another output folder with --out") from None
    except OSError:
        pass  # the store knows what to say
    dataset = open_or_create(out, identity, spec.digest(), spec.name, planned=spec.videos)
    dataset.clean_staging()
    if (count := len(dataset.videos())) > 100:
        console.print(f"checking the {count} videos that are there …")
    for damage in dataset.check_existing(full=True):  # 20 ms a video, against seconds for rendering one
        console.print(f"[yellow]{damage.unit} was damaged ({damage.findings[0]}); moved to {damage.moved_to}, it will be rendered again[/]")
    return dataset


def make_executor(spec: DatasetSpec, workers: int | None, serial: bool) -> Executor:
    """Zygotes of this process, or Ray actors: on the cluster that RAY_ADDRESS names, else on this machine."""
    # what changes no pixel stays out, so that it cannot change the worker's memory history either
    identity = spec.model_copy(update={"videos": 1, "limits": LimitSpec()})
    recipe = Recipe("dataengine.worker:setup", {"spec": identity.model_dump_json()})
    if serial:
        from dataengine.render.serial import SerialExecutor

        return SerialExecutor(recipe, workers or 1)
    from dataengine.render.pool import RayPool

    return RayPool(recipe, workers, os.environ.get("RAY_ADDRESS") or None)


def quarantine_in(dataset: Dataset):
    """Callback that writes a given-up video into the dataset's quarantine."""

    def quarantine(given_up: GivenUp) -> None:
        dataset.quarantine(unit_name(given_up.unit), given_up.reason, len(given_up.reasons), given_up.log_tail)

    return quarantine


def banner(console: Console, spec: DatasetSpec, out: Path, todo: int, committed: int) -> None:
    """What is about to happen."""
    camera = f"{spec.camera.width}×{spec.camera.height}"
    console.print(f"[bold]{spec.name}[/] · spec {spec.digest()[:12]} · {spec.robot.name} · {camera} · {spec.frames} frames a video")
    if not todo:
        console.print(f"nothing to render: {committed} of {spec.videos} videos are in {out}")
        return
    already = f", {committed} of {spec.videos} already done" if committed else ""
    console.print(f"{counted(todo, 'video')} to render into {out}{already}; Ctrl-C is safe, the same command goes on")
