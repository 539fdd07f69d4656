"""`dataengine export` and `dataengine import`: a dataset to another project's layout, and back."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dataengine.commands.text import counted
from dataengine.convert.disk import ConvertError
from dataengine.convert.formats import FORMATS, get_format
from dataengine.record.video import Video
from dataengine.store.commits import unit_name
from dataengine.store.dataset import Dataset, open_dataset, open_or_create


def export_dataset(folder: Path, format: str, out: Path, videos: tuple[int, ...] = ()) -> int:
    """Write a dataset (or the `videos` named by index) into the new folder `out`. Exit code 0."""
    console = Console(highlight=False, soft_wrap=True)
    chosen = get_format(format)
    dataset = open_dataset(folder)
    indices = list(videos) or [record.video for record in dataset.committed().values()]
    if not indices:
        raise ConvertError(f"{folder} holds no videos yet; render some before exporting")
    for index in indices:
        dataset.record(index)  # a video that is not there is told before anything is written
    count = chosen.export_function()(
        track(_read(dataset, indices), "exporting", len(indices), console=console, disable=not console.is_terminal), out
    )
    console.print(f"{counted(count, 'video')} of {dataset.name} in {out} as {format}: {chosen.description}")
    return 0


def _read(dataset: Dataset, indices: Iterable[int]) -> Iterator[Video]:
    for index in indices:
        with dataset.reader(index) as reader:
            yield reader.video()


def import_folder(
    format: str, source: Path, out: Path, name: str | None = None, frames_per_video: int | None = None, split: str = "train"
) -> int:
    """Read a folder in another layout into the dataset `out`; the same command goes on where it was stopped. Exit code 0.

    A dataset holds one import: another source, format or cut of videos is refused by its digest.
    """
    console = Console(highlight=False, soft_wrap=True)
    if split not in ("train", "val", "test"):
        raise ConvertError(f"split '{split}' is not train, val or test")
    if frames_per_video is not None and frames_per_video < 1:
        raise ConvertError(f"frames per video must be 1 or more, not {frames_per_video}")
    found = get_format(format).import_function()(source, frames_per_video)
    first = next(found, None)  # a folder that does not fit is told before the dataset exists
    if first is None:
        raise ConvertError(f"{source} holds nothing to import")
    title = name or source.resolve().name
    identity = {
        "name": title,
        "imported": {"format": format, "source": source.resolve().name, "frames_per_video": frames_per_video, "split": split},
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    dataset = open_or_create(out, identity, digest, title)
    dataset.clean_staging()
    done, notes, count = set(dataset.videos()), Counter[str](), 0
    for index, video in enumerate(_with(first, found)):
        if unit_name(index) not in done:
            dataset.add(index, video, split)
        notes.update(video.notes.get("import", []))
        count += 1
    manifest = dataset.write_manifest()
    for note, videos in notes.items():
        console.print(f"[yellow]{note}[/] ({videos} of {count} videos)")
    console.print(f"{counted(count, 'video')} of {source} in {out}, manifest {manifest['digest'][:16]}")
    return 0


def _with(first: Video, rest: Iterator[Video]) -> Iterator[Video]:
    yield first
    yield from rest


def list_formats() -> str:
    """One line per format, for help texts."""
    return "\n".join(f"{name}: {f.description}" for name, f in FORMATS.items())
