"""Camera poses of a capture by structure from motion, with covariances, or one line that says why there are none.

COLMAP runs in a process of its own (it aborts on some inputs); everything it finished stays in the folder, so the same call goes on
where a killed one stopped and ends with the same result. Facts about the library: its pixel centres are at 0.5; learned features abort
the wheel built for CPU; `use_gpu` is ignored there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dataengine.geometry import se3

from .sfm_views import MaskOf, SfmError, view_name, view_ranges, write_views
from .types import CameraTrack, Capture, Flag

__all__ = ["SfmError", "solve_cameras"]

MAPPERS = ("auto", "incremental", "global")
FEATURE_TYPES = ("sift",)
"""The learned features that the library lists need a build with ONNX; without it choosing one aborts the process."""
_LAYOUT = 3  # raise it when a stage's files change meaning
_LOCK_WAIT_S = 20.0
Progress = Callable[[str, float], None]


def solve_cameras(
    capture: Capture,
    folder: Path,
    static: Sequence[tuple[int, int]] = (),
    masks: MaskOf | None = None,
    mapper: Literal["auto", "incremental", "global"] = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    features: str = "sift",
) -> CameraTrack:
    """Pose every frame of a capture; intrinsics are held.

    `folder` keeps pictures, database and models. `static` are half-open frame ranges without camera motion: each is one averaged
    picture and one pose, and what moves in it is left out. `masks(i)` (H, W), true = leave out (robot, people). `mapper`: "incremental"
    (robust), "global" (fast), "auto" (runs both, keeps the one that poses more keyframes, reports their disagreement; costs the sum).
    World frame: the first posed camera; unit: the median depth of the sparse points. A static segment's observations are listed under
    its first frame; `cross_check` also holds `noise_px` (of one image coordinate) and `shared_errors`, the factor by which errors that
    last in tracks or are common to neighbours raise variances (1 = independent; above 5 lens distortion or rolling shutter is left
    unmodelled).
    `obs_uv_px` are pixels of the given images (with lens distortion, if any). Covariances hold the mean of all cameras.
    A camera that never moves (one static segment over everything) gets the identity everywhere, no points, mapper "static".

    `flags` say what is doubtful about poses that are there: few points carry them, or they fit another focal length.
    A capture that cannot be solved is no error: `refusal` says what was measured, the limit and what to do.
    Raises `SfmError` for wrong arguments, a folder in use, or a crash of the library (finished stages stay).
    """
    tell = progress or (lambda stage, share: None)
    if mapper not in MAPPERS:
        raise SfmError(f"unknown mapper '{mapper}'; available: {', '.join(MAPPERS)}")
    if features not in FEATURE_TYPES:
        available = ", ".join(FEATURE_TYPES)
        raise SfmError(f"feature type '{features}' is not available on CPU (the library would abort); available: {available}")
    views = view_ranges(len(capture.frames), static)
    if len(views) == 1 and len(capture.frames) > 1:
        return _never_moved(capture, static)
    if len(views) < 3:
        return refused(capture, static, f"too few frames: {len(views)} different views, at least 3 needed; record a longer video")
    try:
        return _solve(capture, folder, views, static, masks, mapper, seed, tell)
    except OSError as error:
        raise SfmError(f"camera solving cannot use {folder}: {error}; make room or give another folder, finished stages stay") from error


def _solve(
    capture: Capture,
    folder: Path,
    views: list[tuple[int, int]],
    static: Sequence[tuple[int, int]],
    masks: MaskOf | None,
    mapper: str,
    seed: int,
    tell: Progress,
) -> CameraTrack:
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as lock:
        keyframes, digest = write_views(capture, views, folder, masks, lambda share: tell("pictures", share))
        request = _request(capture, views, keyframes, digest, mapper, seed)
        _keep_or_clear(folder, request)
        track = folder / request["track"]
        if not track.is_file():
            _run_child(folder, tell, lock)
        with np.load(track, allow_pickle=False) as data:
            return _to_track(capture, views, static, dict(data))


def refused(capture: Capture, static: Sequence[tuple[int, int]], reason: str, mapper: str = "none") -> CameraTrack:
    """A track without poses."""
    n = len(capture.frames)
    return CameraTrack(
        np.full((n, 4, 4), np.nan),
        np.full((n, 6, 6), np.nan),
        np.zeros(n, bool),
        tuple(static),
        np.empty((0, 3)),
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.empty((0, 2)),
        float("nan"),
        mapper,
        refusal=reason,
    )


def _never_moved(capture: Capture, static: Sequence[tuple[int, int]]) -> CameraTrack:
    n, nothing = len(capture.frames), np.empty(0, np.int64)
    poses = np.broadcast_to(np.eye(4), (n, 4, 4)).copy()
    none, all_frames = np.zeros((n, 6, 6)), np.ones(n, bool)
    return CameraTrack(poses, none, all_frames, tuple(static), np.empty((0, 3)), nothing, nothing, np.empty((0, 2)), 0.0, "static")


def _request(capture: Capture, views: list[tuple[int, int]], keyframes: list[int], digest: str, mapper: str, seed: int) -> dict[str, Any]:
    base = {
        "layout": _LAYOUT,
        "names": [view_name(v) for v in views],
        "keyframes": keyframes,
        "K": np.asarray(capture.K, float).tolist(),
        "distortion": None if capture.distortion is None else np.asarray(capture.distortion, float).tolist(),
        "seed": seed,
        "pixels": digest,
    }
    key = hashlib.sha256(json.dumps(base, sort_keys=True).encode()).hexdigest()[:16]
    return {**base, "key": key, "mapper": mapper, "track": f"track_{mapper}.npz"}


def _keep_or_clear(folder: Path, request: dict[str, Any]) -> None:
    """Forget the stages of another request; keep those of this one (the mapper may differ)."""
    path = folder / "request.json"
    known = json.loads(path.read_text()).get("key") if path.is_file() else None
    if known != request["key"]:
        path.unlink(missing_ok=True)  # first, so that a kill in between leaves no key for half-cleared stages
        for old in [*folder.glob("database.db*"), *folder.glob("track_*.npz"), folder / "registered", folder / "cost.json"]:
            old.unlink(missing_ok=True)
        shutil.rmtree(folder / "models", ignore_errors=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(request))
    part.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; the child inherits it, so an orphan that is about to end is waited for."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise SfmError(f"{folder} is in use by another run; wait for it or give another folder") from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def _run_child(folder: Path, tell: Progress, lock: int) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "annotators.sfm_child", str(folder)]
    stage = "start"
    with (folder / "colmap.log").open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, pass_fds=(lock,))
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith(b'{"stage"'):
                    told = json.loads(line)
                    stage = told["stage"]
                    tell(stage, told["share"])
            code = child.wait()
        finally:
            child.kill()
            child.wait()
    if code:
        raise SfmError(_crash_text(folder, stage, code))


def _crash_text(folder: Path, stage: str, code: int) -> str:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    lines = (folder / "colmap.log").read_text(errors="replace").strip().splitlines()
    return f"the camera solver stopped with {how} during '{stage}' ({lines[-1].strip() if lines else 'no message'}); run again to go on"


def _to_track(
    capture: Capture, views: list[tuple[int, int]], static: Sequence[tuple[int, int]], data: dict[str, np.ndarray]
) -> CameraTrack:
    """From views to frames; first posed camera = world, median depth = 1."""
    mapper = str(data.get("mapper", "none"))
    if str(data["refusal"]):
        return replace(refused(capture, static, str(data["refusal"]), mapper), flags=_doubts(data))
    order = np.argsort(data["views"])
    numbers, T, covariance = data["views"][order], data["T_world_cam"][order], data["covariance"][order]
    first = se3.inverse(T[0])
    points = se3.transform(first, data["points"])
    T = first @ T
    obs_point, obs_view = data["obs"].T
    pose_of = np.zeros(len(views), np.int64)
    pose_of[numbers] = np.arange(len(numbers))
    depth = np.einsum("oi,oi->o", points[obs_point] - T[pose_of[obs_view], :3, 3], T[pose_of[obs_view], :3, 2])
    scale = float(np.median(depth))
    T[:, :3, 3] /= scale
    unit = np.diag([1.0 / scale] * 3 + [1.0] * 3)
    n = len(capture.frames)
    poses, covariances, posed = np.full((n, 4, 4), np.nan), np.full((n, 6, 6), np.nan), np.zeros(n, bool)
    for k, number in enumerate(numbers):
        frames = slice(*views[number])
        poses[frames], covariances[frames], posed[frames] = T[k], unit @ covariance[k] @ unit, True
    return CameraTrack(
        poses,
        covariances,
        posed,
        tuple(static),
        points / scale,
        obs_point,
        np.array([v[0] for v in views], np.int64)[obs_view],
        data["obs_uv_px"],
        float(data["mean_reprojection_px"]),
        mapper,
        json.loads(str(data["cross_check"])),
        flags=_doubts(data),
    )


def _doubts(data: dict[str, np.ndarray]) -> tuple[Flag, ...]:
    return tuple(Flag(kind, text) for kind, text in json.loads(str(data.get("doubts", "{}"))).items())
