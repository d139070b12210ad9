"""A historian that does not follow is an alarm of its own: after a minute, once, and over when it follows again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.wire.event import Priority
from edge_agent.wire.status import Health
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import EntryBody, FindingCleared, FindingRaised, GatewayRule
from gateway.ports import BadLine, Fold, NotAllowed, Unreachable
from gateway.services.historian import HistorianFeed
from gateway.services.historian_watch import STALLED_AFTER_MS, WATCH_S, HistorianWatch
from tests.simulation.virtual_loop import run_virtual, virtual_loop
from tests.unit.gateway.alerting_rig import AGENT, SITE
from tests.unit.gateway.test_historian_feed import HEALTH, Database, LoopClock, Outcome, guard

pytestmark = pytest.mark.thorough

LIMIT_S = STALLED_AFTER_MS / 1000
AWAY = Unreachable("refused")


class StandingFeed:
    """A feed that gets nowhere and knows no reason."""

    problem: str | None = None
    position = 0
    refused_count = 0


@dataclass
class Gateway:
    journal: SqlJournal
    watch: HistorianWatch

    async def append(self, *bodies: EntryBody) -> None:
        await self.journal.transact(lambda recording: [recording.append(body) for body in bodies])

    def told(self) -> list[FindingRaised | FindingCleared]:
        entries = self.journal.entries_after(0, 20_000)
        return [entry.body for entry in entries if isinstance(entry.body, FindingRaised | FindingCleared)]

    def kinds(self) -> list[type]:
        return [type(body) for body in self.told()]


class Server(Database):
    """A database whose answer the test changes."""

    def __init__(self) -> None:
        super().__init__(judge=lambda _lines: self.answer)
        self.answer: Outcome | None = None


@asynccontextmanager
async def watched(
    folder: Path, server: Server | None, healths: dict[tuple[str, str], Health] | None = None
) -> AsyncIterator[Gateway]:
    clock, findings = LoopClock(virtual_loop()), OpenFindings()
    folds: dict[str, Fold] = {"book": AlarmBook(), "findings": findings}
    journal = await SqlJournal.open(f"sqlite:///{folder}/gateway.db", clock, folds)
    find = SqlAlarmReads(journal.readers).violation
    feed = (
        None
        if server is None
        else HistorianFeed(journal, clock, server, find, lambda: healths or {}, findings=findings)
    )
    watch = HistorianWatch(journal, clock, findings, feed)
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(watch.run())]
    if feed is not None:
        tasks.append(asyncio.create_task(feed.run()))
    try:
        yield Gateway(journal, watch)
    finally:
        for task in tasks:
            task.cancel()
        ends: Sequence[object] = await asyncio.gather(*tasks, return_exceptions=True)
        await journal.close()
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


def story(scene: Callable[[], Coroutine[object, object, None]]) -> None:
    run_virtual(scene)


@pytest.mark.parametrize("answer", [AWAY, NotAllowed("HTTP 401: no such token")])
def test_a_server_that_is_away_or_refuses_us_is_alarmed_after_a_minute_and_over_when_it_is_back(
    tmp_path: Path, answer: Outcome
) -> None:
    async def scene() -> None:
        server = Server()
        async with watched(tmp_path, server) as gateway:
            await gateway.append(guard(1))
            await asyncio.sleep(3600)
            assert gateway.told() == []
            server.answer = answer
            await gateway.append(guard(2))
            await asyncio.sleep(LIMIT_S - 2 * WATCH_S)
            assert gateway.told() == [], "a restart of the server is no alarm"
            await asyncio.sleep(4 * WATCH_S)
            (raised,) = gateway.told()
            assert isinstance(raised, FindingRaised)
            assert (raised.rule, raised.priority) == (GatewayRule.HISTORIAN_STALLED, Priority.P3)
            reason = getattr(answer, "reason")  # noqa: B009 - both have one
            assert (raised.detail["problem"], raised.detail["position"]) == (reason, 1)
            await asyncio.sleep(86_400)
            assert len(gateway.told()) == 1, "said once"
            server.answer = None
            await asyncio.sleep(2 * LIMIT_S)
            assert gateway.kinds() == [FindingRaised, FindingCleared]
        assert len(server.points) == 4, "two events, and both ends of the alarm"

    story(scene)


def test_a_quiet_plant_whose_server_takes_no_samples_is_alarmed_too(tmp_path: Path) -> None:
    async def scene() -> None:
        server, healths = Server(), {(SITE, AGENT): HEALTH}
        server.answer = AWAY
        async with watched(tmp_path, server, healths) as gateway:
            await asyncio.sleep(LIMIT_S + 15)
            assert gateway.kinds() == [FindingRaised]

    story(scene)


def test_one_that_catches_up_a_long_backlog_is_over_as_soon_as_it_moves(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server()
        server.answer = AWAY
        async with watched(tmp_path, server) as gateway:
            for seq in range(1, 6_001, 1_000):
                await gateway.append(*(guard(n) for n in range(seq, seq + 1_000)))
                await asyncio.sleep(600)
            server.answer = None
            await asyncio.sleep(2 * LIMIT_S)
            assert gateway.kinds() == [FindingRaised, FindingCleared]

    story(scene)


def test_a_restart_neither_says_it_twice_nor_takes_its_own_start_for_progress(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server()
        async with watched(tmp_path, server) as gateway:
            await gateway.append(*(guard(n) for n in range(1, 11)))
            await asyncio.sleep(5)
            server.answer = AWAY
            await gateway.append(guard(11))
            await asyncio.sleep(2 * LIMIT_S)
        async with watched(tmp_path, server) as gateway:
            await asyncio.sleep(2 * LIMIT_S)
            assert gateway.kinds() == [FindingRaised]
            server.answer = None
            await asyncio.sleep(2 * LIMIT_S)
            assert gateway.kinds() == [FindingRaised, FindingCleared]

    story(scene)


def test_it_is_over_when_the_configuration_has_no_server_any_more(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server()
        server.answer = AWAY
        async with watched(tmp_path, server) as gateway:
            await gateway.append(guard(1))
            await asyncio.sleep(2 * LIMIT_S)
        async with watched(tmp_path, None) as gateway:
            await asyncio.sleep(2 * WATCH_S)
            assert gateway.kinds() == [FindingRaised, FindingCleared]

    story(scene)


def test_a_cursor_that_stands_while_entries_wait_is_alarmed_without_a_reason(tmp_path: Path) -> None:
    async def scene() -> None:
        clock, findings, feed = LoopClock(virtual_loop()), OpenFindings(), StandingFeed()
        journal = await SqlJournal.open(f"sqlite:///{tmp_path}/g.db", clock, {"findings": findings})
        watch = HistorianWatch(journal, clock, findings, feed)
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(2 * LIMIT_S)
        assert journal.position == 0, "nothing waits, nothing is wrong"
        await journal.transact(lambda recording: [recording.append(guard(n)) for n in (1, 2)])
        await asyncio.sleep(LIMIT_S - 2 * WATCH_S)
        feed.position = 1
        await asyncio.sleep(LIMIT_S - 2 * WATCH_S)
        assert findings.open_of(GatewayRule.HISTORIAN_STALLED) == [], "it moves"
        await asyncio.sleep(4 * WATCH_S)
        (raised,) = findings.open_of(GatewayRule.HISTORIAN_STALLED)
        assert (raised.detail["position"], raised.detail["behind"]) == (1, 1)
        feed.position = 2
        await asyncio.sleep(2 * WATCH_S)
        assert findings.open_of(GatewayRule.HISTORIAN_STALLED) == []
        task.cancel()
        await journal.close()

    story(scene)


def test_what_it_refuses_for_good_is_told_once_until_an_hour_went_by_without_another(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server()
        async with watched(tmp_path, server) as gateway:
            await asyncio.sleep(2 * 3600)
            server.answer = BadLine("HTTP 422: no")
            await gateway.append(guard(1))
            await asyncio.sleep(10)
            server.answer = None
            (raised,) = gateway.told()
            assert isinstance(raised, FindingRaised)
            assert raised.rule is GatewayRule.HISTORIAN_REFUSED
            await asyncio.sleep(1800)
            server.answer = BadLine("HTTP 422: no")
            await gateway.append(guard(2))
            await asyncio.sleep(10)
            server.answer = None
            await asyncio.sleep(3500)
            assert gateway.kinds() == [FindingRaised], "the second counts"
            await asyncio.sleep(200)
            assert gateway.kinds() == [FindingRaised, FindingCleared]

    story(scene)
