"""Notices out of the door: decided and committed before, sent here, outcome written after.

Theory of operation. One lane per channel; each keeps at most `IN_FLIGHT_MAX` sends under way, the urgent first, and of
one alarm and person never a later notice before an earlier one. A lane sleeps until a commit touches alarms or its
next retry is due, so a first alert leaves with the commit that decided it.

    Delivered ─▶ done; the channel's `alert_failing`, if open, is over
    Retryable ─▶ again after 1, 2, 4 … 60 s, under the same key; the fifth time in a row: `alert_failing`
    Rejected  ─▶ dead letter and `alert_failing` at once

A crash between send and outcome sends once more under the same key: at least once, and receivers can tell. Nothing
else is lost by a restart: what is pending lies in the database. Notices for a channel that the configuration no longer
has are dead letters.

Source: the outside contract, section 4; the pipeline (decide, act, record; retry by kind of refusal) is alertmanager's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar, assert_never

from gateway.domain.book import touches_alarms
from gateway.domain.findings import OpenFindings, Subject, raise_finding
from gateway.domain.instants import iso_utc
from gateway.domain.journal import Entry, FindingCleared, GatewayRule
from gateway.domain.notice import NoticeNow
from gateway.ports import (
    Clock,
    Delivered,
    Journal,
    JournalUnavailable,
    Notifier,
    Recording,
    Rejected,
    Retryable,
)
from gateway.services.pulse import Advance, unwatched, wait_alive

T = TypeVar("T")

IN_FLIGHT_MAX: Final = 4
"""Sends of one channel under way at once: one slow receiver must not hold up the others, a small one not be flooded."""

RETRY_FIRST_MS, RETRY_MAX_MS = 1_000, 60_000
"""Pause before the second attempt, doubling up to the maximum (the outside contract, section 4)."""

FAILING_ATTEMPTS: Final = 5
"""Failures of one notice that make its channel failing: with these pauses 30 s, after which people must know."""

JOURNAL_RETRY_S: Final = 1.0
"""Pause while the journal cannot be written; what was sent meanwhile is written down when it can."""

LOOK_AHEAD: Final = 64
"""Notices taken from the journal at once. In a flood the journal has its hands full: sends must not wait for a turn of it
each, and what ended meanwhile is written down in one."""

DRAIN_S: Final = 3.0
"""How long sends under way may take to finish at a stop: the whole stop has 5 s."""

SETTLE_S: Final = 1.0
"""How long writing down what they came to may take after that."""


Ended: TypeAlias = tuple[NoticeNow, Delivered | Retryable | Rejected]
"""An attempt, and what became of it."""


class Dispatch:
    """Run `run` as a task."""

    def __init__(
        self, journal: Journal, clock: Clock, findings: OpenFindings, notifiers: Mapping[str, Notifier]
    ) -> None:
        self._journal = journal
        self._desk = _Desk(journal, clock, findings)
        self._lanes = [_Lane(channel, notifier, self._desk) for channel, notifier in notifiers.items()]

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Outcomes since start, by channel and kind (`delivered`, `retryable`, `rejected`), for the metrics page."""
        return self._desk.counts

    async def run(self, join: Callable[[str], Advance] = lambda _: unwatched) -> None:
        """Send what is due, until cancelled; sends under way may finish for `DRAIN_S`."""
        unsubscribe = self._journal.subscribe(self._notice)
        try:
            await self._desk.bury_orphans([lane.channel for lane in self._lanes])
            async with asyncio.TaskGroup() as tasks:
                for lane in self._lanes:
                    name = f"dispatch.{lane.channel}"
                    tasks.create_task(lane.run(join(name)), name=name)
        finally:
            unsubscribe()

    def wake(self) -> None:
        """There may be new notices."""
        for lane in self._lanes:
            lane.woken.set()

    def _notice(self, entries: Sequence[Entry]) -> None:
        if any(touches_alarms(entry) for entry in entries):
            self.wake()


