import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.config.distributions import Uniform
from dataengine.config.spec import CameraSpec
from dataengine.errors import SceneError
from dataengine.geometry import se3
from dataengine.raycast.scene import RayScene, TriMesh
from dataengine.raycast.views import amodal_masks
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes
from dataengine.scene.camera import PRESETS, camera_matrix, draw_path, keypoints_in_image, place_camera, robot_fraction
from dataengine.scene.draws import Draws
from dataengine.scene.robot_sweep import sweep


def _fov_deg(K, width):
    return np.degrees(2 * np.arctan(width / 2 / K[0, 0]))


def test_simrgbd_is_exactly_the_author_s_camera():
    K = camera_matrix(CameraSpec())
    np.testing.assert_array_equal(K, [[502.30, 0, 319.5], [0, 502.30, 179.5], [0, 0, 1]])


@pytest.mark.parametrize(
    "preset, fov_deg",
    [("simrgbd", 65.00), ("realsense_d415", 69.4), ("realsense_d435", 89.2), ("azure_kinect", 93.01), ("xbox360_kinect", 62.73)],
)
def test_fields_of_view(preset, fov_deg):
    p = PRESETS[preset]
    K = camera_matrix(CameraSpec(preset=preset, width=p.width, height=p.height))
    assert _fov_deg(K, p.width) == pytest.approx(fov_deg, abs=0.05)
    wide = camera_matrix(CameraSpec(preset=preset, width=640, height=360))
    assert _fov_deg(wide, 640) == pytest.approx(fov_deg, abs=0.05)


@pytest.mark.parametrize("preset", PRESETS)
@given(width=st.integers(32, 2000), height=st.integers(32, 2000))
def test_presets_scale_with_square_pixels_and_show_a_part_of_the_sensor(preset, width, height):
    p, K = PRESETS[preset], camera_matrix(CameraSpec(preset=preset, width=width, height=height))
    assert K[0, 0] == pytest.approx(K[1, 1])
    # image borders, as rays, lie within the preset's image; one pair of borders coincides
    left, top = (-0.5 - K[0, 2]) / K[0, 0], (-0.5 - K[1, 2]) / K[1, 1]
    full_left, full_top = (-0.5 - p.cx_px) / p.f_px, (-0.5 - p.cy_px) / p.f_px
    assert left >= full_left - 1e-9 and top >= full_top - 1e-9
    assert min(left - full_left, top - full_top) == pytest.approx(0, abs=1e-9)


def test_free_intrinsics():
    K = camera_matrix(CameraSpec(preset="free", width=100, height=80, fx_px=90, cy_px=33))
    np.testing.assert_array_equal(K, [[90, 0, 49.5], [0, 90, 33], [0, 0, 1]])
    K = camera_matrix(CameraSpec(preset="free", width=100, height=80, horizontal_fov_deg=90))
    np.testing.assert_allclose(K, [[50, 0, 49.5], [0, 50, 39.5], [0, 0, 1]])


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), speed=st.floats(0, 0.5), frames=st.integers(2, 80))
def test_a_moving_camera_keeps_to_its_speed_its_shell_and_its_target(seed, speed, frames):
    spec = CameraSpec(path="moving", speed_m_s=speed, elevation_deg=Uniform(uniform=(-10, 75)), roll_deg=0.0)
    draws, middle, times = Draws(seed, 0), np.array([0.1, 0.2, 0.5]), np.arange(frames) / 30
    poses = draw_path(spec, draws, middle, 0.3, times[-1] / 2)(times)
    value = {d.key: d.value for d in draws.record()}
    assert se3.is_rigid(poses)
    eyes = poses[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(eyes - middle, axis=1), value["camera.distance_m"], rtol=1e-9)
    velocity = np.linalg.norm(np.diff(eyes, axis=0), axis=1) * 30
    assert velocity.max() <= speed * (1 + 1e-9) + 1e-9
    target = middle + [value[f"camera.look_at_offset_m.{a}"] for a in "xyz"]
    seen = se3.transform(se3.inverse(poses), np.broadcast_to(target, (frames, 1, 3)))[:, 0]
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], 0, atol=1e-9)


