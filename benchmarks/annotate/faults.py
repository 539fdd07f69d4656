"""Faults put into an exported capture, one at a time, each as a new folder; what is not touched is linked.

`moved` (an object, while recording) cannot be made afterwards: it is a preset of its own, render_configs/captures/moved_object.yaml.
A bumped base is made from the log: a base turned about its vertical axis by δ looks like joint 1 turned by δ, so joint 1 of the log is
lowered by δ and the truth's base turned, from the middle of the clip on. Only the foot of the base, which is nearly round, shows it not.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dataengine.geometry import se3

Array = np.ndarray
Truth = dict[str, Any]

DEPTH_SCALE = 1.01
LAG_S = 0.04
BUMP_RAD = np.radians(3.0)
FOCAL = 1.06
BLURRED_SHARE, BLUR_PX = 0.15, 4.0
FLAT_PX = 25.0


def inject(fault: str, capture: Path, out: Path, rng: np.random.Generator) -> Path:
    """Copy the capture whose YAML is `capture` into the new folder `out` with one fault of `FAULTS`; returns the new YAML.

    `truth.json` of the copy says what the annotator has to find now, with `fault` and its numbers.
    """
    out.mkdir(parents=True)
    for path in sorted(capture.parent.rglob("*")):
        target = out / path.relative_to(capture.parent)
        target.mkdir(exist_ok=True) if path.is_dir() else os.link(path, target)
    for name in ("truth.json", "joints.csv", "K.txt", capture.name):
        _own(out / name)
    truth = json.loads((out / "truth.json").read_text())
    FAULTS[fault](out, truth, rng)
    truth["fault"] = fault
    (out / "truth.json").write_text(json.dumps(truth) + "\n")
    return out / capture.name


def none(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """The capture as it is."""


def depth_scale(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """All depth one per cent too long."""
    _change(out / "depth", lambda f, d: np.where(d > 0, np.rint(d * DEPTH_SCALE).clip(0, 65535), 0).astype(np.uint16))
    truth["depth_scale"] = DEPTH_SCALE


def blur(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """Some frames out of focus."""
    import cv2

    count = len(truth["timestamp_s"])
    chosen = sorted(rng.choice(np.arange(1, count - 1), max(2, round(BLURRED_SHARE * count)), replace=False).tolist())
    _change(out / "rgb", lambda f, image: cv2.GaussianBlur(image, (0, 0), BLUR_PX) if f in chosen else image)
    truth["blurred"] = chosen


def encoder_lag(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """The encoders' clock is 40 ms late: what they say of time t was true at t − 0.04 s."""
    header, rows = _read_log(out)
    rows[:, 0] += LAG_S
    _write_log(out, header, rows)
    truth["encoder_lag_s"] = LAG_S


def base_bumped(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """The base turns by three degrees between two frames in the middle."""
    times = truth["timestamp_s"]
    first = len(times) // 2
    header, rows = _read_log(out)
    rows[rows[:, 0] >= (times[first - 1] + times[first]) / 2, 1] -= BUMP_RAD
    _write_log(out, header, rows)
    turn = se3.make(se3.rotation_from_axis_angle((0.0, 0.0, 1.0), BUMP_RAD), np.zeros(3))
    for f in range(first, len(times)):
        truth["T_cam_base"][f] = (np.array(truth["T_cam_base"][f]) @ turn).tolist()
        truth["joint_position"][f][0] -= BUMP_RAD
    truth["bumped_from"] = first


def joint_pairing(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """One joint file per image, handed out in a wrong order."""
    order = rng.permutation(len(truth["timestamp_s"])).tolist()
    (out / "qpos").mkdir()
    for f, g in enumerate(order):
        np.savetxt(out / "qpos" / f"{f:06d}.txt", truth["joint_position"][g])
    _edit_yaml(out, {"joints": {"path": "qpos", "mode": "known"}})
    truth["pairing"] = order


def weak_texture(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """Bare walls and table: everything but the robot loses its detail."""
    import cv2

    def flatten(f: int, image: Array) -> Array:
        robot = cv2.imread(str(out / "masks" / f"{f:06d}.png"), cv2.IMREAD_UNCHANGED) > 0
        flat = cv2.GaussianBlur(image, (0, 0), FLAT_PX)
        noisy = flat + rng.normal(0, 1.0, image.shape)
        return np.where(robot[..., None], image, noisy.clip(0, 255).astype(np.uint8))

    _change(out / "rgb", flatten)
    truth["unusable"] = "texture"


def wrong_K(out: Path, truth: Truth, rng: np.random.Generator) -> None:
    """A focal length that is six per cent too long."""
    K = np.array(truth["K"])
    K[0, 0] *= FOCAL
    K[1, 1] *= FOCAL
    np.savetxt(out / "K.txt", K)
    truth["focal_factor"] = FOCAL


FAULTS: dict[str, Callable[[Path, Truth, np.random.Generator], None]] = {
    f.__name__: f for f in (none, depth_scale, blur, encoder_lag, base_bumped, joint_pairing, weak_texture, wrong_K)
}
"""Wrong clicks are not here: they are the simulated annotator's, see `simulated.spoiled`."""


def _own(path: Path) -> None:
    """Turn a link into a copy, so that writing it does not change the original."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def _change(folder: Path, change: Callable[[int, Array], Array]) -> None:
    import cv2

    for f, path in enumerate(sorted(folder.glob("*.png"))):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        cv2.imwrite(str(path), change(f, image))


def _read_log(out: Path) -> tuple[list[str], Array]:
    with (out / "joints.csv").open() as file:
        header, *rows = list(csv.reader(file))
    return header, np.array(rows, float)


def _write_log(out: Path, header: list[str], rows: Array) -> None:
    with (out / "joints.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([[f"{x:.9g}" for x in row] for row in rows])


def _edit_yaml(out: Path, changes: dict[str, Any]) -> None:
    path = out / "capture.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes, sort_keys=False))


def remove(out: Path) -> None:
    """Delete a folder made by `inject`; the original's files stay."""
    shutil.rmtree(out)
