"""What every register holds at every moment: where it is, and how often it has changed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import NS_PER_MS, BlockId, DeviceId, SignalId
from simulators.draw import Draw

_CONTENT: Final = struct.Struct(">BBHI")  # unit, function code, start, generation
CONTENT_BYTES: Final = _CONTENT.size
UNITS: Final = tuple(range(1, 9))
STARTS: Final = (0, 64)
PERIODS_MS: Final = (3, 40, 700, 60_000)  # changes in every read, now and then, seldom, hardly ever
POLL_MS: Final = 200
STALE_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Place:
    """One block of one unit, and how often its content changes. All have the same length, on purpose."""

    unit: int
    block: ReadBlock
    period_ns: int

    def generation(self, at_ns: int) -> int:
        """How often it has changed by then."""
        return at_ns // self.period_ns

    def content(self, at_ns: int) -> bytes:
        """The data bytes of a true reply made at that moment."""
        return _CONTENT.pack(
            self.unit, self.block.table.function_code, self.block.start, self.generation(at_ns)
        )

    def objection(self, data: bytes, asked_ns: int, answered_ns: int) -> str | None:
        """Why `data` cannot be what was here between the request and the answer; None when it can."""
        unit, function, start, generation = _CONTENT.unpack(data)
        if (unit, function, start) != (self.unit, self.block.table.function_code, self.block.start):
            return f"the content of unit {unit}, function {function}, address {start}"
        first, last = self.generation(asked_ns), self.generation(answered_ns)
        if not first <= generation <= last:
            return f"generation {generation}, not one of {first} to {last}"
        return None


def places(draw: Draw) -> list[Place]:
    """Every unit's blocks in all four tables; block ids and signal ids count from 0 in this order."""
    made: list[Place] = []
    for unit in UNITS:
        for table in Table:
            for start in STARTS:
                number = len(made)
                count = 8 * CONTENT_BYTES if table.is_bits else CONTENT_BYTES // 2
                block = ReadBlock(
                    BlockId(number),
                    DeviceId(f"unit-{unit}"),
                    table,
                    start,
                    count,
                    (SignalId(number),),
                    POLL_MS,
                    STALE_MS,
                )
                made.append(Place(unit, block, draw.choice(PERIODS_MS) * NS_PER_MS))
    return made
