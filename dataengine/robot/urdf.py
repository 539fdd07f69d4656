"""URDF files → RobotModel. The part of the format that robots in practice use (http://wiki.ros.org/urdf/XML)."""

from __future__ import annotations

import hashlib
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RobotError
from dataengine.geometry import se3
from dataengine.robot.model import MOVING, Geometry, Joint, JointType, Mimic, RobotModel

DEFAULT_SPEED = {"revolute": 1.0, "continuous": 1.0, "prismatic": 0.1}
"""rad/s or m/s for joints whose description gives no speed limit, or zero."""


def parse_urdf(path: str | Path, name: str | None = None) -> RobotModel:
    """Read a URDF file. RobotError (one line) if it is missing, malformed, or uses unsupported joints.

    Meshes are located (see `resolve_mesh`) but not opened. ``name`` overrides the robot's own name.
    """
    path = Path(path).resolve()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RobotError(f"cannot read robot description {path}: {error.strerror}") from None
    try:
        root = ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        raise RobotError(f"{path.name}: not well-formed XML ({error}); give a plain .urdf file") from None
    if root.tag != "robot":
        raise RobotError(f"{path.name}: root element is <{root.tag}>, expected <robot>; give a plain .urdf file")
    links = tuple(_attribute(link, "name", path.name) for link in root.findall("link"))
    joints = tuple(_joint(joint, path.name) for joint in root.findall("joint"))
    _check_tree(path.name, links, joints)
    colours = dict(_colours(root, path.name))
    visuals = tuple(
        _geometry(visual, link.get("name", ""), colours, path) for link in root.findall("link") for visual in link.findall("visual")
    )
    own_name = root.get("name") or path.stem
    return RobotModel(name or own_name, path, hashlib.sha256(raw).hexdigest(), links, joints, visuals)


def resolve_mesh(uri: str, urdf: Path) -> Path:
    """File behind a mesh reference of a URDF: ``package://``, ``file://``, absolute, or relative to the URDF.

    A package is searched in every ancestor folder of the URDF (as ``ancestor/package/rest``, as
    ``ancestor/rest`` where the ancestor is the package itself) and in ``ROS_PACKAGE_PATH``.
    """
    if not uri.startswith("package://"):
        candidates = [urdf.parent / uri.removeprefix("file://")]
    else:
        package, _, rest = uri.removeprefix("package://").lstrip("/").partition("/")
        roots = [*urdf.parents, *map(Path, filter(None, os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep)))]
        candidates = [root / package / rest for root in roots]
        candidates += [root / rest for root in roots if root.name == package]
        candidates += [urdf.parent / rest, urdf.parent.parent / rest]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise RobotError(
        f"{urdf.name}: mesh '{uri}' not found; put it beside the URDF or add the folder that holds its package to ROS_PACKAGE_PATH"
    )


def _check_tree(where: str, links: tuple[str, ...], joints: tuple[Joint, ...]) -> None:
    """One root, one parent per link, no cycles, no dangling or repeated names, mimics of existing free joints."""
    if not links:
        raise RobotError(f"{where}: no <link> elements; a robot needs at least one")
    for kind, names in (("link", links), ("joint", tuple(joint.name for joint in joints))):
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise RobotError(f"{where}: {kind} '{repeated[0]}' is defined more than once; names must be unique")
    children: set[str] = set()
    for joint in joints:
        for end in (joint.parent, joint.child):
            if end not in links:
                raise RobotError(f"{where}: joint '{joint.name}' refers to link '{end}', which does not exist")
        if joint.child in children:
            raise RobotError(f"{where}: link '{joint.child}' has two parent joints; only trees are supported")
        children.add(joint.child)
    roots = [link for link in links if link not in children]
    if len(roots) != 1 or not _reaches_all(roots[0], links, joints):
        raise RobotError(f"{where}: the joints do not form one tree (base links: {', '.join(roots) or 'none'})")
    leaders = {joint.name for joint in joints if joint.actuated}
    for joint in joints:
        if joint.mimic is not None and joint.mimic.joint not in leaders:
            raise RobotError(f"{where}: joint '{joint.name}' mimics '{joint.mimic.joint}', which is not a freely moving joint")


def _reaches_all(root: str, links: tuple[str, ...], joints: tuple[Joint, ...]) -> bool:
    children: dict[str, list[str]] = {}
    for joint in joints:
        children.setdefault(joint.parent, []).append(joint.child)
    frontier, seen = [root], {root}
    while frontier:
        fresh = [child for child in children.get(frontier.pop(), []) if child not in seen]
        seen.update(fresh)
        frontier += fresh
    return len(seen) == len(links)


