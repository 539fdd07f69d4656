"""`dataengine ds …`: versions of datasets, datasets from datasets, and their upkeep; in folders and in buckets alike."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dataengine.commands.text import counted
from dataengine.errors import RenderError, StoreError
from dataengine.store.backend import LocalBackend, is_remote
from dataengine.store.compact import compact
from dataengine.store.curate import append, merge, subset
from dataengine.store.dataset import open_or_create
from dataengine.store.gc import collect_garbage
from dataengine.store.repair import repair
from dataengine.store.repository import Repository, create_repository, open_repository
from dataengine.store.selection import chooser
from dataengine.store.structure import ORPHAN, check_schema, check_structure, verify_older, verify_units
from dataengine.store.verify import Finding
from dataengine.store.versions import diff, read_log, tag, tags

MAX_LINES = 50


def log(location: str) -> int:
    """Versions of `main`, newest first."""
    repository = open_repository(location)
    named: dict[str, list[str]] = {}
    for name, digest in tags(repository.backend).items():
        named.setdefault(digest, []).append(name)
    table = Table("version", "tags", "when (UTC)", "verb", "videos", "frames", "MB", "note")
    for entry in reversed(read_log(repository.backend)):
        numbers = (str(entry["units"]), str(entry["frames"]), f"{entry['bytes'] / 1e6:.1f}")
        names = ", ".join(named.pop(entry["manifest"], ()))
        table.add_row(entry["manifest"][:12], names, entry["when"][:19], entry["verb"], *numbers, entry["note"])
    for digest, names in named.items():
        table.add_row(digest[:12], ", ".join(names), "", "tag only", "", "", "", "")
    _console().print(table)
    return 0


def show_diff(location: str, old: str, new: str) -> int:
    """What version `new` changes of version `old`; exit code 0 either way."""
    repository = open_repository(location)
    a, b = repository.manifest(old), repository.manifest(new)
    change = diff(a, b)
    lines = [f"+ {u}" for u in change.added] + [f"- {u}" for u in change.removed] + [f"~ {u}" for u in change.changed]
    _print_some(_console(), lines)
    moved = f", {len(change.moved)} moved to another shard" if change.moved else ""
    counts = f"{len(change.added)} added, {len(change.removed)} removed, {len(change.changed)} changed{moved}"
    _console().print(f"{a['digest'][:12]} → {b['digest'][:12]}: {counts}")
    return 0


def make_tag(location: str, name: str, version: str) -> int:
    """Give a version a name that stays."""
    digest = tag(open_repository(location, write=True).backend, name, version)
    _console().print(f"{name} is version {digest[:12]}")
    return 0


def append_to(location: str, other: str, version: str, split: str | None, where: str | None, videos: str | None) -> int:
    """Add another dataset's videos as a new version; a bucket without a dataset starts as a copy of its head."""
    source = open_repository(other)
    try:
        target = open_repository(location, write=True)
    except StoreError as error:
        if not (is_remote(location) and "holds no dataset.json" in str(error)):
            raise
        target = create_repository(location, source.name, source.spec, source.spec_digest, source.derived)
    return _say_version(target, append(target, source, version, chooser(split, where, videos)))


def make_subset(location: str, out: str, version: str, split: str | None, where: str | None, videos: str | None) -> int:
    """New dataset of some videos; on one disk without copying."""
    said = [f"{name} {value}" for name, value in (("split", split), ("where", where), ("videos", videos)) if value is not None]
    if not said:
        raise StoreError("say which videos: --split, --where or --videos")
    made = subset(open_repository(location), out, chooser(split, where, videos), ", ".join(said), version)
    return _say_version(made, made.manifest())


def make_merge(locations: Sequence[str], out: str, name: str | None) -> int:
    """New dataset of all videos of several."""
    made = merge([open_repository(location) for location in locations], out, name or out.rstrip("/").rpartition("/")[2])
    return _say_version(made, made.manifest())


def pack(location: str, target_mb: float) -> int:
    """Repack small shards."""
    if not target_mb > 0:
        raise StoreError(f"packs of {target_mb:g} MB; give a size above 0")
    done = compact(open_repository(location, write=True), int(target_mb * 1e6))
    if not done.packs:
        _console().print("nothing to repack: every video is in a pack, larger than the target, or alone of its kind")
        return 0
    _console().print(
        f"{counted(done.units, 'video')}, {done.bytes / 1e6:.1f} MB, in {counted(done.packs, 'pack')}; version {done.manifest[:12]}"
    )
    _console().print("the old shards stay until `dataengine ds gc` finds that no version needs them")
    return 0


def sweep(location: str, grace_days: float, dry_run: bool) -> int:
    """Remove what no version needs."""
    found = collect_garbage(open_repository(location, write=True), grace_days * 86400.0, dry_run)
    _print_some(_console(), [f"shard {name}" for name in found.shards] + [f"version {digest[:12]}" for digest in found.manifests])
    verb = "would be removed" if dry_run else "removed"
    _console().print(f"{len(found.shards)} shards and {len(found.manifests)} versions {verb}, {found.bytes / 1e6:.1f} MB")
    return 0


