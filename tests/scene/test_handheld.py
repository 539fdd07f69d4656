import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.config.loader import PRESET_FOLDER, load_spec
from dataengine.config.spec import CameraSpec, HandheldSpec, SurroundingsSpec
from dataengine.geometry import se3
from dataengine.geometry.camera import in_image, intrinsics, project
from dataengine.scene.camera import draw_path
from dataengine.scene.draws import Draws
from dataengine.scene.handheld import handheld_path
from dataengine.scene.sample import sample_scene

EYE, TARGET = np.array([1.2, 0.1, 0.7]), np.array([0.0, 0.0, 0.3])
CLIPS = sorted((PRESET_FOLDER / "captures").glob("*.yaml"))


def path_of(seed=0, duration_s=6.0, **spec):
    return handheld_path(HandheldSpec(**spec), Draws(seed, 0), EYE, TARGET, 0.1, duration_s)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), travel=st.floats(0.02, 1.5))
def test_the_arc_has_the_length_it_was_given(seed, travel):
    poses = path_of(seed, travel_m=travel, tremor_mm=0, tremor_deg=0)(np.linspace(0, 6, 100))
    assert se3.is_rigid(poses)
    eyes = poses[:, :3, 3]
    np.testing.assert_allclose(eyes[0], EYE, atol=1e-12)
    flat = np.linalg.norm(np.diff(eyes[:, :2], axis=0), axis=1).sum()
    assert flat == pytest.approx(travel, rel=1e-2)
    axis = se3.transform(se3.inverse(poses), np.broadcast_to(TARGET, (100, 1, 3)))[:, 0]
    np.testing.assert_allclose(axis[:, :2], 0, atol=1e-9)


def test_resting_is_one_pose_exactly_and_the_start_is_smooth():
    poses = path_of(still_s=2.0, travel_m=0.5)(np.linspace(0, 6, 601))
    assert np.array_equal(poses[:201], np.broadcast_to(poses[0], (201, 4, 4)))
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert steps[201] < 1e-4 and steps.max() > 1e-3


def test_turning_on_the_spot_moves_nothing_and_pans_to_both_sides():
    poses = path_of(travel_m=0, turn_deg=30, tremor_mm=0, tremor_deg=0)(np.linspace(0, 6, 201))
    np.testing.assert_allclose(poses[:, :3, 3] - EYE, 0, atol=1e-12)
    forward = poses[:, :3, 2] @ poses[0, :3, 0]
    np.testing.assert_allclose([forward.min(), forward.max()], [-np.sin(np.radians(15)), np.sin(np.radians(15))], atol=1e-3)


def test_tremor_has_its_standard_deviation():
    times = np.linspace(0.5, 300, 1500)
    still = path_of(travel_m=0, tremor_mm=0, tremor_deg=0, duration_s=300)(times)
    moved = path_of(travel_m=0, tremor_mm=3, tremor_deg=0.5, duration_s=300)(times)
    np.testing.assert_allclose((moved - still)[:, :3, 3].std(0), 3e-3, rtol=0.25)
    R = np.swapaxes(still[:, :3, :3], 1, 2) @ moved[:, :3, :3]
    vector = np.degrees(np.stack([R[:, 2, 1], R[:, 0, 2], R[:, 1, 0]], -1))
    np.testing.assert_allclose(vector.std(0), 0.5, rtol=0.25)


def test_the_hand_does_not_disturb_other_paths():
    """A field that one kind of path uses changes nothing for the others."""
    times = np.linspace(0, 2, 5)
    for path in ("static", "moving"):
        poses = [
            draw_path(CameraSpec(path=path, handheld=h), Draws(1, 2), TARGET, 0.0, 1.0)(times)
            for h in (HandheldSpec(), HandheldSpec(travel_m=9))
        ]
        np.testing.assert_array_equal(*poses)


def test_later_fields_keep_the_identity_of_older_datasets():
    spec = load_spec("smoke")
    said = spec.model_copy(update={"camera": spec.camera.model_copy(update={"handheld": HandheldSpec()})})
    assert said.digest() == spec.digest()
    for section, value in (
        ("camera", {"handheld": HandheldSpec(still_s=1)}),
        ("surroundings", {"texture_width_m": 2.0}),
        ("distractors", {"moved_m": 0.1}),
    ):
        changed = spec.model_copy(update={section: getattr(spec, section).model_copy(update=value)})
        assert changed.digest() != spec.digest()
    assert "handheld" not in str(sorted(SurroundingsSpec.model_fields))


@pytest.mark.parametrize("path", CLIPS, ids=lambda p: p.stem)
def test_every_clip_is_a_scene_with_texture_and_the_camera_path_of_its_name(path, panda):
    spec = load_spec(path)
    assert path.stem in ("base", spec.name)
    scene = sample_scene(spec, 0, panda)
    poses, q = np.array(scene.camera.T_world_cam), np.array(scene.robot.joint_position)
    span = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1).max()
    expected = {
        "rotation": (0, 1e-9),
        "short": (0.08, 0.13),
        "static": (0.6, 0.9),
        "moving": (0.7, 1.0),
        "moved": (0.7, 1.0),
        "base": (0.6, 0.9),
    }
    low, high = expected[path.stem.split("_")[0]]
    assert low <= span <= high
    assert (np.ptp(q, axis=0).max() > 0.2) == path.stem.endswith("robot_moving")
    resting = np.all(poses == poses[0], axis=(1, 2)).sum()
    assert resting == (13 if path.stem.startswith("static") else 1)
    assert all(o.material.texture for o in scene.objects if o.role in ("table", "room"))


def test_one_object_moves_in_the_middle_and_only_in_that_clip(panda):
    scene = sample_scene(load_spec(PRESET_FOLDER / "captures" / "moved_object.yaml"), 0, panda)
    moving = [o for o in scene.objects if len(o.T_world_object) > 1]
    assert len(moving) == 1 and moving[0].role == "distractor"
    T = np.array(moving[0].T_world_object)
    jumps = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
    assert np.flatnonzero(jumps).tolist() == [scene.frames // 2 - 1]
    assert jumps.max() == pytest.approx(0.08)
    c = scene.camera
    K = intrinsics(c.fx_px, c.fy_px, c.cx_px, c.cy_px)
    uv = project(K, se3.transform(se3.inverse(np.array(c.T_world_cam)), T[:, None, :3, 3])[:, 0])
    assert in_image(uv, c.width, c.height).mean() > 0.7, "somebody who watches can see it move"
