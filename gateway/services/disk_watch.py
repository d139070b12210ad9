"""The disk under the journal: alarmed while there is still room to say so, and when something happened to the file.

Looked at once a second:

    file gone from its place ─▶ `JournalLost`: what is written now, nobody will find; the process ends
    damage not yet told      ─▶ finding `journal_damaged`; the agents fill a new journal by themselves
    little room              ─▶ finding `journal_filling`; with none at all the reserve is given up, and says it
    transactions fail        ─▶ one that writes nothing is tried: it succeeds as soon as there is nothing in its way

Source: reliability invariants I-5 and I-24.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from gateway.domain.findings import OpenFindings, Subject, raise_finding
from gateway.domain.instants import iso_utc
from gateway.domain.journal import FindingCleared, GatewayRule
from gateway.domain.room import Room, is_filling
from gateway.ports import Clock, Journal, JournalLost, JournalUnavailable, Recording, Storage

WATCH_S = 1.0
"""How often: an alarm is due within 5 s (fault matrix row 5)."""

PROBE_AFTER_MS = 3000
"""Transactions that failed so long ago, and were not tried again since, are tried by this watch."""

_FILLING = Subject(GatewayRule.JOURNAL_FILLING, None, None)


class DiskWatch:
    """The service. `run` belongs into the process's task group, after the journal leads."""

    def __init__(self, journal: Journal, storage: Storage, clock: Clock, findings: OpenFindings) -> None:
        self._journal = journal
        self._storage = storage
        self._clock = clock
        self._findings = findings
        self.room: Room | None = None

    async def run(self, advance: Callable[[], None]) -> NoReturn:
        """Look once a second, for ever; `advance` is told of each. Raises `JournalLost`."""
        while True:
            await self.look()
            advance()
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Look once. Raises `JournalLost` when the journal's file is gone from its place."""
        if not self._storage.is_in_place():
            raise JournalLost("its file is gone from its place: unmounted, deleted or replaced")
        try:
            self.room = self._storage.room()
            await self._tell_damage()
            await self._tell_room(self.room)
            await self._probe()
        except (JournalUnavailable, OSError):
            return  # said by readiness and the board; the next look tries again

    async def _tell_damage(self) -> None:
        for damage in self._storage.untold_damage():
            subject = Subject(GatewayRule.JOURNAL_DAMAGED, None, None, damage.name)

            def note(recording: Recording, subject: Subject = subject, text: str = damage.text) -> None:
                if self._findings.find(subject) is None:
                    now = iso_utc(recording.now_ms)
                    recording.append(raise_finding(subject, recording.next_position, now, {"damage": text}))

            await self._journal.transact(note)
            self._storage.forget_damage(damage)

    async def _tell_room(self, room: Room) -> None:
        was_filling = _FILLING in self._findings.adopted_subjects()
        holds = is_filling(room, was_filling=was_filling)
        if holds == was_filling:
            if not holds:
                self._storage.take_reserve()
            return

        def note(recording: Recording) -> None:
            found, now = self._findings.find(_FILLING), iso_utc(recording.now_ms)
            if found is None:
                detail = {"filled_pct": room.filled_pct, "free_mb": room.free_bytes >> 20}
                recording.append(raise_finding(_FILLING, recording.next_position, now, detail))
            else:
                recording.append(FindingCleared(found.occurrence, now, "there is room again"))

        try:
            await self._journal.transact(note)
        except JournalUnavailable:
            if not self._storage.give_up_reserve():
                raise
            await self._journal.transact(note)

    async def _probe(self) -> None:
        since_ms = self._journal.failing_since_ms
        if since_ms is not None and self._clock.utc_ms() - since_ms >= PROBE_AFTER_MS:
            await self._journal.transact(lambda _recording: None)
