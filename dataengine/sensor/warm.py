"""Run every depth sensor once on a tiny scene, so that compiled code is in memory before a worker forks."""

import numpy as np

from dataengine.raycast.scene import RayScene, TriMesh
from dataengine.sensor import azure_tof, incidence, ir_kernels, noise, stereo_kernels
from dataengine.sensor.azure_tof import simulate_azure_tof
from dataengine.sensor.ir import IrNoise, IrSurface, render_ir_pair
from dataengine.sensor.kinect_v1 import simulate_kinect_v1
from dataengine.sensor.rig import StereoRig
from dataengine.sensor.stereo import disparity_to_depth, match_stereo

_WALL = TriMesh(np.array([[-2.0, -2, 1], [2, -2, 1], [2, 2, 1], [-2, 2, 1]]), np.array([[0, 1, 2], [0, 2, 3]], np.int32))


def warm_up() -> bool:
    """True when something had to be compiled, so that this process' memory differs from that of a later one."""
    rig = StereoRig(np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]), 64, 48)
    scene, rng = RayScene([_WALL]), np.random.default_rng(0)
    scene.pose(np.eye(4)[None])
    pair = render_ir_pair(scene, [IrSurface(albedo=0.5)], rig, np.eye(4), [((0.0, 0.0, 0.0), 1.0)], IrNoise(), rng)
    disparity_to_depth(match_stereo(pair.left, pair.right, rig), rig)
    depth, normal = np.ones((48, 64), np.float32), np.tile(np.float32([0, 0, -1]), (48, 64, 1))
    simulate_kinect_v1(depth, normal, rig.K, rng)
    simulate_azure_tof(depth, normal, np.full((48, 64), 0.5), rig.K, rng)
    modules = (azure_tof, incidence, ir_kernels, noise, stereo_kernels)
    functions = [f for module in modules for f in vars(module).values() if hasattr(f, "stats")]
    return any(sum(f.stats.cache_misses.values()) for f in functions)
