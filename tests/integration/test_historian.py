"""The journal in a real InfluxDB: complete, in order, each point once; through outages, restarts and a rebuild."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.wire.event import GuardChanged, GuardState, Json, Quality
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.historian_influx import InfluxHistorian
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import EntryBody
from gateway.ports import Fold
from gateway.services.historian import CURSOR, PLACES_CURSOR, HistorianFeed
from tests.servers import Influx, InfluxBucket
from tests.unit.gateway.alerting_rig import START_MS, cleared, event, mixer_modelled, raised

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0
"""Far beyond what any of this takes: only a failure waits so long."""

NO_PLACES: Json = {"agents": {}, "machines": {}}


@asynccontextmanager
async def feeding(folder: Path, bucket: InfluxBucket) -> AsyncIterator[tuple[SqlJournal, HistorianFeed]]:
    clock = SystemClock()
    folds: dict[str, Fold] = {"book": AlarmBook(), "findings": (findings := OpenFindings())}
    journal = await SqlJournal.open(f"sqlite:///{folder}/gateway.db", clock, folds)
    historian = InfluxHistorian(bucket.url, bucket.org, bucket.bucket, bucket.token, 5_000)
    feed = HistorianFeed(
        journal, clock, historian, SqlAlarmReads(journal.readers).violation, dict, findings=findings
    )
    task = asyncio.create_task(feed.run())
    try:
        yield journal, feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        historian.close()
        await journal.close()


async def append(journal: SqlJournal, bodies: list[EntryBody]) -> None:
    await journal.transact(lambda recording: [recording.append(body) for body in bodies])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the feed tells nobody, on purpose
            await asyncio.sleep(0.02)


def guard(seq: int, at_ms: int) -> EntryBody:
    state = GuardState.OPEN if seq % 2 else GuardState.CLOSED
    return event(GuardChanged("mixer-18", "door-1", state, None, None, None, Quality.GOOD), at_ms, seq=seq)


def a_days_work(first_seq: int, count: int) -> list[EntryBody]:
    """Violations and guard changes, several at the same instant."""
    bodies: list[EntryBody] = []
    for seq in range(first_seq, first_seq + 4 * count, 4):
        at_ms = START_MS + seq // 100  # many share one
        occurrence = f"OCC-{seq}"
        bodies += [
            guard(seq, at_ms),
            event(raised(occurrence), at_ms, seq=seq + 1),
            event(cleared(occurrence, duration_ms=seq), at_ms, seq=seq + 2),
            guard(seq + 3, at_ms),
        ]
    return bodies


def points(bucket: InfluxBucket, field: str) -> dict[object, tuple[object, ...]]:
    """Every point with this field: event id → time, value and tags."""
    flux = (
        f'from(bucket: "{bucket.bucket}") |> range(start: 0, stop: 2100-01-01T00:00:00Z)'
        f' |> filter(fn: (r) => r._field == "{field}" or r._field == "event_id")'
        ' |> toString() |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
    )
    rows = [row for row in bucket.query_lines(flux) if row.get(field) is not None]
    tags = ("_measurement", "site", "area", "machine", "guard", "rule", "priority")
    found = {row["event_id"]: (row["_time"], row[field], *(row.get(tag) for tag in tags)) for row in rows}
    assert len(found) == len(rows), "two points of one event"
    return found


async def test_every_event_is_one_point_also_those_of_one_instant(
    tmp_path: Path, influx: InfluxBucket
) -> None:
    async with feeding(tmp_path, influx) as (journal, feed):
        await append(journal, [mixer_modelled(), *a_days_work(2, 250)])
        await until(lambda: feed.position == 1001)
    states, violations = points(influx, "code"), points(influx, "active")
    assert (len(states), len(violations)) == (500, 500)
    durations = points(influx, "duration_ms")
    assert len(durations) == 250
    assert {int(str(value[1])) for value in durations.values()} == {2 + 4 * n for n in range(250)}
    assert {value[4] for value in violations.values()} == {"moulding"}


async def test_a_server_that_was_killed_and_came_back_has_everything_once(tmp_path: Path) -> None:
    with Influx(tmp_path / "influx") as server:
        bucket = server.default_bucket()
        async with feeding(tmp_path, bucket) as (journal, feed):
            await append(journal, a_days_work(2, 50))
            await until(lambda: feed.position == 200)
            server.kill()
            await append(journal, a_days_work(1002, 50))
            await until(lambda: feed.problem is not None)
            await append(journal, a_days_work(2002, 50))
            server.start()
            await until(lambda: feed.position == 600 and feed.problem is None)
        assert len(points(bucket, "active")) == 300
        assert len(points(bucket, "code")) == 300


async def test_a_rebuild_from_the_journal_gives_the_very_same_points(
    tmp_path: Path, influx_server: Influx
) -> None:
    live, rebuilt = influx_server.create_bucket(), influx_server.create_bucket()
    for first_seq in (2, 1002):  # a restart in between
        async with feeding(tmp_path, live) as (journal, feed):
            await append(journal, [mixer_modelled(), *a_days_work(first_seq, 50)])
            await until(lambda now=feed, goal=201 if first_seq == 2 else 402: now.position == goal)  # type: ignore[misc]
    await forget(tmp_path)
    async with feeding(tmp_path, rebuilt) as (_, feed):
        await until(lambda: feed.position == 402)
    for field in ("active", "code", "duration_ms"):
        assert points(rebuilt, field) == points(live, field)


async def forget(folder: Path) -> None:
    """Put the cursor back to the beginning."""
    journal = await SqlJournal.open(f"sqlite:///{folder}/gateway.db", SystemClock(), {})
    await journal.transact(lambda recording: recording.move_cursor(CURSOR, 0, {}))
    await journal.transact(lambda recording: recording.move_cursor(PLACES_CURSOR, 0, NO_PLACES))
    await journal.close()
