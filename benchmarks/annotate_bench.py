"""Annotation against exact truth and against the first-frame method: `make bench-annotate`.

Renders and exports the captures that are not there yet (their packages stay apart: commands are chained), measures each once, and writes
docs/benchmarks/annotate.json and .md. Interrupt it at will: captures that are measured are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

PRESETS = HERE / "render_configs" / "captures"
PAGE = HERE / "docs" / "benchmarks" / "annotate.md"


def rendered(work: Path) -> list[Path]:
    """Captures' YAMLs, rendered and exported where missing."""
    for preset in sorted(PRESETS.glob("*.yaml")):
        out = work / "captures" / preset.stem
        if preset.stem == "base" or list(out.glob("*/capture.yaml")) or (out / "capture.yaml").is_file():
            continue
        dataset = work / "renders" / preset.stem
        for command in (["render", str(preset), "--out", str(dataset)], ["export", str(dataset), "capture", "--out", str(out)]):
            subprocess.run([sys.executable, "-m", "dataengine.cli", *command], check=True, cwd=HERE)
    return sorted((work / "captures").glob("**/capture.yaml"))


def measure(paths: list[Path], work: Path) -> dict[str, Any]:
    """Results by capture; each is kept in a file as soon as it is there."""
    from benchmarks.annotate.runs import measure_clip

    results = {}
    for path in paths:
        key = "-".join(path.parent.parts[-2:]) if path.parent.parent.name != "captures" else path.parent.name
        kept = work / "results" / f"{key}.json"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            scratch = work / "scratch" / key
            scratch.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(measure_clip(path, scratch), indent=1))
            part.replace(kept)
        results[key] = json.loads(kept.read_text())
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "out" / "bench-annotate", help="renders, captures and results")
    parser.add_argument("--captures", type=Path, nargs="*", help="capture.yaml files with truth.json beside them, instead of rendering")
    parser.add_argument("--page-only", action="store_true", help="only write the page from docs/benchmarks/annotate.json")
    given = parser.parse_args()
    from benchmarks.annotate.page import page

    data = PAGE.with_suffix(".json")
    results = json.loads(data.read_text()) if data.is_file() else {}
    if not given.page_only:
        paths = given.captures or rendered(given.work)
        results["clips"] = measure(list(paths), given.work)
        if "DATAENGINE_CAPTURES" in os.environ:
            from benchmarks.annotate.real import measure_real

            results["real"] = measure_real(given.work / "real")
        data.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
