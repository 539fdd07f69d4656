"""Random motions: smooth, consistent, within limits, free of collision, reproducible."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.errors import RobotError
from dataengine.robot.catalogue import load_robot
from dataengine.robot.collision import below_floor, load_collision_model, self_collision
from dataengine.robot.motion import sample_motion, used_limits


@pytest.fixture(scope="module")
def panda(robot_cache):
    return load_collision_model(load_robot("panda"), robot_cache)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0.05, 1.0), st.floats(0.2, 1.0))
def test_every_frame_is_within_all_limits_and_free(panda, seed, frames, speed, share):
    motion = sample_motion(panda, rng(seed), frames, 1 / 15, floor_z_m=0.01, limits_fraction=share, speed_fraction=speed)
    lower, upper = used_limits(panda.model, share)
    assert motion.q.shape == motion.qd.shape == (frames, 8)
    assert (motion.q >= lower - 1e-9).all() and (motion.q <= upper + 1e-9).all()
    assert (np.abs(motion.qd) <= speed * panda.model.qd_limit * (1 + 1e-9)).all()
    assert not self_collision(panda, motion.q).any() and not below_floor(panda, motion.q, 0.01).any()


def test_velocity_is_the_derivative_of_position_also_across_moves(panda):
    motion = sample_motion(panda, rng(1), 4000, 1e-2, speed_fraction=0.8)
    middle = (motion.q[2:] - motion.q[:-2]) / 2e-2
    np.testing.assert_allclose(middle, motion.qd[1:-1], atol=2e-3)
    at_rest = (np.abs(motion.qd).max(axis=1) < 1e-3).sum()
    assert at_rest > 3  # goals are reached and left, so there is more than one move
    assert np.abs(np.diff(motion.qd, axis=0)).max() < 0.15  # no jumps in velocity


def test_peak_speed_is_reached_by_the_deciding_joint(panda):
    motion = sample_motion(panda, rng(2), 3000, 1e-2, speed_fraction=0.5)
    assert (np.abs(motion.qd) / panda.model.qd_limit).max() == pytest.approx(0.5, rel=1e-3)


def test_a_short_clip_is_the_beginning_of_the_long_one(panda):
    short, long = (sample_motion(panda, rng(4), frames, 1 / 15, speed_fraction=0.4) for frames in (3, 30))
    np.testing.assert_array_equal(short.q, long.q[:3])
    np.testing.assert_array_equal(short.time_s, np.arange(3) / 15)


def test_first_configurations_are_spread_over_the_whole_range(panda):
    first = np.stack([sample_motion(panda, rng(seed), 1, 0.1).q[0] for seed in range(150)])
    share = (first - panda.model.q_lower) / (panda.model.q_upper - panda.model.q_lower)
    counts = np.stack([np.histogram(column, bins=4, range=(0, 1))[0] for column in share.T])
    assert counts.min() >= 10  # 37 expected in each quarter of each joint; rejection removes some
    assert share[:, 7].min() < 0.05 and share[:, 7].max() > 0.95  # the gripper opens and closes


def test_standing_still(panda):
    motion = sample_motion(panda, rng(), 5, 0.1, speed_fraction=0.0)
    assert (motion.qd == 0).all() and (motion.q == motion.q[0]).all()


def test_rejections_are_counted_by_reason(panda):
    totals: dict[str, int] = {}
    for seed in range(120):
        for reason, count in sample_motion(panda, rng(seed), 3, 1 / 15).rejections.items():
            totals[reason] = totals.get(reason, 0) + count
    assert set(totals) == {"below_floor", "self_collision"}
    assert 3 <= totals["self_collision"] < 40 and 3 <= totals["below_floor"] < 60


def test_gives_up_with_counts(panda):
    with pytest.raises(RobotError, match=r"robot panda: no free motion in 7 tries \(below_floor 7\) above z = 2.0 m"):
        sample_motion(panda, rng(), 3, 0.1, floor_z_m=2.0, max_tries=7)


@pytest.mark.parametrize("bad", [{"frames": 0}, {"dt_s": 0.0}, {"speed_fraction": 1.5}, {"limits_fraction": 0.0}])
def test_bad_arguments(panda, bad):
    with pytest.raises(RobotError, match="frames must be at least 1"):
        sample_motion(panda, rng(), **({"frames": 3, "dt_s": 0.1} | bad))
