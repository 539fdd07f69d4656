"""Mesh and texture files that a preset names: plain paths, or `package://NAME/path` inside an installed Python package."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from dataengine.errors import AssetError, unknown_name

SCHEME = "package://"
TEXTURES = {name: f"{SCHEME}skimage/data/{name}.png" for name in ("brick", "gravel", "grass")}
"""Photographs that come with the packages the renderer needs anyway (scikit-image; CC0 and public domain)."""

TEXTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


def asset_path(kind: str, name: str) -> Path:
    """Path of an existing file. AssetError, one line starting with `kind`, if there is none."""
    if name.startswith(SCHEME):
        package, _, inside = name.removeprefix(SCHEME).partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise AssetError(f"{kind} {name}: there is no Python package '{package}'; install it or give a path")
        path = Path(spec.origin).parent / inside
    else:
        path = Path(name).expanduser()
    if not path.is_file():
        raise AssetError(f"{kind} {name}: there is no such file")
    return path


@lru_cache(maxsize=256)
def texture_path(name: str) -> Path:
    """Path of a texture by packaged name or file; AssetError if it is missing or no picture."""
    if name not in TEXTURES and "/" not in name and Path(name).suffix == "":
        raise AssetError(unknown_name("texture", name, TEXTURES) + "; or give the path of a picture")
    path = asset_path("texture", TEXTURES.get(name, name))
    if path.suffix.lower() not in TEXTURE_SUFFIXES:
        raise AssetError(f"texture {name}: unknown kind of file '{path.suffix}'; give one of {', '.join(TEXTURE_SUFFIXES)}")
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()
    except Exception as error:  # Pillow raises whatever its decoders raise
        raise AssetError(f"texture {name}: cannot read it ({type(error).__name__}); repair or replace the file") from None
    return path


def file_sha256(kind: str, name: str) -> str:
    """SHA-256 (hex) of an asset file. AssetError if it cannot be read."""
    path = texture_path(name) if kind == "texture" else asset_path(kind, name)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise AssetError(f"{kind} {name}: cannot read it ({error.strerror})") from None
