"""Which units of a manifest: by split, by list, by a condition such as `video < 100 and split == 'train'`."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from dataengine.errors import StoreError, unknown_name

FIELDS = ("video", "split", "frames", "bytes", "height", "width", "unit", "digest")
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Mod: operator.mod, ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
}  # fmt: skip

Choice = Callable[[Mapping[str, Any]], bool]
"""Whether an entry of a manifest is wanted."""


def chooser(split: str | None = None, where: str | None = None, videos: str | None = None) -> Choice:
    """Conjunction of the given conditions; without any, every unit. Raises StoreError for one that cannot be read."""
    listed = None if videos is None else parse_videos(videos)
    condition = None if where is None else parse_condition(where)

    def choose(entry: Mapping[str, Any]) -> bool:
        if split is not None and entry["split"] != split:
            return False
        if listed is not None and not any(entry["video"] in part for part in listed):
            return False
        return condition is None or condition(entry)

    return choose


def parse_videos(text: str) -> list[range]:
    """`3,7,10-19` as ranges."""
    parts = []
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", piece)
        if not match:
            raise StoreError(f"'{piece.strip()}' is no video number or range; write for example 3,7,10-19")
        first = int(match[1])
        parts.append(range(first, int(match[2] or first) + 1))
    return parts


def parse_condition(text: str) -> Choice:
    """A condition over `FIELDS`: comparisons, `in`, `and`, `or`, `not`, + - * // %. Nothing else is evaluated."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise StoreError(f"cannot read the condition '{text}'; write for example video < 100 and split == 'train'") from None
    _check(tree, text)

    def choose(entry: Mapping[str, Any]) -> bool:
        values = dict(entry) | {"height": entry["size"][0], "width": entry["size"][1]}
        try:
            return bool(_value(tree, values))
        except (TypeError, ArithmeticError) as error:
            raise StoreError(f"the condition '{text}' does not work on {entry['unit']}: {error}") from None

    return choose


def _check(node: ast.expr, text: str) -> None:
    if isinstance(node, ast.Name):
        if node.id not in FIELDS:
            raise StoreError(f"'{text}': " + unknown_name("field", node.id, FIELDS))
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
        return
    known = (
        (isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops))
        or (isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC)
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)))
        or isinstance(node, (ast.BoolOp, ast.Tuple, ast.List))
    )
    if not known:
        raise StoreError(f"'{text}': {ast.unparse(node)} is not allowed; use {', '.join(FIELDS)} with < <= > >= == != in and or not")
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            _check(child, text)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name():
            return values[node.id]
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List():
            return [_value(e, values) for e in node.elts]
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, values)
        case ast.UnaryOp():
            return -_value(node.operand, values)
        case ast.BinOp():
            return _ARITHMETIC[type(node.op)](_value(node.left, values), _value(node.right, values))
        case ast.BoolOp():
            results = (_value(v, values) for v in node.values)
            return all(results) if isinstance(node.op, ast.And) else any(results)
        case ast.Compare():
            operands = [_value(v, values) for v in (node.left, *node.comparators)]
            return all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, operands, operands[1:], strict=False))
    raise AssertionError(node)
