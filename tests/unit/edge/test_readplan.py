"""The read planner: every signal read once, what belongs together read together, never more than the protocol allows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.plan import ReadBlock, SignalPlan, Table, ValueType
from edge_agent.domain.readplan import (
    ADDRESSES,
    BITS_MAX,
    CHANNEL_NAMES,
    COMPANY,
    GAP_BITS_MAX,
    GAP_REGISTERS_MAX,
    REGISTERS_MAX,
    ReadLimits,
    plan_reads,
)
from edge_agent.domain.units import DeviceId, GuardId, MachineId, SignalId

LIMITS = ReadLimits(poll_ms=200, stale_ms=2000)


def blocks_of(signals: Iterable[SignalPlan], limits: ReadLimits = LIMITS) -> tuple[ReadBlock, ...]:
    return plan_reads(signals, {DeviceId(name): limits for name in ("plc1", "plc2")})


def signal(
    number: int,
    *,
    index: int = 0,
    name: str = "x",
    guard: str | None = None,
    table: Table = Table.DISCRETE_INPUT,
    device: str = "plc1",
    type: ValueType = ValueType.BIT,  # noqa: A002  # the plan's own word
    poll_ms: int = 200,
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
        poll_ms=poll_ms,
    )


def spans(*signals: SignalPlan) -> list[tuple[int, int]]:
    return [(block.start, block.count) for block in blocks_of(renumbered(signals))]


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
    blocks = blocks_of(renumbered(mixed))
    assert [(block.device, block.table, block.signals) for block in blocks] == [
        ("plc1", Table.COIL, (1,)),
        ("plc1", Table.DISCRETE_INPUT, (0, 3)),
        ("plc2", Table.DISCRETE_INPUT, (2,)),
    ]


def test_each_rate_has_requests_of_its_own_the_fastest_first() -> None:
    slow, fast = signal(1, poll_ms=1000), signal(3, poll_ms=50)
    blocks = blocks_of(renumbered([signal(0), slow, signal(2), fast]))
    assert [(b.poll_ms, b.start, b.count, b.signals) for b in blocks] == [
        (50, 3, 1, (3,)),
        (200, 0, 3, (0, 2)),
        (1000, 1, 1, (1,)),
    ]


def test_what_must_be_seen_together_is_read_at_its_fastest_rate() -> None:
    door = (signal(0, name="ch_a", guard="g", poll_ms=1000), signal(1, name="ch_b", guard="g", poll_ms=50))
    (block,) = blocks_of(renumbered([*door, signal(2, name="bypass", guard="g")]))
    assert (block.poll_ms, block.count) == (50, 3)


def test_a_slower_rate_may_be_stale_for_three_of_its_polls_and_never_less_than_the_device() -> None:
    blocks = blocks_of(renumbered([signal(0, poll_ms=ms) for ms in (50, 200, 500, 1000)]))
    assert [block.stale_ms for block in blocks] == [2000, 2000, 2000, 3000]
    tight = replace(LIMITS, stale_ms=400)
    assert [block.stale_ms for block in blocks_of([signal(0)], tight)] == [400]


def test_a_devices_own_limits_hold() -> None:
    few = replace(LIMITS, max_bits=8, gap_bits=2)
    bits = blocks_of(renumbered([signal(n) for n in (0, 3, 7, 8, 12)]), few)
    assert [(block.start, block.count) for block in bits] == [(0, 4), (7, 2), (12, 1)]


def test_what_must_not_be_read_parts_requests_and_keeps_bypass_from_its_guard() -> None:
    careful = replace(LIMITS, avoid=((Table.DISCRETE_INPUT, 10, 12),))
    door = (
        signal(0, name="ch_a", guard="g"),
        signal(1, name="ch_b", guard="g"),
        signal(20, name="bypass", guard="g"),
    )
    blocks = blocks_of(renumbered([*door, signal(9), signal(13)]), careful)
    assert [(block.start, block.count) for block in blocks] == [(0, 10), (13, 8)]
    coils = blocks_of(renumbered([signal(number, table=Table.COIL) for number in (9, 13)]), careful)
    assert [(block.start, block.count) for block in coils] == [(9, 5)]


def test_no_signals_need_no_requests() -> None:
    assert blocks_of([]) == ()


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
        poll_ms=draw(st.sampled_from([50, 200, 1000])),
    )


@st.composite
def bounds(draw: st.DrawFn) -> ReadLimits:
    return ReadLimits(
        poll_ms=200,
        stale_ms=2000,
        max_bits=draw(st.sampled_from([1, 16, 256, BITS_MAX])),
        max_registers=draw(st.sampled_from([4, 32, REGISTERS_MAX])),
        gap_bits=draw(st.sampled_from([0, 8, GAP_BITS_MAX])),
        gap_registers=draw(st.sampled_from([0, GAP_REGISTERS_MAX])),
    )


def together(members: list[SignalPlan], limits: ReadLimits) -> bool:
    """Whether one request can hold them all."""
    same = len({(item.device, item.table) for item in members}) == 1
    return same and max(i.end for i in members) - min(i.number for i in members) <= limits.block(
        members[0].table
    )


@pytest.mark.thorough
@given(st.lists(points(), max_size=60).map(renumbered), bounds())
@settings(max_examples=500, deadline=None)
def test_for_any_signals_and_limits_the_plan_keeps_every_promise(
    signals: list[SignalPlan], limits: ReadLimits
) -> None:
    blocks = blocks_of(signals, limits)
    home = {index: block for block in blocks for index in block.signals}
    assert Counter(index for block in blocks for index in block.signals) == Counter(range(len(signals)))
    assert [block.id for block in blocks] == list(range(len(blocks)))
    for block in blocks:
        assert 1 <= block.count <= limits.block(block.table)
        assert block.stale_ms >= max(limits.stale_ms, 3 * block.poll_ms if block.poll_ms > 200 else 0)
        assert block.start >= 0
        assert block.start + block.count <= ADDRESSES
        members = [signals[index] for index in block.signals]
        assert min(item.number for item in members) == block.start
        assert max(item.end for item in members) == block.start + block.count
        assert {(item.device, item.table) for item in members} == {(block.device, block.table)}
        assert block.poll_ms == min(item.poll_ms for item in members)
        read = {address for item in members for address in range(item.number, item.end)}
        guarded = [item for item in members if item.guard and item.name in COMPANY]
        if not guarded:
            assert all(high - low - 1 <= limits.gap(block.table) for low, high in pairwise(sorted(read)))
    for guard in {item.guard for item in signals if item.guard}:
        mine = [item for item in signals if item.guard == guard]
        for device, table in {(item.device, item.table) for item in mine}:
            here = [item for item in mine if (item.device, item.table) == (device, table)]
            channels = [item for item in here if item.name in CHANNEL_NAMES]
            core = [item for item in here if item.name in (*CHANNEL_NAMES, "locked", "bypass")]
            for group in (channels, core):
                if group and together(group, limits):
                    assert len({home[item.id].id for item in group}) == 1


@pytest.mark.thorough
@given(st.lists(points(), max_size=40).map(renumbered), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_order_of_the_signals_changes_no_request(signals: list[SignalPlan], order: random.Random) -> None:
    shuffled = list(signals)
    order.shuffle(shuffled)
    assert {(b.device, b.table, b.start, b.count) for b in blocks_of(shuffled)} == {
        (b.device, b.table, b.start, b.count) for b in blocks_of(signals)
    }
    assert blocks_of(signals) == blocks_of(signals)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=60), st.sampled_from(list(Table)))
@settings(max_examples=200, deadline=None)
def test_no_request_could_have_been_saved_by_joining_neighbours(numbers: list[int], table: Table) -> None:
    blocks = blocks_of(renumbered([signal(number, table=table) for number in numbers]))
    for lower, upper in pairwise(blocks):
        gap = upper.start - (lower.start + lower.count)
        joined = upper.start + 1 - lower.start
        assert gap > LIMITS.gap(table) or joined > LIMITS.block(table)
