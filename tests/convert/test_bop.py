"""BOP: the format's document as a schema, masks against pycocotools, models against trimesh, hand-written scenes."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import trimesh
from pycocotools import mask as coco_mask

from dataengine.convert.bop import export_bop, import_bop
from dataengine.convert.disk import ConvertError
from tests.convert.worlds import THINGS, panda_video, without_bystanders

NUMBER = (int, float)
CAMERA = {"cam_K": 9, "depth_scale": None, "cam_R_w2c": 9, "cam_t_w2c": 3}
GT = {"obj_id": None, "cam_R_m2c": 9, "cam_t_m2c": 3}
INFO = {"bbox_obj": 4, "bbox_visib": 4, "px_count_all": None, "px_count_valid": None, "px_count_visib": None, "visib_fract": None}


def conforms(entry, schema):
    """All keys of the format's document, numbers or flat lists of so many numbers."""
    assert entry.keys() == schema.keys()
    for key, length in schema.items():
        values = [entry[key]] if length is None else entry[key]
        assert len(values) == (length or 1) and all(isinstance(v, NUMBER) and np.isfinite(v) for v in values), key


@pytest.fixture(scope="module")
def exported(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("bop") / "out"
    assert export_bop([video, panda_video(2)], folder) == 2
    return folder


def scene_files(exported):
    scene = exported / "train_pbr" / "000000"
    return scene, *(json.loads((scene / f"scene_{n}.json").read_text()) for n in ("camera", "gt", "gt_info"))


def test_schema(exported):
    scene, cameras, gts, infos = scene_files(exported)
    assert list(cameras) == list(gts) == list(infos) == ["0", "1", "2"]
    for image in cameras:
        conforms(cameras[image], CAMERA)
        assert len(gts[image]) == len(infos[image]) == len(THINGS)
        for gt, info in zip(gts[image], infos[image], strict=True):
            conforms(gt, GT)
            conforms(info, INFO)
            assert isinstance(gt["obj_id"], int) and all(isinstance(info[k], int) for k in INFO if k.startswith("px"))
            R = np.reshape(gt["cam_R_m2c"], (3, 3))
            assert np.allclose(R @ R.T, np.eye(3)) and np.linalg.det(R) > 0
    assert {p.name for p in (scene / "mask").iterdir()} == {f"{f:06d}_{g:06d}.png" for f in range(3) for g in range(3)}
    assert (
        {p.name for p in (scene / "rgb").iterdir()} == {p.name for p in (scene / "depth").iterdir()} == {f"{f:06d}.png" for f in range(3)}
    )
    assert set(json.loads((exported / "camera.json").read_text())) == {"cx", "cy", "depth_scale", "fx", "fy", "height", "width"}


def test_masks_and_boxes_by_pycocotools(exported, video):
    scene, _, _, infos = scene_files(exported)
    for f in range(3):
        depth = cv2.imread(str(scene / "depth" / f"{f:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        for g, info in enumerate(infos[str(f)]):
            masks = {k: cv2.imread(str(scene / k / f"{f:06d}_{g:06d}.png"), cv2.IMREAD_UNCHANGED) for k in ("mask", "mask_visib")}
            assert set(np.unique(masks["mask"])) <= {0, 255}
            rle = {k: coco_mask.encode(np.asfortranarray((m > 0).astype(np.uint8))) for k, m in masks.items()}
            assert coco_mask.area(rle["mask"]) == info["px_count_all"] and coco_mask.area(rle["mask_visib"]) == info["px_count_visib"]
            for box, kind in (("bbox_obj", "mask"), ("bbox_visib", "mask_visib")):
                expected = coco_mask.toBbox(rle[kind]).tolist() if masks[kind].any() else [-1] * 4
                assert info[box] == expected
            if masks["mask"].any():  # the visible part lies within the silhouette
                assert coco_mask.area(coco_mask.merge(list(rle.values()), intersect=True)) == info["px_count_visib"]
                assert info["visib_fract"] == info["px_count_visib"] / info["px_count_all"]
            assert info["px_count_valid"] == int(((masks["mask"] > 0) & (depth > 0)).sum())
            assert np.array_equal(masks["mask_visib"] > 0, video.images["mask_object"][f] == g + 1)
    assert infos["0"][2] == {
        "bbox_obj": [-1] * 4,
        "bbox_visib": [-1] * 4,
        "px_count_all": 0,
        "px_count_valid": 0,
        "px_count_visib": 0,
        "visib_fract": 0.0,
    }


def test_poses_and_models_are_millimetres(exported, video):
    _, cameras, gts, _ = scene_files(exported)
    row = video.frames[1]
    p_model = np.array([10.0, -20.0, 30.0])
    for g, gt in enumerate(gts["1"]):
        p_cam = np.reshape(gt["cam_R_m2c"], (3, 3)) @ p_model + gt["cam_t_m2c"]
        assert np.allclose(p_cam / 1000, row["T_cam_object"][g, :3, :3] @ p_model / 1000 + row["T_cam_object"][g, :3, 3])
    camera = cameras["1"]
    p_world = row["T_world_cam"][:3, :3] @ p_model + 1000 * row["T_world_cam"][:3, 3]
    assert np.allclose(np.reshape(camera["cam_R_w2c"], (3, 3)) @ p_world + camera["cam_t_w2c"], p_model)
    info = json.loads((exported / "models" / "models_info.json").read_text())
    assert len(info) == len(THINGS), "the second video shows the same models"
    for number, (_, category, size) in enumerate(THINGS, 1):
        mesh = trimesh.load(exported / "models" / f"obj_{number:06d}.ply", process=False)
        entry = info[str(number)]
        assert entry["name"] == category
        assert np.allclose([entry[f"size_{a}"] for a in "xyz"], 1000 * np.array(size), atol=0.5)
        assert np.allclose(mesh.extents, [entry[f"size_{a}"] for a in "xyz"], atol=1e-3)
        assert np.allclose(mesh.bounds[0], [entry[f"min_{a}"] for a in "xyz"], atol=1e-3)
        gaps = np.linalg.norm(mesh.vertices[:, None] - mesh.vertices[None, :: max(1, len(mesh.vertices) // 300)], axis=-1)
        assert gaps.max() <= entry["diameter"] + 1e-3 and entry["diameter"] <= np.linalg.norm(mesh.extents) + 1e-3
        stated = mesh.vertex_normals.copy()
        again = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        assert np.einsum("ij,ij->i", stated, again.vertex_normals).min() > 0.999, "angle-weighted, as trimesh's"


def test_round_trip(exported, video):
    back = next(import_bop(exported))
    assert back.source == "rendered" and [n.split(".")[0] for n in back.names.objects] == ["crate", "mug", "can"]
    assert np.array_equal(back.images["rgb"], video.images["rgb"])
    things = np.where(video.images["mask_object"] < 254, video.images["mask_object"], 0)
    assert np.array_equal(back.images["mask_object"], things) and np.array_equal(
        back.images["amodal_objects"], video.images["amodal_objects"]
    )
    assert np.abs(back.images["depth_z"] - video.images["depth_z"]).max() <= 0.0501e-3
    assert np.array_equal(back.frames["K"], video.frames["K"])
    assert np.allclose(back.frames["T_cam_object"], video.frames["T_cam_object"], rtol=0, atol=1e-15)
    assert np.allclose(back.frames["T_world_cam"], video.frames["T_world_cam"], rtol=0, atol=1e-14)


def test_export_of_an_import_gives_the_same_scene(exported, tmp_path):
    export_bop(import_bop(exported), tmp_path / "again")
    for kind in ("rgb", "depth", "mask", "mask_visib"):
        for path in (exported / "train_pbr" / "000001" / kind).iterdir():
            assert (tmp_path / "again" / "train_pbr" / "000001" / kind / path.name).read_bytes() == path.read_bytes()


def test_deep_scenes_get_a_coarser_scale(tmp_path, video):
    images = video.images | {"depth_z": (video.images["depth_z"] * 4).astype(np.float32)}
    export_bop([dataclasses.replace(video, images=images)], tmp_path / "out")
    (back,) = import_bop(tmp_path / "out")
    scale_mm = json.loads((tmp_path / "out" / "camera.json").read_text())["depth_scale"]
    assert images["depth_z"].max() > 14 and scale_mm == 0.3
    assert np.abs(back.images["depth_z"] - images["depth_z"]).max() <= 0.151e-3


def test_a_hand_written_real_scene(tmp_path):
    """As T-LESS or YCB-V: image ids with gaps, depth scale 0.5, two instances of one model, no masks of one."""
    scene = tmp_path / "test" / "000048"
    for kind in ("rgb", "depth", "mask_visib"):
        (scene / kind).mkdir(parents=True)
    cameras, gts = {}, {}
    for image in (1, 36):
        cv2.imwrite(str(scene / "rgb" / f"{image:06d}.png"), np.full((24, 32, 3), (1, 2, 3), np.uint8))
        cv2.imwrite(str(scene / "depth" / f"{image:06d}.png"), np.full((24, 32), 3000, np.uint16))
        cameras[str(image)] = {"cam_K": [50.0, 0, 15.5, 0, 51.0, 11.5, 0, 0, 1], "depth_scale": 0.5}
        gts[str(image)] = [{"obj_id": n, "cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [0, 0, 900.0 + image]} for n in (5, 5, 2)]
        mask = np.zeros((24, 32), np.uint8)
        mask[2:5, 3:7] = 255
        cv2.imwrite(str(scene / "mask_visib" / f"{image:06d}_000001.png"), mask)
    (scene / "scene_camera.json").write_text(json.dumps(cameras))
    (scene / "scene_gt.json").write_text(json.dumps(gts))
    (video,) = import_bop(tmp_path)
    assert video.source == "real" and video.scene["images"] == [1, 36] and video.scene["origin"] == "test/000048"
    assert video.names.objects == ("obj_000005.0", "obj_000005.1", "obj_000002.0")
    assert (video.images["depth_sim"] == 1.5).all() and (video.images["rgb"][0, 0, 0] == (3, 2, 1)).all()
    assert np.array_equal(np.unique(video.images["mask_object"][0], return_counts=True), [[0, 2], [24 * 32 - 12, 12]])
    assert np.allclose(video.frames["T_cam_object"][1, :, 2, 3], 0.936) and np.isnan(video.frames["T_world_cam"]).all()
    del gts["36"][0]["cam_t_m2c"]
    (scene / "scene_gt.json").write_text(json.dumps(gts))
    with pytest.raises(ConvertError, match="KeyError 'cam_t_m2c'"):
        list(import_bop(tmp_path))


def test_bad_input_gets_one_line(tmp_path, video):
    with pytest.raises(ConvertError, match="not a BOP dataset"):
        list(import_bop(tmp_path))
    with pytest.raises(ConvertError, match="needs the modality 'amodal_objects'"):
        export_bop([without_bystanders(video, "rgb", "depth_z", "mask_object")], tmp_path / "a")
    rows = video.frames.copy()
    rows["T_cam_object"] = np.nan
    with pytest.raises(ConvertError, match="an object's pose is unknown"):
        export_bop([dataclasses.replace(video, frames=rows)], tmp_path / "b")
