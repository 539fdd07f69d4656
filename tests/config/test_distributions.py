import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from dataengine.config.distributions import (
    Choice,
    Integers,
    LogUniform,
    Normal,
    NormalParameters,
    Real,
    Uniform,
    Whole,
    describe,
    sample,
    support,
)

DRAWS = 4000


def _draws(distribution, seed=3):
    rng = np.random.default_rng(seed)
    return np.array([sample(distribution, rng) for _ in range(DRAWS)])


@pytest.mark.parametrize(
    "distribution, oracle",
    [
        (Uniform(uniform=(-1.0, 3.0)), stats.uniform(-1, 4)),
        (LogUniform(log_uniform=(0.1, 10.0)), stats.loguniform(0.1, 10)),
        (Normal(normal=NormalParameters(mean=2.0, std=0.5)), stats.norm(2, 0.5)),
    ],
)
def test_draws_follow_the_named_distribution(distribution, oracle):
    assert stats.kstest(_draws(distribution), oracle.cdf).pvalue > 1e-3


def test_normal_is_clipped_and_not_redrawn():
    draws = _draws(Normal(normal=NormalParameters(mean=0, std=1, min=-1, max=2)))
    assert draws.min() == -1 and draws.max() == 2
    assert abs((draws == -1).mean() - stats.norm.cdf(-1)) < 0.03


def test_integers_include_both_ends_and_choice_obeys_weights():
    draws = _draws(Integers(integers=(2, 4)))
    assert set(draws) == {2, 3, 4}
    assert stats.chisquare([(draws == k).sum() for k in (2, 3, 4)]).pvalue > 1e-3
    names = _draws(Choice[str](choice=("a", "b", "c"), weights=(1, 3, 0)))
    assert set(names) == {"a", "b"} and abs((names == "b").mean() - 0.75) < 0.04


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(0, 2**32))
def test_uniform_stays_in_its_support(low, width, seed):
    d = Uniform(uniform=(low, low + width))
    assert support(d)[0] <= sample(d, np.random.default_rng(seed)) <= support(d)[1]


def test_a_constant_consumes_no_randomness():
    rng = np.random.default_rng(0)
    assert sample(1.25, rng) == 1.25 and sample("city", rng) == "city"
    assert rng.uniform() == np.random.default_rng(0).uniform()


@pytest.mark.parametrize(
    "given, text",
    [
        (1.2, "constant"),
        (Uniform(uniform=(0.9, 2)), "uniform 0.9 … 2"),
        (LogUniform(log_uniform=(1, 2)), "log uniform 1 … 2"),
        (Integers(integers=(1, 4)), "integers 1 … 4"),
        (Normal(normal=NormalParameters(mean=0, std=4)), "normal mean 0 std 4"),
        (Normal(normal=NormalParameters(mean=0, std=4, min=-5)), "normal mean 0 std 4 within -5 … inf"),
        (Choice[str](choice=("a", "b")), "choice of a, b"),
        (Choice[int](choice=(0, 1), weights=(0.7, 0.3)), "choice of 0 ×0.7, 1 ×0.3"),
    ],
)
def test_describe(given, text):
    assert describe(given) == text


@pytest.mark.parametrize(
    "kind, raw",
    [
        (Real, {"uniform": [3, 2]}),
        (Real, {"log_uniform": [0, 2]}),
        (Real, {"normal": {"mean": 0, "std": -1}}),
        (Real, {"normal": {"mean": 0, "std": 1, "min": 2, "max": 1}}),
        (Real, {"choice": []}),
        (Real, {"choice": [1, 2], "weights": [1]}),
        (Real, {"choice": [1, 2], "weights": [0, 0]}),
        (Real, {"triangular": [1, 2]}),
        (Real, {"uniform": [1, 2], "normal": {"mean": 0, "std": 1}}),
        (Whole, {"uniform": [1, 2]}),
        (Whole, 1.5),
    ],
)
def test_impossible_distributions_are_refused(kind, raw):
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(raw)


@pytest.mark.parametrize(
    "distribution", [1.5, Uniform(uniform=(0, 1)), Normal(normal=NormalParameters(mean=0, std=1)), Choice[float](choice=(1.0, 2.5))]
)
def test_json_round_trip(distribution):
    adapter = TypeAdapter(Real)
    assert adapter.validate_json(adapter.dump_json(distribution)) == distribution