def verify(location: str, quick: bool) -> int:
    """Every byte (or, with `quick`, sizes and indices). Exit code 1 when anything is damaged."""
    console, repository = _console(), open_repository(location)
    damaged = verify_units(repository, full=not quick)
    structure = check_structure(repository) + ([] if quick else [finding for _, finding in verify_older(repository).values()])
    if not damaged:
        structure += check_schema(repository, repository.manifest()["units"] if repository.units() else ())
    notes = [f for f in structure if f.what == ORPHAN]
    lines = [_located(unit, finding) for unit, findings in damaged.items() for finding in findings]
    lines += [str(f) for f in structure if f.what != ORPHAN]
    _print_some(console, lines)
    _print_some(console, [f"note: {f}" for f in notes])
    total = len(repository.units())
    if lines:
        console.print(
            f"{counted(len(lines), 'finding')}, {len(damaged)} of {total} videos damaged; `dataengine ds repair {location}` mends them"
        )
        return 1
    console.print(f"{counted(total, 'video')}, {'sizes and indices' if quick else 'every byte'} as recorded")
    return 0


def mend(location: str, workers: int | None, serial: bool) -> int:
    """Repair a dataset: derive what can be derived, render again what cannot."""
    console, repository = _console(), open_repository(location, write=True)
    with tempfile.TemporaryDirectory(prefix="dataengine-repair-") as scratch:

        def render(digest: str, spec: dict[str, Any], videos: list[int]) -> Repository:
            console.print(
                f"rendering {counted(len(videos), 'video')} again: {', '.join(map(str, videos[:12]))}{' …' if len(videos) > 12 else ''}"
            )
            return render_again(digest, spec, videos, Path(scratch) / digest, workers, serial, console)

        done = repair(repository, render)
    for name in done.rewritten:
        console.print(f"rewritten: {name}")
    counts = f"{counted(len(done.rendered), 'video')} rendered again, {counted(len(done.rewritten), 'file')} rewritten"
    console.print(f"{counts}; version {done.manifest[:12]} as before")
    return 0


def render_again(
    digest: str, spec: dict[str, Any], videos: list[int], out: Path, workers: int | None, serial: bool, console: Console
) -> Repository:
    """Scratch dataset of the given videos of a spec. Raises RenderError, StoreError (a spec that is no preset's)."""
    from pydantic import ValidationError

    from dataengine.commands.render import check_machine, make_executor, quarantine_in
    from dataengine.config.spec import DatasetSpec
    from dataengine.render.driver import Callbacks, run_units
    from dataengine.render.progress import Progress
    from dataengine.worker import load_ready_robot

    try:
        parsed = DatasetSpec.model_validate(spec)
    except ValidationError:
        raise StoreError(f"spec {digest[:12]} is not a preset's, so these videos cannot be rendered; restore them from a copy") from None
    if parsed.digest() != digest:
        raise StoreError(f"spec {digest[:12]} means something else in this release; repair with the release that rendered it")
    check_machine()
    load_ready_robot(parsed)
    dataset = open_or_create(out, spec, digest, parsed.name)
    progress = Progress(len(videos), 0, parsed.frames, out, console)
    callbacks = Callbacks(
        request=lambda video: {"video": video, "dataset": str(dataset.path.resolve())}, quarantined=quarantine_in(dataset)
    )
    run_units(videos, make_executor(parsed, workers, serial), parsed.limits, progress, callbacks)
    for unit, record in dataset.quarantined().items():
        raise RenderError(f"{unit} could not be rendered again: {record['reason']}")
    return open_repository(out)


def card(location: str, out: Path | None, licence: str, url: str, version: str) -> int:
    """Write README.md and croissant.json beside a local dataset, or into `out`."""
    from dataengine.quality.card import card_facts, croissant, markdown
    from dataengine.store.files import json_bytes

    repository = open_repository(location)
    local = repository.backend.root if isinstance(repository.backend, LocalBackend) else None
    folder = out or local
    if folder is None:
        raise StoreError(f"{location} is not on this machine; say with --out where the card goes")
    facts = card_facts(repository, version, licence)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(markdown(facts), encoding="utf-8")
        (folder / "croissant.json").write_bytes(json_bytes(croissant(facts, url)))
    except OSError as error:
        raise StoreError(f"cannot write the card into {folder}: {error.strerror}; choose another folder with --out") from None
    _console().print(f"{folder / 'README.md'}, {folder / 'croissant.json'}")
    return 0


def _located(unit: str, finding: Finding) -> str:
    """`unit field frame: what`, the sample first."""
    frame = "" if finding.frame is None else f" frame {finding.frame}"
    return f"{unit} {finding.field or finding.file}{frame}: {finding.what} ({finding.file})"


def _say_version(repository: Repository, manifest: dict[str, Any]) -> int:
    totals = f"{counted(len(manifest['units']), 'video')}, {counted(manifest['frames'], 'frame')}, {manifest['bytes'] / 1e6:.1f} MB"
    _console().print(f"{repository.where}: {totals}, version {manifest['digest'][:12]}")
    return 0


def _print_some(console: Console, lines: list[str]) -> None:
    for line in lines[:MAX_LINES]:
        console.print(line, markup=False)
    if len(lines) > MAX_LINES:
        console.print(f"… and {len(lines) - MAX_LINES} more")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
