"""The card against the dataset that it describes, and against the reference implementation of Croissant."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from dataengine.errors import StoreError
from dataengine.quality.card import UNKNOWN, card_facts, croissant, markdown
from dataengine.store.curate import merge, subset
from dataengine.store.dataset import open_or_create
from dataengine.store.files import json_bytes
from dataengine.store.repository import Repository, open_repository
from dataengine.store.selection import chooser
from dataengine.store.versions import tag
from tests.quality.test_coverage import light_video

PROVENANCE = {
    "dataengine": "0.1.0", "versions": {"bpy": "4.5.15"}, "robot": {"name": "panda"},
    "assets": {"forest": "ab" * 32, "/home/someone/mugs/mug|1.obj": "cd" * 32},
}  # fmt: skip


def make(path: Path, digest: str = "a" * 64, videos: int = 3) -> Repository:
    dataset = open_or_create(path, {"x": 1}, digest, "kitchen | two")
    for index in range(videos):
        images = {"rgb": np.zeros((4, 4, 6, 3), np.uint8), "depth_z": np.ones((4, 4, 6), np.float32)}
        video = dataclasses.replace(light_video(4, split="val" if index == 2 else "train"), provenance=PROVENANCE, images=images)
        dataset.add(index, video, video.scene["split"])
    dataset.write_manifest()
    return open_repository(path)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make(tmp_path / "out")


def test_the_markdown_says_what_there_is(repository: Repository) -> None:
    tag(repository.backend, "v1")
    text = markdown(card_facts(repository, licence="cc-by-4.0"))
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["license"] == "cc-by-4.0" and head["pretty_name"] == "kitchen | two" and head["size_categories"] == ["n<1K"]
    assert "| train | 2 | 8 |" in body and "| val | 1 | 4 |" in body
    assert "| robot panda |  | Apache-2.0 |" in body and "| forest | `abababababab` | CC0-1.0 |" in body
    assert f"| mug\\|1.obj | `cdcdcdcdcdcd` | {UNKNOWN} |" in body and "someone" not in body
    assert f"| `{repository.manifest()['digest'][:12]}` | v1 |" in body and "| render | 3 |" in body
    assert "| k2 | 0 | 12 | 0 |" in body and "bpy 4.5.15" in body and "12 of 12 frames passed" in body
    for line in body.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")


def test_lineage_of_derived_datasets(repository: Repository, tmp_path: Path) -> None:
    part = subset(repository, tmp_path / "part", chooser(split="train"), "split train")
    digest = repository.manifest()["digest"][:12]
    assert f"- subset of kitchen | two `{digest}`, where split train" in markdown(card_facts(part))
    both = merge([part, make(tmp_path / "other", "b" * 64)], tmp_path / "both", "both")
    text = markdown(card_facts(both))
    assert f"- 2 videos taken over from spec `{'a' * 12}`" in text and f"- 3 videos taken over from spec `{'b' * 12}`" in text


def test_croissant_is_valid_and_loads(repository: Repository) -> None:
    """mlcroissant checks the JSON-LD and reads the records through it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant

        path = Path(repository.where) / "croissant.json"
        facts = card_facts(repository, licence="https://spdx.org/licenses/CC-BY-4.0")
        path.write_bytes(json_bytes(croissant(facts)))
        dataset = mlcroissant.Dataset(jsonld=str(path))
        issues = dataset.metadata.ctx.issues
        assert not issues.errors and not issues.warnings, issues.report()
        videos = list(dataset.records("videos"))
        modalities = list(dataset.records("modalities"))
    assert [(v["videos/unit"], v["videos/split"], v["videos/frames"]) for v in videos] == [
        (b"video-000000", b"train", 4), (b"video-000001", b"train", 4), (b"video-000002", b"val", 4),
    ]  # fmt: skip
    assert [(m["modalities/name"], m["modalities/unit"]) for m in modalities] == [("rgb", "sRGB 0–255"), ("depth_z", "m")]
    assert json.loads(path.read_bytes())["distribution"][0]["sha256"]


def test_an_empty_dataset_has_no_card(tmp_path: Path) -> None:
    dataset = open_or_create(tmp_path / "out", {}, "a" * 64, "x")
    dataset.write_manifest()
    with pytest.raises(StoreError, match="holds no videos"):
        card_facts(open_repository(tmp_path / "out"))
