"""`scan`: which units answer on a link, and which of their tables; on a serial line also at which speed.

A unit that refuses (an exception of its own) is there; one for which a gateway answers "no path" or "target silent" is
not. Progress goes to stderr on a terminal, with what was found so far and the time left. Ctrl-C ends the search and
prints what was found.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent.adapters.clock_system import SystemClock
from edge_agent.adapters.fieldbus_stream import RECONNECT_MAX_S
from edge_agent.app.exits import Exit, complain, refuse, say, say_json
from edge_agent.app.links import DeviceLink, Reach, opened, tool_link
from edge_agent.app.looking import GATEWAY_SILENCE, Look, meaning, settled
from edge_agent.domain.plan import Table
from edge_agent.domain.units import NS_PER_S
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from edge_agent.settings.link import BAUDS, PARITIES, SERIAL, BadUrl, parse_link
from edge_agent.wire.event import Json

SCAN_TIMEOUT_MS: Final = 300
"""What a unit behind a serial gateway needs at 19200 baud, and more."""

UNITS: Final = "1-247"
"""All units of a serial line (Modbus over Serial Line 1.02, 2.2)."""

UNIT_MAX: Final = 255
"""One byte says the unit."""

LINK_AGAIN_S: Final = RECONNECT_MAX_S + 0.5
"""A gateway may close the connection when it is asked for a unit that it has not: the link connects anew within this."""

USUAL_BAUDS: Final = tuple(sorted(BAUDS, key=lambda baud: (baud not in (9600, 19200), -baud)))
"""The order in which speeds are tried: 19200 is the standard's default, 9600 the factories'."""

BAR: Final = 14
_FIRST_LOOK: Final = Table.HOLDING_REGISTER
_NO_LINK: Final = BlockFailed("link")


@dataclass(slots=True)
class Answers:
    """What one unit said for each table: `answers` or the exception it refused with."""

    unit: int
    tables: dict[Table, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for people."""
        return f"unit {self.unit}: " + ", ".join(
            f"{table.value} {said}" for table, said in self.tables.items()
        )


def parse_units(text: str) -> list[int] | None:
    """`1-16,20` as units in order; None when it is no list of units 0 to 255."""
    units: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        lowest, highest = _unit(first), _unit(last if dash else first)
        if lowest is None or highest is None:
            return None
        units += range(lowest, highest + 1)
    return list(dict.fromkeys(units)) or None


def _unit(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 3 and int(text) <= UNIT_MAX else None


def scan(reach: Reach, *, units: str, timeout_ms: int, baud_auto: bool, as_json: bool) -> Exit:
    """Print the units that answer."""
    url = reach.url
    wanted = parse_units(units)
    if wanted is None:
        return refuse(f'"{units}" is no list of units — write it like 1-32 or 1,2,17')
    try:
        tries = [replace(reach, url=item) for item in _settings(url)] if baud_auto else [reach]
        link = parse_link(tries[0].url)
    except BadUrl as bad:
        return refuse(f"{url}: {bad.what} — {bad.mend}")
    if strangers := [unit for unit in wanted if unit not in link.units]:
        return refuse(
            f"unit {strangers[0]} cannot be on {link.scheme} — units are {link.units[0]} to {link.units[-1]}"
        )
    search = _Search(wanted, timeout_ms, settings=len(tries))
    try:
        fault = asyncio.run(_search_all(search, tries))
    except BadUrl as bad:
        return refuse(f"{url}: {bad.what} — {bad.mend}")
    except OSError as error:
        return refuse(f"{url}: a certificate file cannot be used: {error} — check its path and form")
    except KeyboardInterrupt:
        search.progress.clear()
        _tell(search, as_json=as_json)
        return Exit.INTERRUPTED
    search.progress.clear()
    if fault is not None:
        complain([f"{url}: {fault}"])
        return Exit.FAILED
    _tell(search, as_json=as_json)
    return Exit.OK if search.found else Exit.FAILED


class _Search:
    """One search: what was found so far, at which setting."""

    def __init__(self, units: Sequence[int], timeout_ms: int, *, settings: int) -> None:
        self.units = units
        self.timeout_ms = timeout_ms
        self.url = ""
        self.found: list[Answers] = []
        self.progress = Progress(len(units) * settings)

    async def run(self, link: DeviceLink) -> str | None:
        """Ask every unit; why none can be asked, or None. A lost connection ends nothing once there was one."""
        is_reached = False
        for unit in self.units:
            said = await self._ask(link, unit, _FIRST_LOOK)
            if said == _NO_LINK:
                await asyncio.sleep(LINK_AGAIN_S)
                said = await self._ask(link, unit, _FIRST_LOOK)
            if said == _NO_LINK and not is_reached:
                return meaning("link", link.trouble)
            is_reached = True
            if word := _answer(said):
                answers = Answers(unit, {_FIRST_LOOK: word})
                self.found.append(answers)
                for table in Table:
                    if table is not _FIRST_LOOK and (more := _answer(await self._ask(link, unit, table))):
                        answers.tables[table] = more
            self.progress.advance(f"unit {unit}", len(self.found))
        return None

    async def _ask(self, link: DeviceLink, unit: int, table: Table) -> BlockOutcome:
        return await settled(link, unit, Look(unit, table, 0, 1).block(), self.timeout_ms)


async def _search_all(search: _Search, tries: Sequence[Reach]) -> str | None:
    """Try one setting after the other until somebody answers."""
    fault: str | None = None
    for reach in tries:
        search.url = reach.url
        async with opened(tool_link(reach, search.timeout_ms)) as link:
            fault = await search.run(link)
        if search.found or fault:
            return fault
    return fault


def _answer(outcome: BlockOutcome) -> str | None:
    match outcome:
        case BlockOk():
            return "answers"
        case BlockFailed(reason) if reason.startswith("exception:") and reason not in GATEWAY_SILENCE:
            return f"refuses ({reason})"
        case _:
            return None


def _settings(url: str) -> list[str]:
    """The URL at every usual speed and parity. Raises `BadUrl`."""
    bare = url.partition("?")[0]
    if parse_link(bare).scheme != SERIAL:
        raise BadUrl("only a serial line has a speed to be found", "leave out --baud auto")
    return [f"{bare}?baud={baud}&parity={parity}" for baud in USUAL_BAUDS for parity in PARITIES]


def _tell(search: _Search, *, as_json: bool) -> None:
    if as_json:
        found: Json = [
            {"unit": item.unit, "tables": {table.value: said for table, said in item.tables.items()}}
            for item in search.found
        ]
        say_json({"url": search.url, "units": found})
        return
    for item in search.found:
        say(str(item))
    complain([f"{len(search.found)} of {len(search.units)} units answer on {search.url}"])


class Progress:
    """A line on stderr that is written over; nothing where stderr is no terminal."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._clock = SystemClock()
        self._began = self._clock.mono()
        self._is_shown = (
            sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
        )

    def advance(self, now_at: str, found: int) -> None:
        """One more is done."""
        self._done += 1
        if not self._is_shown:
            return
        spent_s = (self._clock.mono() - self._began) / NS_PER_S
        left_s = round(spent_s / self._done * (self._total - self._done))
        filled = BAR * self._done // self._total
        bar = "▓" * filled + "░" * (BAR - filled)
        sys.stderr.write(
            f"\r\x1b[K{now_at}  {bar}  {self._done}/{self._total}  {found} found  {left_s} s left"
        )
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave the line empty for what comes."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
