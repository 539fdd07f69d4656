"""Kill a render at random, again and again, and see whether its dataset cares.

    python -m benchmarks.kill_storm --dataset out/storm --kills 60 --seed 0 -- dataengine render smoke --out out/storm

Starts the command, sends SIGKILL to random processes of its tree (driver, Ray worker, zygote, fork, raylet, Ray's control
process) at random moments spread over its progress, starts the command again whenever it ended unfinished, and at the end
compares the manifest's digest with that of other runs (`--expect`, a digest or another dataset's folder).
"""

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

KINDS = ("driver", "worker", "zygote", "fork", "raylet", "control")
POLL_S = 0.05
_PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Storm:
    """What was done and what came of it."""

    kills: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    unasked_exits: list[str] = field(default_factory=list)
    """Last words of runs that ended with an error although this tool had not killed their driver."""
    wall_s: float = 0.0
    videos: int = 0
    given_up: int = 0
    doubled: int = 0
    digest: str = ""


def kind_of(process: psutil.Process, driver_pid: int) -> str | None:
    """Which part of the render a process is; None for what is not worth killing (Ray's agents, shells)."""
    try:
        if process.pid == driver_pid:
            return "driver"
        name, words = process.name(), process.cmdline()
        line = " ".join(words)
        if name in ("raylet", "gcs_server"):
            return "raylet" if name == "raylet" else "control"
        if "zygote_child" in line:
            parent = process.parent()
            return "fork" if parent is not None and "zygote_child" in " ".join(parent.cmdline()) else "zygote"
        return "worker" if line.startswith("ray::") and "Agent" not in line else None
    except psutil.Error:
        return None


def moments(kills: int, videos: int, kinds: Sequence[str], rng: random.Random) -> list[tuple[int, str]]:
    """(videos committed before, kind of process) of each kill, ascending: spread evenly over the job and over the kinds."""
    return sorted((rng.randrange(videos), rng.choice(kinds)) for _ in range(kills))


def victim(root: psutil.Process, driver_pid: int, kind: str | None, rng: random.Random) -> tuple[str, psutil.Process] | None:
    """A random living process of a kind, or of any kind; None while there is none."""
    alive = [(k, p) for p in root.children(recursive=True) if (k := kind_of(p, driver_pid)) and kind in (k, None)]
    return rng.choice(alive) if alive else None


def committed(dataset: Path) -> list[str]:
    return sorted(p.stem for p in (dataset / "commits").glob("*.json"))


def storm(
    command: Sequence[str], dataset: Path, videos: int, kills: int, kinds: Sequence[str], seed: int, pause_s: float, patience_s: float,
    wait_s: float,
) -> Storm:  # fmt: skip
    """Run `command` to its end under fire. Raises RuntimeError when it does not get there in `wait_s` seconds."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a killed driver leaves behind stays in our tree
    rng, root, result, count = random.Random(seed), psutil.Process(), Storm(), Counter()
    plan, started = moments(kills, videos, kinds, rng), time.monotonic()
    next_s = started + rng.expovariate(1 / pause_s)
    driver: subprocess.Popen[bytes] | None = None
    shot = False
    log = dataset.with_name(dataset.name + ".storm.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    while driver is None or driver.poll() != 0:
        if time.monotonic() - started > wait_s:
            if driver is not None:
                driver.kill()
            raise RuntimeError(f"not finished after {wait_s:g} s; see {log}")
        if driver is None or driver.poll() is not None:
            if driver is not None and not shot:
                result.unasked_exits.append(_last_line(log))
            with open(log, "ab") as out:
                driver = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            result.starts, shot = result.starts + 1, False
        _reap(root, driver.pid)
        now = time.monotonic()
        if plan and now >= next_s and len(committed(dataset)) >= plan[0][0]:
            wanted = plan[0][1] if now < next_s + patience_s else None
            if chosen := victim(root, driver.pid, wanted, rng):
                kind, process = chosen
                process.kill()
                plan.pop(0)
                count[kind] += 1
                shot = shot or kind == "driver"
                next_s = now + rng.expovariate(1 / pause_s)
        time.sleep(POLL_S)
    result.kills = {k: count[k] for k in KINDS}
    result.wall_s = time.monotonic() - started
    return result


def audit(dataset: Path, result: Storm) -> Storm:
    """Fill in what the dataset holds. Doubled: shards on disk beyond one for each committed video."""
    manifest = json.loads((dataset / "manifest.json").read_text())
    units = [u["unit"] for u in manifest["units"]]
    shards = [p.name for p in (dataset / "shards").iterdir()] if (dataset / "shards").is_dir() else []
    result.videos, result.digest = len(set(units)), manifest["digest"]
    result.doubled = len(units) - len(set(units)) + max(len(shards) - len(units), 0)
    result.given_up = len(list((dataset / "quarantine").glob("*"))) if (dataset / "quarantine").is_dir() else 0
    return result


def verdict(result: Storm, videos: int, expected: Sequence[str]) -> list[str]:
    """What is wrong; empty when all is well."""
    wrong = []
    if result.videos != videos:
        wrong.append(f"{videos - result.videos} videos lost")
    if result.doubled:
        wrong.append(f"{result.doubled} doubled")
    if result.given_up:
        wrong.append(f"{result.given_up} given up")
    wrong += [f"digest {result.digest[:16]} differs from {e[:16]}" for e in expected if e != result.digest]
    return wrong


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _reap(root: psutil.Process, driver_pid: int) -> None:
    for child in root.children():
        try:
            if child.pid != driver_pid and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
        except (psutil.Error, ChildProcessError):
            continue


def _digest(text: str) -> str:
    manifest = Path(text) / "manifest.json"
    return json.loads(manifest.read_text())["digest"] if manifest.exists() else text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="folder that the command fills")
    parser.add_argument("--videos", type=int, default=60, help="that the command renders")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of processes to kill; without Ray: driver zygote fork")
    parser.add_argument("--pause-s", type=float, default=2.0, help="mean time between kills that are due at once")
    parser.add_argument("--patience-s", type=float, default=30.0, help="a kill waits so long for a process of its kind, then takes any")
    parser.add_argument("--wait-s", type=float, default=7200.0, help="give up after")
    parser.add_argument("--expect", action="append", default=[], help="manifest digest, or dataset folder, of an undisturbed run")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND …")
    a = parser.parse_args()
    command = a.command[1:] if a.command[:1] == ["--"] else a.command
    if not command:
        parser.error("give the render command after --")
    result = storm(command, a.dataset, a.videos, a.kills, a.kinds, a.seed, a.pause_s, a.patience_s, a.wait_s)
    audit(a.dataset, result)
    wrong = verdict(result, a.videos, [_digest(e) for e in a.expect])
    print(json.dumps(asdict(result) | {"wrong": wrong}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
