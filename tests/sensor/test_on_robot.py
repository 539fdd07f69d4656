"""Depth of a Panda on a table by the simulated D415: how wrong, how complete. Real meshes, random scenes."""

import numpy as np
import pytest

from benchmarks.sensor_bench import d415_rig, measure, panda_scene, robot_row
from dataengine.sensor.ir import IrNoise, render_ir_pair


@pytest.mark.slow
def test_depth_of_a_robot_is_that_of_a_d415() -> None:
    rig, rows = d415_rig(), []
    for seed in range(20, 28):
        sensed = panda_scene(seed)
        rng = np.random.default_rng(seed)
        pair = render_ir_pair(sensed.scene, sensed.surfaces, rig, sensed.T_world_cam, sensed.lights, IrNoise(), rng)
        rows.append(robot_row(sensed, rig, pair))
    median = {key: np.median([row[key] for row in rows]) for key in rows[0]}
    assert median["median_mm"] <= 3.0
    assert median["over_2cm"] <= 0.04
    assert median["fill_visible"] >= 0.98
    assert 0.05 <= median["mad_px"] <= 0.1
    assert median["hidden_left_empty"] >= 0.65


@pytest.mark.slow
def test_benchmark_reports_every_required_figure_within_its_limit() -> None:
    report = measure([panda_scene(8)])
    assert all(0.05 <= row["rms_px"] <= 0.09 and abs(row["bias_px"]) <= 0.02 and row["fill"] >= 0.99 for row in report["walls"])
    assert 0.9 <= report["fraction_histogram"][0] <= report["fraction_histogram"][1] <= 1.1
    assert all(abs(row["measured_px"] - row["expected_px"]) <= 2 for row in report["shadows"])
    assert len(report["robot_scenes"]) == 1
    assert report["cpu"]["total_s"] > 0
