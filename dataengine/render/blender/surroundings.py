"""World light, lamps and the camera of one video."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.geometry.camera import blender_camera_matrix, blender_lens, intrinsics
from dataengine.render.blender.adapter import bpy, camera, lights, mathutils
from dataengine.render.blender.assets import environment_path, world_folder
from dataengine.render.blender.nodes import Graph
from dataengine.scene.spec import Camera, Environment, Light

CLIP_M = (0.01, 200.0)
"""Nearest and furthest surface the camera sees."""


def preload_environments() -> None:
    """Read all packaged HDR images into Blender's memory, linear float.

    Cycles reads image files with OpenEXR's thread pool, which does not survive a fork: a child would wait for ever. Images in
    memory need no reader.
    """
    for path in sorted(world_folder().glob("*.exr")):
        environment_image(path.stem)


def environment_image(name: str) -> Any:
    """The packaged HDR image as an image in memory, read at the first use."""
    known = bpy.data.images.get(f"hdri {name}")
    if known is not None:
        return known
    file = bpy.data.images.load(str(environment_path(name)))
    width, height = file.size
    texels = np.empty(width * height * 4, np.float32)
    file.pixels.foreach_get(texels)
    bpy.data.images.remove(file)
    image = bpy.data.images.new(f"hdri {name}", width, height, float_buffer=True)
    image.colorspace_settings.name = "Linear Rec.709"
    image.pixels.foreach_set(texels)
    image.update()
    image.use_fake_user = True
    return image


def set_environment(world: Any, environment: Environment) -> None:
    """Light from a packaged HDR image turned by yaw about z, or from a uniform colour."""
    graph = Graph(world)
    color: Any = environment.color
    if environment.kind == "hdri":
        image = environment_image(environment.name)
        direction = graph.node("ShaderNodeTexCoord").outputs["Generated"]
        turned = graph.add("ShaderNodeVectorRotate", {"Vector": direction, "Angle": -environment.yaw_rad}, rotation_type="Z_AXIS")
        color = graph.add("ShaderNodeTexEnvironment", (turned,), image=image)
        if tuple(environment.color) != (1.0, 1.0, 1.0):
            color = graph.vector("MULTIPLY", color, environment.color)
    graph.output("ShaderNodeOutputWorld", graph.add("ShaderNodeBackground", (color, environment.strength)))
    # the default map of 1024 px costs 1.4 CPU-s for every change of world
    world.cycles.sampling_method = "MANUAL" if environment.kind == "hdri" else "NONE"
    world.cycles.sample_map_resolution = 256
    world.update_tag()


def add_light(name: str, light: Light) -> Any:
    """A disk-shaped area light that the camera does not see (it has no label)."""
    lamp = lights.Light("AREA", name)
    lamp.set_energy(light.power_w)
    lamp.set_color(light.color)
    data = lamp.blender_obj.data
    data.shape = "DISK"
    data.size = light.size_m
    lamp.blender_obj.visible_camera = False
    towards = mathutils.Vector(np.subtract(light.target_m, light.position_m).tolist())
    lamp.blender_obj.matrix_world = mathutils.Matrix.Translation(light.position_m) @ towards.to_track_quat("-Z", "Y").to_matrix().to_4x4()
    return lamp.blender_obj


def camera_K(view: Camera) -> NDArray[np.float64]:
    return intrinsics(view.fx_px, view.fy_px, view.cx_px, view.cy_px)


def set_intrinsics(K: NDArray[np.float64], width: int, height: int) -> None:
    """Image size and pinhole of the scene's camera."""
    lens = blender_lens(K, width, height)
    data = bpy.context.scene.camera.data
    data.type = "PERSP"
    data.sensor_fit = "HORIZONTAL"
    data.sensor_width = lens["sensor_width_mm"]
    camera.set_intrinsics_from_blender_params(
        lens["lens_mm"],
        width,
        height,
        *CLIP_M,
        lens["pixel_aspect_x"],
        lens["pixel_aspect_y"],
        lens["shift_x"],
        lens["shift_y"],
        lens_unit="MILLIMETERS",
    )


def camera_poses(view: Camera, frames: int) -> NDArray[np.float64]:
    """Blender's camera matrix (F,4,4) in the middle of each exposure."""
    return blender_camera_matrix(np.broadcast_to(np.asarray(view.T_world_cam, float), (frames, 4, 4)))


def camera_end_poses(view: Camera, frames: int) -> NDArray[np.float64] | None:
    """Blender's camera matrix (F,4,4) at the end of each exposure, None when the camera has no motion blur."""
    if view.T_world_cam_end is None:
        return None
    return blender_camera_matrix(np.broadcast_to(np.asarray(view.T_world_cam_end, float), (frames, 4, 4)))
