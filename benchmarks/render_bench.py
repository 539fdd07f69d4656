"""`make bench-render`: measure the sections named (all by default), keep them in docs/benchmarks/render.json, write render.md.

Sections can be run one at a time and in any order; the page shows what there is. Unfinished runs go on from build/bench-render.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/render_bench.py` finds the package `benchmarks`

# As in a render worker: threads of the algebra library that wait by spinning would count as CPU time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks import dataset_runs, equal_quality  # noqa: E402
from benchmarks.render_page import page  # noqa: E402

WORK = ROOT / "build" / "bench-render"
RESULTS = ROOT / "docs" / "benchmarks" / "render.json"
PAGE = RESULTS.with_suffix(".md")


def measure_sensor(_work: Path) -> dict[str, Any]:
    """Walls, shadows, robot scenes, CPU time of the simulated depth camera."""
    from benchmarks import sensor_bench

    return sensor_bench.measure()


SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "help": dataset_runs.measure_help,
    "sensor": measure_sensor,
    "references": equal_quality.measure_references,
    "stock": equal_quality.measure_stock,
    "ours": equal_quality.measure_ours,
    "two threads": equal_quality.measure_two_threads,
    "workers": dataset_runs.measure_workers,
    "infrared": dataset_runs.measure_infrared,
    "memory": dataset_runs.measure_memory,
    "forecast": dataset_runs.measure_forecast,
    "clone": dataset_runs.measure_clone,
    "kills": dataset_runs.measure_kills,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {"cpu": (names or [platform.machine()])[0], "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d"), "commit": commit}


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def merge(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Store one section's result and write the page; returns all results."""
    results = load() | {name: result, "machine": machine()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False, default=float) + "\n")
    PAGE.write_text(page(results))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default all; `page` only writes the page"
    )
    chosen = parser.parse_args().sections or list(SECTIONS)
    unknown = sorted(set(chosen) - set(SECTIONS) - {"page"})
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    if chosen == ["page"]:
        PAGE.write_text(page(load()))
        return
    for name in chosen:
        begin = time.monotonic()
        merge(name, SECTIONS[name](WORK))
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
