"""Files shipped inside the bpy wheel, found without importing it."""

import importlib.util
from pathlib import Path

from dataengine.errors import AssetError, unknown_name


def world_folder() -> Path:
    """Folder of the eight CC0 HDR environments. Raises AssetError when bpy is not installed."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        raise AssetError("Blender's module bpy is not installed; run `make setup`")
    found = sorted(Path(spec.origin).parent.glob("*/datafiles/studiolights/world"))
    if not found:
        raise AssetError(f"no HDR environments below {Path(spec.origin).parent}; reinstall bpy")
    return found[-1]


def environment_path(name: str) -> Path:
    """HDR image by its name (city, courtyard, …). Raises AssetError listing the names."""
    folder = world_folder()
    path = folder / f"{name}.exr"
    if not path.is_file():
        raise AssetError(unknown_name("environment", name, sorted(p.stem for p in folder.glob("*.exr"))))
    return path
