"""Thin wrappers of pycolmap: options with known intrinsics, one thread and a seed everywhere; models as plain arrays.

Only to be used in the child process: COLMAP aborts the whole process on some inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from dataengine.geometry import se3
from dataengine.geometry.camera import intrinsics_to_colmap

Array = NDArray[np.float64]
_MAX_FEATURES = 4096
_VERIFY_ERROR_PX = 3.0
_FILTER_FACTOR = 4.0
_MIN_ANGLE_DEG = 1.0
_PNP_ERROR_PX = 4.0
_MIN_POINTS = 12
PIXEL_CENTRE_PX = 0.5


@dataclass(frozen=True)
class Model:
    """A reconstruction as arrays. `views[k]` is the view number of pose k; `obs_pose` counts poses, `obs_keypoint` the view's features."""

    views: NDArray[np.int64]  # (n,)
    T_world_cam: Array  # (n, 4, 4)
    points: Array  # (P, 3)
    obs_point: NDArray[np.int64]
    obs_pose: NDArray[np.int64]
    obs_keypoint: NDArray[np.int64]


def quiet() -> None:
    """Errors only, on standard error."""
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    pycolmap.logging.logtostderr = True


def camera_parameters(K: Array, distortion: Array | None) -> tuple[str, str]:
    """COLMAP's camera model and its parameters as text; pixel centres move by half a pixel."""
    k = intrinsics_to_colmap(K)
    numbers = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
    if distortion is None:
        return "PINHOLE", ",".join(repr(float(v)) for v in numbers)
    return "FULL_OPENCV", ",".join(repr(float(v)) for v in [*numbers, *distortion, 0.0, 0.0, 0.0])


def import_views(database: Path, images: Path, names: Sequence[str], camera: tuple[str, str]) -> None:
    """Register all pictures, in order, with one shared camera."""
    reader = pycolmap.ImageReaderOptions(camera_model=camera[0], camera_params=camera[1])
    pycolmap.Database.open(database).close()
    pycolmap.import_images(database, images, pycolmap.CameraMode.SINGLE, list(names), reader)


def extract(database: Path, images: Path, masks: Path, names: Sequence[str]) -> None:
    """SIFT of the named pictures; those that have features already are skipped."""
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = 1, False
    options.sift.max_num_features = _MAX_FEATURES
    reader = pycolmap.ImageReaderOptions()
    reader.mask_path = masks
    pycolmap.extract_features(database, images, list(names), pycolmap.CameraMode.SINGLE, reader, options, pycolmap.Device.cpu)


def match(database: Path, pairs: Sequence[tuple[str, str]], list_file: Path, seed: int) -> None:
    """Match and verify the named pairs; those done already are skipped."""
    list_file.write_text("".join(f"{a} {b}\n" for a, b in pairs))
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads, matching.use_gpu = 1, False
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.max_error, verification.ransac.random_seed = _VERIFY_ERROR_PX, seed
    verification.detect_watermark = False
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = list_file
    pycolmap.set_random_seed(seed)
    pycolmap.match_image_pairs(database, matching, pairing, verification, pycolmap.Device.cpu)


def run_incremental(database: Path, images: Path, out: Path, names: Sequence[str], seed: int, step: Callable[[], None]) -> list:
    """COLMAP's incremental mapper, intrinsics held."""
    o = pycolmap.IncrementalPipelineOptions()
    o.image_names, o.num_threads, o.random_seed = list(names), 1, seed
    o.ba_refine_focal_length = o.ba_refine_extra_params = o.ba_refine_principal_point = o.extract_colors = False
    o.min_model_size, o.max_num_models = 3, 5
    o.ba_global_frames_ratio = o.ba_global_points_ratio = 1.4
    o.mapper.num_threads, o.mapper.random_seed = 1, seed
    o.mapper.abs_pose_refine_focal_length = o.mapper.abs_pose_refine_extra_params = False
    o.mapper.init_min_tri_angle = 4.0
    o.mapper.init_min_num_inliers = 50
    o.mapper.filter_min_tri_angle = o.triangulation.min_angle = _MIN_ANGLE_DEG
    o.triangulation.random_seed = seed
    pycolmap.set_random_seed(seed)
    return list(pycolmap.incremental_mapping(database, images, out, o, next_image_callback=step).values())


def run_global(database: Path, images: Path, out: Path, names: Sequence[str], seed: int, step: Callable[[], None]) -> list:
    """COLMAP's global mapper (GLOMAP), intrinsics held."""
    o = pycolmap.GlobalPipelineOptions()
    o.image_names, o.num_threads, o.random_seed = list(names), 1, seed
    o.mapper.num_threads, o.mapper.random_seed = 1, seed
    o.mapper.rotation_averaging.random_seed = o.mapper.global_positioning.random_seed = o.mapper.retriangulation.random_seed = seed
    o.mapper.global_positioning.use_gpu = o.mapper.bundle_adjustment.ceres.use_gpu = False
    o.mapper.bundle_adjustment.refine_focal_length = o.mapper.bundle_adjustment.refine_extra_params = False
    o.mapper.bundle_adjustment.ceres.solver_options.num_threads = 1
    pycolmap.set_random_seed(seed)
    step()
    return list(pycolmap.global_mapping(database, images, out, o).values())


def largest(models: Sequence) -> pycolmap.Reconstruction | None:
    """The model with most registered pictures, most points on a tie."""
    return max(models, key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)


