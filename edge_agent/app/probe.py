"""`probe`: a device's raw registers, live; the bit of a guard; the place of a known value.

On a terminal the table is drawn again in place, what has just changed in reverse video; into a file or pipe it is
printed once (`--watch`: again and again). `--find-bit` asks for the guard to be opened three times and names its bit;
`--expect` searches for a value that the fitter reads off a display.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from edge_agent.adapters.clock_system import SystemClock
from edge_agent.app.exits import Exit, complain, refuse, say, say_json
from edge_agent.app.links import DeviceLink, Reach, opened, tool_link
from edge_agent.app.looking import LOOK_TIMEOUT_MS, Look, meaning, settled
from edge_agent.domain.bit_finder import BitFinder, Follower, Found
from edge_agent.domain.plan import Endian, Table, ValueType
from edge_agent.domain.raw_view import NAMES, NEIGHBOURS, Sighting, interpret, search
from edge_agent.domain.readplan import ADDRESSES, block_limit
from edge_agent.domain.units import NS_PER_S
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from edge_agent.settings.link import BadUrl
from edge_agent.wire.event import Json

FIND_POLL_MS: Final = 50
"""Between two looks of `--find-bit`: a door opened by hand is seen with its bounce, and the device bears it."""

FIND_LIMIT_S: Final = 180
"""`--find-bit` gives up after this: three openings take half a minute."""

FIND_FAILURES_MAX: Final = 5
"""Failed looks in a row that end `--find-bit`: noise on a line spoils one or two."""

DEBOUNCE_STEP_MS: Final = 10
"""Suggested debounce times are rounded up to this."""

OPENINGS: Final = 3
"""How often the guard is to be opened: twice can be chance."""

LONGEST: Final = 4
"""Registers of the longest value."""

SIGHTINGS_MAX: Final = 5
"""Places of a value that are told: the least surprising ones."""

PAIR_BITS: Final = 32
QUAD_BITS: Final = 64

Items: TypeAlias = list[tuple[int, int]]

_FLOATS: Final = (ValueType.FLOAT32, ValueType.FLOAT64)
_PAIRS: Final = (ValueType.UINT32, ValueType.INT32, ValueType.FLOAT32)
_QUADS: Final = (ValueType.UINT64, ValueType.INT64, ValueType.FLOAT64)


@dataclass(frozen=True, slots=True)
class Manner:
    """How to show: once or for ever, every `poll_ms`; `bits` 16, 32 or 64 is the widest value shown."""

    watch: bool
    poll_ms: int
    bits: int
    as_json: bool


def probe(reach: Reach, look: Look, manner: Manner) -> Exit:
    """Print raw items once, or until interrupted."""
    return _with_link(reach, look, lambda link: _show(link, look, manner, reach.url))


def find_bit(reach: Reach, look: Look, *, as_json: bool) -> Exit:
    """Name the bit of a guard that someone opens and closes three times."""
    return _with_link(reach, look, lambda link: _find(link, look, as_json=as_json))


def expect(reach: Reach, look: Look, value: float, tolerance: float, *, as_json: bool) -> Exit:
    """Say where and how `value` stands at, or near, the first address of `look`."""
    if look.table.is_bits:
        return refuse(f"a value stands in registers, not in {look.table.value} — use --table hr or ir")
    first = max(0, look.start - NEIGHBOURS)
    count = min(look.start + NEIGHBOURS + LONGEST, ADDRESSES) - first
    wide = Look(look.unit, look.table, first, min(count, block_limit(look.table)))
    return _with_link(reach, wide, lambda link: _search(link, wide, look, value, tolerance, as_json=as_json))


def _with_link(reach: Reach, look: Look, work: Callable[[DeviceLink], Awaitable[Exit]]) -> Exit:
    limit = block_limit(look.table)
    if not 1 <= look.count <= limit or look.start + look.count > ADDRESSES:
        return refuse(
            f"{look.count} items from {look.start} do not fit one request — at most {limit}, up to 65535"
        )

    async def run() -> Exit:
        async with opened(tool_link(reach, LOOK_TIMEOUT_MS)) as link:
            return await work(link)

    try:
        return asyncio.run(run())
    except BadUrl as bad:
        return refuse(f"{reach.url}: {bad.what} — {bad.mend}")
    except OSError as error:
        return refuse(f"{reach.url}: a certificate file cannot be used: {error} — check its path and form")


async def _read(link: DeviceLink, look: Look) -> BlockOutcome:
    return await settled(link, look.unit, look.block(), LOOK_TIMEOUT_MS)


# Showing.


async def _show(link: DeviceLink, look: Look, manner: Manner, url: str) -> Exit:
    screen = Screen(is_live=manner.watch and sys.stdout.isatty() and not manner.as_json)
    before: dict[int, int] = {}
    while True:
        outcome = await _read(link, look)
        if isinstance(outcome, BlockFailed):
            if not manner.watch:
                complain([f"{url}: unit {look.unit}: {meaning(outcome.reason, link.trouble)}"])
                return Exit.FAILED
            screen.draw([f"unit {look.unit}: {meaning(outcome.reason, link.trouble)}"])
        else:
            items = look.items(outcome.data)
            if manner.as_json:
                say_json(_document(look, items, manner.bits))
            else:
                screen.draw(_table(look, items, manner.bits, before, screen.mark))
            before = dict(items)
        if not manner.watch:
            return Exit.OK
        await asyncio.sleep(manner.poll_ms / 1000)


class Screen:
    """Lines drawn again in place on a terminal, or one after the other elsewhere."""

    def __init__(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self._drawn = 0

    def mark(self, text: str) -> str:
        """What has just changed: in reverse video, or with a star where there is none."""
        if self._is_live and "NO_COLOR" not in os.environ:
            return f"\x1b[7m{text}\x1b[0m"
        return f"{text}*"

    def draw(self, lines: Sequence[str]) -> None:
        """Show these instead of the last ones."""
        if self._is_live and self._drawn:
            say(f"\x1b[{self._drawn}F\x1b[J" + "\n".join(lines))
        else:
            say("\n".join(lines))
        self._drawn = len(lines)


def _table(
    look: Look, items: Items, bits: int, before: Mapping[int, int], mark: Callable[[str], str]
) -> list[str]:
    """The items as lines: one each, then pairs and quads of registers in all orders."""
    table = look.table
    lines: list[str] = []
    for number, value in items:
        if table.is_bits:
            line = f"{table.value}/{number}  {value}"
        else:
            signed = interpret([value], ValueType.INT16, Endian.BIG, Endian.BIG)
            line = f"{table.value}/{number}  {value:5d}  0x{value:04X}  {value:016b}  {signed:6d}"
        lines.append(mark(line) if before.get(number, value) != value else line)
    if not table.is_bits:
        lines += _order_lines(table, items, _PAIRS, bits >= PAIR_BITS)
        lines += _order_lines(table, items, _QUADS, bits >= QUAD_BITS)
    return lines


def _order_lines(table: Table, items: Items, kinds: Sequence[ValueType], is_wanted: bool) -> Iterator[str]:  # noqa: FBT001 — a switch of the caller
    span = kinds[0].registers
    if not is_wanted or len(items) < span:
        return
    width = 14 if span == 2 else 24
    heads = "".join(f"{name if span == 2 else name * 2:>{width}}" for name in NAMES.values())
    yield f"{'':24}{heads}"
    for first in range(0, len(items) - span + 1, span):
        words = [value for _, value in items[first : first + span]]
        for kind in kinds:
            values = (
                f"{interpret(words, kind, *order):.7g}"
                if kind in _FLOATS
                else str(interpret(words, kind, *order))
                for order in NAMES
            )
            place = f"{table.value}/{items[first][0]}-{items[first + span - 1][0]}"
            yield f"{place:<16}{kind.value:<8}" + "".join(f"{value:>{width}}" for value in values)


def _document(look: Look, items: Items, bits: int) -> Json:
    document: dict[str, Json] = {
        "unit": look.unit,
        "table": look.table.value,
        "items": {str(number): value for number, value in items},
    }
    if not look.table.is_bits and bits >= PAIR_BITS:
        kinds = (*_PAIRS, *(_QUADS if bits >= QUAD_BITS else ()))
        document["values"] = {kind.value: _all_orders(items, kind) for kind in kinds}
    return document


def _all_orders(items: Items, kind: ValueType) -> Json:
    """Per first register, the value in each order; floats as text, since not every one is a JSON number."""
    span = kind.registers
    found: dict[str, Json] = {}
    for first in range(0, len(items) - span + 1, span):
        words = [value for _, value in items[first : first + span]]
        values = {name: interpret(words, kind, *order) for order, name in NAMES.items()}
        found[str(items[first][0])] = {
            name: value if isinstance(value, int) else f"{value:.9g}" for name, value in values.items()
        }
    return found


# Finding the bit of a guard.


async def _find(link: DeviceLink, look: Look, *, as_json: bool) -> Exit:
    complain(
        [
            f"close the guard; then open and close it {OPENINGS} times, slowly; keep it closed at the end",
            f"watching unit {look.unit}, {look.table.value}/{look.start} to {look.start + look.count - 1}; Ctrl-C ends",
        ]
    )
    finder, clock, told, failures = BitFinder(OPENINGS), SystemClock(), 0, 0
    end = clock.mono() + FIND_LIMIT_S * NS_PER_S
    while (now := clock.mono()) < end:
        outcome = await _read(link, look)
        if isinstance(outcome, BlockOk):
            finder.feed(look.table, look.start, outcome.data, clock.mono())
            failures = 0
        elif (failures := failures + 1) == FIND_FAILURES_MAX:
            complain([meaning(outcome.reason, link.trouble)])
            return Exit.FAILED
        if (found := finder.found(now)) is not None:
            _say_found(found, as_json=as_json)
            return Exit.OK
        if finder.openings > told:
            told = finder.openings
            complain([f"opened and closed: {told} of {OPENINGS}"])
        await asyncio.sleep(FIND_POLL_MS / 1000)
    complain(
        [
            f"no bit was opened and closed {OPENINGS} times within {FIND_LIMIT_S} s — other unit, table or range?"
        ]
    )
    return Exit.FAILED


def _say_found(found: Found, *, as_json: bool) -> None:
    if as_json:
        followers: Json = [
            {
                "at": str(item.place),
                "invert": not item.is_one_when_closed,
                "bounce_ms": item.bounce_ms,
                "debounce_ms": debounce_ms(item.bounce_ms),
            }
            for item in found.followers
        ]
        say_json({"bits": followers, "counters": [*found.counters], "restless": [*map(str, found.restless)]})
        return
    for line in found_lines(found):
        say(line)


def found_lines(found: Found) -> Iterator[str]:
    """What was found, in words, and as it is to stand in the configuration."""
    for item in found.followers:
        closed = "1 = closed" if item.is_one_when_closed else "0 = closed: needs invert: true"
        bounce = f"bounced {item.bounce_ms} ms" if item.bounce_ms else "no bounce seen"
        yield f"{item.place}  {closed}, {bounce}"
    for counter in found.counters:
        yield f"{counter}  rose by {OPENINGS}: a counter of openings? (open_count)"
    likely = found.followers[:2]
    yield ""
    yield f"channels: [{', '.join(_channel(item) for item in likely)}]"
    if len(found.followers) > 1:
        yield (
            f"# {len(found.followers)} bits follow the guard: the first to move is the likeliest contact; "
            "others may be the second channel, the lock, a copy, or a machine that stops"
        )


def _channel(item: Follower) -> str:
    keys = [f"at: DEVICE/{item.place}"]
    if not item.is_one_when_closed:
        keys.append("invert: true")
    if item.bounce_ms:
        keys.append(f"debounce_ms: {debounce_ms(item.bounce_ms)}")
    return "{" + ", ".join(keys) + "}"


def debounce_ms(bounce_ms: int) -> int:
    """A debounce time that covers the bounce seen, with half of it in reserve, in whole steps."""
    return math.ceil(bounce_ms * 1.5 / DEBOUNCE_STEP_MS) * DEBOUNCE_STEP_MS


# Searching a value.


async def _search(
    link: DeviceLink, wide: Look, asked: Look, value: float, tolerance: float, *, as_json: bool
) -> Exit:
    outcome = await _read(link, wide)
    if isinstance(outcome, BlockFailed):
        # the neighbours may not exist: a device that refuses them may still have what was asked
        wide = asked
        outcome = await _read(link, wide)
    if isinstance(outcome, BlockFailed):
        complain([f"unit {asked.unit}: {meaning(outcome.reason, link.trouble)}"])
        return Exit.FAILED
    words = [word for _, word in wide.items(outcome.data)]
    seen = search(words, asked.start - wide.start, value, tolerance)[:SIGHTINGS_MAX]
    if as_json:
        say_json([_sighting_data(asked, item) for item in seen])
    for item in () if as_json else seen:
        order = f", {item.order}" if item.order else ""
        say(f"{asked.table.value}/{asked.start + item.offset}  {item.type.value}{order}")
        for hint in item.hints:
            say(f"    {hint}")
    if not seen:
        complain(
            [
                f"{value:g} does not stand at or near {asked.table.value}/{asked.start} — try --tolerance, or look at it with probe"
            ]
        )
    return Exit.OK if seen else Exit.FAILED


def _sighting_data(asked: Look, seen: Sighting) -> Json:
    return {
        "at": f"{asked.table.value}/{asked.start + seen.offset}",
        "type": seen.type.value,
        "word_order": seen.word_order.value,
        "byte_order": seen.byte_order.value,
        "scale": f"{seen.scale:g}",
        "hints": [*seen.hints],
    }
