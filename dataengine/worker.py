"""What a render worker's zygote runs: set up Blender and the robot once, then one video per fork, committed by itself.

The composition root of the worker side: it alone knows renderer, sensor, validator and store together.
"""

import hashlib
import importlib.metadata
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataengine import __version__
from dataengine.config.spec import DatasetSpec
from dataengine.errors import LabelError, RobotError
from dataengine.quality.validate import Validation, validate_video
from dataengine.record.video import Video
from dataengine.render.job import RenderPasses, Robot, prepare_robot, render_video
from dataengine.robot.catalogue import load_robot
from dataengine.robot.meshes import load_link_meshes, mesh_digest
from dataengine.scene.sample import sample_scene
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import link_triangles
from dataengine.sensor.warm import warm_up
from dataengine.store.dataset import open_dataset

if TYPE_CHECKING:
    from dataengine.render.zygote_child import FreshStart

VERSIONED = ("bpy", "blenderproc", "numpy", "opencv-python-headless", "embreex", "numba")
"""Packages whose version can change pixels; they go into every record."""


def load_ready_robot(spec: DatasetSpec) -> Robot:
    """Robot, baked meshes and keypoints of a spec. Raises RobotError."""
    model = load_robot(spec.robot.name)
    if model.dof == 0:
        raise RobotError(f"robot {model.name} has no moving joint; give a robot that can move")
    return prepare_robot(model, load_link_meshes(model), spec.robot.keypoints)


def setup(payload: dict[str, Any]) -> "Callable[[dict[str, Any]], dict[str, Any]] | FreshStart":
    """payload: `spec` (JSON of the DatasetSpec). The handler takes {video, dataset} and returns the receipt.

    With `scene` (JSON of a SceneSpec) in the request, that scene is rendered instead of a sampled one.
    """
    from dataengine.render.blender.renderer import BlenderRenderer
    from dataengine.render.blender.threads import stop_exr_threads
    from dataengine.render.zygote_child import FreshStart, address_randomised

    spec = DatasetSpec.model_validate_json(payload["spec"])
    robot = load_ready_robot(spec)
    renderer = BlenderRenderer(robot.model, robot.meshes)
    stop_exr_threads()
    for mesh in robot.meshes:
        link_triangles(mesh).bvh.first_hit((0.0, 0.0, 0.0), ((0.0, 0.0, 1.0),))  # builds what every fork then shares
    if warm_up():
        return FreshStart()
    reproducible = not address_randomised()
    return make_handler(spec, robot, renderer.render_video, provenance(robot, bitwise_colour=reproducible))


def make_handler(
    spec: DatasetSpec, robot: Robot, render_passes: RenderPasses, facts: dict[str, Any]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a worker does with a request: sample, render, label, check, commit; `facts`: `provenance`."""

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        given = request.get("scene")
        scene = SceneSpec.model_validate(given) if given else sample_scene(spec, request["video"], robot.model)
        rendered = render_video(scene, robot, render_passes, with_assets(facts, scene))
        start = time.process_time()
        verdict = validate_video(rendered.video, robot.model, robot.meshes, rendered.world)
        checked = time.process_time()
        cpu_s = rendered.cpu_s | {"checks": checked - start}
        receipt = _commit(Path(request["dataset"]), scene, rendered.video, verdict, cpu_s, facts["bitwise_colour"])
        receipt["cpu_s"]["commit"] = time.process_time() - checked  # not in the record, which is written before this is known
        return receipt

    return handle


def _commit(
    folder: Path, scene: SceneSpec, video: Video, verdict: Validation, cpu_s: dict[str, float], reproducible: bool
) -> dict[str, Any]:
    if verdict.violations:
        first = "; ".join(str(v) for v in verdict.violations[:3])
        raise LabelError(f"video {scene.video}: {verdict.verdict()}: {first}")
    stats = {"cpu_s": cpu_s, "checks": verdict.checks, "rejections": dict(scene.rejections)}
    record = open_dataset(folder).add(scene.video, video, scene.split, stats, reproducible)
    return {"video": scene.video, "digest": record.digest, "bytes": record.bytes, "frames": record.frames} | stats


def provenance(robot: Robot, bitwise_colour: bool) -> dict[str, Any]:
    """Versions and asset hashes that a record needs to be rendered again."""
    return {
        "dataengine": __version__,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        "robot": {"name": robot.model.name, "urdf_sha256": robot.model.urdf_sha, "meshes_sha256": mesh_digest(robot.model)},
        "bitwise_colour": bitwise_colour,
    }


def with_assets(facts: dict[str, Any], scene: SceneSpec) -> dict[str, Any]:
    """Add the hashes of the files that this scene uses."""
    from dataengine.render.blender.assets import environment_path

    files = {o.mesh_path: o.mesh_sha256 for o in scene.objects if o.mesh_path}
    files |= {o.material.texture: o.material.texture_sha256 for o in scene.objects if o.material.texture}
    if scene.environment.kind == "hdri":
        files[scene.environment.name] = hashlib.sha256(environment_path(scene.environment.name).read_bytes()).hexdigest()
    return facts | {"assets": files}
