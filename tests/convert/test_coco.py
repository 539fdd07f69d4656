"""COCO files opened with pycocotools' own COCO class, and a person-keypoints file in COCO's published form."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataengine.convert.coco import export_coco, import_coco
from dataengine.convert.disk import ConvertError
from tests.convert.worlds import panda_video, without_bystanders


@pytest.fixture(scope="module")
def exported(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("coco") / "out"
    assert export_coco([video, panda_video(2)], folder) == 2
    return folder


def test_pycocotools_reads_masks_and_keypoints(exported, video, capsys):
    coco = COCO(str(exported / "annotations.json"))
    assert len(coco.imgs) == 6
    (robot,) = [c for c in coco.loadCats(coco.getCatIds()) if c["supercategory"] == "robot"]
    assert robot["name"] == "panda" and robot["keypoints"] == list(video.names.keypoints)
    for f in range(3):
        image = coco.imgs[f + 1]
        assert np.array_equal(cv2.imread(str(exported / "images" / image["file_name"]))[..., ::-1], video.images["rgb"][f])
        (a,) = coco.loadAnns(coco.getAnnIds([f + 1], [robot["id"]]))
        assert np.array_equal(coco.annToMask(a) > 0, video.images["mask_link"][f] > 0)
        assert a["area"] == (video.images["mask_link"][f] > 0).sum()
        points = np.array(a["keypoints"]).reshape(-1, 3)
        assert np.array_equal(points[:, 2], video.frames["keypoint_state"][f]) and a["num_keypoints"] == (points[:, 2] > 0).sum()
        seen = points[:, 2] > 0
        assert np.array_equal(points[seen, :2], video.frames["keypoints_px"][f][seen]) and not points[~seen].any()
        for a in coco.loadAnns([i for i in coco.getAnnIds([f + 1]) if coco.anns[i]["category_id"] != robot["id"]]):
            assert np.array_equal(coco.annToMask(a) > 0, video.images["mask_object"][f] == a["instance_id"])
    capsys.readouterr()


def test_the_official_evaluation_accepts_the_file(exported, capsys):
    """Perfect predictions score 1 for keypoints and for masks."""
    truth = COCO(str(exported / "annotations.json"))
    robot = next(c for c in truth.cats.values() if c["supercategory"] == "robot")
    for kind in ("segm", "keypoints"):
        keep = [a for a in truth.anns.values() if kind == "segm" or a["category_id"] == robot["id"]]
        results = [{k: a[k] for k in ("image_id", "category_id", "segmentation", "keypoints") if k in a} | {"score": 0.9} for a in keep]
        if kind == "segm":
            results = [{k: v for k, v in r.items() if k != "keypoints"} for r in results]
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        if kind == "keypoints":
            evaluation.params.catIds = [robot["id"]]
            evaluation.params.kpt_oks_sigmas = np.full(len(robot["keypoints"]), 0.05)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)
    capsys.readouterr()


def test_round_trip(exported, video):
    first, second = import_coco(exported)
    assert (first.frame_count, second.frame_count, first.source) == (3, 3, "rendered")
    assert np.array_equal(first.images["rgb"], video.images["rgb"])
    assert np.array_equal(first.images["mask_link"] > 0, video.images["mask_link"] > 0)
    assert np.array_equal(first.images["mask_object"], np.where(video.images["mask_object"] < 254, video.images["mask_object"], 0))
    assert first.names.objects == video.names.objects[:2], "the third object is never seen"
    assert first.names.keypoints == video.names.keypoints
    state = video.frames["keypoint_state"]
    assert np.array_equal(first.frames["keypoint_state"], state) and set(np.unique(state)) == {0, 1, 2}
    assert np.array_equal(first.frames["keypoints_px"][state > 0], video.frames["keypoints_px"][state > 0])
    assert np.isnan(first.frames["keypoints_px"][state == 0]).all() and np.isnan(first.frames["K"]).all()
    export = [json.loads((exported / "annotations.json").read_text())["annotations"]]
    assert all(a["bbox"][2] > 0 for a in export[0])


def test_keypoints_alone_are_enough(tmp_path, video):
    export_coco([without_bystanders(video, "rgb")], tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(content["annotations"]) == 3 and "segmentation" not in content["annotations"][0]
    (back,) = import_coco(tmp_path / "out")
    assert np.array_equal(back.frames["keypoint_state"], video.frames["keypoint_state"])


def test_a_file_as_coco_publishes_it(tmp_path):
    """Polygons, uncompressed run lengths, file named like the download, images in a sibling folder."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    cv2.imwrite(str(tmp_path / "val2017" / "000000000139.jpg"), np.zeros((30, 40, 3), np.uint8))
    person = {"id": 1, "name": "person", "supercategory": "person", "keypoints": ["nose", "left_eye"], "skeleton": [[1, 2]]}
    cup = {"id": 47, "name": "cup", "supercategory": "kitchen"}
    annotations = [
        {"id": 1, "image_id": 139, "category_id": 1, "segmentation": [[5, 5, 15, 5, 15, 20, 5, 20]], "keypoints": [8, 9, 2, 0, 0, 0],
         "num_keypoints": 1, "bbox": [5, 5, 10, 15], "area": 150, "iscrowd": 0},
        {"id": 2, "image_id": 139, "category_id": 47, "segmentation": {"size": [30, 40], "counts": [600, 60, 540]}, "iscrowd": 1,
         "bbox": [20, 0, 2, 30], "area": 60},
    ]  # fmt: skip
    content = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "width": 40, "height": 30}],
        "annotations": annotations,
        "categories": [person, cup],
    }
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))
    (video,) = import_coco(tmp_path)
    assert video.source == "real" and video.names.keypoints == ("nose", "left_eye") and video.names.objects == ("cup.0",)
    assert video.frames["keypoint_state"].tolist() == [[2, 0]]
    assert 140 <= video.images["mask_link"].sum() <= 160 and video.images["mask_link"][0, 10, 10] == 1
    assert video.images["mask_object"][0, :, 20:22].all() and video.images["mask_object"].sum() == 60


def test_bad_input_gets_one_line(tmp_path, video, exported):
    with pytest.raises(ConvertError, match="must hold one annotation file.*found none"):
        list(import_coco(tmp_path))
    (tmp_path / "annotations.json").write_text("[]")
    with pytest.raises(ConvertError, match="is not a COCO annotation file"):
        list(import_coco(tmp_path))
    (tmp_path / "annotations.json").write_text((exported / "annotations.json").read_text())
    with pytest.raises(ConvertError, match="holds no image 000000_0000.png"):
        list(import_coco(tmp_path))
    other = dataclasses.replace(video, names=dataclasses.replace(video.names, keypoints=tuple(f"k{i}" for i in range(19))))
    with pytest.raises(ConvertError, match="one list of keypoints per category"):
        export_coco([video, other], tmp_path / "b")
