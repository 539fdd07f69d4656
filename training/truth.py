"""What the evaluator compares: true frames and estimates of them, as arrays; from datasets, from drawn scenes, from files.

Shapes: F frames, N keypoints, J joints. Cameras: OpenCV axes, pixel centres at integers, lengths m, angles rad.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import RobotError, StoreError
from dataengine.record.frame_table import KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE

if TYPE_CHECKING:
    from training.scene_statistics import Scenes

Array = NDArray[np.float64]
Edge = tuple[int, int]

LABELS = ("K", "keypoints_cam_m", "keypoints_px", "keypoint_state", "joint_position", "T_cam_base", "accepted")
SYNTHETIC = "synthetic scenes"
"""Location of drawn scenes, which have no images."""
CHUNK = 256
"""Samples read at a time."""


@dataclass(frozen=True)
class Truth:
    """True frames. Names say what the axes mean; `ids` (F, 3) are dataset, video, frame."""

    robot: str
    keypoint_set: str
    keypoint_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    sliding: tuple[str, ...]
    keypoints_m: Array
    keypoints_px: Array
    state: NDArray[np.uint8]
    """(F, N): 2 seen, 1 hidden, 0 outside the image."""
    K: Array
    size: NDArray[np.int64]
    """(F, 2): width, height."""
    joints: Array
    T_cam_base: Array
    ids: NDArray[np.int64]
    location: str = ""
    identity: str = ""
    split: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)
    edges: tuple[Edge, ...] = ()
    """Pairs of keypoints that a picture of the robot joins."""

    def __len__(self) -> int:
        return len(self.keypoints_m)

    def __getitem__(self, rows: slice | ArrayLike) -> Truth:
        chosen = rows if isinstance(rows, slice) else np.asarray(rows)
        return replace(self, **{f.name: v[chosen] for f in fields(self) if isinstance(v := getattr(self, f.name), np.ndarray)})


@dataclass(frozen=True)
class Estimates:
    """What an estimator says of the same frames. NaN keypoints: no estimate, a failure. What is None was not estimated."""

    name: str
    keypoint_names: tuple[str, ...]
    keypoints_m: Array
    """(F, N, 3), camera frame: forward kinematics of the estimated joints, moved by the estimated pose."""
    joint_names: tuple[str, ...] = ()
    joints: Array | None = None
    T_cam_base: Array | None = None
    detected_px: Array | None = None
    """(F, N, 2) of the 2D stage; NaN: not detected."""
    covariance_m2: Array | None = None
    """(F, N, 3, 3) of `keypoints_m`."""
    ids: NDArray[np.int64] | None = None
    source: str = ""
    digest: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keypoints_m)


# ---- truth ---------------------------------------------------------------------------------------------------------------


def truth_of_dataset(
    location: str | Path,
    split: str | None = None,
    keypoint_names: Sequence[str] | None = None,
    keypoint_set: str = "",
    limit: int | None = None,
) -> Truth:
    """Labels of a dataset's accepted frames in natural order, at most `limit`, evenly spread; no images are read.

    `keypoint_names` picks and orders the keypoints (default: all that are labelled). Raises StoreError for an empty split
    and a dataset without labels, RobotError for keypoints that are not labelled.
    """
    from dataengine.store.catalogue import open_catalogue

    catalogue = open_catalogue(location, split)
    names, scene, about = _about(catalogue)
    rows = keypoint_rows(names["keypoints"], keypoint_names, str(location))
    chosen = np.arange(len(catalogue))
    if limit is not None and limit < len(chosen):
        chosen = np.unique(np.linspace(0, len(chosen) - 1, limit).round().astype(int))
    labels = read_columns(catalogue, LABELS, chosen)
    accepted = labels["accepted"].astype(bool)
    if not accepted.any():
        raise StoreError(f"{location}: none of the {len(chosen)} frames was accepted; choose a dataset or split with accepted frames")
    h, w = catalogue.size
    count = int(accepted.sum())
    return Truth(
        robot=str(scene.get("robot", {}).get("name", "")),
        keypoint_set=keypoint_set,
        keypoint_names=tuple(names["keypoints"][r] for r in rows),
        joint_names=tuple(names["joints"]),
        sliding=tuple(n for n in names["joints"] if "finger" in n),
        keypoints_m=labels["keypoints_cam_m"][accepted][:, rows],
        keypoints_px=labels["keypoints_px"][accepted][:, rows],
        state=labels["keypoint_state"][accepted][:, rows],
        K=labels["K"][accepted],
        size=np.tile(np.array([w, h], np.int64), (count, 1)),
        joints=labels["joint_position"][accepted],
        T_cam_base=labels["T_cam_base"][accepted],
        ids=np.stack([labels[k][accepted].astype(np.int64) for k in ("dataset", "video", "frame")], 1),
        location=str(location),
        identity=catalogue.content,
        split=split or "",
        skipped={"not accepted": len(chosen) - count} if count < len(chosen) else {},
        edges=_edges(about, rows),
    )


def keypoint_rows(labelled: Sequence[str], wanted: Sequence[str] | None, where: str) -> NDArray[np.int64]:
    """Columns of the wanted keypoints among those labelled, all without a wish. RobotError names what is missing."""
    if wanted is None:
        return np.arange(len(labelled))
    missing = [n for n in wanted if n not in labelled]
    if missing:
        raise RobotError(f"{where}: keypoints not labelled here: {', '.join(missing)}; labelled: {', '.join(labelled)}")
    return np.array([list(labelled).index(n) for n in wanted], np.int64)


def read_columns(catalogue: Any, columns: Sequence[str], samples: NDArray[np.int64]) -> dict[str, NDArray]:
    """Columns (labels or images) of given samples, in their order. StoreError where a modality is not stored."""
    from dataengine.store.iterator import Batches, View

    batches = Batches([catalogue], View(tuple(columns)), CHUNK, shuffle=False)
    parts = []
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        parts.append(batches.gather(np.zeros(len(chunk), np.int64), chunk, np.zeros(len(chunk), np.uint64)))
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def truth_of_scenes(scenes: Scenes, chain: Any, seed: int, width: int = 640, height: int = 480, edges: tuple[Edge, ...] = ()) -> Truth:
    """Drawn scenes as truth; every scene is a video of its own. `chain` is the `KeypointChain` they were drawn with."""
    K, X, uv = (getattr(scenes, n).double().cpu().numpy() for n in ("K", "X_cam", "uv"))
    count = len(X)
    state = np.where(_in_image(uv, X[..., 2], width, height), KEYPOINT_VISIBLE, KEYPOINT_OUTSIDE).astype(np.uint8)
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = scenes.R.double().cpu().numpy(), scenes.T.double().cpu().numpy()
    ids = np.zeros((count, 3), np.int64)
    ids[:, 1] = np.arange(count)
    return Truth(
        robot=chain.robot,
        keypoint_set=chain.keypoint_set,
        keypoint_names=tuple(chain.keypoint_names),
        joint_names=tuple(chain.joint_names),
        sliding=tuple(n for n in chain.joint_names if "finger" in n),
        keypoints_m=X,
        keypoints_px=uv,
        state=state,
        K=K,
        size=np.tile(np.array([width, height], np.int64), (count, 1)),
        joints=scenes.q.double().cpu().numpy(),
        T_cam_base=pose,
        ids=ids,
        location=SYNTHETIC,
        identity=f"seed {seed}",
        edges=edges,
    )


def joined(parts: Sequence[Truth]) -> Truth:
    """Frames of several truths of the same robot and keypoints one after the other; videos are renumbered to stay apart."""
    first = parts[0]
    for p in parts:
        if (p.keypoint_names, p.joint_names) != (first.keypoint_names, first.joint_names):
            raise RobotError(f"{p.location}: other keypoints or joints than {first.location}; evaluate them apart")
    arrays = {f.name: [getattr(p, f.name) for p in parts] for f in fields(first) if isinstance(getattr(first, f.name), np.ndarray)}
    arrays["ids"] = [np.column_stack([np.full(len(p), i), p.ids[:, 1:]]) for i, p in enumerate(parts)]
    skipped: dict[str, int] = {}
    for p in parts:
        for reason, count in p.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    text = {n: ", ".join(dict.fromkeys(getattr(p, n) for p in parts)) for n in ("location", "identity", "split")}
    return replace(first, **{name: np.concatenate(values) for name, values in arrays.items()}, **text, skipped=skipped)


def _about(catalogue: Any) -> tuple[Mapping[str, Any], Mapping[str, Any], Any]:
    """(names as plain lists, the scene, names) of a dataset's first video."""
    reader = catalogue.open(0)
    return reader.attributes["names"], reader.attributes.get("scene", {}), reader.names


