"""The book's deadlines, fired as journal entries; and the summaries of what was over before it was heard of.

The task sleeps until the next deadline and wakes when a commit touched alarms. What is due is found again in the
transaction that fires it, so that an acknowledgement in between wins. A deadline missed while the gateway was down is
due at start, and fires once: the next one counts from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gateway.domain.book import AlarmBook, touches_alarms
from gateway.domain.journal import Entry, TimerFired
from gateway.domain.notice import NoticeNow
from gateway.domain.teller import SUMMARY_AFTER_MS, Teller
from gateway.domain.violation import Violation
from gateway.ports import Clock, Journal, JournalUnavailable, Recording
from gateway.services.pulse import Advance, unwatched, wait_alive

RETRY_S: Final = 1.0
"""Pause while the journal cannot be written."""


class Timers:
    """Run `run` as a task. `wake_dispatch` is called when a commit made notices without an entry."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        book: AlarmBook,
        teller: Teller,
        wake_dispatch: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._book = book
        self._teller = teller
        self._wake_dispatch = wake_dispatch
        self._woken = asyncio.Event()

    async def run(self, advance: Advance = unwatched) -> None:
        """Fire what is due, until cancelled."""
        unsubscribe = self._journal.subscribe(self._notice)
        try:
            while True:
                self._woken.clear()
                await wait_alive(self._woken, await self._step(), advance)
                advance()
        finally:
            unsubscribe()

    async def _step(self) -> float | None:
        """Fire what is due; seconds until the next deadline, None while there is none."""
        try:
            next_ms, has_summary = await self._journal.transact(self._fire)
        except JournalUnavailable:
            return RETRY_S
        if has_summary:
            self._wake_dispatch()
        return None if next_ms is None else max(0, next_ms - self._clock.utc_ms()) / 1000

    def _notice(self, entries: Sequence[Entry]) -> None:
        if any(touches_alarms(entry) for entry in entries):
            self._woken.set()

    def _fire(self, recording: Recording) -> tuple[int | None, bool]:
        now_ms = recording.now_ms
        while due := self._book.due_timers(now_ms):
            for timer in due:
                alarm = self._book.find_alarm(timer.alarm)
                if alarm is not None:
                    recording.append(TimerFired(timer.alarm, timer.what, alarm.repeats + 1))
        oldest_ms = recording.oldest_withdrawn_ms()
        has_summary = oldest_ms is not None and oldest_ms + SUMMARY_AFTER_MS <= now_ms
        if has_summary:
            self._summarise(recording)
            oldest_ms = None
        summary_ms = None if oldest_ms is None else oldest_ms + SUMMARY_AFTER_MS
        deadlines = [moment for moment in (self._book.next_deadline_ms(), summary_ms) if moment is not None]
        return min(deadlines, default=None), has_summary

    def _summarise(self, recording: Recording) -> None:
        withdrawn: list[tuple[NoticeNow, Violation]] = []
        for now in recording.withdrawn_notices():
            violation = recording.load_violation(now.notice.alert.occurrence)
            if violation is not None:
                withdrawn.append((now, violation))
            recording.note_summarised(now.notice.key)
        for notice in self._teller.summarise(withdrawn, recording.now_ms):
            recording.add_notice(notice)
