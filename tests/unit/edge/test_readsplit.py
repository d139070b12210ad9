"""Requests that a device refuses are cut where it likely has nothing, never through what belongs together."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.plan import ReadBlock, SignalPlan, Table, ValueType
from edge_agent.domain.readplan import ReadLimits, plan_reads
from edge_agent.domain.readsplit import Refusals, RefusedSpan, span_of, split, split_plan, split_refused
from edge_agent.domain.units import BlockId, DeviceId, GuardId, MachineId, SignalId
from edge_agent.wire.structure import plain, structure
from tests.unit.edge.rig import cell

PLC = DeviceId("plc1")
WORDS = Table.HOLDING_REGISTER
NEW = BlockId(7)


def word(number: int, kind: ValueType = ValueType.UINT16) -> SignalPlan:
    return SignalPlan(SignalId(0), "speed", MachineId("m"), None, PLC, WORDS, number, None, kind, 200)


def bit(number: int, name: str, guard: str = "g") -> SignalPlan:
    table, machine = Table.DISCRETE_INPUT, MachineId("m")
    return SignalPlan(
        SignalId(0), name, machine, GuardId(guard), PLC, table, number, None, ValueType.BIT, 200
    )


def one_block(
    *given_signals: SignalPlan, limits: ReadLimits | None = None
) -> tuple[ReadBlock, list[SignalPlan]]:
    signals = [replace(item, id=SignalId(index)) for index, item in enumerate(given_signals)]
    (block,) = plan_reads(signals, {PLC: limits or ReadLimits(200, 2000, gap_bits=100, gap_registers=100)})
    return block, signals


def spans(parts: tuple[ReadBlock, ...]) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(part.start, part.count, part.signals) for part in parts]


def test_it_is_cut_in_the_largest_gap() -> None:
    block, signals = one_block(word(0), word(1), word(9), word(14))
    parts = split(block, signals, NEW)
    assert spans(parts) == [(0, 2, (0, 1)), (9, 6, (2, 3))]
    assert [part.id for part in parts] == [block.id, NEW]
    assert {(part.poll_ms, part.stale_ms, part.device, part.table) for part in parts} == {
        (200, 2000, PLC, WORDS)
    }


def test_without_a_gap_it_is_cut_in_the_middle() -> None:
    block, signals = one_block(*(word(number) for number in range(10)))
    assert [(part.start, part.count) for part in split(block, signals, NEW)] == [(0, 5), (5, 5)]


def test_a_value_of_several_registers_is_never_torn() -> None:
    block, signals = one_block(word(0), word(1, ValueType.FLOAT64), word(5))
    assert [(part.start, part.count) for part in split(block, signals, NEW)] == [(0, 1), (1, 5)]


def test_the_channels_of_a_guard_are_never_parted() -> None:
    block, signals = one_block(bit(0, "ch_a"), bit(50, "ch_b"))
    assert split(block, signals, NEW) == (block,)


def test_bypass_leaves_its_guard_only_when_nothing_else_is_left_to_cut() -> None:
    block, signals = one_block(bit(0, "ch_a"), bit(1, "ch_b"), bit(60, "bypass"), bit(70, "ch_a", "h"))
    first, second = split(block, signals, NEW)
    assert spans((first, second)) == [(0, 61, (0, 1, 2)), (70, 1, (3,))]
    assert spans(split(first, signals, NEW)) == [(0, 2, (0, 1)), (60, 1, (2,))]


def test_a_request_that_was_made_longer_is_asked_again_as_long_as_needed() -> None:
    block, signals = one_block(word(4))
    longer = replace(block, start=4, count=3)
    assert spans(split(longer, signals, NEW)) == [(4, 1, (0,))]
    assert split(block, signals, NEW) == (block,)


def test_the_plan_keeps_the_parts_side_by_side_and_its_other_requests_as_they_were() -> None:
    plan = cell()
    bits = plan.blocks[0]
    parted = split_plan(plan, bits.id)
    first, second = parted.blocks[0], parted.blocks[-1]
    assert (first.id, second.id) == (0, len(plan.blocks))
    assert parted.blocks[1:-1] == plan.blocks[1:]
    assert parted.devices[bits.device].blocks == (0, len(plan.blocks), 1)
    assert [block.id for block in parted.blocks] == list(range(len(parted.blocks)))


def test_a_plan_that_remembers_what_was_refused_asks_for_the_parts_at_once() -> None:
    plan = cell()
    once = split_plan(plan, BlockId(0))
    twice = split_plan(once, BlockId(0))
    remembered = [span_of(plan.blocks[0]), span_of(once.blocks[0])]
    assert split_refused(plan, remembered) == twice
    gone = RefusedSpan(DeviceId("gone"), WORDS, 0, 1, 200)
    assert split_refused(plan, [gone, replace(remembered[0], count=99)]) == plan


def test_refusals_survive_the_memory() -> None:
    refusals = Refusals("f" * 64, tuple(span_of(block) for block in cell().blocks))
    assert structure(Refusals, plain(refusals), "memory") == refusals


@st.composite
def points(draw: st.DrawFn) -> SignalPlan:
    number = draw(st.integers(0, 120))
    if draw(st.booleans()):
        return replace(word(number), guard=None, type=draw(st.sampled_from(list(ValueType))))
    name = draw(st.sampled_from(["ch_a", "ch_b", "locked", "bypass", "dev_fault"]))
    return replace(bit(number, name, draw(st.sampled_from(["g", "h"]))), table=WORDS, bit=0)


@given(st.lists(points(), min_size=1, max_size=25), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_however_often_it_is_cut_every_signal_keeps_one_whole_home(
    items: list[SignalPlan], order: random.Random
) -> None:
    signals = [replace(item, id=SignalId(index)) for index, item in enumerate(items)]
    limits = ReadLimits(200, 2000, gap_registers=125)
    blocks = list(plan_reads(signals, {PLC: limits}))
    before = {index: block for block in blocks for index in block.signals}
    final: list[ReadBlock] = []
    while blocks:
        block = blocks.pop(order.randrange(len(blocks)))
        parts = split(block, signals, BlockId(len(final) + len(blocks) + 1))
        (final if parts == (block,) else blocks).extend(parts)
        assert sorted(index for part in parts for index in part.signals) == sorted(block.signals)
    home = {index: block for block in final for index in block.signals}
    assert home.keys() == before.keys()
    for signal in signals:
        block = home[signal.id]
        assert block.start <= signal.number
        assert signal.end <= block.start + block.count
    for guard in ("g", "h"):
        channels = [item for item in signals if item.guard == guard and item.name in ("ch_a", "ch_b")]
        if len({before[item.id].id for item in channels}) == 1:
            assert len({(home[item.id].start, home[item.id].count) for item in channels}) == 1