def _edges(names: Any, rows: NDArray[np.int64]) -> tuple[Edge, ...]:
    """The skeleton of the chosen keypoints."""
    from dataengine.view.skeleton import skeleton_edges

    return skeleton_edges(
        replace(
            names,
            keypoints=tuple(names.keypoints[r] for r in rows),
            keypoint_links=tuple(names.keypoint_links[r] for r in rows),
            keypoint_offsets_m=tuple(names.keypoint_offsets_m[r] for r in rows),
        )
    )


def _in_image(uv: Array, z: Array, width: int, height: int) -> NDArray[np.bool_]:
    return ((uv >= -0.5) & (uv < np.array([width, height]) - 0.5)).all(-1) & (z > 0)


# ---- estimates -----------------------------------------------------------------------------------------------------------


def matched(estimates: Estimates, truth: Truth) -> Estimates:
    """The estimates with keypoints and joints in the truth's order. RobotError for another keypoint set or robot, StoreError
    for another number of frames or other frames."""
    missing = [n for n in truth.keypoint_names if n not in estimates.keypoint_names]
    extra = [n for n in estimates.keypoint_names if n not in truth.keypoint_names]
    if missing or extra:
        raise RobotError(
            f"{estimates.name}: estimates of the keypoints {', '.join(estimates.keypoint_names)}; the truth has "
            f"{', '.join(truth.keypoint_names)}; choose the set that was estimated"
        )
    if len(estimates) != len(truth):
        counts = f"estimates of {len(estimates)} frames, the truth has {len(truth)}"
        raise StoreError(f"{estimates.name}: {counts}; give the same split and limit")
    if estimates.ids is not None and not np.array_equal(estimates.ids, truth.ids):
        raise StoreError(f"{estimates.name}: estimates of other frames than those of {truth.location}; give the same split and limit")
    rows = [estimates.keypoint_names.index(n) for n in truth.keypoint_names]
    taken = {n: v[:, rows] for n in ("keypoints_m", "detected_px", "covariance_m2") if (v := getattr(estimates, n)) is not None}
    if estimates.joints is not None:
        unknown = [n for n in estimates.joint_names if n not in truth.joint_names]
        if unknown:
            raise RobotError(f"{estimates.name}: joints {', '.join(unknown)} are not the robot's; it has {', '.join(truth.joint_names)}")
    return replace(estimates, keypoint_names=truth.keypoint_names, **taken)


