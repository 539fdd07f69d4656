"""A dataset folder: immutable shards, one commit record per video, and a manifest that folds them.

    dataset.json                      spec identity, digest, name; created once
    staging/<unit>/<attempt>/         a shard being written; the attempt's name tells its process
    shards/<unit>-<digest12>/         published shards
    commits/<unit>.json               created once: this shard IS video <unit>
    quarantine/<unit>.json            videos given up, with the reason
    damaged/                          what a check moved aside
    manifests/<digest>.json           every version: a fold of the commits; never changes
    refs/heads/, refs/tags/           which version is current, and how it came about (`store.versions`)
    manifest.json                     copy of the current version, for tools that read one file
    specs/<digest>.json               specs of datasets whose videos were taken over (only then)

Execution is at-least-once (workers die, units run twice); the visible effect is exactly-once, because a shard appears by
one rename of a synced folder and counts only through a commit record that the first writer creates. Any process may be
killed at any instant; the same command then goes on.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataengine.errors import StoreError
from dataengine.record.video import Video
from dataengine.store import files
from dataengine.store.backend import LocalBackend
from dataengine.store.commits import CommitRecord, commit_bytes, describe_shard, fold, manifest_digest, read_commit, shard_name, unit_name
from dataengine.store.packs import open_unit, verify_packs
from dataengine.store.shard import SCHEMA_VERSION, ShardReader, newer_schema, shard_digest, write_shard
from dataengine.store.verify import Finding, check_indices, compare_files, verify_shard
from dataengine.store.versions import advance, is_sealed, sealed, trusted_entries

FORMAT = "dataengine dataset"
_STAGE_TRIES = 100
FOLDERS = ("staging", "shards", "commits", "quarantine", "manifests", "refs", "refs/heads", "refs/tags")


@dataclass(frozen=True)
class Damage:
    """A committed video that a check took back: its unit, what was found, where its files are now."""

    unit: str
    findings: tuple[Finding, ...]
    moved_to: str


@dataclass(frozen=True)
class Dataset:
    """An open dataset folder. Plain values: pickle it into workers. `planned` is the number of videos the run wants."""

    path: Path
    name: str
    spec: dict[str, Any]
    spec_digest: str
    planned: int | None = None
    derived: dict[str, Any] | None = None
    """How a subset or merge came about; None for a dataset that is rendered or imported."""

    @property
    def backend(self) -> LocalBackend:
        """The folder as a place for objects."""
        return LocalBackend(self.path)

    # ---- writing -------------------------------------------------------------------------------------------------

    def stage(self, unit: str) -> Path:
        """A new empty folder for one attempt at `unit`, owned by this process."""
        with self.counting_safe():
            path = self.path / "staging" / unit / files.owner_name()
            with files.reported(path):
                for _ in range(_STAGE_TRIES):
                    # Between the unit's folder and ours in it, a racer that is done with the unit may remove the empty former.
                    with contextlib.suppress(FileNotFoundError):
                        path.mkdir(parents=True)
                        return path
                path.mkdir(parents=True)
                return path

    def publish(self, unit: str, staged: Path, digest: str, reproducible: bool = True) -> Path:
        """Move a staged shard to its final name, put-if-absent; returns that folder.

        The same content published before: ours is dropped. Other content for this unit: StoreError naming both digests,
        unless the renderer is known not to be `reproducible` here; the commit record then decides which one counts.
        """
        target = self.path / "shards" / shard_name(unit, digest)
        with self.counting_safe(), files.reported(target):
            others = [p.name for p in target.parent.glob(f"{unit}-*") if p != target]
            if others and reproducible:
                raise StoreError(
                    f"{unit} was rendered twice with different results: {others[0]} exists, the new one is {target.name}; "
                    "the renderer is not deterministic on this machine"
                )
            if target.exists() and shard_digest(target) != digest:
                files.move_to_free_name(target, self.path / "damaged")
            if target.exists():
                shutil.rmtree(staged)
                for path in target.rglob("*"):
                    os.utime(path)  # fresh again: a garbage collection that runs now must not take it
            else:
                self._rename_shard(staged, target)
            files.sync(target.parent)
        self._drop_empty(unit)
        return target

    def commit(self, record: CommitRecord, reproducible: bool = True) -> CommitRecord:
        """Make a published shard the unit's video, create-if-absent; returns the winner's record, which may be another's.

        Raises StoreError when the winner's content differs (and the renderer is `reproducible`).
        """
        shard = self.path / "shards" / record.shard
        if not shard.is_dir():
            raise StoreError(f"{record.unit}: {shard} was not published; publish the shard before committing it")
        with self.counting_safe():
            path = self._commit_path(record.unit)
            won = files.create_once(path, commit_bytes(record), self.path / "staging")
        winner = record if won else read_commit(path)
        if winner.digest != record.digest and reproducible:
            raise StoreError(
                f"{record.unit} was rendered twice with different results: digest {winner.digest[:12]} is committed, the new "
                f"one is {record.digest[:12]}; the renderer is not deterministic on this machine"
            )
        (self.path / "quarantine" / f"{record.unit}.json").unlink(missing_ok=True)
        return winner

    def add(self, index: int, video: Video, split: str, stats: dict[str, Any] | None = None, reproducible: bool = True) -> CommitRecord:
        """Stage, write with the codec profile `spec["codecs"]`, read back, publish and commit one video; returns the winning record."""
        unit = unit_name(index)
        staged = self.stage(unit)
        try:
            with self.counting_safe():
                write_shard(staged, video, str(self.spec.get("codecs", "portable")))
            record = describe_shard(staged, index, split, stats)
            if findings := verify_shard(staged):
                raise StoreError(f"{unit}: what was written does not read back: {findings[0]}; check the disk")
            self.publish(unit, staged, record.digest, reproducible)
        finally:
            self.discard(unit, staged)
        return self.commit(record, reproducible)

    def discard(self, unit: str, staged: Path) -> None:
        """Remove an attempt that will not be published; nothing happens when it is gone."""
        shutil.rmtree(staged, ignore_errors=True)
        self._drop_empty(unit)

    def quarantine(self, unit: str, reason: str, attempts: int, log_tail: str) -> None:
        """Record that `unit` is given up, and why."""
        record = {"unit": unit, "reason": reason, "attempts": attempts, "log_tail": log_tail}
        with self.counting_safe():
            files.replace(self.path / "quarantine" / f"{unit}.json", files.json_bytes(record), self.path / "staging")

    def release(self, unit: str) -> None:
        """Take a unit out of quarantine, so that it is pending again."""
        (self.path / "quarantine" / f"{unit}.json").unlink(missing_ok=True)

    def write_manifest(self, verb: str = "render", note: str = "") -> dict[str, Any]:
        """Fold the commits into a new version of branch `main`, by compare-and-swap; returns the manifest."""

        def build(current: dict[str, Any] | None) -> dict[str, Any]:
            placed = {entry["unit"]: entry for entry in current["units"]} if current else {}
            return fold(self.name, self.spec_digest, self.committed().values(), placed)

        with self.counting_safe():
            manifest = advance(self.backend, build, verb, note)
        # Another process may have committed between our fold and its own, which then found nothing new: fold again.
        return manifest if len(self.videos()) == len(manifest["units"]) else self.write_manifest(verb, note)

    def clean_staging(self, everything: bool = False) -> list[str]:
        """Remove attempts of processes of this host that have ended, or all where the caller knows that nobody works."""
        staging = self.path / "staging"
        removed = []
        for path in [p for p in staging.iterdir() if p.is_file()] + list(staging.glob("*/*")):
            if everything or files.owner_is_gone(path.name.removeprefix("tmp.")):
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
                removed.append(path.relative_to(staging).as_posix())
        for folder in staging.iterdir():
            self._drop_empty(folder.name)
        return removed

    def check_existing(self, full: bool = False) -> list[Damage]:
        """Check every committed shard (sizes and indices; with `full` every byte) and take damaged ones back.

        Their commit record and files move to `damaged/`, never deleted, and the unit is pending again.
        """
        damages = [self._take_back(unit, found) for unit, found in self.verify(full).items()]
        if damages and (self.path / "manifest.json").exists():
            self.write_manifest("take back", ", ".join(d.unit for d in damages))
        return damages

    # ---- reading -------------------------------------------------------------------------------------------------

    def verify(self, full: bool = True) -> dict[str, tuple[Finding, ...]]:
        """{unit: findings} of every damaged committed video. Changes nothing."""
        try:
            packed = self.packed()
        except StoreError:  # all manifests are damaged, which the structural check says; the shards can still be checked
            packed = {}
        in_packs = verify_packs(self.path, packed.values(), full, self._recorded(packed))
        found = {unit: (*in_packs.get(unit, ()), *self._findings(unit, full, unit in packed)) for unit in self.videos()}
        return {unit: findings for unit, findings in found.items() if findings}

    def videos(self) -> list[str]:
        """Committed units, sorted."""
        return sorted(p.stem for p in (self.path / "commits").glob("video-*.json"))

    def committed(self) -> dict[str, CommitRecord]:
        """{unit: record} of every commit, sorted."""
        return {unit: read_commit(self._commit_path(unit)) for unit in self.videos()}

    def quarantined(self) -> dict[str, dict[str, Any]]:
        """{unit: reason, attempts, log_tail} of the videos given up."""
        paths = sorted((self.path / "quarantine").glob("video-*.json"))
        return {p.stem: files.read_json(p, "a quarantine record; remove it to render the video again") for p in paths}

    def pending(self, videos: int) -> list[int]:
        """Indices below `videos` that are neither committed nor quarantined."""
        done = set(self.videos()) | self.quarantined().keys()
        return [index for index in range(videos) if unit_name(index) not in done]

    def record(self, video: int) -> CommitRecord:
        """Commit record of one video. Raises StoreError when it is not committed."""
        unit = unit_name(video)
        if not self._commit_path(unit).exists():
            raise StoreError(f"{self.path} has no video {video}; {self._available()}")
        return read_commit(self._commit_path(unit))

    def reader(self, video: int) -> ShardReader:
        """Lazy reader of one committed video, in its own shard or in a pack. Raises StoreError when there is none."""
        record = self.record(video)
        shard = self.path / "shards" / record.shard
        if not shard.is_dir() and (entry := self.packed().get(record.unit)):
            return open_unit(self.path, entry)
        return ShardReader(shard)

    def packed(self) -> dict[str, dict[str, Any]]:
        """{unit: manifest entry} of the committed videos that the current version keeps in packs."""
        return {entry["unit"]: entry for entry in trusted_entries(self.backend) if "start" in entry}

    def manifest(self) -> dict[str, Any]:
        """The manifest as last written. Raises StoreError when it is missing, damaged or of a newer release."""
        path = self.path / "manifest.json"
        manifest = files.read_json(path, "the manifest; run the render again, which writes it")
        if manifest.get("schema_version", 0) > SCHEMA_VERSION:
            raise StoreError(newer_schema(path, manifest["schema_version"]))
        if manifest.get("digest") != manifest_digest(manifest):
            raise StoreError(f"{path} is damaged (its digest does not fit); run the render again, which writes it anew")
        return manifest

    @contextmanager
    def counting_safe(self) -> Iterator[None]:
        """Complete a DiskFull of the body with how many videos are safe."""
        try:
            yield
        except files.DiskFull as error:
            raise files.DiskFull(error.path, len(self.videos()), self.planned) from error

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _commit_path(self, unit: str) -> Path:
        return self.path / "commits" / f"{unit}.json"

    def _recorded(self, units: Iterable[str]) -> dict[str, dict[str, tuple[int, str]]]:
        """{unit: files} of the records that can be read."""
        found = {}
        for unit in units:
            with suppress(StoreError):
                found[unit] = read_commit(self._commit_path(unit)).files
        return found

    def _available(self) -> str:
        units = self.videos()
        return f"{len(units)} are committed, {units[0]} to {units[-1]}" if units else "none is committed yet"

    def _rename_shard(self, staged: Path, target: Path) -> None:
        try:
            os.rename(staged, target)
        except OSError:
            # A racer published the same content between our look and our rename: a full folder is never overwritten.
            if not target.is_dir():
                raise
            shutil.rmtree(staged)

    def _drop_empty(self, unit: str) -> None:
        try:
            os.rmdir(self.path / "staging" / unit)
        except OSError:  # another attempt works in it, or it is gone
            return

    def _findings(self, unit: str, full: bool, packed: bool) -> list[Finding]:
        try:
            record = read_commit(self._commit_path(unit))
        except StoreError as error:
            return [Finding(f"commits/{unit}.json", "", None, str(error))]
        if packed:
            return []
        shard = self.path / "shards" / record.shard
        changed = compare_files(shard, record.files, hashes=full)
        if not shard.is_dir():
            return changed
        inside = verify_shard(shard) if full else check_indices(shard, record.files, record.frames)
        located = {finding.file for finding in inside}
        return inside + [finding for finding in changed if finding.file not in located]

    def _take_back(self, unit: str, findings: tuple[Finding, ...]) -> Damage:
        # First the record: if we die in between, the shard counts for nothing and publish() replaces it.
        damaged = self.path / "damaged"
        moved = files.move_to_free_name(self._commit_path(unit), damaged)
        for shard in sorted((self.path / "shards").glob(f"{unit}-*")):
            moved = files.move_to_free_name(shard, damaged)
        return Damage(unit, findings, str(moved))


def open_dataset(path: str | Path) -> Dataset:
    """Open an existing dataset for reading; writes nothing. Raises StoreError."""
    root = Path(path)
    if not root.exists():
        raise StoreError(f"{root} does not exist; give the folder of a dataset, one that holds dataset.json")
    where = root / "dataset.json"
    if not where.is_file():
        raise StoreError(f"{root} is not a dataset: it holds no dataset.json")
    head = files.read_json(where, "the head of a dataset; restore it from a copy")
    check_head(head, str(root))
    return Dataset(root, head["name"], head["spec"], head["spec_digest"], derived=head.get("derived"))


def check_head(head: dict[str, Any], where: str) -> None:
    """Raise StoreError unless `head` is an undamaged dataset.json of this or an older release."""
    if head.get("format") != FORMAT or not isinstance(head.get("schema_version"), int):
        raise StoreError(f"{where}/dataset.json is not the head of a dataset of this project")
    if head["schema_version"] > SCHEMA_VERSION:
        raise StoreError(newer_schema(Path(where), head["schema_version"]))
    if "checksum" in head and not is_sealed(head):
        raise StoreError(f"{where}/dataset.json is damaged (its checksum does not fit); restore it from a copy")


def open_or_create(
    path: str | Path,
    spec_identity: dict[str, Any],
    digest: str,
    name: str,
    planned: int | None = None,
    derived: dict[str, Any] | None = None,
) -> Dataset:
    """Open the dataset of exactly this spec for writing, creating it where the folder is new, empty or half-created.

    `derived` says how a subset or merge comes about; such a dataset is not rendered into.
    Raises StoreError: not a folder, foreign content, another spec (both digests), a newer schema, not writable.
    """
    root = Path(path)
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root} is a file; give a folder for the dataset")
    staging = root / "staging"
    with files.reported(root):
        foreign = sorted(p.name for p in root.iterdir() if p.name != "staging") if root.is_dir() else []
        if foreign and not (root / "dataset.json").exists():
            raise StoreError(f"{root} is not a dataset and not empty (it holds {foreign[0]}); choose another output folder")
        staging.mkdir(parents=True, exist_ok=True)
    head = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "name": name, "spec": spec_identity, "spec_digest": digest}
    # Also for an existing dataset: writing and linking a file is the only honest test that the folder is writable.
    content = head if derived is None else head | {"derived": derived}
    files.create_once(root / "dataset.json", files.json_bytes(sealed(content)), staging)
    found = open_dataset(root)
    if found.spec_digest != digest:
        raise StoreError(
            f"{root} holds dataset '{found.name}' of spec {found.spec_digest[:12]}, but this spec is {digest[:12]}; "
            "choose another output folder, or use the preset it was made with"
        )
    if found.derived != derived:
        how = found.derived["verb"] if found.derived else "rendered"
        raise StoreError(f"{root} holds another dataset of the same spec ({how}); choose another output folder")
    with files.reported(root):
        for folder in FOLDERS:
            (root / folder).mkdir(exist_ok=True)
    return Dataset(root, found.name, found.spec, found.spec_digest, planned, derived)
