"""Settings: overrides, round trips, and what is said about wrong ones."""

from dataclasses import dataclass, field

import pytest

from dataengine.errors import ConfigError
from training.config import Config, LoopConfig, OptimConfig, from_dict, override


@dataclass(frozen=True)
class Inner:
    width: int = 3
    rates: tuple[float, ...] = (0.1,)


@dataclass(frozen=True)
class Task:
    name: str = "a"
    part: float | None = None
    on: bool = True
    inner: Inner = field(default_factory=Inner)


CONFIG = Config("toy", Task(), OptimConfig(milestones=(1, 2)), LoopConfig(steps=7))


def test_round_trip() -> None:
    assert from_dict(CONFIG.as_dict(), Task) == CONFIG


def test_overrides() -> None:
    changed = override(
        CONFIG, ["loop.steps=9", "task.inner.width=4", "task.part=1", "task.name=b c", "optim.betas=[0.8,0.9]", "task.on=false"]
    )
    assert (changed.loop.steps, changed.task.inner.width, changed.task.part, changed.task.on) == (9, 4, 1.0, False)
    assert changed.task.name == "b c" and changed.optim.betas == (0.8, 0.9) and override(changed, ["task.part=null"]).task.part is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loop.stepps=9", "unknown setting 'loop.stepps' .*did you mean 'loop.steps'"),
        ("task.inner.width=1.5", r"task.inner.width=1.5: expected int"),
        ("task.on=1", "task.on=1: expected bool"),
        ("task.inner=3", "task.inner=3: expected Inner"),
        ("loop.steps", "write overrides as KEY=VALUE"),
        ("loop.steps.more=1", "unknown setting 'loop.steps.more'"),
        ("optim.betas=[1]", "optim.betas"),
        ("optim.ema=1.5", "decay in"),
        ("optim.schedule=poly", "unknown optim.schedule 'poly'"),
    ],
)
def test_bad_overrides(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(CONFIG, [setting])
