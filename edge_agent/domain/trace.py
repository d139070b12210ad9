"""Recorded reads, line by line, as the samples and failures that an engine would have got.

A trace is JSON Lines; `t` is monotonic milliseconds and never goes back; each line is one read:

    {"t": 1000, "device": "plc1", "table": "di", "start": 0, "bits": "1101"}       "words": [7, 65535] for registers
    {"t": 1200, "device": "plc1", "table": "di", "start": 0, "count": 4, "error": "timeout"}

Lines need not be cut as the read plan cuts its blocks: a line may cover several blocks, or a part of one. A part is
laid over the block's last content; a block is first sampled once all of it has been seen. Items that no block reads
are ignored: a trace may hold more than the configuration watches.

Any line gives entries or a problem, never an exception. Source: the outside contract, section 6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.domain.plan import CellPlan, ReadBlock, Table
from edge_agent.domain.quality import BadReason
from edge_agent.domain.units import NS_PER_MS, BlockId, DeviceId, MonoNs

LINE_MAX_CHARS = 64 * 1024
"""Longer than any read can be written: the protocol's 2000 bits or 125 words fit many times over."""

ITEMS_MAX = 65_536
"""A Modbus table has no more."""

T_MAX_MS = 250_000_000_000_000
"""Milliseconds beyond this are no time anybody recorded; counted from 1970 it is a date yet (RFC 3339 ends with year 9999)."""

_REASON = re.compile(r"timeout|link|short|exception:\d{1,3}|wrong_unit|wrong_function|bad_frame|unconfirmed")


@dataclass(frozen=True, slots=True)
class TraceSample:
    """A good reply: the block's whole content at `now`."""

    now: MonoNs
    block: BlockId
    data: bytes


@dataclass(frozen=True, slots=True)
class TraceFailure:
    """A read of the block that brought nothing."""

    now: MonoNs
    block: BlockId
    reason: BadReason


@dataclass(frozen=True, slots=True)
class TraceProblem:
    """`NAME:LINE: what is wrong — how to mend it`."""

    text: str


TraceEntry: TypeAlias = TraceSample | TraceFailure | TraceProblem


class _BadLineError(ValueError):
    """The text says what is wrong and how to mend it."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One checked line; `items` is None for a failed read of `count` items."""

    now: MonoNs
    device: DeviceId
    table: Table
    start: int
    count: int
    items: list[int] | None
    reason: BadReason


def read_trace(plan: CellPlan, lines: Iterable[str], name: str) -> Iterator[TraceEntry]:
    """The entries of a trace in order; `name` stands in problems. Blank lines are skipped."""
    images = [_Image(block) for block in plan.blocks]
    now = MonoNs(0)
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = _checked(plan, text, now)
        except _BadLineError as error:
            yield TraceProblem(f"{name}:{number}: {error}")
            continue
        now = line.now
        for image in images:
            if image.is_touched(line):
                yield from image.entries(line)


class _Image:
    """One block's content as far as the trace has shown it."""

    def __init__(self, block: ReadBlock) -> None:
        self._block = block
        self._items: list[int | None] = [None] * block.count

    def is_touched(self, line: _Line) -> bool:
        block = self._block
        return (
            line.device == block.device
            and line.table is block.table
            and line.start < block.start + block.count
            and block.start < line.start + line.count
        )

    def entries(self, line: _Line) -> Iterator[TraceEntry]:
        block = self._block
        if line.items is None:
            yield TraceFailure(line.now, block.id, line.reason)
            return
        for offset, item in enumerate(line.items, start=line.start - block.start):
            if 0 <= offset < block.count:
                self._items[offset] = item
        known = [item for item in self._items if item is not None]
        if len(known) == block.count:
            yield TraceSample(line.now, block.id, pack_items(block.table, known))


def pack_items(table: Table, items: Iterable[int]) -> bytes:
    """Items as a Modbus answer packs them: bits least significant first, registers high byte first."""
    if not table.is_bits:
        return b"".join(item.to_bytes(2, "big") for item in items)
    packed = bytearray()
    for index, item in enumerate(items):
        if index % 8 == 0:
            packed.append(0)
        packed[-1] |= item << index % 8
    return bytes(packed)


def _checked(plan: CellPlan, text: str, earliest: MonoNs) -> _Line:
    document = _parsed(text)
    device = document.get("device")
    if not isinstance(device, str) or device not in plan.devices:
        known = ", ".join(plan.devices)
        raise _BadLineError(f"device {device!r} is not configured — one of: {known}")
    try:
        table = Table(str(document.get("table")))
    except ValueError:
        raise _BadLineError(f"table {document.get('table')!r} is unknown — co, di, hr or ir") from None
    now = MonoNs(round(_number(document, "t", T_MAX_MS) * NS_PER_MS))
    if now < earliest:
        raise _BadLineError("t goes back — sort the trace by t")
    start = _integer(document, "start", 0, ITEMS_MAX - 1)
    if "error" in document:
        reason = document["error"]
        if not isinstance(reason, str) or not _REASON.fullmatch(reason):
            raise _BadLineError(f"error {reason!r} is unknown — timeout, exception:N, short or link")
        count = _integer(document, "count", 1, ITEMS_MAX)
        return _Line(now, DeviceId(device), table, start, count, None, reason)
    items = _bits(document) if table.is_bits else _words(document)
    return _Line(now, DeviceId(device), table, start, len(items), items, "")


def _parsed(text: str) -> dict[str, object]:
    if len(text) > LINE_MAX_CHARS:
        raise _BadLineError(f"longer than {LINE_MAX_CHARS} characters — one read per line")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _BadLineError("not JSON — one object per line") from None
    if not isinstance(document, dict):
        raise _BadLineError("not a JSON object — one object per line")
    return document


def _number(document: dict[str, object], key: str, most: int) -> int | float:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise _BadLineError(f"{key} is {value!r} — milliseconds, zero or more")
    return value


def _integer(document: dict[str, object], key: str, least: int, most: int) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _BadLineError(f"{key} is {value!r} — an integer from {least} to {most}")
    return value


def _bits(document: dict[str, object]) -> list[int]:
    value = document.get("bits")
    if not isinstance(value, str) or not value or set(value) - {"0", "1"}:
        raise _BadLineError(
            'bits is missing or no text of 0 and 1 — e.g. "bits": "1101" (or "count" and "error")'
        )
    return [int(letter) for letter in value]


def _words(document: dict[str, object]) -> list[int]:
    value = document.get("words")
    if not isinstance(value, list) or not value:
        raise _BadLineError('words is missing or empty — e.g. "words": [7, 65535] (or "count" and "error")')
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= 0xFFFF:
            raise _BadLineError(f"words holds {item!r} — integers from 0 to 65535")
    return value
