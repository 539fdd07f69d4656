"""`dataengine replay`: render a video again from its record and compare, bit by bit."""

import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dataengine.commands.spec import rendered_spec
from dataengine.errors import DataEngineError, RenderError
from dataengine.record.video import Video
from dataengine.render.zygote import Recipe, Zygote
from dataengine.store.dataset import open_dataset, open_or_create

COLOUR_TOLERANCE = 2
"""Grey levels a colour pixel may differ where address randomisation cannot be switched off."""


def replay(folder: Path, video: int, frame: int | None, out: Path | None) -> int:
    """Exit code 1 when the new render differs."""
    console = Console(highlight=False, soft_wrap=True)
    dataset = open_dataset(folder)
    with dataset.reader(video) as reader:
        old = reader.video()
    if frame is not None and not 0 <= frame < old.frame_count:
        raise DataEngineError(f"video {video} has no frame {frame}; it has {old.frame_count}, 0 to {old.frame_count - 1}")
    spec = rendered_spec(dataset)
    with tempfile.TemporaryDirectory(prefix="dataengine-replay-") as scratch:
        again = open_or_create(Path(scratch) / "dataset", dataset.spec, dataset.spec_digest, dataset.name)
        with Zygote(Recipe("dataengine.worker:setup", {"spec": spec.model_dump_json()})) as zygote:
            outcome = zygote.run(
                {"video": video, "dataset": str(again.path), "scene": old.scene}, spec.limits.wall_s, spec.limits.memory_mb
            )
        if outcome.status != "ok":
            raise RenderError(f"the replay of video {video} failed: {outcome.reason}")
        with again.reader(video) as reader:
            new = reader.video()
    same = show(console, compare(old, new, frame), exact=bool(new.provenance.get("bitwise_colour")))
    if out is not None:
        from dataengine.view.contact_sheet import contact_sheet, save_png

        console.print(f"contact sheet of the replay: {save_png(out, contact_sheet(new))}")
    return 0 if same else 1


def compare(old: Video, new: Video, frame: int | None) -> dict[str, tuple[int, float]]:
    """{array: (values that differ, largest difference)}, over one frame or all."""
    pick = slice(None) if frame is None else slice(frame, frame + 1)
    out = {}
    for name, image in old.images.items():
        a, b = image[pick].astype(float), new.images[name][pick].astype(float)
        out[name] = (int((a != b).sum()), float(np.abs(a - b).max(initial=0.0)))
    for name in old.frames.dtype.names or ():
        a, b = old.frames[name][pick].astype(float), new.frames[name][pick].astype(float)
        differ = (a != b) & ~(np.isnan(a) & np.isnan(b))
        out[f"frames.{name}"] = (int(differ.sum()), float(np.abs(a - b)[differ].max(initial=0.0)))
    return out


def show(console: Console, differences: dict[str, tuple[int, float]], exact: bool) -> bool:
    """Print what differs; True when that is nothing (or only a trace of colour where bitwise colour is not possible)."""
    changed = {name: d for name, d in differences.items() if d[0]}
    if not changed:
        console.print(f"identical: {len(differences)} arrays, bit by bit")
        return True
    table = Table("array", "values that differ", "largest difference")
    for name, (count, largest) in changed.items():
        table.add_row(name, str(count), f"{largest:g}")
    console.print(table)
    only_colour = set(changed) <= {"rgb", "normals"} and all(largest <= COLOUR_TOLERANCE for _, largest in changed.values())
    if only_colour and not exact:
        console.print("labels are identical; colour differs within tolerance, as this system keeps address randomisation on")
    return only_colour and not exact
