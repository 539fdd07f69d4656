import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataengine.config.distributions import Choice, Integers, Uniform
from dataengine.scene.draws import Draws, stream

KEYS = st.text(min_size=1, max_size=20)


@given(st.integers(0, 2**63), st.integers(0, 10**9), KEYS)
def test_a_stream_depends_on_seed_video_and_key_only(seed, video, key):
    a = stream(seed, video, key).integers(2**62, size=4)
    assert (a == stream(seed, video, key).integers(2**62, size=4)).all()
    for other in (stream(seed + 1, video, key), stream(seed, video + 1, key), stream(seed, video, key + "x")):
        assert (a != other.integers(2**62, size=4)).any()


def test_streams_are_the_same_on_every_machine():
    assert stream(7, 3, "camera.distance_m").integers(2**32, size=3).tolist() == [3806649182, 3305443782, 249146262]


def test_streams_of_neighbouring_videos_and_keys_are_uncorrelated():
    table = np.array([[stream(0, video, f"key{k}").uniform() for k in range(60)] for video in range(60)])
    correlation = np.corrcoef(table) - np.eye(60)
    assert abs(table.mean() - 0.5) < 0.02 and np.abs(correlation).max() < 0.6


@given(st.lists(st.tuples(KEYS, st.integers(1, 3)), min_size=1, max_size=8, unique_by=lambda t: t[0]), KEYS)
def test_order_and_number_of_other_draws_do_not_matter(plan, key):
    plan = [(k, n) for k, n in plan if k != key]
    alone, crowded = Draws(1, 2), Draws(1, 2)
    expected = [alone.real(key, Uniform(uniform=(0, 1))) for _ in range(2)]
    found = [crowded.real(key, Uniform(uniform=(0, 1)))]
    for other, n in plan:
        for _ in range(n):
            crowded.real(other, Uniform(uniform=(5, 6)))
    found.append(crowded.real(key, Uniform(uniform=(0, 1))))
    assert found == expected


def test_the_record_explains_the_last_value_of_every_key():
    draws = Draws(0, 0)
    values = [draws.real("a", Uniform(uniform=(0, 1))) for _ in range(3)]
    whole, name = draws.whole("b", Integers(integers=(2, 5))), draws.name("c", Choice[str](choice=("x", "y")))
    draws.pick("thing.0.kind", ("p", "q"))
    draws.uniform("thing.0.yaw", 0, 1)
    draws.forget("thing.0")
    rows = [(d.key, d.distribution, d.value) for d in draws.record()]
    assert rows == [("a", "uniform 0 … 1", values[-1]), ("b", "integers 2 … 5", whole), ("c", "choice of x, y", name)]
    assert type(whole) is int and type(name) is str and type(values[0]) is float
