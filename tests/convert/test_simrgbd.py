"""The SimRGBD-Franka layout, read by OpenCV as its users do, and hand-written folders as they are in circulation."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from dataengine.convert.disk import ConvertError
from dataengine.convert.simrgbd import FALLBACK_NOTE, LINKS, PARTS, PUBLISHED_K, export_simrgbd
from dataengine.convert.simrgbd_import import import_simrgbd
from dataengine.geometry import camera
from tests.convert.worlds import panda_video, without_bystanders

SUFFIXES = {"color.png", "ir_l.png", "ir_r.png", "depth_60.exr", "simDepthImage.exr", "mask.exr", "meta.json"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("simrgbd") / "out"
    assert export_simrgbd([video, panda_video(2)], folder) == 2
    return folder


def part_ids(video):
    """mask_link with ids in the order of the layout's parts, made without the code under test."""
    ids = {0: 0, **{video.names.links.index(link) + 1: part + 1 for part, link in enumerate(PARTS.values())}}
    return np.vectorize(ids.get)(video.images["mask_link"]).astype(np.uint8)


def test_files_are_named_as_released(exported):
    assert {p.name for p in exported.iterdir()} == {"00000", "00001", "_camera_settings.json"}
    assert {p.name for p in (exported / "00000").iterdir()} == {f"{f:04d}_{s}" for f in range(3) for s in SUFFIXES}


