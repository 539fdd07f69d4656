"""The dataset card: what a dataset holds, covers and may be used for, for people (Markdown) and machines (Croissant).

Everything is read from the dataset itself: versions, lineage, asset hashes and software from the records, distributions from
the labels. Sources: Hugging Face dataset cards (YAML front matter); MLCommons Croissant 1.0 (JSON-LD).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dataengine.errors import StoreError
from dataengine.quality.coverage import Coverage, Histogram, coverage
from dataengine.record.modalities import modality
from dataengine.record.video import Video
from dataengine.store.files import json_bytes
from dataengine.store.repository import Repository
from dataengine.store.versions import read_log, tags

UNKNOWN = "unknown: ask its owner before you publish"

ROBOT_LICENCES = {
    "panda": "Apache-2.0", "xarm7": "BSD-3-Clause", "ur3": "BSD", "ur5": "BSD", "ur10": "BSD", "so100": "Apache-2.0",
    "so101": "Apache-2.0", "z1": "MPL-2.0", "kinova": "BSD",
}  # fmt: skip
"""As the package example-robot-data states them for each description and its meshes."""

ASSET_LICENCES = dict.fromkeys(("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset"), "CC0-1.0")
ASSET_LICENCES |= dict.fromkeys(("brick", "gravel", "grass"), "CC0 or public domain")
"""HDR environments that come with Blender; textures that come with scikit-image."""

_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/",
    "data": {"@id": "cr:data", "@type": "@json"}, "equivalentProperty": "cr:equivalentProperty", "samplingRate": "cr:samplingRate",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField",
    "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip

_VIDEO_FIELDS = {
    "unit": ("sc:Text", "name of the video"),
    "video": ("sc:Integer", "number of the video"),
    "split": ("sc:Text", "train, val, test …"),
    "frames": ("sc:Integer", "frames in the video"),
    "bytes": ("sc:Integer", "stored size"),
    "shard": ("sc:Text", "folder below shards/ that holds it"),
    "digest": ("sc:Text", "sha256 of its content"),
}


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card says."""

    name: str
    licence: str
    manifest: dict[str, Any]
    log: list[dict[str, Any]]
    tags: dict[str, str]
    derived: dict[str, Any] | None
    coverage: Coverage
    modalities: tuple[str, ...]
    sizes: dict[tuple[int, int], int]
    """(height, width) → videos."""
    sources: dict[str, int]
    """rendered or real → videos."""
    robots: dict[str, str]
    """Robot → licence of its description."""
    assets: dict[str, tuple[str, str]]
    """Asset → (sha256, licence)."""
    software: dict[str, tuple[str, ...]]
    """Package → versions that rendered."""


@dataclass
class _Seen:
    """What passes by while the labels are read once."""

    sources: Counter[str] = field(default_factory=Counter)
    robots: dict[str, str] = field(default_factory=dict)
    assets: dict[str, tuple[str, str]] = field(default_factory=dict)
    software: dict[str, set[str]] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()

    def note(self, video: Video, modalities: tuple[str, ...]) -> None:
        said = video.provenance
        self.sources[video.source] += 1
        self.modalities = self.modalities or modalities
        robot = said.get("robot")
        if isinstance(robot, dict) and robot.get("name"):
            name = _shown(str(robot["name"]))
            self.robots[name] = ROBOT_LICENCES.get(name, UNKNOWN)
        for path, sha in (said.get("assets") or {}).items():
            self.assets[_shown(path)] = (str(sha), ASSET_LICENCES.get(path, UNKNOWN))
        packages = {"dataengine": said.get("dataengine")} | (said.get("versions") or {})
        for package, version in packages.items():
            if version:
                self.software.setdefault(package, set()).add(str(version))


def card_facts(repository: Repository, version: str = "main", licence: str = "other") -> CardFacts:
    """Read a version's labels once (no images). Raises StoreError for an empty version."""
    manifest = repository.manifest(version)
    if not manifest["units"]:
        raise StoreError(f"{repository.where} holds no videos; render some before writing its card")
    seen = _Seen()

    def videos() -> Iterator[Video]:
        for entry in manifest["units"]:
            with repository.reader(entry) as reader:
                video = reader.video(modalities=())
                seen.note(video, reader.modalities)
            yield video

    covered = coverage(videos())
    return CardFacts(
        name=repository.name,
        licence=licence,
        manifest=manifest,
        log=read_log(repository.backend),
        tags=tags(repository.backend),
        derived=repository.derived,
        coverage=covered,
        modalities=seen.modalities,
        sizes=dict(Counter((e["size"][0], e["size"][1]) for e in manifest["units"])),
        sources=dict(seen.sources),
        robots=dict(sorted(seen.robots.items())),
        assets=dict(sorted(seen.assets.items())),
        software={name: tuple(sorted(found)) for name, found in sorted(seen.software.items())},
    )


