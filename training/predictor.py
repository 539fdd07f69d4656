"""From one photo and its camera to the robot's joints and place: detector, lifter or many starts, refinement.

estimator = RobotPoseEstimator.load("out/detector", lifter="out/lifter")
estimate = estimator(image_rgb, K)                      # a single frame
estimate = estimator(next_image_rgb, K, last=estimate)  # the next frame of a video: a crop around the last one, a warm start
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from training.errors import TrainingError
from training.finder import Finder, Found, photo_tensor
from training.kinematics import KeypointChain
from training.lifter import Lifter
from training.proposals import lifted_starts
from training.refine import Estimate as Refined
from training.refine import Observation, RefineOptions, Starts, TemporalPrior, refine
from training.scene_statistics import JointPrior
from training.search import SearchOptions, search
from training.starts import make_pool

Array = NDArray[np.float64]
FOUND, NO_ROBOT, TOO_FEW, DOUBTFUL = "found", "no robot in view", "too few keypoints", "no pose fits the keypoints"
OUTLIER_SHARE, OUTLIER_PX = 0.08, 30.0
"""Of a detector; more and larger than in the benchmark of drawn noise."""
LEAST_POINTS = 5
"""Fewer points leave the pose and the joints before them undetermined."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One frame. N keypoints, D joints; metres, radians, pixels of the photo; camera frame OpenCV. nan where `status` is not found."""

    status: str
    """`found`, `no robot in view`, `too few keypoints` or `no pose fits the keypoints`."""
    confidence: float
    """0 to 1: probability that a robot is in view, times the mean over keypoints of confidence where they fit the pose."""
    joints_rad: Array
    """(D,)."""
    T_cam_base: Array
    """(4, 4)."""
    keypoints_cam_m: Array
    """(N, 3) of the fitted robot."""
    keypoints_px: Array
    """(N, 2) as detected."""
    covariance: Array
    """(D + 6, D + 6) of joints, then the base's turn and shift in its own frame: R exp([w]x), T + R t."""
    keypoint_covariance_m2: Array
    """(N, 3, 3) of `keypoints_cam_m`."""
    keypoint_covariance_px2: Array
    """(N, 2, 2) of `keypoints_px`."""
    keypoint_confidence: Array
    """(N,) that a keypoint is in view and was found."""
    keypoint_seen: Array
    """(N,) probability that it is not hidden."""
    fitted_px: Array
    """(N, 2) projection of `keypoints_cam_m`."""
    mode: str
    """How the refinement began: `lifter`, `search`, `last frame`; empty when there was nothing to refine."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of `detect`, `lift` and `refine`."""


@dataclass(frozen=True)
class EstimatorOptions:
    """``least_confidence``: of keypoints that are used. ``last_std``: how far joints, base turn (rad), shift (m) move in a frame."""

    least_confidence: float = 0.1
    least_robot: float = 0.5
    least_pose: float = 0.25
    """Confidence of an estimate from which it is given. Measured with a detector of 15 CPU-minutes, 34 unseen scenes: 0.20 to 0.70
    (median 0.43) with the robot, 0.00 to 0.20 (median 0.00) where it was painted over."""
    least_agreement: float = 0.5
    """Share of the keypoints, by confidence, that fit the pose; 0.82 or more in those scenes with the robot."""
    samples: int = 10
    """Of the lifter."""
    pool: int = 4096
    """Random configurations to search for starts among."""
    search: SearchOptions = SearchOptions(
        first=RefineOptions(outlier_share=OUTLIER_SHARE, outlier_px=OUTLIER_PX),
        later=RefineOptions(36, 10, 40.0, OUTLIER_SHARE, OUTLIER_PX, screen_iterations=16, finalists=12),
    )
    tracking: RefineOptions = RefineOptions(8, 2, 6.0, OUTLIER_SHARE, OUTLIER_PX)
    last_std: tuple[float, float, float] = (0.3, 0.2, 0.2)
    seed: int = 0


