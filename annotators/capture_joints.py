"""The encoder log of a capture: csv with times, or one file per frame; columns matched to the robot's joints."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from annotators.capture_files import find_files, pair
from annotators.capture_spec import CaptureError, CaptureSpec, Source
from annotators.types import JointLog
from dataengine.robot.model import MOVING, RobotModel

Array = np.ndarray

SLACK = 0.1
"""Encoders may report positions outside a joint's limits by this much, rad or m."""
MOST_OUTSIDE = 0.02
"""Share of the log that may be further out, before the log is taken for another robot's."""


def load_joints(spec: CaptureSpec, source: Source, model: RobotModel, frames: Sequence[Path], times_s: Array) -> JointLog | None:
    """The log in URDF order of the actuated joints, None without one; a joint that the log lacks stands at 0, within its limits.

    CaptureError: a log of another robot, in degrees, or of another time.
    """
    if spec.joints.path is None:
        return None
    path = source.path("joints.path", spec.joints.path)
    if path.is_file():
        header, table = _read_table(source, path)
        if table.shape[1] < 2:
            raise source.error("joints.path", f"{path} has {table.shape[1]} column; expected time and one column per joint")
        times, positions, header = table[:, 0], table[:, 1:], header[1:]
        if (np.diff(times) < 0).any():
            raise source.error("joints.path", f"{path}: times go backwards; sort the rows by time")
    else:
        positions, times, header = _per_frame(spec, source, frames), times_s, []
    names = list(spec.joints.columns) or header or default_columns(source, model, positions.shape[1])
    log = arrange(source, model, names, positions, spec.joints.unit)
    _check_limits(source, model, log, names, spec.joints.unit)
    if times[-1] < times_s[0] or times[0] > times_s[-1]:
        raise source.error(
            "joints.path",
            f"{path} covers {times[0]:.3f} … {times[-1]:.3f} s and the images {times_s[0]:.3f} … {times_s[-1]:.3f} s; use one clock",
        )
    return JointLog(np.asarray(times, float), log)


def _read_table(source: Source, path: Path) -> tuple[list[str], Array]:
    """(header or [], table) of a file with commas, semicolons or blanks between numbers."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError):
        raise source.error("joints.path", f"cannot read {path}; give a csv file with time and one column per joint") from None
    separator = next((s for s in (",", ";", "\t") if lines and s in lines[0]), None)
    rows = [[c.strip() for c in r] for r in csv.reader(lines, delimiter=separator)] if separator else [line.split() for line in lines]
    header = rows.pop(0) if rows and not _is_number(rows[0][0]) else []
    widths = {len(r) for r in rows}
    wrong = next((k for k, r in enumerate(rows) if not all(map(_is_number, r))), None)
    if not rows or len(widths) > 1 or wrong is not None:
        what = f"has rows of {min(widths)} and {max(widths)} columns" if rows else "holds no rows"
        what = what if wrong is None else f"row {wrong + 1} holds something else than numbers"
        raise source.error("joints.path", f"{path} {what}; expected time and one column per joint in every row")
    return header, np.array(rows, float)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _per_frame(spec: CaptureSpec, source: Source, frames: Sequence[Path]) -> Array:
    """One file per frame, .txt or .npy, all numbers in it in order."""
    files = pair(source, "joints.path", frames, find_files(source, "joints.path", spec.joints.path or "", (".txt", ".npy", ".csv")))
    rows = []
    for frame, path in zip(frames, files, strict=True):
        if path is None:
            raise source.error("joints.path", f"there is no joint file for {frame.name}; give one per image")
        try:
            text = path.suffix != ".npy"
            row = np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None) if text else np.load(path, allow_pickle=False)
            rows.append(np.asarray(row, float).ravel())
        except (ValueError, OSError, EOFError):
            raise CaptureError(f"{path} holds no joint positions that can be read; expected numbers only") from None
    if len({len(r) for r in rows}) > 1:
        raise source.error("joints.path", "the joint files hold different numbers of joints; give all joints in each")
    return np.stack(rows)


def default_columns(source: Source, model: RobotModel, count: int) -> list[str]:
    """Joint names of `count` columns without a header: all actuated joints, those and their mimics, or the arm without its gripper."""
    moving = [j.name for j in model.joints if j.type in MOVING]
    arm = [j.name for j in model.joints if j.actuated and j.type != "prismatic"]
    for names in (list(model.actuated), moving, arm):
        if len(names) == count:
            return names
    raise source.error(
        "joints.path",
        f"{count} joints per row, robot {model.name} has {model.dof} ({', '.join(model.actuated)}): the log of another robot? "
        "If not, name its columns with joints.columns",
    )


def arrange(source: Source, model: RobotModel, names: Sequence[str], positions: Array, unit: str) -> Array:
    """(M,columns) as logged → (M,D) radians or metres in URDF order."""
    if len(names) != positions.shape[1]:
        raise source.error("joints", f"{positions.shape[1]} columns and {len(names)} names; name every column, `-` skips one")
    moving = {j.name for j in model.joints if j.type in MOVING}
    unknown = [n for n in names if n != "-" and n not in moving]
    if unknown:
        has = ", ".join(model.actuated)
        raise source.error("joints", f"robot {model.name} has no joint '{unknown[0]}', it has {has}: the log of another robot?")
    prismatic = {j.name for j in model.joints if j.type == "prismatic"}
    out = np.clip(np.zeros((len(positions), model.dof)), model.q_lower, model.q_upper)
    for column, name in enumerate(names):
        if name in model.actuated:
            scale = np.pi / 180 if unit == "deg" and name not in prismatic else 1.0
            out[:, model.actuated.index(name)] = positions[:, column] * scale
    return out


def _check_limits(source: Source, model: RobotModel, log: Array, names: Sequence[str], unit: str) -> None:
    outside = (log < model.q_lower - SLACK) | (log > model.q_upper + SLACK)
    if outside.mean() <= MOST_OUTSIDE:
        return
    in_radians = np.radians(log)
    fits = not ((in_radians < model.q_lower - SLACK) | (in_radians > model.q_upper + SLACK)).any()
    if unit == "rad" and np.abs(log).max() > 2 * np.pi and fits:
        raise source.error("joints", "the joint log looks like degrees; set joints.unit: deg")
    worst = int(outside.mean(0).argmax())
    raise source.error(
        "joints",
        f"{model.actuated[worst]} runs from {log[:, worst].min():.2f} to {log[:, worst].max():.2f}, its limits are "
        f"{model.q_lower[worst]:.2f} … {model.q_upper[worst]:.2f}: the log of another robot, another joint order or unit?",
    )
