"""The stock BlenderProc 2.8.0 pipeline for the modalities that this project renders, on the very same Blender scene.

The scene is built by our builder, so geometry, materials and lights are identical; from there on everything is what a BlenderProc user
calls: `enable_depth_output`, `enable_normals_output`, `enable_segmentation_output`, `set_denoiser("INTEL")`, `renderer.render()`; for
the infrared pair a projector light and a second, stereo `render()`; `stereo_global_matching`; `write_hdf5`. Settings are BlenderProc's
defaults but for the view transform and the bounces (ours, so that pictures can be compared) and the samples. Choices in its favour:
the infrared render is not denoised, its world is a plain grey, and `disparity_filter` is off (it needs OpenCV's contrib modules).

Runs in a process of its own: `python benchmarks/stock_blenderproc.py SCENE.json OUT_DIR --rgb-samples 16 --ir-samples 4 --core 0`
writes OUT_DIR/stock.npz (pictures) and OUT_DIR/stock.json (CPU and wall seconds per frame by stage).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOTS = 8_000
"""Projected dots in the image: at 640 × 360 more of them overlap."""
IR_AMBIENT = 0.05
PROJECTOR_W = 300.0


def import_blenderproc(temporary: Path) -> Any:
    """Import the whole of BlenderProc beside the bpy wheel, without its pip installs; `temporary` takes its image files.

    Its start-up removes one entry of `sys.path` and installs packages: both are kept from happening.
    """
    os.environ["INSIDE_OF_THE_INTERNAL_BLENDER_PYTHON_ENVIRONMENT"] = "1"
    importlib.import_module("bpy")
    spec = importlib.util.find_spec("blenderproc")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("blenderproc is not installed; install the `render` extra")
    bare = types.ModuleType("blenderproc")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["blenderproc"] = bare
    setup = importlib.import_module("blenderproc.python.utility.SetupUtility").SetupUtility
    setup.setup = staticmethod(lambda *args, **kwargs: [])
    del sys.modules["blenderproc"]
    path = list(sys.path)
    sys.path.insert(0, str(Path(bare.__path__[0]).parent))
    bproc = importlib.import_module("blenderproc")
    sys.path[:] = path
    importlib.import_module("blenderproc.python.utility.Utility").Utility.temp_dir = str(temporary)
    return bproc


class Clock:
    """CPU and wall seconds by stage."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self.wall_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - cpu
        self.wall_s[name] = self.wall_s.get(name, 0.0) + time.perf_counter() - wall


def stock_defaults(bproc: Any, scene: Any, exposure_ev: float) -> None:
    """What `bproc.init()` sets, minus its clean-up and its language setting (which fails in module mode); Standard, bounces 3/3/3."""
    renderer = importlib.import_module("blenderproc.python.renderer.RendererUtility")
    initializer = importlib.import_module("blenderproc.python.utility.Initializer")._Initializer
    world = scene.world
    scene.world = importlib.import_module("bpy").data.worlds.new("unused")  # the defaults would paint our world grey
    initializer.set_default_parameters()
    scene.world = world
    renderer.set_render_devices(use_only_cpu=True)
    renderer.set_light_bounces(diffuse_bounces=3, glossy_bounces=3, ao_bounces_render=0, max_bounces=3, transmission_bounces=3)
    renderer.set_output_format(view_transform="Standard")
    scene.view_settings.exposure = exposure_ev
    scene.render.use_compositing = True
    # Blender's own defaults, which our base settings change
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = True
    world.cycles.sampling_method = "AUTOMATIC"
    world.update_tag()


def animate(bproc: Any, video: Any, frames: int) -> None:
    """Key the camera and everything that moves, as a BlenderProc user does; `render()` then goes through the frames."""
    moving = [*video.links, *(target for target, _ in video.moving)]
    for frame in range(frames):
        video.move_to(frame)
        bproc.camera.add_camera_pose(video.camera_poses[frame], frame=frame)
        for target in moving:
            for channel in ("location", f"rotation_{'quaternion' if target.rotation_mode == 'QUATERNION' else 'euler'}", "scale"):
                target.keyframe_insert(channel, frame=frame)


