"""Every robot and the variants of the sensor, tiny, through Blender: no label violated."""

from pathlib import Path

import pytest

from dataengine.store.dataset import open_dataset
from tests.e2e.conftest import dataengine

pytestmark = pytest.mark.slow
TINY = ("videos=1", "frames=2", "camera.width=160", "camera.height=96", "render.quality=draft")


def render_tiny(folder: Path, preset: str, *overrides: str) -> None:
    sets = [word for text in (*TINY, *overrides) for word in ("--set", text)]
    dataengine("render", preset, "--serial", "--no-report", "--out", folder, *sets)
    assert "1 video: 0 label violations in " in dataengine("validate", folder).stdout


@pytest.mark.parametrize("preset", ["xarm7", "ur5", "so101"])
def test_robots(preset: str, tmp_path: Path) -> None:
    render_tiny(tmp_path / "made", preset)


def test_path_traced_infrared(tmp_path: Path) -> None:
    """The validator holds it against the true depth, like the ray-cast pair."""
    render_tiny(tmp_path / "made", "smoke", "depth_sensor.ir=cycles")
    with open_dataset(tmp_path / "made").reader(0) as reader:
        video = reader.video()
    assert video.images["ir_left"].std() > 3
    assert (video.images["depth_sim"] > 0)[video.images["mask_link"] > 0].mean() > 0.7


def test_moving_camera_with_motion_blur(tmp_path: Path) -> None:
    """Labels belong to the middle of the exposure."""
    render_tiny(tmp_path / "made", "smoke", "camera.path=moving", "camera.speed_m_s=0.2", "image.motion_blur=0.5")


def test_glass_and_no_objects(tmp_path: Path) -> None:
    render_tiny(tmp_path / "glass", "smoke", "distractors.materials=[glass]", "distractors.count=3")
    render_tiny(tmp_path / "none", "smoke", "distractors.count=0", "distractors.occluders=0")


def test_off_centre_intrinsics(tmp_path: Path) -> None:
    intrinsics = "camera={preset: free, width: 160, height: 96, fx_px: 130, fy_px: 120, cx_px: 70.25, cy_px: 52.5}"
    render_tiny(tmp_path / "made", "smoke", intrinsics)
