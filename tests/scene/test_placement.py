import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.config.spec import DistractorSpec, SurroundingsSpec
from dataengine.errors import AssetError
from dataengine.scene.assets import file_sha256
from dataengine.scene.draws import Draws
from dataengine.scene.mesh_building import volume
from dataengine.scene.placement import TableTop, hidden_by_cylinder, place_distractor
from dataengine.scene.robot_sweep import RobotSweep
from dataengine.scene.shapes import load_mesh_file, object_mesh
from dataengine.scene.spec import Material, SceneObject
from dataengine.scene.surroundings import draw_table
from dataengine.scene.things import RESTS, draw_occluder, draw_thing, stable_rotations


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.02, 0.3), st.floats(0.05, 0.6))
def test_hidden_by_cylinder_agrees_with_rays_through_a_mesh(seed, radius, height):
    rng = np.random.default_rng(seed)
    xy, eye = rng.uniform(-0.3, 0.3, 2), np.append(rng.uniform(0.8, 1.5, 2), rng.uniform(0.05, 1.5))
    points = rng.uniform((-1, -1, 0.01), (0.3, 0.3, 1.0), (300, 3))
    points = points[np.linalg.norm(points[:, :2] - xy, axis=1) > radius * 1.02]
    mesh = trimesh.creation.cylinder(radius, height, sections=256)
    mesh.apply_translation((*xy, height / 2))
    way = points - eye
    hit = mesh.ray.intersects_first(np.repeat(eye[None], len(points), 0), way)
    locations, rays, _ = mesh.ray.intersects_location(np.repeat(eye[None], len(points), 0), way, multiple_hits=False)
    closer = np.zeros(len(points), bool)
    closer[rays] = np.linalg.norm(locations - eye, axis=1) < np.linalg.norm(way[rays], axis=1)
    expected = (hit >= 0) & closer
    found = hidden_by_cylinder(eye, points, xy, radius, height)
    assert (found != expected).mean() < 0.02  # grazing rays and the polygon's corners


@pytest.mark.parametrize("shape", RESTS)
def test_shapes_rest_stably_on_the_plane(shape):
    spec = DistractorSpec(shapes=(shape,))
    for seed in range(12):
        thing = draw_thing(Draws(seed, 0), "thing", spec)
        assert thing.vertices_m[:, 2].min() == pytest.approx(0, abs=1e-12)
        assert max(thing.size_m) == pytest.approx(next(d.value for d in _record(seed, spec) if d.key == "thing.size_m"))
        solid = trimesh.Trimesh(thing.vertices_m, object_mesh_of(thing).faces, process=False)
        feet = thing.vertices_m[thing.vertices_m[:, 2] < 2e-3][:, :2]
        low, high = feet.min(0) - 2e-3, feet.max(0) + 2e-3
        centre = solid.center_mass[:2]
        assert ((centre > low) & (centre < high)).all(), "the centre of mass must lie over what touches the table"


def _record(seed, spec):
    draws = Draws(seed, 0)
    draw_thing(draws, "thing", spec)
    return draws.record()


def object_mesh_of(thing):
    return object_mesh(_object(thing.shape, thing.parameters, thing.size_m))


def _object(shape, parameters, size, path=None, sha=None):
    grey = (0.5, 0.5, 0.5)
    material = Material(kind="plastic", color=grey, color2=grey, roughness=0.5, pattern_scale_m=0.01, ir_albedo=0.5)
    pose = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    return SceneObject(
        instance_id=1, name="o", category=shape, shape=shape, parameters=parameters, size_m=size, T_world_object=(pose,),
        material=material, role="distractor", mesh_path=path, mesh_sha256=sha,
    )  # fmt: skip


def test_occluders_stand_upright_and_are_tall():
    spec = DistractorSpec()
    for seed in range(30):
        thing = draw_occluder(Draws(seed, 0), "occluder.0", spec)
        assert thing.height_m == pytest.approx(thing.size_m[2]) and thing.height_m > 0.15


