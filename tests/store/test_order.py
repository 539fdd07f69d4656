import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import StoreError
from dataengine.store.order import Order, permute, repeats_for_shares

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=4)


def order(sizes: list[int], repeats: list[Fraction] | None = None, seed: int = 0, identity: str = "ab", shuffle: bool = True) -> Order:
    return Order(identity, tuple(sizes), tuple(repeats or [Fraction(1)] * len(sizes)), seed, shuffle)


def whole(o: Order, epoch: int) -> list[tuple[int, int]]:
    dataset, sample = o.take(epoch, 0, o.length(epoch))
    return list(zip(dataset.tolist(), sample.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(size=st.one_of(st.integers(1, 300), st.integers(10_000, 70_000)), key=st.binary(max_size=8))
def test_permute_is_a_bijection(size: int, key: bytes) -> None:
    out = permute(np.arange(size, dtype=np.uint64), size, key)
    assert np.array_equal(np.sort(out), np.arange(size))


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 50), max_size=8))
def test_every_sample_exactly_once_in_any_cut(sizes: list[int], seed: int, epoch: int, cuts: list[int]) -> None:
    o = order(sizes, seed=seed)
    edges = sorted({0, sum(sizes), *(c for c in np.cumsum(cuts).tolist() if c < sum(sizes))})
    parts = [o.take(epoch, a, b) for a, b in zip(edges, edges[1:], strict=False)]
    found = [pair for d, s in parts for pair in zip(d.tolist(), s.tolist(), strict=True)]
    assert sorted(found) == [(k, i) for k, n in enumerate(sizes) for i in range(n)]
    assert found == whole(o, epoch)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), sizes=SIZES, epochs=st.integers(1, 6))
def test_repeats_are_kept_over_any_number_of_epochs(data: st.DataObject, sizes: list[int], epochs: int) -> None:
    """After e epochs every sample has come ⌊e·r⌋ or ⌈e·r⌉ times; with whole repeats exactly so in each epoch."""
    repeats = [data.draw(st.fractions(Fraction(1, 5), 3, max_denominator=6)) for _ in sizes]
    if all(math.floor(epochs * r * n) == 0 for r, n in zip(repeats, sizes, strict=True)):
        return
    o = order(sizes, repeats)
    seen = Counter(pair for e in range(epochs) for pair in whole(o, e))
    for k, (n, r) in enumerate(zip(sizes, repeats, strict=True)):
        counts = {seen[k, i] for i in range(n)}
        assert counts <= {math.floor(epochs * r), math.ceil(epochs * r)}
        assert sum(seen[k, i] for i in range(n)) == math.floor(epochs * r * n)


def test_order_depends_on_data_seed_and_epoch_and_on_nothing_else() -> None:
    base = whole(order([50, 30]), 0)
    assert whole(order([50, 30]), 0) == base
    others = [whole(order([50, 30], seed=1), 0), whole(order([50, 30]), 1), whole(order([50, 30], identity="ac"), 0)]
    assert all(o != base for o in others) and len({tuple(o) for o in others}) == 3


def test_the_order_is_pinned() -> None:
    """A saved state must mean the same place in every release."""
    dataset, sample = order([5, 4], seed=7).take(3, 0, 9)
    assert list(zip(dataset.tolist(), sample.tolist(), strict=True)) == PINNED


def test_natural_order() -> None:
    assert whole(order([3, 2], shuffle=False), 4) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert whole(order([2], [Fraction(2)], shuffle=False), 0) == [(0, 0), (0, 1), (0, 0), (0, 1)]


@pytest.mark.parametrize("size", [2, 7, 64])
def test_places_are_uniform(size: int) -> None:
    """Where sample 0 lands, over many seeds: χ² below its 99.99 % point (Wilson and Hilferty's approximation)."""
    trials = 50 * size
    o = [order([size], seed=s) for s in range(trials)]
    landed = np.bincount([int(np.argmin(x.take(0, 0, size)[1])) for x in o], minlength=size)
    chi2 = ((landed - trials / size) ** 2 / (trials / size)).sum()
    k = size - 1
    assert chi2 < k * (1 - 2 / (9 * k) + 3.72 * math.sqrt(2 / (9 * k))) ** 3


def test_neighbours_in_the_order_are_unrelated() -> None:
    sample = order([100_000]).take(0, 0, 20_000)[1]
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.03
    later = order([100_000]).take(1, 0, 20_000)[1]
    assert abs(np.corrcoef(sample, later)[0, 1]) < 0.03


def test_datasets_are_mixed_evenly() -> None:
    dataset, _ = order([9000, 1000]).take(0, 0, 10_000)
    shares = dataset.reshape(10, 1000).mean(1)
    assert np.abs(shares - 0.1).max() < 0.05


@given(start=st.integers(0, 50), stop=st.integers(50, 90))
def test_noise_belongs_to_the_place(start: int, stop: int) -> None:
    o = order([100])
    assert np.array_equal(o.noise(2, start, stop), o.noise(2, 0, 100)[start:stop])
    assert len(np.unique(o.noise(2, 0, 100))) == 100
    assert not np.array_equal(o.noise(2, 0, 9), o.noise(3, 0, 9))


def test_shares_become_repeats() -> None:
    repeats = repeats_for_shares([900, 100], [0.5, 0.5])
    assert repeats == (1, 9)
    dataset, _ = (o := order([900, 100], list(repeats))).take(0, 0, o.length(0))
    assert dataset.mean() == 0.5


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: order([3, 4], [Fraction(1)]), "1 weights given for 2 datasets"),
        (lambda: order([3], [Fraction(-1)]), "numbers above 0"),
        (lambda: order([3], [Fraction(0)]), "nothing to draw"),
        (lambda: order([3]).take(0, 2, 4), "do not lie within an epoch of 3"),
        (lambda: order([3]).length(-1), "epoch -1 does not exist"),
        (lambda: repeats_for_shares([3], [0.5, 0.5]), "do not fit 1 datasets"),
    ],
)
def test_bad_orders_are_refused(call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StoreError, match=said):
        call()


PINNED = [(1, 0), (0, 0), (1, 2), (0, 3), (0, 1), (0, 2), (0, 4), (1, 1), (1, 3)]
