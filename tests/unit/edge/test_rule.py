"""What the rules are made of: HELD, the clock of raises on unknown, the clearing run, bad time in a window."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.domain.held import ClearRun, Held, UnknownClock
from edge_agent.domain.kleene import Tri
from edge_agent.domain.quality import BlockState, Supply
from edge_agent.domain.rule import at_most
from edge_agent.domain.rule_monitoring import BadTime
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs
from edge_agent.wire.event import Priority
from tests.unit.edge.rig import cell, ns


class Timing:
    """HELD over one block, fed by hand."""

    def __init__(self, need_ms: int, gap_ms: int = 10_000) -> None:
        plan = cell()
        self.block = BlockState(plan.blocks[0], ns(0), has_heartbeat=False)
        self.block.supply = Supply.GOOD
        self.held = Held(need_ms, gap_ms, (Signal(plan.signals[0], self.block),))

    def sample(self, ms: float, condition: Tri = True) -> bool:
        self.block.failure = None
        return self.held.step(condition, ns(ms), sampled=True)

    def lose(self, ms: float) -> None:
        self.block.failure, self.block.failed_at = "timeout", ns(ms)

    @property
    def sum_ms(self) -> float:
        return self.held.sum_ns / 1e6


def test_held_fires_at_the_first_sample_with_the_needed_sum() -> None:
    timing = Timing(1000)
    assert [timing.sample(ms) for ms in (0, 400, 800, 1000, 1200)] == [False, False, False, True, True]


def test_held_of_zero_fires_at_the_first_good_sample() -> None:
    assert Timing(0).sample(0)


def test_held_never_fires_without_a_sample() -> None:
    timing = Timing(0)
    assert not timing.held.step(True, ns(5000), sampled=False)


def test_false_ends_it() -> None:
    timing = Timing(1000)
    assert not any(timing.sample(ms, condition) for ms, condition in [(0, True), (900, True), (950, False)])
    assert not any(timing.sample(ms) for ms in (1000, 1900))
    assert timing.sample(2000)


def test_the_interval_across_a_lost_reply_does_not_add() -> None:
    timing = Timing(1000)
    timing.sample(0)
    timing.sample(600)
    timing.lose(800)
    assert not timing.sample(1000)
    assert timing.sum_ms == 600
    assert timing.sample(1400)


def test_one_lost_reply_every_nine_tenths_of_a_second_does_not_silence_a_one_second_rule() -> None:
    timing = Timing(1000)
    fired = None
    for step in range(100):
        ms = step * 300
        if step % 3 == 2:
            timing.lose(ms)
        elif timing.sample(ms):
            fired = ms
            break
    assert fired == 3000


def test_a_block_that_goes_on_failing_while_another_answers_adds_nothing_until_it_answers() -> None:
    timing = Timing(1000)
    timing.sample(0)
    timing.lose(100)
    for ms in (200, 400, 600):
        timing.held.step(True, ns(ms), sampled=True)
    assert timing.sum_ms == 0
    timing.sample(700)
    timing.sample(900)
    assert timing.sum_ms == 200


def test_unknown_adds_nothing_and_resets_nothing() -> None:
    timing = Timing(1000)
    timing.sample(0)
    timing.sample(600)
    timing.held.step(None, ns(2600), sampled=False)
    assert not timing.sample(5000)
    assert timing.sample(5400)
    assert (timing.held.first, timing.held.known_ns(ns(5400))) == (ns(0), ns(1000))


@pytest.mark.parametrize(("pause_ms", "sum_ms"), [(10_000, 600), (10_001, 0)])
def test_a_gap_longer_than_hold_gap_starts_it_anew(pause_ms: int, sum_ms: int) -> None:
    timing = Timing(1000)
    timing.sample(0)
    timing.sample(600)
    timing.lose(700)
    timing.sample(600 + pause_ms)
    assert timing.sum_ms == sum_ms
    assert timing.held.first == (ns(0) if sum_ms else ns(600 + pause_ms))


@given(st.lists(st.tuples(st.integers(1, 3000), st.sampled_from([True, False, None])), max_size=40))
def test_held_without_lost_replies_is_the_plain_sum_over_true_intervals(steps: list[tuple[int, Tri]]) -> None:
    """An oracle that keeps the whole history: intervals between neighbouring true samples since the last false."""
    timing = Timing(10**9, gap_ms=10**9)
    now = 0
    history: list[tuple[int, Tri]] = [(0, False)]
    for gap, condition in steps:
        now += gap
        timing.held.step(condition, ns(now), sampled=True)
        history.append((now, condition))
    last_false = max(index for index, (_, condition) in enumerate(history) if condition is False)
    since = history[last_false:]
    plain = sum(b[0] - a[0] for a, b in pairwise(since) if a[1] is True and b[1] is True)
    assert timing.sum_ms == plain


def test_the_clock_of_unknown_runs_through_raising_rows_and_stops_outside() -> None:
    clock = UnknownClock()
    assert clock.step(5000, ns(1000)) == ns(6000)
    assert clock.step(10_000, ns(3000)) == ns(11_000)
    assert clock.step(None, ns(4000)) is None
    assert clock.step(5000, ns(5000)) == ns(10_000)


def test_clearing_needs_a_run_of_false_samples() -> None:
    run = ClearRun(2000)
    assert not run.step(False, ns(0), sampled=True)
    assert not run.step(False, ns(1999), sampled=True)
    assert not run.step(False, ns(2500), sampled=False)
    assert run.step(False, ns(2600), sampled=True)


@pytest.mark.parametrize("interruption", [True, None])
def test_true_or_unknown_interrupts_clearing(interruption: Tri) -> None:
    run = ClearRun(2000)
    run.step(False, ns(0), sampled=True)
    run.step(interruption, ns(1000), sampled=True)
    assert not run.step(False, ns(2500), sampled=True)
    assert run.step(False, ns(4500), sampled=True)


@pytest.mark.parametrize(
    ("priority", "limit", "result"),
    [
        (Priority.P1, Priority.P2, Priority.P2),
        (Priority.P3, Priority.P2, Priority.P3),
        (Priority.P2, Priority.P2, Priority.P2),
    ],
)
def test_a_lower_stage_is_never_more_urgent_than_the_rule(
    priority: Priority, limit: Priority, result: Priority
) -> None:
    assert at_most(priority, limit) is result


# Bad time within a window.


def test_bad_time_reaches_its_limit_when_it_is_bad_throughout() -> None:
    bad = BadTime(10_000, 60_000)
    bad.step(ns(500), is_bad=True)
    assert bad.reached_at(ns(500)) == ns(10_500)


def test_bad_time_adds_up_over_a_window() -> None:
    bad = BadTime(10_000, 60_000)
    for ms, is_bad in [(0, True), (6000, False), (20_000, True)]:
        bad.step(ns(ms), is_bad=is_bad)
    assert bad.reached_at(ns(20_000)) == ns(24_000)


@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 58_000)), max_size=8))
@example([(5000, 53_000)])
def test_the_moment_at_which_bad_time_reaches_its_limit_is_exact(past: list[tuple[int, int]]) -> None:
    """Bad and good for these milliseconds, then bad for good: a walk over milliseconds must agree."""
    bad, now, spans = BadTime(10_000, 60_000), 0, []
    for bad_ms, good_ms in past:
        bad.step(ns(now), is_bad=True)
        bad.step(ns(now + bad_ms), is_bad=False)
        spans.append((now, now + bad_ms))
        now += bad_ms + good_ms
    bad.step(ns(now), is_bad=True)
    spans.append((now, 10**9))
    reached = bad.reached_at(ns(now))
    assert reached is not None
    at = reached // 1_000_000

    def total(t: int) -> int:
        return sum(max(0, min(end, t) - max(start, t - 60_000)) for start, end in spans)

    assert total(at) >= 10_000
    assert at == now or total(at - 1) < 10_000


def test_good_time_forgets_bad_time_when_it_leaves_the_window() -> None:
    bad = BadTime(10_000, 60_000)
    bad.step(ns(0), is_bad=True)
    bad.step(ns(9000), is_bad=False)
    bad.step(ns(69_000), is_bad=True)
    assert bad.sum_ns(MonoNs(ns(70_000))) == ns(1000)
