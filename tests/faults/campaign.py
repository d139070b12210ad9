"""One framing under every fault: reads without end, an oracle for each outcome, and the engine's bound on unknown time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from edge_agent.adapters.fieldbus_confirmed import ConfirmedLink
from edge_agent.adapters.fieldbus_connection import Timing
from edge_agent.adapters.fieldbus_framing import MbapFraming, RtuFraming
from edge_agent.adapters.fieldbus_serial import frame_silence_s
from edge_agent.adapters.fieldbus_stream import StreamLink
from edge_agent.ports import BlockOk, Fieldbus
from simulators.draw import Draw
from simulators.faults import FaultKind
from tests.faults.line import TIMEOUT_MS, FaultyLine, Kind
from tests.faults.truth import Place, places
from tests.faults.watch import Watch
from tests.simulation.virtual_loop import run_virtual, virtual_loop

SHARE: Final = 0.15
"""Of the replies that are spoilt: two devices of three have one in any eight requests."""

LINK_PAUSE_S: Final = 0.05
NEIGHBOUR_SHARE: Final = 0.5
"""Of requests that go to the other block of the same unit and table: alike in everything that a reply shows of them."""

WRONG_SHOWN_MAX: Final = 5
BAUD: Final = 19_200

LinkMaker: TypeAlias = Callable[[FaultyLine, Kind], Fieldbus]


def disciplined(line: FaultyLine, kind: Kind) -> Fieldbus:
    """The agent's own link."""
    if kind is Kind.MBAP:
        return StreamLink(line, MbapFraming())
    stream = StreamLink(line, RtuFraming(), Timing(silence_s=frame_silence_s(BAUD)))
    return ConfirmedLink(stream, quiet_s=TIMEOUT_MS / 1000, is_dialled=kind is Kind.RTU_OVER_TCP)


@dataclass(slots=True)
class Tally:
    """What came of a campaign. `wrong` describes the first few wrong values, `wrong_count` counts all."""

    kind: Kind
    replies: int = 0
    struck: Counter[FaultKind] = field(default_factory=Counter)
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong_count: int = 0
    wrong: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    went_unknown: int = 0
    unknown_late_ms: float = 0.0
    shown_too_long: int = 0

    def judge(self, place: Place, data: bytes, asked_ns: int, answered_ns: int) -> None:
        """Count a value that was believed."""
        self.accepted += 1
        objection = place.objection(data, asked_ns, answered_ns)
        if objection is None:
            return
        self.wrong_count += 1
        if len(self.wrong) < WRONG_SHOWN_MAX:
            block = place.block
            asked = f"unit {place.unit}, function {block.table.function_code}, address {block.start}"
            self.wrong.append(f"{answered_ns / 1e9:.3f} s: {asked} was told {objection}")

    @property
    def is_good(self) -> bool:
        """No wrong value, and nothing shown beyond its time."""
        return self.wrong_count == 0 and self.shown_too_long == 0


def run_campaign(
    kind: Kind, replies: int, seed: int, make_link: LinkMaker = disciplined, share: float = SHARE
) -> Tally:
    """Read until the slaves have sent `replies`, on a virtual loop of its own."""
    return run_virtual(lambda: _campaign(kind, replies, seed, make_link, share))


async def _campaign(kind: Kind, replies: int, seed: int, make_link: LinkMaker, share: float) -> Tally:
    draw = Draw(seed).split(kind)
    cell = places(draw.split("places"))
    line = FaultyLine(kind, cell, draw.split("line"), share)
    link = make_link(line, kind)
    watch = Watch(cell)
    tally = Tally(kind, struck=line.struck)
    loop = virtual_loop()
    turns = draw.split("turns")
    place = cell[0]
    try:
        while line.replies < replies:
            place = cell[place.block.id ^ 1] if turns.chance(NEIGHBOUR_SHARE) else turns.choice(cell)
            asked_ns = loop.now_ns
            outcome = await link.read(place.unit, place.block, TIMEOUT_MS)
            if isinstance(outcome, BlockOk):
                tally.judge(place, outcome.data, asked_ns, loop.now_ns)
            else:
                tally.refused[outcome.reason] += 1
                if outcome.reason == "link":  # it fails at once, and the schedule waits for the next poll
                    await asyncio.sleep(LINK_PAUSE_S)
            watch.take(place, outcome, asked_ns, loop.now_ns)
    finally:
        await link.close()
    tally.replies = line.replies
    tally.virtual_s = loop.time()
    tally.went_unknown = watch.went_unknown
    tally.unknown_late_ms = watch.late_ns_max / 1e6
    tally.shown_too_long = watch.shown_too_long
    return tally
