"""NOCS: a loader of our own after the published ones, similarity fits against exact geometry, hand-written REAL275 and CAMERA frames."""

import dataclasses
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dataengine.convert.disk import ConvertError
from dataengine.convert.nocs import PUBLISHED_K, export_nocs, read_truth
from dataengine.convert.nocs_import import import_nocs
from dataengine.convert.similarity import fit_similarity
from dataengine.geometry import camera, se3
from tests.convert.worlds import panda_video, without_bystanders

KEEP = ("rgb", "depth_z", "mask_object", "nocs")


def classed(video, depth="depth_z"):
    """The things as a bottle, a mug and a laptop, all seen in every frame."""
    objects = [o | {"category": c} for o, c in zip(video.scene["objects"], ("bottle", "mug", "laptop"), strict=False)]
    masks = video.images["mask_object"].copy()
    masks[:, :10, :10], masks[:, :10, 20:30] = 1, 2
    images = {n: video.images[n] for n in ("rgb", "nocs")} | {"mask_object": masks, depth: video.images[depth]}
    images["nocs"] = np.where(((masks > 0) & (masks < 3))[..., None], images["nocs"], 0).astype(np.uint16)
    source = "rendered" if depth == "depth_z" else "real"
    return dataclasses.replace(video, images=images, source=source, scene=video.scene | {"objects": objects})


@pytest.fixture(scope="module")
def exported(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("nocs") / "out"
    assert export_nocs([classed(video), classed(panda_video(2))], folder) == 2
    return folder


def load(prefix):
    """What the published loaders do with a frame: masks, coordinates in the object frame, classes."""
    mask = cv2.imread(prefix + "mask.png")[:, :, 2].astype(int)
    coord = cv2.imread(prefix + "coord.png")[:, :, (2, 1, 0)].astype(np.float32) / 255
    coord[:, :, 2] = 1 - coord[:, :, 2]
    ids = sorted(np.unique(mask))
    assert ids.pop() == 255
    lines = [line.split(" ") for line in Path(prefix + "meta.txt").read_text().splitlines()]
    kept = [(int(w[0]), int(w[1]), w[-1]) for w in lines if int(w[1]) and int(w[0]) in ids]
    return mask, coord - 0.5, kept


def test_the_published_loaders_steps_give_our_geometry(exported, video):
    """Coordinates, scaled and posed by the ground truth, are the points that our own labels state."""
    video = classed(video)
    mask, coord, kept = load(str(exported / "train" / "00000" / "0001_"))
    truth = pickle.loads((exported / "gts" / "train" / "results_train_00000_0001.pkl").read_bytes())
    assert [c for _, c, _ in kept] == truth["gt_class_ids"].tolist() == [1, 6]
    for (value, _, _), RT, extent, box in zip(kept, truth["gt_RTs"], truth["gt_scales"], truth["gt_bboxes"], strict=True):
        here = mask == value
        k = value - 1
        assert np.array_equal(here, video.images["mask_object"][1] == value)
        size = np.array(video.scene["objects"][k]["size_m"])
        ours = (video.images["nocs"][1][here] / 65535 - 0.5) * size
        expected = se3.transform(video.frames["T_cam_object"][1, k], ours)
        assert np.abs(se3.transform(RT, coord[here]) - expected).max() < 0.51 / 255 * np.linalg.norm(size) * 1.8
        scale = np.cbrt(np.linalg.det(RT[:3, :3]))
        assert np.isclose(np.linalg.norm(extent), 1) and np.isclose(scale, np.linalg.norm(size))
        up = RT[:3, 1] / scale  # NOCS: y is up
        assert np.allclose(up, video.frames["T_cam_object"][1, k, :3, 2]) and np.isclose(extent[1] * scale, size[2])
        y1, x1, y2, x2 = box
        assert here[y1:y2, x1:x2].sum() == here.sum() and here[y1].any() and here[:, x2 - 1].any()
    depth = cv2.imread(str(exported / "train" / "00000" / "0001_depth.png"), -1)
    assert depth.dtype == np.uint16 and np.abs(depth / 1000 - video.images["depth_z"][1]).max() < 0.501e-3


@pytest.mark.parametrize("depth", ["depth_z", "depth_sim"])
def test_round_trip(tmp_path, video, depth):
    video = classed(video, depth)
    export_nocs([video], tmp_path / "out")
    (back,) = import_nocs(tmp_path / "out")
    assert back.source == video.source and [o["category"] for o in back.scene["objects"]] == ["bottle", "mug", "laptop"]
    assert np.array_equal(back.images["rgb"], video.images["rgb"]) and np.array_equal(back.frames["K"], video.frames["K"])
    masks = np.where(video.images["mask_object"] < 254, video.images["mask_object"], 0)
    assert np.array_equal(back.images["mask_object"], masks)
    assert np.allclose(back.frames["T_cam_object"][:, :2], video.frames["T_cam_object"][:, :2], rtol=0, atol=1e-12)
    assert np.isnan(back.frames["T_cam_object"][:, 2]).all(), "never seen, so not in the ground truth"
    for k in range(2):
        size = np.array(video.scene["objects"][k]["size_m"])
        assert np.allclose(back.scene["objects"][k]["size_m"], size)
        here = masks == k + 1
        error = np.abs(back.images["nocs"][here].astype(float) - video.images["nocs"][here]) / 65535
        assert (error <= 0.5001 / 255 * np.linalg.norm(size) / size + 1e-4).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.05, 3), share=st.floats(0, 0.3))
