"""Objects in the record: exact poses in, exact labels out, through an export and back, and through the command."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import trimesh
import yaml

from annotators.capture_spec import CaptureError
from annotators.cli import annotate
from annotators.clicks_file import read_object_clicks
from annotators.objects import ObjectSolution, PosedObject, load_mesh
from annotators.output import make_video, write_dataset
from dataengine.commands.convert import export_dataset
from dataengine.convert.bop import import_bop
from dataengine.errors import DataEngineError
from dataengine.geometry import camera, se3
from dataengine.raycast.scene import TriMesh
from dataengine.store.dataset import open_dataset
from tests.annotators.solved import K, N, world
from tests.annotators.test_run import capture_yaml, solvers, write_clicks  # noqa: F401  (fixtures)

BOX = trimesh.creation.box((0.10, 0.14, 0.30))
AT = se3.make(se3.rotation_from_axis_angle((0, 0, 1.0), 0.4), (0.55, 0.10, 0.45))
"""Between the camera and the arm."""
RESTED, RAISED = (se3.make(np.eye(3), (0.0, -0.9, z)) for z in (0.15, 0.35))
"""Beside the arm."""


def posed(name: str, T_world_object: np.ndarray, starts: tuple[int, ...] = (0,)) -> PosedObject:
    solution = ObjectSolution(T_world_object, np.tile(np.eye(6) * 1e-6, (N, 1, 1)), starts, ())
    return PosedObject(name, TriMesh(np.asarray(BOX.vertices), np.asarray(BOX.faces)), solution)


def inside_box(T_cam_object: np.ndarray) -> np.ndarray:
    """Pixels (H, W) whose rays meet the box: slabs, no triangle involved."""
    u, v = np.meshgrid(np.arange(160), np.arange(120))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1) @ T_cam_object[:3, :3]
    eye = se3.inverse(T_cam_object)[:3, 3]
    with np.errstate(divide="ignore"):
        ends = np.stack([(sign * np.array(BOX.extents) / 2 - eye) / rays for sign in (-1, 1)])
    near, far = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
    return (near < far) & (far > 0)


@pytest.fixture(scope="module")
def video():
    capture, solution = world()
    capture = dataclasses.replace(capture, depth_z_m=None, mask=None)
    still = np.tile(AT, (N, 1, 1))
    carried = np.stack([RAISED if f >= 3 else RESTED for f in range(N)])
    return make_video(capture, solution, objects=[posed("box", still), posed("crate", carried, (0, 3))])


def test_objects_are_labelled_where_they_are(video):
    _, solution = world()
    assert video.names.objects == ("box", "crate")
    for f in range(N):
        T = se3.inverse(solution.T_world_cam[f]) @ AT
        np.testing.assert_allclose(video.frames["T_cam_object"][f, 0], T, atol=1e-12)
        true = inside_box(T)
        assert ((video.images["amodal_objects"][f] & 1 > 0) != true).sum() <= 4  # pixels whose rays graze an edge
        shown = video.images["mask_object"][f] == 1
        assert (shown & ~true).sum() <= 4
        assert (true & ~shown & (video.images["mask_link"][f] == 0)).sum() <= 4  # only the hand reaches before it
        assert video.frames["object_visibility"][f, 0] == pytest.approx((true & shown).sum() / true.sum(), abs=0.01)
    assert video.frames["object_visibility"][:, 0].min() > 0.8
    told = video.scene["objects"]
    assert [o["name"] for o in told] == ["box", "crate"] and [s["start"] for s in told[1]["segments"]] == [0, 3]
    np.testing.assert_allclose(told[0]["size_m"], BOX.extents)
    json.dumps(video.scene, allow_nan=False)


def test_an_object_hides_the_robot_and_the_robot_an_object(video):
    capture, solution = world()
    bare = make_video(dataclasses.replace(capture, depth_z_m=None, mask=None), solution)
    before = (bare.images["mask_link"] > 0) & (video.images["mask_object"] == 1)
    assert before.any() and (video.images["mask_link"][before] == 0).all()
    assert video.frames["link_visibility"].sum() < bare.frames["link_visibility"].sum()
    behind = make_video(
        dataclasses.replace(capture, depth_z_m=None, mask=None),
        solution,
        objects=[posed("box", np.tile(se3.make(np.eye(3), (-0.5, -0.15, 0.45)), (N, 1, 1)))],
    )
    assert (behind.frames["object_visibility"] < 1).any()
    np.testing.assert_array_equal(behind.images["mask_link"], bare.images["mask_link"])


def test_measured_depth_before_an_object_hides_it():
    capture, solution = world()
    near = dataclasses.replace(capture, mask=None, depth_z_m=lambda f: np.full((120, 160), 0.3, np.float32))
    video = make_video(near, solution, objects=[posed("box", np.tile(AT, (N, 1, 1)))])
    assert (video.images["mask_object"] == 0).all() and (video.frames["object_visibility"] == 0).all()
    assert (video.images["amodal_objects"] > 0).any()


def test_through_bop_the_objects_come_back(video, tmp_path):
    write_dataset(tmp_path / "d", video, "one")
    assert export_dataset(tmp_path / "d", "bop", tmp_path / "out") == 0
    back = next(iter(import_bop(tmp_path / "out")))
    np.testing.assert_allclose(back.frames["T_cam_object"], video.frames["T_cam_object"], atol=1e-6)
    np.testing.assert_array_equal(back.images["mask_object"], video.images["mask_object"])


def test_the_command_labels_what_was_clicked_and_says_what_was_not(capture_yaml, solvers, tmp_path, capsys):  # noqa: F811
    capture, solution = world()
    BOX.export(capture_yaml.parent / "box.ply")
    spec = yaml.safe_load(capture_yaml.read_text())
    spec["objects"] = [{"name": "box", "mesh": "box.ply"}, {"name": "lid", "mesh": "box.ply"}]
    capture_yaml.write_text(yaml.safe_dump(spec))
    file = write_clicks(tmp_path / "clicks.json")
    uv = camera.project(K, se3.transform(se3.inverse(solution.T_world_cam[1]) @ AT, np.asarray(BOX.vertices)))
    rows = [
        {"frame": 1, "object": "box", "point_m": p.tolist(), "u_px": float(u), "v_px": float(v)}
        for p, (u, v) in zip(np.asarray(BOX.vertices), uv, strict=True)
    ]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"objects": rows}))
    assert annotate(capture_yaml, tmp_path / "out", file) == 0
    assert "object_unlabelled lid has no clicks" in capsys.readouterr().out
    with open_dataset(tmp_path / "out/dataset").reader(0) as reader:
        made = reader.video()
    assert made.names.objects == ("box",)
    T = se3.inverse(solution.T_world_cam) @ AT
    np.testing.assert_allclose(made.frames["T_cam_object"][:, 0, :3, 3], T[:, :3, 3], atol=2e-3)
    assert annotate(capture_yaml, tmp_path / "out", file) == 0 and solvers["anchor"] < 40


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"frame": 0, "object": "cup", "point_m": [0, 0, 0], "u_px": 1, "v_px": 2}], "object 'cup'"),
        ([{"frame": 99, "object": "box", "point_m": [0, 0, 0], "u_px": 1, "v_px": 2}], "frame 99"),
        ([{"frame": 0, "object": "box", "u_px": 1, "v_px": 2}], "point_m"),
    ],
)
def test_bad_clicks_on_objects_are_one_line(rows, message, tmp_path):
    path = tmp_path / "clicks.json"
    path.write_text(json.dumps({"clicks": [], "objects": rows}))
    with pytest.raises(CaptureError, match=message) as error:
        read_object_clicks(path, world()[0], ["box"])
    assert "\n" not in str(error.value)


def test_a_model_in_millimetres_or_of_nothing_is_refused(tmp_path):
    trimesh.creation.box((100, 140, 300)).export(tmp_path / "mm.ply")
    with pytest.raises(DataEngineError, match="must be in metres"):
        load_mesh(tmp_path / "mm.ply")
    (tmp_path / "empty.ply").write_text("nothing")
    with pytest.raises(DataEngineError, match="empty.ply"):
        load_mesh(tmp_path / "empty.ply")
