"""The numpy parts of camera solving: checks, pairs, views, covariances, motion masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators import sfm_checks, sfm_covariance, sfm_pairs, sfm_views
from annotators.motion_mask import motion_mask, sample_frames
from annotators.sfm_child import carry, choose, cross_check
from annotators.sfm_colmap import Model
from dataengine.geometry import se3
from dataengine.geometry.camera import project
from tests.annotators import sfm_scene as scene


def exp(xi: np.ndarray) -> np.ndarray:
    """First-order exact pose increment [rho, phi] (rotation exact, translation uncoupled: equal for small phi)."""
    angle = np.linalg.norm(xi[3:])
    axis = xi[3:] / angle if angle else np.array([1.0, 0.0, 0.0])
    return se3.make(se3.rotation_from_axis_angle(axis, angle), xi[:3])


def cloud(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform([-1.0, -0.8, 0.0], [-0.3, -0.2, 0.6], (n, 3))


@pytest.fixture
def network() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    T, points = scene.arc(4), cloud(np.random.default_rng(0), 15)
    obs_frame, obs_point = (a.ravel() for a in np.meshgrid(np.arange(4), np.arange(15), indexing="ij"))
    return T, points, obs_point, obs_frame


def test_jacobians_agree_with_finite_differences(network):
    T, points, obs_point, obs_frame = network
    uv, by_pose, by_point = sfm_covariance.jacobians(scene.K, T[obs_frame], points[obs_point])
    for o in (0, 17, 59):
        f, p, step = obs_frame[o], obs_point[o], 1e-6
        assert uv[o] == pytest.approx(project(scene.K, se3.transform(se3.inverse(T[f]), points[p : p + 1]))[0], abs=1e-9)
        for k in range(6):
            moved = project(scene.K, se3.transform(se3.inverse(T[f] @ exp(step * np.eye(6)[k])), points[p : p + 1]))[0]
            assert (moved - uv[o]) / step == pytest.approx(by_pose[o, :, k], abs=2e-2)
        for k in range(3):
            moved = project(scene.K, se3.transform(se3.inverse(T[f]), points[p : p + 1] + step * np.eye(3)[k]))[0]
            assert (moved - uv[o]) / step == pytest.approx(by_point[o, :, k], abs=2e-2)


def test_bundle_covariance_equals_the_dense_normal_equations_projected_to_the_gauge(network):
    T, points, obs_point, obs_frame = network
    sigma, n, m = 0.7, len(T), len(points)
    T1, scale = sfm_covariance.normalise_scale(T, points, obs_point, obs_frame)
    _, A, B = sfm_covariance.jacobians(scene.K, T1[obs_frame], points[obs_point] / scale)
    J = np.zeros((2 * len(obs_point), 6 * n + 3 * m))
    for o, (f, p) in enumerate(zip(obs_frame, obs_point, strict=True)):
        J[2 * o : 2 * o + 2, 6 * f : 6 * f + 6] = A[o]
        J[2 * o : 2 * o + 2, 6 * n + 3 * p : 6 * n + 3 * p + 3] = B[o]
    values, vectors = np.linalg.eigh(J.T @ J)
    assert values[6] < 1e-9 * values[7]  # seven free directions
    gauge = vectors[:, :7]
    select = np.zeros((6 * n + 3 * m, 6 * n + 3 * m))
    select[: 6 * n, : 6 * n] = np.eye(6 * n)
    hold = np.eye(len(select)) - gauge @ np.linalg.solve(gauge.T @ select @ gauge, gauge.T @ select)
    dense = hold @ ((vectors[:, 7:] / values[7:]) @ vectors[:, 7:].T) @ hold.T * sigma**2
    total, structure = sfm_covariance.bundle_covariance(scene.K, T, points, obs_point, obs_frame, sigma)
    unit = np.diag([scale] * 3 + [1.0] * 3)
    for k in range(n):
        expected = unit @ dense[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] @ unit
        assert total[k] == pytest.approx(expected, rel=1e-3, abs=1e-4 * expected.max())
        assert np.linalg.eigvalsh(structure[k]).min() > -1e-12


def test_covariance_scales_with_the_model(network):
    T, points, obs_point, obs_frame = network
    total, _ = sfm_covariance.bundle_covariance(scene.K, T, points, obs_point, obs_frame, 1.0)
    bigger = T.copy()
    bigger[:, :3, 3] *= 10
    scaled, _ = sfm_covariance.bundle_covariance(scene.K, bigger, points * 10, obs_point, obs_frame, 1.0)
    unit = np.diag([10.0] * 3 + [1.0] * 3)
    assert scaled == pytest.approx(unit @ total @ unit, rel=1e-4, abs=1e-9)


def focal_steps(rng: np.random.Generator, focal_error: float, noise_px: float, tries: int) -> tuple[np.ndarray, float]:
    """Corrections (tries,) found from true poses and points, seen with noise, under a K whose focal length is wrong; and the stated sd."""
    T, points = scene.arc(7), cloud(np.random.default_rng(0), 60)
    obs_frame, obs_point = (a.ravel() for a in np.meshgrid(np.arange(7), np.arange(60), indexing="ij"))
    uv, _, _ = sfm_covariance.jacobians(scene.K, T[obs_frame], points[obs_point])
    K = scene.K.copy()
    K[[0, 1], [0, 1]] *= 1 + focal_error
    seen = [uv + noise_px * rng.normal(size=uv.shape) for _ in range(tries)]
    found = [sfm_covariance.focal_correction(K, T, points, obs_point, obs_frame, one, noise_px) for one in seen]
    return np.array([change for change, _ in found]), found[0][1]


def test_a_wrong_focal_length_is_found_to_first_order():
    change, _ = focal_steps(np.random.default_rng(0), 1e-4, 0.0, 1)
    assert change[0] == pytest.approx(-1e-4, rel=0.01)


def test_the_focal_correction_scatters_as_it_says():
    change, sigma = focal_steps(np.random.default_rng(1), 0.0, 0.3, 200)
    assert abs(change.mean()) < 4 * sigma / np.sqrt(200)
    assert 0.7 < change.std() / sigma < 1.2


def test_pose_covariance_predicts_the_scatter_of_fitted_poses():
    rng = np.random.default_rng(3)
    T, points, sigma = scene.arc(3)[1], cloud(rng, 60), 0.5
    clean, A, _ = sfm_covariance.jacobians(scene.K, np.broadcast_to(T, (60, 4, 4)), points)
    solve = np.linalg.pinv(A.reshape(-1, 6))
    scatter = np.cov(np.stack([solve @ rng.normal(0, sigma, clean.size) for _ in range(3000)]).T)
    predicted = sfm_covariance.pose_covariance(scene.K, T, points, sigma)
    assert np.diag(scatter) == pytest.approx(np.diag(predicted), rel=0.15)


def test_residual_sigma_recovers_noise_and_counts_parameters():
    rng = np.random.default_rng(1)
    assert sfm_covariance.residual_sigma_px(rng.normal(0, 0.4, (20000, 2)), 0) == pytest.approx(0.4, rel=0.03)
    assert sfm_covariance.residual_sigma_px(rng.normal(0, 0.4, (20000, 2)), 30000) == pytest.approx(0.8, rel=0.03)


def test_carried_covariance_is_that_of_a_rigid_pair():
    rng = np.random.default_rng(2)
    a, b = scene.arc(5)[0], scene.arc(5)[4]
    xi = rng.normal(size=6) * 1e-6
    moved = se3.inverse(b) @ (a @ exp(xi) @ se3.inverse(a)) @ b
    skew = (moved[:3, :3] - moved[:3, :3].T) / 2
    eta = np.concatenate([moved[:3, 3], [skew[2, 1], skew[0, 2], skew[1, 0]]])
    assert carry(np.outer(xi, xi), a, b) == pytest.approx(np.outer(eta, eta), rel=1e-3, abs=1e-16)


def rays_of(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    p = se3.transform(se3.inverse(T), points)
    return p / p[:, 2:]


def test_parallax_is_zero_for_a_turn_and_grows_with_the_baseline():
    points = cloud(np.random.default_rng(0), 200)
    turns, moves = scene.turning(2), scene.arc(3)
    assert sfm_checks.rotation_residual_px(rays_of(turns[0], points), rays_of(turns[1], points), 300.0) < 1e-6
    near = sfm_checks.rotation_residual_px(rays_of(moves[0], points), rays_of(moves[1], points), 300.0)
    far = sfm_checks.rotation_residual_px(rays_of(moves[0], points), rays_of(moves[2], points), 300.0)
    assert sfm_checks.MIN_PARALLAX_PX < near < far


def test_triangulation_angle_of_two_cameras_is_exact():
    T = np.stack([np.eye(4), se3.make(np.eye(3), (1.0, 0.0, 0.0))])
    points, obs_point, obs_frame = np.array([[0.0, 0.0, 1.0], [0.5, 0.0, 0.5]]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    angles = sfm_checks.triangulation_angles_deg(T, points, obs_point, obs_frame)
    assert angles == pytest.approx([45.0, 90.0])


@given(st.integers(0, 2**31), st.floats(0.05, 20.0))
@settings(max_examples=25, deadline=None)
def test_models_that_differ_by_a_similarity_agree(seed, size):
    rng = np.random.default_rng(seed)
    T = scene.arc(6)
    G = exp(rng.normal(size=6))
    other = G @ T
    other[:, :3, 3] *= size
    found = sfm_checks.disagreement(T, other)
    assert found["translation_share"] < 1e-9
    assert found["rotation_deg"] < 1e-5


def test_disagreement_measures_a_turned_camera():
    T = scene.arc(7)
    turned = T.copy()
    angles = np.radians(2.0) * (-1.0) ** np.arange(7)
    turned[:, :3, :3] = T[:, :3, :3] @ se3.rotation_from_axis_angle(np.tile([0.0, 0.0, 1.0], (7, 1)), angles)
    assert sfm_checks.disagreement(T, turned)["rotation_deg"] == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (sfm_checks.refuse_features(np.array([20, 30, 40]), np.array([100])), "30 features in the median keyframe, at least 80"),
        (sfm_checks.refuse_features(np.array([500, 500]), np.array([3])), "3 matches"),
        (sfm_checks.refuse_features(np.array([500, 500]), np.array([], int)), "0 matches"),
        (sfm_checks.refuse_parallax(np.array([0.3, 0.6]), 20.0), "0.60 px"),
        (sfm_checks.refuse_parallax(np.array([0.3]), 0.0), "name the frames as static"),
        (sfm_checks.refuse_model(4, 10, np.array([9.0]), 3.0), "only 4 of 10"),
        (sfm_checks.refuse_model(10, 10, np.array([1.1]), 3.0), "1.10 degrees"),
        (sfm_checks.weak_texture(np.array([20, 43, 60])), "posed by 43 points"),
        (sfm_checks.wrong_focal(-0.043, 0.003, 636.0), "-4.2 % (± 0.3 %) from the given 636.0 px"),
    ],
)
def test_refusals_say_what_was_measured(refusal, says):
    assert refusal is not None
    assert says in refusal
    assert "\n" not in refusal


def test_good_captures_are_not_refused():
    assert sfm_checks.refuse_features(np.array([500]), np.array([200])) is None
    assert sfm_checks.refuse_parallax(np.array([0.3, 8.0]), 5.0) is None
    assert sfm_checks.refuse_model(9, 10, np.array([8.0, 9.0]), 8.0) is None
    assert sfm_checks.weak_texture(np.array([300])) is None
    assert sfm_checks.wrong_focal(0.008, 0.0005, 600.0) is None  # surely there, but too small to matter
    assert sfm_checks.wrong_focal(0.05, 0.02, 600.0) is None  # large, but not sure


@given(st.lists(st.integers(1, 6), max_size=5), st.integers(1, 6))
def test_views_cover_every_frame_once_and_keep_segments_whole(lengths, tail):
    static, at = [], 0
    for k, length in enumerate(lengths):
        if k % 2:
            static.append((at, at + length))
        at += length
    views = sfm_views.view_ranges(at + tail, static)
    assert [i for first, end in views for i in range(first, end)] == list(range(at + tail))
    assert set(static) <= set(views)
    assert all(end - first == 1 for first, end in views if (first, end) not in static)


@given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=200))
def test_keyframes_hold_both_ends_and_never_skip_more_than_a_step(steps):
    chosen = sfm_views.keyframes_from_flow(steps)
    assert chosen[0] == 0
    assert chosen[-1] == len(steps)
    assert chosen == sorted(set(chosen))
    for a, b in zip(chosen, chosen[1:], strict=False):
        assert sum(steps[a : b - 1]) <= sfm_views.KEYFRAME_STEP[1] + 1e-9


def test_flow_step_measures_a_known_shift():
    image = scene.picture(scene.arc(3)[1])[..., 0]
    assert sfm_views.flow_step(image[:, :300], image[:, 6:306]) == pytest.approx(6 / 300, rel=0.1)
    assert sfm_views.flow_step(np.zeros_like(image), image) == 1.0


def test_pairs_are_ordered_unique_and_near():
    pairs = sfm_pairs.sequential_pairs(50)
    assert len(pairs) == len(set(pairs))
    assert all(i < j < 50 for i, j in pairs)
    assert {(i, i + 1) for i in range(49)} <= set(pairs)


def test_a_place_seen_again_is_a_loop_pair():
    rng = np.random.default_rng(0)
    places = [rng.integers(0, 255, (80, 128), dtype=np.uint8) for _ in range(12)]
    seen = [*places, *(np.clip(p + rng.normal(0, 6, p.shape), 0, 255).astype(np.uint8) for p in places)]
    pairs = sfm_pairs.loop_pairs(sfm_pairs.vlad(seen, np.random.default_rng(1)))
    assert {(i, i + 12) for i in range(12)} <= set(pairs)
    assert sfm_pairs.nearest_keyframes(5, [0, 4, 6, 20], 3) == [4, 6, 0]


def test_views_without_descriptors_have_no_loops():
    assert sfm_pairs.loop_pairs(sfm_pairs.vlad([np.empty((0, 128), np.uint8)] * 12, np.random.default_rng(0))) == []


def test_motion_mask_covers_what_moved_and_little_else():
    rng = np.random.default_rng(0)
    still = scene.picture(scene.arc(3)[1]).astype(float)
    frames = []
    for i in range(6):
        image = still + rng.normal(0, 2.0, still.shape)
        image[60:110, 40 + 25 * i : 90 + 25 * i] = rng.integers(0, 255)
        frames.append(np.clip(image, 0, 255).astype(np.uint8))
    mask = motion_mask(scene.capture(frames), (0, 6))
    assert mask[62:108, 42:210].mean() > 0.95
    outside = mask.copy()
    outside[45:125, 25:230] = False
    assert outside.mean() < 0.01
    assert not motion_mask(scene.capture(frames[:1]), (0, 1)).any()


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 20))
def test_samples_stay_in_the_segment(first, length, samples):
    found = sample_frames((first, first + length), samples)
    assert found[0] == first
    assert found[-1] < first + length
    assert len(found) <= samples


def test_lasting_errors_in_tracks_raise_the_variance_and_white_ones_do_not():
    rng = np.random.default_rng(0)
    point, pose = (a.ravel() for a in np.meshgrid(np.arange(1500), np.arange(12), indexing="ij"))

    def fitted(noise: np.ndarray) -> np.ndarray:
        return (noise - noise.mean(1, keepdims=True)).reshape(-1, 2)

    white = rng.normal(size=(1500, 12, 2))
    lasting = (white + np.roll(white, 1, axis=1) + np.roll(white, 2, axis=1)) / np.sqrt(3)
    assert sfm_covariance.correlation_in_tracks(fitted(white), point, pose) == pytest.approx(1.0, abs=0.1)
    assert sfm_covariance.correlation_in_tracks(fitted(lasting), point, pose) == pytest.approx(3.0, abs=0.4)


def test_errors_shared_by_neighbours_raise_the_variance():
    rng = np.random.default_rng(0)
    uv, pose = rng.uniform(0, 400, (600, 2)), np.repeat(np.arange(2), 300)
    white = rng.normal(size=(600, 2))
    assert sfm_covariance.correlation_in_pictures(white, pose, uv, 20.0) == pytest.approx(1.0, abs=0.3)
    bent = np.stack([np.sin(uv[:, 0] / 60), np.cos(uv[:, 1] / 60)], -1)
    neighbours = 300 * np.pi * 20.0**2 / 400**2
    assert sfm_covariance.correlation_in_pictures(bent, pose, uv, 20.0) == pytest.approx(1.0 + neighbours, rel=0.3)


def model(count: int, T: np.ndarray | None = None) -> Model:
    """A model that poses the first `count` views of an arc."""
    none = np.empty(0, np.int64)
    return Model(np.arange(count), scene.arc(20)[:count] if T is None else T, np.empty((0, 3)), none, none, none)


@pytest.mark.parametrize(
    ("incremental", "global_", "chosen"),
    [
        (20, 20, "incremental"),
        (19, 20, "incremental"),
        (12, 20, "global"),
        (20, 5, "incremental"),
        (None, 8, "global"),
        (8, None, "incremental"),
    ],
)
def test_auto_takes_the_mapper_that_poses_more(incremental, global_, chosen):
    models = {"incremental": None if incremental is None else model(incremental), "global": None if global_ is None else model(global_)}
    name, found = choose(models)
    assert name == chosen
    assert found is models[chosen]


def test_auto_without_any_model_has_none():
    assert choose({"incremental": None, "global": None})[1] is None


def test_cross_check_compares_what_both_pose():
    bigger = scene.arc(20)
    bigger[:, :3, 3] *= 3.0
    found = cross_check({"incremental": model(20), "global": model(10, bigger[:10])}, "incremental")
    assert found["posed_share"] == 0.5
    assert found["translation_share"] < 1e-9
    assert cross_check({"incremental": model(20)}, "incremental") == {}
    assert cross_check({"incremental": model(20), "global": None}, "incremental") == {"posed_share": 0.0}
