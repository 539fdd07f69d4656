"""NDDS/DREAM: the numbers of a public sample, hand-written folders, a reader of our own after RoboPose's description."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dataengine.convert.disk import ConvertError
from dataengine.convert.ndds import BASE_AXES, FALLBACK_NOTE, UNREAL_AXES, export_ndds, import_ndds
from dataengine.geometry import se3
from tests.convert.worlds import panda_video, without_bystanders


@pytest.fixture(scope="module")
def exported(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("ndds") / "out"
    assert export_ndds([video, panda_video(2)], folder) == 2
    return folder


def test_axes_agree_with_a_label_of_the_ndds_exporter():
    """Quaternion and pose_transform of one object in a published NDDS label file."""
    R = Rotation.from_quat([0, 0.70709997415542603, -0.70709997415542603, 0]).as_matrix()
    assert np.allclose((R @ UNREAL_AXES).T, [[0, -1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-12)
    # Unreal's frame is URDF's mirrored in y
    assert np.array_equal(UNREAL_AXES @ np.diag([1, -1, 1]), BASE_AXES)


def test_synthetic_labels_are_centimetres_in_ndds_axes(exported, video):
    assert sum(p.name.endswith(".rgb.png") for p in exported.iterdir()) == 6
    label, row = json.loads((exported / "000001.json").read_text()), video.frames[1]
    (robot,) = label["objects"]
    assert robot["class"] == "panda"
    assert np.allclose(robot["location"], 100 * row["T_cam_base"][:3, 3])
    R = Rotation.from_quat(robot["quaternion_xyzw"]).as_matrix() @ [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    assert np.allclose(R, row["T_cam_base"][:3, :3])
    assert np.allclose(np.array(robot["pose_transform"])[3], [*robot["location"], 1])
    by_name = {k["name"]: k for k in robot["keypoints"]}
    for name in ("panda_link0", "panda_link2", "panda_link3", "panda_link4", "panda_link6", "panda_link7", "panda_hand"):
        link = video.names.links.index(name)
        assert np.allclose(by_name[name]["location"], 100 * row["T_cam_link"][link, :3, 3])
    assert [j["name"] for j in label["sim_state"]["joints"]] == list(video.names.joints)
    settings = json.loads((exported / "_camera_settings.json").read_text())["camera_settings"][0]
    assert settings["intrinsic_settings"]["fx"] == row["K"][0, 0] and settings["captured_image_size"] == {"width": 80, "height": 45}
    assert np.isclose(settings["intrinsic_settings"]["hfov"], np.degrees(2 * np.arctan(40 / row["K"][0, 0])))


@pytest.mark.parametrize("source", ["rendered", "real"])
def test_round_trip(tmp_path, video, source):
    given = dataclasses.replace(video, source=source)
    export_ndds([given], tmp_path / "out")
    (back,) = import_ndds(tmp_path / "out")
    assert back.source == source and back.names.keypoints == given.names.keypoints and back.names.joints == given.names.joints
    assert np.array_equal(back.images["rgb"], given.images["rgb"])
    name = "depth_z" if source == "rendered" else "depth_sim"
    depth, read = given.images[name], back.images[name]
    assert np.abs(read - depth).max() <= 0.5001e-3 and np.array_equal(read > 0, depth > 0)
    assert np.array_equal(back.frames["K"], given.frames["K"]) and np.array_equal(
        back.frames["joint_position"], given.frames["joint_position"]
    )
    for column in ("T_cam_base", "keypoints_cam_m", "keypoints_px"):
        assert np.allclose(back.frames[column], given.frames[column], rtol=0, atol=1e-12, equal_nan=True), column
    offsets = [given.names.keypoint_offsets_m[given.names.keypoints.index(n)] for n in back.names.keypoints]
    assert np.allclose(back.names.keypoint_offsets_m, offsets)
    assert np.array_equal(back.frames["keypoint_state"] > 0, given.frames["keypoint_state"] > 0)
    export_ndds([back], tmp_path / "again")
    label, again = (json.loads((tmp_path / f / "000000.json").read_text()) for f in ("out", "again"))
    assert np.allclose(label["objects"][0]["pose_transform"], again["objects"][0]["pose_transform"], atol=1e-9)


def test_points_behind_the_camera(tmp_path, video):
    rows = video.frames.copy()
    rows["keypoints_cam_m"][:, 3, 2] *= -1
    rows["keypoints_px"][:, 3] = np.nan
    export_ndds([dataclasses.replace(video, frames=rows)], tmp_path / "out")
    (back,) = import_ndds(tmp_path / "out")
    assert np.isnan(back.frames["keypoints_px"][:, 3]).all() and not back.frames["keypoint_state"][:, 3].any()


def write_dream(folder, scale, prefix="", with_settings=True, images=(".rgb.jpg",)):
    folder.mkdir()
    where = {i: {"location": [0.1 * i * scale, 0, 1.2 * scale], "projected_location": [320 + 50.0 * i, 240]} for i in (0, 2)}
    keypoints = [{"name": f"panda_link{i}"} | place for i, place in where.items()]
    robot = {"class": "panda", "visibility": 1, "location": [0, 0, 1.2 * scale], "quaternion_xyzw": [0, 0, 0, 1], "keypoints": keypoints}
    joints = [{"name": f"{prefix}panda_joint{i}", "position": 0.1 * i} for i in range(1, 10)]
    for f in range(4):
        (folder / f"{f:06d}.json").write_text(json.dumps({"objects": [robot], "sim_state": {"joints": joints}}, indent="\t"))
        for suffix in images:
            cv2.imwrite(str(folder / f"{f:06d}{suffix}"), np.full((480, 640, 3), 90, np.uint8))
    if with_settings:
        intrinsic = {"fx": 615.5, "fy": 615.25, "cx": 328.25, "cy": 251.75, "s": 0}
        size = {"width": 640, "height": 480}
        settings = {"camera_settings": [{"intrinsic_settings": intrinsic, "captured_image_size": size}]}
        (folder / "_camera_settings.json").write_text(json.dumps(settings))


def test_dream_folders_synthetic_and_real(tmp_path):
    write_dream(tmp_path / "panda_synth_train_dr", 100.0)
    write_dream(tmp_path / "panda-3cam_realsense", 1.0, prefix="/")
    real, synthetic = import_ndds(tmp_path)
    assert (synthetic.source, real.source) == ("rendered", "real")
    for video in (synthetic, real):
        assert video.names.joints == tuple(f"panda_joint{i}" for i in range(1, 10)) and video.frame_count == 4
        assert np.allclose(video.frames["keypoints_cam_m"][:, 1], [0.2, 0, 1.2])
        assert np.array_equal(video.frames["K"][0], [[615.5, 0, 328.25], [0, 615.25, 251.75], [0, 0, 1]])
    assert np.allclose(synthetic.frames["T_cam_base"], se3.make([[0, -1, 0], [0, 0, -1], [1, 0, 0]], [0, 0, 1.2]))
    assert np.allclose(real.frames["T_cam_base"], se3.make(np.eye(3), [0, 0, 1.2]))
    assert [v.frame_count for v in import_ndds(tmp_path, frames_per_video=3)] == [3, 1, 3, 1]


def test_missing_settings_fall_back_and_say_so(tmp_path):
    write_dream(tmp_path / "set", 1.0, with_settings=False, images=(".png",))
    (video,) = import_ndds(tmp_path / "set")
    assert FALLBACK_NOTE in video.notes["import"] and np.array_equal(video.frames["K"][0], [[320, 0, 320], [0, 320, 240], [0, 0, 1]])


def test_bad_input_gets_one_line(tmp_path, video):
    with pytest.raises(ConvertError, match="not an NDDS or DREAM folder"):
        list(import_ndds(tmp_path))
    zoomed = dataclasses.replace(video, frames=video.frames.copy())
    zoomed.frames["K"][:, 0, 0] *= 2
    with pytest.raises(ConvertError, match="holds one camera"):
        export_ndds([video, zoomed], tmp_path / "a")
    with pytest.raises(ConvertError, match="rendered and real videos apart"):
        export_ndds([video, dataclasses.replace(video, source="real")], tmp_path / "b")
    with pytest.raises(ConvertError, match="needs the modality 'rgb'"):
        export_ndds([without_bystanders(video, "depth_z")], tmp_path / "c")
    write_dream(tmp_path / "d", 1.0)
    (tmp_path / "d" / "000002.json").write_text('{"objects": [{"class": "panda", "keypoints": [{"name": "panda_link0"}]}]}')
    with pytest.raises(ConvertError, match="differ in their labels"):
        list(import_ndds(tmp_path / "d"))
    (tmp_path / "d" / "000002.json").write_text("{")
    with pytest.raises(ConvertError, match="000002.json cannot be read as JSON"):
        list(import_ndds(tmp_path / "d"))
