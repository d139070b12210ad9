"""Openings that no sample showed: counted by the PLC, told once, and never twice with those that were seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.counter import STEPS_LEAST, modulus_of, steps
from edge_agent.domain.opening import PATIENCE_MS
from edge_agent.domain.plan import PLAIN, CellPlan, Coding, GuardPlan, SignalPlan, Table, ValueType
from edge_agent.domain.units import NS_PER_S, SignalId
from edge_agent.wire.event import Json, Observation
from tests.unit.edge.rig import DOOR, MIXER, PLC, Layout, Rig, bits, cell, ns, words

AFTERWARDS = 2400
"""Milliseconds in which everything has settled."""


def tallied(name: str = "open_count", coding: Coding = PLAIN) -> CellPlan:
    """The cell with a tally of its door: the mode register, which the rig's plant gives as `mode`."""
    plan = cell(Layout(mode=False, estop=False, heartbeat_stale_ms=60_000, door_signals=("ch_a", "ch_b")))
    kind = ValueType.UINT16 if name == "open_count" else ValueType.BIT
    tally = SignalPlan(
        SignalId(len(plan.signals)), name, MIXER, DOOR, PLC, Table.HOLDING_REGISTER, 0,
        None if kind is ValueType.UINT16 else 0, kind, 200, coding,
    )  # fmt: skip
    blocks = tuple(
        replace(block, signals=(*block.signals, tally.id)) if block.id == 1 else block
        for block in plan.blocks
    )
    machine = plan.machines[MIXER]
    door: GuardPlan = replace(machine.guards[0], signals={name: tally.id})
    return replace(
        plan,
        signals=(*plan.signals, tally),
        blocks=blocks,
        machines={MIXER: replace(machine, guards=(door,))},
        devices={**plan.devices, PLC: replace(plan.devices[PLC], heartbeat=None)},
    )


def missed(rig: Rig, what: str = "missed_opening") -> list[Mapping[str, Json]]:
    return [item.detail for item in rig.bodies(Observation) if item.what == what]


def counts(rig: Rig) -> list[Json]:
    return [item["count"] for item in missed(rig)]


def test_an_opening_between_two_polls_is_told_with_its_bounds() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    rig.run(AFTERWARDS, mode=8)
    assert missed(rig) == [
        {
            "machine": "mixer",
            "guard": "door",
            "count": 1,
            "source": "counter",
            "since": rig.wall().label(ns(1800)),
            "until": rig.wall().label(ns(2000)),
        }
    ]


@pytest.mark.parametrize("lag_polls", [-1, 0, 1, 3])
def test_an_opening_that_was_seen_is_not_missed_however_late_or_early_its_count_is(lag_polls: int) -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    if lag_polls < 0:
        rig.run(200, mode=8)
        rig.run(200, closed=0)
    else:
        rig.run(200 * lag_polls, closed=0)
        rig.run(400, closed=0, mode=8)
    rig.run(AFTERWARDS, closed=1)
    assert missed(rig) == []


def test_of_several_openings_only_those_not_seen_are_missed() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    rig.run(400, closed=0, mode=10)
    rig.run(AFTERWARDS, closed=1)
    assert counts(rig) == [2]


def test_a_count_that_the_plc_never_makes_is_forgotten() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    rig.run(400, closed=0)
    rig.run(AFTERWARDS, closed=1)
    rig.run(AFTERWARDS, mode=8)
    assert counts(rig) == [1]


