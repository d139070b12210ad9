"""Worst-case detection is a promise: poll + debounce + on-delay + poll + 50 ms after the change, whatever the figures."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.domain.plan import CellPlan, Coding, RuleName
from edge_agent.domain.units import BlockId
from edge_agent.wire.event import Priority, ViolationRaised
from tests.unit.edge.rig import POLL_MS, R01, R09, R17, Layout, Rig, cell, ns, rule

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


def apart(*, motion: tuple[str, ...] = ("running", "speed")) -> CellPlan:
    """The cell with its speed read in a request of its own, and the door's second channel too."""
    plan = cell(Layout(door_rules=(R01, R17), motion=motion))
    blocks = list(plan.blocks)
    for name in ("speed", "ch_b"):
        signal = next(item for item in plan.signals if item.name == name)
        home = next(index for index, block in enumerate(blocks) if signal.id in block.signals)
        inside = tuple(item for item in blocks[home].signals if item != signal.id)
        blocks[home] = replace(blocks[home], signals=inside)
        blocks.append(replace(blocks[home], id=BlockId(len(blocks)), signals=(signal.id,)))
    devices = {
        device.id: replace(device, blocks=tuple(block.id for block in blocks if block.device == device.id))
        for device in plan.devices.values()
    }
    return replace(plan, blocks=tuple(blocks), devices=devices)


@pytest.mark.parametrize(
    ("name", "change", "sources"),
    [
        ("guard_open_motion", {"closed": 0}, ("speed", "ch_b")),
        ("bypass_active", {"bypass": 1}, ("speed", "ch_b")),
        ("bypass_active", {"bypass": 1}, ("mode", "running")),
    ],
)
def test_a_flaky_source_that_proves_nothing_more_does_not_delay_what_the_others_prove(
    name: str, change: dict[str, int], sources: tuple[str, ...]
) -> None:
    rig = Rig(apart())
    rig.run(2000, running=1, speed=90)
    rig.poll()
    changed_at = rig.now_ms
    rig.set(**change)
    flaky = {signal.id for signal in rig.plan.signals if signal.name in sources}
    for poll in range(1, 40):
        rig.now_ms += POLL_MS
        for block in rig.plan.blocks:
            if flaky.isdisjoint(block.signals) or poll % 9 == 0:
                content = rig.plant.block(block)
                rig.engine.receive_block(block.id, content, ns(rig.now_ms), ns(rig.now_ms))
            else:
                rig.engine.receive_failure(block.id, "timeout", ns(rig.now_ms))
        rig.commit()
    raised = [
        draft.observed / 1e6 - changed_at
        for draft in rig.drafts
        if isinstance(draft.body, ViolationRaised) and draft.body.rule == name
    ]
    assert raised
    assert raised[0] <= POLL_MS + 1000 + POLL_MS + ANSWER_MS


# Against an evaluator of its own: what was accepted when, and from when it counts.

Accepted: TypeAlias = "list[tuple[float, float, int]]"
"""(accepted at, counts from, value), in milliseconds."""


def accepted(samples: list[tuple[float, int]], on_ms: int, off_ms: int) -> Accepted:
    found: Accepted = []
    differs_since: float | None = None
    for at, value in samples:
        if not found or value != found[-1][2]:
            wait_ms = 0 if not found else on_ms if value else off_ms
            differs_since = at if differs_since is None else differs_since
            if at - differs_since >= wait_ms:
                found.append((at, differs_since + wait_ms, value))
                differs_since = None
        else:
            differs_since = None
    return found


def expected(door: Accepted, running: Accepted, samples: list[float], on_ms: int, off_ms: int) -> list[str]:
    story: list[str] = []
    begun: float | None = None
    over: float | None = None
    is_open = False
    for at in samples:
        states = [[item for item in signal if item[0] <= at] for signal in (door, running)]
        if not all(states):
            continue
        (_, shut_from, closed), (_, runs_from, runs) = (signal[-1] for signal in states)
        if runs and not closed:
            begun, over = max(shut_from, runs_from) if begun is None else begun, None
            if not is_open and at - begun >= on_ms:
                is_open = True
                story.append(f"{round(at)} +P1")
        else:
            begun, over = None, at if over is None else over
            if is_open and at - over >= off_ms:
                is_open = False
                story.append(f"{round(at)} -returned_to_normal")
    return story


changes = st.lists(st.integers(1, 149), max_size=12, unique=True).map(
    lambda tenths: [at * 100 for at in tenths]
)
"""When something turns over, in milliseconds."""


@given(
    st.tuples(changes, changes),
    st.sampled_from([0, 300, 333, 1000]),
    st.sampled_from([(0, 0), (0, 30), (50, 260), (700, 30), (260, 700)]),
    st.tuples(polls, polls),
)
@settings(max_examples=60, deadline=None)
def test_door_and_motion_at_rates_of_their_own_are_judged_as_an_independent_evaluator_says(
    turns: tuple[list[int], list[int]], on_ms: int, debounce_ms: tuple[int, int], rates: tuple[int, int]
) -> None:
    r01 = replace(R01, on_delay_ms=on_ms)
    plan = cell(Layout(door_rules=(r01,), door_signals=("ch_a",), estop=False, mode=False))
    coding = Coding(debounce_on_ms=debounce_ms[0], debounce_off_ms=debounce_ms[1])
    rig = Rig(replace(plan, signals=(replace(plan.signals[0], coding=coding), *plan.signals[1:])))
    raw: tuple[list[tuple[float, int]], list[tuple[float, int]]] = ([], [])
    for at in range(0, 18_000, 5):
        rig.now_ms = at
        values = [1 - sum(turn <= at for turn in turns[0]) % 2, sum(turn <= at for turn in turns[1]) % 2]
        rig.set(closed=values[0], running=values[1])
        for place, block in enumerate(rig.plan.blocks):
            if (at - 5 * place) % rates[place] == 0:  # never both at once: one would come first
                rig.engine.receive_block(block.id, rig.plant.block(block), ns(at), ns(at))
                raw[place].append((at, values[place]))
        rig.commit()
    door, running = accepted(raw[0], *debounce_ms), accepted(raw[1], 0, 0)
    samples = sorted({item[0] for signal in raw for item in signal})
    assert rig.story("guard_open_motion") == expected(door, running, samples, on_ms, r01.off_delay_ms)
