"""Was the robot's base bumped, and between which frames? A score test for every possible moment, then one solve with two bases.

The test asks how much the fit would gain if the base had another pose from some slot on, without solving for it (Rao 1948): gradient and
curvature of the added six unknowns, less what the present unknowns already explain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from annotators.anchor_optimise import click_chi2, click_scatter, solve_clicks
from annotators.anchor_state import Problem, State, logarithm
from annotators.anchor_terms import Measurements, kinematics, normal_equations, residuals
from annotators.types import Array, Flag
from dataengine.geometry import se3

if TYPE_CHECKING:
    from annotators.anchor import Inputs, Solved

SUSPICIOUS, CERTAIN = 35.0, 45.0
"""Gain in χ² of six unknowns that starts, and that ends, the search; noise reaches 28 once in ten thousand clean captures."""
MOVED_M, MOVED_RAD = 0.003, 0.005
WIDE = 10.0
OUTLIER = 20.0


def bumped_at(inputs: Inputs, solved: Solved) -> int | None:
    """Frame from which another base pose would explain the clicks much better; None where there is none."""
    if len(solved.clicks.slot) < 12 or solved.problem.slots.segment.max() > 0:
        return None
    # Depth and edges were matched to the compromise between both poses and would defend it: clicks alone are asked.
    everywhere = replace(solved.clicks, weight=np.ones(len(solved.clicks.slot)))
    state, clicks = solve_clicks(solved.problem, solved.state, everywhere, [])
    gains = score(solved.problem, state, clicks)
    best = int(np.argmax(gains))
    return int(solved.problem.slots.frame[best]) if gains[best] > SUSPICIOUS else None


def score(problem: Problem, state: State, clicks: Measurements) -> Array:
    """Gain in χ² of the clicks by a new base from slot k on, (F,); 0 for the first slot and where either side has no clicks."""
    chi2 = click_chi2(problem, state, clicks)
    weight = (WIDE**2 / (WIDE**2 + chi2)) ** 2 / click_scatter(chi2)
    clicks = replace(clicks, weight=weight)
    H, _, _ = normal_equations(problem, state, [clicks])
    inverse = np.linalg.pinv(H, hermitian=True)
    r, J = residuals(problem, state, kinematics(problem, state), clicks)
    F, P = len(problem.slots.frame), problem.layout.size
    gradient, own, cross = np.zeros((F, 6)), np.zeros((F, 6, 6)), np.zeros((F, 6, P + 1))
    for slot in np.unique(clicks.slot):
        rows = clicks.slot == slot
        local = J[rows].reshape(-1, J.shape[-1]) * np.sqrt(np.repeat(weight[rows], 2))[:, None]
        error = r[rows].ravel() * np.sqrt(np.repeat(weight[rows], 2))
        base = local[:, 1:7]
        gradient[slot], own[slot] = base.T @ error, base.T @ base
        np.add.at(cross[slot].T, problem.layout.columns[slot], local.T @ base)
    order = np.argsort(problem.slots.frame)
    out = np.zeros(F)
    for k in range(1, F):
        later = order[k:]
        c = cross[later].sum(axis=0)[:, :P]
        S = own[later].sum(axis=0) - c @ inverse @ c.T
        g = gradient[later].sum(axis=0)
        if np.unique(clicks.slot[np.isin(clicks.slot, later)]).size and np.unique(clicks.slot[~np.isin(clicks.slot, later)]).size:
            out[order[k]] = float(g @ np.linalg.pinv(S, rcond=1e-8, hermitian=True) @ g)
    return out


def is_bump(one: Solved, two: Solved) -> bool:
    """Two base poses fit much better than one, and differ by more than matters."""
    gain = _cost(one) - _cost(two)
    moved = logarithm(se3.inverse(two.state.T_world_base[0]) @ two.state.T_world_base[1])
    far = np.linalg.norm(moved[:3]) > MOVED_M or np.linalg.norm(moved[3:]) > MOVED_RAD
    return bool(far and gain > CERTAIN)


def _cost(solved: Solved) -> float:
    chi2 = click_chi2(solved.problem, solved.state, solved.clicks)
    return float(np.sum(np.minimum(chi2, OUTLIER)))


def bump_flags(solved: Solved) -> list[Flag]:
    """What moved, by how much, and between which clicked frames."""
    slots = solved.problem.slots
    start = int(solved.problem.options.base_starts[0])
    before = int(max(slots.frame[slots.frame < start], default=0))
    moved = logarithm(se3.inverse(solved.state.T_world_base[0]) @ solved.state.T_world_base[1])
    length_mm, turn_deg = 1e3 * np.linalg.norm(moved[:3]), np.degrees(np.linalg.norm(moved[3:]))
    text = f"the base moved {length_mm:.0f} mm and {turn_deg:.1f}° between frames {before} and {start}"
    return [Flag("base_moved", text, tuple(range(before + 1, start)))]
