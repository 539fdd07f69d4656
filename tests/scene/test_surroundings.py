import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from dataengine.config.spec import ENVIRONMENTS, MATERIALS, SurroundingsSpec
from dataengine.scene.draws import Draws
from dataengine.scene.materials import KINDS, USUAL, draw_link_tints, draw_material
from dataengine.scene.palette import HUES, hex_to_linear, jittered, light_color, muted
from dataengine.scene.spec import Light
from dataengine.scene.surroundings import (
    MEAN_LEVEL,
    SKY_RADIANCE,
    automatic_exposure_ev,
    ball_brightness,
    draw_environment,
    draw_lights,
    draw_room,
    draw_table,
    white_under,
)

SPEC = SurroundingsSpec()
COLOR = st.tuples(*[st.floats(0, 1)] * 3)


def test_tables_cover_all_materials_and_environments():
    assert set(KINDS) == set(HUES) == set(MATERIALS)
    assert set(SKY_RADIANCE) == set(ENVIRONMENTS) - {"room"}
    assert {kind for kinds in USUAL.values() for kind in kinds} <= set(MATERIALS)


@pytest.mark.parametrize("phase_deg", [0, 30, 90, 140, 180])
def test_ball_brightness_is_the_integral_over_the_visible_disc(phase_deg):
    a = np.radians(phase_deg)
    u = (np.arange(1000) + 0.5) / 500 - 1
    x, y = np.meshgrid(u, u)
    disc = x**2 + y**2 < 1
    z = np.sqrt(np.where(disc, 1 - x**2 - y**2, 0))
    lit = np.clip(x * np.sin(a) + z * np.cos(a), 0, None)
    assert ball_brightness(a) == pytest.approx(lit[disc].mean(), abs=2e-3)


def test_a_disc_lamp_far_away_has_the_radiance_that_the_exposure_assumes():
    """P/(π A) times the disc's solid angle, integrated over the disc, over π: P/(π² d²) for a small disc."""
    power, radius, distance = 30.0, 0.05, 2.0
    radiance = power / (np.pi * np.pi * radius**2)
    irradiance, _ = quad(lambda r: radiance * 2 * np.pi * r * distance**2 / (distance**2 + r**2) ** 2, 0, radius)
    assert irradiance / np.pi == pytest.approx(power / (np.pi * distance) ** 2, rel=1e-3)


def _lamp(power, position=(0.0, 0.0, 2.0)):
    return Light(position_m=position, target_m=(0.0, 0.0, 0.0), power_w=power, size_m=0.1, color=(1.0, 1.0, 1.0))


@given(st.floats(0.1, 2), st.floats(1, 100), st.floats(1.1, 8))
def test_twice_the_light_is_one_stop_less(level, power, factor):
    eye, target = np.array([2.0, 0, 1]), np.zeros(3)
    one = automatic_exposure_ev(level, (_lamp(power),), target, eye)
    more = automatic_exposure_ev(level * factor, (_lamp(power * factor),), target, eye)
    assert one - more == pytest.approx(np.log2(factor))
    assert automatic_exposure_ev(level, (), target, eye) == pytest.approx(np.log2(MEAN_LEVEL / level))


def test_light_colours():
    assert light_color(5200.0) == pytest.approx((1, 1, 1))
    warm, cold = light_color(3000.0), light_color(7500.0)
    assert warm[0] > warm[1] > warm[2] and cold[0] < cold[1] < cold[2]
    assert np.mean(warm) == pytest.approx(1) and np.mean(cold) == pytest.approx(1)
    strong = light_color(3000.0, adaptation=0.0)
    # Planck: ratio of blue to red radiance at 3000 K over that at 5200 K
    c2 = 0.01438777
    planck = [np.expm1(c2 / (611e-9 * t)) / np.expm1(c2 / (464e-9 * t)) for t in (3000, 5200)]
    assert strong[2] / strong[0] == pytest.approx(planck[0] / planck[1])


def test_srgb_decoding():
    assert hex_to_linear("00ff80") == pytest.approx((0.0, 1.0, 0.2158605))


@given(COLOR, st.integers(0, 1000))
def test_colours_stay_reflectances(color, seed):
    for c in (jittered(color, np.random.default_rng(seed)), muted(color)):
        assert all(0 <= v <= 1 for v in c)


