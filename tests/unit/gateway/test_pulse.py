"""A loop that hangs is named within seconds, one that waits is not; nobody else vouches for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.adapters.clock_system import SystemClock
from gateway.adapters.store_sql.engine import BUSY_TIMEOUT_MS
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.recording import SqlRecording
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.teller import Teller
from gateway.ports import JournalUnavailable, Message, Written
from gateway.services.clock_watch import watch_clock
from gateway.services.dispatch import Dispatch
from gateway.services.heads import HeadShipping, HeadsNotWritten
from gateway.services.historian import TURN_MS, HistorianFeed
from gateway.services.historian_watch import HistorianWatch
from gateway.services.ingest import Ingest
from gateway.services.live import Live
from gateway.services.presence import PresenceWatch
from gateway.services.pulse import COMMIT_MS, LOOK_S, Advance, Pulse, feed_watchdog, probe
from gateway.services.timers import Timers
from tests.simulation.virtual_loop import run_virtual, virtual_loop
from tests.unit.gateway.alerting_rig import EVERYTHING_TO_LI, VOICE
from tests.unit.gateway.journal_rig import FakeIntake, Letter
from tests.unit.gateway.test_dispatch import Receiver

T = TypeVar("T")
LOOPS = [
    "clock",
    "dispatch.hook",
    "heads",
    "historian",
    "historian.watch",
    "ingest",
    "ingest.watch",
    "live",
    "presence",
    "timers",
    "writer",
]


def looks(pulse: Pulse, *advancing: Callable[[], None], count: int = 1) -> list[bool]:
    """What so many looks find while these advance and the others hang."""
    found = []
    for _ in range(count):
        for advance in advancing:
            advance()
        found.append(pulse.look())
    return found


def test_a_loop_that_hangs_is_named_at_the_second_look_and_until_it_advances_again() -> None:
    pulse = Pulse()
    ingest, timers = pulse.join("ingest"), pulse.join("timers")
    assert looks(pulse, ingest, timers) == [True]
    assert looks(pulse, timers, count=3) == [True, False, False]
    assert pulse.late == ["ingest"]
    assert looks(pulse, ingest, timers) == [True]
    assert pulse.late == []


def test_a_loop_whose_turns_may_take_long_is_alive_for_as_long_as_that() -> None:
    pulse = Pulse()
    pulse.join("historian", 9_000)
    assert looks(pulse, count=8) == [True] * 6 + [False] * 2


def test_a_loop_that_begins_later_is_watched_from_then_on() -> None:
    pulse = Pulse()
    live = pulse.join("live")
    assert looks(pulse, live, count=5) == [True] * 5
    pulse.join("ingest")
    assert looks(pulse, live, count=3) == [True, False, False]


class Journal(SqlJournal):
    """A journal whose disk can be made to hang or to be full, and whose database somebody else may lock."""

    is_hanging = False
    is_full = False
    is_locked = False
    _writer_turn = asyncio.Lock()

    async def transact(self, work: Callable[[SqlRecording], T]) -> T:
        if self.is_hanging:
            await asyncio.Event().wait()
        if self.is_full:
            raise JournalUnavailable("the disk is full")
        if self.is_locked:
            async with self._writer_turn:  # SQLite waits for the lock, and one thread writes
                await asyncio.sleep(BUSY_TIMEOUT_MS / 1000)
            raise JournalUnavailable("database is locked")
        return await super().transact(work)

    async def touch(self) -> None:
        if self.is_hanging:
            await asyncio.Event().wait()


class QuietIntake(FakeIntake):
    """A broker that says nothing until it does."""

    async def batch(self) -> Sequence[Message]:
        while not self.waiting:  # noqa: ASYNC110 - the test puts something in, from outside
            await asyncio.sleep(0.1)
        return await super().batch()


class Server:
    """An InfluxDB that takes everything."""

    def write(self, lines: Sequence[str]) -> Written:
        return Written()


class AwaySink:
    """A place for heads that is never there."""

    def append(self, lines: Sequence[str]) -> None:
        raise HeadsNotWritten("the mount is away")


class NobodySignedIn:
    async def shift(self, leap_ms: int) -> None:
        pass


class Gateway:
    """Every loop of a gateway in virtual time, and what its supervisor hears."""

    def __init__(
        self, journal: Journal, clock: SystemClock, book: AlarmBook, teller: Teller, findings: OpenFindings
    ) -> None:
        self.journal, self.pulse, self.intake = journal, Pulse(), QuietIntake()
        self.pings: list[float] = []
        presence = PresenceWatch(journal, clock, findings)
        ingest = Ingest(journal, self.intake, clock, findings, presence)
        dispatch = Dispatch(journal, clock, findings, {"hook": Receiver()})
        historian = HistorianFeed(
            journal, clock, Server(), lambda _: None, presence.newest, findings=findings
        )

        async def render(_: object) -> Sequence[object]:
            return ()

        live = Live(journal, clock, render, 0, lambda: False)  # type: ignore[arg-type]  # nothing is rendered here
        self._jobs: Mapping[str, Callable[[Advance], Coroutine[None, None, object]]] = {
            "ingest": ingest.run,
            "ingest.watch": ingest.watch,
            "presence": presence.run,
            "timers": Timers(journal, clock, book, teller, dispatch.wake).run,
            "live": live.run,
            "clock": lambda advance: watch_clock(journal, clock, NobodySignedIn(), advance),
            "writer": lambda advance: probe(journal.touch, advance),
            "heads": HeadShipping(lambda: (), AwaySink(), 1).run,
            "historian": historian.run,
            "historian.watch": HistorianWatch(journal, clock, findings, historian).run,
        }
        self._dispatch = dispatch
        self.tasks: dict[str, asyncio.Task[object]] = {}

    def start(self) -> None:
        for name, job in self._jobs.items():
            turn_ms = TURN_MS if name == "historian" else COMMIT_MS
            self.tasks[name] = asyncio.create_task(job(self.pulse.join(name, turn_ms)))
        self.tasks["dispatch.hook"] = asyncio.create_task(
            self._dispatch.run(lambda name: self.pulse.join(name, COMMIT_MS))
        )
        self.tasks["watchdog"] = asyncio.create_task(
            feed_watchdog(self.pulse, lambda _: self.pings.append(virtual_loop().time()))
        )

    def silence_s(self) -> float:
        return virtual_loop().time() - self.pings[-1]


def lived(folder: Path, story: Callable[[Gateway], Coroutine[None, None, None]]) -> None:
    """Play a story to a gateway that has just started."""

    async def main() -> None:
        loop = virtual_loop()
        clock = SystemClock(
            wall_ms=lambda: 1_800_000_000_000 + loop.now_ns // 1_000_000,
            mono_ms=lambda: loop.now_ns // 1_000_000,
        )
        teller, findings = Teller(EVERYTHING_TO_LI, VOICE), OpenFindings()
        book = AlarmBook(teller)
        journal = await Journal.open(f"sqlite:///{folder}/g.db", clock, {"book": book, "findings": findings})
        assert isinstance(journal, Journal)
        gateway = Gateway(journal, clock, book, teller, findings)
        gateway.start()
        await asyncio.sleep(10)
        await story(gateway)
        for task in gateway.tasks.values():
            task.cancel()
        await asyncio.gather(*gateway.tasks.values(), return_exceptions=True)
        journal.is_hanging = False
        await journal.close()

    run_virtual(main)


def test_with_nothing_to_do_for_hours_every_loop_is_alive(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        before = len(gateway.pings)
        await asyncio.sleep(3600)
        assert len(gateway.pings) - before == 3600 / LOOK_S
        assert sorted(gateway.pulse._missed) == LOOPS

    lived(tmp_path, story)


def test_a_disk_that_hangs_is_named_and_stops_the_pings(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.journal.is_hanging = True
        gateway.intake.waiting.append(Letter("guardwatch/v1/changyi/gw-01/events", b"junk"))
        await asyncio.sleep(60)
        assert {"ingest", "writer"} <= set(gateway.pulse.late)
        assert not {"live", "clock", "presence"} & set(gateway.pulse.late)
        assert gateway.silence_s() > 60 - COMMIT_MS / 1000 - 4 * LOOK_S

    lived(tmp_path, story)


def test_a_full_disk_is_no_reason_to_be_started_again(tmp_path: Path) -> None:
    """It is said by readiness; a restart would make no room, and forget what waits."""

    async def story(gateway: Gateway) -> None:
        gateway.journal.is_full = True
        gateway.intake.waiting.append(Letter("guardwatch/v1/changyi/gw-01/events", b"junk"))
        await asyncio.sleep(600)
        assert gateway.pulse.late == []
        assert gateway.silence_s() <= LOOK_S

    lived(tmp_path, story)


def test_a_database_that_somebody_else_locks_is_no_hang_though_every_loop_waits_for_it(
    tmp_path: Path,
) -> None:
    async def story(gateway: Gateway) -> None:
        journal = gateway.journal
        assert isinstance(journal, Journal)
        journal.is_locked = True
        gateway.intake.waiting.append(Letter("guardwatch/v1/changyi/gw-01/events", b"junk"))

        async def write() -> None:
            while journal.is_locked:
                with contextlib.suppress(JournalUnavailable):
                    await journal.transact(lambda _: None)

        others = [asyncio.create_task(write()) for _ in LOOPS]  # every loop has something to write
        await asyncio.sleep(600)
        assert gateway.pulse.late == []
        assert gateway.silence_s() <= LOOK_S
        journal.is_locked = False
        await asyncio.gather(*others)

    lived(tmp_path, story)


@pytest.mark.parametrize("dead", LOOPS)
def test_a_loop_that_is_gone_is_named_whoever_else_goes_on(tmp_path: Path, dead: str) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.tasks[dead].cancel()
        await asyncio.sleep(120)
        assert gateway.pulse.late == [dead]
        assert gateway.silence_s() > LOOK_S

    lived(tmp_path, story)
