"""`dataengine report`: contact sheets, movies and report.html of a dataset."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from dataengine.commands.spec import is_rendered, rendered_spec
from dataengine.errors import StoreError
from dataengine.quality.coverage import coverage
from dataengine.record.video import Video
from dataengine.robot.catalogue import load_robot
from dataengine.store.dataset import Dataset, open_dataset
from dataengine.store.files import reported
from dataengine.view.contact_sheet import contact_sheet, dataset_strip, save_png
from dataengine.view.movie import write_movie
from dataengine.view.report import ReportInfo, write_report

MAX_PREVIEWS = 12
"""Videos with a contact sheet, a movie and a place in the report; the statistics cover all."""


def report(folder: Path) -> int:
    write_previews(open_dataset(folder), Console(highlight=False, soft_wrap=True))
    return 0


def write_previews(dataset: Dataset, console: Console) -> None:
    """Write previews/video-*.png and .mp4, previews/strip.png and report.html; say where."""
    records = list(dataset.committed().values())
    if not records:
        raise StoreError(f"{dataset.path} holds no video yet; render some first")
    shown = records[:MAX_PREVIEWS]
    previews = dataset.path / "previews"
    with reported(dataset.path):
        for record in shown:
            with dataset.reader(record.video) as reader:
                video = reader.video()
            save_png(previews / f"{record.unit}.png", contact_sheet(video))
            write_movie(previews / f"{record.unit}.mp4", video)
        save_png(previews / "strip.png", dataset_strip(read_videos(dataset, [r.video for r in shown[:4]])))
        pictured = read_videos(dataset, [r.video for r in shown])
        page = write_report(dataset.path / "report.html", report_info(dataset), whole_coverage(dataset), pictured, MAX_PREVIEWS)
    if console.is_terminal:
        from dataengine.view.terminal import half_blocks

        video = next(read_videos(dataset, [shown[0].video]))
        if "rgb" in video.images:
            console.print(half_blocks(video.images["rgb"][0], columns=min(console.width, 72)))
    console.print(f"contact sheets and movies in {previews}, report: {page}")


def read_videos(dataset: Dataset, indices: list[int], modalities: tuple[str, ...] | None = None) -> Iterator[Video]:
    """Videos one at a time."""
    for index in indices:
        with dataset.reader(index) as reader:
            yield reader.video(modalities)


def whole_coverage(dataset: Dataset):
    """Coverage statistics of all committed videos; images are not read."""
    if not is_rendered(dataset):
        return coverage(read_videos(dataset, [r.video for r in dataset.committed().values()], modalities=()))
    model = load_robot(rendered_spec(dataset).robot.name)
    limits = {name: (float(a), float(b)) for name, a, b in zip(model.actuated, model.q_lower, model.q_upper, strict=True)}
    return coverage(read_videos(dataset, [r.video for r in dataset.committed().values()], modalities=()), limits)


def report_info(dataset: Dataset) -> ReportInfo:
    """Facts about the dataset as a whole. The check counts are those made before each commit."""
    stages: Counter[str] = Counter()
    checks = 0
    for record in dataset.committed().values():
        stages.update(record.stats.get("cpu_s", {}))
        checks += int(record.stats.get("checks", 0))
    reasons = Counter(str(q["reason"]) for q in dataset.quarantined().values())
    first = next(iter(dataset.committed().values()))
    with dataset.reader(first.video) as reader:
        provenance = reader.attributes["provenance"]
    versions = {"dataengine": provenance.get("dataengine", "")} | provenance.get("versions", {})
    return ReportInfo(
        name=dataset.name, location=str(dataset.path), spec_digest=dataset.spec_digest, checks=checks, versions=versions,
        stage_cpu_s=dict(stages), quarantined=dict(reasons),
    )  # fmt: skip