class RobotPoseEstimator:
    """Call it with a photo (H, W, 3) uint8 RGB and K (3, 3) of that photo. It keeps no state: the last estimate is given back to it."""

    def __init__(
        self,
        finder: Finder,
        chain: KeypointChain,
        lifter: Lifter | None = None,
        prior: JointPrior | None = None,
        options: EstimatorOptions | None = None,
    ) -> None:
        self.finder, self.chain, self.lifter = finder, chain, lifter
        self.prior = prior or limits_prior(chain)
        self.options = options or EstimatorOptions()
        self.pool = make_pool(chain, self.prior, self.options.pool, torch.Generator().manual_seed(self.options.seed))

    @classmethod
    def load(
        cls,
        detector: str | Path,
        lifter: str | Path | None = None,
        prior: JointPrior | None = None,
        options: EstimatorOptions | None = None,
        half: bool = True,
    ) -> "RobotPoseEstimator":
        """From checkpoints or folders of runs. Without a lifter, guesses are searched for (`mode` of the estimates says so).

        A folder with `detector/` and `lifter/` in it may be given as a whole. TrainingError for checkpoints that are none, or that
        do not go together.
        """
        from training.detector_eval import load_finder
        from training.lifter import load_lifter

        folder = Path(detector)
        if (folder / "detector").is_dir():
            lifter = lifter or (folder / "lifter" if (folder / "lifter").is_dir() else None)
            folder = folder / "detector"
        finder, identity = load_finder(str(folder), half)
        lifting = None if lifter is None else load_lifter(str(lifter))
        chain = _chain(identity["robot"], identity["keypoint_set"]) if lifting is None else lifting.chain
        _check_pair(identity, chain, "lifter" if lifting else "robot's tables")
        return cls(finder, chain, lifting, prior, options)

    def __call__(self, image_rgb: np.ndarray, K: ArrayLike, last: Estimate | None = None) -> Estimate:
        """Estimate of one photo; with ``last``, the estimate of the frame before it, quicker and steadier.

        TrainingError for what is no photo, or a K that is not of a photo of this size.
        """
        photo_tensor(image_rgb)
        camera = checked_camera(K, image_rgb.shape[1], image_rgb.shape[0])
        tracked = last is not None and last.status == FOUND
        began = time.perf_counter()
        found = self.finder.find(image_rgb, last.fitted_px if last is not None and tracked else None)
        detected = time.perf_counter()
        used = found.confidence >= self.options.least_confidence
        if found.robot < self.options.least_robot or used.sum() < LEAST_POINTS:
            status = NO_ROBOT if found.robot < self.options.least_robot else TOO_FEW
            return self._nothing(found, status, {"detect": detected - began})
        observation = _observation(found, used, camera)
        if last is not None and tracked:
            result = self._follow(observation, last)
            if self._agrees(result, used):
                spent = {"detect": detected - began, "lift": 0.0, "refine": time.perf_counter() - detected}
                return self._estimate(found, result, camera, "last frame", spent)
        starts, mode = self._starts(observation), "search" if self.lifter is None else "lifter"
        lifted = time.perf_counter()
        generator = torch.Generator().manual_seed(self.options.seed)
        result = search(self.chain, observation, self.prior, self.pool, generator, self.options.search, starts)
        spent = {"detect": detected - began, "lift": lifted - detected, "refine": time.perf_counter() - lifted}
        return self._estimate(found, result, camera, mode, spent)

    def _starts(self, observation: Observation) -> Starts | None:
        """The lifter's samples as starts."""
        if self.lifter is None:
            return None
        generator = torch.Generator().manual_seed(self.options.seed)
        return lifted_starts(self.lifter, observation, self.options.samples, generator)

    def _follow(self, observation: Observation, last: Estimate) -> Refined:
        q, T = torch.from_numpy(last.joints_rad)[None], torch.from_numpy(last.T_cam_base)[None]
        R, t = T[:, :3, :3], T[:, :3, 3]
        turn, shift = self.options.last_std[1:]
        std = [self.options.last_std[0]] * self.chain.dof + [turn] * 3 + [shift] * 3
        information = torch.diag(torch.tensor(std, dtype=torch.float64) ** -2)[None]
        temporal = TemporalPrior(q, R, t, information)
        return refine(self.chain, observation, Starts(q[:, None], R[:, None], t[:, None]), self.prior, self.options.tracking, temporal)

    def _agrees(self, result: Refined, used: np.ndarray) -> bool:
        """Whether most of the points that were used fit the state that was followed to."""
        return float((result.inlier[0].numpy()[used] > 0.5).mean()) > 0.7

    def _estimate(self, found: Found, result: Refined, K: Array, mode: str, seconds: dict[str, float]) -> Estimate:
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = result.R[0].double().numpy(), result.T[0].double().numpy()
        X = result.X_cam[0].double().numpy()
        homogeneous = X @ K.T
        fitting = (found.confidence * result.inlier[0].double().numpy()).mean()
        confidence = float(found.robot * fitting)
        if confidence < self.options.least_pose or fitting < self.options.least_agreement * found.confidence.mean():
            return replace(self._nothing(found, DOUBTFUL, seconds), confidence=confidence)
        return replace(
            self._nothing(found, FOUND, seconds),
            confidence=confidence,
            joints_rad=result.q[0].double().numpy(),
            T_cam_base=T,
            keypoints_cam_m=X,
            covariance=result.covariance[0].double().numpy(),
            keypoint_covariance_m2=result.keypoint_covariance[0].double().numpy(),
            fitted_px=homogeneous[:, :2] / homogeneous[:, 2:],
            mode=mode,
        )

    def _nothing(self, found: Found, status: str, seconds: dict[str, float]) -> Estimate:
        n, d = len(self.chain), self.chain.dof
        return Estimate(
            status=status,
            confidence=float(found.robot * found.confidence.mean()),
            joints_rad=np.full(d, np.nan),
            T_cam_base=np.full((4, 4), np.nan),
            keypoints_cam_m=np.full((n, 3), np.nan),
            keypoints_px=found.points_px,
            covariance=np.full((d + 6, d + 6), np.nan),
            keypoint_covariance_m2=np.full((n, 3, 3), np.nan),
            keypoint_covariance_px2=found.covariance_px2,
            keypoint_confidence=found.confidence,
            keypoint_seen=found.seen,
            fitted_px=np.full((n, 2), np.nan),
            mode="",
            seconds=seconds,
        )


