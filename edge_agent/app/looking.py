"""What `probe`, `scan` and `doctor` share: one look at a device, and what a failed one means in words.

Everything here reads: function codes 1 to 4, one request in flight, and never faster than a person needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.adapters.fieldbus_confirmed import CHANGING_MAX
from edge_agent.app.links import DeviceLink
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import BlockId, DeviceId
from edge_agent.ports import BlockFailed, BlockOutcome

WORDS_S: Final = 0.02
WORDS_LOOKS: Final = 25
"""How long, in looks of `WORDS_S`, the end of a connection may take to be understood; a TLS goodbye takes some messages."""

LOOK_TIMEOUT_MS: Final = 2000
"""A person at a cabinet waits this long for a device that may sit behind a slow gateway."""

GATEWAY_SILENCE: Final = frozenset({"exception:10", "exception:11"})
"""A gateway's own words for "nobody there" (Modbus Application Protocol 1.1b3, 7: 0x0A, 0x0B)."""

_MEANINGS: Final[Mapping[str, str]] = {
    "link": "cannot connect: check address, port and cable; devices with a single connection refuse while an agent holds it",
    "timeout": "no answer: is the unit id right, and the device on this line?",
    "exception:1": "exception 01: the device does not know this function — try another --table",
    "exception:2": "exception 02: not all of these addresses exist here — ask for fewer; is the list 1-based?",
    "exception:3": "exception 03: the device does not accept this count — ask for fewer",
    "exception:4": "exception 04: the device failed while reading",
    "exception:5": "exception 05: the device needs longer — ask again",
    "exception:6": "exception 06: the device is busy — ask again",
    "exception:10": "exception 0A: the gateway has no path to this unit",
    "exception:11": "exception 0B: the unit behind the gateway does not answer",
    "short": "the answer has another length than asked for",
    "wrong_unit": "another unit answered: two devices with one address, or a gateway that rewrites it",
    "wrong_function": "the answer is for another function",
    "bad_frame": "what came is no Modbus answer: wrong port, framing, baud rate or parity?",
    "unconfirmed": "two readings in a row differed right after a disturbance — ask again",
}


def meaning(reason: str, trouble: str | None = None) -> str:
    """A failed read in words, with what to try; `trouble` is what the link itself says about its connection."""
    if reason == "link" and trouble is not None:
        return trouble
    return _MEANINGS.get(reason, reason)


async def settled(link: DeviceLink, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
    """One read, made again while a line on RTU framing must yet be proved: values that change all the time take some rounds.

    A connection that is gone is given a moment to say why: it is told before the link has looked at what ended it.
    """
    outcome = await link.read(unit, block, timeout_ms)
    for _ in range(CHANGING_MAX):
        if outcome != BlockFailed("unconfirmed"):
            break
        outcome = await link.read(unit, block, timeout_ms)
    for _ in range(WORDS_LOOKS):
        if outcome != BlockFailed("link") or link.trouble is not None:
            break
        await asyncio.sleep(WORDS_S)
    return outcome


@dataclass(frozen=True, slots=True)
class Look:
    """What to read: `count` items of `table` of `unit` from `start`."""

    unit: int
    table: Table
    start: int
    count: int

    def block(self) -> ReadBlock:
        """As a request."""
        return ReadBlock(BlockId(0), DeviceId("look"), self.table, self.start, self.count, (), 0, 0)

    def items(self, data: bytes) -> list[tuple[int, int]]:
        """Item numbers and raw values of an answer."""
        if self.table.is_bits:
            return [(self.start + index, data[index // 8] >> index % 8 & 1) for index in range(self.count)]
        words = [int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2)]
        return list(enumerate(words, self.start))
