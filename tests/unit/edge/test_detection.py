"""Worst-case detection is a promise: poll + debounce + on-delay + poll + 50 ms after the change, whatever the figures."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.domain.plan import RuleName
from edge_agent.wire.event import Priority, ViolationRaised
from tests.unit.edge.rig import POLL_MS, R01, R09, R17, Layout, Rig, cell, rule

ANSWER_MS = 50

polls = st.sampled_from([50, 100, 200, 250, 330, 500])
delays = st.integers(0, 1500)
debounces = st.integers(0, 800)


def raised_after_ms(rig: Rig, name: RuleName, poll_ms: int, **change: int) -> float | None:
    """Milliseconds from the change, which comes right after a sample, to the raise."""
    rig.run(10 * poll_ms, poll_ms=poll_ms, running=1)
    rig.poll()
    changed_at = rig.now_ms
    rig.set(**change)
    rig.now_ms += poll_ms
    rig.run(8000, poll_ms=poll_ms)
    at = [
        draft.observed / 1e6
        for draft in rig.drafts
        if isinstance(draft.body, ViolationRaised) and draft.body.rule == name.value
    ]
    return at[0] - changed_at if at else None


@given(polls, debounces, delays)
@example(poll_ms=250, debounce_ms=50, on_ms=300)
@settings(max_examples=80, deadline=None)
def test_an_opening_while_running_is_raised_within_the_promise(
    poll_ms: int, debounce_ms: int, on_ms: int
) -> None:
    rig = Rig(cell(Layout(door_rules=(replace(R01, on_delay_ms=on_ms),), debounce_ms=debounce_ms)))
    after_ms = raised_after_ms(rig, RuleName.GUARD_OPEN_MOTION, poll_ms, closed=0)
    assert after_ms is not None
    assert on_ms <= after_ms <= poll_ms + debounce_ms + on_ms + poll_ms + ANSWER_MS


@given(polls, debounces, delays)
@settings(max_examples=40, deadline=None)
def test_a_discrepancy_and_a_bypass_are_raised_within_the_promise(
    poll_ms: int, debounce_ms: int, on_ms: int
) -> None:
    rules = (replace(R09, on_delay_ms=on_ms), replace(R17, on_delay_ms=on_ms))
    for name, change in ((RuleName.CHANNEL_DISCREPANCY, "ch_b"), (RuleName.BYPASS_ACTIVE, "bypass")):
        rig = Rig(cell(Layout(door_rules=rules, debounce_ms=debounce_ms)))
        after_ms = raised_after_ms(rig, name, poll_ms, **{change: int(change == "bypass")})
        assert after_ms is not None
        assert on_ms <= after_ms <= poll_ms + debounce_ms + on_ms + poll_ms + ANSWER_MS


def test_what_a_sensor_reads_between_does_not_delay_the_promise() -> None:
    plan = cell(
        Layout(door_rules=(replace(R01, on_delay_ms=300),), motion=("running", "speed"), debounce_ms=50)
    )
    rig = Rig(plan)
    rig.run(2500, poll_ms=250, running=1, speed=90)
    rig.poll()
    opened_at = rig.now_ms
    rig.set(closed=0)
    for step in range(8):
        rig.now_ms += 250
        rig.set(speed=91 + step)
        rig.poll()
    (raised,) = [draft for draft in rig.drafts if isinstance(draft.body, ViolationRaised)]
    assert raised.observed / 1e6 - opened_at <= 250 + 50 + 300 + 250 + ANSWER_MS


def test_a_machine_that_starts_with_the_door_open_has_its_whole_delay() -> None:
    """The end of another signal's debouncing gives nothing away."""
    r01 = rule(RuleName.GUARD_OPEN_MOTION, on=POLL_MS, priority=Priority.P1)
    rig = Rig(cell(Layout(door_rules=(r01,), debounce_ms=50)))
    rig.run(2000)
    rig.run(POLL_MS, closed=0)
    rig.run(POLL_MS, running=1)  # seen with the door's acceptance
    assert rig.story("guard_open_motion") == []
    rig.run(POLL_MS)
    assert rig.story("guard_open_motion") == ["2400 +P1"]