def limits_prior(chain: KeypointChain) -> JointPrior:
    """Mean and standard deviation of joints that are anywhere within their limits."""
    lower, upper = torch.tensor(chain.lower), torch.tensor(chain.upper)
    return JointPrior((lower + upper) / 2, (upper - lower) / 12**0.5, lower, upper)


def checked_camera(K: ArrayLike, width: int, height: int) -> Array:
    """K (3, 3) float64. TrainingError when it is no camera, or its principal point lies outside the image's middle half."""
    camera = np.asarray(K, np.float64)
    if camera.shape != (3, 3) or not np.isfinite(camera).all() or camera[0, 0] <= 0 or camera[1, 1] <= 0:
        raise TrainingError(f"K of shape {camera.shape} is no camera; give [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels with fx, fy > 0")
    if not (np.abs(camera[:2, 2] / np.array([width, height]) - 0.5) < 0.25).all():
        raise TrainingError(
            f"K has its principal point at ({camera[0, 2]:.1f}, {camera[1, 2]:.1f}), far from the middle of the image of {width}x{height}: "
            "it is of an image of another size; give this image's K (dataengine.geometry.camera.resize_intrinsics)"
        )
    return camera


def _observation(found: Found, used: np.ndarray, K: Array) -> Observation:
    uv, covariance = torch.from_numpy(found.points_px)[None], torch.from_numpy(found.covariance_px2)[None]
    return Observation(uv, torch.from_numpy(K)[None], covariance, torch.from_numpy(used)[None])


def _chain(robot: str, keypoint_set: str) -> KeypointChain:
    # Not at the top: with a lifter's checkpoint the robot's description is not needed.
    from dataengine.robot.catalogue import load_robot

    return KeypointChain.from_model(load_robot(robot), keypoint_set)


def _check_pair(identity: Mapping, chain: KeypointChain, other: str) -> None:
    theirs = {"robot": chain.robot, "keypoint_set": chain.keypoint_set, "keypoints": list(chain.keypoint_names)}
    for key, value in theirs.items():
        if identity[key] != value:
            a, b = (", ".join(v) if isinstance(v, list) else str(v) for v in (identity[key], value))
            raise TrainingError(
                f"the detector is for {key.replace('_', ' ')} {a[:60]}, the {other} for {b[:60]}; give checkpoints of the same"
            )
