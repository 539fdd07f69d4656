"""The page docs/benchmarks/render.md from the measurements in render.json: what must hold, what was measured, and whether it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.equal_quality import cheapest_as_good

Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table. met: None where a section has not been measured."""

    measure: str
    must: str
    measured: str
    met: bool | None


def page(results: Measured) -> str:
    """Markdown of everything measured so far."""
    parts = [
        "# Rendering: what was measured\n",
        "Made by `make bench-render` (`python benchmarks/render_bench.py SECTION …` for a part). " + machine_line(results),
        "CPU seconds are those of the process, pinned to one core; a ratio is stock's CPU seconds over ours. A line that misses says so.\n",
        table(all_rows(results)),
    ]
    for section in (pipelines_text, stages_text, sensor_text, notes_text):
        parts.append(section(results))
    return "\n".join(part for part in parts if part) + "\n"


def machine_line(results: Measured) -> str:
    m = results.get("machine")
    return f"Machine: {m['cpu']}, {m['cores']} cores; {m['date']}; commit {m['commit']}." if m else ""


def table(rows: Iterable[Row]) -> str:
    verdict = {True: "met", False: "**missed**", None: "not measured"}
    head = "| measure | must | measured | verdict |\n|---|---|---|---|\n"
    return head + "".join(f"| {r.measure} | {r.must} | {r.measured} | {verdict[r.met]} |\n" for r in rows)


def all_rows(results: Measured) -> list[Row]:
    """The issue's table, line by line."""
    rows: list[Row] = []
    for name, needs, make in (
        ("equal quality", ("stock", "ours"), equal_quality_rows),
        ("`train` and `draft` against stock 16/4", ("stock", "ours"), preset_rows),
        ("everything but path tracing and denoiser, `train`", ("ours",), overhead_rows),
        ("2 pinned workers against 1", ("workers",), workers_rows),
        ("fast against path-traced infrared", ("infrared",), infrared_rows),
        ("`depth_sim` on walls", ("sensor",), wall_rows),
        ("`depth_sim` on the robot", ("sensor",), robot_rows),
        ("resident memory over 300 videos", ("memory",), memory_rows),
        ("`plan` against 60 videos", ("forecast",), forecast_rows),
        ("`dataengine --help`", ("help",), help_rows),
        ("fresh clone: `make render`", ("clone",), clone_rows),
        ("random SIGKILLs over 60 videos", ("kills",), kills_rows),
    ):
        missing = [need for need in needs if need not in results]
        rows += [Row(name, "", f"run section {', '.join(missing)}", None)] if missing else make(results)
    return rows


def equal_quality_rows(results: Measured) -> list[Row]:
    rows = []
    for stock_name, least in (("16/4", 1.8), ("4/2", 2.2)):
        stock = results["stock"][stock_name]
        best = cheapest_as_good(results["ours"], stock)
        what = f"whole modality set at equal or better RGB PSNR and SSIM than stock {stock_name}"
        if best is None:
            rows.append(Row(what, f"≥ {least}×", "none of our settings reaches stock's quality", False))
            continue
        ours = results["ours"][best]
        ratio = stock["cpu_s"] / ours["cpu_s"]
        wall = stock["wall_s"] / ours["wall_s"]
        text = f"{ratio:.2f}× CPU, {wall:.2f}× wall ({_settings(ours)}: {_quality(ours)}; stock: {_quality(stock)})"
        rows.append(Row(what, f"≥ {least}×", text, ratio >= least))
    return rows


def preset_rows(results: Measured) -> list[Row]:
    stock, rows = results["stock"]["16/4"], []
    for name, least in (("train", 6.0), ("draft", 11.0)):
        ours = results["ours"][name]
        ratio = stock["cpu_s"] / ours["cpu_s"]
        gap = ours["quality"]["psnr_db"] - stock["quality"]["psnr_db"]
        text = f"{ratio:.1f}× CPU, {stock['wall_s'] / ours['wall_s']:.1f}× wall, {gap:+.1f} dB ({_quality(ours)})"
        rows.append(Row(f"`{name}` against stock 16/4, quality gap beside it", f"≥ {least:g}×", text, ratio >= least))
    return rows


def overhead_rows(results: Measured) -> list[Row]:
    train = results["ours"]["train"]
    stages = train["stages_cpu_s"]
    colour = stages["cycles"] + stages.get("denoise", 0.0)  # Cycles' own call used to hold the denoiser
    share = 1 - colour / train["cpu_s"]
    text = f"{share:.0%} of {train['cpu_s']:.2f} CPU-s (path tracing {stages['cycles']:.2f}, denoiser {stages.get('denoise', 0.0):.2f})"
    return [Row("everything but path tracing and denoiser, `train`", "≤ 30 %", text, share <= 0.30)]