def save_estimates(estimates: Estimates, path: str | Path) -> Path:
    """One .npz without pickled objects."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f.name: v for f in fields(estimates) if isinstance(v := getattr(estimates, f.name), np.ndarray)}
    text = {n: np.array(getattr(estimates, n), str) for n in ("name", "keypoint_names", "joint_names")}
    settings = np.array([f"{k}={v}" for k, v in estimates.settings.items()], str)
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays, **text, settings=settings)
    return path


def load_estimates(path: str | Path) -> Estimates:
    """Inverse of `save_estimates`; the file is the source. StoreError for anything else."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such file of estimates") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise StoreError(f"{path}: not a file of estimates ({error}); write it with training.truth.save_estimates") from None
    missing = [n for n in ("name", "keypoint_names", "keypoints_m") if n not in found]
    if missing:
        raise StoreError(f"{path}: no {', '.join(missing)} in it; write it with training.truth.save_estimates")
    shape = found["keypoints_m"].shape
    if len(shape) != 3 or shape[1:] != (len(found["keypoint_names"]), 3):
        raise StoreError(f"{path}: keypoints_m has shape {shape}; allowed: (frames, {len(found['keypoint_names'])}, 3)")
    none = np.array([], str)
    keypoints, joints, settings = (tuple(found.get(n, none).tolist()) for n in ("keypoint_names", "joint_names", "settings"))
    arrays = {n: found.get(n) for n in ("joints", "T_cam_base", "detected_px", "covariance_m2", "ids")}
    return Estimates(
        name=str(found["name"]),
        keypoint_names=keypoints,
        keypoints_m=found["keypoints_m"],
        joint_names=joints,
        **arrays,
        source=str(path),
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        settings=dict(entry.split("=", 1) for entry in settings),
    )
