"""report.json: what an evaluation found, as typed values with a version; written by the evaluator, read by people and by
whatever turns weak slices into the next dataset. Standard library only.

Every field states its unit, bounds and meaning once, here; `from_json` checks them, `markdown_table` prints them.
Numbers that do not exist (the median when most frames failed, a ratio of nothing) are null, never NaN: it is plain JSON.
"""

import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from dataengine.errors import RecordError

VERSION = 1
"""Raised when a field changes its meaning or goes; a reader takes its own version only. New optional fields keep it."""


def _is(meaning: str, unit: str = "", low: float = -math.inf, high: float = math.inf, default: Any = MISSING) -> Any:
    """A field and what is said about it."""
    said = {"meaning": meaning, "unit": unit, "low": low, "high": high}
    return field(metadata=said) if default is MISSING else field(default=default, metadata=said)


@dataclass(frozen=True)
class Subject:
    """What was judged."""

    name: str = _is("name of the estimator, for people")
    source: str = _is("where the estimates come from: a checkpoint's path, a predictions file, or a built-in estimator")
    digest: str = _is("SHA-256 of that file; empty for a built-in estimator")
    settings: dict[str, str] = _is("mode, sampler, K, refinement … as text")


@dataclass(frozen=True)
class Data:
    """What it was judged on."""

    location: str = _is("dataset, or the name of a synthetic scene distribution")
    identity: str = _is("digest of the videos and their contents, or the seed of synthetic scenes")
    split: str = _is("split of the dataset; empty: all of it")
    robot: str = _is("robot")
    keypoint_set: str = _is("named keypoint set that ADD is taken over; empty when it has no name")
    keypoints: tuple[str, ...] = _is("its keypoints")
    frames: int = _is("frames judged", "frames", 1)
    videos: int = _is("videos they belong to", "videos", 1)
    skipped: dict[str, int] = _is("frames left out, by reason")


@dataclass(frozen=True)
class Environment:
    """Where it ran."""

    commit: str = _is("revision of this code, with + when it had been changed")
    machine: str = _is("processor or accelerator")
    threads: int = _is("threads of the numeric library", "", 0)
    versions: dict[str, str] = _is("versions of python, numpy, torch")


@dataclass(frozen=True)
class Score:
    """ADD of a set of frames: the mean distance of its keypoints in the camera frame."""

    frames: int = _is("frames", "frames", 0)
    failures: int = _is("frames without an estimate; every one is a miss", "frames", 0)
    auc: float | None = _is("area under the share of frames with ADD ≤ t, t to 0.1 m, over all frames", "0–1", 0, 1)
    auc_ci95: tuple[float, float] | None = _is("its 95 % interval, clustered by video", "0–1")
    median_m: float | None = _is("median ADD, failures infinite; null when most fail", "m", 0)
    mean_m: float | None = _is("mean ADD of the frames with an estimate", "m", 0)


@dataclass(frozen=True)
class Slice:
    """The frames whose value on an axis lies in [low, high); the last slice of an axis includes its upper end."""

    axis: str = _is("what is sliced: a name of `AXES`, or joint:NAME")
    unit: str = _is("unit of the bounds")
    low: float = _is("lower bound")
    high: float = _is("upper bound")
    score: Score = _is("ADD of these frames")


@dataclass(frozen=True)
class ProtocolScore:
    """One published protocol's numbers."""

    name: str = _is("protocol")
    add_auc: float | None = _is("ADD AUC as that protocol's script computes it; DREAM's may exceed 1", "0–1", 0)
    add_maximum_m: float = _is("upper end of its thresholds", "m", 0)
    pck_auc: float | None = _is("AUC of the share of keypoints found in 2D; null without 2D detections", "0–1", 0)
    pck_maximum_px: float = _is("upper end of its thresholds", "px", 0)
    denominator: int = _is("frames that the ADD AUC is divided by", "frames", 0)
    found: int = _is("frames with an estimate", "frames", 0)
    note: str = _is("what is peculiar to it")


@dataclass(frozen=True)
class JointScore:
    """Error of one joint's position over the frames with an estimate."""

    joint: str = _is("joint")
    unit: str = _is("rad or m")
    median: float | None = _is("median absolute error", "rad or m", 0)
    mean: float | None = _is("mean absolute error", "rad or m", 0)
    p95: float | None = _is("95th percentile", "rad or m", 0)


@dataclass(frozen=True)
class PoseScore:
    """Error of the robot base's pose in the camera frame."""

    median_translation_m: float | None = _is("median distance", "m", 0)
    median_rotation_rad: float | None = _is("median angle", "rad", 0)


