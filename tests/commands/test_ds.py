"""The verbs of `dataengine ds` as they are typed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

from dataengine.cli import run
from dataengine.commands import ds
from dataengine.commands.ds_cli import Ds
from dataengine.store.dataset import open_or_create
from dataengine.store.repository import Repository, open_repository
from tests.store.test_repair import flip, whole_render
from tests.store.test_versions import fill, small_video

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Run one command line: (exit code, everything that it printed)."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> tuple[int, str]:
        config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
        command = tyro.cli(Ds, args=[str(w) for w in words], config=config)
        code = run(command.run)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_a_dataset_through_its_life(typed: Typed, tmp_path: Path) -> None:
    a, b = fill(tmp_path / "a", range(5)), fill(tmp_path / "b", range(2), "b" * 64)
    first = a.manifest()["digest"][:12]
    assert typed("tag", a.where, "v1") == (0, f"v1 is version {first}\n")
    code, said = typed("append", a.where, b.where)
    assert code == 0 and f"{a.where}: 7 videos" in said
    code, said = typed("diff", a.where, "v1")
    assert code == 0 and "+ video-1000001" in said and "2 added, 0 removed, 0 changed" in said
    total_mb = sum(entry["bytes"] for entry in a.manifest()["units"]) / 1e6
    code, said = typed("compact", a.where, "--target-mb", str(0.6 * total_mb))
    assert code == 0 and "in 2 packs; version" in said
    code, said = typed("log", a.where)
    assert [word in said for word in ("render", "append", "compact", "v1", first)] == [True] * 5
    assert typed("gc", a.where, "--dry-run") == (0, "0 shards and 0 versions would be removed, 0.0 MB\n")
    code, said = typed("gc", a.where, "--grace-days", "0")
    assert code == 0 and "2 shards and 1 versions removed" in said, "the tag keeps the first five"
    code, said = typed("subset", a.where, tmp_path / "part", "--where", "video<3", "--split", "train")
    assert code == 0 and "part: 3 videos" in said
    code, said = typed("merge", tmp_path / "both", tmp_path / "part", b.where)
    assert code == 0 and "both: 5 videos" in said
    for place in (a.where, tmp_path / "part", tmp_path / "both"):
        code, said = typed("verify", place)
        assert code == 0 and "every byte as recorded" in said
    code, said = typed("card", tmp_path / "both", "--licence", "cc-by-4.0")
    assert code == 0 and (tmp_path / "both" / "README.md").read_text().startswith("---\nlicense: cc-by-4.0\n")
    assert (tmp_path / "both" / "croissant.json").exists()
    assert typed("verify", tmp_path / "both")[0] == 0, "a card is no damage"


def test_damage_is_named_and_mended(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = fill(tmp_path / "out", range(3))
    entry = repository.manifest()["units"][1]
    flip(tmp_path / "out" / "shards" / entry["shard"] / "depth_z" / "c.0.0.0", 80)
    code, said = typed("verify", repository.where)
    assert code == 1 and said.startswith("video-000001 depth_z frame 0: crc32c is ")
    assert f"1 finding, 1 of 3 videos damaged; `dataengine ds repair {repository.where}` mends them" in said
    calls: list[tuple[str, list[int]]] = []
    again = whole_render(calls)

    def instead(digest: str, spec: dict[str, Any], videos: list[int], *_: object) -> Repository:
        return again(digest, spec, videos)

    monkeypatch.setattr(ds, "render_again", instead)
    code, said = typed("repair", repository.where)
    assert code == 0 and calls == [("a" * 64, [1])]
    assert f"1 video rendered again, 0 files rewritten; version {repository.manifest()['digest'][:12]} as before" in said
    assert typed("verify", repository.where) == (0, "3 videos, every byte as recorded\n")
    shutil.copytree(tmp_path / "out" / "shards" / entry["shard"], tmp_path / "out" / "shards" / "video-000077-0123456789ab")
    code, said = typed("verify", repository.where, "--quick")
    assert code == 0 and "note: shards/video-000077-0123456789ab: orphaned" in said


def test_videos_of_no_preset_cannot_be_rendered(typed: Typed, tmp_path: Path) -> None:
    dataset = open_or_create(tmp_path / "out", {"capture": "kitchen"}, "a" * 64, "kitchen")
    shard = dataset.add(0, small_video(0), "train").shard
    dataset.write_manifest()
    flip(dataset.path / "shards" / shard / "rgb" / "c.0.0.0.0", 80)
    code, said = typed("repair", dataset.path)
    assert code == 2 and "is not a preset's, so these videos cannot be rendered; restore them from a copy" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("log", "{}/nothing"), "does not exist"),
        (("verify", "{}"), "holds no dataset.json"),
        (("tag", "{}/out", "a/b"), "cannot name a version"),
        (("diff", "{}/out", "v9"), "unknown version 'v9'"),
        (("subset", "{}/out", "{}/part"), "say which videos: --split, --where or --videos"),
        (("subset", "{}/out", "{}/part", "--where", "vidoe<3"), "unknown field 'vidoe' (did you mean 'video'?)"),
        (("compact", "{}/out", "--target-mb", "0"), "packs of 0 MB; give a size above 0"),
        (("gc", "{}/out", "--grace-days", "-1"), "a grace period of"),
        (("merge", "{}/both", "{}/out"), "at least two datasets"),
        (("append", "gs://bucket/x", "{}/out"), "unknown kind of store 'gs'"),
        (("card", "{}/out", "--out", "{}/out/dataset.json"), "cannot write the card"),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(words: tuple[str, ...], said: str, typed: Typed, tmp_path: Path) -> None:
    fill(tmp_path / "out", range(2))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    code, printed = typed(*(w.replace("{}", str(tmp_path)) for w in words))
    assert code == 2 and printed.startswith("error: ") and said in printed and printed.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_repair_needs_the_same_release(tmp_path: Path) -> None:
    from rich.console import Console

    from dataengine.config.loader import load_spec
    from dataengine.errors import StoreError

    spec = load_spec("smoke", ()).model_dump(mode="json", exclude={"videos", "limits"})
    with pytest.raises(StoreError, match="means something else in this release"):
        ds.render_again("e" * 64, spec, [0], tmp_path / "x", None, True, Console())
    assert open_repository(fill(tmp_path / "out", range(1)).where).units() == ["video-000000"]
