"""Both pipelines on the same scenes: what each costs per frame, how good its colour pictures are, and which of our settings is the
cheapest that is at least as good as stock BlenderProc in PSNR and in SSIM.

Every run is a process of its own, pinned to one core, and leaves its result in the work folder, so an interrupted search goes on
where it stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import image_quality
from benchmarks.our_pipeline import crop
from dataengine.config.spec import QUALITY

PRESET = "simrgbd_franka"
VIDEOS = (0, 1)
FRAME = 1
"""The frame of each clip that is compared with references."""

STOCK = {"16/4": (16, 4), "4/2": (4, 2)}
"""name → samples per pixel of colour, of infrared."""

Settings = tuple[int, str, str]
LADDER = {"FAST": ("HIGH", (2, 4, 6, 8, 10)), "ACCURATE": ("BALANCED", (2, 8))}
"""prefilter → (denoiser quality, samples per pixel) that are tried beside the presets."""
OURS: dict[str, Settings] = {"draft": QUALITY["draft"], "train": QUALITY["train"]} | {
    f"{spp} {prefilter}": (spp, quality, prefilter) for prefilter, (quality, ladder) in LADDER.items() for spp in ladder
}
"""name → samples per pixel, denoiser quality, prefilter."""

CORES = sorted(os.sched_getaffinity(0))


def measure_references(work: Path) -> dict[str, Any]:
    """Four renders of 128 samples of one frame of each scene."""
    for video in VIDEOS:
        scene = scene_file(work, video, "given")
        _once(work / f"{video}" / "reference", "our_pipeline", "--frame", FRAME, "reference", scene, cores=CORES[-1:])
    return {"videos": len(VIDEOS), "samples": 512}


def measure_stock(work: Path) -> dict[str, Any]:
    """Stock BlenderProc at both sample counts."""
    out = {}
    for name, (rgb, ir) in STOCK.items():
        folders = [work / f"{video}" / f"stock {rgb}-{ir}" for video in VIDEOS]
        for video, folder in zip(VIDEOS, folders, strict=True):
            scene = scene_file(work, video, "given")
            _once(folder, "stock_blenderproc", "--rgb-samples", rgb, "--ir-samples", ir, scene)
        out[name] = summary(work, folders, "stock")
    return out


def measure_ours(work: Path) -> dict[str, Any]:
    """Our pipeline at every setting of `OURS`."""
    folders = {name: [work / f"{video}" / f"ours {name}" for video in VIDEOS] for name in OURS}
    jobs = [
        (scene_file(work, video, name, settings), folder)
        for name, settings in OURS.items()
        for video, folder in zip(VIDEOS, folders[name], strict=True)
        if not (folder / "done").exists()
    ]
    if jobs:
        _run("our_pipeline", work / "ours.log", "ours", *(path for job in jobs for path in job), "--core", CORES[0])
    return {name: summary(work, folders[name], "ours") | {"settings": list(OURS[name])} for name in OURS}


def measure_two_threads(work: Path) -> dict[str, Any]:
    """Wall time with both cores for one process, the way a user of stock BlenderProc runs it; one scene."""
    out = {}
    for name, (rgb, ir) in STOCK.items():
        folder = work / f"{VIDEOS[0]}" / f"stock {rgb}-{ir} two threads"
        scene = scene_file(work, VIDEOS[0], "given")
        _once(folder, "stock_blenderproc", "--rgb-samples", rgb, "--ir-samples", ir, scene, cores=CORES[:2])
        times = json.loads((folder / "stock.json").read_text())
        out[name] = {"cpu_s": sum(times["cpu_s"].values()), "wall_s": sum(times["wall_s"].values())}
    return out


def scene_file(work: Path, video: int, name: str, settings: Settings | None = None) -> Path:
    """SceneSpec of one video as a file, without the sensor noise of the colour camera, with other render settings if given."""
    path = work / f"{video}" / f"scene {name}.json"
    if path.exists():
        return path
    from dataengine.config.loader import load_spec
    from dataengine.robot.catalogue import load_robot
    from dataengine.scene.sample import sample_scene

    spec = load_spec(PRESET, ["image.noise=0", "image.shot_noise=0"])
    scene = sample_scene(spec, video, load_robot(spec.robot.name))
    if settings is not None:
        keys = ("samples_per_pixel", "denoise_quality", "denoise_prefilter")
        scene = scene.model_copy(update=dict(zip(keys, settings, strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(scene.model_dump_json())
    return path


def summary(work: Path, folders: Sequence[Path], kind: str) -> dict[str, Any]:
    """Means over the scenes: seconds per frame by stage and in all, and the quality of the compared frames."""
    times = [json.loads((folder / f"{kind}.json").read_text()) for folder in folders]
    stages = {name: float(np.mean([t["cpu_s"].get(name, 0.0) for t in times])) for name in times[0]["cpu_s"]}
    each = []
    for video, folder in zip(VIDEOS, folders, strict=True):
        with np.load(work / f"{video}" / "reference" / "reference.npz") as reference, np.load(folder / f"{kind}.npz") as pictures:
            a, b = image_quality.references(reference["renders"], float(reference["exposure_ev"]))
            each.append(image_quality.compare(crop(pictures["colors"][FRAME]), a, b))
    return {
        "cpu_s": sum(stages.values()),
        "wall_s": float(np.mean([sum(t["wall_s"].values()) for t in times])),
        "stages_cpu_s": stages,
        "quality": asdict(image_quality.mean_quality(each)),
        "quality_each": [asdict(q) for q in each],
    }


def cheapest_as_good(ours: Mapping[str, Mapping[str, Any]], stock: Mapping[str, Any]) -> str | None:
    """Name of our cheapest setting (CPU seconds) whose PSNR and SSIM, debiased or not, reach stock's; None when no setting does."""
    keys = ("psnr_db", "ssim", "ssim_debiased")
    as_good = [name for name, o in ours.items() if all(o["quality"][k] >= stock["quality"][k] for k in keys)]
    return min(as_good, key=lambda name: ours[name]["cpu_s"], default=None)


def _once(folder: Path, module: str, *arguments: object, cores: Sequence[int] = CORES[:1]) -> None:
    """Run a module of this folder with these arguments and its output folder, unless that is complete."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _run(module, folder / "log.txt", *arguments, folder, "--core", *cores)
    (folder / "done").touch()


def _run(module: str, log: Path, *arguments: object) -> None:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    with log.open("w") as stream:
        if subprocess.run(command, cwd=Path(__file__).parents[1], stdout=stream, stderr=stream).returncode:
            raise RuntimeError(f"{module} failed, see {log}")
