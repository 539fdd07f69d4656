"""Which frames deserve a look: refused ones, then large click residuals, then keypoints known badly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotators.types import Click, Solution

Array = np.ndarray
RESIDUAL_PX, SD_M = 2.0, 0.002
"""What counts as one unit of suspicion: a click's usual noise, and the accuracy at which annotation may stop."""
REFUSED = 10.0


@dataclass(frozen=True)
class FrameState:
    """One frame in the list. `worst_px` is nan without clicks, `sd_m` nan without a solution."""

    frame: int
    clicks: int
    worst_px: float
    sd_m: float
    reason: str
    score: float

    @property
    def label(self) -> str:
        """`012 · 3 clicks · 2.1 px · 1.8 mm · reason`."""
        parts = [f"{self.frame:03d}"]
        if self.clicks:
            parts.append(f"{self.clicks} click{'s' if self.clicks > 1 else ''}")
        if np.isfinite(self.worst_px):
            parts.append(f"{self.worst_px:.1f} px")
        if np.isfinite(self.sd_m):
            parts.append(f"{1e3 * self.sd_m:.1f} mm")
        return " · ".join([*parts, self.reason] if self.reason else parts)


def residuals_px(solution: Solution | None, solved: tuple[Click, ...]) -> dict[tuple[int, str], tuple[float, float]]:
    """{(frame, landmark): believed minus clicked, px} of the clicks that were solved with; clicks in unposed frames have none."""
    if solution is None:
        return {}
    used = solved
    if len(used) != len(solution.click_residual_px):
        used = tuple(c for c in solved if np.isfinite(solution.T_world_cam[c.frame]).all())
    if len(used) != len(solution.click_residual_px):
        return {}
    return {(c.frame, c.landmark): (float(r[0]), float(r[1])) for c, r in zip(used, solution.click_residual_px, strict=True)}


def keypoint_sd_m(solution: Solution) -> Array:
    """(N,) root mean variance per axis of each frame's keypoints."""
    variance = np.trace(solution.keypoint_covariance, axis1=-2, axis2=-1) / 3
    return np.sqrt(variance.mean(-1))


def rank_frames(frames: int, clicks: tuple[Click, ...], solution: Solution | None, solved: tuple[Click, ...]) -> list[FrameState]:
    """All frames, the most suspicious first; before the first solve in the order that spreads clicks over the capture."""
    sd = np.full(frames, np.nan) if solution is None else keypoint_sd_m(solution)
    residual = residuals_px(solution, solved)
    states = []
    for frame in range(frames):
        mine = [click for click in clicks if click.frame == frame]
        errors = [np.hypot(*residual[frame, c.landmark]) for c in mine if (frame, c.landmark) in residual]
        worst = float(max(errors)) if errors else float("nan")
        reason = "" if solution is None else solution.reasons[frame]
        score = REFUSED * bool(reason) + np.nan_to_num(worst) / RESIDUAL_PX + np.nan_to_num(sd[frame]) / SD_M
        states.append(FrameState(frame, len(mine), worst, float(sd[frame]), reason, float(score)))
    if solution is None:
        spread = {frame: place for place, frame in enumerate(spread_order(frames))}
        return sorted(states, key=lambda state: (-min(state.clicks, 1), spread[state.frame]))
    return sorted(states, key=lambda state: (-state.score, state.frame))


def spread_order(count: int) -> list[int]:
    """0 … count − 1, each next one far from those before (van der Corput): the first frame, the middle, the quarters …"""
    bits = max(1, (count - 1).bit_length())
    reversed_bits = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
    return [i for i in reversed_bits if i < count]
