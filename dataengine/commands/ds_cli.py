"""Arguments of `dataengine ds …`; each verb imports what it needs when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg, subcommand

Place = Annotated[Positional[str], arg(metavar="DATASET", help="folder, or s3://BUCKET/PREFIX")]
Out = Annotated[Positional[str], arg(metavar="OUT", help="new folder, or s3://BUCKET/PREFIX")]
Version = Annotated[str, arg(help="branch, tag, or the beginning of a digest")]
Split = Annotated[str | None, arg(help="only this split")]
Where = Annotated[str | None, arg(metavar="CONDITION", help="e.g. \"video < 100 and split == 'train'\"")]
Videos = Annotated[str | None, arg(metavar="LIST", help="e.g. 3,7,10-19")]


@dataclass
class Log:
    """Versions of a dataset, newest first."""

    dataset: Place

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.log(self.dataset)


@dataclass
class Diff:
    """Which videos one version adds to, removes from or changes of another."""

    dataset: Place
    old: Annotated[Positional[str], arg(metavar="OLD")]
    new: Annotated[Positional[str], arg(metavar="NEW")] = "main"

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.show_diff(self.dataset, self.old, self.new)


@dataclass
class Tag:
    """Give a version a name that stays."""

    dataset: Place
    name: Annotated[Positional[str], arg(metavar="NAME")]
    version: Version = "main"

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.make_tag(self.dataset, self.name, self.version)


@dataclass
class Append:
    """Add the videos of another dataset; also the way to copy a dataset into a bucket."""

    dataset: Place
    other: Annotated[Positional[str], arg(metavar="OTHER", help="dataset to take videos from")]
    version: Version = "main"
    split: Split = None
    where: Where = None
    videos: Videos = None

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.append_to(self.dataset, self.other, self.version, self.split, self.where, self.videos)


@dataclass
class Subset:
    """New dataset of some videos; on one disk without copying."""

    dataset: Place
    out: Out
    version: Version = "main"
    split: Split = None
    where: Where = None
    videos: Videos = None

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.make_subset(self.dataset, self.out, self.version, self.split, self.where, self.videos)


@dataclass
class Merge:
    """New dataset of all videos of several, renumbered."""

    out: Out
    datasets: Annotated[Positional[tuple[str, ...]], arg(metavar="DATASET", help="two or more datasets")]
    name: Annotated[str | None, arg(help="name of the new dataset; default: its folder's")] = None

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.make_merge(self.datasets, self.out, self.name)


@dataclass
class Compact:
    """Repack small shards into larger ones, without decoding."""

    dataset: Place
    target_mb: Annotated[float, arg(help="size of a pack")] = 64.0

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.pack(self.dataset, self.target_mb)


@dataclass
class Gc:
    """Remove shards and versions that no branch, tag or recent version needs."""

    dataset: Place
    grace_days: Annotated[float, arg(help="keep what is younger")] = 14.0
    dry_run: Annotated[bool, arg(help="only say what would go")] = False

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.sweep(self.dataset, self.grace_days, self.dry_run)


@dataclass
class Verify:
    """Find every damaged byte and say which video, field and frame it belongs to."""

    dataset: Place
    quick: Annotated[bool, arg(help="sizes and indices only")] = False

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.verify(self.dataset, self.quick)


@dataclass
class Repair:
    """Mend a dataset: derive what can be derived, render again what cannot."""

    dataset: Place
    workers: Annotated[int | None, arg(help="render processes; default: one per core")] = None
    serial: Annotated[bool, arg(help="no Ray: one process after another")] = False

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.mend(self.dataset, self.workers, self.serial)


@dataclass
class Card:
    """Write a dataset card: README.md and croissant.json."""

    dataset: Place
    out: Annotated[Path | None, arg(help="folder to write into; default: the dataset's")] = None
    licence: Annotated[str, arg(help="licence of the dataset, as an SPDX name or address")] = "other"
    url: Annotated[str, arg(help="where it is published")] = "https://example.org/dataset"
    version: Version = "main"

    def run(self) -> int:
        from dataengine.commands import ds

        return ds.card(self.dataset, self.out, self.licence, self.url, self.version)


Verb = (
    Annotated[Log, subcommand("log")]
    | Annotated[Diff, subcommand("diff")]
    | Annotated[Tag, subcommand("tag")]
    | Annotated[Append, subcommand("append")]
    | Annotated[Subset, subcommand("subset")]
    | Annotated[Merge, subcommand("merge")]
    | Annotated[Compact, subcommand("compact")]
    | Annotated[Gc, subcommand("gc")]
    | Annotated[Verify, subcommand("verify")]
    | Annotated[Repair, subcommand("repair")]
    | Annotated[Card, subcommand("card")]
)


@dataclass
class Ds:
    """Versions, subsets, merges, packs, checks, repair and cards of datasets."""

    verb: Verb

    def run(self) -> int:
        return self.verb.run()