def workers_rows(results: Measured) -> list[Row]:
    r = results["workers"]
    rates = ", ".join(f"{v:.3f} videos/s with {k}" for k, v in r["per_s"].items())
    return [Row("2 pinned workers against 1", "≥ 1.9×", f"{r['ratio']:.2f}× ({rates})", r["ratio"] >= 1.9)]


def infrared_rows(results: Measured) -> list[Row]:
    r = results["infrared"]
    each = "; ".join(f"{path}: valid {v['valid']:.1%}, median error {1000 * v['median_m']:.2f} mm" for path, v in r["paths"].items())
    converged = f"; path tracing without its own noise {1000 * r['converged_median_m']:.2f} mm"
    within = f" (ratios {r['ratio']['valid']:.2f}, {r['ratio']['median_m']:.2f})"
    met = all(abs(ratio - 1) <= 0.15 for ratio in r["ratio"].values())
    return [Row("fast against path-traced infrared, depth on the robot", "within 15 %", each + converged + within, met)]


def wall_rows(results: Measured) -> list[Row]:
    s = results["sensor"]
    rms, bias, fill = ([w[k] for w in s["walls"]] for k in ("rms_px", "bias_px", "fill"))
    low, high = s["fraction_histogram"]
    worst_bias = max(abs(b) for b in bias)
    what = "`depth_sim` on flat walls, fronto and 45°, 0.5–2 m: "
    return [
        Row(what + "disparity RMS", "0.05–0.09 px", f"{min(rms):.3f}–{max(rms):.3f} px", min(rms) >= 0.05 and max(rms) <= 0.09),
        Row(what + "bias", "≤ 0.02 px", f"{worst_bias:.3f} px", worst_bias <= 0.02),
        Row(what + "histogram of the fraction", "0.9–1.1", f"{low:.3f}–{high:.3f}", low >= 0.9 and high <= 1.1),
        Row(what + "fill", "≥ 99 %", f"{min(fill):.1%}", min(fill) >= 0.99),
    ]


def robot_rows(results: Measured) -> list[Row]:
    s = results["sensor"]
    r, what = s["robot_median"], f"`depth_sim` on the robot, {len(s['robot_scenes'])} random scenes: "
    excess = [abs(w["measured_px"] - w["expected_px"]) for w in s["shadows"]]
    cpu = s["cpu"]["total_s"]
    return [
        Row(what + "median error", "≤ 3 mm", f"{r['median_mm']:.2f} mm", r["median_mm"] <= 3),
        Row(what + "over 2 cm", "≤ 4 %", f"{r['over_2cm']:.1%}", r["over_2cm"] <= 0.04),
        Row(what + "visible fill", "≥ 98 %", f"{r['fill_visible']:.1%}", r["fill_visible"] >= 0.98),
        Row("occlusion shadows against f·b·(1/z₁−1/z₂)", "within 2 px", f"{max(excess):.1f} px", max(excess) <= 2),
        Row("infrared pair and matching, CPU per 640 × 360 frame", "≤ 0.6 s", f"{cpu:.2f} s", cpu <= 0.6),
    ]


def memory_rows(results: Measured) -> list[Row]:
    r = results["memory"]
    level, slope = r["median_mb_per_30_videos"][1], r["slope_mb_per_100_videos"]
    text = f"within {r['drift_after_30']:.1%} of {level:.0f} MB, slope {slope:+.1f} MB per 100 videos"
    return [Row(f"resident memory over {r['videos']} videos of one worker", "within 3 % after video 30", text, r["drift_after_30"] <= 0.03)]


def forecast_rows(results: Measured) -> list[Row]:
    r = results["forecast"]
    text = ", ".join(f"{k.split('_')[0]} {r['error'][k]:+.1%}" for k in ("wall_s", "cpu_hours", "bytes"))
    return [Row(f"`plan` ({r['pilot']} videos) against {r['videos']} videos", "within 10 %", text, abs(r["error"]["wall_s"]) <= 0.10)]


def help_rows(results: Measured) -> list[Row]:
    r = results["help"]
    return [Row("`dataengine --help`", "≤ 0.4 s", f"{r['median_s']:.2f} s (fastest {r['fastest_s']:.2f} s)", r["median_s"] <= 0.4)]


