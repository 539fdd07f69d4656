"""Pose of frames without a network: starts from a pool, refinement, and wider rounds for frames that fit badly.

A right solution's cost is known before looking: half a chi-square of 2 n - 6 degrees of freedom for n seen points (2 n
measurements and D priors for D + 6 unknowns). A frame far above it has outliers or sits in a wrong minimum; only such frames
pay for more starts, whose loss begins wider.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from training.kinematics import KeypointChain
from training.refine import Estimate, Observation, RefineOptions, Starts, TemporalPrior, refine
from training.scene_statistics import JointPrior
from training.starts import StartPool, join_starts, pool_starts


@dataclass(frozen=True)
class SearchOptions:
    """Starts per round; rounds after the first are for doubtful frames only."""

    starts: tuple[int, ...] = (16, 96, 192)
    first: RefineOptions = RefineOptions()
    later: RefineOptions = RefineOptions(iterations=36, anneal_iterations=10, screen_iterations=16, first_scale_px=40.0, finalists=12)
    doubt: tuple[float, ...] = (2.5, 5.0)
    """Standard deviations above the expected cost from which a frame is doubtful, after each round; the last for all later."""


def search(
    chain: KeypointChain,
    observation: Observation,
    prior: JointPrior,
    pool: StartPool,
    generator: torch.Generator,
    options: SearchOptions | None = None,
    starts: Starts | None = None,
    temporal: TemporalPrior | None = None,
) -> Estimate:
    """Best state of every frame. `starts`: further starts of the first round, for example from a lifter or the last frame."""
    options = options or SearchOptions()
    best: Estimate | None = None
    rows = torch.arange(len(observation.uv), device=pool.q.device)
    for number, count in enumerate(options.starts):
        part = observation[rows]
        candidates = pool_starts(pool, part, count, generator)
        if number == 0 and starts is not None:
            candidates = join_starts(starts, candidates)
        how = options.first if number == 0 else options.later
        found = refine(chain, part, candidates, prior, how, None if temporal is None else temporal[rows])
        best = found if best is None else _lower(best, found, rows)
        limit = doubtful_cost(observation.seen, options.doubt[min(number, len(options.doubt) - 1)])
        rows = torch.nonzero(best.cost > limit.to(best.cost))[:, 0]
        if not len(rows):
            break
    assert best is not None
    return best


def doubtful_cost(seen: Tensor, deviations: float) -> Tensor:
    """(B,) mean of half a chi-square of 2 n - 6 degrees of freedom plus that many standard deviations, n points seen (B, N)."""
    half = (seen.sum(1) - 3).clamp(min=1).double()
    return half + deviations * half.sqrt()


def _lower(best: Estimate, found: Estimate, rows: Tensor) -> Estimate:
    """The better of both for these rows."""
    better = rows[found.cost < best.cost[rows]]
    new = torch.nonzero(found.cost < best.cost[rows])[:, 0]
    merged = {}
    for field in fields(Estimate):
        one, two = getattr(best, field.name), getattr(found, field.name)
        if field.name == "all_costs":
            one = torch.nn.functional.pad(one, (0, max(0, two.shape[1] - one.shape[1])), value=torch.inf)
            two = torch.nn.functional.pad(two, (0, max(0, one.shape[1] - two.shape[1])), value=torch.inf)
        merged[field.name] = one.index_copy(0, better, two[new])
    return replace(best, **merged)
