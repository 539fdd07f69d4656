"""Robots by name. Descriptions come from the `example-robot-data` package; any other robot is a path to its URDF."""

from __future__ import annotations

from functools import lru_cache
from importlib import metadata
from pathlib import Path

from dataengine.errors import RobotError, unknown_name
from dataengine.robot.model import RobotModel
from dataengine.robot.urdf import parse_urdf

PACKAGE = "example-robot-data"

PACKAGED: dict[str, str] = {
    "panda": "panda_description/urdf/panda.urdf",
    "xarm7": "xarm_description/urdf/xarm7.urdf",
    "ur5": "ur_description/urdf/ur5_robot.urdf",
    "so101": "so_arm_description/urdf/so101.urdf",
    "so100": "so_arm_description/urdf/so100.urdf",
    "ur3": "ur_description/urdf/ur3_robot.urdf",
    "ur10": "ur_description/urdf/ur10_robot.urdf",
    "z1": "z1_description/urdf/z1.urdf",
    "kinova": "kinova_description/robots/kinova.urdf",
}
"""Catalogue name → URDF below the package's folder of robots."""


def load_robot(name_or_path: str | Path) -> RobotModel:
    """RobotModel of a catalogue name (`PACKAGED`) or of a .urdf file; cached. RobotError says which names exist."""
    given = str(name_or_path)
    if given in PACKAGED:
        return _parse_cached(robots_folder() / PACKAGED[given], given)
    path = Path(given).expanduser()
    if path.suffix.lower() in (".urdf", ".xml", ".xacro") or "/" in given:
        return parse_urdf(path)
    raise RobotError(unknown_name("robot", given, PACKAGED) + ", or the path of a .urdf file")


def robots_folder() -> Path:
    """Folder of the robot descriptions that the package `example-robot-data` installs."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise RobotError(f"the packaged robots need the package '{PACKAGE}': pip install {PACKAGE}") from None
    folder = Path(str(distribution.locate_file("cmeel.prefix/share/example-robot-data/robots")))
    if not folder.is_dir():
        raise RobotError(f"package '{PACKAGE}' is installed but its folder {folder} is missing; reinstall it")
    return folder


@lru_cache(maxsize=32)
def _parse_cached(path: Path, name: str) -> RobotModel:
    return parse_urdf(path, name)
