"""Remove what no version needs: mark from the branches and tags, sweep what is older than a grace period.

The grace period protects writers at work: a shard is published before its commit record names it.
"""

import time
from dataclasses import dataclass
from datetime import datetime

from dataengine.errors import StoreError
from dataengine.store.backend import PROBE, Item
from dataengine.store.repository import Repository
from dataengine.store.versions import HEADS, MANIFESTS, branches, forget, load_manifest, read_log, tags

GRACE_S = 14 * 86400.0


@dataclass(frozen=True)
class Garbage:
    """What was, or would be, removed."""

    shards: tuple[str, ...]
    manifests: tuple[str, ...]
    bytes: int


def collect_garbage(repository: Repository, grace_s: float = GRACE_S, dry_run: bool = False, now_s: float | None = None) -> Garbage:
    """Remove shards and manifests that no branch's current version, no tag and no version younger than the grace period uses.

    Older versions leave the branches' logs. Shards of commits that no version holds yet are kept. Raises StoreError when a
    version that counts cannot be read: nothing is removed then.
    """
    if grace_s < 0:
        raise StoreError(f"a grace period of {grace_s:g} s; give 0 or more")
    now = time.time() if now_s is None else now_s
    # Listed before marking: what a writer publishes from now on is not in the lists, so it cannot be swept.
    shards, manifests = repository.backend.items("shards/"), repository.backend.items(MANIFESTS)
    keep, expired = _live_versions(repository, now - grace_s)
    used, packed = set(), set()
    for digest in keep:
        for entry in load_manifest(repository.backend, digest)["units"]:
            used.add(entry["shard"])
            if "start" in entry:
                packed.add((entry["unit"], entry["digest"]))
    for record in repository.records().values():
        if (record.unit, record.digest) not in packed:
            used.add(record.shard)
    old_shards = _unused(shards, used, now - grace_s)
    old_manifests = [i for i in manifests if i.key[len(MANIFESTS) : -5] not in keep and i.modified_s <= now - grace_s]
    names = tuple(sorted({i.key.split("/")[1] for i in old_shards}))
    digests = tuple(i.key[len(MANIFESTS) : -5] for i in old_manifests)
    if not dry_run:
        for branch, drop in expired.items():
            forget(repository.backend, branch, drop)
        repository.backend.delete([i.key for i in old_manifests])
        repository.backend.delete([i.key for i in old_shards])
        repository.backend.delete([i.key for i in repository.backend.items(f"{PROBE}/") if i.modified_s <= now - grace_s])
    return Garbage(names, digests, sum(i.size for i in old_shards) + sum(i.size for i in old_manifests))


def _live_versions(repository: Repository, since_s: float) -> tuple[set[str], dict[str, set[str]]]:
    """(digests that count, {branch: digests that its log drops})."""
    keep = set(tags(repository.backend).values())
    old: dict[str, set[str]] = {}
    names = branches(repository.backend)
    if not names:
        raise StoreError(f"{repository.where} has no branch ({HEADS}); nothing can be told to be unused")
    for branch in names:
        log = read_log(repository.backend, branch)
        keep.add(log[-1]["manifest"])
        young = {e["manifest"] for e in log[:-1] if datetime.fromisoformat(e["when"]).timestamp() > since_s}
        keep |= young
        old[branch] = {e["manifest"] for e in log[:-1]}
    return keep, {branch: drop for branch, digests in old.items() if (drop := digests - keep)}


def _unused(items: list[Item], used: set[str], before_s: float) -> list[Item]:
    """Files of shards that nobody uses and none of whose files is young."""
    by_shard: dict[str, list[Item]] = {}
    for item in items:
        by_shard.setdefault(item.key.split("/")[1], []).append(item)
    dead = [found for name, found in by_shard.items() if name not in used and all(i.modified_s <= before_s for i in found)]
    return [item for found in dead for item in found]
