"""RoboKeyGen's own figures (Tian et al., ICRA 2024, tables I to V): AUC@0.1 m in percent, median and mean in m."""

PAPER: dict[str, str] = {
    "noise": "Table II, three simulated cameras, its own detector: 77.47 / 76.53 / 69.01; median 17 / 18 / 22 mm, mean 25 / 26 / 40 mm.",
    "nccs": "Table IV, online, real cameras after training on another: without NCCS AUC 0.00 and 0.00 (median 413, 397 mm), "
    "with it 72.93 and 63.33.",
    "generation": "Table III, RealSense and Azure: regression 30.84 and 37.66, generation 72.93 and 63.33 with detected 2D; "
    "37.48, 43.28 and 83.51, 82.33 with true 2D.",
    "condition": "Table III, generation: true 2D 83.51 and 82.33 (median 15, 16 mm), detected 72.93 and 63.33 (22, 28 mm).",
    "sampler": "Table V, from scratch, RealSense: ODE 64.85 at 1 FPS, DDIM 67.00 at 12 FPS; Azure: 62.61, 60.72.",
    "online": "Table V, DDIM, RealSense: from scratch 67.00 at 12 FPS, online 72.93 at 18 FPS; Azure: 60.72, 63.33.",
    "samples": "Figure 4: AUC rises from K = 1 to 10 and is flat to 100.",
    "pipeline": "Table II: 77.47 / 76.53 / 69.01; table I, speed of the networks alone on a V100: 12 FPS single frame, 18 FPS online.",
}
"""By id of the ablation it stands beside."""