def polish(model: pycolmap.Reconstruction) -> None:
    """Robust bundle adjustment to convergence, bad observations dropped, and again; intrinsics held.

    The library stops early (measured on a rendered clip: 4.4 mm before, 0.25 mm after) and its loss of 1 px lets outliers of a moving
    robot's shadow pull: the Cauchy loss takes the model's own mean reprojection error as its scale.
    """
    o = pycolmap.BundleAdjustmentOptions()
    o.refine_focal_length = o.refine_principal_point = o.refine_extra_params = o.print_summary = False
    o.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    o.ceres.solver_options.num_threads = 1
    for iterations, tolerance in ((30, 1e-6), (100, 1e-10)):
        model.update_point_3d_errors()
        error_px = max(model.compute_mean_reprojection_error(), 0.1)
        pycolmap.ObservationManager(model).filter_all_points3D(_FILTER_FACTOR * error_px, _MIN_ANGLE_DEG)
        o.ceres.loss_function_scale = error_px
        o.ceres.solver_options.max_num_iterations, o.ceres.solver_options.function_tolerance = iterations, tolerance
        pycolmap.bundle_adjustment(model, o)
    model.update_point_3d_errors()


def read_model(model: pycolmap.Reconstruction, names: Sequence[str]) -> Model | None:
    """Arrays of a reconstruction; poses in the order of `names`, those with at least 12 points; None when there is none."""
    number = {name: k for k, name in enumerate(names)}
    held = [image for image in (model.image(i) for i in model.reg_image_ids()) if image.num_points3D >= _MIN_POINTS]
    if not held:
        return None
    images = sorted(held, key=lambda image: number[image.name])
    point_of = {point: k for k, point in enumerate(sorted(model.point3D_ids()))}
    T_cam_world = np.stack([as_matrix(image.cam_from_world()) for image in images])
    rows = [
        (point_of[points[k].point3D_id], pose, k)
        for pose, image in enumerate(images)
        for points in [image.points2D]
        for k in image.get_observation_point2D_idxs()
    ]
    table = np.asarray(rows, np.int64).reshape(-1, 3)
    return Model(
        np.array([number[image.name] for image in images], np.int64),
        se3.inverse(T_cam_world),
        np.stack([model.point3D(i).xyz for i in sorted(point_of)]),
        table[:, 0],
        table[:, 1],
        table[:, 2],
    )


def as_matrix(pose: pycolmap.Rigid3d) -> Array:
    """COLMAP's rigid transform as 4×4."""
    return np.vstack([np.asarray(pose.matrix(), float), [0.0, 0.0, 0.0, 1.0]])


class Features:
    """Read access to features and verified matches of a database, by view number."""

    def __init__(self, database: Path, names: Sequence[str]) -> None:
        self._db = pycolmap.Database.open(database)
        self._id = {image.name: image.image_id for image in self._db.read_all_images()}
        self._names = names
        self.camera: pycolmap.Camera = self._db.read_all_cameras()[0]
        self._keypoints: dict[int, Array] = {}

    def close(self) -> None:
        self._db.close()

    def keypoints(self, view: int) -> Array:
        """Features (n, 2) in COLMAP's pixels (centre of the first pixel at 0.5)."""
        if view not in self._keypoints:
            raw = self._db.read_keypoints(self._id[self._names[view]])
            self._keypoints[view] = np.asarray(raw[:, :2], float)
        return self._keypoints[view]

    def descriptors(self, view: int) -> NDArray[np.uint8]:
        """SIFT descriptors (n, 128)."""
        return np.asarray(self._db.read_descriptors(self._id[self._names[view]]).data, np.uint8).reshape(-1, 128)

    def matches(self, first: int, second: int) -> NDArray[np.int64]:
        """Verified matches (m, 2) of feature numbers; empty when the pair was not matched."""
        a, b = self._id[self._names[first]], self._id[self._names[second]]
        if not self._db.exists_two_view_geometry(a, b):
            return np.empty((0, 2), np.int64)
        return np.asarray(self._db.read_two_view_geometry(a, b).inlier_matches, np.int64).reshape(-1, 2)

    def rays(self, pixels: Array) -> Array:
        """Unit-depth rays (n, 3) of COLMAP pixels, free of distortion."""
        return np.concatenate([np.asarray(self.camera.cam_from_img(pixels), float), np.ones((len(pixels), 1))], -1)


def absolute_pose(
    features: Features, view: int, keyframes: Sequence[int], point_at: dict[tuple[int, int], int], points: Array, seed: int
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]] | None:
    """Pose of a view from its matches with keyframes: T_world_cam, feature numbers and point numbers of the inliers; None if it fails.

    `point_at[(view, feature)]` is the point a keyframe's feature belongs to. Where keyframes disagree about a feature's point the
    majority counts. LO-RANSAC and robust refinement by the library.
    """
    votes: dict[int, Counter[int]] = {}
    for keyframe in keyframes:
        for own, other in features.matches(view, keyframe):
            point = point_at.get((keyframe, int(other)))
            if point is not None:
                votes.setdefault(int(own), Counter())[point] += 1
    if len(votes) < _MIN_POINTS:
        return None
    own = np.array(sorted(votes), np.int64)
    chosen = np.array([votes[k].most_common(1)[0][0] for k in own], np.int64)
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error, options.ransac.random_seed, options.ransac.num_threads = _PNP_ERROR_PX, seed, 1
    found = pycolmap.estimate_and_refine_absolute_pose(features.keypoints(view)[own], points[chosen], features.camera, options)
    if found is None or found["num_inliers"] < _MIN_POINTS:
        return None
    inlier = np.asarray(found["inlier_mask"], bool)
    return se3.inverse(as_matrix(found["cam_from_world"])), own[inlier], chosen[inlier]
