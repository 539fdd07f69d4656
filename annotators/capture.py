"""A capture's YAML → `Capture`: images, depth, infrared, masks, encoder log, K and robot, checked once and read lazily."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from annotators.capture_files import DEPTHS, IMAGES, VIDEOS, check_whole, expect_size, find_files, pair, read_depth, read_image, read_mask
from annotators.capture_intrinsics import Lens, load_lens
from annotators.capture_joints import load_joints
from annotators.capture_spec import CaptureError, CaptureSpec, Source, read_spec
from annotators.capture_video import VideoFile
from annotators.types import Capture
from dataengine.robot.catalogue import PACKAGED, load_robot

Array = np.ndarray

DEFAULT_FPS = 30.0
FEWEST_FRAMES = 3
PLAUSIBLE_DEPTH_M = (0.1, 15.0)
"""Median of the first measured frame; anything else is a wrong unit."""
UNITS_M = (1e-4, 1e-3, 1e-2, 1.0)


@dataclass(frozen=True)
class _Frames:
    """The colour images: names, files to pair others with, size (width, height), reader, own times."""

    files: list[Path]
    size: tuple[int, int]
    rgb: Callable[[int], Array]
    times_s: Array | None = None


def load_capture(path: str | Path) -> tuple[CaptureSpec, Capture]:
    """Read the YAML at `path` and everything it names.

    Images that the lens bends are undistorted as they are read (with depth and masks), so `Capture.distortion` is always None.
    Raises ConfigError (the YAML), CaptureError (the files), RobotError (the robot), one line per mistake.
    """
    spec, source = read_spec(path)
    frames = _frames(spec, source)
    if len(frames.files) < FEWEST_FRAMES:
        raise source.error("images", f"{len(frames.files)} images; at least {FEWEST_FRAMES} are needed")
    robot = str(source.path("robot", spec.robot)) if spec.robot not in PACKAGED and any(c in spec.robot for c in "/.") else spec.robot
    model = load_robot(robot)
    lens = load_lens(spec, source, frames.size)
    straight = _undistort(lens, frames.size)
    times_s = _times(spec, source, frames)
    capture = Capture(
        name=spec.name,
        frames=tuple(p.stem for p in frames.files),
        size=frames.size,
        K=lens.K,
        times_s=times_s,
        rgb=lambda i: straight(frames.rgb(i), True),
        robot=robot,
        depth_z_m=_depth(spec, source, frames, straight),
        mask=_masks(spec, source, frames, straight),
        infrared=_infrared(spec, source, frames),
        ir_baseline_m=spec.infrared.baseline_m,
        tag_side_m=spec.fiducials.side_m,
        tag_family=spec.fiducials.family,
        joints=load_joints(spec, source, model, frames.files, times_s),
    )
    return spec, capture


def _frames(spec: CaptureSpec, source: Source) -> _Frames:
    path = source.path("images", spec.images)
    if path.suffix.lower() in VIDEOS:
        if not path.is_file():
            raise source.error("images", f"there is no file {path}")
        video = VideoFile(path)
        names = [path.with_name(f"{path.stem}_{k:06d}.frame") for k in range(len(video))]
        return _Frames(names, video.size, video.rgb, video.times_s)
    files = find_files(source, "images", spec.images, IMAGES)
    first = read_image(files[0])
    size = (first.shape[1], first.shape[0])
    for file in files:
        found = check_whole(file)
        if found is not None and found != size:
            raise CaptureError(f"{file} is {found[0]}×{found[1]}, {files[0].name} is {size[0]}×{size[1]}; all images must have one size")
    return _Frames(files, size, lambda i: expect_size(read_image(files[i]), size, files[i], "an image"))


def _times(spec: CaptureSpec, source: Source, frames: _Frames) -> Array:
    """Seconds (N,) of the frames."""
    count = len(frames.files)
    if spec.timestamps is None:
        if frames.times_s is not None and spec.fps is None:
            return frames.times_s
        return np.arange(count) / (spec.fps or DEFAULT_FPS)
    path = source.path("timestamps", spec.timestamps)
    try:
        lines = [x for x in path.read_text(encoding="utf-8").splitlines() if x.strip() and not x.startswith("#")]
        times = np.array([float(line.replace(",", " ").split()[-1]) for line in lines])
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it holds no numbers"
        raise source.error("timestamps", f"cannot read {path}: {reason}; give one time in seconds per line") from None
    if len(times) != count:
        raise source.error("timestamps", f"{path} holds {len(times)} times for {count} images; give one per image")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        at = int(np.argmin(np.diff(times))) + 1 if np.isfinite(times).all() else int(np.argmin(np.isfinite(times)))
        raise source.error("timestamps", f"{path}: times must grow from frame to frame; line {at + 1} does not")
    return times


def _depth(spec: CaptureSpec, source: Source, frames: _Frames, straight: Straighten) -> Callable[[int], Array] | None:
    if spec.depth.path is None:
        return None
    files = pair(source, "depth.path", frames.files, find_files(source, "depth.path", spec.depth.path, DEPTHS))
    for file in files:
        if file is not None:
            check_whole(file)

    def read(i: int) -> Array:
        file = files[i]
        if file is None:
            return np.zeros(frames.size[::-1], np.float32)
        return straight(expect_size(read_depth(file, spec.depth.unit_m), frames.size, file, "depth"), False)

    _check_depth_unit(source, read, next(i for i, f in enumerate(files) if f is not None), spec.depth.unit_m)
    return read


def _check_depth_unit(source: Source, read: Callable[[int], Array], first: int, unit_m: float | None) -> None:
    """CaptureError when the first measured frame's median is nowhere a robot can be."""
    depth = read(first)
    median = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
    if PLAUSIBLE_DEPTH_M[0] <= median <= PLAUSIBLE_DEPTH_M[1]:
        return
    used = unit_m or (1.0 if median > PLAUSIBLE_DEPTH_M[1] else 1e-3)
    fits = [u for u in UNITS_M if PLAUSIBLE_DEPTH_M[0] <= median / used * u <= PLAUSIBLE_DEPTH_M[1]]
    best = min(fits, key=lambda u: abs(np.log(median / used * u)), default=0.0)
    hint = f"; unit_m: {best:g} would make it {median / used * best:.2f} m" if fits else ""
    raise source.error("depth", f"the first frame's median depth is {median:g} m, a wrong unit{hint}")


