"""The journal into a time-series database, on virtual time: nothing lost, nothing doubled, however it fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.wire.event import GuardChanged, GuardState, Json, Priority, Quality
from edge_agent.wire.status import Health
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import EntryBody, FindingRaised, GatewayRule, ReconciledClear
from gateway.domain.violation import Violation
from gateway.ports import BadLine, Fold, JournalUnavailable, NotAllowed, TooLarge, Unreachable, Written
from gateway.services.historian import HEALTH_EVERY_S, NOT_ALLOWED_S, RETRY_MAX_S, HistorianFeed
from tests.simulation.virtual_loop import VirtualLoop, run_virtual, virtual_loop
from tests.unit.gateway.alerting_rig import AGENT, SITE, START_MS, event, listed, mixer_modelled, raised

pytestmark = pytest.mark.thorough

Outcome = Written | TooLarge | BadLine | NotAllowed | Unreachable


class LoopClock:
    """Gateway time that follows virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def utc_ms(self) -> int:
        return START_MS + self._loop.now_ns // 1_000_000

    def monotonic_ms(self) -> int:
        return self._loop.now_ns // 1_000_000


@dataclass
class Database:
    """Points by series and time, as InfluxDB keeps them; `judge` may refuse what is written."""

    judge: Callable[[Sequence[str]], Outcome | None] = lambda _lines: None
    points: dict[str, str] = field(default_factory=dict)
    asked_at: list[float] = field(default_factory=list)
    largest: int = 0

    def write(self, lines: Sequence[str]) -> Outcome:
        self.asked_at.append(virtual_loop().time())
        self.largest = max(self.largest, len(lines))
        refused = self.judge(lines)
        if refused is not None:
            return refused
        for line in lines:
            series, fields, ns = line.split(" ", 2)[0], line.split(" ", 1)[1], line.rpartition(" ")[2]
            self.points[f"{series} {ns}"] = fields
        return Written()


@dataclass
class Gateway:
    journal: SqlJournal
    feed: HistorianFeed
    healths: dict[tuple[str, str], Health]

    async def append(self, *bodies: EntryBody) -> None:
        await self.journal.transact(lambda recording: [recording.append(body) for body in bodies])


@asynccontextmanager
async def feeding(folder: Path, database: Database, away: int = 0) -> AsyncIterator[Gateway]:
    """`away`: so often the journal's database is away when a violation is looked for."""
    clock = LoopClock(virtual_loop())
    folds: dict[str, Fold] = {"book": AlarmBook(), "findings": (findings := OpenFindings())}
    journal = await SqlJournal.open(f"sqlite:///{folder}/gateway.db", clock, folds)
    healths: dict[tuple[str, str], Health] = {}
    reads = SqlAlarmReads(journal.readers)

    refusals = iter(range(away))

    def find(occurrence: str) -> Violation | None:
        if next(refusals, None) is not None:
            raise JournalUnavailable("away")
        return reads.violation(occurrence)

    feed = HistorianFeed(journal, clock, database, find, lambda: healths, findings=findings)
    task = asyncio.create_task(feed.run())
    try:
        yield Gateway(journal, feed, healths)
    finally:
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        await journal.close()
    assert isinstance(end, asyncio.CancelledError), end


def story(scene: Callable[[], Coroutine[object, object, None]]) -> None:
    run_virtual(scene)


def guard(seq: int) -> EntryBody:
    state = GuardState.OPEN if seq % 2 else GuardState.CLOSED
    return event(GuardChanged("mixer-18", "door-1", state, None, None, None, Quality.GOOD), seq=seq)


def test_what_is_journaled_is_written_soon(tmp_path: Path) -> None:
    async def scene() -> None:
        database = Database()
        async with feeding(tmp_path, database) as gateway:
            await asyncio.sleep(5)
            await gateway.append(mixer_modelled(), event(raised()), guard(3))
            await asyncio.sleep(1)
            assert gateway.feed.position == 3
        assert len(database.points) == 2

    story(scene)


def test_a_server_away_for_days_gets_everything_once_and_in_order(tmp_path: Path) -> None:
    async def scene() -> None:
        back_at = 3 * 86_400.0
        away = Unreachable("refused")
        database = Database(judge=lambda _lines: away if virtual_loop().time() < back_at else None)
        async with feeding(tmp_path, database) as gateway:
            for seq in range(1, 5_001, 500):
                await gateway.append(*(guard(n) for n in range(seq, seq + 500)))
                await asyncio.sleep(3600)
            assert gateway.feed.problem == "refused"
            await asyncio.sleep(back_at)
            assert gateway.feed.problem is None
            assert gateway.feed.position == 5_000
        assert len(database.points) == 5_000
        assert database.largest <= 2_000
        gaps = [b - a for a, b in zip(database.asked_at, database.asked_at[1:], strict=False) if b < back_at]
        assert max(gaps) == RETRY_MAX_S

    story(scene)


def test_a_journal_that_cannot_be_read_for_a_moment_is_waited_for_and_nothing_is_written_otherwise(
    tmp_path: Path,
) -> None:
    def points(folder: str, times: int) -> dict[str, str]:
        database = Database()

        async def scene() -> None:
            async with feeding(tmp_path / folder, database, times) as gateway:
                await gateway.append(guard(2), guard(3))
                await asyncio.sleep(5)
                await gateway.append(event(raised(), seq=4), guard(5), guard(6), listed("MISSED"))
                await asyncio.sleep(30)
                assert gateway.feed.position == 6

        story(scene)
        return dict(database.points)

    assert points("away", 2) == points("there", 0)


