"""Analytic derivatives against finite differences; starts, scales, associations and landmarks on their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from annotators import anchor_icp, anchor_scale, anchor_start
from annotators.anchor_inputs import choose_slots, click_measurements, gather, make_problem
from annotators.anchor_optimise import design_effect
from annotators.anchor_posterior import interpolate
from annotators.anchor_state import AnchorOptions, Problem, State, exponential, logarithm, make_layout, retract
from annotators.anchor_surface import clean_mask, robot_shape, signed_distance, view_robot
from annotators.anchor_terms import Measurements, add_priors, kinematics, normal_equations, residuals, total_cost
from annotators.landmarks import landmark_set, landmarks
from annotators.next_click import next_best_click
from annotators.types import CameraTrack, ScaleEstimate
from dataengine.errors import RobotError
from dataengine.geometry import se3
from dataengine.raycast.scene import RayScene, TriMesh
from dataengine.raycast.views import render_labels
from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import observability
from dataengine.robot.kinematics import forward_kinematics
from tests.annotators.anchor_scene import SIZE, K, make_scene


def problem_and_state(mode: str) -> tuple[Problem, State, list[Measurements]]:
    """A problem with every unknown free, a state away from its optimum, and measurements of all kinds."""
    scene = make_scene(4, frames=8, clicked=4)
    options = AnchorOptions(use_depth=False, estimate_intrinsics=True)
    inputs = gather(scene.capture, scene.track, scene.clicks, options, None)
    slots = choose_slots(inputs)
    layout = make_layout(slots, 8, mode, options, static=False, depth=True)  # type: ignore[arg-type]
    problem = replace(make_problem(inputs, slots, mode), layout=layout, scale_sources=(("depth", 0.4, 0.01), ("stereo", 0.36, 0.01)))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    T_world_base = scene.track.T_world_cam[0].copy()
    T_world_base[:3, 3] *= 0.37
    F = len(slots.frame)
    joints = {"offset": 0.02 * rng.normal(size=(1, 8)), "constant": scene.q[:1], "per_frame": scene.q[slots.frame]}[mode]
    base = (T_world_base @ scene.T_cam_base[0] @ exponential(0.02 * rng.normal(size=6)))[None]
    state = State(0.375, base, joints, K.copy(), slots.T_sfm_cam @ exponential(0.01 * rng.normal(size=(F, 6))), 0.01, 1.01, 0.01)
    clicks = click_measurements(inputs, slots)
    n = len(clicks.slot)
    normal = rng.normal(size=(n, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    flat = normal[:, :2] / np.linalg.norm(normal[:, :2], axis=1, keepdims=True)
    outline = replace(clicks, kind="outline", normal=flat)
    return problem, state, [clicks, outline]


@pytest.mark.parametrize("mode", ["offset", "constant", "per_frame"])
def test_gradient_is_that_of_the_cost(mode: str):
    problem, state, terms = problem_and_state(mode)
    _, gradient, _ = normal_equations(problem, state, terms)
    rng = np.random.default_rng(1)
    for _ in range(6):
        step = rng.normal(size=problem.layout.size) * 1e-6
        up, down = (total_cost(problem, retract(problem, state, sign * step), terms) for sign in (1, -1))
        assert (up - down) / 2 == pytest.approx(2 * gradient @ step, rel=2e-2, abs=1e-7)  # the prior of cameras is of first order


def test_depth_residual_derivatives():
    problem, state, (clicks, _) = problem_and_state("constant")
    from annotators.anchor_terms import points_in_camera

    x, _ = points_in_camera(problem, state, kinematics(problem, state), clicks)
    n = len(x)
    normal = np.tile([0.0, 0.0, 1.0], (n, 1))
    depth = replace(clicks, kind="depth", target=x * 1.01, normal=normal, sigma=np.full(n, 0.01))
    _, J = residuals(problem, state, kinematics(problem, state), depth)
    for column in (0, 1, 3, 16, 17, 8):  # scale, base translation, depth gain and slope; a joint
        if column == 8:
            continue
        step = np.zeros(problem.layout.size)
        index = problem.layout.columns[0, column]
        step[index] = 1e-6
        up, down = (
            residuals(problem, moved, kinematics(problem, moved), depth)[0]
            for moved in (retract(problem, state, step), retract(problem, state, -step))
        )
        rows = clicks.slot == 0
        np.testing.assert_allclose(((up - down) / 2e-6)[rows], J[rows][:, :, column], rtol=2e-2, atol=0.05)


def test_priors_are_least_at_their_means():
    problem, state, _ = problem_and_state("constant")
    P = problem.layout.size
    calm = replace(state, T_sfm_cam=problem.slots.T_sfm_cam, time_offset_s=0.0, depth_gain=1.0, depth_slope_per_m=0.0)
    assert add_priors(problem, calm, np.zeros((P, P)), np.zeros(P)) < add_priors(problem, state, np.zeros((P, P)), np.zeros(P))


def test_exponential_and_logarithm_are_inverse():
    twist = np.random.default_rng(0).uniform(-1, 1, (50, 6))
    np.testing.assert_allclose(logarithm(exponential(twist)), twist, atol=1e-12)


def test_perspective_n_point_survives_a_third_of_wrong_points():
    rng = np.random.default_rng(2)
    points = rng.uniform(-0.4, 0.4, (15, 3))
    T = se3.make(se3.rotation_from_rpy((0.3, -0.4, 1.0)), (0.1, 0.0, 1.5))
    x = se3.transform(T, points) @ K.T
    uv = x[:, :2] / x[:, 2:]
    uv[:5] += rng.uniform(40, 90, (5, 2))
    found = anchor_start.pnp(points, uv, K)
    assert found is not None and found[1] == 10
    np.testing.assert_allclose(found[0], T, atol=1e-5)


def test_base_and_scale_from_frames():
    scene = make_scene(0, noise_px=0.0)
    found = anchor_start.base_and_scale(scene.T_cam_base, scene.track.T_world_cam, np.ones(30), None)
    assert found is not None and found[0] == pytest.approx(0.37, rel=5e-3)


def test_masked_depth_alone_finds_the_base():
    scene = make_scene(1, frames=4, clicked=2, camera_moves=False, depth=True)
    depth = scene.capture.depth_z_m
    assert depth is not None
    clouds = anchor_icp.surface_samples(load_robot("panda"), scene.q, 1500, np.random.default_rng(0))
    measured = [anchor_icp.masked_points(depth(f), depth(f) > 0, K, 300) for f in range(4)]
    found = anchor_icp.register(measured, clouds, np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    gap = logarithm(se3.inverse(scene.T_cam_base[0]) @ found)
    assert np.linalg.norm(gap[:3]) < 0.03 and np.linalg.norm(gap[3:]) < 0.08


def test_scale_uses_depth_along_the_axis_not_range():
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-0.6, 0.6, 400), rng.uniform(-0.4, 0.4, 400), np.full(400, 1.2)], axis=-1)
    x = points @ K.T
    uv = x[:, :2] / x[:, 2:]
    n = 4
    T = np.tile(np.eye(4), (n, 1, 1))
    frame, point = np.repeat(np.arange(n), 400), np.tile(np.arange(400), n)
    track = CameraTrack(T, np.zeros((n, 6, 6)), np.ones(n, bool), (), points / 2.5, point, frame, np.tile(uv, (n, 1)), 0.5, "t")
    flat = np.full((480, 640), 1.2, np.float32)
    capture = replace(make_scene().capture, depth_z_m=lambda frame: flat)
    found = anchor_scale.depth_scale(capture, track)
    assert found is not None and found.metres_per_unit == pytest.approx(2.5, rel=1e-6)


def test_fusion_weights_by_variance_and_flags_disagreement():
    near = [ScaleEstimate("depth", 1.0, 0.001), ScaleEstimate("links", 1.002, 0.002)]
    fused, flags = anchor_scale.fuse(near)
    assert fused.metres_per_unit == pytest.approx(np.exp(np.log(1.002) * 0.2), rel=1e-4) and not flags
    _, flags = anchor_scale.fuse([near[0], ScaleEstimate("links", 1.02, 0.002)])
    assert [flag.kind for flag in flags] == ["scale_disagreement"]


def test_triangulation():
    T = np.stack([se3.look_at((x, 0.2, 1.0), (0, 0, 0)) for x in (-0.5, 0.1, 0.6)])
    point = np.array([0.05, -0.1, 0.15])
    x = se3.transform(se3.inverse(T), point[None])[:, 0] @ K.T
    np.testing.assert_allclose(anchor_scale.triangulate(K, T, x[:, :2] / x[:, 2:]), point, atol=1e-9)


def test_robot_view_agrees_with_the_ray_caster():
    model, scene = load_robot("panda"), make_scene()
    shape = robot_shape(model)
    poses = scene.T_cam_base[0] @ forward_kinematics(model, scene.q[0])
    ours = view_robot(shape, poses, K, SIZE, 4)
    cast = RayScene([TriMesh(mesh.vertices_m, mesh.faces) for mesh in shape.meshes])
    cast.pose(poses[shape.link])
    full = render_labels(cast, K, np.eye(4), *SIZE)
    np.testing.assert_allclose(ours.depth_z_m, full.depth_z_m[::4, ::4], atol=1e-5)


def test_signed_distance_of_a_half_plane():
    mask = np.zeros((20, 30), bool)
    mask[:, :10] = True
    distance = signed_distance(mask)
    np.testing.assert_allclose(distance[10, 6:14], np.arange(6, 14) - 9.5, atol=1e-6)


def test_pinholes_and_specks_vanish_but_large_holes_stay():
    mask = np.zeros((100, 100), bool)
    mask[10:90, 10:90] = True
    mask[20:22, 20:22] = False
    mask[40:70, 40:70] = False
    mask[2:4, 2:4] = True
    clean = clean_mask(mask)
    assert clean[20:22, 20:22].all() and not clean[2:4, 2:4].any() and not clean[40:70, 40:70].any()


def test_design_effect_of_copied_and_of_independent_residuals():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(200), 10)
    copied = np.repeat(rng.normal(size=200), 10)
    assert design_effect(copied, np.ones(2000), cluster) == pytest.approx(10.0)
    assert design_effect(rng.normal(size=2000), np.ones(2000), cluster) < 1.5


def test_interpolation_passes_through_and_holds_the_ends():
    known, values = np.array([0.0, 1.0, 2.0]), np.array([[0.0], [1.0], [0.0]])
    np.testing.assert_allclose(interpolate(known, values, np.array([-1.0, 0.0, 1.0, 2.0, 5.0]))[:, 0], [0, 0, 1, 0, 0])


def test_landmarks_make_every_joint_observable_and_dreams_seven_do_not():
    model, q = load_robot("panda"), make_scene().q[0]
    points = landmark_set(model)
    assert observability(model, points, q)[-1] > 1e-3
    seven = replace(points, names=points.names[:7], link_index=points.link_index[:7], offset_m=points.offset_m[:7])
    assert observability(model, seven, q)[-2] < 1e-9
    assert len({point.description for point in landmarks(model)}) == len(points)


def test_landmarks_of_any_robot():
    points = landmarks(load_robot("ur5"))
    assert len({point.name for point in points}) == len(points) >= 12


def test_next_click_is_worth_more_than_any_other_of_its_frame():
    from annotators.anchor import solve_inputs

    scene = make_scene(0, clicked=3)
    inputs = gather(scene.capture, scene.track, scene.clicks, AnchorOptions(use_depth=False), None)
    solved, _ = solve_inputs(inputs)
    best = next_best_click(inputs, solved)
    assert best is not None and best.expected_sd_m < best.present_sd_m
    here = next_best_click(inputs, solved, [0])
    assert here is None or here.expected_sd_m >= best.expected_sd_m
    assert (best.frame, best.landmark) not in {(c.frame, c.landmark) for c in scene.clicks}


def test_unknown_landmark():
    from annotators.landmarks import landmark_rows

    with pytest.raises(RobotError, match="did you mean 'elbow'"):
        landmark_rows(landmark_set(load_robot("panda")), ["elbwo"])