class _Lane:
    """One channel: what waits, what is under way, what has an outcome that is not written down yet."""

    def __init__(self, channel: str, notifier: Notifier, desk: _Desk) -> None:
        self.channel = channel
        self.woken = asyncio.Event()
        self._notifier = notifier
        self._desk = desk
        self._waiting: deque[NoticeNow] = deque()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._ended: list[Ended] = []
        self._failure: BaseException | None = None

    async def run(self, advance: Advance) -> None:
        try:
            while self._failure is None:
                self.woken.clear()
                await wait_alive(self.woken, await self._turn(advance), advance)
                advance()
        finally:
            self._waiting.clear()
            if self._under_way:
                await asyncio.wait(self._under_way.values(), timeout=DRAIN_S)
            for task in self._under_way.values():
                task.cancel()
            with contextlib.suppress(TimeoutError):  # what is not written down is sent again under its key
                async with asyncio.timeout(SETTLE_S):
                    await self._desk.turn(self.channel, self._ended, 0, unwatched)
        raise self._failure

    async def _turn(self, advance: Advance) -> float | None:
        """Write down what ended, see what is due; seconds until more is, None when only news or an end can bring more."""
        ended, self._ended = self._ended, []
        limit = LOOK_AHEAD + len(self._under_way)
        due, wait_s = await self._desk.turn(self.channel, ended, limit, advance)
        # what ended meanwhile is due still for the journal, which does not know
        unwritten = {now.notice.key for now, _ in self._ended}
        self._waiting = deque(
            now for now in due if now.notice.key not in self._under_way and now.notice.key not in unwritten
        )
        self._start()
        return wait_s

    def _start(self) -> None:
        """Start what may start: the urgent first, as they wait."""
        while self._waiting and len(self._under_way) < IN_FLIGHT_MAX:
            now = self._waiting.popleft()
            key = now.notice.key
            self._under_way[key] = task = asyncio.create_task(self._send(now), name=f"send.{key}")
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        """A mistake of ours in a send ends the lane, and with it the process: nobody else would hear of it."""
        if not task.cancelled() and (mistake := task.exception()) is not None:
            self._failure = mistake
        self._start()
        self.woken.set()

    async def _send(self, now: NoticeNow) -> None:
        try:
            outcome = await self._notifier.send(now.notice.alert)
            self._ended.append((now, outcome))
        finally:
            del self._under_way[now.notice.key]


class _Desk:
    """Where lanes read what is due and write down what became of it."""

    def __init__(self, journal: Journal, clock: Clock, findings: OpenFindings) -> None:
        self._journal = journal
        self._clock = clock
        self._findings = findings
        self.counts: Counter[tuple[str, str]] = Counter()

    async def turn(
        self, channel: str, ended: Sequence[Ended], limit: int, advance: Advance
    ) -> tuple[Sequence[NoticeNow], float | None]:
        """Write down what became of attempts, and what that says of their channel.

        Returns what is to be sent by `channel` now, and the seconds until the next retry, if one is to come.
        """
        for now, outcome in ended:
            self.counts[now.notice.channel, type(outcome).__name__.lower()] += 1

        def work(recording: Recording) -> tuple[Sequence[NoticeNow], int | None]:
            for now, outcome in ended:
                self._settle(recording, now, outcome)
            return recording.due_notices(channel, limit), recording.next_try_ms(channel)

        due, next_ms = await self._write(work, advance)
        return due, None if next_ms is None else max(0, next_ms - self._clock.utc_ms()) / 1000

    async def bury_orphans(self, channels: Sequence[str]) -> None:
        """Notices for channels that are configured no more are dead letters."""

        def work(recording: Recording) -> None:
            for channel in recording.pending_channels():
                if channel not in channels:
                    recording.bury_channel(channel, "the channel is configured no more")

        await self._write(work)

    def _settle(
        self, recording: Recording, now: NoticeNow, outcome: Delivered | Retryable | Rejected
    ) -> None:
        key = now.notice.key
        match outcome:
            case Delivered():
                recording.note_delivered(key)
                self._end_failing(recording, now.notice.channel)
            case Retryable(reason):
                recording.note_retry(key, recording.now_ms + pause_ms(now.attempts), reason)
                if now.attempts + 1 >= FAILING_ATTEMPTS:
                    self._begin_failing(recording, now, reason)
            case Rejected(reason):
                recording.note_dead(key, reason)
                self._begin_failing(recording, now, reason)
            case _:
                assert_never(outcome)

    def _begin_failing(self, recording: Recording, now: NoticeNow, reason: str) -> None:
        subject = _subject(now.notice.channel)
        # a notice that says so cannot say so again: it would call itself for ever where one of several people refuses
        if now.notice.alert.rule == GatewayRule.ALERT_FAILING or self._findings.find(subject) is not None:
            return
        detail = {"channel": now.notice.channel, "person": now.notice.alert.to.id, "reason": reason}
        moment = iso_utc(recording.now_ms)
        recording.append(raise_finding(subject, recording.next_position, moment, detail))

    def _end_failing(self, recording: Recording, channel: str) -> None:
        failing = self._findings.find(_subject(channel))
        if failing is not None:
            moment = iso_utc(recording.now_ms)
            recording.append(FindingCleared(failing.occurrence, moment, "the channel delivers again"))

    async def _write(self, work: Callable[[Recording], T], advance: Advance = unwatched) -> T:
        while True:
            try:
                return await self._journal.transact(work)
            except JournalUnavailable:
                await asyncio.sleep(JOURNAL_RETRY_S)
                advance()


def pause_ms(attempts: int) -> int:
    """How long to wait after a failure when `attempts` failed before it."""
    return min(RETRY_FIRST_MS << min(attempts, 16), RETRY_MAX_MS)


def _subject(channel: str) -> Subject:
    return Subject(GatewayRule.ALERT_FAILING, None, None, channel)
