"""A trained estimator on images, videos and datasets: numbers out, and the found robot drawn over the picture."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

if TYPE_CHECKING:
    from dataengine.record.video import Names
    from training.evaluate import Timed
    from training.kinematics import KeypointChain
    from training.predictor import Estimate, RobotPoseEstimator
    from training.truth import Estimates, Truth

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
TRUTH_SHADE = 0.45


@dataclass(frozen=True)
class Camera:
    """Either K in pixels, or a horizontal field of view and a principal point in the middle."""

    K: NDArray[np.float64] | None = None
    fov_deg: float | None = None

    def matrix(self, width: int, height: int) -> NDArray[np.float64]:
        """K (3, 3) of an image of this size. TrainingError when neither was given."""
        if self.K is not None:
            return self.K
        if self.fov_deg is None or not 0 < self.fov_deg < 180:
            raise TrainingError("the camera is not known: give --camera fx,fy,cx,cy in pixels, or --fov-deg, the horizontal field of view")
        focal = 0.5 * width / math.tan(math.radians(self.fov_deg) / 2)
        return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def camera_of(text: str | None, fov_deg: float | None) -> Camera:
    """From `fx,fy,cx,cy`, or the path of a JSON file with a 3×3 list (alone or under "K"), or a field of view."""
    if text is None:
        return Camera(fov_deg=fov_deg)
    try:
        if Path(text).suffix == ".json":
            value = json.loads(Path(text).read_text())
            return Camera(np.asarray(value["K"] if isinstance(value, dict) else value, np.float64).reshape(3, 3))
        fx, fy, cx, cy = (float(part) for part in text.split(","))
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainingError(f"camera '{text}': give fx,fy,cx,cy in pixels, or a .json file with the 3x3 matrix K") from None
    return Camera(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]))


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB (H, W, 3). TrainingError for a file that is none."""
    import cv2

    data = np.fromfile(path, np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        what = "there is no such file" if not path.is_file() else "it cannot be decoded"
        raise TrainingError(f"image {path}: {what}; give a PNG or JPEG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)


def read_video(path: Path) -> tuple[Iterator[NDArray[np.uint8]], float]:
    """Frames RGB (H, W, 3), one after the other, and their rate. TrainingError for a file that is no video."""
    import av

    try:
        container = av.open(str(path))
        stream = container.streams.video[0]
    except (OSError, ValueError, IndexError):  # PyAV's errors are both of the first two
        raise TrainingError(f"video {path} cannot be read; give an mp4, mkv, avi, mov or webm file") from None
    frames = (np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(stream))
    return frames, float(stream.average_rate or 15)


def as_json(estimate: Estimate, chain: KeypointChain) -> dict[str, Any]:
    """Names with their numbers; null where nothing was found."""
    joints = {n: _number(v) for n, v in zip(chain.joint_names, estimate.joints_rad, strict=True)}
    std = np.sqrt(np.diag(estimate.covariance))
    return {
        "status": estimate.status,
        "confidence": round(estimate.confidence, 4),
        "mode": estimate.mode,
        "joints_rad": joints,
        "joints_std_rad": {n: _number(v) for n, v in zip(chain.joint_names, std, strict=False)},
        "T_cam_base": [[_number(v) for v in row] for row in estimate.T_cam_base],
        "keypoints_cam_m": {n: [_number(v) for v in p] for n, p in zip(chain.keypoint_names, estimate.keypoints_cam_m, strict=True)},
        "keypoints_px": {n: [_number(v) for v in p] for n, p in zip(chain.keypoint_names, estimate.keypoints_px, strict=True)},
        "keypoint_confidence": {n: _number(v) for n, v in zip(chain.keypoint_names, estimate.keypoint_confidence, strict=True)},
        "seconds": {k: round(v, 5) for k, v in estimate.seconds.items()},
    }


def draw_estimate(image: NDArray[np.uint8], estimate: Estimate, chain: KeypointChain, truth_px: Any = None) -> NDArray[np.uint8]:
    """The fitted robot's skeleton over the picture; `truth_px` (N, 2) beneath it, paler and hollow."""
    from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_VISIBLE
    from dataengine.view.skeleton import draw_keypoints

    names = drawing_names(chain)
    if truth_px is not None:
        under = draw_keypoints(image, truth_px, np.full(len(chain), KEYPOINT_OCCLUDED), names)
        image = np.round(image + TRUTH_SHADE * (under.astype(np.float32) - image)).astype(np.uint8)
    if not np.isfinite(estimate.fitted_px).all():
        return image
    state = np.where(estimate.keypoint_seen > 0.5, KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED)
    return draw_keypoints(image, estimate.fitted_px, state, names)


def drawing_names(chain: KeypointChain) -> Names:
    """What the drawing of skeletons wants to know of a chain: links base first, offsets from their origins."""
    from dataengine.record.video import Names

    parts = [name.partition("@") for name in chain.keypoint_names]
    links = [p[0] for p in parts]
    # Bodies are numbered base first; within one the order of the set, which names what is nearer to the base first.
    order = sorted(
        set(links), key=lambda link: (min(b for name, b in zip(links, chain.body, strict=True) if name == link), links.index(link))
    )
    offsets = [[1e-3 * float(v) for v in p[2].removesuffix("mm").split(",")] if p[2] else [0.0, 0.0, 0.0] for p in parts]
    return Names(
        chain.joint_names,
        tuple(order),
        chain.keypoint_names,
        tuple(order.index(p[0]) for p in parts),
        tuple((o[0], o[1], o[2]) for o in offsets),
        (),
    )


def predict_image(estimator: RobotPoseEstimator, path: Path, camera: Camera, out: Path) -> Estimate:
    """NAME.json and NAME.png (the overlay) in `out`."""
    import cv2

    image = read_image(path)
    estimate = estimator(image, camera.matrix(image.shape[1], image.shape[0]))
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{path.stem}.json").write_text(json.dumps(as_json(estimate, estimator.chain), indent=1))
    drawn = draw_estimate(image, estimate, estimator.chain)
    cv2.imwrite(str(out / f"{path.stem}.png"), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    return estimate


def predict_video(estimator: RobotPoseEstimator, path: Path, camera: Camera, out: Path, online: bool = True) -> list[Estimate]:
    """NAME.jsonl and NAME.mp4 (the overlay) in `out`; `online`: each frame begins at the one before."""
    from dataengine.view.movie import write_mp4

    frames, rate = read_video(path)
    estimates: list[Estimate] = []

    def drawn() -> Iterator[NDArray[np.uint8]]:
        for image in frames:
            last = estimates[-1] if online and estimates else None
            estimates.append(estimator(image, camera.matrix(image.shape[1], image.shape[0]), last))
            yield draw_estimate(image, estimates[-1], estimator.chain)

    out.mkdir(parents=True, exist_ok=True)
    write_mp4(out / f"{path.stem}.mp4", drawn(), rate)
    lines = [json.dumps({"frame": i, **as_json(e, estimator.chain)}) for i, e in enumerate(estimates)]
    (out / f"{path.stem}.jsonl").write_text("\n".join(lines) + "\n")
    return estimates


def predict_dataset(
    estimator: RobotPoseEstimator, location: str, split: str | None = None, limit: int | None = None, online: bool = False
) -> tuple[Truth, Estimates, Timed]:
    """Estimates of a dataset's accepted frames beside the truth, and how long each took; `online` restarts with every video."""
    from training.evaluate import Timed
    from training.truth import truth_of_dataset

    chain = estimator.chain
    truth = truth_of_dataset(location, split, chain.keypoint_names, chain.keypoint_set, limit)
    last: Estimate | None = None
    found: list[Estimate] = []
    spent: list[tuple[float, float, float]] = []
    images = dataset_images(truth)
    for row in range(len(truth)):
        began = time.perf_counter()
        image = next(images)
        decoded, cpu = time.perf_counter(), time.process_time()
        same = row > 0 and (truth.ids[row, :2] == truth.ids[row - 1, :2]).all() and truth.ids[row, 2] == truth.ids[row - 1, 2] + 1
        last = estimator(image, truth.K[row], last if online and same else None)
        found.append(last)
        spent.append((time.perf_counter() - decoded, time.process_time() - cpu, decoded - began))
    wall, cpu_s, decode = np.array(spent).T
    return truth, collect(found, truth, chain, "online" if online else "single frame"), Timed(wall, cpu_s, decode)


def dataset_images(truth: Truth) -> Iterator[NDArray[np.uint8]]:
    """RGB of every frame of the truth, in its order; one shard is open at a time."""
    from dataengine.store.catalogue import open_catalogue

    catalogue = open_catalogue(truth.location, truth.split or None)
    place = {unit["video"]: i for i, unit in enumerate(catalogue.units)}
    for video in dict.fromkeys(truth.ids[:, 1].tolist()):
        with catalogue.open(place[video]) as reader:
            for frame in truth.ids[truth.ids[:, 1] == video, 2].tolist():
                yield reader.read("rgb", frame)


def collect(found: list[Estimate], truth: Truth, chain: KeypointChain, name: str) -> Estimates:
    """Single estimates as the arrays that the evaluator takes; frames without an estimate are NaN."""
    from training.truth import Estimates

    joints = np.full((len(found), len(truth.joint_names)), np.nan)
    columns = [truth.joint_names.index(n) for n in chain.joint_names]
    joints[:, columns] = np.stack([e.joints_rad for e in found])
    return Estimates(
        name=name,
        keypoint_names=chain.keypoint_names,
        keypoints_m=np.stack([e.keypoints_cam_m for e in found]),
        joint_names=tuple(truth.joint_names),
        joints=joints,
        T_cam_base=np.stack([e.T_cam_base for e in found]),
        detected_px=np.stack([e.keypoints_px for e in found]),
        covariance_m2=np.stack([e.keypoint_covariance_m2 for e in found]),
        ids=truth.ids,
    )


def with_source(estimates: Estimates, source: str, **settings: str) -> Estimates:
    """The same, saying which checkpoint they came from."""
    return replace(estimates, source=source, settings=settings)


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
