"""What the viewer computes, its command line and its Rerun recordings; `tests/browser` drives it in a real browser."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataengine import cli
from dataengine.geometry import camera, se3
from dataengine.record.frame_table import frame_dtype
from dataengine.record.modalities import NAMES
from dataengine.record.video import Names, Video
from dataengine.store.dataset import Dataset, open_or_create
from dataengine.view import viewer_server
from dataengine.view.rerun_export import write_recording
from dataengine.view.viewer import Viewer, open_viewer
from dataengine.view.viewer_geometry import PicturePlane, beside_m, box_edges, depth_cloud, nearest_on_ray, working_depth_m
from dataengine.view.viewer_pixel import depth_error_text, object_name, pixel_values
from dataengine.view.viewer_scene import srgb
from dataengine.view.viewer_server import ViewError, check_address

K = np.array([[502.0, 0, 310.2], [0, 498.0, 181.7], [0, 0, 1]])
POSE = se3.look_at((0.9, -0.6, 0.8), (0.1, 0.2, 0.3))


@pytest.fixture
def dataset(tmp_path: Path, video) -> Dataset:
    made = open_or_create(tmp_path / "set", {}, "0" * 64, "demo")
    made.add(0, video, "train")
    return made


@given(st.floats(-0.5, 639.5), st.floats(-0.5, 359.5), st.floats(0.05, 3), st.integers(0, 2**32 - 1))
def test_a_ray_to_a_pixel_of_the_picture_finds_that_pixel(u, v, distance_m, seed):
    plane = PicturePlane(K, POSE, 640, 360, distance_m)
    there = plane.point_m(u, v)
    np.testing.assert_allclose(camera.project(K, se3.transform(se3.inverse(POSE), there[None])[0]), (u, v), atol=1e-6)
    # An eye anywhere behind or beside the camera, not only at its centre, must click the same pixel.
    eye = POSE[:3, 3] - POSE[:3, 2] * 0.4 + np.random.default_rng(seed).uniform(-0.3, 0.3, 3)
    found = plane.pixel(eye, there - eye)
    if found is not None:  # None only where rounding puts a border pixel outside
        np.testing.assert_allclose(found, (u, v), atol=1e-5)
    else:
        assert min(u + 0.5, v + 0.5, 639.5 - u, 359.5 - v) < 1e-6


def test_rays_beside_behind_and_along_the_picture_find_nothing():
    plane = PicturePlane(K, POSE, 640, 360, 0.35)
    eye = POSE[:3, 3]
    assert plane.pixel(eye, -POSE[:3, 2]) is None
    assert plane.pixel(eye, POSE[:3, 0]) is None
    assert plane.pixel(eye, plane.point_m(-3, 10) - eye) is None


def test_picture_corners_span_its_size():
    plane = PicturePlane(K, POSE, 640, 360, 0.35)
    corners = plane.corners_m()
    assert np.linalg.norm(corners[1] - corners[0]) == pytest.approx(plane.size_m[0])
    assert np.linalg.norm(corners[2] - corners[1]) == pytest.approx(plane.size_m[1])
    np.testing.assert_allclose(corners.mean(0), se3.transform(POSE, plane.centre_cam_m[None])[0], atol=1e-12)


def test_clouds_hold_the_back_projected_depth(video):
    row = video.frames[1]
    depth = video.images["depth_z"][1]
    cloud = depth_cloud(depth, row["K"], row["T_world_cam"], max_depth_m=2.0, max_points=5000)
    assert 1000 < len(cloud.points_m) <= 5100
    u, v = cloud.pixels.T
    expected = se3.transform(row["T_world_cam"], camera.backproject(row["K"], depth)[v, u])
    np.testing.assert_allclose(cloud.points_m, expected, atol=1e-9)
    assert depth[v, u].max() <= 2.0 and depth[v, u].min() > 0


def test_the_copy_beside_a_cloud_does_not_overlap_it(video):
    row = video.frames[0]
    cloud = depth_cloud(video.images["depth_z"][0], row["K"], row["T_world_cam"], working_depth_m(video), 20_000)
    shift = beside_m(cloud, row["T_world_cam"])
    assert shift[2] == 0
    along = cloud.points_m @ (shift / np.linalg.norm(shift))
    assert np.mean(along + np.linalg.norm(shift) > along.max()) > 0.98


def test_a_ray_picks_the_nearest_of_the_points_it_passes():
    points = np.array([[0, 0, 3.0], [0.001, 0, 1.0], [0.5, 0, 0.5], [0, 0, -1.0]])
    assert nearest_on_ray(points, np.zeros(3), np.array([0, 0, 2.0])) == 1
    assert nearest_on_ray(points, np.zeros(3), np.array([1.0, 1, 0])) is None
    assert nearest_on_ray(np.zeros((0, 3)), np.zeros(3), np.array([0, 0, 1.0])) is None


def test_box_edges_are_the_twelve_of_a_box():
    edges = box_edges((0.2, 0.3, 0.4))
    assert sorted(np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1)) == pytest.approx([0.2] * 4 + [0.3] * 4 + [0.4] * 4)


def test_every_modality_of_a_pixel_is_told_as_stored(video):
    for v, u in ((10, 12), (90, 160), (120, 200)):
        values = {value.name: value for value in pixel_values(video, 2, u, v)}
        assert tuple(values) == NAMES
        for name, value in values.items():
            assert value.stored == tuple(np.atleast_1d(video.images[name][2, v, u]).tolist())


def test_values_carry_units_and_the_names_behind_ids(video):
    images = {name: stack[0] for name, stack in video.images.items()}
    v, u = np.argwhere((images["mask_link"] > 0) & (images["depth_sim"] > 0))[7]
    values = {value.name: value.text for value in pixel_values(video, 0, int(u), int(v))}
    assert values["mask_link"] == f"{images['mask_link'][v, u]} · {video.names.links[images['mask_link'][v, u] - 1]}"
    assert values["depth_z"] == f"{images['depth_z'][v, u]:.4f} m"
    assert [float(x) for x in values["normals"].split()] == pytest.approx(images["normals"][v, u] / 127, abs=6e-4)
    error_mm = 1e3 * (float(images["depth_sim"][v, u]) - float(images["depth_z"][v, u]))
    assert depth_error_text(pixel_values(video, 0, int(u), int(v))) == f"{error_mm:+.1f} mm"
    v, u = np.argwhere(images["mask_object"] == 2)[3]
    values = {value.name: value.text for value in pixel_values(video, 0, int(u), int(v))}
    assert values["mask_object"] == "2 · cylinder_2"
    assert "cylinder_2" in values["amodal_objects"]
    assert [float(x) for x in values["nocs"].split()] == pytest.approx(images["nocs"][v, u] / 65535, abs=1e-4)


def test_a_pixel_outside_the_image_is_refused(video):
    with pytest.raises(IndexError, match=r"pixel \(320, 0\) is outside the image of 320 × 180"):
        pixel_values(video, 0, 320, 0)


def test_names_of_object_ids():
    assert [object_name(k, ("cup",)) for k in (0, 1, 2, 254, 255)] == ["–", "cup", "–", "room", "table"]


def test_linear_grey_becomes_srgb():
    assert srgb((0.0, 0.2140, 1.0)) == (0, 127, 255)


def test_a_taken_port_is_refused_in_one_line(dataset, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["view", str(dataset.path), "--port", str(port)]) == 2
    said = capsys.readouterr()
    assert said.err == f"error: port {port} of 127.0.0.1 is in use; close what runs there or give another --port\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 0, "port 0 does not exist"),
        ("127.0.0.1", 70000, "give one from 1 to 65535"),
        ("203.0.113.7", 18080, "cannot listen at 203.0.113.7:18080: Cannot assign requested address"),
        ("no host", 18080, "unknown host 'no host'"),
    ],
)
def test_addresses_that_cannot_be_had(host, port, message):
    with pytest.raises(ViewError) as refusal:
        check_address(host, port)
    assert message in str(refusal.value)


@pytest.mark.parametrize(("package", "extra", "arguments"), [("viser", "view", []), ("rerun", "rerun", ["--rerun", "x.rrd"])])
def test_a_missing_extra_is_one_line(dataset, capsys, monkeypatch, tmp_path, package, extra, arguments):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(viewer_server.importlib, "import_module", missing)
    assert cli.main(["view", str(dataset.path), *arguments]) == 2
    assert (
        capsys.readouterr().err == f"error: {package} is not installed; install the `{extra}` extra (pip install 'dataengine[{extra}]')\n"
    )
    assert not (tmp_path / "x.rrd").exists()


def test_a_missing_video_and_an_empty_dataset_are_one_line(dataset, capsys, tmp_path):
    assert cli.main(["view", str(dataset.path), "--video", "7"]) == 2
    assert "has no video 7; 1 are committed, 0 to 0" in capsys.readouterr().err.replace("video-00000", "")
    empty = open_or_create(tmp_path / "empty", {}, "0" * 64, "empty")
    for arguments in ([], ["--rerun", str(tmp_path / "x.rrd")]):
        assert cli.main(["view", str(empty.path), *arguments]) == 2
        assert capsys.readouterr().err == f"error: {empty.path} holds no video yet; render some first\n"


def test_a_recording_holds_poses_depth_and_names(dataset, video, tmp_path, capsys):
    import rerun

    target = tmp_path / "new" / "demo.rrd"
    assert cli.main(["view", str(dataset.path), "--rerun", str(target)]) == 0
    assert f"rerun {target}" in capsys.readouterr().out
    recording = rerun.dataframe.load_recording(str(target))
    link = "panda_link4"
    rows = recording.view(index="frame", contents=f"/video_0/robot/{link}").select().read_all().to_pylist()
    assert len(rows) == video.frame_count
    for frame, row in enumerate(rows):
        pose = video.frames[frame]["T_world_cam"] @ video.frames[frame]["T_cam_link"][video.names.links.index(link)]
        np.testing.assert_allclose(row[f"/video_0/robot/{link}:Translation3D"][0], pose[:3, 3], atol=1e-6)
        columns = np.reshape(row[f"/video_0/robot/{link}:TransformMat3x3"][0], (3, 3))
        np.testing.assert_allclose(columns.T, pose[:3, :3], atol=1e-6)
    where = "/video_0/camera/image/depth_sim"
    rows = recording.view(index="frame", contents=where).select().read_all().to_pylist()
    stored = np.frombuffer(bytes(rows[1][f"{where}:ImageBuffer"][0]), np.float32).reshape(video.size)
    np.testing.assert_array_equal(stored, video.images["depth_sim"][1])
    legend = recording.view(index="frame", contents="/video_0/ids").select_static().read_all().to_pylist()[0]["/video_0/ids:Text"][0]
    assert f"| mask_link | 5 | {link} |" in legend and "| mask_object | 255 | table |" in legend


def test_recordings_are_refused_where_they_cannot_go(video, tmp_path):
    with pytest.raises(ViewError, match=r"--rerun writes a \.rrd file, not 'demo\.mp4'"):
        write_recording(tmp_path / "demo.mp4", "demo", [(0, video)])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Exception, match="file"):
        write_recording(tmp_path / "file" / "demo.rrd", "demo", [(0, video)])


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def opened(dataset: Dataset, port: int) -> Iterator[Viewer]:
    viewer = open_viewer(dataset, None, "127.0.0.1", port)
    yield viewer
    viewer.stop()


def test_a_video_of_which_little_is_known_opens_and_tells_its_pixels(video, tmp_path, free_port):
    rows = np.zeros(2, frame_dtype(0, 0, 0, 1))
    for column in rows.dtype.names or ():
        if rows.dtype[column].base.kind == "f":
            rows[column] = np.nan
    images = {"depth_sim": video.images["depth_sim"][:2]}
    bare = Video("real", Names((), (), (), (), (), ("cup",)), images, rows, {}, {}).check()
    dataset = open_or_create(tmp_path / "bare", {}, "0" * 64, "bare")
    dataset.add(0, bare, "train")
    for viewer in opened(dataset, free_port):
        viewer.show_frame(1)
        (value,) = viewer.show_pixel(100, 80)
        assert value.stored == (float(images["depth_sim"][1, 80, 100]),)
        assert "no intrinsics" in viewer.controls.note.content
        assert set(viewer._clouds) == {"Measured depth"}
    assert write_recording(tmp_path / "bare.rrd", "bare", [(0, bare)]).stat().st_size > 10_000


def test_a_robot_that_is_not_installed_shows_as_axes_with_the_reason(dataset, video, tmp_path, free_port):
    scene = video.scene | {"robot": {"name": "robot_of_another_lab"}}
    other = open_or_create(tmp_path / "other", {}, "0" * 64, "other")
    other.add(0, replace(video, scene=scene), "train")
    for viewer in opened(other, free_port):
        assert "links show as axes: unknown robot 'robot_of_another_lab'" in viewer.controls.note.content
        pose = video.frames[0]["T_world_cam"] @ video.frames[0]["T_cam_link"][3]
        np.testing.assert_allclose(viewer.robot[video.names.links[3]].position, pose[:3, 3], atol=1e-9)


def test_a_ray_through_the_scene_picks_the_picture_before_the_clouds(dataset, video, free_port):
    for viewer in opened(dataset, free_port):
        eye, row = video.frames[0]["T_world_cam"][:3, 3], video.frames[0]
        plane = PicturePlane(row["K"], row["T_world_cam"], 320, 180, 0.35)
        v, u = (int(x) for x in np.argwhere(video.images["mask_link"][0] > 0)[200])
        through = plane.point_m(u, v) - eye
        assert viewer.pick(eye, through) == (u, v)
        viewer.controls.layers["Picture"].value = False
        found = viewer.pick(eye, through)
        assert found is not None and np.hypot(found[0] - u, found[1] - v) < 4
        assert viewer.pick(eye, -through) is None