@pytest.fixture
def wedge(tmp_path):
    path = tmp_path / "wedge.obj"
    trimesh.Trimesh([[0, 0, 0], [4, 0, 0], [0, 2, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]).export(path)
    return str(path)


def test_mesh_files_are_scaled_centred_and_rest_on_their_faces(wedge):
    spec = DistractorSpec(shapes=(), meshes=(wedge,), size_m=0.2)
    thing = draw_thing(Draws(0, 0), "thing", spec)
    np.testing.assert_allclose(thing.size_m, (0.2, 0.1, 0.05))
    assert (thing.category, thing.shape) == ("wedge", "mesh") and thing.mesh_sha256 == file_sha256("mesh", wedge)
    assert (np.abs(thing.vertices_m[:, 2]) < 1e-9).sum() == 3
    m = object_mesh(_object("mesh", (), thing.size_m, wedge, thing.mesh_sha256))
    assert volume(m.vertices_m, m.faces) == pytest.approx(0.05**3 * 4 * 2 / 6)
    assert sum(p for _, p in stable_rotations(wedge)) > 0.9


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("none.obj", None, "there is no such file"),
        ("a.txt", b"x", "unknown kind of file '.txt'; give one of .obj, .stl, .glb, .ply"),
        ("empty.obj", b"", "mesh .*: "),
        ("broken.stl", b"solid nonsense", "mesh .*: "),
        ("broken.glb", b"glTF\x00\x00", "cannot read it"),
        ("flat.obj", b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "no usable triangles"),
    ],
)
def test_broken_mesh_files_are_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AssetError, match=message) as caught:
        load_mesh_file(str(tmp_path / name))
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_a_mesh_that_changed_or_vanished_since_sampling_is_refused(wedge, tmp_path):
    with pytest.raises(AssetError, match="changed since the scene was sampled"):
        object_mesh(_object("mesh", (), (0.1, 0.1, 0.1), wedge, "0" * 64))
    with pytest.raises(AssetError, match="there is no such file"):
        object_mesh(_object("mesh", (), (0.1, 0.1, 0.1), str(tmp_path / "gone.obj"), "0" * 64))
    with pytest.raises(AssetError, match="has no mesh_path"):
        object_mesh(_object("mesh", (), (0.1, 0.1, 0.1)))


def _top(table_size_m, eye=(2.0, 0.0, 1.0)):
    point = np.zeros((1, 1, 3))
    return TableTop(draw_table(SurroundingsSpec(table_size_m=table_size_m), Draws(0, 0)), RobotSweep(point, point, 0.01), np.array([eye]))


def test_a_crowded_table_leaves_things_out_and_says_so():
    top, draws = _top(0.5), Draws(0, 0)
    spec = DistractorSpec(size_m=0.2, radius_m=0.2)
    placed = [place_distractor(top, draws, f"distractor.{k}", spec) for k in range(12)]
    assert 0 < sum(placed) < 12 and sum(placed) == len(top.placed)
    assert top.rejections["distractor: left out, no place in 60 tries"] == 12 - sum(placed)
    kept = {".".join(d.key.split(".")[:2]) for d in draws.record()}
    assert kept == {p.key for p in top.placed}


def test_nothing_is_put_onto_the_camera_or_the_robot():
    top = _top(3.0, eye=(0.3, 0.0, 0.1))
    for k in range(40):
        place_distractor(top, Draws(k, 0), f"distractor.{k}", DistractorSpec(size_m=0.15, radius_m=0.3))
    gaps = [np.linalg.norm(p.xy_m - (0.3, 0.0)) - p.thing.radius_m for p in top.placed]
    assert len(top.placed) > 4 and min(gaps) >= 0.12
    assert min(np.linalg.norm(p.xy_m) - p.thing.radius_m for p in top.placed) > 0.01