def _masks(spec: CaptureSpec, source: Source, frames: _Frames, straight: Straighten) -> Callable[[int], Array] | None:
    if spec.masks.path is None:
        return None
    files = pair(source, "masks.path", frames.files, find_files(source, "masks.path", spec.masks.path, IMAGES))
    for frame, file in zip(frames.files, files, strict=True):
        if file is None:
            raise source.error("masks.path", f"there is no mask for {frame.name}; give one per image, or leave masks out")
        found = check_whole(file)
        if found is not None and found != frames.size:
            w, h = frames.size
            raise CaptureError(f"{file}: a mask of {found[0]}×{found[1]} for images of {w}×{h}; give masks of the images' size")
    whole = [f for f in files if f is not None]
    white = spec.masks.polarity == "robot_white"
    return lambda i: straight(expect_size(read_mask(whole[i], white), frames.size, whole[i], "a mask").astype(np.uint8), False) > 0


def _infrared(spec: CaptureSpec, source: Source, frames: _Frames) -> Callable[[int], tuple[Array, Array]] | None:
    if spec.infrared.left is None or spec.infrared.right is None:
        return None
    sides = []
    for key, text in (("infrared.left", spec.infrared.left), ("infrared.right", spec.infrared.right)):
        files = pair(source, key, frames.files, find_files(source, key, text, IMAGES))
        missing = next((frame for frame, f in zip(frames.files, files, strict=True) if f is None), None)
        if missing is not None:
            raise source.error(key, f"there is no infrared image for {missing.name}; give one per image")
        sides.append([f for f in files if f is not None])
    left, right = (partial(_grey, side, frames.size) for side in sides)
    return lambda i: (left(i), right(i))


def _grey(files: list[Path], size: tuple[int, int], i: int) -> Array:
    return expect_size(read_image(files[i], colour=False), size, files[i], "an infrared image").astype(np.uint8)


Straighten = Callable[[Array, bool], Array]
"""Image and whether it may be interpolated → the image of an ideal lens with the same K."""


def _undistort(lens: Lens, size: tuple[int, int]) -> Straighten:
    if lens.distortion is None or not lens.distortion.any():
        return lambda image, smooth: image
    import cv2

    maps = cv2.initUndistortRectifyMap(lens.K, lens.distortion, np.eye(3), lens.K, size, cv2.CV_32FC1)
    return lambda image, smooth: cv2.remap(image, *maps, cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)