def test_azimuth_zero_is_in_front_of_the_robot():
    spec = CameraSpec(distance_m=2.0, azimuth_deg=0.0, elevation_deg=30.0, look_at_offset_m=0.0, roll_deg=0.0)
    pose = draw_path(spec, Draws(0, 0), np.zeros(3), np.pi / 2, 0.0)(np.zeros(1))[0]
    np.testing.assert_allclose(pose[:3, 3], [0, 2 * np.cos(np.pi / 6), 1], atol=1e-12)
    np.testing.assert_allclose(pose[:3, 0], [-1, 0, 0], atol=1e-12)  # image x: right of someone who looks along −y


@pytest.fixture(scope="module")
def posed(panda):
    rng = np.random.default_rng(5)
    q = rng.uniform(panda.q_lower, panda.q_upper, (6, panda.dof)) * 0.5
    return q, sweep(panda, ("dream7",), q, np.eye(4))


def test_covered_share_is_the_silhouette_s_and_a_little_more(panda, posed):
    q, robot = posed
    spec = CameraSpec(width=320, height=180)
    K = camera_matrix(spec)
    eye = np.stack([se3.look_at((1.3 * np.cos(a), 1.3 * np.sin(a), 0.8), (0, 0, 0.4)) for a in np.arange(6)])
    estimate = robot_fraction(K, eye, robot.surface_m, 320, 180)
    T_base_link = forward_kinematics(panda, q)
    meshes = load_link_meshes(panda)
    scene = RayScene([TriMesh(m.vertices_m, m.faces) for m in meshes])
    for f in range(6):
        poses = np.stack([T_base_link[f, m.link_index] for m in meshes])
        true = amodal_masks(scene, poses, [range(len(meshes))], K, eye[f], 320, 180).mean()
        assert true * 0.95 < estimate[f] < true * 1.6


def test_nothing_is_seen_behind_the_camera(posed):
    _, robot = posed
    K = camera_matrix(CameraSpec())
    away = np.stack([se3.look_at((1.5, 0, 0.5), (3.0, 0, 0.5))] * 6)
    assert (robot_fraction(K, away, robot.surface_m, 640, 360) == 0).all()
    assert (keypoints_in_image(K, away, robot.keypoints_m, 640, 360) == 0).all()


@pytest.mark.parametrize(
    "change, reason, advice",
    [
        ({"distance_m": 30.0}, "robot too small: 20", "shorten camera.distance_m"),
        ({"look_at_offset_m": 5.0}, "too few keypoints: 20", "camera.min_keypoints_in_image"),
        ({"elevation_deg": -80.0}, "below the table: 20", "raise camera.elevation_deg"),
        ({"distance_m": 0.05}, "too near the robot: ", "raise camera.distance_m"),
    ],
)
def test_a_camera_that_never_sees_the_robot_is_an_error_with_counts(posed, change, reason, advice):
    spec = CameraSpec(tries=20, **change)
    with pytest.raises(SceneError, match="^video 3: no camera saw the robot in 20 draws") as caught:
        place_camera(spec, Draws(0, 3), posed[1], 0.0, np.arange(6) / 15)
    assert reason in str(caught.value) and advice in str(caught.value) and "\n" not in str(caught.value)


def test_rejected_draws_are_counted_and_the_accepted_path_is_fine(posed):
    spec = CameraSpec(min_keypoints_in_image=7, distance_m=Uniform(uniform=(0.5, 1.6)))
    _, robot = posed
    path, rejected = place_camera(spec, Draws(1, 0), robot, 0.0, np.arange(6) / 15)
    assert set(rejected) <= {"too few keypoints", "too near the robot", "robot too small", "below the table"} and rejected.total() > 0
    poses = path(np.arange(6) / 15)
    assert keypoints_in_image(camera_matrix(spec), poses, robot.keypoints_m, 640, 360).min() == 7
