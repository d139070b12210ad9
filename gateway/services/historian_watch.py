"""Whether InfluxDB follows the journal: what it does not get for a minute is an alarm of its own.

Looked at once a second. The feed tries for ever and loses nothing, however long the server is away; but whoever reads
charts and reports from InfluxDB has to know that they have stopped. It is stalled whose server is down, hangs, refuses
us, or whose cursor stands while entries wait, `STALLED_AFTER_MS` on end:

    a write failed, or entries wait and the cursor stands  ─▶ after a minute: finding `historian_stalled`
    it is beyond the place where it stood, and writes      ─▶ over (the finding itself is an entry that has to get there)
    it is not configured any more                          ─▶ over

What it refused for good is an event, not a state: the finding that the feed raised (`historian_refused`) is over when no
line was refused for an hour.

Source: the outside contract, section 7 (the gateway catches up, in order, losing and doubling nothing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol

from edge_agent.wire.event import Json
from gateway.domain.findings import OpenFindings, Subject, raise_finding
from gateway.domain.instants import iso_utc
from gateway.domain.journal import FindingCleared, FindingRaised, GatewayRule
from gateway.ports import Clock, Journal, JournalUnavailable, Recording
from gateway.services.pulse import Advance, unwatched

STALLED_AFTER_MS: Final = 60_000
"""So long behind without progress: a restart of InfluxDB takes less, and by then six tries have failed."""

WATCH_S: Final = 1.0
"""How often: a sixtieth of the limit."""

REFUSED_QUIET_MS: Final = 3_600_000
"""A refusal is told for so long after the last one: an hour is a shift's check."""

_STALLED = Subject(GatewayRule.HISTORIAN_STALLED, None, None)


class Feed(Protocol):
    """What is watched: why the last write failed (None: it did not), how many lines were refused for good, how far it got."""

    problem: str | None
    refused_count: int

    @property
    def position(self) -> int:
        """The newest position that InfluxDB has, 0 before the feed has begun."""
        ...


class HistorianWatch:
    """The service; `feed` is None where no InfluxDB is configured. `run` belongs to the gateway that leads."""

    def __init__(self, journal: Journal, clock: Clock, findings: OpenFindings, feed: Feed | None) -> None:
        self._journal = journal
        self._clock = clock
        self._findings = findings
        self._feed = feed
        self._stood_at = 0
        self._well_ms = clock.monotonic_ms()
        self._refused = 0
        self._refused_ms = clock.monotonic_ms()

    async def run(self, advance: Advance = unwatched) -> NoReturn:
        """Look once a second, for ever."""
        self._well_ms = self._clock.monotonic_ms()
        while True:
            await self.look()
            advance()
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Look once; what cannot be journaled now is tried again at the next look."""
        found = next(iter(self._findings.open_of(_STALLED.rule)), None)
        refusals = self._findings.open_of(GatewayRule.HISTORIAN_REFUSED)
        try:
            if self._is_stalled(found) is not (found is not None):
                await self._journal.transact(self._note)
            if self._is_quiet() and refusals:
                await self._journal.transact(lambda recording: _end(recording, refusals))
        except JournalUnavailable:
            return  # said by readiness and the board

    def _is_quiet(self) -> bool:
        """Whether nothing was refused for so long that it is no news any more."""
        now_ms, count = self._clock.monotonic_ms(), 0 if self._feed is None else self._feed.refused_count
        if count != self._refused:
            self._refused, self._refused_ms = count, now_ms
        return now_ms - self._refused_ms >= REFUSED_QUIET_MS

    def _is_stalled(self, found: FindingRaised | None) -> bool:
        """Whether it has made no progress for too long, or none yet since `found` said that."""
        feed, now_ms = self._feed, self._clock.monotonic_ms()
        if feed is None:
            return False
        moves = feed.position != self._stood_at or feed.position >= self._journal.position
        if feed.problem is None and moves:
            self._stood_at, self._well_ms = feed.position, now_ms
        if found is None:
            return now_ms - self._well_ms >= STALLED_AFTER_MS
        return feed.problem is not None or feed.position <= int(str(found.detail["position"]))

    def _note(self, recording: Recording) -> None:
        found, now = self._findings.find(_STALLED), iso_utc(recording.now_ms)
        if found is not None:
            reason = "InfluxDB follows again" if self._feed else "InfluxDB is not configured any more"
            recording.append(FindingCleared(found.occurrence, now, reason))
        elif self._feed is not None:
            position = self._feed.position
            detail: dict[str, Json] = {
                "problem": self._feed.problem or "its place in the journal does not move",
                "position": position,
                "behind": recording.next_position - 1 - position,
            }
            recording.append(raise_finding(_STALLED, recording.next_position, now, detail))


def _end(recording: Recording, refusals: Sequence[FindingRaised]) -> None:
    now = iso_utc(recording.now_ms)
    for found in refusals:
        recording.append(FindingCleared(found.occurrence, now, "nothing was refused for an hour"))