def _joint(element: Element, where: str) -> Joint:
    name = _attribute(element, "name", where)
    here = f"{where}: joint '{name}'"
    kind = _attribute(element, "type", here)
    if kind not in (*MOVING, "fixed"):
        raise RobotError(f"{here} has type '{kind}'; supported: {', '.join(MOVING)}, fixed")
    ends = [element.find(tag) for tag in ("parent", "child")]
    if ends[0] is None or ends[1] is None:
        raise RobotError(f"{here} needs a <parent> and a <child> link")
    axis = _vector(element.find("axis"), "xyz", 3, here, default=(1.0, 0.0, 0.0))
    length = float(np.linalg.norm(axis))
    if kind != "fixed" and length < 1e-9:
        raise RobotError(f"{here} has the axis 0 0 0; give a direction")
    lower, upper, velocity = _limits(element.find("limit"), kind, here)
    mimic = element.find("mimic")
    return Joint(
        name=name,
        type=cast(JointType, kind),
        parent=_attribute(ends[0], "link", here),
        child=_attribute(ends[1], "link", here),
        T_parent_joint=_origin(element, here),
        axis=np.asarray(axis) / max(length, 1e-9),
        lower=lower,
        upper=upper,
        velocity=velocity,
        mimic=None
        if mimic is None or kind == "fixed"
        else Mimic(
            _attribute(mimic, "joint", here),
            _vector(mimic, "multiplier", 1, here, default=(1.0,))[0],
            _vector(mimic, "offset", 1, here, default=(0.0,))[0],
        ),
    )


def _limits(element: Element | None, kind: str, here: str) -> tuple[float, float, float]:
    if kind == "fixed":
        return 0.0, 0.0, 0.0
    velocity = _vector(element, "velocity", 1, here, default=(0.0,))[0] or DEFAULT_SPEED[kind]
    if kind == "continuous":
        return -math.pi, math.pi, velocity
    if element is None:
        raise RobotError(f"{here} is {kind} but has no <limit lower upper>; add one, or make it continuous")
    lower = _vector(element, "lower", 1, here, default=(0.0,))[0]
    upper = _vector(element, "upper", 1, here, default=(0.0,))[0]
    if lower > upper:
        raise RobotError(f"{here} has limits {lower} > {upper}; lower must not exceed upper")
    return lower, upper, velocity


def _colours(root: Element, where: str) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Named colours, wherever defined: some exporters define one inside the first link that uses it."""
    for material in root.iter("material"):
        colour, name = material.find("color"), material.get("name")
        if colour is not None and name:
            yield name, _vector(colour, "rgba", 4, f"{where}: material '{name}'", default=(0.5, 0.5, 0.5, 1.0))


def _geometry(visual: Element, link: str, colours: dict[str, tuple[float, ...]], urdf: Path) -> Geometry:
    here = f"{urdf.name}: link '{link}'"
    shape = next(iter(visual.find("geometry") or ()), None)
    if shape is None or shape.tag not in ("mesh", "box", "cylinder", "sphere"):
        tag = "nothing" if shape is None else f"<{shape.tag}>"
        raise RobotError(f"{here} has {tag} as visual geometry; supported: mesh, box, cylinder, sphere")
    mesh = None
    if shape.tag == "mesh":
        mesh = resolve_mesh(_attribute(shape, "filename", here), urdf)
        size = _vector(shape, "scale", 3, here, default=(1.0, 1.0, 1.0))
    elif shape.tag == "box":
        size = _vector(shape, "size", 3, here)
    else:
        size = _vector(shape, "radius", 1, here)
        if shape.tag == "cylinder":
            size += _vector(shape, "length", 1, here)
    material = visual.find("material")
    own = material.find("color") if material is not None else None
    name = material.get("name") if material is not None else None
    rgba = _vector(own, "rgba", 4, here) if own is not None else colours.get(name or "")
    T_link_geometry = _origin(visual, here)
    return Geometry(link, shape.tag, T_link_geometry, size, mesh, name, cast("tuple[float, float, float, float]", rgba))


def _origin(element: Element, here: str) -> NDArray[np.float64]:
    origin = element.find("origin")
    zero = (0.0, 0.0, 0.0)
    rotation = se3.rotation_from_rpy(_vector(origin, "rpy", 3, here, default=zero))
    return se3.make(rotation, _vector(origin, "xyz", 3, here, default=zero))


def _attribute(element: Element, key: str, here: str) -> str:
    value = element.get(key)
    if not value:
        raise RobotError(f"{here}: <{element.tag}> lacks the attribute '{key}'")
    return value


def _vector(element: Element | None, key: str, count: int, here: str, default: tuple[float, ...] | None = None) -> tuple[float, ...]:
    """``count`` finite numbers of an attribute; the default if element or attribute is absent."""
    text = None if element is None else element.get(key)
    if text is None:
        if default is None:
            raise RobotError(f"{here}: attribute '{key}' is missing; expected {count} number(s)")
        return default
    try:
        values = tuple(float(word) for word in text.split())
    except ValueError:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise RobotError(f'{here}: {key}="{text}" is not {count} finite number(s)')
    return values