@dataclass(frozen=True)
class Efficiency:
    """Certificate: ADD² over its expectation for an estimator on the Cramér–Rao bound of the very same frame."""

    frames: int = _is("frames with a bound and an estimate", "frames", 0)
    median_ratio: float | None = _is("median over frames of the ratio", "", 0)
    mean_ratio: float | None = _is("mean over frames of the ratio: 1 is efficient", "", 0)
    median_of_bound: float | None = _is("median ratio of an efficient estimator, below 1 as squared errors are skew", "", 0)
    bound_median_m: float | None = _is("median ADD of an efficient estimator", "m", 0)
    bound_auc: float | None = _is("its AUC", "0–1", 0, 1)


@dataclass(frozen=True)
class Calibration:
    """Whether stated covariances are right."""

    quantity: str = _is("whose covariance: keypoints_cam_m or parameters")
    level: float = _is("probability of the region", "0–1", 0, 1)
    covered: float | None = _is("share of errors inside it", "0–1", 0, 1)
    count: int = _is("errors counted", "", 0)


@dataclass(frozen=True)
class Speed:
    """Frames per second, one at a time."""

    frames: int = _is("frames timed", "frames", 1)
    fps_with_decode: float | None = _is("from the stored image to the pose", "frames/s", 0)
    fps_without_decode: float = _is("from the image in memory to the pose", "frames/s", 0)
    cpu_ms_per_frame: float = _is("CPU time of the process, without decoding", "ms", 0)


@dataclass(frozen=True)
class WorstCase:
    """One of the frames with the largest error; failures first."""

    dataset: int = _is("index of the dataset", "", 0)
    video: int = _is("video", "", 0)
    frame: int = _is("frame within the video", "", 0)
    add_m: float | None = _is("ADD; null: no estimate", "m", 0)
    values: dict[str, float] = _is("the frame's value on every axis")


@dataclass(frozen=True)
class Report:
    """All of an evaluation."""

    version: int = _is("version of this schema", "", VERSION, VERSION)
    subject: Subject = _is("what was judged")
    data: Data = _is("on what")
    environment: Environment = _is("where")
    overall: Score = _is("all frames")
    protocols: tuple[ProtocolScore, ...] = _is("the published protocols side by side")
    slices: tuple[Slice, ...] = _is("the same score on parts of the data")
    joints: tuple[JointScore, ...] = _is("joint errors; empty when no joint positions are estimated")
    pose: PoseScore | None = _is("base pose; null when not estimated")
    efficiency: Efficiency | None = _is("null without a noise model of the 2D")
    calibration: tuple[Calibration, ...] = _is("empty when no covariances are stated")
    speed: Speed | None = _is("null when nothing was timed")
    worst: tuple[WorstCase, ...] = _is("largest errors first")


@dataclass(frozen=True)
class Axis:
    """A quantity of a frame by which reports are sliced; `config_path` is the preset's field that steers it, if one does."""

    name: str
    unit: str
    label: str
    meaning: str
    config_path: str


AXES: tuple[Axis, ...] = (
    Axis("fov_deg", "°", "Field of view", "horizontal field of view", "camera.horizontal_fov_deg"),
    Axis("distance_m", "m", "Distance", "from the camera to the mean of the keypoints", "camera.distance_m"),
    Axis("hidden", "0–1", "Hidden keypoints", "share of keypoints in the image that something hides", "distractors.count"),
    Axis("outside", "0–1", "Keypoints outside", "share of keypoints outside the image", "camera.look_at_offset_m"),
    Axis("elevation_deg", "°", "Camera elevation", "of the camera above the base's xy plane", "camera.elevation_deg"),
)
JOINT_AXIS = "joint:"
"""Prefix of the axes of joint positions: joint:panda_joint4, rad (m when it slides)."""


def axis_label(name: str) -> str:
    """For people: Field of view, panda_joint4."""
    return next((a.label for a in AXES if a.name == name), name.removeprefix(JOINT_AXIS))


def weakest(report: Report, least_frames: int = 20) -> tuple[Slice, ...]:
    """Slices of at least so many frames whose AUC lies surely (95 %) below that of all frames, weakest first.

    An axis with one slice says nothing, so it is left out.
    """
    several = {s.axis for s in report.slices if sum(t.axis == s.axis for t in report.slices) > 1}
    bar = report.overall.auc or 0.0
    chosen = [
        s
        for s in report.slices
        if s.axis in several and s.score.frames >= least_frames and s.score.auc_ci95 is not None and s.score.auc_ci95[1] < bar
    ]
    return tuple(sorted(chosen, key=lambda s: s.score.auc or 0.0))


# ---- JSON ----------------------------------------------------------------------------------------------------------------


def to_json(report: Report) -> dict[str, Any]:
    """Plain dicts, lists and numbers; NaN and infinities become null."""
    return _plain(report)


