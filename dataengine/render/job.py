"""One video: SceneSpec → Blender passes → labels and sensor → Video. Pure but for the renderer it is handed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import camera, se3
from dataengine.record.frame_table import frame_dtype
from dataengine.record.video import Names, Video
from dataengine.render import labels
from dataengine.render.develop import develop
from dataengine.render.measure import infrared_surfaces, measure_depth
from dataengine.render.passes import RawPasses
from dataengine.render.stopwatch import Stopwatch
from dataengine.robot.keypoints import KeypointSet, keypoint_set
from dataengine.robot.kinematics import forward_kinematics, point_positions
from dataengine.robot.meshes import LinkMesh
from dataengine.robot.model import RobotModel
from dataengine.scene.draws import stream
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import RayWorld, build_ray_world, labelled_objects, object_poses

RenderPasses = Callable[[SceneSpec, NDArray[np.float64]], RawPasses]
"""(scene, T_world_link (F,L,4,4)) → passes; in production `BlenderRenderer.render_video`."""


@dataclass(frozen=True, eq=False)
class Robot:
    """A robot ready to be rendered and labelled; built once per worker."""

    model: RobotModel
    meshes: Sequence[LinkMesh]
    keypoints: KeypointSet
    carriers: NDArray[np.bool_]
    """(P,L) links behind whose surface a keypoint may lie: its own and the nearest ones with a mesh up and down the chain."""


def prepare_robot(model: RobotModel, meshes: Sequence[LinkMesh], keypoint_sets: Sequence[str]) -> Robot:
    """Union of the keypoint sets (by name, first wins) and the links that carry each keypoint."""
    sets = [keypoint_set(model, name) for name in keypoint_sets]
    points: dict[str, tuple[int, tuple[float, float, float]]] = {}
    for s in sets:
        for name, link, offset in zip(s.names, s.link_index, s.offset_m, strict=True):
            points.setdefault(name, (int(link), tuple(float(x) for x in offset)))  # type: ignore[arg-type]
    union = KeypointSet(
        names=tuple(points), link_index=np.array([p[0] for p in points.values()]), offset_m=np.array([p[1] for p in points.values()])
    )
    carriers = np.stack([_carriers(model, meshes, int(link)) for link in union.link_index])
    return Robot(model, meshes, union, carriers)


def _carriers(model: RobotModel, meshes: Sequence[LinkMesh], link: int) -> NDArray[np.bool_]:
    meshed = {m.link_index for m in meshes}
    parent = {model.link_index(j.child): model.link_index(j.parent) for j in model.joints}
    found = {link}
    up = parent.get(link)
    while up is not None and up not in meshed:
        up = parent.get(up)
    if up is not None:
        found.add(up)
    down = [c for c, p in parent.items() if p == link]
    while down:
        child = down.pop()
        if child in meshed:
            found.add(child)
        else:
            down += [c for c, p in parent.items() if p == child]
    out = np.zeros(len(model.links), bool)
    out[list(found)] = True
    return out


def world_link_poses(scene: SceneSpec, model: RobotModel) -> NDArray[np.float64]:
    """`T_world_link` (F,L,4,4) by forward kinematics."""
    return np.asarray(scene.robot.T_world_base) @ forward_kinematics(model, np.asarray(scene.robot.joint_position, float))


@dataclass(frozen=True, eq=False)
class Rendered:
    """A labelled video, the ray world its labels come from, and CPU seconds by stage."""

    video: Video
    world: RayWorld
    cpu_s: dict[str, float]


def render_video(scene: SceneSpec, robot: Robot, render_passes: RenderPasses, provenance: dict[str, Any]) -> Rendered:
    """Render and label one video."""
    watch = Stopwatch()
    T_world_link = world_link_poses(scene, robot.model)
    with watch("blender"):
        passes = render_passes(scene, T_world_link)
    watch.cpu_s["blender"] -= sum(passes.cpu_s.values())
    watch.cpu_s.update(passes.cpu_s)
    with watch("rays"):
        world = build_ray_world(scene, robot.meshes, T_world_link)
    surfaces = infrared_surfaces(scene, robot.meshes)
    images: dict[str, list[NDArray]] = {name: [] for name in scene.modalities}
    rows = np.zeros(
        scene.frames, frame_dtype(robot.model.dof, len(robot.model.links), len(robot.keypoints.names), len(labelled_objects(scene)))
    )
    for f in range(scene.frames):
        for name, image in _frame(scene, robot, world, surfaces, passes, T_world_link[f], f, rows[f], watch).items():
            images[name].append(image)
    video = Video(
        source="rendered", names=_names(scene, robot), images={n: np.stack(a) for n, a in images.items() if a}, frames=rows,
        scene=scene.model_dump(mode="json"), provenance=provenance,
    )  # fmt: skip
    return Rendered(video.check(), world, dict(watch.cpu_s))


def _frame(
    scene: SceneSpec, robot: Robot, world: RayWorld, surfaces: list, passes: RawPasses, T_world_link: NDArray, f: int,
    row: np.void, watch: Stopwatch,
) -> dict[str, NDArray]:  # fmt: skip
    c, size = scene.camera, (scene.camera.height, scene.camera.width)
    K = camera.intrinsics(c.fx_px, c.fy_px, c.cx_px, c.cy_px)
    T_world_cam = np.asarray(c.T_world_cam[f if len(c.T_world_cam) > 1 else 0], float)
    T_cam_world = se3.inverse(T_world_cam)
    objects = labelled_objects(scene)
    wanted = set(scene.modalities)
    out: dict[str, NDArray] = {}
    with watch("rays"):
        world.posed(f)
    with watch("sensor"):
        if wanted & {"ir_left", "ir_right", "depth_sim"}:
            pair = None if passes.ir_left is None or passes.ir_right is None else (passes.ir_left[f], passes.ir_right[f])
            rng = stream(scene.seed, scene.video, f"sensor/{f}")
            m = measure_depth(scene, world, f, surfaces, T_world_cam, passes.depth_z_m[f], passes.normal_cam[f], pair, rng)
            out |= {k: v for k, v in {"ir_left": m.ir_left, "ir_right": m.ir_right, "depth_sim": m.depth_sim}.items() if v is not None}
    with watch("labels"):
        T_cam_object = T_cam_world @ np.array([object_poses(o, scene.frames)[f] for o in objects]).reshape(-1, 4, 4)
        alone = labels.silhouettes(world, f, len(robot.model.links), len(objects), K, T_world_cam, size)
        out["mask_link"], out["mask_object"] = passes.link_id[f], passes.object_id[f]
        out["amodal_robot"], out["amodal_objects"] = alone.robot, alone.object_bits
        out["depth_z"] = labels.quantise_depth(passes.depth_z_m[f])
        out["normals"] = np.rint(passes.normal_cam[f] * 127).astype(np.int8)
        if "nocs" in wanted:
            extents = np.array([o.size_m for o in objects]).reshape(-1, 3)
            out["nocs"] = labels.object_coordinates(out["depth_z"], out["mask_object"], K, T_cam_object, extents)
        points = point_positions(T_world_link, robot.keypoints.link_index, robot.keypoints.offset_m)
        carriers = robot.carriers[:, np.maximum(world.link_of_mesh, 0)] & (world.link_of_mesh >= 0)
        kp = labels.keypoints(world, f, points, carriers, K, T_world_cam, size)
        row["link_visibility"] = labels.visible_share(out["mask_link"], 1, alone.links)
        row["object_visibility"] = labels.visible_share(out["mask_object"], 1, alone.objects)
    with watch("develop"):
        if "rgb" in wanted:
            out["rgb"] = develop(passes.rgb_linear[f], scene.image, stream(scene.seed, scene.video, f"image_noise/{f}"))
    row["timestamp_s"], row["K"], row["T_world_cam"] = scene.timestamp_s[f], K, T_world_cam
    row["T_cam_base"] = T_cam_world @ np.asarray(scene.robot.T_world_base)
    row["joint_position"], row["joint_velocity"] = scene.robot.joint_position[f], scene.robot.joint_velocity[f]
    row["T_cam_link"], row["T_cam_object"] = T_cam_world @ T_world_link, T_cam_object
    row["keypoints_cam_m"], row["keypoints_px"] = kp.cam_m, kp.px
    row["keypoint_state"], row["keypoint_visibility"] = kp.state, kp.visibility
    row["accepted"] = 1
    return {k: v for k, v in out.items() if k in wanted}


def _names(scene: SceneSpec, robot: Robot) -> Names:
    k = robot.keypoints
    return Names(
        joints=tuple(scene.robot.joint_names),
        links=tuple(robot.model.links),
        keypoints=tuple(k.names),
        keypoint_links=tuple(int(i) for i in k.link_index),
        keypoint_offsets_m=tuple((float(a), float(b), float(c)) for a, b, c in k.offset_m),
        objects=tuple(o.name for o in labelled_objects(scene)),
    )
