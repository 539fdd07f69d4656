"""Visual meshes: sizes against the makers' collision meshes, normals, materials, and the cache."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from dataengine.errors import RobotError
from dataengine.robot.catalogue import load_robot
from dataengine.robot.mesh_files import BRIGHTEST, crease_normals
from dataengine.robot.meshes import base_height_m, load_link_meshes, mesh_digest
from dataengine.robot.urdf import parse_urdf

URDF = """<robot name="r"><link name="a"><visual><origin xyz="1 0 0" rpy="0 0 1.5707963267948966"/><geometry>{}</geometry>
  <material name="m"><color rgba="0.5 0.5 0.5 1"/></material></visual></link></robot>"""


def one_link(folder, geometry: str):
    path = folder / "r.urdf"
    path.write_text(URDF.format(geometry))
    return parse_urdf(path)


@pytest.mark.parametrize("name", ["panda", "ur5"])
def test_visual_meshes_have_the_size_and_place_of_the_collision_meshes(name, robot_cache):
    model = load_robot(name)
    for mesh in load_link_meshes(model, robot_cache):
        [visual] = [v for v in model.visuals if v.link == mesh.link]
        assert visual.mesh is not None
        other = visual.mesh.parents[1] / "collision" / f"{visual.mesh.stem}.stl"
        box = trimesh.transform_points(trimesh.load_mesh(other).vertices, visual.T_link_geometry)
        if mesh.link == "base_link":  # the UR5's visual base has a cable that its collision mesh lacks
            continue
        np.testing.assert_allclose(mesh.vertices_m.min(axis=0), box.min(axis=0), atol=6e-3)
        np.testing.assert_allclose(mesh.vertices_m.max(axis=0), box.max(axis=0), atol=6e-3)


def test_panda_materials_and_normals(robot_cache):
    meshes = load_link_meshes(load_robot("panda"), robot_cache)
    assert [mesh.link for mesh in meshes][-3:] == ["panda_hand", "panda_leftfinger", "panda_rightfinger"]
    assert sum(len(mesh.faces) for mesh in meshes) > 100_000
    colours = {material.base_color_rgb for mesh in meshes for material in mesh.materials}
    assert (BRIGHTEST,) * 3 in colours and (0.05127,) * 3 in colours  # white shell (capped), dark grey joints
    for mesh in meshes:
        assert mesh.material_index.max() < len(mesh.materials) and len(mesh.material_index) == len(mesh.faces)
        np.testing.assert_allclose(np.linalg.norm(mesh.vertex_normals, axis=1), 1, atol=1e-6)
        corners = mesh.vertices_m[mesh.faces]
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        agree = np.einsum("fd,fcd->fc", flat, mesh.vertex_normals[mesh.faces]).min(axis=1) >= 0
        assert agree.mean() > 0.999


def test_crease_normals_round_the_sphere_and_keep_the_box_sharp():
    ball = trimesh.creation.icosphere(subdivisions=4)
    soup = ball.vertices[ball.faces].reshape(-1, 3)  # as an STL has it: every triangle its own vertices
    smooth = crease_normals(soup, np.arange(len(soup)).reshape(-1, 3))
    np.testing.assert_allclose(smooth.reshape(-1, 3), soup, atol=0.01)
    box = trimesh.creation.box()
    np.testing.assert_allclose(crease_normals(box.vertices, box.faces), np.repeat(box.face_normals[:, None], 3, axis=1), atol=1e-12)


def test_primitives_origins_and_colours(tmp_path):
    [box] = load_link_meshes(one_link(tmp_path, '<box size="0.2 0.4 0.6"/>'), tmp_path)
    np.testing.assert_allclose(box.vertices_m.min(axis=0), [0.8, -0.1, -0.3], atol=1e-6)
    np.testing.assert_allclose(box.vertices_m.max(axis=0), [1.2, 0.1, 0.3], atol=1e-6)
    assert box.materials[0].base_color_rgb == pytest.approx((0.21404,) * 3, abs=1e-5)  # sRGB 0.5
    [ball] = load_link_meshes(one_link(tmp_path, '<sphere radius="0.3"/>'), tmp_path)
    np.testing.assert_allclose(np.linalg.norm(ball.vertices_m - [1, 0, 0], axis=1), 0.3, atol=1e-6)
    [rod] = load_link_meshes(one_link(tmp_path, '<cylinder radius="0.1" length="0.5"/>'), tmp_path)
    assert np.ptp(rod.vertices_m[:, 2]) == pytest.approx(0.5) and np.ptp(rod.vertices_m[:, 0]) == pytest.approx(0.2)


@pytest.mark.parametrize("suffix", ["stl", "obj", "glb", "ply"])
def test_mesh_formats_and_scale(tmp_path, suffix):
    mesh = trimesh.creation.box(extents=(100, 200, 300))
    mesh.export(tmp_path / f"a.{suffix}")
    [link] = load_link_meshes(one_link(tmp_path, f'<mesh filename="a.{suffix}" scale="0.001 0.001 0.001"/>'), tmp_path)
    np.testing.assert_allclose(np.ptp(link.vertices_m, axis=0), [0.2, 0.1, 0.3], atol=1e-6)  # turned by 90 degrees
    assert len(link.faces) == 12 and len(link.vertices_m) == 24


def test_colours_of_files_win_over_the_urdf(tmp_path):
    geometry = '<mesh filename="a.{}"/>'

    def colour(suffix: str) -> tuple[float, ...]:
        [link] = load_link_meshes(one_link(tmp_path, geometry.format(suffix)), tmp_path)
        return link.materials[0].base_color_rgb

    mesh = trimesh.creation.box()
    mesh.export(tmp_path / "a.stl")
    assert colour("stl") == pytest.approx((0.21404,) * 3, abs=1e-5)  # none in the file: the URDF's sRGB 0.5
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile([188, 0, 0, 255], (8, 1)).astype(np.uint8))
    mesh.export(tmp_path / "a.ply")
    assert colour("ply") == pytest.approx((0.50289, 0, 0), abs=1e-4)  # sRGB 188 is linear 0.503
    picture = Image.new("RGB", (4, 4), (0, 188, 0))
    material = trimesh.visual.material.PBRMaterial(name="skin", baseColorTexture=picture, metallicFactor=0.5)
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    mesh.export(tmp_path / "a.glb")
    assert colour("glb") == pytest.approx((0, 0.50289, 0), abs=1e-4)


def test_parts_of_one_look_share_a_material(tmp_path):
    first, second, third = (trimesh.creation.box().apply_translation([2 * i, 0, 0]) for i in range(3))
    for mesh, colour in ((first, 100), (second, 200), (third, 100)):
        mesh.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(baseColorFactor=[colour, 0, 0, 255]))
    trimesh.Scene([first, second, third]).export(tmp_path / "a.glb")
    [link] = load_link_meshes(one_link(tmp_path, '<mesh filename="a.glb"/>'), tmp_path)
    assert len(link.materials) == 2 and len(link.faces) == 36
    dark = np.argmin([material.base_color_rgb[0] for material in link.materials])
    assert (link.material_index == dark).sum() == 24


def test_collada_units_are_honoured(tmp_path):
    trimesh.creation.box(extents=(100, 200, 300)).export(tmp_path / "a.dae")
    text = (tmp_path / "a.dae").read_text()
    assert "<up_axis>" in text and "<unit" not in text
    (tmp_path / "a.dae").write_text(text.replace("<up_axis>", '<unit name="millimeter" meter="0.001"/><up_axis>'))
    [link] = load_link_meshes(one_link(tmp_path, '<mesh filename="a.dae"/>'), tmp_path)
    np.testing.assert_allclose(np.ptp(link.vertices_m, axis=0), [0.2, 0.1, 0.3], atol=1e-6)


def test_cache_is_keyed_by_content_and_survives_damage(tmp_path):
    trimesh.creation.box().export(tmp_path / "a.stl")
    model = one_link(tmp_path, '<mesh filename="a.stl"/>')
    [baked] = load_link_meshes(model, tmp_path)
    [file] = (tmp_path / "robots").iterdir()
    [again] = load_link_meshes(model, tmp_path)
    for field in ("vertices_m", "faces", "vertex_normals", "material_index"):
        np.testing.assert_array_equal(getattr(again, field), getattr(baked, field))
    assert again.materials == baked.materials and again.link == "a"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + b"\xff" * 40 + whole[240:]):
        file.write_bytes(damaged)
        [rebuilt] = load_link_meshes(model, tmp_path)
        np.testing.assert_array_equal(rebuilt.vertices_m, baked.vertices_m)
        assert file.read_bytes() == whole
    before = mesh_digest(model)
    trimesh.creation.box(extents=(1, 2, 3)).export(tmp_path / "a.stl")
    assert mesh_digest(model) != before
    assert np.ptp(load_link_meshes(model, tmp_path)[0].vertices_m[:, 2]) == pytest.approx(3)


def test_changed_obj_colours_are_baked_anew(tmp_path):
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl m\nf 1 2 3\n")
    model = one_link(tmp_path, '<mesh filename="a.obj"/>')
    greens = []
    for green in (0.0, 0.5):
        (tmp_path / "a.mtl").write_text(f"newmtl m\nKd 0.2 {green} 0.2\n")
        greens.append(load_link_meshes(model, tmp_path)[0].materials[0].base_color_rgb[1])
    assert greens == pytest.approx([0.0, 0.214], abs=2e-3)


def test_unwritable_cache_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert load_link_meshes(one_link(tmp_path, '<sphere radius="1"/>'), tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read|no triangles"),
        (b"solid x\nendsolid x\n", "cannot be read|no triangles"),
        (b"solid x\n facet normal 0 0 1\n  outer loop\n   vertex 0 0 nan\n   vertex 1 0 0\n   vertex 0 1 0\n"
         b"  endloop\n endfacet\nendsolid x\n", "NaN or infinite"),
    ],
)  # fmt: skip
def test_broken_meshes_are_named(tmp_path, content, message):
    (tmp_path / "a.stl").write_bytes(content)
    model = one_link(tmp_path, '<mesh filename="a.stl"/>')
    with pytest.raises(RobotError, match=message) as caught:
        load_link_meshes(model, tmp_path)
    assert "a.stl" in str(caught.value) and "\n" not in str(caught.value)


def test_mesh_that_vanished_after_parsing(tmp_path):
    trimesh.creation.box().export(tmp_path / "a.stl")
    model = one_link(tmp_path, '<mesh filename="a.stl"/>')
    (tmp_path / "a.stl").unlink()
    with pytest.raises(RobotError, match="cannot read mesh .*a.stl"):
        load_link_meshes(model, tmp_path)


def test_base_height(tmp_path, robot_cache):
    panda = load_robot("panda")
    assert base_height_m(panda, load_link_meshes(panda, robot_cache)) == pytest.approx(0, abs=1e-6)
    model = one_link(tmp_path, '<sphere radius="0.3"/>')
    assert base_height_m(model, load_link_meshes(model, tmp_path)) == pytest.approx(0.3, abs=1e-6)
