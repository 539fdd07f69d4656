"""The URDF reader: what it understands, and one clear line for what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from dataengine.errors import RobotError
from dataengine.robot.catalogue import PACKAGED, load_robot, robots_folder
from dataengine.robot.urdf import parse_urdf

ARM = """<robot name="arm">
  <material name="red"><color rgba="1 0 0 1"/></material>
  <link name="base"><visual><geometry><box size="0.2 0.2 0.1"/></geometry><material name="red"/></visual></link>
  <link name="upper"><visual><origin xyz="0 0 0.1"/><geometry><cylinder radius="0.03" length="0.2"/></geometry></visual></link>
  <link name="tip"><visual><geometry><sphere radius="0.04"/></geometry>
    <material name="own"><color rgba="0 1 0 1"/></material></visual></link>
  <joint name="turn" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 2"/>
    <limit lower="-1" upper="2" velocity="0"/></joint>
  <joint name="slide" type="prismatic"><parent link="upper"/><child link="tip"/><origin xyz="0 0 0.2" rpy="0 0 1"/>
    <axis xyz="1 0 0"/><limit lower="0" upper="0.1" velocity="0.5"/><mimic joint="turn" multiplier="0.05"/></joint>
  <transmission name="t"><joint name="turn"/></transmission>
</robot>"""


def write(folder: Path, text: str) -> Path:
    path = folder / "arm.urdf"
    path.write_text(text)
    return path


def test_reads_joints_limits_mimics_and_shapes(tmp_path):
    model = parse_urdf(write(tmp_path, ARM))
    assert (model.name, model.links, model.actuated, model.root) == ("arm", ("base", "upper", "tip"), ("turn",), "base")
    turn, slide = model.joints
    np.testing.assert_array_equal(turn.axis, [0, 0, 1])
    assert (model.q_lower, model.q_upper) == (np.array([-1.0]), np.array([2.0]))
    assert turn.velocity == 1.0  # a speed limit of zero means "not given"
    assert slide.mimic is not None and slide.mimic.multiplier == 0.05 and not slide.actuated
    assert [(v.kind, v.size, v.rgba) for v in model.visuals] == [
        ("box", (0.2, 0.2, 0.1), (1, 0, 0, 1)),
        ("cylinder", (0.03, 0.2), None),
        ("sphere", (0.04,), (0, 1, 0, 1)),
    ]
    assert len(model.urdf_sha) == 64
    assert model.base_link_indices == (0,)
    assert [joint.name for joint in model.chain("tip")] == ["turn", "slide"]


def test_continuous_joints_need_no_limits(tmp_path):
    text = ARM.replace('name="turn" type="revolute"', 'name="turn" type="continuous"').replace(
        '<limit lower="-1" upper="2" velocity="0"/>', ""
    )
    model = parse_urdf(write(tmp_path, text))
    assert model.q_upper[0] == -model.q_lower[0] == np.pi


@pytest.mark.parametrize(
    "reference", ["package://my_robot/meshes/a.stl", "package:///my_robot/meshes/a.stl", "../meshes/a.stl", "file://{}"]
)
def test_meshes_are_found_the_usual_ways(tmp_path, reference):
    (tmp_path / "my_robot/meshes").mkdir(parents=True)
    (tmp_path / "my_robot/urdf").mkdir()
    mesh = tmp_path / "my_robot/meshes/a.stl"
    mesh.write_bytes(b"x")
    text = ARM.replace('<sphere radius="0.04"/>', f'<mesh filename="{reference.format(mesh)}" scale="2 2 2"/>')
    tip = parse_urdf(write(tmp_path / "my_robot/urdf", text)).visuals[-1]
    assert tip.mesh is not None and tip.mesh.samefile(mesh) and tip.size == (2, 2, 2)


def test_meshes_are_found_through_ros_package_path(tmp_path, monkeypatch):
    (tmp_path / "elsewhere/pkg").mkdir(parents=True)
    (tmp_path / "elsewhere/pkg/a.stl").write_bytes(b"x")
    monkeypatch.setenv("ROS_PACKAGE_PATH", str(tmp_path / "elsewhere"))
    text = ARM.replace('<sphere radius="0.04"/>', '<mesh filename="package://pkg/a.stl"/>')
    (tmp_path / "robot").mkdir()
    assert parse_urdf(write(tmp_path / "robot", text)).visuals[-1].mesh == tmp_path / "elsewhere/pkg/a.stl"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</robot>", "", "not well-formed XML"),
        ('<robot name="arm">', '<sdf name="arm">', "not well-formed"),
        ('type="prismatic"', 'type="planar"', "joint 'slide' has type 'planar'; supported: revolute"),
        ('<child link="tip"/>', '<child link="top"/>', "refers to link 'top', which does not exist"),
        ('<child link="tip"/>', '<child link="upper"/>', "has two parent joints"),
        ('<parent link="base"/>', '<parent link="tip"/>', "do not form one tree"),
        ('<parent link="base"/>', "", "needs a <parent> and a <child>"),
        ('link name="tip"', 'link name="base"', "link 'base' is defined more than once"),
        ('lower="-1"', 'lower="3"', "limits 3.0 > 2.0"),
        ('lower="-1"', 'lower="low"', 'lower="low" is not 1 finite number'),
        ('xyz="0 0 0.1"', 'xyz="0 0"', "is not 3 finite number"),
        ('xyz="0 0 2"', 'xyz="0 0 0"', "axis 0 0 0"),
        ('<limit lower="-1" upper="2" velocity="0"/>', "", "has no <limit lower upper>"),
        ('mimic joint="turn"', 'mimic joint="trun"', "mimics 'trun', which is not a freely moving joint"),
        ('<sphere radius="0.04"/>', '<capsule radius="1"/>', "has <capsule> as visual geometry; supported: mesh, box"),
        ('<sphere radius="0.04"/>', "<sphere/>", "attribute 'radius' is missing"),
        ('<sphere radius="0.04"/>', '<mesh filename="package://gone/a.stl"/>', "mesh 'package://gone/a.stl' not found"),
        ('<sphere radius="0.04"/>', "<mesh/>", "lacks the attribute 'filename'"),
    ],
)
def test_refuses_with_one_line(tmp_path, old, new, message):
    assert old in ARM
    with pytest.raises(RobotError, match=message) as caught:
        parse_urdf(write(tmp_path, ARM.replace(old, new, 1)))
    assert "\n" not in str(caught.value) and "arm.urdf" in str(caught.value)


def test_other_xml_and_missing_files(tmp_path):
    with pytest.raises(RobotError, match="root element is <sdf>"):
        parse_urdf(write(tmp_path, "<sdf/>"))
    with pytest.raises(RobotError, match="no <link>"):
        parse_urdf(write(tmp_path, "<robot/>"))
    with pytest.raises(RobotError, match="cannot read robot description .*No such file"):
        parse_urdf(tmp_path / "none.urdf")


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_catalogue(name):
    model = load_robot(name)
    assert model.name == name and model.dof >= 6
    assert (model.q_lower < model.q_upper).all() and (model.qd_limit > 0).all()
    assert all(visual.mesh is not None and visual.mesh.is_file() for visual in model.visuals)


def test_catalogue_takes_paths_and_explains_unknown_names():
    by_path = load_robot(robots_folder() / PACKAGED["panda"])
    assert by_path.urdf_sha == load_robot("panda").urdf_sha
    with pytest.raises(RobotError, match="unknown robot 'pandas'.*did you mean 'panda'.*xarm7.*path of a .urdf"):
        load_robot("pandas")
    with pytest.raises(RobotError, match="cannot read robot description"):
        load_robot("missing/robot.urdf")
