"""The table of formats, and export and import as the command line runs them, through a dataset on disk."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from dataengine.commands.convert import export_dataset, import_folder, list_formats
from dataengine.convert import formats
from dataengine.convert.disk import ConvertError
from dataengine.convert.formats import FORMATS, Format, get_format
from dataengine.errors import StoreError
from dataengine.store.dataset import open_dataset
from tests.convert.worlds import panda_video, without_bystanders
from tests.store.synthetic import new_dataset, same_video

LABELS = {
    "simrgbd": ("T_cam_base", "keypoints_cam_m"), "ndds": ("T_cam_base", "keypoints_cam_m"), "bop": ("T_cam_object",),
    "coco": ("keypoints_px",), "hdf5": ("T_world_cam",), "folders": ("T_world_cam",), "nocs": ("K",), "sope": ("T_cam_object",),
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, video):
    made = new_dataset(tmp_path_factory.mktemp("ds") / "tiny")
    for index, v in enumerate((video, panda_video(2))):
        made.add(index, v, "train")
    made.write_manifest()
    return made


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.importer])
def test_a_dataset_leaves_and_comes_back(dataset, tmp_path, capsys, name):
    assert export_dataset(dataset.path, name, tmp_path / "out") == 0
    frames = 3 if name in ("simrgbd", "ndds") else None
    for _ in range(2):  # the second time, nothing is left to do
        assert import_folder(name, tmp_path / "out", tmp_path / "again", frames_per_video=frames) == 0
    assert "2 videos" in capsys.readouterr().out
    back = open_dataset(tmp_path / "again")
    assert back.verify() == {} and len(back.manifest()["units"]) == 2
    with back.reader(1) as reader, dataset.reader(1) as original:
        read, given = reader.video(), original.video()
    assert np.array_equal(read.images["rgb"], given.images["rgb"])
    for column in LABELS[name]:
        assert np.isfinite(read.frames[column]).any()
    if name in ("hdf5", "folders"):
        assert same_video(read, given)


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.needs])
def test_needs_are_told(name, video, tmp_path):
    """Exactly the modalities that the table lists are enough; without any one of them an export is refused."""
    needs = FORMATS[name].needs
    export = get_format(name).export_function()
    assert export([without_bystanders(video, *needs)], tmp_path / "all") == 1
    for left_out in needs:
        with pytest.raises(ConvertError, match="needs the modality"):
            export(
                [without_bystanders(video, *(n for n in needs if n != left_out), *(["ir_left"] if len(needs) == 1 else []))],
                tmp_path / left_out,
            )


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if not f.importer])
def test_a_format_that_can_only_be_written_says_so(name, tmp_path):
    with pytest.raises(ConvertError, match="can only be exported to"):
        import_folder(name, tmp_path, tmp_path / "out")


def test_bad_requests_get_one_line(dataset, tmp_path, monkeypatch):
    with pytest.raises(ConvertError, match="unknown format 'simrgb' \\(did you mean 'simrgbd'\\?\\)"):
        export_dataset(dataset.path, "simrgb", tmp_path / "a")
    with pytest.raises(StoreError, match="has no video 7"):
        export_dataset(dataset.path, "coco", tmp_path / "a", videos=(7,))
    with pytest.raises(ConvertError, match="holds no videos yet"):
        export_dataset(new_dataset(tmp_path / "empty").path, "coco", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConvertError, match="not a NOCS folder"):
        import_folder("nocs", dataset.path, tmp_path / "b")
    assert not (tmp_path / "b").exists(), "no dataset is made of a folder that does not fit"
    with pytest.raises(ConvertError, match="split 'dev'"):
        import_folder("nocs", dataset.path, tmp_path / "b", split="dev")
    with pytest.raises(ConvertError, match="1 or more, not 0"):
        import_folder("nocs", dataset.path, tmp_path / "b", frames_per_video=0)
    export_dataset(dataset.path, "folders", tmp_path / "c", videos=(1,))
    import_folder("folders", tmp_path / "c", tmp_path / "d")
    with pytest.raises(StoreError, match="choose another output folder"):
        import_folder("folders", tmp_path / "c", tmp_path / "d", split="val")
    monkeypatch.setitem(FORMATS, "odd", Format("", "nowhere_to_be_found:f", "nowhere_to_be_found:f", ()))
    with pytest.raises(ConvertError, match="needs the package 'nowhere_to_be_found'"):
        export_dataset(dataset.path, "odd", tmp_path / "e")


def test_optional_packages_load_only_when_a_format_is_used():
    code = "import sys, dataengine.commands.convert; print({'h5py', 'OpenEXR', 'cv2', 'pycocotools'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_help_lists_every_format():
    assert [line.split(":")[0] for line in list_formats().splitlines()] == list(formats.FORMATS)


def test_disk_full_is_one_line(video, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(StoreError):
        FORMATS["coco"].export_function()([dataclasses.replace(video)], tmp_path / "out")


@pytest.mark.parametrize("name", ["simrgbd", "hdf5"])
def test_an_unwritable_folder_is_one_line(video, tmp_path, monkeypatch, name):
    """OpenEXR and HDF5 open files themselves and have their own ways to say no."""
    monkeypatch.setattr("dataengine.convert.disk.write_bytes", lambda path, data: path.parent.mkdir(parents=True, exist_ok=True))
    target = {"simrgbd": "00000/0000_depth_60.exr", "hdf5": "000000/0.hdf5"}[name]
    real_mkdir = type(tmp_path).mkdir

    def mkdir_with_obstacle(self, *args, **kwargs):
        real_mkdir(self, *args, **kwargs)
        if self.name in ("00000", "000000"):
            real_mkdir(tmp_path / "out" / target, exist_ok=True)  # a folder stands where the file should go

    monkeypatch.setattr(type(tmp_path), "mkdir", mkdir_with_obstacle)
    with pytest.raises((ConvertError, StoreError)) as caught:
        FORMATS[name].export_function()([video], tmp_path / "out")
    assert target.split("/")[1] in str(caught.value) and "\n" not in str(caught.value)
