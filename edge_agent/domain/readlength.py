"""Neighbouring requests of a line with RTU framing ask for answers of different lengths.

Theory of operation. An RTU answer names its unit and function, but neither its address nor its request. One that comes
after its time looks exactly like the answer to the next request if unit, function and length agree; then one door's bits
are taken for another's. So each request is compared with the one before it of the same unit and table, and with the one
before it on the line, around the cycle (the last comes before the first). Where lengths agree it reads a little more
than it needs, upward or else downward: a register, or bits up to the next byte of the answer.

    hr/0…3 (8 bytes)  hr/40…43 (8 bytes)   ──▶   hr/0…3 (8 bytes)  hr/40…44 (10 bytes)

Requests that are full already stay as they are, and so do those of a device that refuses what it does not have (its gap
limit is 0), unless another request reads those addresses. Differing from another unit is given up before differing from
the same one, because the unit is in the answer.

Source: Modbus over Serial Line 1.02, 2.3 (RTU frames carry no transaction number); pymodbus issue 2636 (late replies
taken for others).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.readplan import ADDRESSES, ReadLimits
from edge_agent.domain.units import BlockId, DeviceId

LONGER_MAX: Final = 4
"""A request has at most four neighbours to differ from, so one of five lengths always does."""

Line: TypeAlias = Sequence[tuple[DeviceId, int]]
"""The devices of one link with their units, in the order of the configuration."""


def vary_lengths(
    blocks: Sequence[ReadBlock], limits: Mapping[DeviceId, ReadLimits], lines: Iterable[Line]
) -> tuple[ReadBlock, ...]:
    """The blocks, some of them longer; `lines` are the RTU-framed links, `limits` name every device of the blocks."""
    found = list(blocks)
    blocks_of: dict[DeviceId, list[ReadBlock]] = {}
    for block in blocks:
        blocks_of.setdefault(block.device, []).append(block)
    for line in lines:
        order: list[BlockId] = []
        kinds: dict[tuple[int, Table], list[BlockId]] = {}
        for device, unit in line:
            for block in sorted(blocks_of.get(device, []), key=lambda block: (block.poll_ms, block.id)):
                order.append(block.id)
                kinds.setdefault((unit, block.table), []).append(block.id)
        peers_of = {
            index: _beside(peers, place) for peers in kinds.values() for place, index in enumerate(peers)
        }
        for place, index in enumerate(order):
            block = found[index]
            same = {found[other].length_bytes for other in peers_of[index]}
            near = {found[other].length_bytes for other in _beside(order, place)}
            choices = list(_choices(block, limits[block.device], blocks_of[block.device]))
            found[index] = _first_unlike(choices, same | near) or _first_unlike(choices, same) or block
    return tuple(found)


def _beside(cycle: Sequence[BlockId], place: int) -> list[BlockId]:
    """What stands next to `place` in the cycle and is settled already."""
    before = [cycle[place - 1]] if place else []
    return [*before, cycle[0]] if place > 1 and place == len(cycle) - 1 else before


def _first_unlike(choices: Iterable[ReadBlock], lengths: set[int]) -> ReadBlock | None:
    return next((choice for choice in choices if choice.length_bytes not in lengths), None)


def _choices(block: ReadBlock, limits: ReadLimits, own: Sequence[ReadBlock]) -> Iterator[ReadBlock]:
    """The block as it is, then ever longer ones that device and protocol allow."""
    yield block
    end = block.start + block.count
    for longer in range(1, LONGER_MAX + 1):
        count = block.count + longer
        if block.table.is_bits:
            count = (block.length_bytes + longer - 1) * 8 + 1
        for start in (block.start, end - count):
            grown = replace(block, start=start, count=count)
            if start >= 0 and start + count <= ADDRESSES and _is_welcome(grown, limits, own):
                yield grown


def _is_welcome(grown: ReadBlock, limits: ReadLimits, own: Sequence[ReadBlock]) -> bool:
    """Whether the device can be asked for all of it at once: gaps are no matter to it, or other requests read them."""
    if not limits.holds(grown.table, grown.start, grown.start + grown.count):
        return False
    if limits.gap(grown.table):
        return True
    spans = [range(other.start, other.start + other.count) for other in own if other.table is grown.table]
    wanted = range(grown.start, grown.start + grown.count)
    return all(any(address in span for span in spans) for address in wanted)
