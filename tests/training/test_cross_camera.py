"""The cross-camera protocol (RoboKeyGen, table II): three presets, one set of scenes. See also tests/scene/test_sample.py."""

import numpy as np
import pytest

from dataengine.config.loader import load_spec
from dataengine.robot.catalogue import load_robot
from dataengine.scene.sample import sample_scene
from training.ablations import CAMERAS

FOCAL_PX = {"cross_camera_xbox360": 525.0, "cross_camera_realsense": 455.3, "cross_camera_azure": 303.6}


@pytest.fixture(scope="module")
def panda():
    return load_robot("panda")


def test_focal_lengths_at_640_px() -> None:
    assert CAMERAS == {"cross_camera_xbox360": 62.73, "cross_camera_realsense": 70.21, "cross_camera_azure": 93.01}
    for preset, fov_deg in CAMERAS.items():
        spec = load_spec(preset)
        assert spec.camera.horizontal_fov_deg == fov_deg and spec.camera.width == 640
        assert 320 / np.tan(np.radians(fov_deg) / 2) == pytest.approx(FOCAL_PX[preset], abs=0.1)


@pytest.mark.parametrize("video", [0, 7])
def test_scenes_robot_states_and_backgrounds_are_shared(panda, video: int) -> None:
    scenes = {preset: sample_scene(load_spec(preset), video, panda) for preset in CAMERAS}
    first = scenes["cross_camera_xbox360"]
    for preset, scene in scenes.items():
        assert scene.camera.fx_px == pytest.approx(FOCAL_PX[preset], abs=0.1) and scene.camera.fy_px == scene.camera.fx_px
        for part in ("robot", "objects", "lights", "environment", "seed", "split"):
            assert getattr(scene, part) == getattr(first, part), (preset, part)
        assert scene.camera.T_world_cam == first.camera.T_world_cam


def test_a_preset_per_camera_changes_nothing_but_the_lens() -> None:
    plain = load_spec("cross_camera").model_dump()
    for preset in CAMERAS:
        other = load_spec(preset).model_dump()
        differing = {k for k in plain if plain[k] != other[k]}
        assert differing == {"name", "camera"}
        assert {k for k in plain["camera"] if plain["camera"][k] != other["camera"][k]} == {"preset", "horizontal_fov_deg"}
