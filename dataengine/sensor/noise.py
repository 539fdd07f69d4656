"""Counter-based noise inside compiled loops: a pixel's draw depends on a key and its index only.

Splitmix64 (Steele, Lea, Flood 2014) mixes the counter; four 16-bit lanes add up to a near-normal
draw (Irwin–Hall, n = 4: variance exactly scaled to 1, bounded at ±3.46).
"""

from __future__ import annotations

import numpy as np

from dataengine.sensor.compiled import compiled


@compiled
def mix64(counter: np.uint64) -> np.uint64:
    """Splitmix64 finaliser: 64 well-mixed bits of a 64-bit counter."""
    h = counter + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@compiled
def near_normal(key: np.uint64, index: np.uint64) -> np.float32:
    """One draw with mean 0 and variance 1 of the stream ``key`` at ``index``."""
    h = mix64(key + index * np.uint64(0x9E3779B97F4A7C15))
    lane = np.uint64(0xFFFF)
    total = (h & lane) + ((h >> np.uint64(16)) & lane) + ((h >> np.uint64(32)) & lane) + (h >> np.uint64(48))
    return (np.float32(total) - np.float32(131070.0)) * np.float32(2.642899e-05)  # 1 / sqrt(4 (2^32 - 1) / 12)


@compiled
def lattice(seed: np.uint64, i: np.int64, j: np.int64, k: np.int64) -> np.float32:
    """Uniform in 0..1 at a corner of the 3-D integer lattice."""
    h = seed + np.uint64(i) * np.uint64(0x8DA6B343) + np.uint64(j) * np.uint64(0xD8163841CB1AB3C5)
    return np.float32(mix64(h ^ (np.uint64(k) * np.uint64(0xCB1AB31F165667B1))) >> np.uint64(40)) * np.float32(2.0**-24)


@compiled
def value_noise(seed: np.uint64, x: float, y: float, z: float) -> float:
    """Trilinear value noise (Perlin-type lattice noise) in 0..1 with features of size 1."""
    i, j, k = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
    a, b, c = x - i, y - j, z - k
    near = (lattice(seed, i, j, k) * (1 - a) + lattice(seed, i + 1, j, k) * a) * (1 - b)
    near += (lattice(seed, i, j + 1, k) * (1 - a) + lattice(seed, i + 1, j + 1, k) * a) * b
    far = (lattice(seed, i, j, k + 1) * (1 - a) + lattice(seed, i + 1, j, k + 1) * a) * (1 - b)
    far += (lattice(seed, i, j + 1, k + 1) * (1 - a) + lattice(seed, i + 1, j + 1, k + 1) * a) * b
    return near * (1 - c) + far * c