@pytest.mark.parametrize("kill_at_ms", range(0, 3000, 200))
def test_openings_around_a_kill_are_told_once(kill_at_ms: int) -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    story = [(400, 0, 8), (400, 1, 8), (400, 1, 9), (AFTERWARDS, 1, 9)]
    elapsed = 0
    is_killed = False
    for ms, closed, mode in story:
        rig.set(closed=closed, mode=mode)
        for _ in range(ms // 200):
            if elapsed >= kill_at_ms and not is_killed:
                is_killed = True
                rig.restart(epoch="01RUN0000B", down_ms=50)
            rig.run(200)
            elapsed += 200
    rig.run(AFTERWARDS)
    assert counts(rig) == [1]


def test_openings_while_the_agent_was_down_are_found_and_told_once() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    rig.restart(epoch="01RUN0000B", down_ms=3_600_000)
    rig.run(AFTERWARDS, mode=10)
    rig.restart(epoch="01RUN0000C", boot="boot-2", down_ms=1000)
    rig.run(AFTERWARDS)
    assert counts(rig) == [3]


def test_a_door_found_open_after_the_agent_was_down_is_one_of_those_counted() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    rig.restart(epoch="01RUN0000B", down_ms=5000)
    rig.run(AFTERWARDS, mode=9, closed=0)
    assert counts(rig) == [1]


def test_openings_while_the_link_was_down_are_found() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=7)
    rig.dead = {"plc1"}
    rig.run(5000)
    rig.dead = set()
    rig.run(AFTERWARDS, mode=9)
    assert counts(rig) == [2]


def test_a_counter_wraps_where_its_type_or_its_plan_says() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=0xFFFF)
    rig.run(AFTERWARDS, mode=1)
    assert counts(rig) == [2]
    decimal = Rig(tallied(coding=Coding(counter_max=9999)))
    decimal.run(2000, mode=9999)
    decimal.run(AFTERWARDS, mode=0)
    assert counts(decimal) == [1]


def test_a_restarted_plc_counts_nothing_and_is_told() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=41_000)
    rig.run(AFTERWARDS, mode=3)
    rig.run(AFTERWARDS, mode=4)
    assert counts(rig) == [1]
    assert missed(rig, "counter_restarted") == [
        {"machine": "mixer", "guard": "door", "signal": "open_count", "was": "41000", "now": "3"}
    ]


