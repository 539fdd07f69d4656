"""The page says what was measured and never hides a miss."""

import json

import numpy as np
import pytest

from benchmarks import render_page
from benchmarks.equal_quality import cheapest_as_good
from benchmarks.our_pipeline import crop, crop_window


def quality(psnr_db: float, ssim: float) -> dict:
    return {"mse": 1.0, "psnr_db": psnr_db, "ssim": ssim, "ssim_debiased": ssim}


def run(cpu_s: float, psnr_db: float, ssim: float, settings=(4, "HIGH", "FAST"), cycles: float = 0.8) -> dict:
    stages = {"cycles": cycles * cpu_s, "sensor": (1 - cycles) * cpu_s}
    return {"cpu_s": cpu_s, "wall_s": 1.1 * cpu_s, "stages_cpu_s": stages, "quality": quality(psnr_db, ssim), "settings": list(settings)}


@pytest.fixture
def results() -> dict:
    ours = {
        "draft": run(1.5, 31.0, 0.9),
        "train": run(4.0, 37.0, 0.96, cycles=0.6),
        "12": run(10.0, 41.5, 0.98),
        "16": run(12.0, 42.0, 0.985),
    }
    return {"stock": {"16/4": run(22.0, 41.0, 0.98), "4/2": run(12.0, 36.5, 0.95)}, "ours": ours}


def test_cheapest_setting_must_reach_both_psnr_and_ssim(results: dict) -> None:
    assert cheapest_as_good(results["ours"], results["stock"]["4/2"]) == "train"
    assert cheapest_as_good(results["ours"], results["stock"]["16/4"]) == "12"
    results["ours"]["12"]["quality"]["ssim"] = 0.97
    assert cheapest_as_good(results["ours"], results["stock"]["16/4"]) == "16"
    assert cheapest_as_good(results["ours"], run(1.0, 50.0, 0.99)) is None


def test_ratio_and_verdict_of_equal_quality(results: dict) -> None:
    rows = [r for r in render_page.all_rows(results) if "equal or better" in r.measure]
    assert [r.met for r in rows] == [True, True]
    assert rows[0].measured.startswith("2.20× CPU") and rows[1].measured.startswith("3.00× CPU")
    results["ours"]["12"]["cpu_s"] = results["ours"]["16"]["cpu_s"] = 13.0
    assert [r.met for r in render_page.equal_quality_rows(results)] == [False, True]


def test_unreached_quality_is_a_miss(results: dict) -> None:
    results["ours"] = {"draft": results["ours"]["draft"], "train": results["ours"]["train"]}
    row = render_page.equal_quality_rows(results)[0]
    assert row.met is False and "none of our settings" in row.measured


def test_a_miss_is_printed_as_a_miss(results: dict) -> None:
    text = render_page.page(results)
    assert "`train` | ≤ 30 % | 40% of 4.00 CPU-s (path tracing 2.40, denoiser 0.00) | **missed** |" in text
    assert "-4.0 dB" in text  # the quality gap stands beside the ratio


def test_sections_not_measured_are_named(results: dict) -> None:
    text = render_page.page(results)
    for section in ("workers", "infrared", "sensor", "memory", "forecast", "help", "clone", "kills"):
        assert f"run section {section}" in text
    assert "not measured" in render_page.page({})


@pytest.mark.parametrize(("wall", "met"), [(0.09, True), (-0.12, False)])
def test_forecast_verdict(wall: float, met: bool) -> None:
    section = {"videos": 60, "pilot": 8, "error": {"wall_s": wall, "cpu_hours": 0.0, "bytes": 0.3}}
    assert render_page.forecast_rows({"forecast": section})[0].met is met


@pytest.mark.parametrize(("ratio", "met"), [(0.9, True), (1.2, False)])
def test_infrared_verdict(ratio: float, met: bool) -> None:
    path = {"valid": 0.98, "median_m": 0.002}
    section = {"paths": {"fast": path, "cycles 64": path}, "converged_median_m": 0.002, "ratio": {"valid": 1.0, "median_m": ratio}}
    assert render_page.infrared_rows({"infrared": section})[0].met is met


def test_walls_verdicts() -> None:
    wall = {"wall": "fronto", "distance_m": 1.0, "rms_px": 0.06, "bias_px": -0.03, "fill": 1.0}
    rows = render_page.wall_rows({"sensor": {"walls": [wall], "fraction_histogram": [0.95, 1.2]}})
    assert [r.met for r in rows] == [True, False, False, True]


def test_kills_verdict_lists_faults() -> None:
    section = {"videos": 60, "storm": {"kills": {"fork": 40, "driver": 20}, "starts": 21}, "faults": ["1 videos lost"]}
    (row,) = render_page.kills_rows({"kills": section})
    assert row.met is False and "60 kills" in row.measured and "1 videos lost" in row.measured


def test_results_survive_json(results: dict) -> None:
    assert render_page.page(json.loads(json.dumps(results))) == render_page.page(results)


def test_crop_is_the_window() -> None:
    left, top, width, height = crop_window(640, 360)
    assert (left, top, width, height) == (160, 90, 320, 180)
    image = np.arange(360 * 640).reshape(360, 640, 1)
    assert crop(image).shape == (180, 320, 1)
    assert crop(image)[0, 0, 0] == top * 640 + left
