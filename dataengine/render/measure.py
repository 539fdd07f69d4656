"""What the depth camera of a scene measures in one frame: infrared pair and simulated depth."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dataengine.raycast.views import render_labels
from dataengine.render.labels import quantise_depth
from dataengine.robot.meshes import LinkMesh
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import RayWorld
from dataengine.sensor.azure_tof import simulate_azure_tof
from dataengine.sensor.ir import IrNoise, IrSurface, render_ir_pair
from dataengine.sensor.kinect_v1 import simulate_kinect_v1
from dataengine.sensor.rig import StereoRig
from dataengine.sensor.stereo import disparity_to_depth, match_stereo

_GLOSS = {"metal": (0.5, 0.6), "ceramic": (0.4, 0.8), "plastic": (0.25, 0.5), "paint": (0.25, 0.5), "glass": (0.6, 0.9)}
"""material kind → (specular strength, glossiness) of its near-infrared highlight; others are matte."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """ir_left, ir_right (H,W) uint8 at the stored size or None; depth_sim (H,W) float32 metres, 0 = none, or None."""

    ir_left: NDArray[np.uint8] | None
    ir_right: NDArray[np.uint8] | None
    depth_sim: NDArray[np.float32] | None


def infrared_surfaces(scene: SceneSpec, link_meshes: Sequence[LinkMesh]) -> list[IrSurface]:
    """One near-infrared surface per mesh of the RayWorld, in its order (links, then objects).

    Robot links: the luminance of their mean colour, lifted towards 0.6 since most paints reflect well at 850 nm.
    """
    out = []
    for mesh in link_meshes:
        colour = np.mean([m.base_color_rgb for m in mesh.materials], axis=0)
        luminance = float(np.dot(colour, (0.2126, 0.7152, 0.0722)))
        out.append(IrSurface(albedo=0.25 + 0.45 * luminance, variation=0.05, specular=0.2, glossiness=0.5, seed=mesh.link_index))
    for obj in scene.objects:
        m = obj.material
        specular, gloss = _GLOSS.get(m.kind, (0.0, 0.1))
        out.append(
            IrSurface(
                albedo=m.ir_albedo, variation=0.3, specular=specular, glossiness=gloss, seed=m.seed,
                scale_m=m.pattern_scale_m, dropout=m.kind == "glass",
            )
        )  # fmt: skip
    return out


def rig_of(scene: SceneSpec) -> StereoRig:
    """The stereo rig of a scene: left eye = colour camera."""
    c, s = scene.camera, scene.depth_sensor
    K = np.array([[c.fx_px, 0, c.cx_px], [0, c.fy_px, c.cy_px], [0, 0, 1.0]])
    return StereoRig(K, c.width, c.height, s.baseline_m, s.projector_x_m, s.native_scale)


def measure_depth(
    scene: SceneSpec,
    world: RayWorld,
    frame: int,
    surfaces: Sequence[IrSurface],
    T_world_cam: NDArray,
    depth_z_m: NDArray,
    normal_cam: NDArray,
    cycles_ir: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None,
    rng: np.random.Generator,
) -> Measurement:
    """Run the scene's depth sensor on one frame. `cycles_ir`: native-size pair, if path traced."""
    sensor, rig = scene.depth_sensor, rig_of(scene)
    pair = cycles_ir
    if pair is None and sensor.ir == "fast":
        brightest = max((light.power_w for light in scene.lights), default=1.0)
        lights = [(light.position_m, light.power_w / brightest) for light in scene.lights]
        noise = IrNoise(speckle=sensor.speckle, ambient=sensor.ambient, pattern_seed=0)
        ir = render_ir_pair(world.posed(frame), surfaces, rig, T_world_cam, lights, noise, rng, world.T_world_mesh[frame])
        pair = (ir.left, ir.right)
    depth = None
    if sensor.model == "active_stereo" and pair is not None:
        depth = disparity_to_depth(match_stereo(*pair, rig), rig)
    elif sensor.model == "kinect_v1":
        depth = simulate_kinect_v1(depth_z_m, normal_cam, rig.K, rng)
    elif sensor.model == "azure_tof":
        depth = simulate_azure_tof(depth_z_m, normal_cam, _albedo_image(world, frame, surfaces, rig, T_world_cam), rig.K, rng)
    if depth is not None:
        depth = quantise_depth(np.where(depth <= sensor.max_depth_m, depth, 0.0))
    if pair is None:
        return Measurement(None, None, depth)
    left, right = (np.asarray(cv2.resize(eye, (rig.width, rig.height), interpolation=cv2.INTER_AREA), np.uint8) for eye in pair)
    return Measurement(left, right, depth)


def _albedo_image(world: RayWorld, frame: int, surfaces: Sequence[IrSurface], rig: StereoRig, T_world_cam: NDArray) -> NDArray[np.float64]:
    index = render_labels(world.posed(frame), rig.K, T_world_cam, rig.width, rig.height).mesh_index
    return np.append([s.albedo for s in surfaces], 0.0)[index]
