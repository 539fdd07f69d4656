"""The ledger against a model: whatever the order of events, no unit is lost, lent twice at a time or done twice."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dataengine.render.lease import KILLS_PER_TRY, Ledger
from dataengine.render.outcome import Outcome

CRASH = Outcome("crash", message="died of SIGSEGV")
KILLED = Outcome("killed", message="killed from outside")
HOPELESS = Outcome("error", error_type="SceneError", message="no camera sees the robot")
LEASE_S = 10.0


def lend(ledger: Ledger, worker: str = "w", now_s: float = 0.0):
    lease = ledger.lend(worker, now_s)
    assert lease is not None
    return lease


def test_units_are_lent_in_order_and_once():
    ledger = Ledger([4, 2, 9, 2], tries=3, lease_s=LEASE_S)
    assert [lend(ledger).unit for _ in range(3)] == [4, 2, 9]
    assert ledger.lend("w", 0.0) is None
    assert ledger.total == 3


def test_quarantine_after_the_last_try_with_every_reason():
    ledger = Ledger([7], tries=3, lease_s=LEASE_S)
    assert [ledger.fail(lend(ledger), CRASH) for _ in range(3)] == [False, False, True]
    assert ledger.quarantined == {7: ("died of SIGSEGV",) * 3}
    assert ledger.finished


def test_scene_that_cannot_be_sampled_is_given_up_at_once():
    ledger = Ledger([7, 8], tries=3, lease_s=LEASE_S)
    assert ledger.fail(lend(ledger), HOPELESS)
    assert ledger.quarantined == {7: ("SceneError: no camera sees the robot",)}
    assert ledger.open == (8,)


def test_kills_from_outside_are_forgiven_but_not_for_ever():
    ledger = Ledger([1], tries=2, lease_s=LEASE_S)
    verdicts = [ledger.fail(lend(ledger), KILLED) for _ in range(2 * KILLS_PER_TRY)]
    assert verdicts == [False] * (2 * KILLS_PER_TRY - 1) + [True]
    assert "killed from outside 20 times" in ledger.quarantined[1][0]


def test_a_failed_unit_goes_to_the_front():
    ledger = Ledger([1, 2, 3], tries=3, lease_s=LEASE_S)
    ledger.fail(lend(ledger), CRASH)
    assert ledger.open == (1, 2, 3)


def test_expired_lease_reopens_and_its_late_result_still_counts():
    ledger = Ledger([1], tries=3, lease_s=LEASE_S)
    slow = lend(ledger, "slow", 0.0)
    assert ledger.expire(LEASE_S - 0.1) == []
    assert ledger.expire(LEASE_S) == [slow]
    quick = lend(ledger, "quick", LEASE_S)
    assert ledger.succeed(slow)
    assert not ledger.succeed(quick)
    assert ledger.done == {1} and ledger.finished and ledger.open == ()


def test_late_failure_of_an_expired_lease_is_not_counted_twice():
    ledger = Ledger([1], tries=2, lease_s=LEASE_S)
    slow = lend(ledger)
    ledger.expire(LEASE_S)
    assert not ledger.fail(slow, CRASH)
    assert ledger.quarantined == {}
    assert ledger.open == (1,)


def test_straggler_rescues_a_quarantined_unit():
    ledger = Ledger([1], tries=1, lease_s=LEASE_S)
    slow = lend(ledger)
    ledger.expire(LEASE_S)
    assert 1 in ledger.quarantined
    assert ledger.succeed(slow)
    assert ledger.quarantined == {} and ledger.done == {1}


class Chaos(RuleBasedStateMachine):
    """Random workers, deaths, delays and duplicates."""

    @initialize(units=st.integers(1, 8), tries=st.integers(1, 3))
    def begin(self, units, tries):
        self.ledger = Ledger(range(units), tries, LEASE_S)
        self.units, self.tries, self.now = set(range(units)), tries, 0.0
        self.outstanding, self.failures, self.firsts = [], dict.fromkeys(range(units), 0), []

    @rule()
    def ask(self):
        lease = self.ledger.lend(f"w{len(self.outstanding)}", self.now)
        if lease:
            self.outstanding.append(lease)

    @rule(data=st.data(), outcome=st.sampled_from([None, CRASH, KILLED, HOPELESS]), again=st.booleans())
    def report(self, data, outcome, again):
        if not self.outstanding:
            return
        lease = data.draw(st.sampled_from(self.outstanding))
        if not again:  # `again`: the same report arrives twice
            self.outstanding.remove(lease)
        if outcome is None:
            if self.ledger.succeed(lease):
                self.firsts.append(lease.unit)
        else:
            self.ledger.fail(lease, outcome)

    @rule(seconds=st.floats(0.0, 15.0))
    def wait(self, seconds):
        self.now += seconds
        self.ledger.expire(self.now)

    @invariant()
    def every_unit_is_in_exactly_one_place(self):
        x = self.ledger
        places = [set(x.open), x.leased - x.done - set(x.quarantined), x.done, set(x.quarantined)]
        assert sum(map(len, places)) == len(self.units)
        assert set().union(*places) == self.units
        assert len(x.open) == len(set(x.open))

    @invariant()
    def done_once_and_reasons_given(self):
        assert len(self.firsts) == len(set(self.firsts))
        assert set(self.firsts) == self.ledger.done
        assert all(self.ledger.quarantined.values())

    def teardown(self):
        """However it went so far, healthy workers finish the job."""
        ledger = getattr(self, "ledger", None)
        if ledger is None:
            return
        ledger.expire(self.now + LEASE_S + 1)
        for _ in range(len(self.units)):
            lease = ledger.lend("healthy", self.now)
            if lease:
                ledger.succeed(lease)
        assert ledger.finished


Chaos.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestChaos = Chaos.TestCase


@pytest.mark.parametrize("units", [0, 1, 500])
def test_plain_run(units):
    ledger = Ledger(range(units), tries=3, lease_s=LEASE_S)
    while lease := ledger.lend("w", 0.0):
        ledger.succeed(lease)
    assert ledger.finished and ledger.done == set(range(units))