def test_a_bad_line_is_found_and_kept_and_all_others_are_written(tmp_path: Path) -> None:
    async def scene() -> None:
        def judge(lines: Sequence[str]) -> Outcome | None:
            return (
                BadLine("HTTP 422: no") if any('/13"' in line or '/77"' in line for line in lines) else None
            )

        database = Database(judge=judge)
        async with feeding(tmp_path, database) as gateway:
            await gateway.append(*(guard(n) for n in range(1, 101)))
            await asyncio.sleep(5)
            assert gateway.feed.refused_count == 2
            assert await gateway.journal.transact(lambda recording: recording.count_refused_lines()) == 2
            bodies = [entry.body for entry in gateway.journal.entries_after(0, 1000)]
            (told,) = [body for body in bodies if isinstance(body, FindingRaised)]
            assert (told.rule, told.priority) == (GatewayRule.HISTORIAN_REFUSED, Priority.P3)
            assert told.detail["reason"] == "HTTP 422: no"
            assert '/13"' in str(told.detail["line"])
            assert gateway.feed.problem is None
        assert len(database.points) == 99, "and the alarm"
        async with feeding(tmp_path, database) as gateway:
            await asyncio.sleep(1)
            assert gateway.feed.refused_count == 2

    story(scene)


def test_a_server_that_takes_little_at_once_gets_it_in_pieces(tmp_path: Path) -> None:
    async def scene() -> None:
        database = Database(judge=lambda lines: TooLarge() if len(lines) > 30 else None)
        async with feeding(tmp_path, database) as gateway:
            await gateway.append(*(guard(n) for n in range(1, 1001)))
            await asyncio.sleep(5)
            assert gateway.feed.refused_count == 0
        assert len(database.points) == 1000

    story(scene)


def test_a_server_that_refuses_us_is_asked_once_a_minute_until_somebody_mended_it(tmp_path: Path) -> None:
    async def scene() -> None:
        answer: list[Outcome | None] = [NotAllowed("HTTP 401: no such token")]
        database = Database(judge=lambda _lines: answer[0])
        async with feeding(tmp_path, database) as gateway:
            await gateway.append(guard(1))
            await asyncio.sleep(10 * NOT_ALLOWED_S)
            assert len(database.asked_at) <= 11
            assert gateway.feed.problem == "HTTP 401: no such token"
            answer[0] = None
            await asyncio.sleep(NOT_ALLOWED_S)
            assert gateway.feed.problem is None
        assert len(database.points) == 1

    story(scene)


def test_a_restart_goes_on_where_it_was_and_makes_the_same_points(tmp_path: Path) -> None:
    async def scene() -> None:
        database, whole = Database(), Database()
        async with feeding(tmp_path, database) as gateway:
            await gateway.append(mixer_modelled(), *(guard(n) for n in range(1, 11)))
            await asyncio.sleep(1)
        writes = len(database.asked_at)
        async with feeding(tmp_path, database) as gateway:
            await asyncio.sleep(1)
            assert len(database.asked_at) == writes
            await gateway.append(
                *(guard(n) for n in range(1011, 1021))
            )  # equal modulo 1000, at the same time
            await asyncio.sleep(1)
        assert len(database.points) == 20
        await rebuild(tmp_path, whole)
        assert whole.points == database.points

    async def rebuild(folder: Path, database: Database) -> None:
        clock = LoopClock(virtual_loop())
        journal = await SqlJournal.open(f"sqlite:///{folder}/gateway.db", clock, {})
        await journal.transact(lambda recording: recording.move_cursor("influxdb", 0, {}))
        await journal.transact(lambda recording: recording.move_cursor("influxdb-places", 0, NO_PLACES))
        await journal.close()
        async with feeding(folder, database):
            await asyncio.sleep(1)

    story(scene)


HEALTH = Health(online=True, epoch="E" * 26, boot="b")
NO_PLACES: Json = {"agents": {}, "machines": {}}


def test_samples_of_health_are_written_while_the_server_is_there_and_dropped_while_it_is_not(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        away: list[Outcome | None] = [None]
        database = Database(judge=lambda _lines: away[0])
        async with feeding(tmp_path, database) as gateway:
            for beat in range(3):
                gateway.healths[SITE, AGENT] = replace(HEALTH, polls=beat)
                await asyncio.sleep(HEALTH_EVERY_S)
            assert len(database.points) == 3
            await asyncio.sleep(5 * HEALTH_EVERY_S)  # no new beat, no new sample
            assert len(database.points) == 3
            away[0] = Unreachable("refused")
            for beat in range(10):
                gateway.healths[SITE, AGENT] = replace(HEALTH, polls=100 + beat)
                await asyncio.sleep(HEALTH_EVERY_S)
            assert gateway.feed.problem == "refused"
            away[0] = None
            await asyncio.sleep(100)
            assert len(database.points) == 3
            gateway.healths[SITE, AGENT] = replace(HEALTH, polls=200)
            await asyncio.sleep(HEALTH_EVERY_S)
            assert len(database.points) == 4
            assert gateway.feed.problem is None

    story(scene)


def test_ends_that_name_only_an_id_find_their_series(tmp_path: Path) -> None:
    async def scene() -> None:
        database = Database()
        async with feeding(tmp_path, database) as gateway:
            await gateway.append(event(raised()))
            await gateway.append(ReconciledClear(SITE, AGENT, "OCC", "2026-11-22T06:04:22Z"))
            await asyncio.sleep(1)
        (raise_, clear) = database.points
        assert raise_.split(" ", maxsplit=1)[0] == clear.split(" ", maxsplit=1)[0]

    story(scene)
