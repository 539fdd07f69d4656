"""Estimates drawn over what they are of: photos and videos."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE
from dataengine.record.video import Names
from training.errors import TrainingError
from training.kinematics import KeypointChain
from training.predictor import FOUND, Estimate, RobotPoseEstimator


def names_of(chain: KeypointChain) -> Names:
    """What a skeleton is drawn from: links and offsets, read from the keypoints' names (`LINK` or `LINK@x,y,zmm`)."""
    parts = [name.partition("@") for name in chain.keypoint_names]
    order = sorted(range(len(parts)), key=lambda n: int(chain.body[n]))
    links = tuple(dict.fromkeys(parts[n][0] for n in order))
    offsets = tuple(_offset_m(offset) for *_, offset in parts)
    return Names(chain.joint_names, links, chain.keypoint_names, tuple(links.index(link) for link, *_ in parts), offsets, ())


def _offset_m(text: str) -> tuple[float, float, float]:
    """`x,y,zmm`, or nothing for a link's origin."""
    x, y, z = (1e-3 * float(v) for v in text.removesuffix("mm").split(",")) if text else (0.0, 0.0, 0.0)
    return x, y, z


def draw_estimate(image_rgb: np.ndarray, estimate: Estimate, names: Names) -> np.ndarray:
    """Copy of the photo with the fitted skeleton (hidden points hollow) and a line of text; detected points where nothing was fitted."""
    from dataengine.view.skeleton import draw_keypoints
    from dataengine.view.typography import Text, draw_texts

    height, width = image_rgb.shape[:2]
    size = max(10, width // 42)
    drawn = image_rgb
    if estimate.status == FOUND:
        inside = (estimate.fitted_px > -0.5).all(1) & (estimate.fitted_px < np.array([width, height]) - 0.5).all(1)
        state = np.where(estimate.keypoint_seen > 0.5, KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED)
        drawn = draw_keypoints(image_rgb, estimate.fitted_px, np.where(inside, state, KEYPOINT_OUTSIDE), names)
    deviation = np.sqrt(np.trace(estimate.keypoint_covariance_m2, axis1=1, axis2=2).mean()) if estimate.status == FOUND else np.nan
    said = f"confidence {estimate.confidence:.2f}" + (f"   ±{1e3 * deviation:.0f} mm   {estimate.mode}" if estimate.status == FOUND else "")
    text = said if estimate.status == FOUND else f"{estimate.status}   {said}"
    return draw_texts(drawn, [Text(text, size * 0.7, height - size * 0.7, size, (255, 255, 255), "ls", True)], halo=True)


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 RGB of a video, one by one. TrainingError for a file that is none, or is damaged."""
    import av

    path = Path(path)
    if not path.is_file():
        raise TrainingError(f"no video at {path}; give a file that PyAV reads, such as an mp4")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise TrainingError(f"{path} has no video stream; give a file with pictures")
            for frame in container.decode(container.streams.video[0]):
                yield frame.to_ndarray(format="rgb24")
    except av.FFmpegError as error:
        raise TrainingError(f"video {path} cannot be read ({error}); it is damaged or of an unknown format") from None


def video_rate(path: str | Path) -> float:
    """Frames per second; 15 where the file does not say."""
    import av

    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
    except (av.FFmpegError, OSError, IndexError) as error:
        raise TrainingError(f"video {path} cannot be read ({error}); it is damaged or of an unknown format") from None
    return float(rate) if rate else 15.0


def predict_video(estimator: RobotPoseEstimator, path: str | Path, K: ArrayLike, out: str | Path, online: bool = True) -> list[Estimate]:
    """Estimates of every frame; ``out`` becomes an mp4 with the predicted skeleton. ``online``: each frame starts from the one before."""
    # Not at the top: it needs the viewer's packages.
    from dataengine.view.movie import write_mp4

    names = names_of(estimator.chain)
    estimates: list[Estimate] = []

    def drawn() -> Iterator[np.ndarray]:
        for image in read_video(path):
            last = estimates[-1] if online and estimates else None
            estimates.append(estimator(image, K, last))
            yield draw_estimate(image, estimates[-1], names)

    write_mp4(out, drawn(), video_rate(path))
    return estimates