def test_a_guard_that_flutters_without_end_is_settled_but_for_one() -> None:
    rig = Rig(tallied())
    rig.run(2000, mode=0)
    for step in range(PATIENCE_MS // 400 + 2):
        rig.run(200, closed=0, mode=3 * step + 3)
        rig.run(200, closed=1)
    told = counts(rig)
    rig.run(AFTERWARDS)
    assert len(told) == 1
    assert sum(int(str(count)) for count in counts(rig)) == 2 * (PATIENCE_MS // 400 + 2)


def test_a_latch_that_goes_on_unseen_is_one_missed_opening() -> None:
    rig = Rig(tallied("opened_latch"))
    rig.run(2000, mode=0)
    rig.run(AFTERWARDS, mode=1)
    rig.run(AFTERWARDS, mode=0)
    assert [(item["count"], item["source"]) for item in missed(rig)] == [(1, "latch")]


def test_a_latch_that_goes_on_with_a_seen_opening_is_none_and_one_found_set_is_none() -> None:
    rig = Rig(tallied("opened_latch"))
    rig.run(2000, mode=1)
    rig.run(2000, mode=0)
    rig.run(200, closed=0)
    rig.run(AFTERWARDS, mode=1)
    assert missed(rig) == []


def test_a_latch_that_is_cleared_while_the_door_stands_open_and_goes_on_again_is_no_further_opening() -> None:
    rig = Rig(tallied("opened_latch"))
    rig.run(2000, mode=0)
    rig.run(AFTERWARDS, mode=1, closed=0)
    rig.run(200, mode=0)
    rig.run(AFTERWARDS, mode=1)
    rig.run(AFTERWARDS, closed=1)
    assert missed(rig) == []
    rig.run(AFTERWARDS, mode=0)
    rig.run(AFTERWARDS, mode=1)
    assert counts(rig) == [1]


@given(st.lists(st.tuples(st.sampled_from(["seen", "unseen", "both"]), st.integers(1, 12)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_seen_and_missed_openings_add_up_to_what_the_plc_counted(story: list[tuple[str, int]]) -> None:
    rig = Rig(tallied())
    count = 65_530
    rig.run(400, mode=count)
    unseen = 0
    for what, polls in story:
        unseen += what != "seen"
        count += 2 if what == "both" else 1
        rig.set(mode=count % 0x10000)
        if what != "unseen":
            rig.run(200, closed=0)
        rig.run(200 * polls, closed=1)
    rig.run(AFTERWARDS)
    assert sum(int(str(found)) for found in counts(rig)) == unseen


def test_openings_while_the_counter_said_nothing_though_its_block_was_read_are_found() -> None:
    rig = Rig(tallied(coding=Coding(sentinel=(0xFFFF,))))
    rig.run(2000, mode=7)
    rig.run(600_000, mode=0xFFFF)
    rig.run(AFTERWARDS, mode=47)
    assert missed(rig, "counter_restarted") == []
    assert counts(rig) == [40]


def test_after_another_boot_a_wide_counter_that_leapt_is_another_counter_and_told_in_numbers_that_events_hold() -> (
    None
):
    plan = tallied()
    wide = replace(plan.signals[-1], type=ValueType.UINT64, number=0)
    blocks = tuple(replace(block, count=4) if block.id == 1 else block for block in plan.blocks)
    rig = Rig(replace(plan, signals=(*plan.signals[:-1], wide), blocks=blocks))
    for boot, high in (("boot-1", 0), ("boot-2", 0x4000)):
        rig.restart(epoch=f"01RUN0000{high}", boot=boot)
        for _ in range(12):
            rig.engine.receive_block(
                rig.plan.blocks[1].id, words(high, 0, 0, 7), ns(rig.now_ms), ns(rig.now_ms)
            )
            rig.engine.receive_block(
                rig.plan.blocks[0].id, bits(1, 1, 0, 0, 1, 0), ns(rig.now_ms), ns(rig.now_ms)
            )
            rig.commit()
            rig.now_ms += 200
    assert counts(rig) == []
    assert [item["now"] for item in missed(rig, "counter_restarted")] == [str((0x4000 << 48) + 7)]


def test_another_counter_wired_to_the_guard_starts_with_a_new_baseline() -> None:
    plan = tallied()
    rig = Rig(plan)
    rig.run(2000, mode=7)
    moved = replace(plan.signals[-1], number=1)
    rig.plan = replace(plan, signals=(*plan.signals[:-1], moved))
    rig.set(heartbeat=19)
    rig.restart(epoch="01RUN0000B", down_ms=5000)
    rig.run(AFTERWARDS)
    assert counts(rig) == []
    rig.run(AFTERWARDS, heartbeat=20)
    assert counts(rig) == [1]


# The counter alone.


@given(
    st.sampled_from([1 << 16, 1 << 32, 1 << 64, 10_000]), st.integers(0, 1 << 64), st.integers(0, STEPS_LEAST)
)
def test_small_steps_are_counted_wherever_the_counter_stands(modulus: int, before: int, taken: int) -> None:
    start = before % modulus
    assert steps(start, (start + taken) % modulus, modulus, 0) == taken


@given(st.integers(200, 0xFFFF - 2 * STEPS_LEAST), st.integers(0, 100))
def test_a_drop_in_the_middle_of_its_range_is_a_restart(before: int, now: int) -> None:
    assert steps(before, now, 1 << 16, NS_PER_S) is None


def test_after_a_time_nobody_knows_a_rise_counts_and_a_drop_is_a_restart() -> None:
    assert steps(100, 5000, 1 << 16, None) == 4900
    assert steps(60_000, 2, 1 << 16, None) is None


def test_a_rise_that_no_contact_makes_is_another_counter() -> None:
    assert steps(0, 5000, 1 << 16, NS_PER_S) is None
    assert steps(0, 5000, 1 << 16, 100 * NS_PER_S) == 5000


def test_a_counter_turns_over_at_the_end_of_its_field() -> None:
    tally = tallied().signals[-1]
    assert [
        modulus_of(item)
        for item in (
            tally,
            replace(tally, type=ValueType.UINT32),
            replace(tally, type=ValueType.UINT64),
            replace(tally, coding=Coding(mask=0x0FF0)),
            replace(tally, coding=Coding(counter_max=9999)),
        )
    ] == [1 << 16, 1 << 32, 1 << 64, 256, 10_000]
