"""One exception tree. Every message says what was given, what is allowed and what to do.

The command line prints the message of a `DataEngineError` on one line and exits with code 2;
anything else is a defect of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class DataEngineError(Exception):
    """Base of every error that is the input's or the environment's fault."""


class ConfigError(DataEngineError):
    """A preset or override that cannot be used; the message starts with `file:line:column:` where known."""


class RobotError(DataEngineError):
    """A robot description, mesh, joint or keypoint set that is missing or broken."""


class AssetError(DataEngineError):
    """A texture, environment or object mesh that is missing or broken."""


class SceneError(DataEngineError):
    """A scene that cannot be sampled, for example because no camera sees the robot."""


class SensorError(DataEngineError):
    """A sensor asked for something it cannot do."""


class RenderError(DataEngineError):
    """A render that failed, timed out or is not possible on this machine."""


class LabelError(DataEngineError):
    """A video whose labels contradict an independent computation; rendering it again would give the same."""


class StoreError(DataEngineError):
    """A dataset folder or shard that is missing, corrupt, full or of another spec."""


class RecordError(DataEngineError):
    """A record that breaks the table of modalities."""


class Interrupted(DataEngineError):
    """The user stopped the run; everything committed stays, the same command goes on."""


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> str:
    """One line for an unknown name: what was given, the nearest match, all that is allowed.

    >>> unknown_name("robot", "pandaa", ["panda", "ur5"])
    "unknown robot 'pandaa' (did you mean 'panda'?); available: panda, ur5"
    """
    names = list(allowed)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"unknown {kind} '{given}'{hint}; available: {', '.join(names)}"