def markdown(facts: CardFacts) -> str:
    """The card as Markdown with the front matter that dataset hubs read."""
    m = facts.manifest
    parts = [
        _front_matter(facts),
        f"# {facts.name}\n\n{_summary(facts)}\n",
        "## Contents\n\n" + _table(("split", "videos", "frames"), _splits(m)),
        _table(("modality", "type", "unit", "meaning"), _modality_rows(facts)),
        "## Distributions\n\n" + _distributions(facts.coverage),
        "## Assets and licences\n\n" + _licences(facts),
        "## Versions\n\n" + _versions(facts),
        "## Lineage\n\n" + _lineage(facts),
        "## Reading it\n\nEvery shard is a zarr v3 group: `zarr.open_group('shards/NAME')`, or "
        "`dataengine.store.dataset.open_dataset(PATH)`. `dataengine ds verify PATH` checks every byte.\n",
    ]
    return "\n".join(parts)


def croissant(facts: CardFacts, url: str = "https://example.org/dataset") -> dict[str, Any]:
    """The card as Croissant 1.0 JSON-LD, to lie beside manifest.json. `url`: where the dataset is published."""
    manifest_sha = hashlib.sha256(json_bytes(facts.manifest)).hexdigest()
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts.name,
        "description": f"{_summary(facts)} Manifest {facts.manifest['digest']}.",
        "license": facts.licence,
        "url": url,
        "version": f"1.{max(len(facts.log) - 1, 0)}.0",
        "datePublished": facts.log[-1]["when"][:10] if facts.log else "1970-01-01",
        "citeAs": f"{facts.name}, manifest {facts.manifest['digest'][:16]}",
        "keywords": ["robotics", "pose estimation", *facts.sources, *facts.robots],
        "isLiveDataset": False,
        "rai:dataCollection": _collection(facts),
        "rai:dataLimitations": "Distributions are those of the sampler or the capture; the card lists them.",
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": "manifest.json", "name": "manifest.json", "contentUrl": "manifest.json",
                "encodingFormat": "application/json", "sha256": manifest_sha, "description": "the videos, their splits and digests",
            },
            {
                "@type": "cr:FileSet", "@id": "shards", "name": "shards", "encodingFormat": "application/octet-stream",
                "includes": "shards/*/**", "description": "zarr v3 groups, one per video or pack of videos",
            },
        ],
        "recordSet": [_videos_record_set(), *([_modalities_record_set(facts)] if facts.modalities else [])],
    }  # fmt: skip


def _videos_record_set() -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field", "@id": f"videos/{name}", "name": name, "description": meaning, "dataType": kind,
            "source": {"fileObject": {"@id": "manifest.json"}, "extract": {"jsonPath": f"$.units[*].{name}"}},
        }
        for name, (kind, meaning) in _VIDEO_FIELDS.items()
    ]  # fmt: skip
    return {"@type": "cr:RecordSet", "@id": "videos", "name": "videos", "description": "one record per video", "field": fields}


def _modalities_record_set(facts: CardFacts) -> dict[str, Any]:
    columns = ("name", "dtype", "unit", "meaning")
    rows = [{c: getattr(modality(n), c) for c in columns} for n in facts.modalities]
    fields = [{"@type": "cr:Field", "@id": f"modalities/{c}", "name": c, "description": c, "dataType": "sc:Text"} for c in columns]
    data = [{f"modalities/{c}": row[c] for c in columns} for row in rows]
    return {
        "@type": "cr:RecordSet", "@id": "modalities", "name": "modalities", "description": "what is stored of every frame",
        "key": {"@id": "modalities/name"}, "field": fields, "data": data,
    }  # fmt: skip


def _front_matter(facts: CardFacts) -> str:
    frames = facts.manifest["frames"]
    size = next((s for s, limit in (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6)) if frames < limit), "n>1M")
    words = [*facts.sources, "robotics", "pose-estimation", "zarr"]
    lines = ["license: " + facts.licence, f"pretty_name: {_quoted(facts.name)}", "task_categories:", "- keypoint-detection"]
    lines += ["- depth-estimation", "- image-segmentation", "tags:", *(f"- {_quoted(w)}" for w in words), "size_categories:", f"- {size}"]
    return "---\n" + "\n".join(lines) + "\n---\n"


