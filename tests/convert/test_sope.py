"""SOPE: read by `cutoop`, the package of its authors; and a hand-written frame in its published form."""

import dataclasses
import json
import warnings

import cv2
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its docstrings have invalid escapes
    from cutoop.align import estimateSimilarityTransform
    from cutoop.data_loader import Dataset
    from cutoop.obj_meta import ObjectMetaData

from dataengine.convert.disk import ConvertError
from dataengine.convert.sope import export_sope, import_sope
from dataengine.geometry import camera, se3
from tests.convert.worlds import panda_video, without_bystanders

SIZES = (("bottle", (1.2, 0.9, 1.4)), ("mug", (1.1, 1.3, 0.8)))


def consistent(video, source="rendered"):
    """Depth, coordinates and poses that agree: boxes of more than a metre around what the depth shows of each object."""
    rng = np.random.default_rng(5)
    rows, masks = video.frames.copy(), video.images["mask_object"].copy()
    masks[:, :15, :20], masks[:, :15, 40:60] = 1, 2
    depth = (1.9 + 0.2 * rng.random(masks.shape)).astype(np.float32)
    nocs = np.zeros((*masks.shape, 3), np.uint16)
    for f, row in enumerate(rows):
        points = camera.backproject(row["K"], depth[f])
        for k, (_, size) in enumerate(SIZES):
            here = masks[f] == k + 1
            turn = se3.rotation_from_rpy(rng.normal(size=3))
            row["T_cam_object"][k] = se3.make(turn, points[here].mean(0))
            unit = se3.transform(se3.inverse(row["T_cam_object"][k]), points[here]) / size + 0.5
            outside = ((unit < 0) | (unit > 1)).any(1)
            pixels = np.argwhere(here)
            masks[f][tuple(pixels[outside].T)] = 0
            nocs[f][tuple(pixels[~outside].T)] = np.rint(unit[~outside] * 65535)
    objects = [o | {"category": SIZES[k][0], "size_m": list(SIZES[k][1])} for k, o in enumerate(video.scene["objects"][:2])]
    objects.append(video.scene["objects"][2])
    images = video.images | {"mask_object": masks, "nocs": nocs, "depth_z": depth}
    if source == "real":
        images = {n: images[n] for n in ("rgb", "mask_object", "nocs")} | {"depth_sim": depth}
    return dataclasses.replace(video, images=images, frames=rows, scene=video.scene | {"objects": objects}, source=source).check()


@pytest.fixture(scope="module")
def given_video(video):
    return consistent(video)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, given_video):
    folder = tmp_path_factory.mktemp("sope") / "out"
    assert export_sope([given_video, consistent(panda_video(2))], folder) == 2
    return folder


def test_cutoop_loads_every_part(exported, given_video):
    prefixes = Dataset.glob_prefix(str(exported))
    assert len(prefixes) == 6
    for f, prefix in enumerate(prefixes[:3]):
        images, row = {n: a[f] for n, a in given_video.images.items()}, given_video.frames[f]
        assert np.array_equal(Dataset.load_color(prefix + "color.png"), images["rgb"])
        assert np.array_equal(Dataset.load_depth(prefix + "depth.exr"), images["depth_z"])
        assert np.array_equal(Dataset.load_depth(prefix + "depth_syn.exr"), images["depth_sim"])
        assert np.array_equal(Dataset.load_ir(prefix + "ir_l.png"), images["ir_left"])
        mask, ids = Dataset.load_mask(prefix + "mask.exr"), images["mask_object"]
        assert np.array_equal(mask, np.where((ids > 0) & (ids < 4), ids, 255))
        meta = Dataset.load_meta(prefix + "meta.json")
        assert np.array_equal(meta.camera.intrinsics.to_matrix(), row["K"]) and meta.camera.intrinsics.width == 80
        assert np.allclose(meta.camera.to_affine(), row["T_world_cam"], atol=1e-6)
        assert [o.mask_id for o in meta.objects] == [1, 2]
        for o in meta.objects:
            k = o.mask_id - 1
            assert np.allclose(o.pose().to_affine(), row["T_cam_object"][k], atol=1e-6)
            assert o.meta.bbox_side_len == list(SIZES[k][1]) and o.meta.class_name == SIZES[k][0]


def test_coordinates_and_depth_give_the_pose_by_cutoops_own_alignment(exported, given_video):
    prefix = Dataset.glob_prefix(str(exported))[0]
    coord, mask = Dataset.load_coord(prefix + "coord.png"), Dataset.load_mask(prefix + "mask.exr")
    points = camera.backproject(given_video.frames["K"][0], Dataset.load_depth(prefix + "depth.exr"))
    np.random.seed(0)
    for o in Dataset.load_meta(prefix + "meta.json").objects:
        here = mask == o.mask_id
        fitted = estimateSimilarityTransform(coord[here], points[here])
        sRT = fitted[-1]
        pose, scale = o.pose().to_affine(), np.cbrt(np.linalg.det(sRT[:3, :3]))
        assert abs(scale / np.linalg.norm(o.meta.bbox_side_len) - 1) < 0.02
        assert np.abs(sRT[:3, :3] / scale - pose[:3, :3]).max() < 0.02 and np.abs(sRT[:3, 3] - pose[:3, 3]).max() < 0.02


def test_object_list_loads(exported):
    listed = ObjectMetaData.load_json(str(exported / "obj_meta.json"))
    assert [c.name for c in listed.class_list] == ["bottle", "mug", "can"] and [c.label for c in listed.class_list] == [1, 2, 3]
    assert len(listed.instance_dict) == 6 and str(next(iter(listed.instance_dict.values())).tag.symmetry) == "none"


