"""HDF5 containers: bit-exact round trip, BlenderProc's own viewer as reader, files in BlenderProc's form."""

import importlib.util
import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from dataengine.convert.disk import ConvertError
from dataengine.convert.hdf5 import export_hdf5, import_hdf5
from tests.convert.worlds import panda_video, without_bystanders
from tests.store.synthetic import same_video, synthetic_video


@pytest.fixture(scope="module")
def exported(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("hdf5") / "out"
    assert export_hdf5([video, panda_video(2)], folder) == 2
    return folder


def test_our_own_files_read_back_bit_by_bit(exported, video, tmp_path):
    first, second = import_hdf5(exported)
    assert same_video(first, video) and same_video(second, panda_video(2))
    odd = synthetic_video(3, covariance=True, modalities=("rgb", "depth_z", "normals", "nocs", "amodal_objects"))  # nan, covariances
    bare = without_bystanders(synthetic_video(4, objects=0), "ir_left", "mask_object")
    export_hdf5([odd, bare], tmp_path / "odd")
    back = list(import_hdf5(tmp_path / "odd"))
    assert same_video(back[1], bare)
    back[0].images["normals"], odd.images["normals"] = (np.maximum(v.images["normals"], -127) for v in (back[0], odd))  # −128 is no normal
    assert same_video(back[0], odd)


def test_blenderprocs_viewer_reads_them(exported, video, tmp_path, capsys):
    (script,) = Path(importlib.util.find_spec("blenderproc").submodule_search_locations[0]).glob("scripts/visHdf5Files.py")
    spec = importlib.util.spec_from_file_location("viewer", script)
    viewer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(viewer)
    viewer.vis_file(str(exported / "000000" / "1.hdf5"), viewer.all_default_keys, save_to_path=str(tmp_path))
    seen = capsys.readouterr().out
    assert "'depth': (45, 80)" in seen and "'instance_segmaps': (45, 80)" in seen
    assert np.array_equal(cv2.imread(str(tmp_path / "1_colors.png"))[..., ::-1], video.images["rgb"][1])
    assert {p.name for p in tmp_path.iterdir()} >= {"1_normals.png", "1_nocs.png", "1_depth.png", "1_instance_segmaps.png"}


def test_conventions(exported, video):
    with h5py.File(exported / "000000" / "0.hdf5") as file:
        normal = (np.array(file["normals"], float) - 0.5) * 2
        expected = video.images["normals"][0] / 127 * [1, -1, -1]
        assert np.abs(normal - expected).max() < 1e-6
        state = json.loads(bytes(file["cam_states"][()]))[0]
        towards = -np.array(state["cam2world_matrix"])[:3, 2]
        assert np.allclose(towards, video.frames["T_world_cam"][0, :3, 2])
        ids = {a["idx"]: a["name"] for a in json.loads(bytes(file["instance_attribute_maps"][()]))}
        segments = np.array(file["instance_segmaps"])
        assert {ids[k] for k in np.unique(segments)} >= {"background", "table", "room", "thing.0.box", "panda_hand"}
        hand = video.names.links.index("panda_hand") + 1
        assert np.array_equal(segments == next(k for k, n in ids.items() if n == "panda_hand"), video.images["mask_link"][0] == hand)
        assert file["colors"].compression == "gzip"


def test_files_as_blenderproc_writes_them(tmp_path):
    for f in range(11):
        with h5py.File(tmp_path / f"{f}.hdf5", "w") as file:
            file.create_dataset("colors", data=np.full((2, 8, 12, 3), f, np.uint8), compression="gzip")
            depth = np.full((2, 8, 12), 1.5, np.float32)
            depth[:, 0] = 1e10
            file.create_dataset("depth", data=depth, compression="gzip")
            file.create_dataset("instance_segmaps", data=np.tile(np.arange(12, dtype=np.uint8) // 4, (2, 8, 1)), compression="gzip")
            maps = [
                {"idx": 0, "category_id": 0},
                {"idx": 1, "category_id": 7, "name": "Suzanne"},
                {"idx": 2, "category_id": 8, "name": "Cube"},
            ]
            file.create_dataset("instance_attribute_maps", data=np.bytes_(json.dumps(maps)))
            file.create_dataset("blender_proc_version", data=np.bytes_("2.8.0"))
            matrix = [[1, 0, 0, 0.1], [0, 1, 0, 0.2], [0, 0, 1, 3.0], [0, 0, 0, 1]]  # looks down
            states = [{"cam_K": [[10, 0, 5.5], [0, 10, 3.5], [0, 0, 1]], "cam2world_matrix": matrix}]
            file.create_dataset("cam_states", data=np.bytes_(json.dumps(states)))
    (video,) = import_hdf5(tmp_path)
    assert video.images["rgb"][:, 0, 0, 0].tolist() == list(range(11)), "2 comes before 10"
    assert (video.images["depth_z"][:, 0] == 0).all() and (video.images["depth_z"][:, 1:] == 1.5).all()
    assert video.names.objects == ("Suzanne", "Cube") and (video.images["mask_object"][:, :, 4:8] == 1).all()
    assert np.allclose(video.frames["T_world_cam"][0, :3, 2], [0, 0, -1]) and np.isnan(video.frames["T_cam_object"]).all()
    assert [v.frame_count for v in import_hdf5(tmp_path, frames_per_video=4)] == [4, 4, 3]


def test_bad_input_gets_one_line(tmp_path):
    with pytest.raises(ConvertError, match="not an output folder of BlenderProc"):
        list(import_hdf5(tmp_path))
    (tmp_path / "0.hdf5").write_bytes(b"torn")
    with pytest.raises(ConvertError, match="0.hdf5 is not an HDF5 file"):
        list(import_hdf5(tmp_path))
    with h5py.File(tmp_path / "0.hdf5", "w") as file:
        file.create_dataset("voltages", data=[1])
    with pytest.raises(ConvertError, match="no images"):
        list(import_hdf5(tmp_path))
