"""Answer lengths on RTU-framed lines: no answer looks like its neighbour's where that can be had."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.readlength import LONGER_MAX, vary_lengths
from edge_agent.domain.readplan import ADDRESSES, ReadLimits
from edge_agent.domain.units import BlockId, DeviceId, SignalId

PLC, DRIVE = DeviceId("plc"), DeviceId("drive")
LIMITS = ReadLimits(poll_ms=200, stale_ms=2000)
BITS, WORDS = Table.DISCRETE_INPUT, Table.HOLDING_REGISTER


def blocks_of(*spans: tuple[DeviceId, Table, int, int]) -> list[ReadBlock]:
    return [
        ReadBlock(BlockId(index), device, table, start, count, (SignalId(index),), 200, 2000)
        for index, (device, table, start, count) in enumerate(spans)
    ]


def varied(blocks: list[ReadBlock], limits: ReadLimits = LIMITS) -> list[tuple[int, int]]:
    both = {PLC: limits, DRIVE: limits}
    return [(block.start, block.count) for block in vary_lengths(blocks, both, [[(PLC, 1), (DRIVE, 2)]])]


def test_of_two_equal_answers_the_second_becomes_longer() -> None:
    assert varied(blocks_of((PLC, WORDS, 0, 4), (PLC, WORDS, 40, 4))) == [(0, 4), (40, 5)]


def test_bits_are_read_up_to_the_next_byte_of_the_answer() -> None:
    assert varied(blocks_of((PLC, BITS, 0, 3), (PLC, BITS, 400, 8))) == [(0, 3), (400, 9)]


def test_the_last_request_differs_from_the_first_too_because_the_cycle_goes_on() -> None:
    three = blocks_of((PLC, WORDS, 0, 4), (PLC, WORDS, 40, 4), (PLC, WORDS, 80, 4))
    assert varied(three) == [(0, 4), (40, 5), (80, 6)]


def test_units_of_one_line_differ_as_well() -> None:
    assert varied(blocks_of((PLC, WORDS, 0, 4), (DRIVE, WORDS, 0, 4))) == [(0, 4), (0, 5)]


def test_at_the_end_of_the_table_a_request_grows_downward() -> None:
    assert varied(blocks_of((PLC, WORDS, 0, 4), (PLC, WORDS, ADDRESSES - 4, 4))) == [
        (0, 4),
        (ADDRESSES - 5, 5),
    ]


def test_a_full_request_stays_as_it_is() -> None:
    assert varied(blocks_of((PLC, WORDS, 0, 125), (PLC, WORDS, 200, 125))) == [(0, 125), (200, 125)]


def test_a_device_that_refuses_gaps_is_asked_for_nothing_it_has_not() -> None:
    strict = replace(LIMITS, gap_registers=0)
    assert varied(blocks_of((PLC, WORDS, 0, 4), (PLC, WORDS, 40, 4)), strict) == [(0, 4), (40, 4)]
    assert varied(blocks_of((PLC, WORDS, 0, 4), (PLC, WORDS, 4, 4)), strict) == [(0, 4), (3, 5)]


def test_a_request_never_grows_into_what_must_not_be_read() -> None:
    careful = replace(LIMITS, avoid=((WORDS, 44, 50),))
    assert varied(blocks_of((PLC, WORDS, 0, 4), (PLC, WORDS, 40, 4)), careful) == [(0, 4), (39, 5)]


def test_links_that_number_their_requests_are_left_alone() -> None:
    equal = blocks_of((PLC, WORDS, 0, 4), (PLC, WORDS, 40, 4))
    assert vary_lengths(equal, {PLC: LIMITS}, []) == tuple(equal)


@st.composite
def lines(draw: st.DrawFn) -> list[ReadBlock]:
    spans = st.tuples(
        st.sampled_from([PLC, DRIVE]),
        st.sampled_from(list(Table)),
        st.integers(0, ADDRESSES - 60),
        st.integers(1, 60),
    )
    return blocks_of(*draw(st.lists(spans, max_size=30)))


@given(lines())
@settings(max_examples=200, deadline=None)
def test_on_any_line_with_room_no_two_neighbours_have_answers_of_one_length(blocks: list[ReadBlock]) -> None:
    longer = vary_lengths(blocks, {PLC: LIMITS, DRIVE: LIMITS}, [[(PLC, 1), (DRIVE, 2)]])
    for before, after in zip(blocks, longer, strict=True):
        assert (after.id, after.signals, after.poll_ms) == (before.id, before.signals, before.poll_ms)
        assert 0 <= after.start <= before.start
        assert before.start + before.count <= after.start + after.count <= ADDRESSES
        assert after.length_bytes - before.length_bytes <= 2 * LONGER_MAX
    order = [block for device in (PLC, DRIVE) for block in longer if block.device == device]
    for unit in (PLC, DRIVE):
        for table in Table:
            same = [block for block in order if (block.device, block.table) == (unit, table)]
            assert_unlike(same)
    assert_unlike(order)


def assert_unlike(cycle: list[ReadBlock]) -> None:
    assert all(one.length_bytes != other.length_bytes for one, other in pairwise(cycle))
    if len(cycle) > 1:
        assert cycle[-1].length_bytes != cycle[0].length_bytes