@pytest.mark.parametrize("source", ["rendered", "real"])
def test_round_trip(tmp_path, video, source):
    given_video = consistent(video, source)
    export_sope([given_video], tmp_path / "out")
    (back,) = import_sope(tmp_path / "out")
    assert back.source == source and [o["category"] for o in back.scene["objects"]] == ["bottle", "mug"], "the third is never seen"
    for name in ("rgb", "ir_left", "ir_right", "depth_z", "depth_sim"):
        assert (name in back.images) == (name in given_video.images)
        assert name not in back.images or np.array_equal(back.images[name], given_video.images[name]), name
    masks = given_video.images["mask_object"]
    assert np.array_equal(back.images["mask_object"], np.where(masks < 254, masks, 0))
    for column in ("K", "T_world_cam"):
        assert np.allclose(back.frames[column], given_video.frames[column], rtol=0, atol=1e-12), column
    assert np.allclose(back.frames["T_cam_object"], given_video.frames["T_cam_object"][:, :2], rtol=0, atol=1e-12)
    for k, (_, size) in enumerate(SIZES):
        here = masks == k + 1
        error = np.abs(back.images["nocs"][here].astype(float) - given_video.images["nocs"][here]) / 65535
        assert (error <= 0.5001 / 255 * np.linalg.norm(size) / size + 1e-4).all()


def test_an_unknown_camera_pose_stays_unknown(tmp_path, given_video):
    rows = given_video.frames.copy()
    rows["T_world_cam"] = np.nan
    export_sope([dataclasses.replace(given_video, frames=rows)], tmp_path / "out")
    (back,) = import_sope(tmp_path / "out")
    assert np.isnan(back.frames["T_world_cam"]).all() and np.isfinite(back.frames["T_cam_object"]).all()


def test_a_hand_written_frame(tmp_path):
    """Half-float mask, coordinates over another length than the diagonal, objects under keys `<mask id>_<name>`."""
    folder = tmp_path / "ROPE" / "000002"
    folder.mkdir(parents=True)
    prefix = str(folder / "000000_")
    K, size, length = camera.intrinsics(60, 60, 39.5, 29.5), np.array([0.6, 0.5, 0.8]), 0.8
    T = se3.make(se3.rotation_from_rpy([0.4, -0.3, 2.0]), [0.02, 0.0, 1.5])
    mask, depth = np.ones((60, 80, 3), np.float32), np.full((60, 80, 3), 1.45, np.float32)
    mask[22:38, 32:48] = np.float32(131 / 255)
    points = camera.backproject(K, depth[..., 0] + 0.05 * np.sin(np.arange(80) / 4)[None])
    depth = np.repeat(points[..., 2:], 3, 2).astype(np.float32)
    unit = se3.transform(se3.inverse(T), points.reshape(-1, 3)).reshape(60, 80, 3) / length + 0.5
    unit[..., 2] = 1 - unit[..., 2]
    cv2.imwrite(prefix + "color.png", np.full((60, 80, 3), 9, np.uint8))
    cv2.imwrite(prefix + "mask.exr", mask, [cv2.IMWRITE_EXR_TYPE, cv2.IMWRITE_EXR_TYPE_HALF])
    cv2.imwrite(prefix + "depth.exr", depth)
    cv2.imwrite(prefix + "coord.png", np.rint(255 * unit.clip(0, 1)).astype(np.uint8)[..., ::-1])
    meta = {"oid": "real-box-7", "class_name": "box", "class_label": 3, "instance_path": "", "scale": [1, 1, 1], "is_background": False}
    thing = {"meta": meta | {"bbox_side_len": size.tolist()}, "quaternion_wxyz": se3.quaternion_wxyz(T[:3, :3]).tolist(), "is_valid": True}
    intrinsics = {"fx": 60, "fy": 60, "cx": 39.5, "cy": 29.5, "width": 80, "height": 60}
    content = {
        "objects": {"131_box": thing | {"translation": T[:3, 3].tolist()}},
        "camera": {"intrinsics": intrinsics},
        "scene_dataset": "x",
    }
    (folder / "000000_meta.json").write_text(json.dumps(content))
    (video,) = import_sope(tmp_path)
    assert video.source == "real" and video.names.objects[130] == "real-box-7"
    here = mask[..., 0] < 1
    assert np.array_equal(video.images["mask_object"][0], np.where(here, 131, 0)), "truncating would read 130 from half floats"
    assert np.allclose(video.images["depth_sim"][0], depth[..., 0])
    own = se3.transform(se3.inverse(T), points[here])
    read = (video.images["nocs"][0][here] / 65535 - 0.5) * size
    clipped = (np.abs(own) > size / 2).any(1)
    assert (~clipped).mean() > 0.5 and np.abs(read - own)[~clipped].max() < 0.004 * 3
    del content["objects"]["131_box"]["quaternion_wxyz"]
    (folder / "000000_meta.json").write_text(json.dumps(content))
    with pytest.raises(ConvertError, match="000000_meta.json is not an Omni6DPose meta file"):
        list(import_sope(tmp_path))


def test_bad_input_gets_one_line(tmp_path, video):
    with pytest.raises(ConvertError, match="not a SOPE or ROPE folder"):
        list(import_sope(tmp_path))
    with pytest.raises(ConvertError, match="needs the modality 'mask_object'"):
        export_sope([without_bystanders(video, "rgb", "depth_z", "nocs")], tmp_path / "a")
    with pytest.raises(ConvertError, match="an object's size is unknown"):
        export_sope([dataclasses.replace(video, scene={})], tmp_path / "b")