def _summary(facts: CardFacts) -> str:
    m = facts.manifest
    sizes = ", ".join(f"{w}×{h}" for h, w in facts.sizes)
    robots = ", ".join(facts.robots) or "no named robot"
    kinds = " and ".join(facts.sources)
    return f"{len(m['units'])} {kinds} videos, {m['frames']} frames of {sizes} px, {m['bytes'] / 1e6:.1f} MB, with {robots}."


def _collection(facts: CardFacts) -> str:
    said = {"rendered": "rendered with Blender from sampled scenes; labels are exact", "real": "captured, and labelled by reconstruction"}
    return "; ".join(f"{n} videos {said.get(kind, kind)}" for kind, n in facts.sources.items())


def _splits(manifest: dict[str, Any]) -> list[tuple[str, ...]]:
    frames: Counter[str] = Counter()
    for entry in manifest["units"]:
        frames[entry["split"]] += entry["frames"]
    return [(split, str(len(videos)), str(frames[split])) for split, videos in sorted(manifest["splits"].items())]


def _modality_rows(facts: CardFacts) -> list[tuple[str, ...]]:
    return [(f"`{m.name}`", m.dtype, m.unit, m.meaning) for m in map(modality, facts.modalities)]


def _distributions(c: Coverage) -> str:
    accepted = f"{c.accepted_frames} of {c.frames} frames passed their checks.\n\n"
    histograms = [c.camera_distance, c.keypoint_visibility, c.link_visibility, c.object_visibility, *c.joints]
    rows = [(h.label, h.unit or "rad or m", f"{h.edges[0]:.3g} … {h.edges[-1]:.3g}", f"{h.filled:.0%}", _bars(h)) for h in histograms]
    out = accepted + _table(("quantity", "unit", "range", "bins filled", "histogram"), rows)
    out += "\n" + _table(("keypoint", "visible", "occluded", "outside"), [(n, *map(str, s)) for n, s in c.keypoint_states.items()])
    if c.categories:
        out += "\nObjects: " + ", ".join(f"{name} {n}" for name, n in c.categories.items()) + ".\n"
    return out


def _bars(h: Histogram) -> str:
    top = max(h.counts) or 1
    return "".join("▁▂▃▄▅▆▇█"[min(7, round(7 * n / top))] if n else "·" for n in h.counts)


def _licences(facts: CardFacts) -> str:
    rows = [(f"robot {name}", "", licence) for name, licence in facts.robots.items()]
    rows += [(name, f"`{sha[:12]}`", licence) for name, (sha, licence) in facts.assets.items()]
    table = _table(("asset", "sha256", "licence"), rows) if rows else "No asset is named in the records.\n"
    made = ", ".join(f"{name} {' / '.join(versions)}" for name, versions in facts.software.items())
    return table + (f"\nMade with {made}.\n" if made else "")


def _versions(facts: CardFacts) -> str:
    named: dict[str, list[str]] = {}
    for tag, digest in facts.tags.items():
        named.setdefault(digest, []).append(tag)
    rows = [
        (f"`{e['manifest'][:12]}`", ", ".join(named.get(e["manifest"], ())), e["when"][:19], e["verb"], str(e["units"]), e["note"])
        for e in reversed(facts.log)
    ]
    said = f"This card describes manifest `{facts.manifest['digest']}`.\n\n"
    return said + (_table(("manifest", "tags", "when (UTC)", "verb", "videos", "note"), rows) if rows else "")


def _lineage(facts: CardFacts) -> str:
    lines = [f"- spec `{facts.manifest['spec_digest']}`"]
    if facts.derived:
        of = ", ".join(f"{p['name']} `{p['manifest'][:12]}`" for p in facts.derived["of"])
        lines.append(f"- {facts.derived['verb']} of {of}" + (f", where {facts.derived['where']}" if "where" in facts.derived else ""))
    origins = Counter(e["origin"][0] for e in facts.manifest["units"] if "origin" in e)
    lines += [f"- {n} videos taken over from spec `{digest[:12]}`" for digest, n in sorted(origins.items())]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in [head, ("---",) * len(head), *rows]]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shown(name: str) -> str:
    """An asset without the folders of the machine that rendered it."""
    return name if name.startswith("package://") else name.rpartition("/")[2]
