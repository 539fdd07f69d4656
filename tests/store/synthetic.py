"""Small synthetic videos: every modality, plausible content, a pure function of their seed."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataengine.record.frame_table import frame_dtype
from dataengine.record.modalities import DEPTH_QUANTUM_M, NAMES, concrete_shape, modality
from dataengine.record.video import Names, Video
from dataengine.store.dataset import Dataset, open_or_create


def synthetic_video(
    seed: int = 0,
    frames: int = 3,
    size: tuple[int, int] = (12, 16),
    modalities: tuple[str, ...] = NAMES,
    objects: int = 2,
    covariance: bool = False,
) -> Video:
    """A video that fits the table; images are random but quantised as the table says."""
    rng = np.random.default_rng(seed)
    images = {}
    for name in modalities:
        m = modality(name)
        shape = (frames, *concrete_shape(m, *size))
        if m.dtype == "float32":
            images[name] = (rng.integers(0, 40_000, shape) * DEPTH_QUANTUM_M).astype(np.float32)
        else:
            info = np.iinfo(m.dtype)
            images[name] = rng.integers(info.min, info.max, shape, m.dtype, endpoint=True)
    rows = np.zeros(frames, frame_dtype(7, 9, 4, objects, covariance))
    for column in rows.dtype.names or ():
        values = rng.normal(size=rows[column].shape) * 100
        rows[column] = np.abs(values) if rows[column].dtype.kind == "u" else values
    if frames:
        rows["keypoints_px"][0] = np.nan
    names = Names(
        tuple(f"joint{i}" for i in range(7)),
        tuple(f"link{i}" for i in range(9)),
        ("a", "b", "c", "d"),
        (0, 3, 5, 8),
        ((0.0, 0.0, 0.1), (0.0, -0.5, 0.0), (1e-9, 2.0, 3.0), (0.0, 0.0, 0.0)),
        tuple(f"mug {i} é" for i in range(objects)),
    )
    scene = {"seed": seed, "camera": {"fx_px": 502.3, "path": None}, "lights": [1.5, 2, [True, "π"]]}
    return Video("rendered", names, images, rows, scene, {"bpy": "4.5.15"}, None, {"tries": 3})


def same_video(a: Video, b: Video) -> bool:
    """Whether two videos hold exactly the same, NaN and all."""
    if (a.source, a.names, a.scene, a.provenance, a.rejection, a.notes) != (b.source, b.names, b.scene, b.provenance, b.rejection, b.notes):
        return False
    if list(a.images) != list(b.images) or a.frames.dtype != b.frames.dtype or a.frames.tobytes() != b.frames.tobytes():
        return False
    return all(a.images[n].dtype == b.images[n].dtype and np.array_equal(a.images[n], b.images[n]) for n in a.images)


def new_dataset(path: Path, digest: str = "a" * 64, planned: int | None = None) -> Dataset:
    return open_or_create(path, {"name": "tiny", "seed": 0}, digest, "tiny", planned)


def run_forked(body: Callable[[], object]) -> int:
    """Start `body` in a forked child; returns its pid. Exit status 0 = it returned, 9 = it raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 9
    try:
        body()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def wait_for(pid: int) -> int:
    """Exit status of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def full_device() -> BinaryIO:
    """A file on a disk without space: what is written fails with the kernel's own ENOSPC."""
    return open("/dev/full", "wb")
