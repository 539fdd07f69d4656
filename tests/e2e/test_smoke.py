"""One small dataset from the command line to the report, rendered by Blender."""

import json
from pathlib import Path

import numpy as np

from dataengine.store.dataset import open_dataset
from tests.e2e.conftest import dataengine


def test_render_then_everything_else(smoke: tuple[Path, str], tmp_path: Path) -> None:
    folder, said = smoke
    assert "2 videos to render" in said and "Traceback" not in said
    dataset = open_dataset(folder)
    assert dataset.videos() == ["video-000000", "video-000001"]
    assert (folder / "report.html").stat().st_size > 50_000
    assert {"strip.png", "video-000001.png", "video-000001.mp4"} <= {p.name for p in (folder / "previews").iterdir()}

    validated = dataengine("validate", folder).stdout
    assert "2 videos: 0 label violations in " in validated and "; 0 damaged" in validated
    assert "2 of 2" in dataengine("status", folder).stdout
    assert "camera.distance_m" in dataengine("explain", folder, "0").stdout
    replayed = dataengine("replay", folder, "1", "--out", tmp_path / "again.png").stdout
    assert "identical: " in replayed and "bit by bit" in replayed
    assert (tmp_path / "again.png").stat().st_size > 10_000


def test_rendering_again_renders_nothing(smoke: tuple[Path, str]) -> None:
    folder, _ = smoke
    before = json.loads((folder / "manifest.json").read_text())
    files = {p: p.stat().st_mtime_ns for p in (folder / "shards").rglob("*")}
    said = dataengine("render", "smoke", "--serial", "--no-report", "--out", folder).stdout
    assert "nothing to render: 2 of 2 videos are in" in said
    assert json.loads((folder / "manifest.json").read_text())["digest"] == before["digest"]
    assert {p: p.stat().st_mtime_ns for p in (folder / "shards").rglob("*")} == files


def test_pictures_are_pictures(smoke: tuple[Path, str]) -> None:
    """Neither black nor flat, the robot in them, depth in a sensible range, and what the sensor sees near the truth."""
    for index in (0, 1):
        with open_dataset(smoke[0]).reader(index) as reader:
            video = reader.video()
        images = video.images
        assert 20 < images["rgb"].mean() < 235 and images["rgb"].std() > 10
        assert (images["mask_link"] > 0).mean() > 0.01
        robot = images["mask_link"] > 0
        assert 0.3 < np.median(images["depth_z"][robot]) < 3
        measured = images["depth_sim"][robot] > 0
        assert measured.mean() > 0.7
        assert np.median(np.abs(images["depth_sim"] - images["depth_z"])[robot][measured]) < 0.02
        assert images["ir_left"].std() > 5


def test_doctor() -> None:
    assert "all found" in dataengine("doctor").stdout
