"""The one numba decorator of the sensor models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

FAST = {"nsz", "arcp", "contract", "reassoc"}
"""Freedoms given to the compiler: sums may be vectorised; NaN and infinity keep their meaning."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile to machine code, single-threaded and without the GIL, cached on disk where a folder is writable.

    No thread pool is ever started, so the code works after ``os.fork``. Results are bitwise
    reproducible on one type of processor; another one may sum in another order (relative error 1e-7).
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no writable folder for its cache: compile in every process instead
        return numba.njit(**options)(function)
