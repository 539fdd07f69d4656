"""Forecast of a whole preset from a small pilot: wall-clock time, CPU-hours, bytes, memory.

Videos are scenes of their own, so their costs are independent draws from one distribution. With `n` measured and `V` to
come, the sum of the V is t-distributed about V times the pilot's mean with standard error V·s·√(1/n + 1/V) (the usual
prediction interval). Pull-based workers stay busy until the units run out and then wait for the slowest: on average
(W − 1)/(2 W) of a video.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from dataengine.errors import RenderError
from dataengine.render.driver import Result
from dataengine.render.status_view import amount, duration

CONFIDENCE = 0.9


@dataclass(frozen=True)
class Pilot:
    """Costs of some videos; `startup_s` is what passes before the first worker can render."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    bytes: tuple[int, ...]
    peak_rss_mb: float
    startup_s: float
    given_up: int = 0


@dataclass(frozen=True)
class Interval:
    """Expected value and a range that holds the true one in 90 of 100 cases."""

    expected: float
    low: float
    high: float

    def scaled(self, factor: float, offset: float = 0.0) -> "Interval":
        return Interval(*(x * factor + offset for x in (self.expected, self.low, self.high)))


@dataclass(frozen=True)
class Forecast:
    """What `videos` videos cost on `nodes` machines of `cores` processors like the pilot's."""

    videos: int
    nodes: int
    cores: int
    wall_s: Interval
    cpu_hours: Interval
    bytes: Interval
    memory_per_node_mb: float
    given_up_share: float


def pilot_videos(videos: int, count: int) -> list[int]:
    """Which videos to measure: `count` (or all, if fewer) spread evenly over 0…videos−1."""
    count = min(count, videos)
    return [(2 * i + 1) * videos // (2 * count) for i in range(count)]


def pilot_of(result: Result) -> Pilot:
    """The pilot's costs from its run. Raises RenderError when nothing was rendered."""
    if not result.costs:
        raise RenderError("the pilot rendered no video, so there is nothing to forecast from; look at its errors, or make it larger")
    costs = [result.costs[unit] for unit in sorted(result.costs)]
    return Pilot(
        wall_s=tuple(c.wall_s for c in costs),
        cpu_s=tuple(c.cpu_s for c in costs),
        bytes=tuple(int(result.receipts[unit].get("bytes", 0)) for unit in sorted(result.costs)),
        peak_rss_mb=max(c.peak_rss_mb for c in costs),
        startup_s=result.startup_s,
        given_up=len(result.quarantined),
    )


def relative_error(pilot: Pilot) -> float:
    """Half the width of the range of the mean wall-clock time per video, over that mean; inf for a single video."""
    n = len(pilot.wall_s)
    return _half_width(pilot.wall_s, 1 / n) / _mean(pilot.wall_s) if n > 1 else math.inf


def forecast(pilot: Pilot, videos: int, nodes: int, cores: int) -> Forecast:
    """Cost of `videos` videos on `nodes` × `cores` workers, each as fast as the pilot's were beside each other."""
    workers = max(min(nodes * cores, videos), 1)
    mean_s = _mean(pilot.wall_s)
    tail_s = mean_s * (workers - 1) / (2 * workers)
    tail_s = max(tail_s, max(pilot.wall_s) - videos * mean_s / workers)  # nothing ends before its longest video
    wall = _sum_of(pilot.wall_s, videos).scaled(1 / workers, pilot.startup_s + tail_s)
    cpu = _sum_of(pilot.cpu_s, videos).scaled(1 / 3600, workers * pilot.startup_s / 3600)
    return Forecast(
        videos, nodes, cores, wall, cpu, _sum_of(pilot.bytes, videos), memory_per_node_mb=pilot.peak_rss_mb * min(cores, workers),
        given_up_share=pilot.given_up / (pilot.given_up + len(pilot.wall_s)),
    )  # fmt: skip


def forecast_table(f: Forecast, pilot: Pilot) -> Table:
    """The forecast for people."""
    machines = f"{f.nodes} machine{'s' * (f.nodes > 1)} with {f.cores} core{'s' * (f.cores > 1)}"
    title = f"{f.videos} videos on {machines}, from a pilot of {len(pilot.wall_s)}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("", "expected", "90 % range"):
        table.add_column(name)
    table.add_row("time", duration(f.wall_s.expected), f"{duration(f.wall_s.low)} … {duration(f.wall_s.high)}")
    table.add_row("CPU hours", f"{f.cpu_hours.expected:.3g}", f"{f.cpu_hours.low:.3g} … {f.cpu_hours.high:.3g}")
    table.add_row("disk", amount(f.bytes.expected), f"{amount(f.bytes.low)} … {amount(f.bytes.high)}")
    table.add_row("memory per machine", amount(f.memory_per_node_mb * 1e6), "")
    table.add_row("start-up (included)", duration(pilot.startup_s), "")
    if pilot.given_up:
        table.add_row("videos given up", f"{f.given_up_share:.0%} of the pilot", "")
    return table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _sum_of(values: Sequence[float], count: int) -> Interval:
    """Prediction interval of the sum of `count` further draws."""
    half = count * _half_width(values, 1 / len(values) + 1 / count)
    expected = count * _mean(values)
    return Interval(expected, max(expected - half, 0.0), expected + half)


def _half_width(values: Sequence[float], variance_factor: float) -> float:
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return 0.5 * _mean(values)  # one video says nothing about spread: assume a wide one
    mean = _mean(values)
    variance = sum((x - mean) ** 2 for x in values) / (n - 1)
    return float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * math.sqrt(variance * variance_factor)
