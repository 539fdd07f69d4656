"""YAML text → plain values that remember where in the file they stood, so that errors can name line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from dataengine.errors import ConfigError


@dataclass(frozen=True)
class Located:
    """A YAML value and its place. `value` is a scalar, a list of Located, or a dict of name → Located.

    `where` and `key_where` are `file:line:column` (1-based) of the value and of the key that names it, or `--set`.
    """

    value: Any
    where: str
    key_where: str

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


class _Loader(yaml.SafeLoader):
    """Numbers as in YAML 1.2 (1e-3 is a number), dates stay strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def parse(text: str, file: str) -> Located:
    """One YAML document. ConfigError for a syntax error or repeated keys, all of them, one line each."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{_at(file, mark)}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if node is None:
        return Located({}, f"{file}:1:1", f"{file}:1:1")
    errors: list[str] = []
    tree = _locate(node, node.start_mark, file, loader, (), errors)
    if errors:
        raise ConfigError("\n".join(errors))
    return tree


def from_plain(value: Any, where: str) -> Located:
    """Every part of `value` is said to stand at `where`."""
    if isinstance(value, dict):
        return Located({str(k): from_plain(v, where) for k, v in value.items()}, where, where)
    if isinstance(value, list | tuple):
        return Located([from_plain(v, where) for v in value], where, where)
    return Located(value, where, where)


def _at(file: str, mark: Any) -> str:
    return file if mark is None else f"{file}:{mark.line + 1}:{mark.column + 1}"


def _locate(node: yaml.Node, key_mark: Any, file: str, loader: _Loader, above: tuple[yaml.Node, ...], errors: list[str]) -> Located:
    where, key_where = _at(file, node.start_mark), _at(file, key_mark)
    if any(node is n for n in above):
        errors.append(f"{where}: an alias refers to the value that holds it")
        return Located(None, where, key_where)
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        values = [_locate(item, item.start_mark, file, loader, above, errors) for item in node.value]
        return Located(values, where, key_where)
    if not isinstance(node, yaml.MappingNode):
        try:
            return Located(loader.construct_object(node, deep=True), where, key_where)
        except (yaml.YAMLError, ValueError):
            errors.append(f"{where}: cannot read '{node.value}' as {node.tag.rpartition(':')[2]}; write a plain value")
            return Located(None, where, key_where)
    items: dict[str, Located] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        if key in items:
            errors.append(f"{_at(file, key_node.start_mark)}: {key}: given twice, first at {items[key].key_where}; keep one")
        items.setdefault(key, _locate(value_node, key_node.start_mark, file, loader, above, errors))
    return Located(items, where, key_where)