def render_colour(bproc: Any, samples: int) -> dict[str, Any]:
    """One `render()` of all frames: colours, depth, normals, segmentation by instance and name; INTEL denoiser."""
    bproc.renderer.enable_depth_output(activate_antialiasing=False)
    bproc.renderer.enable_normals_output()
    bproc.renderer.enable_segmentation_output(map_by=["instance", "name"])
    bproc.renderer.set_max_amount_of_samples(samples)
    bproc.renderer.set_denoiser("INTEL")
    return bproc.renderer.render()


def render_infrared(bproc: Any, scene: Any, lamps: list[Any], samples: int, baseline_m: float, size: tuple[int, int]) -> list[NDArray]:
    """The stereo pair (2,H,W,3) of all frames under a dot projector, in a second `render()`."""
    pattern = importlib.import_module("blenderproc.python.utility.PatternUtility").generate_random_pattern_img(*size, DOTS)
    bproc.renderer.set_world_background([IR_AMBIENT] * 3)
    for lamp in lamps:
        lamp.hide_render = True
    bproc.renderer.set_max_amount_of_samples(samples)
    bproc.renderer.set_denoiser(None)
    bproc.renderer.toggle_stereo(True)
    bproc.camera.set_stereo_parameters(convergence_mode="PARALLEL", convergence_distance=1e-5, interocular_distance=baseline_m)
    projector = bproc.types.Light("SPOT", name="projector")
    projector.setup_as_projector(pattern)
    projector.set_energy(PROJECTOR_W)
    return bproc.renderer.render(output_key="ir", file_prefix="ir_", load_keys={"ir"})["ir"]


def run(scene_file: Path, rgb_samples: int, ir_samples: int, temporary: Path) -> tuple[dict[str, NDArray], Clock]:
    """Render one SceneSpec; returns (arrays, clock). Stages: build, rgb, ir, match, write; start-up of the process is not counted."""
    bproc = import_blenderproc(temporary)
    bpy = importlib.import_module("bpy")
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
    ours = BlenderRenderer(robot, meshes)
    scene, clock, view = bpy.context.scene, Clock(), spec.camera
    importlib.import_module("blenderproc.python.utility.Utility").reset_keyframes()
    with clock.stage("build"):
        video = VideoScene(spec, robot, meshes, ours.links, world_link_poses(spec, robot))
        stock_defaults(bproc, scene, spec.image.exposure_ev)
        set_intrinsics(camera_K(view), view.width, view.height)
        animate(bproc, video, spec.frames)
    with clock.stage("rgb"):
        data = render_colour(bproc, rgb_samples)
    with clock.stage("ir"):
        data["ir"] = render_infrared(bproc, scene, video.lamps, ir_samples, spec.depth_sensor.baseline_m, (view.width, view.height))
    with clock.stage("match"), np.errstate(divide="ignore"):
        data["depth_sim"], _ = bproc.postprocessing.stereo_global_matching(
            data["ir"], depth_max=10.0, num_disparities=64, disparity_filter=False
        )
        bproc.renderer.toggle_stereo(False)
    with clock.stage("write"):
        bproc.writer.write_hdf5(str(temporary / "hdf5"), data)
    names = ("colors", "depth", "normals", "instance_segmaps", "ir", "depth_sim")
    return {name: np.stack(data[name]) for name in names}, clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rgb-samples", type=int, default=16)
    parser.add_argument("--ir-samples", type=int, default=4)
    parser.add_argument("--core", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    os.sched_setaffinity(0, args.core)
    shared = Path("/dev/shm")  # where BlenderProc keeps its files by default
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as temporary:
        arrays, clock = run(args.scene, args.rgb_samples, args.ir_samples, Path(temporary))
    frames = len(arrays["colors"])
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez(args.out / "stock.npz", **arrays)
    per_frame = {kind: {k: v / frames for k, v in times.items()} for kind, times in (("cpu_s", clock.cpu_s), ("wall_s", clock.wall_s))}
    (args.out / "stock.json").write_text(json.dumps(per_frame))


if __name__ == "__main__":
    main()
