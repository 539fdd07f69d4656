"""Plain folders: bit-exact for anything a record may hold, and folders of images without labels."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataengine.convert.disk import ConvertError
from dataengine.convert.folders import export_folders, import_folders
from dataengine.record.modalities import NAMES
from tests.store.synthetic import same_video, synthetic_video


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000), frames=st.integers(1, 3), objects=st.integers(0, 3), covariance=st.booleans(),
    chosen=st.sets(st.sampled_from(NAMES), min_size=1),
)  # fmt: skip
def test_round_trip_is_bit_exact(tmp_path_factory, seed, frames, objects, covariance, chosen):
    modalities = tuple(n for n in NAMES if n in chosen)
    video = synthetic_video(seed, frames, (7, 9), modalities, objects, covariance)
    folder = tmp_path_factory.mktemp("folders") / "out"
    assert export_folders([video, video], folder) == 2
    first, second = import_folders(folder)
    assert same_video(first, video) and same_video(second, video)


def test_images_open_elsewhere(tmp_path, video):
    export_folders([video], tmp_path / "out")
    folder = tmp_path / "out" / "video-000000"
    assert np.array_equal(cv2.imread(str(folder / "rgb" / "000002.png"))[..., ::-1], video.images["rgb"][2])
    depth = cv2.imread(str(folder / "depth_z" / "000002.exr"), cv2.IMREAD_UNCHANGED | cv2.IMREAD_ANYDEPTH)
    assert np.array_equal(depth, video.images["depth_z"][2])
    nocs = cv2.imread(str(folder / "nocs" / "000001.png"), cv2.IMREAD_UNCHANGED)
    assert nocs.dtype == np.uint16 and np.array_equal(nocs[..., ::-1], video.images["nocs"][1])
    labels = json.loads((folder / "labels.json").read_text())
    assert labels["frames"]["K"][0] == video.frames["K"][0].tolist()


def test_folders_without_labels(tmp_path):
    """A user's own captures: JPEG colour, RGB EXR depth with infinities, masks."""
    for name in ("rgb", "depth_z", "mask_object"):
        (tmp_path / "tuesday" / name).mkdir(parents=True)
    for f in (8, 9, 10):
        cv2.imwrite(str(tmp_path / "tuesday" / "rgb" / f"shot{f}.jpg"), np.full((6, 8, 3), 10 * f, np.uint8))
        depth = np.full((6, 8, 3), 0.1 * f, np.float32)
        depth[0] = np.inf
        cv2.imwrite(str(tmp_path / "tuesday" / "depth_z" / f"shot{f}.exr"), depth)
        cv2.imwrite(str(tmp_path / "tuesday" / "mask_object" / f"shot{f}.png"), np.eye(6, 8, dtype=np.uint8) * 2)
    (video,) = import_folders(tmp_path)
    assert video.source == "real" and video.scene["files"] == ["shot8", "shot9", "shot10"]
    assert np.allclose(video.images["rgb"][:, 0, 0, 0], [80, 90, 100], atol=2)
    assert (video.images["depth_z"][:, 0] == 0).all() and np.allclose(video.images["depth_z"][2, 1:], 1.0)
    assert video.names.objects == ("object 1", "object 2") and np.isnan(video.frames["K"]).all()
    assert [v.frame_count for v in import_folders(tmp_path, frames_per_video=2)] == [2, 1]
    cv2.imwrite(str(tmp_path / "tuesday" / "mask_object" / "shot9.png"), np.zeros((6, 8), np.uint16))
    with pytest.raises(ConvertError, match="holds uint16, mask_object is uint8"):
        list(import_folders(tmp_path))
    (tmp_path / "tuesday" / "mask_object" / "shot9.png").unlink()
    with pytest.raises(ConvertError, match="holds no shot9.png"):
        list(import_folders(tmp_path))


def test_bad_input_gets_one_line(tmp_path, video):
    with pytest.raises(ConvertError, match="no folder named after a modality"):
        list(import_folders(tmp_path))
    export_folders([video], tmp_path / "out")
    path = tmp_path / "out" / "video-000000" / "labels.json"
    labels = json.loads(path.read_text())
    for change, message in (
        ({"schema_version": 2}, "has schema 2, this release reads 1"), ({"format": "x"}, "not the label file"),
        ({"modalities": ["colour"]}, "unknown modality 'colour'"), ({"frames": {"K": [[1]]}}, "not a whole label file"),
    ):  # fmt: skip
        path.write_text(json.dumps(labels | change))
        with pytest.raises(Exception, match=message):
            list(import_folders(tmp_path))
    path.write_text(json.dumps(labels))
    (tmp_path / "out" / "video-000000" / "rgb" / "000001.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(ConvertError, match="000001.png is not an image"):
        list(import_folders(tmp_path))
