"""The path-traced infrared pair against the fast ray-cast one: same projector, same units."""

import numpy as np

from dataengine.geometry import se3
from dataengine.render.blender.infrared import TEXELS_PER_PX, pattern_image
from dataengine.render.measure import infrared_surfaces, rig_of
from dataengine.scene.world import build_ray_world
from dataengine.sensor.ir import IrNoise, render_ir_pair
from tests.render.blender.scenes import floor, look_at, material, scene, thing


def test_both_paths_show_the_same_dots(toy):
    camera = look_at((0.5, -0.8, 0.7), (0.0, 0.0, 0.1))
    ball = thing(1, "sphere", (0.3, 0.3, 0.3), se3.make(np.eye(3), [0.1, -0.2, 0.15]), material(ir_albedo=0.7))
    s = scene([ball, floor(material(ir_albedo=0.4))], camera, toy.joints, sensor={"ir": "cycles"})
    passes = toy.render(s)
    world = build_ray_world(s, toy.meshes, toy.link_poses(s))
    noise = IrNoise(speckle=0.0, ambient=s.depth_sensor.ambient)
    fast = render_ir_pair(
        world.posed(0),
        infrared_surfaces(s, toy.meshes),
        rig_of(s),
        camera,
        [(s.lights[0].position_m, 1.0)],
        noise,
        np.random.default_rng(0),
    )
    assert passes.ir_left is not None and passes.ir_right is not None
    assert passes.ir_left.shape == passes.ir_right.shape == (1, 192, 320) and passes.ir_left.dtype == np.uint8
    for traced, cast in ((passes.ir_left[0], fast.left), (passes.ir_right[0], fast.right)):
        assert np.corrcoef(traced.ravel(), cast.ravel())[0, 1] > 0.9
        shifted = [np.corrcoef(np.roll(traced, d, axis=(0, 1)).ravel(), cast.ravel())[0, 1] for d in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        assert max(shifted) < 0.9 * np.corrcoef(traced.ravel(), cast.ravel())[0, 1]
        assert abs(float(traced.mean()) - float(cast.mean())) < 0.15 * cast.mean()


def test_infrared_leaves_the_colour_picture_alone(toy):
    camera = look_at((0.5, -0.8, 0.7), (0.0, 0.0, 0.1))
    s = scene([floor(material("wood"))], camera, toy.joints, samples_per_pixel=2)
    before = toy.render(s)
    toy.render(s.model_copy(update={"depth_sensor": s.depth_sensor.model_copy(update={"ir": "cycles", "ir_samples": 1})}))
    after = toy.render(s)
    assert before.ir_left is None and after.ir_left is None
    assert abs(after.rgb_linear.mean() / before.rgb_linear.mean() - 1) < 0.02
    assert np.array_equal(after.depth_z_m, before.depth_z_m)


def test_pattern_has_a_dot_in_nine_of_ten_cells():
    pattern = pattern_image(500.0, 300.0, -100.0, 37.0, seed=4)
    assert pattern.shape == (300 * TEXELS_PER_PX, 500 * TEXELS_PER_PX)
    peak = pattern.max(initial=0)
    inner = pattern[1:-1, 1:-1]
    is_top = (inner > 0.3 * peak) & np.all(
        [inner >= pattern[1 + a : pattern.shape[0] - 1 + a, 1 + b : pattern.shape[1] - 1 + b] for a in (-1, 0, 1) for b in (-1, 0, 1)],
        axis=0,
    )
    assert is_top.sum() / (500 * 300 / 25) > 0.75  # some neighbours melt into one
    assert is_top.sum() / (500 * 300 / 25) < 0.95
