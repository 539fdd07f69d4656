"""SceneSpec → raw passes with Cycles: the one entry point of this package.

Made for a process that is forked per video: the constructor does all that videos share and starts no render (so there are no
threads yet); `render_video` builds the video's scene, renders its frames and takes the scene out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RenderError
from dataengine.render.blender.adapter import bpy, empty_scene
from dataengine.render.blender.capture import Passes, render_frame
from dataengine.render.blender.clip_denoise import denoise_clip
from dataengine.render.blender.denoise import Denoiser
from dataengine.render.blender.infrared import infrared_scene
from dataengine.render.blender.settings import COLOR_PASSES, LABEL_PASSES, apply_base_settings, apply_video_settings, frame_seed
from dataengine.render.blender.surroundings import preload_environments
from dataengine.render.blender.video_scene import OBJECT_INDEX, VideoScene, add_robot
from dataengine.render.measure import infrared_surfaces, rig_of
from dataengine.render.passes import RawPasses
from dataengine.render.stopwatch import Stopwatch
from dataengine.robot.meshes import LinkMesh
from dataengine.robot.model import RobotModel
from dataengine.scene.spec import SceneSpec
from dataengine.sensor.ir import IrNoise

NO_SURFACE_M = 1e9
"""Cycles writes 1e10 as depth where a ray leaves the scene."""


class BlenderRenderer:
    """Renders videos of one robot. One per process: Blender's scene is global."""

    def __init__(self, robot: RobotModel, link_meshes: Sequence[LinkMesh]) -> None:
        self.robot, self.link_meshes = robot, tuple(link_meshes)
        apply_base_settings(empty_scene())
        preload_environments()
        self.links = add_robot(self.link_meshes)

    def render_video(self, scene: SceneSpec, T_world_link: NDArray[np.float64]) -> RawPasses:
        """Render all frames; T_world_link (F,L,4,4) poses of all links. RenderError or AssetError when it cannot be done."""
        expected = (scene.frames, len(self.robot.links), 4, 4)
        if T_world_link.shape != expected:
            raise RenderError(f"T_world_link has shape {T_world_link.shape}, expected {expected}: a pose per frame and link")
        watch = Stopwatch()
        with watch("build"):
            apply_video_settings(bpy.context.scene, scene)
            video = VideoScene(scene, self.robot, self.link_meshes, self.links, T_world_link)
        try:
            frames = [self._render_one(video, frame, watch) for frame in range(scene.frames)]
            eyes = self._render_infrared(video, watch) if scene.depth_sensor.ir == "cycles" else None
        finally:
            video.close()
        with watch("denoise"), Denoiser() as denoiser:
            still = scene.image.motion_blur <= 0 and bool((video.camera_poses == video.camera_poses[0]).all())
            colors = denoise_clip(frames, still, scene.denoise_quality, scene.denoise_prefilter, denoiser)
        with watch("passes"):
            return assemble(frames, colors, np.asarray(video.camera_poses), eyes, watch)

    def _render_one(self, video: VideoScene, frame: int, watch: Stopwatch) -> Passes:
        scene = bpy.context.scene
        scene.cycles.seed = frame_seed(video.spec, frame, "rgb")
        with watch("build"):
            video.move_to(frame)
        if video.spec.image.motion_blur <= 0:
            with watch("cycles"):
                return render_frame(LABEL_PASSES + COLOR_PASSES)
        with watch("cycles"), _labels_only(scene):
            labels = render_frame(LABEL_PASSES)
        with watch("build"):
            video.blur_around(frame)
        scene.render.use_motion_blur = True
        try:
            with watch("cycles"):
                return labels | render_frame(COLOR_PASSES)
        finally:
            scene.render.use_motion_blur = False
            video.stop_motion()

    def _render_infrared(self, video: VideoScene, watch: Stopwatch) -> list[tuple[NDArray, NDArray]]:
        """Native (left, right) pair of every frame."""
        spec, sensor = video.spec, video.spec.depth_sensor
        noise = IrNoise(speckle=sensor.speckle, ambient=sensor.ambient)
        targets = [*self.links, *video.objects]
        surfaces = infrared_surfaces(spec, self.link_meshes)
        pairs = []
        with watch("infrared"), infrared_scene(spec, rig_of(spec), noise, targets, surfaces, video.lamps) as infrared:
            for frame in range(spec.frames):
                video.move_to(frame)
                rng = np.random.default_rng(frame_seed(spec, frame, "ir noise"))
                pairs.append(infrared.render_eyes(frame, video.camera_poses[frame], rng))
        return pairs


@contextmanager
def _labels_only(scene: Any) -> Iterator[None]:
    """One sample. With motion blur every sample has its own time, so the labels need a render of their own."""
    samples = scene.cycles.samples
    scene.cycles.samples = 1
    try:
        yield
    finally:
        scene.cycles.samples = samples


def assemble(
    frames: Sequence[Passes],
    colors: Sequence[NDArray[np.float32]],
    T_world_blender_camera: NDArray[np.float64],
    eyes: Sequence[tuple[NDArray, NDArray]] | None,
    watch: Stopwatch,
) -> RawPasses:
    """Cycles' passes and the denoised colours of all frames → RawPasses."""
    index = np.stack([f["IndexOB"][..., 0] for f in frames])
    link_id, object_id = split_index(index)
    depth = np.stack([f["Depth"][..., 0] for f in frames])
    hit = depth < NO_SURFACE_M
    normals = [camera_normals(f["Normal"], T) for f, T in zip(frames, T_world_blender_camera, strict=True)]
    return RawPasses(
        rgb_linear=np.stack(colors),
        depth_z_m=np.where(hit, depth, np.float32(0)),
        normal_cam=np.where(hit[..., None], np.stack(normals), np.float32(0)),
        link_id=link_id,
        object_id=object_id,
        ir_left=np.stack([left for left, _ in eyes]) if eyes else None,
        ir_right=np.stack([right for _, right in eyes]) if eyes else None,
        cpu_s=dict(watch.cpu_s),
    )


def split_index(index: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cycles' object index → (link_id, object_id)."""
    whole = np.rint(index).astype(np.int32)
    is_object = whole >= OBJECT_INDEX
    return np.where(is_object, 0, whole).astype(np.uint8), np.where(is_object, whole - OBJECT_INDEX, 0).astype(np.uint8)


def camera_normals(normal_world: NDArray[np.float32], T_world_blender_camera: NDArray[np.float64]) -> NDArray[np.float32]:
    """World normals (H,W,3) → unit normals in the OpenCV camera frame; zero stays zero."""
    R_cam_world = (T_world_blender_camera[:3, :3] * [1.0, -1.0, -1.0]).T  # Blender's camera looks along −z with y up
    n = normal_world @ R_cam_world.T.astype(np.float32)
    length = np.linalg.norm(n, axis=-1, keepdims=True)
    return n / np.where(length > 1e-6, length, np.float32(1))
