"""This project's pipeline on given scenes in a process of its own, and the converged references that both pipelines are judged by.

`python -m benchmarks.our_pipeline ours SCENE.json OUT_DIR … --core 0` runs scenes exactly as a render worker does (scene in, committed and
validated shard out) and writes OUT_DIR/ours.npz (the stored colour pictures) and OUT_DIR/ours.json (seconds per frame).
`python -m benchmarks.our_pipeline reference SCENE.json OUT_DIR` writes OUT_DIR/reference.npz.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry.camera import crop_intrinsics

REFERENCE_SAMPLES = 128
"""Per render; four renders make a reference of 512."""
CROP = (0.25, 0.75)
"""Part of width and of height, centred, that references are rendered for and pictures compared in."""


def run_worker(jobs: Sequence[tuple[Path, Path]]) -> None:
    """Render, label, check and commit scenes through the worker's own code path: set up once, then one fork per scene.

    jobs: (scene file, output folder). RuntimeError when a fork fails.
    """
    from dataengine import worker
    from dataengine.config.spec import DatasetSpec
    from dataengine.scene.spec import SceneSpec

    first = SceneSpec.model_validate_json(jobs[0][0].read_text())
    # what the worker needs of a preset besides the scenes: robot and keypoints
    spec = DatasetSpec.model_validate({"robot": {"name": first.robot.name, "keypoints": first.keypoint_sets}})
    handle = worker.setup({"spec": spec.model_dump_json()})
    while not callable(handle):
        handle = worker.setup({"spec": spec.model_dump_json()})
    for scene_file, out in jobs:
        out.mkdir(parents=True, exist_ok=True)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _run_scene(handle, spec, scene_file, out)
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)  # Blender must not clean up what it shares with the parent
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f"{scene_file} failed, see above")
        (out / "done").touch()


def _run_scene(handle: Any, spec: Any, scene_file: Path, out: Path) -> None:
    from dataengine.scene.spec import SceneSpec
    from dataengine.store.dataset import open_dataset, open_or_create

    scene = SceneSpec.model_validate_json(scene_file.read_text())
    identity = spec.model_dump(mode="json", exclude={"videos", "limits"})
    shutil.rmtree(out / "dataset", ignore_errors=True)
    open_or_create(out / "dataset", identity, spec.digest(), spec.name, planned=1)
    cpu, wall = time.process_time(), time.perf_counter()
    receipt = handle({"video": scene.video, "dataset": str(out / "dataset"), "scene": scene.model_dump(mode="json")})
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    stages = {name: seconds / scene.frames for name, seconds in receipt["cpu_s"].items()}
    stages["other"] = cpu / scene.frames - sum(stages.values())
    np.savez(out / "ours.npz", colors=open_dataset(out / "dataset").reader(scene.video).video(("rgb",)).images["rgb"])
    (out / "ours.json").write_text(
        json.dumps({"cpu_s": stages, "wall_s": {"all": wall / scene.frames}, "bytes": receipt["bytes"] / scene.frames})
    )


def run_reference(scene_file: Path, out: Path, frame: int, samples: int, caustics: bool) -> None:
    """Four independent undenoised renders (4,h,w,3) of the crop of one frame.

    Light transport is stock's: same bounces, reflective and refractive caustics. What differs lowers noise alone: light tree, fine
    importance map of the surroundings.
    """
    from dataengine.render.blender import settings
    from dataengine.render.blender.adapter import bpy
    from dataengine.render.blender.capture import render_frame
    from dataengine.render.blender.renderer import BlenderRenderer
    from dataengine.render.blender.surroundings import camera_K, set_intrinsics
    from dataengine.render.blender.video_scene import VideoScene
    from dataengine.render.job import world_link_poses
    from dataengine.robot.catalogue import load_robot
    from dataengine.robot.meshes import load_link_meshes
    from dataengine.scene.spec import SceneSpec

    spec = SceneSpec.model_validate_json(scene_file.read_text())
    robot = load_robot(spec.robot.name)
    meshes = load_link_meshes(robot)
    renderer = BlenderRenderer(robot, meshes)
    scene = bpy.context.scene
    settings.apply_video_settings(scene, spec)
    video = VideoScene(spec, robot, meshes, renderer.links, world_link_poses(spec, robot))
    video.move_to(frame)
    scene.cycles.use_denoising, scene.cycles.samples, scene.cycles.use_light_tree = False, samples, True
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = caustics
    scene.world.cycles.sample_map_resolution = 1024
    scene.world.update_tag()
    view = spec.camera
    left, top, width, height = crop_window(view.width, view.height)
    set_intrinsics(crop_intrinsics(camera_K(view), left, top), width, height)
    renders = []
    for seed in range(4):
        scene.cycles.seed = 77_000 + seed
        scene.update_tag()  # or Cycles keeps the seed of the first render
        renders.append(render_frame(("Combined",))["Combined"][..., :3])
    np.savez(out / "reference.npz", renders=np.stack(renders), exposure_ev=spec.image.exposure_ev)


def crop_window(width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the centred part that references cover, in px."""
    left, top = round(CROP[0] * width), round(CROP[0] * height)
    return left, top, round(CROP[1] * width) - left, round(CROP[1] * height) - top


def crop(image: NDArray) -> NDArray:
    """The part of (…,H,W,C) that references cover."""
    left, top, width, height = crop_window(image.shape[-2], image.shape[-3])
    return image[..., top : top + height, left : left + width, :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("ours", "reference"))
    parser.add_argument("jobs", type=Path, nargs="+", metavar="SCENE OUT_DIR")
    parser.add_argument("--core", type=int, nargs="+", default=[0])
    parser.add_argument("--frame", type=int, default=1)
    parser.add_argument("--samples", type=int, default=REFERENCE_SAMPLES)
    parser.add_argument("--caustics", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    os.sched_setaffinity(0, args.core)
    jobs = list(zip(args.jobs[::2], args.jobs[1::2], strict=True))
    if args.task == "ours":
        run_worker(jobs)
        return
    ((scene, out),) = jobs
    out.mkdir(parents=True, exist_ok=True)
    run_reference(scene, out, args.frame, args.samples, args.caustics)


if __name__ == "__main__":
    main()
