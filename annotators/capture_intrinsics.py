"""K and distortion of a capture, from numbers or from the files that calibrations come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annotators.capture_spec import CaptureError, CaptureSpec, Source
from dataengine.config import yaml_tree
from dataengine.errors import ConfigError
from dataengine.geometry.camera import intrinsics, intrinsics_from_colmap

Array = np.ndarray

MOST_OFF_CENTRE = 0.2
"""A principal point farther from the image centre than this share of the image is taken for a K of another resolution."""
FORMS = "a 3x3 text file, a YAML file with K (or k, or fx fy cx cy), a ROS camera_info.yaml, or COLMAP's cameras.txt"
COLMAP_MODELS = {"SIMPLE_PINHOLE": (1, 0), "PINHOLE": (2, 0), "SIMPLE_RADIAL": (1, 1), "RADIAL": (1, 2), "OPENCV": (2, 4)}
"""Camera model → how many focal lengths before the principal point, how many distortion numbers after it."""


@dataclass(frozen=True)
class Lens:
    """K (3,3), pixel centres at integers; distortion k1 k2 p1 p2 k3 or None; image size (width, height) where the file says."""

    K: Array
    distortion: Array | None = None
    size: tuple[int, int] | None = None


def load_lens(spec: CaptureSpec, source: Source, size: tuple[int, int]) -> Lens:
    """The colour camera of a capture whose images have `size` (width, height). CaptureError for a K of another resolution."""
    given = spec.intrinsics
    if given.file is None:
        lens = Lens(intrinsics(given.fx_px or 0, given.fy_px or 0, given.cx_px or 0, given.cy_px or 0))
    else:
        lens = read_lens(source, given.file)
    stated = (given.width, given.height) if given.width and given.height else lens.size
    if stated is not None and stated != size:
        raise source.error(
            "intrinsics",
            f"K belongs to images of {stated[0]}×{stated[1]}, these have {size[0]}×{size[1]}; "
            "scale it (c' = (c + 0.5)·s − 0.5) or give images of that size",
        )
    off = np.abs((lens.K[:2, 2] + 0.5) / size - 0.5)
    if stated is None and off.max() > MOST_OFF_CENTRE:
        raise source.error(
            "intrinsics",
            f"the principal point ({lens.K[0, 2]:.1f}, {lens.K[1, 2]:.1f}) is far from the centre of images of {size[0]}×{size[1]}: "
            "K of another resolution? If it is right, say so with intrinsics.width and intrinsics.height",
        )
    distortion = np.zeros(5)
    distortion[: len(given.distortion)] = given.distortion
    return Lens(lens.K, distortion if given.distortion else lens.distortion, size)


def read_lens(source: Source, text: str) -> Lens:
    """Lens of one file, whose form is told by its content."""
    path = source.path("intrinsics.file", text)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise source.error("intrinsics.file", f"cannot read {path} ({reason}); give {FORMS}") from None
    rows = [line.split() for line in content.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    colmap = next((row for row in rows if len(row) > 4 and row[1].isupper()), None)
    if colmap is not None and path.suffix == ".txt":
        return _colmap(source, path, rows)
    if path.suffix in (".yaml", ".yml", ".json"):
        return _from_mapping(source, path, content)
    try:
        numbers = np.array([float(x) for row in rows for x in " ".join(row).replace(",", " ").split()])
    except ValueError:
        numbers = np.zeros(0)
    return Lens(_matrix(source, path, numbers))


def _matrix(source: Source, path: Path, numbers: Sequence[float] | Array) -> Array:
    """Nine numbers (or four: fx fy cx cy) → K."""
    values = np.asarray(numbers, float).ravel()
    if len(values) == 4:
        values = intrinsics(*values.tolist()).ravel()
    if len(values) != 9:
        raise source.error("intrinsics.file", f"{path} holds {len(values)} numbers; give {FORMS}")
    K = values.reshape(3, 3)
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0 or np.abs(K[2] - (0, 0, 1)).max() > 1e-6:
        raise source.error("intrinsics.file", f"{path} is no camera matrix: expected [fx s cx; 0 fy cy; 0 0 1] with fx, fy > 0")
    return K


def _from_mapping(source: Source, path: Path, content: str) -> Lens:
    try:
        data: Any = yaml_tree.parse(content, str(path)).plain()
    except ConfigError as error:
        raise CaptureError(str(error).splitlines()[0]) from None
    if not isinstance(data, dict):
        raise source.error("intrinsics.file", f"{path} holds no keys; give {FORMS}")
    low = {str(k).lower(): v for k, v in data.items()}
    matrix = low.get("k", low.get("camera_matrix", low.get("intrinsics")))
    if isinstance(matrix, dict):
        matrix = matrix.get("data")
    if matrix is None:
        matrix = [low.get(name) for name in ("fx", "fy", "cx", "cy")]
    d = low.get("d", low.get("distortion_coefficients"))
    d = d.get("data") if isinstance(d, dict) else d
    try:
        values = np.array(matrix, float)
        distortion = np.array(d if d is not None else [], float)[:5]
    except (TypeError, ValueError):
        raise source.error("intrinsics.file", f"{path} holds no camera matrix that can be read; give {FORMS}") from None
    width, height = low.get("width", low.get("image_width")), low.get("height", low.get("image_height"))
    size = (int(width), int(height)) if width and height else None
    padded = np.concatenate([distortion, np.zeros(5 - len(distortion))])
    return Lens(_matrix(source, path, values), padded if padded.any() else None, size)


def _colmap(source: Source, path: Path, rows: Sequence[Sequence[str]]) -> Lens:
    """The only camera of COLMAP's cameras.txt; its pixel centres lie at (0.5, 0.5)."""
    if len(rows) > 1:
        raise source.error("intrinsics.file", f"{path} holds {len(rows)} cameras; keep the one of this capture")
    model, numbers = rows[0][1], [float(x) for x in rows[0][4:]]
    focals, bends = COLMAP_MODELS.get(model, (0, 0))
    if not focals or len(numbers) != focals + 2 + bends:
        raise source.error("intrinsics.file", f"{path}: camera model {model} is not supported; use one of {', '.join(COLMAP_MODELS)}")
    f, c, k = numbers[:focals], numbers[focals : focals + 2], numbers[focals + 2 :]
    distortion = np.zeros(5)
    distortion[: len(k)] = k
    K = intrinsics_from_colmap(intrinsics(f[0], f[-1], c[0], c[1]))
    return Lens(K, distortion if distortion.any() else None, (int(rows[0][2]), int(rows[0][3])))
