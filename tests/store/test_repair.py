"""Every damage is found and named; what is repaired ends at the digest that it had."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataengine.errors import StoreError
from dataengine.store.commits import unit_name
from dataengine.store.compact import compact
from dataengine.store.curate import merge
from dataengine.store.dataset import open_dataset
from dataengine.store.gc import collect_garbage
from dataengine.store.repair import repair
from dataengine.store.repository import Repository, open_repository
from dataengine.store.structure import check_schema, check_structure, verify_older, verify_units
from tests.store.synthetic import new_dataset, synthetic_video
from tests.store.test_versions import LATER, fill, small_video

NO_DATA = {"staging", "quarantine"}


def whole_render(calls: list[tuple[str, list[int]]]):
    """A stand-in for the renderer: videos are a function of their number, as real renders are of their record."""
    scratch = Path(tempfile.mkdtemp(prefix="dataengine-test-"))

    def render(digest: str, spec: dict[str, Any], videos: list[int]) -> Repository:
        calls.append((digest, videos))
        dataset = new_dataset(scratch / digest, digest)
        for index in videos:
            dataset.add(index, small_video(index, 1 + index % 3), "any")
        return open_repository(dataset.path)

    return render


def never(*_: object) -> Repository:
    raise AssertionError("nothing is to be rendered")


def data_files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and p.relative_to(root).parts[0] not in NO_DATA)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def where_found(repository: Repository) -> set[str]:
    """Files and units that a full verification names."""
    try:
        open_repository(repository.where)
    except StoreError:
        return {"dataset.json"}
    named = {f.file for f in check_structure(repository)} | {f.file for _, f in verify_older(repository).values()}
    for unit, findings in verify_units(repository).items():
        named |= {f"{unit}:{f.file}" for f in findings} | {f.file for f in findings if f.file.startswith("commits/")}
    return named


def flip_and_find(repository: Repository, flips: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = Path(repository.where)
    paths = data_files(root)
    sizes = np.array([p.stat().st_size for p in paths])
    unit_of = {e["shard"]: e["unit"] for e in repository.manifest()["units"]}
    assert where_found(repository) == set()
    for n in range(flips):
        # Half by size, half by file: small files and the ends of files get their share.
        k = int(rng.choice(len(paths), p=sizes / sizes.sum())) if n % 2 else int(rng.integers(len(paths)))
        before = paths[k].read_bytes()
        flip(paths[k], int(rng.integers(8 * sizes[k])))
        relative = paths[k].relative_to(root)
        found = where_found(repository)
        paths[k].write_bytes(before)
        if relative.parts[0] != "shards":
            assert relative.as_posix() in found, relative
            continue
        shard, inside = relative.parts[1], "/".join(relative.parts[2:])
        if shard.startswith("pack-"):
            field = inside.split("/")[-2] if "/" in inside else ""
            assert any(name.split(":")[-1].split("/")[0] in (field, "zarr.json") or inside in name for name in found), (inside, found)
        else:
            assert f"{unit_of[shard]}:{inside}" in found, (relative, found)


def test_flipped_bits_are_found_and_located(tmp_path: Path) -> None:
    flip_and_find(fill(tmp_path / "three", range(3)), 60, 1)


def test_flipped_bits_in_packs_are_found(tmp_path: Path) -> None:
    repository = fill(tmp_path / "packed", range(3))
    compact(repository)
    collect_garbage(repository, grace_s=0, now_s=LATER)
    flip_and_find(repository, 60, 2)


@pytest.mark.slow
def test_a_thousand_flipped_bits(tmp_path: Path) -> None:
    flip_and_find(fill(tmp_path / "three", range(3)), 1000, 3)


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_frame_is_named_and_rendered_again(packed: bool, tmp_path: Path) -> None:
    repository = fill(tmp_path / "out", range(4))
    if packed:
        compact(repository)
        collect_garbage(repository, grace_s=0, now_s=LATER)
    digest = repository.manifest()["digest"]
    bytes_before = {p: p.read_bytes() for p in data_files(Path(repository.where))}
    entry = repository.manifest()["units"][2]
    path = Path(repository.where) / "shards" / entry["shard"] / "rgb" / "c.0.0.0.0"
    flip(path, 8 * (path.stat().st_size // 2) if packed else 80)
    (unit,) = found = verify_units(repository)
    (finding,) = found[unit]
    assert (finding.field, finding.frame in (0, 1, 2)) == ("rgb", True)
    assert packed or (unit, finding.frame) == ("video-000002", 0)
    calls: list[tuple[str, list[int]]] = []
    done = repair(repository, whole_render(calls))
    assert calls == [("a" * 64, [int(unit.removeprefix("video-"))])] and done.rendered == (unit,) and done.rewritten == ()
    assert done.manifest == repository.manifest()["digest"] == digest
    assert {p: p.read_bytes() for p in data_files(Path(repository.where))} == bytes_before
    assert repair(repository, never).rendered == ()


@pytest.mark.parametrize(
    "relative", ["commits/video-000001.json", "manifest.json", "refs/heads/main.json", "manifests/{}.json", "rubbish", "shards/{}/rubbish"]
)
@pytest.mark.parametrize("how", ["flip", "remove"])
def test_what_can_be_derived_is_not_rendered(relative: str, how: str, tmp_path: Path) -> None:
    repository = fill(tmp_path / "out", range(3))
    manifest = repository.manifest()
    shard = manifest["units"][1]["shard"]
    path = Path(repository.where) / relative.format(manifest["digest"] if "manifests" in relative else shard)
    if "rubbish" in relative:
        path.write_text("x")
    elif how == "flip":
        flip(path, 1003)
    else:
        path.unlink()
    assert where_found(repository) or relative == "rubbish"
    assert repair(repository, never).manifest == manifest["digest"]
    assert where_found(repository) == set() and repository.manifest() == manifest == open_dataset(repository.where).manifest()


def test_an_older_versions_shard_is_found_and_mended_from_the_pack(tmp_path: Path) -> None:
    repository = fill(tmp_path / "out", range(3))
    shard = f"shards/{repository.manifest()['units'][1]['shard']}"
    compact(repository)
    flip(Path(repository.where) / shard / "rgb" / "c.0.0.0.0", 99)
    assert where_found(repository) == {shard}
    assert repair(repository, never).rewritten == (shard,) and where_found(repository) == set()


def test_a_lost_shard_is_rendered_again(tmp_path: Path) -> None:
    import shutil

    repository = fill(tmp_path / "out", range(3))
    shutil.rmtree(Path(repository.where) / "shards" / repository.manifest()["units"][1]["shard"])
    assert [str(f) for f in verify_units(repository)["video-000001"]] == [".: the shard's folder is missing"]
    assert any(f.what == "missing; a version needs it for video-000001" for f in check_structure(repository))
    assert repair(repository, whole_render([])).rendered == ("video-000001",)
    assert where_found(repository) == set()


def test_videos_taken_over_are_rendered_from_their_own_spec(tmp_path: Path) -> None:
    parts = [fill(tmp_path / "a", range(2)), fill(tmp_path / "b", range(3), "b" * 64)]
    both = merge(parts, tmp_path / "both", "both")
    digest = both.manifest()["digest"]
    for entry in both.manifest()["units"][1:4:2]:
        # Linked files are one file: mend must not write through into the other dataset, nor flip it here.
        path = Path(both.where) / "shards" / entry["shard"] / "depth_z" / "c.0.0.0"
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        flip(path, 99)
    calls: list[tuple[str, list[int]]] = []
    assert repair(both, whole_render(calls)).rendered == ("video-000001", "video-000003")
    assert sorted(calls) == [("a" * 64, [1]), ("b" * 64, [1])]
    assert both.manifest()["digest"] == digest and where_found(both) == set()


def test_another_result_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    repository = fill(tmp_path / "out", range(2))
    path = Path(repository.where) / "shards" / repository.manifest()["units"][0]["shard"] / "rgb" / "c.0.0.0.0"
    flip(path, 80)
    before = {p: p.read_bytes() for p in data_files(Path(repository.where))}

    def render(digest: str, spec: dict[str, Any], videos: list[int]) -> Repository:
        other = new_dataset(tmp_path / "other")
        other.add(0, synthetic_video(5), "train")
        return open_repository(other.path)

    with pytest.raises(StoreError, match="video-000000 came out with digest .* this installation renders it differently"):
        repair(repository, render)
    assert {p: p.read_bytes() for p in data_files(Path(repository.where))} == before


def test_when_nothing_says_what_there_was_it_is_said(tmp_path: Path) -> None:
    repository = fill(tmp_path / "out", range(2))
    root = Path(repository.where)
    flip(root / "manifest.json", 1003)
    flip(root / "manifests" / f"{repository.manifest()['digest']}.json", 1003)
    with pytest.raises(StoreError, match="no intact manifest says what the dataset held: restore it from a copy"):
        repair(repository, never)
    other = fill(tmp_path / "other", range(1))
    flip(tmp_path / "other" / "dataset.json", 1003)
    with pytest.raises(StoreError, match="dataset.json is damaged .its checksum does not fit.; restore it from a copy|not JSON|damaged"):
        open_repository(other.where)


def test_odd_units_are_named(tmp_path: Path) -> None:
    dataset = new_dataset(tmp_path / "out")
    dataset.add(0, small_video(0), "train")
    dataset.add(1, synthetic_video(1, modalities=("rgb",)), "train")
    dataset.write_manifest()
    repository = open_repository(dataset.path)
    (finding,) = check_schema(repository, repository.manifest()["units"])
    assert finding.file == f"shards/{dataset.record(1).shard}" and "its modalities differ" in finding.what
    dataset.add(2, small_video(2), "train")
    assert [(f.file, f.what) for f in check_structure(repository)] == [
        (f"commits/{unit_name(2)}.json", "committed, but not in the current version; run the render again")
    ]