@pytest.mark.parametrize("kind", MATERIALS)
def test_materials_are_physically_plausible(kind):
    for seed in range(20):
        m = draw_material(Draws(seed, 0), "m", (kind,))
        assert m.kind == kind and 0 <= m.roughness <= 1 and 0 < m.ir_albedo < 1 and m.pattern_scale_m > 0 and 0 <= m.bump <= 1
        assert all(0 <= v <= 0.95 for v in (*m.color, *m.color2))


def test_things_are_made_of_what_they_usually_are_of():
    kinds = {draw_material(Draws(s, 0), "m", ("metal", "wood", "ceramic"), "mug").kind for s in range(40)}
    assert kinds == {"metal", "ceramic"}
    assert draw_material(Draws(0, 0), "m", ("wood",), "can").kind == "wood"


def test_robot_tints():
    assert draw_link_tints(Draws(0, 0), "original", 5) is None
    tinted, new = (np.array(draw_link_tints(Draws(0, 0), style, 9)) for style in ("tinted", "random"))
    assert tinted.shape == new.shape == (9, 3) and np.ptp(tinted, axis=0).max() < 0.2 < np.ptp(new, axis=0).max()


@pytest.mark.parametrize("seed", range(10))
def test_the_base_stands_on_the_table_and_lamps_hang_above_it(seed):
    draws = Draws(seed, 0)
    table = draw_table(SPEC, draws)
    assert table.holds(np.zeros(2), 0.2)
    assert not table.holds(np.array([table.reach_m, 0.0]), 0.01)
    for lamp in draw_lights(SPEC, draws, np.array([0, 0, 0.4])):
        assert 1.2 <= np.linalg.norm(lamp.position_m) <= 2.5 and lamp.position_m[2] > 0.6
        assert np.abs(np.subtract(lamp.target_m, (0, 0, 0.4))).max() <= 0.2
    floor, walls = draw_room(SurroundingsSpec(texture_share=0), draws, True, table.floor_z_m, 3.0)
    inner = np.array(walls.size_m[:2]) / 2 - walls.parameters[0]
    assert inner.min() >= 3.4 - 1e-9
    assert np.asarray(floor.T_world_object[0])[2, 3] + floor.size_m[2] / 2 == pytest.approx(table.floor_z_m)
    inner_floor = np.asarray(walls.T_world_object[0])[2, 3] - walls.size_m[2] / 2 + walls.parameters[0]
    assert inner_floor == pytest.approx(table.floor_z_m - floor.size_m[2])


def test_every_environment_is_equally_bright_on_average():
    for name in ENVIRONMENTS:
        spec = SurroundingsSpec(environment=name, environment_strength=0.8)
        environment = draw_environment(spec, Draws(0, 0))
        mean, table = SKY_RADIANCE.get(name, (1.0, 1.0))
        assert environment.name == name and environment.strength * mean == pytest.approx(0.8)
        assert white_under(environment) == pytest.approx(0.8 * (1 + table / mean) / 2)


@pytest.mark.parametrize("name", SKY_RADIANCE)
def test_sky_radiances_are_those_of_the_images_inside_bpy(name):
    folder = Path(importlib.util.find_spec("bpy").submodule_search_locations[0])
    file = next(folder.glob(f"*/datafiles/studiolights/world/{name}.exr"))
    command = "import sys, cv2, numpy; numpy.save(sys.argv[2], cv2.imread(sys.argv[1], cv2.IMREAD_UNCHANGED)[..., :3])"
    with tempfile.TemporaryDirectory() as out:
        # OpenCV reads EXR only when told so before its import
        environment = {**os.environ, "OPENCV_IO_ENABLE_OPENEXR": "1"}
        subprocess.run([sys.executable, "-c", command, str(file), f"{out}/image.npy"], check=True, env=environment)
        luminance = np.load(f"{out}/image.npy").astype(float) @ (0.0722, 0.7152, 0.2126)
    polar = (np.arange(len(luminance)) + 0.5) / len(luminance) * np.pi
    rows = luminance.mean(1)
    upper = np.clip(np.cos(polar), 0, None) * np.sin(polar)
    found = (np.average(rows, weights=np.sin(polar)), np.average(rows, weights=upper))
    assert found == pytest.approx(SKY_RADIANCE[name], abs=1e-3)
