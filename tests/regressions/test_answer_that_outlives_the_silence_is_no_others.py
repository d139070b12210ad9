"""An answer later than its timeout and the silence after it was believed for another block of the same unit.

Found by `python -m tests.faults`: RTU framing, a slave that answers 280 ms after a request whose time is 100 ms. The link
fell silent, confirmed the line with another unit, was in step again, and asked the slow slave for a block of equal
length just when its old answer came. A unit that failed is now doubted until it has confirmed itself.

The confirming could be deceived, too: the whole block was read before its beginning alone, the late answer of the unit's other
block came for the whole, the true one was lost, and the beginning, one register that both blocks have alike, confirmed it.
Now the beginning is read first, and the whole only after it.
"""

from __future__ import annotations

import asyncio

import pytest

from edge_agent.adapters.fieldbus_stream import RECONNECT_MAX_S
from edge_agent.domain.plan import Table
from edge_agent.ports import BlockOk, Fieldbus
from simulators.draw import Draw
from tests.faults.campaign import disciplined
from tests.faults.line import TIMEOUT_MS, FaultyLine, Kind, Wire
from tests.faults.truth import CONTENT_BYTES, STARTS, Place, places
from tests.simulation.virtual_loop import run_virtual, virtual_loop

LATE_NS = 280_000_000
LATE_FOR_THE_NEXT_NS = 265_000_000
SLOW, SWIFT = 1, 2


class _Laggard(FaultyLine):
    """The first answer of the slow unit comes late, and all of its later ones after that."""

    def hear(self, wire: Wire, data: bytes) -> None:
        if data[0] == SLOW and SLOW not in self._free_ns:
            self._free_ns[SLOW] = self._loop.now_ns + LATE_NS
        super().hear(wire, data)


async def _read(link: Fieldbus, place: Place) -> bool:
    """Whether a value was believed; one that is not true fails the test."""
    loop = virtual_loop()
    asked_ns = loop.now_ns
    outcome = await link.read(place.unit, place.block, TIMEOUT_MS)
    if not isinstance(outcome, BlockOk):
        return False
    assert place.objection(outcome.data, asked_ns, loop.now_ns) is None
    return True


async def _story(kind: Kind) -> None:
    cell = places(Draw(1))
    link = disciplined(_Laggard(kind, cell, Draw(1), share=0.0), kind)
    words = [place for place in cell if place.block.table is Table.HOLDING_REGISTER]
    first, second = (place for place in words if place.unit == SLOW)
    swift = next(place for place in words if place.unit == SWIFT)
    try:
        assert await _read(link, swift)
        assert not await _read(link, first)
        assert await _read(link, swift), "the line is in step, as far as its neighbour can tell"
        assert not await _read(link, second), "its answer is that of the first block"
        believed = [await _read(link, second) for _ in range(5)]
        assert believed[-1], "and once it has caught up it is believed"
    finally:
        await link.close()


@pytest.mark.parametrize("kind", [Kind.SERIAL, Kind.RTU_OVER_TCP])
def test_a_very_late_answer_is_not_taken_for_the_next_block_of_its_unit(kind: Kind) -> None:
    run_virtual(lambda: _story(kind))


class _ForgetfulLaggard(_Laggard):
    """And of the block that is asked for next the whole is never answered."""

    def __init__(self, kind: Kind, cell: list[Place], draw: Draw) -> None:
        super().__init__(kind, cell, draw, share=0.0)
        self.forgets = True

    def hear(self, wire: Wire, data: bytes) -> None:
        if data[0] == SLOW and SLOW not in self._free_ns:
            self._free_ns[SLOW] = self._loop.now_ns + LATE_FOR_THE_NEXT_NS
        is_second = data[0] == SLOW and int.from_bytes(data[2:4], "big") == STARTS[1]
        is_whole = int.from_bytes(data[4:6], "big") == CONTENT_BYTES // 2
        if not (self.forgets and is_second and is_whole):
            super().hear(wire, data)


async def _story_of_the_next(kind: Kind) -> None:
    cell = places(Draw(1))
    line = _ForgetfulLaggard(kind, cell, Draw(1))
    link = disciplined(line, kind)
    words = [place for place in cell if place.block.table is Table.HOLDING_REGISTER]
    first, second = (place for place in words if place.unit == SLOW)
    swift = next(place for place in words if place.unit == SWIFT)
    try:
        assert await _read(link, swift)
        assert not await _read(link, first)
        for _ in range(5):
            assert not await _read(link, second), "whatever comes, it is not its answer"
        line.forgets = False
        await asyncio.sleep(RECONNECT_MAX_S)
        assert await _read(link, second), "and once it answers again it is believed"
    finally:
        await link.close()


@pytest.mark.parametrize("kind", [Kind.SERIAL, Kind.RTU_OVER_TCP])
def test_a_late_answer_is_not_taken_for_the_lost_one_of_the_block_that_is_asked_next(kind: Kind) -> None:
    run_virtual(lambda: _story_of_the_next(kind))
