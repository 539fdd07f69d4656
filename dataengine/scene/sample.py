"""(DatasetSpec, video) → SceneSpec: every decision of one video, drawn from its own random stream."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataengine.config.spec import DatasetSpec
from dataengine.errors import RobotError
from dataengine.geometry import se3
from dataengine.geometry.camera import intrinsics, project
from dataengine.robot.model import RobotModel
from dataengine.robot.motion import Motion, sample_motion
from dataengine.scene.camera import Path, camera_matrix, place_camera
from dataengine.scene.draws import Draws, stream
from dataengine.scene.materials import draw_link_tints, draw_material
from dataengine.scene.placement import Placed, TableTop, move_one, place_distractor, place_occluder
from dataengine.scene.robot_sweep import collision_of, sweep
from dataengine.scene.spec import Camera, DepthSensor, ImageEffects, Matrix4, RobotState, SceneObject, SceneSpec
from dataengine.scene.surroundings import automatic_exposure_ev, draw_environment, draw_lights, draw_room, draw_table, matrix4, white_under

Array = NDArray[np.float64]
Split = Literal["train", "val", "test"]


def sample_scene(spec: DatasetSpec, video: int, robot: RobotModel) -> SceneSpec:
    """The scene of one video; equal arguments give equal scenes.

    World frame: z up, the table top is z = 0, the robot's base stands on the origin. Raises SceneError when no camera
    sees the robot, RobotError when it finds no free motion, AssetError for a broken mesh file.
    """
    draws = Draws(spec.seed, video)
    times_s = np.arange(spec.frames) / spec.fps
    yaw = float(np.radians(draws.real("robot.base_yaw_deg", spec.robot.base_yaw_deg)))
    T_world_base = se3.make(se3.rotation_from_axis_angle((0.0, 0.0, 1.0), yaw), np.zeros(3))
    motion = _draw_motion(spec, draws, robot)
    state = _robot_state(spec, draws, robot, motion, T_world_base)
    swept = sweep(robot, spec.robot.keypoints, motion.q, T_world_base)
    path, rejected = place_camera(spec.camera, draws, swept, yaw, times_s)
    image, camera = _image_and_camera(spec, draws, path, times_s)
    table = draw_table(spec.surroundings, draws)
    top = TableTop(table, swept, np.asarray(camera.T_world_cam)[:, :3, 3])
    things = _things(spec, draws, top, camera)
    environment = draw_environment(spec.surroundings, draws)
    lights = draw_lights(spec.surroundings, draws, swept.middle_m)
    spots = [*top.eyes_m, *(light.position_m for light in lights)]
    reach = max(table.reach_m, *(float(np.hypot(p[0], p[1])) for p in spots))
    room = draw_room(spec.surroundings, draws, environment.kind == "room", table.floor_z_m, reach)
    automatic = automatic_exposure_ev(white_under(environment), lights, swept.middle_m, top.eyes_m[0])
    image = image.model_copy(update={"exposure_ev": image.exposure_ev + automatic})
    draws.note("image.automatic_exposure_ev", "from lamps and surroundings", automatic)
    depth_sensor = _depth_sensor(spec, draws)
    samples, denoiser, prefilter = spec.render.resolved()
    counts = {f"robot: {k}": n for k, n in motion.rejections.items()} | {f"camera: {k}": n for k, n in rejected.items()}
    return SceneSpec(
        dataset=spec.name,
        spec_digest=spec.digest(),
        seed=spec.seed,
        video=video,
        split=draw_split(spec, video),
        frames=spec.frames,
        timestamp_s=tuple(times_s.tolist()),
        robot=state,
        keypoint_sets=spec.robot.keypoints,
        camera=camera,
        image=image,
        objects=(*things, table.object, *room),
        lights=lights,
        environment=environment,
        depth_sensor=depth_sensor,
        samples_per_pixel=samples,
        denoise_quality=denoiser,  # type: ignore[arg-type]
        denoise_prefilter=prefilter,  # type: ignore[arg-type]
        max_bounces=spec.render.max_bounces,
        modalities=spec.resolved_modalities(),
        rejections=dict(Counter(counts) + top.rejections),
        draws=draws.record(),
    )


def draw_split(spec: DatasetSpec, video: int) -> Split:
    """`train`, `val` or `test`, by seed and video alone and the shares of the spec."""
    shares = np.array([spec.splits.train, spec.splits.val, spec.splits.test])
    at = stream(spec.seed, video, "split").uniform() * shares.sum()
    names: tuple[Split, ...] = ("train", "val", "test")
    return names[min(int(np.searchsorted(np.cumsum(shares), at, side="right")), 2)]


def _draw_motion(spec: DatasetSpec, draws: Draws, robot: RobotModel) -> Motion:
    speed = draws.real("robot.speed", spec.robot.speed)
    try:
        motion = sample_motion(
            collision_of(robot),
            draws.rng("robot.motion"),
            spec.frames,
            1 / spec.fps,
            floor_z_m=spec.robot.floor_clearance_m,
            limits_fraction=spec.robot.joint_range,
            speed_fraction=min(speed, 1.0),
        )
    except RobotError as error:
        raise RobotError(f"video {draws.video}: {error}") from None
    draws.note("robot.motion", "uniform in the joint range, free of collisions; first frame", motion.q[0].tolist())
    return motion


def _robot_state(spec: DatasetSpec, draws: Draws, robot: RobotModel, motion: Motion, T_world_base: Array) -> RobotState:
    return RobotState(
        name=spec.robot.name,
        urdf_sha256=robot.urdf_sha,
        T_world_base=matrix4(T_world_base),
        joint_names=robot.actuated,
        joint_position=tuple(tuple(row) for row in motion.q.tolist()),
        joint_velocity=tuple(tuple(row) for row in motion.qd.tolist()),
        link_tints=draw_link_tints(draws, spec.robot.material, len(robot.links)),
    )


def _image_and_camera(spec: DatasetSpec, draws: Draws, path: Path, times_s: Array) -> tuple[ImageEffects, Camera]:
    K = camera_matrix(spec.camera)
    shutter = draws.real("image.motion_blur", spec.image.motion_blur)
    end = path(times_s + shutter / spec.fps / 2) if shutter > 0 else None
    image = ImageEffects(
        exposure_ev=draws.real("image.exposure_ev", spec.image.exposure_ev),
        view_transform=spec.image.view_transform,
        noise=draws.real("image.noise", spec.image.noise),
        shot_noise=draws.real("image.shot_noise", spec.image.shot_noise),
        motion_blur=shutter,
    )
    camera = Camera(
        width=spec.camera.width,
        height=spec.camera.height,
        fx_px=float(K[0, 0]),
        fy_px=float(K[1, 1]),
        cx_px=float(K[0, 2]),
        cy_px=float(K[1, 2]),
        T_world_cam=_poses(path(times_s)),
        T_world_cam_end=None if end is None else _poses(end),
    )
    return image, camera


def _poses(T: Array) -> tuple[Matrix4, ...]:
    return tuple(matrix4(pose) for pose in T)


def _things(spec: DatasetSpec, draws: Draws, top: TableTop, camera: Camera) -> tuple[SceneObject, ...]:
    """Occluders first: then a distractor more or less cannot disturb them."""
    d = spec.distractors
    for k in range(draws.whole("occluders.count", d.occluders)):
        place_occluder(top, draws, f"occluder.{k}", d)
    for k in range(draws.whole("distractors.count", d.count)):
        place_distractor(top, draws, f"distractor.{k}", d)
    objects = [_object(draws, placed, index + 1, d.materials) for index, placed in enumerate(top.placed)]
    moved = None
    if d.moved_m != 0:
        moved = move_one(top, draws, draws.real("distractors.moved_m", d.moved_m), lambda point: _looked_at(camera, point))
    if moved is not None:
        index, after = moved
        frames = len(top.eyes_m)
        poses = [objects[index].T_world_object[0]] * (frames // 2) + [matrix4(after)] * (frames - frames // 2)
        objects[index] = objects[index].model_copy(update={"T_world_object": tuple(poses)})
    return tuple(objects)


def _looked_at(camera: Camera, point_m: Array) -> bool:
    """Whether the point is in the middle nine tenths of the image in at least three of four frames."""
    K = intrinsics(camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px)
    uv = project(K, se3.transform(se3.inverse(np.asarray(camera.T_world_cam)), point_m[None])[:, 0])
    margin = 0.05 * np.array([camera.width, camera.height])
    with np.errstate(invalid="ignore"):
        inside = ((uv > margin) & (uv < (camera.width, camera.height) - margin)).all(-1)
    return bool(inside.mean() >= 0.75)


def _object(draws: Draws, placed: Placed, instance_id: int, materials: tuple[str, ...]) -> SceneObject:
    thing = placed.thing
    return SceneObject(
        instance_id=instance_id,
        name=f"{placed.key}.{thing.category}",
        category=thing.category,
        shape=thing.shape,
        parameters=thing.parameters,
        mesh_path=thing.mesh_path,
        mesh_sha256=thing.mesh_sha256,
        size_m=thing.size_m,
        T_world_object=(matrix4(placed.T_world_object),),
        material=draw_material(draws, f"{placed.key}.material", materials, thing.shape),
        role=placed.role,  # type: ignore[arg-type]
    )


def _depth_sensor(spec: DatasetSpec, draws: Draws) -> DepthSensor:
    s = spec.depth_sensor
    return DepthSensor(
        model=s.model,
        ir=s.ir,
        baseline_m=s.baseline_m,
        projector_x_m=s.projector_x_m,
        native_scale=s.native_scale,
        ir_samples=s.ir_samples,
        speckle=draws.real("depth_sensor.speckle", s.speckle),
        ambient=draws.real("depth_sensor.ambient", s.ambient),
        max_depth_m=s.max_depth_m,
    )
