"""The journal into InfluxDB: from a cursor, in order, until everything is there; however long the server was away.

Theory of operation. Read the entries after the cursor, make lines, write them, move the cursor (with the state of the
projection) in one transaction; begin again. A crash in between writes the same lines once more, which changes nothing.

    Written     ─▶ on
    TooLarge    ─▶ halves, each by itself; a single line: refused for good
    BadLine     ─▶ halves, down to the bad line; that one is kept in the database with the reason, the others are written;
                   the finding `historian_refused` says so, until an hour went by without another
    NotAllowed  ─▶ degraded; tried again once a minute, because only a person can mend it
    Unreachable ─▶ degraded; tried again after 1, 2, 4 … 60 s

Samples of agents' health are no events: the newest of each agent is written every `HEALTH_EVERY_S` while the server is
there, and dropped when it is not.

Source: the outside contract, section 7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

from edge_agent.wire.event import Json
from edge_agent.wire.status import Health
from gateway.domain.findings import OpenFindings, Subject, raise_finding
from gateway.domain.instants import iso_utc
from gateway.domain.journal import Entry, GatewayRule
from gateway.domain.projection import FindViolation, Projection, health_line
from gateway.ports import (
    BadLine,
    Clock,
    Historian,
    Journal,
    JournalUnavailable,
    NotAllowed,
    Recording,
    TooLarge,
    Unreachable,
    Written,
)
from gateway.services.pulse import Advance, unwatched

CURSOR, PLACES_CURSOR = "influxdb", "influxdb-places"
"""Names of this projection's cursor, and of the one that keeps what birth certificates said (large, seldom moved)."""

ENTRIES_MAX: Final = 2_000
"""Entries in one write: some 100 ms for the server, a day's backlog of a large plant in minutes."""

LINGER_S: Final = 0.2
"""After news, this long more of it is collected into one write."""

HEALTH_EVERY_S: Final = 10.0
"""How often agents' health is sampled: every fifth beat shows trends at a fifth of the cost."""

TURN_MS: Final = 70_000
"""What a turn may take beside the server's own time: the longest pause, and a commit."""

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
"""Pause while the server is away, doubling up to the maximum."""

NOT_ALLOWED_S: Final = 60.0
"""Pause while the server refuses us: a person has to mend that."""


REFUSED_TOLD_CHARS: Final = 300
"""Of a line that was refused, in the finding: its series and first fields; the whole line is in the database."""

_REFUSED = Subject(GatewayRule.HISTORIAN_REFUSED, None, None)


