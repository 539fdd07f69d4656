"""Presets and the user's own YAML files → DatasetSpec; `extends`, overrides, errors with file, line and column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dataengine.config import messages, yaml_tree
from dataengine.config.spec import DatasetSpec
from dataengine.config.yaml_tree import Located
from dataengine.errors import ConfigError, unknown_name

PRESET_FOLDER = Path(__file__).resolve().parents[2] / "render_configs"
"""The same relative place in a checkout and in an installed wheel."""

Overrides = Mapping[str, Any] | Iterable[str]


def load_spec(source: str | Path, overrides: Overrides = ()) -> DatasetSpec:
    """Read a preset (by name) or a YAML file (by path), then apply overrides.

    A file may say `extends: NAME` with a preset's name or a path relative to itself; its own values win, section by
    section; a distribution is replaced as a whole. `overrides` are `"camera.distance_m=1.2"` strings (the value is
    YAML) or a mapping from dotted names to values.

    Raises ConfigError, one line per mistake: `hello.yaml:5:3: camera.heigth: unknown key (did you mean 'height'?)`.
    """
    path = find_preset(source)
    tree = _read_chain(path, ())
    for key, value in _parse_overrides(overrides):
        tree = _merge(tree, _nest(key, value), DatasetSpec)
    return validate(tree)


def validate(tree: Located) -> DatasetSpec:
    """Check a located tree of plain values against the spec. ConfigError as in `load_spec`."""
    try:
        return DatasetSpec.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(messages.lines(error, tree, DatasetSpec))) from None


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with the project."""
    return tuple(sorted(p.stem for p in PRESET_FOLDER.glob("*.yaml")))


def find_preset(source: str | Path) -> Path:
    """Path of a preset name or of a YAML file. ConfigError lists the presets when there is neither."""
    path = Path(source).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    if str(source) in preset_names():
        return PRESET_FOLDER / f"{source}.yaml"
    raise ConfigError(unknown_name("preset", str(source), preset_names()) + "; or give the path of a .yaml file")


def _read_chain(path: Path, seen: tuple[Path, ...]) -> Located:
    tree = _read(path)
    base = tree.value.pop("extends", None)
    if base is None:
        return tree
    chain = (*seen, path.resolve())
    if not isinstance(base.value, str):
        raise ConfigError(f"{base.where}: extends: expected the name of a preset or the path of a .yaml file")
    parent = _find_base(base, path)
    if parent.resolve() in chain:
        cycle = " → ".join(p.name for p in (*chain, parent))
        raise ConfigError(f"{base.where}: extends: files extend each other in a circle: {cycle}")
    return _merge(_read_chain(parent, chain), tree, DatasetSpec)


def _find_base(base: Located, path: Path) -> Path:
    if Path(base.value).suffix not in (".yaml", ".yml"):
        try:
            return find_preset(base.value)
        except ConfigError as error:
            raise ConfigError(f"{base.where}: extends: {error}") from None
    parent = path.parent / Path(base.value).expanduser()
    if not parent.is_file():
        raise ConfigError(f"{base.where}: extends: there is no file {parent}")
    return parent


def _read(path: Path) -> Located:
    shown = path.name if path.parent == PRESET_FOLDER else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{shown}: cannot read: {error.strerror}; presets: {', '.join(preset_names())}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    tree = yaml_tree.parse(text, shown)
    if not isinstance(tree.value, dict):
        raise ConfigError(f"{tree.where}: expected keys with values, such as `videos: 4`")
    return tree


def _parse_overrides(overrides: Overrides) -> list[tuple[str, Located]]:
    if isinstance(overrides, Mapping):
        return [(str(k), yaml_tree.from_plain(v, "--set")) for k, v in overrides.items()]
    parsed, wrong = [], []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            wrong.append(f"--set {text}: give KEY=VALUE, such as camera.distance_m=1.2")
            continue
        try:
            parsed.append((key, yaml_tree.from_plain(yaml_tree.parse(value, "--set").plain() if value else "", "--set")))
        except ConfigError as error:
            wrong.append(f"--set {key}: {str(error).split(': ', 1)[1]}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return parsed


def _nest(key: str, value: Located) -> Located:
    for name in reversed(key.split(".")):
        value = Located({name: value}, "--set", "--set")
    return value


def _merge(base: Located, new: Located, model: type[BaseModel]) -> Located:
    """`new` over `base`, section by section; anything that is not a section is replaced as a whole."""
    if not (isinstance(base.value, dict) and isinstance(new.value, dict)):
        return new
    merged = dict(base.value)
    for key, item in new.value.items():
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        merged[key] = _merge(merged[key], item, annotation) if is_section and key in merged else item  # type: ignore[arg-type]
    return Located(merged, new.where, new.key_where)
