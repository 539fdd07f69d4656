"""pydantic's validation errors → one line each that says where, what was given and what is allowed."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dataengine.config.distributions import KINDS, NormalParameters
from dataengine.config.yaml_tree import Located
from dataengine.errors import unknown_name

TAGS = (*KINDS, "constant")
EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a section (keys with values)",
}
DISTRIBUTIONS = {
    "uniform": "{uniform: [min, max]}",
    "log_uniform": "{log_uniform: [min, max]}",
    "integers": "{integers: [min, max]}",
    "normal": "{normal: {mean: …, std: …}}",
    "choice": "{choice: [a, b, …]}",
}


def lines(error: ValidationError, tree: Located, model: type[BaseModel]) -> list[str]:
    """One line per error, `file:line:column: path: what is wrong`, in the order of the file."""
    details = error.errors()
    # a list with a wrong member is also reported as too short: keep the cause, drop the consequence
    inner = {d["loc"][:-1] for d in details}
    kept = [d for d in details if d["type"] != "too_short" or d["loc"] not in inner]
    return sorted((_line(d, tree, model) for d in kept), key=_place)


def _place(line: str) -> tuple[str, int, int]:
    match = re.match(r"(.*?):(\d+):(\d+):", line)
    return (match[1], int(match[2]), int(match[3])) if match else ("", 0, 0)


def _line(detail: ErrorDetails, tree: Located, model: type[BaseModel]) -> str:
    section, tag, rest = split_path(detail["loc"], model)
    unknown_key = detail["type"] == "extra_forbidden"
    node = _find(tree, [*section, *rest])
    where = node.key_where if unknown_key else node.where
    path = ".".join(section) + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in rest)
    head = f"{where}{' ' if where == '--set' else ': '}{path}" if path else where
    return f"{head}: {_unknown_key(section, tag, rest, model) if unknown_key else _what(detail)}"


def split_path(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[str], str, list[int | str]]:
    """pydantic's location → (names of sections and field, kind of distribution or "", steps inside the value)."""
    current: Any = model
    for index, step in enumerate(loc):
        field = current.model_fields.get(str(step))
        current = None if field is None else field.annotation
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            section, rest = [str(s) for s in loc[: index + 1]], list(loc[index + 1 :])
            return (section, str(rest[0]), rest[1:]) if rest and rest[0] in TAGS else (section, "", rest)
    return [str(s) for s in loc], "", []


def _find(tree: Located, steps: list[int | str]) -> Located:
    """The deepest value on the path that exists in the file."""
    for step in steps:
        children = dict(enumerate(tree.value)) if isinstance(tree.value, list) else tree.value
        if not isinstance(children, dict) or step not in children:
            break
        tree = children[step]  # pyright: ignore[reportArgumentType]
    return tree


def _unknown_key(section: list[str], tag: str, rest: list[int | str], model: type[BaseModel]) -> str:
    for name in section[:-1]:
        model = model.model_fields[name].annotation  # type: ignore[assignment]  # a section, as split_path found
    if not rest:
        key, allowed = section[-1], list(model.model_fields)
    else:
        inside = {"normal": list(NormalParameters.model_fields)} if len(rest) > 1 else {"choice": ["weights"]}
        key, allowed = str(rest[-1]), inside.get(tag, [])
    near = difflib.get_close_matches(key, allowed, n=1)
    if near:
        return f"unknown key (did you mean '{near[0]}'?)"
    return "unknown key; " + (f"allowed: {', '.join(allowed)}" if allowed else f"nothing may stand beside '{tag}'")


def _what(detail: ErrorDetails) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in EXPECTED:
        return f"expected {EXPECTED[kind]}, got {_show(given)}"
    if kind == "literal_error":
        return _literal(given, str(context["expected"]))
    if kind == "union_tag_invalid":
        forms = [form for name, form in DISTRIBUTIONS.items() if f"'{name}'" in context["expected_tags"]]
        return f"unknown distribution {_show(given)}; give a constant or one of {', '.join(forms)}"
    if kind == "missing":
        return f"'{detail['loc'][-1]}' is missing"
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        few = "at least" if kind == "too_short" else "at most"
        return f"has {context['actual_length']} values; {few} {bound} needed"
    if kind == "string_pattern_mismatch":
        return f"'{given}' does not fit; use letters, digits, - and _, starting with a letter or digit"
    limits = {"greater_than": ">", "greater_than_equal": "≥", "less_than": "<", "less_than_equal": "≤"}
    if kind in limits:
        key = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}[kind]
        return f"{given} is not allowed; it must be {limits[kind]} {context[key]:g}"
    return f"{_show(given)} is not allowed: {detail['msg']}"


def _literal(given: Any, expected: str) -> str:
    names = [n.strip().strip("'") for n in expected.replace(" or ", ", ").split(",")]
    if isinstance(given, str):
        return unknown_name("value", given, names)
    return f"expected one of {', '.join(names)}, got {_show(given)}"


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: …" for k in value) + "}"
    if isinstance(value, list | tuple):
        return "a list of " + str(len(value))
    return f"'{value}'" if isinstance(value, str) else f"{value}"
