"""`dataengine view`: a dataset in the browser, or as a Rerun recording."""

from pathlib import Path

from rich.console import Console

from dataengine.commands.report import read_videos
from dataengine.errors import StoreError
from dataengine.store.dataset import Dataset, open_dataset

MAX_RECORDED = 4
"""Videos in a Rerun recording when none is named: it is a preview and grows by megabytes per frame."""


def view(folder: Path, video: int | None, host: str, port: int, rerun: Path | None) -> int:
    """Serve until Ctrl-C; with ``rerun`` write that file instead."""
    console = Console(highlight=False, soft_wrap=True)
    dataset = open_dataset(folder)
    return record(dataset, video, rerun, console) if rerun is not None else serve(dataset, video, host, port, console)


def serve(dataset: Dataset, video: int | None, host: str, port: int, console: Console) -> int:
    from dataengine.view.viewer import open_viewer

    viewer = open_viewer(dataset, video, host, port)
    console.print(f"{dataset.path} at http://{host}:{port}/ (Ctrl-C ends)")
    try:
        viewer.run()
    except KeyboardInterrupt:
        console.print("ended")
    finally:
        viewer.stop()
    return 0


def record(dataset: Dataset, video: int | None, target: Path, console: Console) -> int:
    from dataengine.view.rerun_export import write_recording

    committed = [entry.video for entry in dataset.committed().values()]
    if not committed:
        raise StoreError(f"{dataset.path} holds no video yet; render some first")
    chosen = committed[:MAX_RECORDED] if video is None else [dataset.record(video).video]
    write_recording(target, dataset.name, zip(chosen, read_videos(dataset, chosen), strict=True))
    left_out = f" (the first {len(chosen)} of {len(committed)} videos)" if video is None and len(committed) > len(chosen) else ""
    console.print(f"{target}{left_out}: open it with `rerun {target}`")
    return 0
