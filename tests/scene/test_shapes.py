import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import AssetError
from dataengine.scene.mesh_building import bevelled_box, volume
from dataengine.scene.shapes import shape_mesh

EXAMPLES = {
    "box": ((0.003,), (0.1, 0.07, 0.05)),
    "cylinder": ((0.003,), (0.08, 0.08, 0.12)),
    "sphere": ((), (0.1, 0.1, 0.1)),
    "capsule": ((), (0.05, 0.05, 0.15)),
    "cone": ((0.2,), (0.1, 0.1, 0.14)),
    "torus": ((), (0.12, 0.12, 0.03)),
    "mug": ((0.004,), (0.12, 0.08, 0.095)),
    "bowl": ((0.004, 0.45), (0.15, 0.15, 0.06)),
    "bottle": ((0.35, 0.6), (0.07, 0.07, 0.24)),
    "can": ((0.004,), (0.066, 0.066, 0.115)),
    "table": ((0.03, 0.05, 0.0), (1.8, 1.2, 0.75)),
    "room": ((0.1,), (5.0, 6.0, 2.8)),
}


def _trimesh(m):
    return trimesh.Trimesh(m.vertices_m, m.faces, process=False)


@pytest.mark.parametrize("shape", [*EXAMPLES, "round table"])
def test_closed_outward_centred_and_of_the_asked_size(shape):
    parameters, size = ((0.03, 0.08, 1.0), (1.2, 1.2, 0.75)) if shape == "round table" else EXAMPLES[shape]
    m = shape_mesh(shape.removeprefix("round "), parameters, size)
    assert m.faces.dtype == np.int32 and m.vertices_m.dtype == np.float64
    np.testing.assert_allclose(m.vertices_m.min(0), -np.array(size) / 2, atol=1e-12)
    np.testing.assert_allclose(m.vertices_m.max(0), np.array(size) / 2, atol=1e-12)
    solid = _trimesh(m)
    assert solid.is_watertight and solid.is_winding_consistent
    assert all(part.volume > 0 for part in solid.split(only_watertight=False))
    assert solid.volume == pytest.approx(volume(m.vertices_m, m.faces), rel=1e-9)
    assert solid.area_faces.min() > 0
    np.testing.assert_allclose(np.linalg.norm(m.vertex_normals, axis=1), 1, atol=1e-9)


@pytest.mark.parametrize(
    "shape, exact",
    [
        ("box", 0.1 * 0.07 * 0.05),
        ("cylinder", np.pi * 0.04**2 * 0.12),
        ("sphere", np.pi / 6 * 0.1**3),
        ("capsule", np.pi * 0.025**2 * (0.1 + 4 / 3 * 0.025)),
        ("torus", 2 * np.pi**2 * 0.045 * 0.015**2),
        ("cone", np.pi * 0.14 / 3 * 0.05**2 * (1 + 0.2 + 0.04)),
    ],
)
def test_volume_is_the_textbook_s(shape, exact):
    m = shape_mesh(shape, *EXAMPLES[shape])
    assert volume(m.vertices_m, m.faces) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("shape", ["mug", "bowl"])
def test_vessels_are_hollow_and_the_rest_is_not(shape):
    m = shape_mesh(shape, *EXAMPLES[shape])
    solid = _trimesh(m)
    assert not solid.contains([[0.0, 0.0, 0.01]])[0]
    assert solid.volume < 0.45 * solid.convex_hull.volume


def test_the_mug_s_handle_does_not_reach_into_the_cup():
    parameters, size = EXAMPLES["mug"]
    m = shape_mesh("mug", parameters, size)
    centre_x = m.vertices_m[:, 0].min() + size[1] / 2
    r = np.hypot(m.vertices_m[:, 0] - centre_x, m.vertices_m[:, 1])
    z = m.vertices_m[:, 2]
    inside = (r < size[1] / 2 - parameters[0] - 1e-4) & (z > -size[2] / 2 + 2 * parameters[0])
    assert not inside.any()


def test_a_room_holds_air_and_has_no_lid():
    room = _trimesh(shape_mesh("room", *EXAMPLES["room"]))
    assert not room.contains([[0, 0, 0]])[0]
    assert not room.ray.intersects_any([[0, 0, 0]], [[0, 0, 1]])[0]
    assert room.ray.intersects_any([[0, 0, 0]] * 5, [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, -1]]).all()


@settings(max_examples=40)
@given(st.tuples(*[st.floats(0.01, 1)] * 3), st.floats(1e-4, 0.5))
def test_a_bevelled_box_is_a_convex_solid_inside_its_box(size, bevel):
    vertices, faces = bevelled_box(size, bevel)
    solid = trimesh.Trimesh(vertices, faces, process=False)
    assert solid.is_watertight and solid.is_convex
    assert 0 < solid.volume < np.prod(size)


def test_flat_sides_look_flat_although_smoothly_shaded():
    m = shape_mesh("box", (0.001,), (0.1, 0.1, 0.1))
    assert np.abs(m.vertex_normals).max(axis=1).min() > 0.999


def test_unknown_shape():
    with pytest.raises(AssetError, match="unknown shape 'mugg' \\(did you mean 'mug'\\?\\)"):
        shape_mesh("mugg", (), (1, 1, 1))