def test_opencv_reads_what_the_published_loaders_expect(exported, video):
    prefix = str(exported / "00000" / "0001_")
    mask = cv2.imread(prefix + "mask.exr", cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.float32
    expected = part_ids(video)[1]
    assert np.array_equal(mask[..., 2], np.where(expected > 0, expected / np.float32(255), 1).astype(np.float32))
    # truncating readers get the ids too
    assert np.array_equal((mask[..., 2] * 255).astype(np.uint8), np.where(expected > 0, expected, 255))
    assert np.float32(11 / 255) in mask[..., 2] and f"{np.float32(11 / 255):.10f}" == "0.0431372561"
    depth = cv2.imread(prefix + "depth_60.exr", cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.float32 and np.array_equal(depth[..., 0], video.images["depth_z"][1])
    measured = cv2.imread(prefix + "simDepthImage.exr", cv2.IMREAD_UNCHANGED)
    assert np.ptp(measured, axis=2).max() == 0
    truth = video.images["depth_sim"][1]
    assert np.array_equal(measured[..., 0] == np.float32(-0.001), truth == 0)
    assert np.array_equal(measured[truth > 0][:, 1], truth[truth > 0])
    assert np.array_equal(cv2.imread(prefix + "color.png")[..., ::-1], video.images["rgb"][1])


def test_meta_has_the_odd_keys_and_projects_back(exported, video):
    meta = json.loads((exported / "00000" / "0002_meta.json").read_text())
    assert isinstance(meta, list) and len(meta) == 1
    meta, row = meta[0], video.frames[2]
    assert list(meta) == ["SCENE_NUM", "FRAME NUM", "ROBOT NAME", "keypoints", "joints", "joints_3n_fixed_42"]
    assert meta["FRAME NUM"] == 2 and meta["ROBOT NAME"] == "Franka_Emika_Panda"
    links = [f"Link{i}" for i in range(8)]
    assert [k["Name"] for k in meta["keypoints"]] == [*links, "panda_hand", "panda_finger_joint1", "panda_finger_joint2"]
    assert [k["Part ID"] for k in meta["keypoints"]] == [str(i) for i in range(1, 12)]
    assert [j["Name"] for j in meta["joints"]] == [*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1"]
    points = np.array([j["location_wrt_cam"] for j in meta["joints_3n_fixed_42"]])
    assert points.size == 42
    R, t = np.array(meta["keypoints"][0]["R2C_mat"]), np.array(meta["keypoints"][0]["location_wrt_cam"])
    # base-frame offsets of the first three of the 14 points, from the authors' table
    assert np.allclose(points[:3], t + np.array([[0, 0, 0], [0, 0, 0.14], [-0.11, 0, 0]]) @ R.T, atol=1e-12)
    for k in meta["keypoints"]:
        u = row["K"] @ np.array(k["location_wrt_cam"])
        assert np.allclose(k["projected_location"], u[:2] / u[2], atol=1e-9)
    hand = video.names.links.index("panda_hand")
    assert np.array_equal(meta["keypoints"][8]["R2C_mat"], row["T_cam_link"][hand, :3, :3])


def test_round_trip_is_exact(exported, video):
    first, second = import_simrgbd(exported)
    assert first.source == "rendered" and first.names.joints == video.names.joints and first.notes["import"] == []
    for name in ("rgb", "ir_left", "ir_right", "depth_z", "depth_sim"):
        assert np.array_equal(first.images[name], video.images[name]), name
    assert np.array_equal(first.images["mask_link"], part_ids(video))
    for column in ("K", "T_cam_base", "joint_position"):
        assert np.array_equal(first.frames[column], video.frames[column]), column
    of = [video.names.links.index(link) for link in LINKS]
    assert np.array_equal(first.frames["T_cam_link"], video.frames["T_cam_link"][:, of])
    ours = [first.names.keypoints.index(name) for name in video.names.keypoints]
    assert np.array_equal(first.frames["keypoints_cam_m"][:, ours], video.frames["keypoints_cam_m"])
    assert np.isnan(first.frames["T_world_cam"]).all() and np.isnan(first.frames["joint_velocity"]).all()
    assert not np.array_equal(second.images["rgb"], first.images["rgb"])


def test_export_of_an_import_gives_the_same_bytes(exported, tmp_path):
    export_simrgbd(import_simrgbd(exported), tmp_path / "again")
    for path in exported.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(exported)).read_bytes() == path.read_bytes(), path.name


def test_real_layout_has_millimetres_and_inverted_masks(tmp_path, video):
    real = dataclasses.replace(without_bystanders(video, "rgb", "depth_sim", "mask_link"), source="real")
    export_simrgbd([real], tmp_path / "real")
    folder = tmp_path / "real" / "1_sequence"
    assert {p.name for p in folder.iterdir()} >= {"000000.png", "000000.npy", "000000.json", "000000_mask.exr", "_camera_settings.json"}
    assert np.allclose(np.load(folder / "000000.npy"), real.images["depth_sim"][0] * 1000, rtol=1e-6)
    mask = cv2.imread(str(folder / "000000_mask.exr"), cv2.IMREAD_UNCHANGED)[..., 2]
    assert np.array_equal(mask > 0, real.images["mask_link"][0] > 0)
    meta = json.loads((folder / "000000.json").read_text())[0]
    assert len(meta["joints"]) == 7 and len(meta["keypoints"]) == 9
    assert "R2C_mat" in meta["keypoints"][0] and "R2C_mat" not in meta["keypoints"][1]
    (back,) = import_simrgbd(tmp_path / "real")
    assert back.source == "real" and len(back.names.joints) == 7
    assert np.array_equal(back.images["depth_sim"], real.images["depth_sim"]) and np.array_equal(back.images["mask_link"], part_ids(real))
    assert np.array_equal(back.frames["T_cam_base"], real.frames["T_cam_base"])
    export_simrgbd([back], tmp_path / "again")
    for path in folder.iterdir():
        assert (tmp_path / "again" / "1_sequence" / path.name).read_bytes() == path.read_bytes(), path.name


# ---- hand-written folders --------------------------------------------------------------------------------------------


def write_scene(
    root, keypoints=11, rotation_key="R2C_mat", hand="panda_hand", size=(90, 160), frames=(0, 1, 2, 3, 4, 5), half=False, split=False
):
    """A folder in the released layout from the description alone."""
    names = [*(f"Link{i}" for i in range(8)), hand, "panda_finger_joint1", "panda_finger_joint2"][:keypoints]
    mask = np.ones((*size, 3), np.float32)
    for part in range(1, 12):
        mask[5:20, 10 * part : 10 * part + 8, 2] = np.float32(part) / np.float32(255)
    exr_type = [cv2.IMWRITE_EXR_TYPE, cv2.IMWRITE_EXR_TYPE_HALF if half else cv2.IMWRITE_EXR_TYPE_FLOAT]
    for f in frames:

        def place(kind, name, f=f):
            folder = root / kind / "00007" if split else root / "00007"
            folder.mkdir(parents=True, exist_ok=True)
            return str(folder / f"{f:04d}_{name}")

        cv2.imwrite(place("color", "color.png"), np.full((*size, 3), f, np.uint8))
        cv2.imwrite(place("mask", "mask.exr"), mask, exr_type)
        cv2.imwrite(place("depth_60", "depth_60.exr"), np.full((*size, 3), 1.25, np.float32))
        cv2.imwrite(place("simDepthImage", "simDepthImage.exr"), np.full((*size, 3), -0.001, np.float32))
        turn = [[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]
        entries = [
            {"Name": n, "Part ID": str(i + 1), "scale": [1, 1, 1], "location_wrt_cam": [0.01 * i, 0.02, 1.5], rotation_key: turn}
            for i, n in enumerate(names)
        ]
        joints = [{"Name": f"panda_joint{j}", "position": 0.1 * j} for j in range(1, 8)]
        points = [{"Name": f"panda_joint_3n_{k}", "location_wrt_cam": [0.1, 0.01 * k, 1.0]} for k in range(1, 15)]
        meta = [{"SCENE_NUM": 7, "FRAME NUM": f, "keypoints": entries, "joints": joints, "joints_3n_fixed_42": points}]
        with open(place("meta", "meta.json"), "w") as file:
            json.dump(meta, file)
    (root / "_camera_settings.json").write_text("")
    return mask


@pytest.mark.parametrize(
    "variant", [{}, {"half": True}, {"rotation_key": "R2C Mat", "hand": "Panda_hand", "keypoints": 9}, {"split": True}]
)
def test_folders_in_circulation(tmp_path, variant):
    mask = write_scene(tmp_path, **variant)
    first, second = import_simrgbd(tmp_path)
    assert (first.frame_count, second.frame_count) == (3, 3), "a new video at every third frame"
    assert first.images["rgb"][2, 0, 0, 0] == 2 and second.images["rgb"][0, 0, 0, 0] == 3
    expected = np.rint(mask[..., 2] * 255) % 255
    assert np.array_equal(first.images["mask_link"][0], expected) and expected.max() == 11
    assert (first.images["depth_z"] == 1.25).all() and (first.images["depth_sim"] == 0).all()
    assert first.notes["import"] == [FALLBACK_NOTE]
    assert np.allclose(first.frames["K"], camera.resize_intrinsics(PUBLISHED_K, 0.25, 0.25))
    assert np.allclose(first.frames["T_cam_base"][:, :3, :3], [[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    assert np.isnan(first.frames["T_cam_link"][:, 1, :3, :3]).all(), "one rotation repeated for every link is the base's"
    hand = first.names.keypoints.index("panda_hand")
    assert np.allclose(first.frames["keypoints_cam_m"][:, hand], [0.08, 0.02, 1.5])
    assert first.frames["joint_position"].shape == (3, 7)


def test_colour_at_twice_the_size_is_averaged_down(tmp_path):
    write_scene(tmp_path, frames=(0,))
    big = np.zeros((180, 320, 3), np.uint8)
    big[::2, ::2], big[1::2, 1::2] = 200, 100
    cv2.imwrite(str(tmp_path / "00007" / "0000_color.png"), big)
    (video,) = import_simrgbd(tmp_path)
    assert video.images["rgb"].shape == (1, 90, 160, 3) and (video.images["rgb"] == 75).all()
    assert any("averaged down" in note for note in video.notes["import"])


def test_camera_settings_win_over_the_fallback(tmp_path):
    write_scene(tmp_path, frames=(0,))
    intrinsic = {"fx": 400.0, "fy": 401.0, "cx": 319.75, "cy": 179.75, "s": 0, "resolution": {"width": 640, "height": 360}}
    (tmp_path / "_camera_settings.json").write_text(json.dumps({"camera_settings": [{"intrinsic_settings": intrinsic}]}))
    (video,) = import_simrgbd(tmp_path)
    assert np.allclose(video.frames["K"][0], [[100, 0, (320.25) / 4 - 0.5], [0, 100.25, 180.25 / 4 - 0.5], [0, 0, 1]])


def test_bad_folders_and_videos_get_one_line(tmp_path, video):
    with pytest.raises(ConvertError, match="not the SimRGBD-Franka layout"):
        list(import_simrgbd(tmp_path))
    with pytest.raises(ConvertError, match="is not a folder"):
        list(import_simrgbd(tmp_path / "nowhere"))
    write_scene(tmp_path / "a", frames=(0,))
    (tmp_path / "a" / "00007" / "0000_mask.exr").write_bytes(b"torn")
    with pytest.raises(ConvertError, match="0000_mask.exr is not an OpenEXR"):
        list(import_simrgbd(tmp_path / "a"))
    write_scene(tmp_path / "b", frames=(0,), size=(96, 96))
    with pytest.raises(ConvertError, match="not 16:9"):
        list(import_simrgbd(tmp_path / "b"))
    (tmp_path / "b" / "00007" / "0000_meta.json").write_text('[{"keypoints": []}]')
    with pytest.raises(ConvertError, match="no SimRGBD meta file"):
        list(import_simrgbd(tmp_path / "b"))
    with pytest.raises(ConvertError, match="not an empty folder"):
        export_simrgbd([video], tmp_path)
    with pytest.raises(ConvertError, match="needs the modality 'depth_z'"):
        export_simrgbd([without_bystanders(video, "rgb", "mask_link")], tmp_path / "c")
    other = dataclasses.replace(video, names=dataclasses.replace(video.names, links=tuple(f"x{i}" for i in range(13))))
    with pytest.raises(ConvertError, match="no link panda_link0"):
        export_simrgbd([other], tmp_path / "d")
