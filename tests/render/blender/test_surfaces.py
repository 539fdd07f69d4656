"""Materials, lights and the world: what a surface does to light, checked by symmetry and closed forms."""

import numpy as np
import pytest

from dataengine.geometry import se3
from dataengine.render.blender.materials import BUILDERS, WHITE_LIMIT, printable_color
from dataengine.scene.spec import Light
from tests.render.blender.scenes import WHITE_SKY, floor, look_at, material, scene, thing

CAMERA = look_at((0.5, -0.6, 0.5), (0.0, 0.0, 0.05))
BELOW = se3.make(np.eye(3), [0.0, 0.0, -50.0])


def patch(passes, instance):
    return passes.rgb_linear[0][passes.object_id[0] == instance]


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_every_kind_gives_finite_varied_pictures(toy, kind):
    def look(seed):
        objects = [thing(1, "sphere", (0.25, 0.25, 0.25), se3.make(np.eye(3), [0, 0, 0.125]), material(kind, seed=seed, bump=0.5))]
        s = scene([*objects, floor(material(kind, seed=seed))], CAMERA, toy.joints, T_world_base=BELOW, samples_per_pixel=2)
        return toy.render(s)

    passes = [look(seed) for seed in (1, 2)]
    for p in passes:
        assert np.isfinite(p.rgb_linear).all() and p.rgb_linear.min() >= 0
        assert 0.005 < patch(p, 1).mean() < 2 and patch(p, 1).std() > 0.003
    if kind not in ("glass", "plastic"):  # those may be even
        assert np.abs(passes[0].rgb_linear - passes[1].rgb_linear).mean() > 1e-3


@pytest.mark.parametrize("kind", ["wood", "stone", "fabric", "ceramic"])
def test_patterns_stick_to_their_object(toy, kind):
    """Object and camera moved together under an even sky: the picture must not change."""
    box = se3.make(np.eye(3), [0, 0, 0.1])
    moved = se3.make(se3.rotation_from_axis_angle((0.36, 0.48, 0.8), 1.1), [1.0, 2.0, 0.5])

    def look(G):
        s = scene(
            [thing(1, "box", (0.3, 0.3, 0.2), G @ box, material(kind), (0.004,))], G @ CAMERA, toy.joints, T_world_base=BELOW,
            environment=WHITE_SKY, lights=(), samples_per_pixel=32,
        )  # fmt: skip
        return toy.render(s)

    here, there = look(np.eye(4)), look(moved)
    both = (here.object_id[0] == 1) & (there.object_id[0] == 1)
    a, b = (p.rgb_linear[0][both].mean(-1) for p in (here, there))
    assert both.mean() > 0.1 and a.std() > 0.01
    assert np.corrcoef(a, b)[0, 1] > 0.9


def test_white_furnace(toy):
    """A convex matt thing under an even sky of radiance 1 reflects its albedo, plus some per cent of gloss."""
    ball = thing(1, "sphere", (0.4, 0.4, 0.4), se3.make(np.eye(3), [0, 0, 0.1]), material("fabric", color=(0.5,) * 3, color2=(0.5,) * 3))
    s = scene([ball], CAMERA, toy.joints, T_world_base=BELOW, environment=WHITE_SKY, lights=(), samples_per_pixel=32)
    assert 0.4 < np.median(patch(toy.render(s), 1)) < 0.6


def test_sky_is_turned_and_scaled(toy):
    def sky(yaw, strength, camera):
        environment = WHITE_SKY.model_copy(update={"kind": "hdri", "name": "sunset", "yaw_rad": yaw, "strength": strength})
        return toy.render(scene([], camera, toy.joints, T_world_base=BELOW, environment=environment, lights=())).rgb_linear[0]

    level = look_at((0, 0, 1), (1, 0, 1.1))
    turn = se3.make(se3.rotation_from_axis_angle((0, 0, 1), 0.7), np.zeros(3))
    plain = sky(0.0, 1.0, level)
    assert plain.std() > 0.01
    assert np.percentile(np.abs(sky(0.0, 3.0, level) / 3 - plain), 95) < 0.02
    assert np.percentile(np.abs(sky(0.7, 1.0, turn @ level) - plain), 95) < 0.02
    assert np.abs(sky(0.7, 1.0, level) - plain).mean() > 0.05


def test_irradiance_of_a_small_lamp(toy):
    """E = P / (π d²) on the axis of a small disk light; a matt surface sends back albedo · E / π."""
    lamp = Light(position_m=(0.0, 0.0, 2.0), target_m=(0.0, 0.0, 0.0), power_w=30.0, size_m=0.05, color=(1.0, 1.0, 1.0))
    dark = WHITE_SKY.model_copy(update={"strength": 0.0})
    surface = material("fabric", color=(0.4,) * 3, color2=(0.4,) * 3, bump=0.0)
    camera = look_at((0.3, -0.6, 0.8), (0.0, 0.0, 0.0))
    s = scene([floor(surface)], camera, toy.joints, T_world_base=BELOW, environment=dark, lights=(lamp,), samples_per_pixel=32)
    got = np.median(toy.render(s).rgb_linear[0][44:52, 76:84])
    assert got == pytest.approx(0.4 * 30.0 / (np.pi**2 * 4.0), rel=0.15)


def test_tints_change_one_link_for_one_video(toy):
    camera = look_at((0.7, -0.7, 0.6), (0.0, 0.0, 0.15))
    plain = scene([], camera, toy.joints, samples_per_pixel=4)
    tinted = scene([], camera, toy.joints, samples_per_pixel=4, link_tints=((0.1, 1.0, 0.1), (1.0, 1.0, 1.0)))
    a, b, again = (toy.render(s) for s in (plain, tinted, plain))
    base, arm = a.link_id[0] == 1, a.link_id[0] == 2
    assert b.rgb_linear[0][base][:, 0].mean() < 0.5 * a.rgb_linear[0][base][:, 0].mean()
    assert b.rgb_linear[0][arm].mean() == pytest.approx(a.rgb_linear[0][arm].mean(), rel=0.1)
    assert again.rgb_linear[0][base].mean() == pytest.approx(a.rgb_linear[0][base].mean(), rel=0.03)


def test_printable_color_limits_brightness_and_keeps_hue():
    assert printable_color((1.0, 1.0, 1.0)) == pytest.approx((WHITE_LIMIT,) * 3)
    assert printable_color((0.2, 0.1, 0.0)) == (0.2, 0.1, 0.0)
    r, g, _ = printable_color((1.0, 0.5, 0.0), (1.5, 1.5, 1.0))
    assert r == pytest.approx(WHITE_LIMIT) and g == pytest.approx(WHITE_LIMIT / 2)
    assert printable_color((0.0, 0.0, 0.0)) == (0.0, 0.0, 0.0)
