"""Is the focal length wrong? The solve once more with the intrinsics free: a robot of known size at a measured or triangulated distance
tells them, also where the camera rests or moves too little for its pictures alone to tell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from annotators.anchor_optimise import minimise
from annotators.anchor_posterior import covariance
from annotators.anchor_state import make_layout
from annotators.types import Flag

if TYPE_CHECKING:
    from annotators.anchor import Solved

FOCAL_CHANGE, SIGNIFICANT = 0.02, 3.0


def focal_change(solved: Solved) -> tuple[float, float]:
    """How much the logarithm of the focal length would change if it were free, and its standard deviation."""
    problem = solved.problem
    options = replace(problem.options, estimate_intrinsics=True)
    depth = bool(problem.layout.depth[0] >= 0)
    clock = replace(options, estimate_time_offset=problem.layout.time >= 0)
    layout = make_layout(problem.slots, problem.model.dof, problem.layout.mode, clock, problem.static, depth)
    free = replace(problem, layout=layout, options=options)
    state, _ = minimise(free, solved.state, solved.terms, 15)
    column = int(layout.intrinsics[0])
    return float(np.log(state.K[0, 0] / problem.K[0, 0])), float(np.sqrt(covariance(free, state, solved.terms)[column, column]))


def focal_flags(solved: Solved) -> tuple[Flag, ...]:
    """A flag `intrinsics` where the change is sure and matters."""
    change, sigma = focal_change(solved)
    if abs(change) < max(FOCAL_CHANGE, SIGNIFICANT * sigma):
        return ()
    return (
        Flag(
            "intrinsics",
            f"the robot fits a focal length {100 * np.expm1(change):+.1f} % (± {100 * sigma:.1f} %) from the given "
            f"{solved.problem.K[0, 0]:.1f} px; is K of this camera, this zoom and this resolution?",
        ),
    )
