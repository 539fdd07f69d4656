"""Arrays computed once per robot and kept in a file named by a hash of all that went in."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray]


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/dataengine``, by default ``~/.cache/dataengine``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dataengine"


def cached_arrays(name: str, cache_dir: str | Path | None, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of ``<cache_dir>/robots/<name>.arrays``, else ``build()``, which is then written there.

    The file is the SHA-256 of an .npz, then the .npz: damage is noticed before anything parses it, and the
    arrays are built again. A folder that cannot be written is no error: the cache only saves time.
    """
    path = (Path(cache_dir) if cache_dir is not None else default_cache_dir()) / "robots" / f"{name}.arrays"
    try:
        raw = path.read_bytes()
    except OSError:
        raw = b""
    if hashlib.sha256(raw[32:]).digest() == raw[:32]:
        with np.load(io.BytesIO(raw[32:]), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    arrays = build()
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType] (its stub takes ** for allow_pickle)
    _write_atomically(path, hashlib.sha256(stream.getvalue()).digest() + stream.getvalue())
    return arrays


def _write_atomically(path: Path, raw: bytes) -> None:
    """Readers see the whole file or none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
            file.write(raw)
        os.replace(file.name, path)
    except OSError:
        return
