"""COLMAP's text models, read back by COLMAP itself."""

import dataclasses

import numpy as np
import pytest

from dataengine.convert.colmap import export_colmap, model_of
from dataengine.convert.disk import ConvertError
from dataengine.geometry import camera, se3
from tests.convert.worlds import panda_video


@pytest.fixture(scope="module")
def still():
    """A robot that stands still before a camera that moves."""
    video = panda_video(3, 4)
    rows = video.frames.copy()
    world = se3.transform(rows["T_world_cam"], rows["keypoints_cam_m"])[0]
    for f in range(4):
        rows["T_world_cam"][f] = se3.look_at((1.3, 0.1 * f, 0.8), (0.1, 0.0, 0.5))
        rows["keypoints_cam_m"][f] = se3.transform(se3.inverse(rows["T_world_cam"][f]), world)
        rows["keypoints_px"][f] = camera.project(rows["K"][f], rows["keypoints_cam_m"][f])
    rows["keypoint_state"] = np.where(camera.in_image(rows["keypoints_px"], 80, 45), 2, 0)
    return dataclasses.replace(video, frames=rows)


def test_colmap_itself_finds_no_reprojection_error(still, tmp_path):
    import pycolmap

    assert export_colmap([still, still], tmp_path / "out") == 2
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "000001" / "sparse"))
    assert model.num_images() == 4 and model.num_cameras() == 1 and model.num_points3D() >= 5
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 1e-6
    for image in model.images.values():
        row = still.frames[int(image.name[:6])]
        T = np.eye(4)
        T[:3] = image.cam_from_world().matrix()
        np.testing.assert_allclose(se3.inverse(T), row["T_world_cam"], atol=1e-9)
        assert (tmp_path / "out" / "000001" / "images" / image.name).is_file()
    c = next(iter(model.cameras.values()))
    np.testing.assert_allclose(c.calibration_matrix(), camera.intrinsics_to_colmap(still.frames["K"][0]))


def test_keypoints_that_move_are_no_points():
    """All joints of this robot move: what is left lies on the first joint's axis."""
    moving = model_of(panda_video(3, 4))
    points = [line.split()[1:3] for line in moving["points3D.txt"].splitlines()[1:]]
    assert 0 < len(points) < 5 and np.abs(np.array(points, float)).max() < 1e-9
    assert len(moving["images.txt"].splitlines()) == 1 + 2 * 4


def test_frames_with_another_K_have_another_camera(still):
    rows = still.frames.copy()
    rows["K"][2:, 0, 0] += 5
    text = model_of(dataclasses.replace(still, frames=rows))
    assert len(text["cameras.txt"].splitlines()) == 3
    assert [line.split()[8] for line in text["images.txt"].splitlines()[1::2]] == ["1", "1", "2", "2"]


@pytest.mark.parametrize("column, value, message", [("T_world_cam", np.nan, "a camera pose is unknown"), ("K", 1.0, "has no skew")])
def test_what_colmap_cannot_hold_is_refused(still, column, value, message):
    rows = still.frames.copy()
    rows[column][1, 0, 1] = value
    with pytest.raises(ConvertError, match=message):
        model_of(dataclasses.replace(still, frames=rows))
