"""Levenberg–Marquardt on the normal equations, and the weights that make it robust.

Clicks go through graduated non-convexity with the Geman–McClure kernel (Yang et al., 2020): the kernel starts wide, so that a bad start
still sees all clicks, and narrows until gross errors have no pull; clicks that then fit count in full, the others not at all. Depth and
outline residuals get Tukey's weights, and are divided by a design effect: neighbouring pixels share their errors, so a thousand of them
are worth far fewer independent ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from annotators.anchor_state import Problem, State, retract
from annotators.anchor_terms import Measurements, link_poses_in_camera, normal_equations, residual_values, total_cost

Array = np.ndarray
INLIER_CHI2 = 18.4
"""99.99 % of honest two-dimensional residuals are below this; only one honest capture in a hundred loses a click."""
TUKEY = 4.685
CLUSTER = 4096


def minimise(problem: Problem, state: State, terms: list[Measurements], iterations: int = 20) -> tuple[State, float]:
    """Descend with the weights held fixed; returns the state and its cost."""
    damping = 1e-4
    H, g, cost = normal_equations(problem, state, terms)
    for _ in range(iterations):
        accepted, trial, value = False, state, cost
        for _ in range(6):
            step = _solve(H, -g, damping)
            trial = retract(problem, state, step)
            value = total_cost(problem, trial, terms)
            if value < cost:
                accepted = True
                break
            damping *= 8
        if not accepted:
            break
        gained = cost - value
        state, damping = trial, max(damping / 10, 1e-9)
        if gained < 1e-5 * (1 + value):
            return state, value
        H, g, cost = normal_equations(problem, state, terms)
    return state, cost


def _solve(H: Array, rhs: Array, damping: float) -> Array:
    """Damped step of the system scaled to unit diagonal."""
    root = np.sqrt(np.maximum(np.diag(H), 1e-12))
    A = H / np.outer(root, root) + damping * np.eye(len(H))
    try:
        return np.linalg.solve(A, rhs / root) / root
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(A, rhs / root, rcond=None)[0] / root


def solve_clicks(
    problem: Problem, state: State, clicks: Measurements, others: list[Measurements], wide: float = 8.0
) -> tuple[State, Measurements]:
    """Graduated non-convexity over the clicks; `wide` is the first kernel width in standard deviations."""
    width = wide
    while width > 2.0:
        for _ in range(3):
            clicks = replace(clicks, weight=_geman_mcclure(problem, state, clicks, width))
            state, _ = minimise(problem, state, [clicks, *others], 6)
        width /= 1.8
    for _ in range(3):
        clicks = replace(clicks, weight=click_inliers(problem, state, clicks).astype(float))
        state, _ = minimise(problem, state, [clicks, *others], 15)
    return state, clicks


def click_chi2(problem: Problem, state: State, clicks: Measurements) -> Array:
    """Squared length of every click's residual in standard deviations, (n,)."""
    return np.sum(residual_values(problem, state, link_poses_in_camera(problem, state), clicks) ** 2, axis=1)


def click_inliers(problem: Problem, state: State, clicks: Measurements) -> Array:
    """Clicks that agree with the state, (n,) bool, given the scatter that the clicks themselves show."""
    chi2 = click_chi2(problem, state, clicks)
    return chi2 < INLIER_CHI2 * click_scatter(chi2)


def click_scatter(chi2: Array) -> float:
    """Variance of the clicks in units of the prior, from their median, within 1 … 9."""
    # The median of a χ² with two degrees of freedom is 1.386; a hasty annotator scatters more than the prior says, up to three times.
    return float(np.clip(np.median(chi2) / 1.386, 1.0, 9.0)) if len(chi2) >= 8 else 1.0


def _geman_mcclure(problem: Problem, state: State, clicks: Measurements, width: float) -> Array:
    chi2 = click_chi2(problem, state, clicks)
    return (width**2 / (width**2 + chi2)) ** 2


def reweigh(problem: Problem, state: State, m: Measurements) -> Measurements:
    """Tukey weights over a robust scale, divided by the design effect of clusters: a link in a slot, or, if that is more, in all slots.

    Masks are drawn anew in every frame; what a sensor or a poster behind a resting robot does wrong, it does again.
    """
    if not len(m.slot):
        return m
    r = residual_values(problem, state, link_poses_in_camera(problem, state), m)[:, 0]
    scale = max(1.4826 * float(np.median(np.abs(r))), 0.3)
    u = np.clip(r / (TUKEY * scale), -1, 1)
    tukey = (1 - u**2) ** 2
    clusters = (m.slot * CLUSTER + m.link,) if m.kind == "outline" else (m.slot * CLUSTER + m.link, m.link)
    effect = max(design_effect(r / scale, tukey, cluster) for cluster in clusters)
    return replace(m, weight=tukey / (scale**2 * effect))


def design_effect(r: Array, weight: Array, cluster: Array) -> float:
    """How many correlated residuals are worth one independent one: E[(Σ w r)²] / E[Σ (w r)²] over clusters (Kish 1965), at least 1."""
    _, index = np.unique(cluster, return_inverse=True)
    sums = np.bincount(index, weight * r)
    squares = np.bincount(index, (weight * r) ** 2)
    return float(max(1.0, np.sum(sums**2) / max(np.sum(squares), 1e-12)))
