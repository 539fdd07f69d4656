"""The predictor with a detector that is exact, and with an untrained one where only its refusals count."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dataengine.robot.catalogue import load_robot
from tests.training.detectors import HEIGHT, MICRO, WIDTH, labelled_batch, save_detector
from training.crops import whole_view
from training.detector import Detector
from training.detector_eval import disturbed, load_finder, measure_found, pck_auc
from training.errors import TrainingError
from training.finder import Finder, Found, photo_tensor
from training.kinematics import KeypointChain
from training.predictor import DOUBTFUL, FOUND, NO_ROBOT, TOO_FEW, RobotPoseEstimator, checked_camera
from training.scene_statistics import Scenes, joint_prior, sample_scenes

PHOTO = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture(scope="module")
def chain() -> KeypointChain:
    return KeypointChain.from_model(load_robot("panda"), "panda15")


@pytest.fixture(scope="module")
def scenes(chain: KeypointChain) -> Scenes:
    return sample_scenes(chain, 6, 70.21, torch.Generator().manual_seed(3), inside_image=True)


class ExactFinder:
    """Finds the points it was told, in any photo; remembers whether it was given a last frame."""

    def __init__(self, points_px: np.ndarray, confidence: float = 0.95, robot: float = 0.98, sigma_px: float = 0.5) -> None:
        n = len(points_px)
        covariance = np.tile(sigma_px**2 * np.eye(2), (n, 1, 1))
        parts = (points_px, covariance, np.full(n, confidence), np.full(n, 0.9), robot, np.eye(3), np.zeros((4, 4)), 1)
        self.found, self.last = Found(*parts), None

    def find(self, image_rgb: np.ndarray, last_px: np.ndarray | None = None) -> Found:
        self.last = last_px
        return self.found


def estimator_of(chain: KeypointChain, finder: ExactFinder) -> RobotPoseEstimator:
    return RobotPoseEstimator(finder, chain, prior=joint_prior(chain))  # pyright: ignore[reportArgumentType]


def add_mm(X: np.ndarray, truth: torch.Tensor) -> float:
    return 1e3 * float(np.linalg.norm(X - truth.numpy(), axis=1).mean())


def test_exact_points_give_the_exact_robot(chain: KeypointChain, scenes: Scenes) -> None:
    errors = []
    for i in range(len(scenes)):
        estimate = estimator_of(chain, ExactFinder(scenes.uv[i].numpy(), sigma_px=0.05))(PHOTO, scenes.K[i].numpy())
        assert estimate.status == FOUND and estimate.mode == "search" and estimate.confidence > 0.85
        assert np.abs(estimate.fitted_px - scenes.uv[i].numpy()).max() < 0.5
        errors.append(add_mm(estimate.keypoints_cam_m, scenes.X_cam[i]))
        inside = chain.forward_one(estimate.joints_rad) @ estimate.T_cam_base[:3, :3].T + estimate.T_cam_base[:3, 3]
        assert np.abs(inside - estimate.keypoints_cam_m).max() < 1e-6
        assert set(estimate.seconds) == {"detect", "lift", "refine"}
    assert np.median(errors) < 1.0 and max(errors) < 10


def test_the_next_frame_starts_at_the_last(chain: KeypointChain, scenes: Scenes) -> None:
    K = scenes.K[0].numpy()
    first = estimator_of(chain, ExactFinder(scenes.uv[0].numpy()))(PHOTO, K)
    q = scenes.q[:1] + 0.03
    X = chain.forward(q) @ scenes.R[0].T + scenes.T[0]
    uv = (X @ scenes.K[0].T)[0]
    finder = ExactFinder((uv[:, :2] / uv[:, 2:]).numpy())
    second = estimator_of(chain, finder)(PHOTO, K, last=first)
    assert second.mode == "last frame" and finder.last is not None and np.array_equal(finder.last, first.fitted_px)
    assert add_mm(second.keypoints_cam_m, X[0]) < 5


def test_a_last_frame_that_has_nothing_to_do_with_this_one_is_left(chain: KeypointChain, scenes: Scenes) -> None:
    K = scenes.K[0].numpy()
    first = estimator_of(chain, ExactFinder(scenes.uv[0].numpy()))(PHOTO, K)
    other = estimator_of(chain, ExactFinder(scenes.uv[3].numpy()))(PHOTO, K, last=first)
    assert other.mode == "search" and add_mm(other.keypoints_cam_m, scenes.X_cam[3]) < 20


def test_without_a_robot_it_says_so(chain: KeypointChain, scenes: Scenes) -> None:
    K = scenes.K[0].numpy()
    none = estimator_of(chain, ExactFinder(scenes.uv[0].numpy(), 0.02, 0.03))(PHOTO, K)
    assert none.status == NO_ROBOT and none.confidence < 0.01 and none.mode == ""
    few = estimator_of(chain, ExactFinder(scenes.uv[0].numpy(), 0.05, 0.9))(PHOTO, K)
    assert few.status == TOO_FEW and few.confidence < 0.1
    for estimate in (none, few):
        assert np.isnan(estimate.joints_rad).all() and estimate.keypoints_cam_m.shape == (15, 3) and np.isnan(estimate.T_cam_base).all()
    after = estimator_of(chain, ExactFinder(scenes.uv[0].numpy()))(PHOTO, K, last=none)
    assert after.status == FOUND and after.mode == "search"


def test_a_pose_of_low_confidence_is_not_given(chain: KeypointChain, scenes: Scenes) -> None:
    """Weak points that fit, and sure points that fit no robot: neither is called found, nor followed in the next frame."""
    K = scenes.K[0].numpy()
    weak = estimator_of(chain, ExactFinder(scenes.uv[0].numpy(), 0.3, 0.75))(PHOTO, K)
    anywhere = np.random.default_rng(0).uniform((100, 100), (540, 380), (15, 2))
    unfit = estimator_of(chain, ExactFinder(anywhere))(PHOTO, K)
    for estimate in (weak, unfit):
        assert estimate.status == DOUBTFUL and estimate.confidence < 0.5 and estimate.mode == ""
        assert np.isnan(estimate.joints_rad).all() and np.isnan(estimate.keypoints_cam_m).all()
    finder = ExactFinder(scenes.uv[0].numpy())
    assert estimator_of(chain, finder)(PHOTO, K, last=unfit).status == FOUND and finder.last is None


def test_points_that_do_not_fit_lower_the_confidence(chain: KeypointChain, scenes: Scenes) -> None:
    points = scenes.uv[0].numpy().copy()
    good = estimator_of(chain, ExactFinder(points))(PHOTO, scenes.K[0].numpy())
    points[[2, 5, 9]] += 80.0
    bad = estimator_of(chain, ExactFinder(points))(PHOTO, scenes.K[0].numpy())
    assert bad.confidence < good.confidence - 0.1


@pytest.mark.parametrize(
    ("K", "message"),
    [
        ([[500, 0, 960], [0, 500, 540], [0, 0, 1]], r"principal point at \(960.0, 540.0\), far from the middle of the image of 640x480"),
        ([[500, 0, 159.5], [0, 500, 119.5], [0, 0, 1]], "it is of an image of another size"),
        ([[0, 0, 320], [0, 500, 240], [0, 0, 1]], "is no camera"),
        ([[500, 320], [500, 240]], r"K of shape \(2, 2\) is no camera"),
        ([[500, 0, float("nan")], [0, 500, 240], [0, 0, 1]], "is no camera"),
    ],
)
def test_a_camera_of_another_image_is_refused(K: list, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        checked_camera(K, 640, 480)
    assert checked_camera([[500, 0, 300], [0, 500, 260], [0, 0, 1]], 640, 480).dtype == np.float64


@pytest.mark.parametrize(
    "image",
    [np.zeros((480, 640), np.uint8), np.zeros((480, 640, 3), np.float32), np.zeros((8, 640, 3), np.uint8), np.zeros((9, 9, 4), np.uint8)],
)
def test_what_is_no_photo_is_refused(image: np.ndarray) -> None:
    with pytest.raises(TrainingError, match="give RGB as uint8"):
        photo_tensor(image)


# ---- checkpoints -----------------------------------------------------------------------------------------------------------


def identity(chain: KeypointChain, **changes: object) -> dict:
    names = {"robot": chain.robot, "keypoint_set": chain.keypoint_set, "keypoints": list(chain.keypoint_names)}
    return {"recipe": "detector", **names, **changes}


def test_a_checkpoint_becomes_an_estimator(chain: KeypointChain, tmp_path: Path) -> None:
    path = save_detector(tmp_path / "detector" / "model.safetensors", identity(chain))
    for given in (path, tmp_path / "detector", tmp_path):
        estimator = RobotPoseEstimator.load(given)
        assert estimator.chain.keypoint_names == chain.keypoint_names and estimator.lifter is None
    rng = np.random.default_rng(0)
    for photo in (PHOTO, rng.integers(0, 256, (360, 640, 3), np.uint8), np.full((40, 31, 3), 255, np.uint8)):
        height, width = photo.shape[:2]
        estimate = estimator(photo, [[300, 0, (width - 1) / 2], [0, 300, (height - 1) / 2], [0, 0, 1]])  # untrained: anything but a crash
        assert estimate.keypoints_px.shape == (15, 2) and 0 <= estimate.confidence <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"recipe": "lifter"}, "holds a lifter, not a detector"), ({"keypoints": ["x"] * 15}, "the detector is for keypoints x, x")],
)
def test_checkpoints_that_do_not_fit_are_refused(chain: KeypointChain, tmp_path: Path, changes: dict, message: str) -> None:
    path = save_detector(tmp_path / "model.safetensors", identity(chain, **changes))
    with pytest.raises(TrainingError, match=message):
        RobotPoseEstimator.load(path)


def test_a_detector_of_another_robot_is_refused(chain: KeypointChain, tmp_path: Path) -> None:
    from training.predictor import _check_pair

    with pytest.raises(TrainingError, match="the detector is for robot ur5, the lifter for panda"):
        _check_pair(identity(chain, robot="ur5"), chain, "lifter")
    with pytest.raises(TrainingError, match="no checkpoint at"):
        RobotPoseEstimator.load(tmp_path / "nothing")
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TrainingError, match="cannot be read"):
        RobotPoseEstimator.load(tmp_path)


# ---- finding ---------------------------------------------------------------------------------------------------------------


def test_half_precision_finds_nearly_the_same(chain: KeypointChain, tmp_path: Path) -> None:
    path = save_detector(tmp_path / "model.safetensors", identity(chain))
    exact, half = (load_finder(str(path), half)[0] for half in (False, True))
    photo = labelled_batch(1)["rgb"][0].numpy()
    for finder in (exact, half):
        assert finder.find(photo).points_px.shape == (15, 2)
    a, b = (f._look(torch.from_numpy(photo), whole_view(HEIGHT, WIDTH, MICRO.size), None, 1) for f in (exact, half))
    assert np.abs(a.mask - b.mask).max() < 0.02 and abs(a.robot - b.robot) < 0.02


def test_the_second_look_is_around_what_the_first_saw() -> None:
    torch.manual_seed(0)
    finder = Finder(Detector(MICRO, 4), half=False)
    A = whole_view(HEIGHT, WIDTH, MICRO.size)
    mask = np.zeros((16, 16), np.float32)
    mask[5:9, 6:11] = 1
    points = np.array([[20.0, 20.0], [60.0, 50.0], [90.0, 70.0], [0.0, 0.0]])
    found = Found(points, np.tile(np.eye(2), (4, 1, 1)), np.array([0.9, 0.8, 0.1, 0.1]), np.ones(4), 0.9, A.numpy(), mask, 1)
    window = finder._second_window(found, HEIGHT, WIDTH)
    assert window is not None
    corners = np.array([[20.0, 20.0, 1], [60.0, 50.0, 1]]) @ window.numpy().T
    assert (corners[:, :2] > 0).all() and (corners[:, :2] < 63).all()
    nothing = Found(points, found.covariance_px2, np.zeros(4), found.seen, 0.1, found.A, 0 * mask, 1)
    assert finder._second_window(nothing, HEIGHT, WIDTH) is None


# ---- measures ---------------------------------------------------------------------------------------------------------------


def test_measures_of_known_errors() -> None:
    assert pck_auc(np.array([0.0, 10.0, 40.0, np.nan])) == pytest.approx(100 * (1 + 0.5) / 4)
    rng = np.random.default_rng(0)
    batch = labelled_batch(40)
    points = batch["keypoints_px"].numpy()
    noisy = points + 2.0 * rng.normal(size=points.shape)
    covariance = np.tile(4.0 * np.eye(2), (4, 1, 1))
    found = [Found(p, covariance, np.full(4, 0.9), np.ones(4), 1.0, np.eye(3), np.zeros((4, 4)), 1) for p in noisy]
    measured = measure_found(found, batch)
    assert measured["axis_sigma_px"] == pytest.approx(2.0, rel=0.15) and measured["coverage_90"] == pytest.approx(90, abs=6)
    assert measured["median_px"] == pytest.approx(2.0 * np.sqrt(2 * np.log(2)), rel=0.15) and measured["keypoints"] == 160
    moved = disturbed(points, 3.0, rng)
    assert (moved - points).std() == pytest.approx(3 * np.sqrt(2), rel=0.15)