def from_json(value: Any, name: str = "report.json") -> Report:
    """Inverse of `to_json`. RecordError tells where it is wrong: `report.json: slices[3].score.auc: 1.4, allowed 0 to 1`."""
    version = value.get("version") if isinstance(value, Mapping) else None
    if version != VERSION:
        raise RecordError(f"{name}: version {version!r}, this program reads version {VERSION}; evaluate again with this version")
    return _typed(Report, value, name + ":", {})


def write(report: Report, path: str | Path) -> Path:
    """Check and write, complete or not at all; creates the folder; returns the path."""
    path = Path(path)
    plain = to_json(report)
    from_json(plain, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read(path: str | Path) -> Report:
    """RecordError for a file that is missing, no JSON, of another version or outside the schema."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: there is no such report; write one with `evaluate`") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a JSON file ({error}); write it again with `evaluate`") from None
    return from_json(value, str(path))


def markdown_table() -> str:
    """Every field of the schema as Markdown, for the documentation."""
    head = "| field | type | unit | meaning |\n|---|---|---|---|\n"
    rows = (f"| `{path}` | {kind} | {f.metadata['unit']} | {f.metadata['meaning']} |" for path, kind, f in _walk(Report, ""))
    return head + "\n".join(rows) + "\n"


def _walk(cls: type, prefix: str) -> Iterator[tuple[str, str, Field]]:
    hints = typing.get_type_hints(cls)
    for f in fields(cls):
        inner, many = _inside(hints[f.name])
        path = prefix + f.name + ("[]" if many else "")
        nested = isinstance(inner, type) and is_dataclass(inner)
        yield path, "object" if nested else _name_of(hints[f.name]), f
        if nested:
            yield from _walk(inner, path + ".")


def _inside(hint: Any) -> tuple[Any, bool]:
    """(item type, whether it is a list) behind Optional and tuple[T, ...]."""
    options = [h for h in typing.get_args(hint) if h is not type(None)] if isinstance(hint, types.UnionType) else [hint]
    hint = options[0]
    arguments = typing.get_args(hint)
    return (arguments[0], True) if typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis else (hint, False)


def _name_of(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    for python, plain in (("str", "text"), ("int", "integer"), ("float", "number"), ("tuple[text, ...]", "list of text"), ("None", "null")):
        text = text.replace(python, plain)
    return text.replace("tuple[number, number]", "[number, number]").replace(" | ", " or ")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _typed(hint: Any, value: Any, where: str, said: Mapping[str, Any]) -> Any:
    """`value` as `hint`; RecordError with the place where it does not fit."""
    if isinstance(hint, types.UnionType):
        rest = next(h for h in typing.get_args(hint) if h is not type(None))
        return None if value is None else _typed(rest, value, where, said)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _typed_record(hint, value, where)
    if origin is dict:
        _require(isinstance(value, Mapping), where, value, "an object")
        return {str(k): _typed(arguments[1], v, f"{where}.{k}", {}) for k, v in value.items()}
    if origin is tuple:
        _require(isinstance(value, list | tuple), where, value, "a list")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        _require(len(kinds) == len(value), where, value, f"{len(kinds)} values")
        return tuple(_typed(kind, v, f"{where}[{i}]", {}) for i, (kind, v) in enumerate(zip(kinds, value, strict=True)))
    if hint is str:
        _require(isinstance(value, str), where, value, "text")
        return value
    _require(isinstance(value, int | float) and not isinstance(value, bool), where, value, "a number")
    _require(hint is float or isinstance(value, int), where, value, "an integer")
    low, high = said.get("low", -math.inf), said.get("high", math.inf)
    _require(math.isfinite(value) and low <= value <= high, where, value, f"{low:g} to {high:g}")
    return hint(value)


def _typed_record(cls: type, value: Any, where: str) -> Any:
    _require(isinstance(value, Mapping), where, value, "an object")
    hints, known = typing.get_type_hints(cls), {f.name: f for f in fields(cls)}
    for name in value:
        _require(name in known, f"{where}.{name}", value[name], f"no such field; the fields are {', '.join(known)}")
    for name, f in known.items():
        _require(name in value or f.default is not MISSING, f"{where}.{name}", "nothing", f.metadata["meaning"])
    return cls(**{name: _typed(hints[name], value[name], f"{where}.{name}", known[name].metadata) for name in value})


def _require(holds: bool, where: str, given: Any, allowed: str) -> None:
    if not holds:
        text = repr(given)
        shown = text if len(text) <= 60 else text[:57] + "…"
        raise RecordError(f"{where.replace(':.', ': ', 1)}: {shown}, allowed: {allowed}")
