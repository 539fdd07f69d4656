"""The dot pattern of the infrared projector: one jittered dot in each cell of a square grid.

Cell 5 px of the native image, jitter, 10 % empty cells: about 33 000 dots in a 1280 x 720 image. The layout of a real
D4xx projector is not published; this density reproduces its depth noise (see `quality`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CELL_PX = 5.0
JITTER_CELLS = 0.38
KEPT = 0.9
PEAKS = (0.6, 1.0)
DOT_SIGMA_PX = 0.8
"""Blur of one projected dot."""
PIXEL_SIGMA_PX = 0.65
"""Blur of one pixel and the lens."""
TABLE = 512
"""Cells per side before the pattern repeats: 2560 px, further than any disparity shifts it."""


@lru_cache(maxsize=8)
def dot_table(seed: int) -> NDArray[np.float32]:
    """(512, 512, 3) float32: row and column of the cell → offset u, offset v (cells, in 0..1), peak (0: no dot).

    The same seed gives the same projector; the array is read-only.
    """
    rng = np.random.default_rng(seed)
    table = np.empty((TABLE, TABLE, 3), np.float32)
    table[..., :2] = 0.5 + rng.uniform(-JITTER_CELLS, JITTER_CELLS, (TABLE, TABLE, 2))
    table[..., 2] = rng.uniform(*PEAKS, (TABLE, TABLE)) * (rng.random((TABLE, TABLE)) < KEPT)
    table.setflags(write=False)
    return table