class HistorianFeed:
    """Run `run` as a task. `problem` says why InfluxDB is behind, None while it is not.

    `newest_healths` gives each agent's newest health by site and agent.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        historian: Historian,
        find_violation: FindViolation,
        newest_healths: Callable[[], Mapping[tuple[str, str], Health]],
        *,
        findings: OpenFindings,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._findings = findings
        self._historian = historian
        self._find = find_violation
        self._newest_healths = newest_healths
        self._projection = Projection()
        self._position = 0
        self._kept_position = 0
        self._placed_at = -1
        self._woken = asyncio.Event()
        self._sampled: dict[tuple[str, str], Health] = {}
        self._sample_at = 0.0
        self._advance = unwatched
        self.problem: str | None = None
        self.refused_count = 0

    @property
    def position(self) -> int:
        """The newest journal position that InfluxDB has."""
        return self._position

    async def run(self, advance: Advance = unwatched) -> None:
        """Feed, until cancelled."""
        self._advance = advance
        unsubscribe = self._journal.subscribe(self._notice)
        try:
            await self._keep(self._begin)
            while True:
                self._woken.clear()
                while await self._feed():
                    advance()
                advance()
                await self._sample_healths()
                if await self._has_news():
                    await asyncio.sleep(LINGER_S)
        finally:
            unsubscribe()

    def _notice(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._woken.set()

    def _begin(self, recording: Recording) -> None:
        cursor = recording.find_cursor(CURSOR)
        places = recording.find_cursor(PLACES_CURSOR)
        self._projection, self._placed_at = Projection(), -1
        self._position = self._kept_position = 0
        if cursor is not None and places is not None:
            self._position = self._kept_position = cursor.position
            self._projection.restore(cursor.state, places.state, places.position)
            self._placed_at = places.position
        self.refused_count = recording.count_refused_lines()

    async def _feed(self) -> bool:
        """Write the next entries; whether there were any."""
        try:
            entries, lines = await asyncio.to_thread(self._read)
        except JournalUnavailable:  # what was made of some of them is forgotten with them
            await asyncio.sleep(RETRY_FIRST_S)
            await self._keep(self._begin)
            return True
        if not entries:
            return False
        refused = await self._write(lines)
        self.refused_count += len(refused)
        self._position = entries[-1].position
        if lines or self._position - self._kept_position >= ENTRIES_MAX:
            await self._keep(lambda recording: self._move(recording, refused))
            self._kept_position, self._placed_at = self._position, self._projection.placed_at
        return True

    def _read(self) -> tuple[Sequence[Entry], list[str]]:
        entries = self._journal.entries_after(self._position, ENTRIES_MAX)
        return entries, [line for entry in entries for line in self._projection.lines_of(entry, self._find)]

    def _move(self, recording: Recording, refused: Sequence[tuple[str, str]]) -> None:
        recording.move_cursor(CURSOR, self._position, self._projection.snapshot())
        if self._placed_at != self._projection.placed_at:
            recording.move_cursor(PLACES_CURSOR, self._projection.placed_at, self._projection.places())
        for line, reason in refused:
            recording.add_refused_line(line, reason)
        if refused and self._findings.find(_REFUSED) is None:
            line, reason = refused[0]
            detail: dict[str, Json] = {"reason": reason, "line": line[:REFUSED_TOLD_CHARS]}
            now = iso_utc(recording.now_ms)
            recording.append(raise_finding(_REFUSED, recording.next_position, now, detail))

    async def _write(self, lines: Sequence[str]) -> list[tuple[str, str]]:
        """Write until every line is stored or refused for good; the refused ones, with the reasons."""
        refused: list[tuple[str, str]] = []
        waiting = [lines] if lines else []
        pause_s = RETRY_FIRST_S
        while waiting:
            chunk = waiting.pop()
            outcome = await asyncio.to_thread(self._historian.write, chunk)
            self._advance()
            match outcome:
                case Written():
                    self.problem, pause_s = None, RETRY_FIRST_S
                case TooLarge() | BadLine() if len(chunk) > 1:
                    middle = len(chunk) // 2
                    waiting += [chunk[middle:], chunk[:middle]]
                case TooLarge():
                    refused.append((chunk[0], "larger than the server takes"))
                case BadLine(reason):
                    refused.append((chunk[0], reason))
                case NotAllowed(reason):
                    self.problem = reason
                    waiting.append(chunk)
                    await asyncio.sleep(NOT_ALLOWED_S)
                case Unreachable(reason):
                    self.problem = reason
                    waiting.append(chunk)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, RETRY_MAX_S)
                case _:
                    assert_never(outcome)
        return refused

    async def _has_news(self) -> bool:
        """Wait for the next commit, or until it is time to sample healths."""
        try:
            async with asyncio.timeout_at(self._sample_at):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True

    async def _sample_healths(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._sample_at:
            return
        self._sample_at = now + HEALTH_EVERY_S
        newest = dict(self._newest_healths())
        fresh = {key: health for key, health in newest.items() if self._sampled.get(key) != health}
        self._sampled = newest
        if not fresh:
            return
        now_ms = self._clock.utc_ms()
        lines = [health_line(site, agent, health, now_ms) for (site, agent), health in fresh.items()]
        match await asyncio.to_thread(self._historian.write, lines):
            case Written():
                self.problem = None
            case NotAllowed(reason) | Unreachable(reason):
                self.problem = reason
            case _:
                pass  # a sample that does not fit is no event: the next one comes soon

    async def _keep(self, work: Callable[[Recording], None]) -> None:
        while True:
            try:
                return await self._journal.transact(work)
            except JournalUnavailable:
                await asyncio.sleep(RETRY_FIRST_S)
                self._advance()
