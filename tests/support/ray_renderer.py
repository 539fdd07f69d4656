"""A stand-in for Blender in tests: the same RawPasses from the ray caster with one headlight. Fast, exact, no bpy."""

import numpy as np

from dataengine.raycast.views import render_labels
from dataengine.render.passes import RawPasses
from dataengine.scene.world import build_ray_world


def ray_renderer(link_meshes):
    """→ render_passes(scene, T_world_link) for `render_video`."""

    def render_passes(scene, T_world_link):
        world = build_ray_world(scene, link_meshes, T_world_link)
        c = scene.camera
        K = np.array([[c.fx_px, 0, c.cx_px], [0, c.fy_px, c.cy_px], [0, 0, 1.0]])
        rgb, depth, normal, link, instance = [], [], [], [], []
        for f in range(scene.frames):
            T = np.asarray(c.T_world_cam[f if len(c.T_world_cam) > 1 else 0])
            view = render_labels(world.posed(f), K, T, c.width, c.height)
            hit = view.mesh_index >= 0
            shade = np.where(hit, np.abs(view.normal_cam[..., 2]), 0.1)
            colours = np.random.default_rng(0).uniform(0.1, 0.9, (len(world.link_of_mesh) + 1, 3))
            rgb.append((shade[..., None] * colours[view.mesh_index]).astype(np.float32))
            depth.append(view.depth_z_m)
            normal.append(view.normal_cam)
            link.append(np.append(world.link_of_mesh + 1, 0)[view.mesh_index].astype(np.uint8))
            instance.append(np.append(world.instance_of_mesh, 0)[view.mesh_index].astype(np.uint8))
        return RawPasses(*(np.stack(a) for a in (rgb, depth, normal, link, instance)), ir_left=None, ir_right=None, cpu_s={})

    return render_passes
