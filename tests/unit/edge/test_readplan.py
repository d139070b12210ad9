"""The read planner: every signal read once, what belongs together read together, never more than the protocol allows."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.plan import SignalPlan, Table, ValueType
from edge_agent.domain.readplan import (
    ADDRESSES,
    BITS_MAX,
    CHANNEL_NAMES,
    GAP_BITS_MAX,
    GAP_REGISTERS_MAX,
    REGISTERS_MAX,
    block_limit,
    gap_limit,
    plan_reads,
)
from edge_agent.domain.units import DeviceId, GuardId, MachineId, SignalId


def signal(
    number: int,
    *,
    index: int = 0,
    name: str = "x",
    guard: str | None = None,
    table: Table = Table.DISCRETE_INPUT,
    device: str = "plc1",
    type: ValueType = ValueType.BIT,  # noqa: A002  # the plan's own word
) -> SignalPlan:
    return SignalPlan(
        id=SignalId(index),
        name=name,
        machine=MachineId("m"),
        guard=GuardId(guard) if guard else None,
        device=DeviceId(device),
        table=table,
        number=number,
        bit=None,
        type=type,
    )


def spans(*signals: SignalPlan) -> list[tuple[int, int]]:
    return [(block.start, block.count) for block in plan_reads(renumbered(signals))]


def renumbered(signals: tuple[SignalPlan, ...] | list[SignalPlan]) -> list[SignalPlan]:
    return [replace(item, id=SignalId(index)) for index, item in enumerate(signals)]


def test_neighbours_share_a_request_and_a_far_one_gets_its_own() -> None:
    assert spans(signal(0), signal(3), signal(1), signal(500)) == [(0, 4), (500, 1)]


@pytest.mark.parametrize(
    ("table", "gap"), [(Table.COIL, GAP_BITS_MAX), (Table.HOLDING_REGISTER, GAP_REGISTERS_MAX)]
)
def test_the_gap_is_read_along_up_to_its_limit_and_not_beyond(table: Table, gap: int) -> None:
    assert spans(signal(0, table=table), signal(gap + 1, table=table)) == [(0, gap + 2)]
    assert spans(signal(0, table=table), signal(gap + 2, table=table)) == [(0, 1), (gap + 2, 1)]


@pytest.mark.parametrize(("table", "limit"), [(Table.COIL, BITS_MAX), (Table.INPUT_REGISTER, REGISTERS_MAX)])
def test_a_request_holds_exactly_the_protocols_limit(table: Table, limit: int) -> None:
    assert spans(*(signal(n, table=table) for n in range(limit))) == [(0, limit)]
    assert spans(*(signal(n, table=table) for n in range(limit + 1))) == [(0, limit), (limit, 1)]


def test_a_value_of_several_registers_is_never_torn() -> None:
    words = [signal(n, table=Table.INPUT_REGISTER, type=ValueType.UINT16) for n in range(124)]
    wide = signal(124, table=Table.INPUT_REGISTER, type=ValueType.FLOAT32)
    assert spans(*words, wide) == [(0, 124), (124, 2)]


def test_both_channels_share_a_request_whatever_lies_between() -> None:
    assert spans(signal(0, name="ch_a", guard="g"), signal(1999, name="ch_b", guard="g")) == [(0, 2000)]
    assert spans(signal(0, name="ch_a", guard="g"), signal(1999, name="ch_b", guard="h")) == [
        (0, 1),
        (1999, 1),
    ]


def test_lock_and_bypass_join_their_guard_where_they_fit_and_never_cost_the_channels_their_company() -> None:
    channels = (signal(100, name="ch_a", guard="g"), signal(300, name="ch_b", guard="g"))
    assert spans(*channels, signal(900, name="bypass", guard="g")) == [(100, 801)]
    assert spans(*channels, signal(9000, name="bypass", guard="g")) == [(100, 201), (9000, 1)]


def test_tables_and_devices_are_never_mixed() -> None:
    mixed = (signal(0), signal(0, table=Table.COIL), signal(1, device="plc2"), signal(1))
    blocks = plan_reads(renumbered(mixed))
    assert [(block.device, block.table, block.signals) for block in blocks] == [
        ("plc1", Table.COIL, (1,)),
        ("plc1", Table.DISCRETE_INPUT, (0, 3)),
        ("plc2", Table.DISCRETE_INPUT, (2,)),
    ]


def test_no_signals_need_no_requests() -> None:
    assert plan_reads([]) == ()


NAMES = ("ch_a", "ch_b", "locked", "bypass", "dev_fault", "open_count")
WORD_TYPES = [kind for kind in ValueType if kind is not ValueType.BIT]


@st.composite
def points(draw: st.DrawFn) -> SignalPlan:
    table = draw(st.sampled_from(list(Table)))
    kind = ValueType.BIT if table.is_bits else draw(st.sampled_from([ValueType.BIT, *WORD_TYPES]))
    top = draw(st.sampled_from([40, 300, 5000, ADDRESSES - 4]))
    return signal(
        draw(st.integers(0, top)),
        name=draw(st.sampled_from(NAMES)),
        guard=draw(st.none() | st.sampled_from(["g1", "g2", "g3", "g4", "g5"])),
        table=table,
        device=draw(st.sampled_from(["plc1", "plc2"])),
        type=kind,
    )


def together(members: list[SignalPlan]) -> bool:
    """Whether one request can hold them all."""
    same = len({(item.device, item.table) for item in members}) == 1
    return same and max(i.end for i in members) - min(i.number for i in members) <= block_limit(
        members[0].table
    )


@pytest.mark.thorough
@given(st.lists(points(), max_size=60).map(renumbered))
@settings(max_examples=500, deadline=None)
def test_for_any_signals_the_plan_keeps_every_promise(signals: list[SignalPlan]) -> None:
    blocks = plan_reads(signals)
    home = {index: block for block in blocks for index in block.signals}
    assert Counter(index for block in blocks for index in block.signals) == Counter(range(len(signals)))
    assert [block.id for block in blocks] == list(range(len(blocks)))
    for block in blocks:
        assert 1 <= block.count <= block_limit(block.table)
        assert block.start >= 0
        assert block.start + block.count <= ADDRESSES
        members = [signals[index] for index in block.signals]
        assert min(item.number for item in members) == block.start
        assert max(item.end for item in members) == block.start + block.count
        assert {(item.device, item.table) for item in members} == {(block.device, block.table)}
    for guard in {item.guard for item in signals if item.guard}:
        mine = [item for item in signals if item.guard == guard]
        for device, table in {(item.device, item.table) for item in mine}:
            here = [item for item in mine if (item.device, item.table) == (device, table)]
            channels = [item for item in here if item.name in CHANNEL_NAMES]
            core = [item for item in here if item.name in (*CHANNEL_NAMES, "locked", "bypass")]
            for group in (channels, core):
                if group and together(group):
                    assert len({home[item.id].id for item in group}) == 1


@pytest.mark.thorough
@given(st.lists(points(), max_size=40).map(renumbered), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_order_of_the_signals_changes_no_request(signals: list[SignalPlan], order: random.Random) -> None:
    shuffled = list(signals)
    order.shuffle(shuffled)
    assert {(b.device, b.table, b.start, b.count) for b in plan_reads(shuffled)} == {
        (b.device, b.table, b.start, b.count) for b in plan_reads(signals)
    }
    assert plan_reads(signals) == plan_reads(signals)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=60), st.sampled_from(list(Table)))
@settings(max_examples=200, deadline=None)
def test_no_request_could_have_been_saved_by_joining_neighbours(numbers: list[int], table: Table) -> None:
    blocks = plan_reads(renumbered([signal(number, table=table) for number in numbers]))
    for lower, upper in pairwise(blocks):
        gap = upper.start - (lower.start + lower.count)
        joined = upper.start + 1 - lower.start
        assert gap > gap_limit(table) or joined > block_limit(table)