def test_similarity_fit_finds_the_transform_despite_outliers(seed, scale, share):
    rng = np.random.default_rng(seed)
    R, t = Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3)
    source = rng.uniform(-0.5, 0.5, (200, 3))
    target = scale * source @ R.T + t
    wrong = rng.random(200) < share
    target[wrong] += rng.normal(size=(wrong.sum(), 3)) * scale * 0.5
    fitted = fit_similarity(source, target)
    assert fitted is not None
    s, R_fit, t_fit = fitted
    tight = 1e-6 if not wrong.any() else 0.08
    assert abs(s / scale - 1) < tight and np.abs(R_fit - R).max() < tight and np.linalg.norm(t_fit - t) < tight * scale
    assert np.isclose(np.linalg.det(R_fit), 1)


def test_similarity_fit_refuses_what_does_not_determine_it():
    line = np.linspace(0, 1, 50)[:, None] * [1.0, 2.0, 3.0]
    assert fit_similarity(line, line) is None
    assert fit_similarity(np.eye(3), np.eye(3)) is None
    assert fit_similarity(np.ones((50, 3)), np.random.default_rng(0).random((50, 3))) is None


# ---- hand-written frames ---------------------------------------------------------------------------------------------


def write_real275(root, with_gts, turned=False, camera_depth=False):
    """One 640×480 frame with a laptop seen frontally, exact coordinates, and a distractor of class 0."""
    folder = root / "real" / "test" / "scene_1"
    folder.mkdir(parents=True)
    K = PUBLISHED_K["rendered" if camera_depth else "real"]
    R, t = Rotation.from_euler("xyz", [0.3, 2.5, -0.4]).as_matrix(), np.array([0.05, -0.02, 0.9])
    sides = np.array([0.3, 0.2, 0.25])  # NOCS axes
    diagonal = np.linalg.norm(sides)
    mask = np.full((480, 640), 255, np.uint8)
    mask[200:260, 330:380], mask[10:20, 10:20] = 3, 5
    depth_mm = np.zeros((480, 640), np.uint16)
    v, u = np.mgrid[0:480, 0:640]
    depth_mm[mask == 3] = (880 + 20 * np.sin(u / 5) + 20 * np.cos(v / 7))[mask == 3].astype(np.uint16)
    points = camera.backproject(K, depth_mm / 1000.0)
    unit = (points - t) @ R / diagonal + 0.5
    unit[..., 2] = 1 - unit[..., 2]
    coord = np.where((mask == 3)[..., None], np.rint(255 * unit.clip(0, 1)), 0).astype(np.uint8)
    cv2.imwrite(str(folder / "0000_color.png"), np.full((480, 640, 3), 7, np.uint8))
    cv2.imwrite(str(folder / "0000_mask.png"), mask)
    cv2.imwrite(str(folder / "0000_coord.png"), coord[..., ::-1])
    if camera_depth:
        coded = np.stack([0 * depth_mm, depth_mm // 256, depth_mm % 256], -1).astype(np.uint8)  # B, G, R in OpenCV's order
        cv2.imwrite(str(folder / "0000_depth.png"), coded)
        (folder / "0000_meta.txt").write_text("3 5 03642806 d17b281cd1bba4dfe24c77a80a8df1f3\n5 0 02818832 bed\n")
    else:
        cv2.imwrite(str(folder / "0000_depth.png"), depth_mm)
        (folder / "0000_meta.txt").write_text("3 5 laptop_air_1_norm\n5 0 book_x\n")
    if with_gts:
        RT = se3.make(diagonal * R, t)
        RT = np.diag([-1, -1, 1, 1]) @ RT if turned else RT
        truth = {"gt_class_ids": np.array([5]), "gt_RTs": RT[None].astype(np.float32), "gt_scales": (sides / diagonal)[None]}
        gts = root / "gts" / "real_test"
        gts.mkdir(parents=True)
        (gts / "results_real_test_scene_1_0000.pkl").write_bytes(pickle.dumps(truth, protocol=2))
    else:
        models = root / "obj_models" / "real_test"
        models.mkdir(parents=True)
        (models / "laptop_air_1_norm.txt").write_text("\n".join(str(s) for s in sides))
    R_ours = R @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    return se3.make(R_ours, t), sides[[0, 2, 1]], mask


@pytest.mark.parametrize(
    "variant", [{"with_gts": True}, {"with_gts": True, "turned": True}, {"with_gts": False}, {"with_gts": False, "camera_depth": True}]
)
@pytest.mark.parametrize("point_at", [".", "real/test"])
def test_real275_and_camera_folders(tmp_path, variant, point_at):
    T, sides, mask = write_real275(tmp_path, **variant)
    (video,) = import_nocs(tmp_path / point_at)
    coded = variant.get("camera_depth", False)
    laptop = 0
    assert video.source == ("rendered" if coded else "real") and len(video.names.objects) == 2
    assert [o["category"] for o in video.scene["objects"]] == ["laptop", "other"]
    tolerance = 1e-6 if variant["with_gts"] else 3e-3
    assert np.abs(video.frames["T_cam_object"][0, laptop] - T).max() < tolerance
    assert np.isnan(video.frames["T_cam_object"][0, 1]).all()
    assert bool(video.notes["import"]) != variant["with_gts"]
    if not coded:  # CAMERA models have no size file: there the coordinates seen give a lower bound
        assert np.allclose(video.scene["objects"][laptop]["size_m"], sides, rtol=0.01)
        inside = video.images["nocs"][0][mask == 3].astype(float) / 65535
        points = camera.backproject(video.frames["K"][0], video.images["depth_sim"][0])[mask == 3]
        assert np.abs(se3.transform(T, (inside - 0.5) * sides) - points).max() < 4e-3
    assert np.array_equal(video.images["mask_object"][0], np.select([mask == 3, mask == 5], [1, 2]))


class Nasty:
    def __reduce__(self):
        return print, ("owned",)


def test_bad_input_gets_one_line(tmp_path, video, capsys):
    with pytest.raises(ConvertError, match="not a NOCS folder"):
        list(import_nocs(tmp_path))
    path = tmp_path / "results_x.pkl"
    path.write_bytes(pickle.dumps({"gt_class_ids": Nasty(), "gt_RTs": 0, "gt_scales": 0}))
    with pytest.raises(ConvertError, match="it asks for"):
        read_truth(path)
    assert capsys.readouterr().out == "", "nothing in a pickle is executed"
    write_real275(tmp_path / "data", with_gts=True)
    meta = tmp_path / "data" / "real" / "test" / "scene_1" / "0000_meta.txt"
    meta.write_text("3 laptop\n")
    with pytest.raises(ConvertError, match="'3 laptop' is not instance id"):
        list(import_nocs(tmp_path / "data"))
    with pytest.raises(ConvertError, match="an object's size is unknown"):
        export_nocs([dataclasses.replace(video, scene={})], tmp_path / "a")
    with pytest.raises(ConvertError, match="needs the modality 'nocs'"):
        export_nocs([without_bystanders(video, "rgb", "depth_z", "mask_object")], tmp_path / "b")