def clone_rows(results: Measured) -> list[Row]:
    r = results["clone"]
    text = f"{r['all_s']:.0f} s in all, {r['render_s']:.0f} s of it `render` with start-up and report, {r['rendering_s']:.0f} s rendering"
    met = r["all_s"] <= 180 and r["rendering_s"] <= 60
    return [Row("fresh clone, warm package cache: `make render`", "≤ 180 s in all, ≤ 60 s rendering", text, met)]


def kills_rows(results: Measured) -> list[Row]:
    r = results["kills"]
    storm = r["storm"]
    kills = ", ".join(f"{count} {kind}" for kind, count in storm["kills"].items())
    faults = "; ".join(r["faults"]) or "0 lost, 0 doubled, equal digests"
    text = f"{sum(storm['kills'].values())} kills ({kills}), {storm['starts']} starts; {faults}"
    what = f"random SIGKILLs over {r['videos']} videos; undisturbed with 1, 2, 4 workers"
    return [Row(what, "0 lost, 0 doubled, equal digest", text, not r["faults"])]


def pipelines_text(results: Measured) -> str:
    """All settings of both pipelines, cheapest first."""
    if "stock" not in results or "ours" not in results:
        return ""
    entries = [(f"stock {name}", "", r) for name, r in results["stock"].items()]
    entries += [(f"ours, {name}", _settings(r), r) for name, r in results["ours"].items()]
    lines = [
        "## Both pipelines on the same scenes\n",
        "| pipeline | colour | CPU-s | wall s | PSNR dB | SSIM | SSIM, debiased |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, settings, r in sorted(entries, key=lambda entry: entry[2]["cpu_s"]):
        q = r["quality"]
        figures = f"{q['psnr_db']:.2f} | {q['ssim']:.4f} | {q['ssim_debiased']:.4f}"
        lines.append(f"| {name} | {settings} | {r['cpu_s']:.2f} | {r['wall_s']:.2f} | {figures} |")
    for name, r in results.get("two threads", {}).items():
        lines.append(f"\nStock {name}, one process on both cores, first scene: {r['cpu_s']:.2f} CPU-s, {r['wall_s']:.2f} s wall per frame.")
    return "\n".join(lines) + "\n"


def stages_text(results: Measured) -> str:
    """CPU seconds per frame by stage."""
    picked = [(f"stock {name}", r) for name, r in results.get("stock", {}).items()]
    picked += [(f"ours, {name}", results["ours"][name]) for name in ("train", "draft") if name in results.get("ours", {})]
    lines = [f"* {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in r["stages_cpu_s"].items()) for name, r in picked]
    return "## CPU seconds per frame by stage\n\n" + "\n".join(lines) + "\n" if lines else ""


def sensor_text(results: Measured) -> str:
    """RMS, bias and fill of every wall."""
    if "sensor" not in results:
        return ""
    lines = ["## Simulated depth on walls\n", "| wall | distance m | RMS px | bias px | fill |", "|---|---|---|---|---|"]
    for w in results["sensor"]["walls"]:
        lines.append(f"| {w['wall']} | {w['distance_m']:g} | {w['rms_px']:.3f} | {w['bias_px']:+.3f} | {w['fill']:.1%} |")
    return "\n".join(lines) + "\n"


def notes_text(_results: Measured) -> str:
    return NOTES


def _settings(ours: Measured) -> str:
    samples, quality, prefilter = ours["settings"]
    return f"{samples} spp, OIDN {quality}, prefilter {prefilter}"


def _quality(r: Measured) -> str:
    q = r["quality"]
    return f"{q['psnr_db']:.1f} dB, SSIM {q['ssim_debiased']:.3f}"


NOTES = """## How

* Scenes: the first videos of `simrgbd_franka`, the colour camera's noise off. Both pipelines render the very same Blender scene, built
  by our builder: geometry, materials, lights, Standard view, bounces 3/3/3. Per frame: colour, planar depth, normals, instance masks,
  infrared pair, simulated depth, written to disk. Ours also makes amodal masks, NOCS maps and keypoints, and checks every label.
* Stock is BlenderProc 2.8.0 with its defaults (INTEL denoiser node, adaptive threshold 0.01, light tree off, automatic importance map)
  and its own calls and HDF5 writer. In its favour: infrared is not denoised, its infrared world is plain grey, the WLS disparity
  filter is off.
* References: four undenoised renders of 128 samples of the centre of the middle frame, with stock's caustics. PSNR: mean of
  (X−A)(X−B) over two independent halves, each free of the sRGB curve's first-order bias; SSIM as scikit-image's against the mean of
  the halves, and debiased. Derivations: `benchmarks/image_quality.py`.
"""
