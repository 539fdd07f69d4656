"""The random parts of the infrared images: noise streams, albedo noise, dot pattern, compiler wrapper."""

import math

import numba
import numpy as np
import pytest

from dataengine.sensor.compiled import compiled
from dataengine.sensor.ir_kernels import dots_at, gaussian
from dataengine.sensor.noise import lattice, near_normal, value_noise
from dataengine.sensor.pattern import CELL_PX, dot_table


def draws(key: int, count: int = 40_000) -> np.ndarray:
    return np.array([near_normal(np.uint64(key), np.uint64(i)) for i in range(count)])


def test_noise_is_standardised_and_independent() -> None:
    a, b = draws(1), draws(2)
    assert abs(a.mean()) < 0.02
    assert a.std() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.02
    assert np.abs(a).max() < 3.47
    # Irwin–Hall with n = 4: kurtosis 3 − 1.2/4
    assert (a**4).mean() == pytest.approx(2.7, abs=0.1)
    assert np.array_equal(a[:100], draws(1, 100))


def test_value_noise_interpolates_its_lattice() -> None:
    seed = np.uint64(7)
    assert value_noise(seed, 3.0, -2.0, 5.0) == pytest.approx(lattice(seed, 3, -2, 5))
    corners = [lattice(seed, 3 + i, -2 + j, 5 + k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    assert value_noise(seed, 3.5, -1.5, 5.5) == pytest.approx(np.mean(corners))
    points = np.random.default_rng(0).uniform(-20, 20, (2000, 3))
    values = np.array([value_noise(seed, *p) for p in points])
    assert values.min() >= 0
    assert values.max() <= 1
    assert values.mean() == pytest.approx(0.5, abs=0.02)
    assert value_noise(np.uint64(8), *points[0]) != values[0]


def test_dots_stay_in_their_cells_and_one_in_ten_is_missing() -> None:
    table = dot_table(3)
    assert (table[..., 2] > 0).mean() == pytest.approx(0.9, abs=0.005)
    assert table[..., :2].min() >= 0.12 - 1e-6
    assert table[..., :2].max() <= 0.88 + 1e-6
    assert table[table[..., 2] > 0, 2].min() >= 0.6
    assert not np.array_equal(table, dot_table(4))
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 0


def test_pattern_brightness_is_the_sum_of_all_dots() -> None:
    table = dot_table(0).copy()
    sigma2 = 1.06
    for u, v in np.random.default_rng(1).uniform(-300, 300, (50, 2)):
        total = 0.0
        for j in range(int(v // CELL_PX) - 3, int(v // CELL_PX) + 4):
            for i in range(int(u // CELL_PX) - 3, int(u // CELL_PX) + 4):
                offset_u, offset_v, peak = (float(x) for x in table[j % 512, i % 512])
                square = (u - (i + offset_u) * CELL_PX) ** 2 + (v - (j + offset_v) * CELL_PX) ** 2
                total += peak * math.exp(-square / (2 * sigma2))
        assert dots_at(u, v, 0.5 / sigma2, 0.5 / sigma2, table) == pytest.approx(total, abs=0.02)


def test_fast_gaussian() -> None:
    t = np.linspace(0, 12, 500)
    assert max(abs(gaussian(x) - math.exp(-x)) for x in t) < 3e-5


def test_kernels_compile_without_a_writable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def without_cache(**options: object):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert compiled(lambda x: x + 1)(41) == 42
