"""The journal keeps its promises on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, func, insert, select, text, update

from edge_agent.wire.event import Event, Json, Position
from gateway.adapters.migrations import upgrade
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.engine import StoreError, open_readers, open_writer
from gateway.adapters.store_sql.folding import fold_entries, open_snapshot, seal_snapshot
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.journal_file import JournalFile
from gateway.adapters.store_sql.lease import LEASE_MS
from gateway.adapters.store_sql.schema import JOURNAL, SNAPSHOTS
from gateway.adapters.store_sql.tables import METADATA
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings, Subject, raise_finding
from gateway.domain.journal import (
    ClockStepped,
    EdgeEvent,
    Entry,
    EntryKind,
    GapClosed,
    GapFound,
    GatewayRule,
    PresenceChanged,
    StoredBody,
    entry_link,
    raw_link,
)
from gateway.domain.listing import Query
from gateway.ports import Fold, JournalLost, JournalUnavailable, Recording
from tests.scripted_agent import AGENT, SITE, Store, cleared, note, raised, ulid
from tests.servers import Postgres


class FakeClock:
    """A clock that the test winds."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def utc_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


class Counting:
    """A fold that counts entries, and can be told to refuse one."""

    def __init__(self) -> None:
        self.count = 0
        self._staged = 0
        self.refuse = False

    def stage(self, entry: Entry, recording: Recording | None) -> None:
        del entry, recording
        if self.refuse:
            raise ValueError("refused by the fold")
        self._staged += 1

    def adopt(self) -> None:
        self.count, self._staged = self.count + self._staged, 0

    def discard(self) -> None:
        self._staged = 0

    def snapshot(self) -> Json:
        return self.count

    def restore(self, snapshot: Json) -> None:
        assert isinstance(snapshot, int)
        self.count = snapshot


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        found = request.getfixturevalue("postgres_url")
        assert isinstance(found, str)
        return found
    return f"sqlite:///{tmp_path}/gateway.db"


@contextmanager
def disposing(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.dispose()


def step(recording: Recording, *sizes: int) -> Sequence[int]:
    return [recording.append(ClockStepped(size)).position for size in sizes]


def forget_note(url: str) -> None:
    """Let what the test does to a stopped journal by hand pass for the gateway's own doing."""
    file = JournalFile.of(url)
    if file is not None:
        file.note_nothing()


async def open_one(url: str, **folds: Fold) -> SqlJournal:
    journal = await SqlJournal.open(url, FakeClock(), folds)
    await journal.lead()
    return journal


async def test_positions_count_from_one_without_holes_also_after_a_failed_transaction(url: str) -> None:
    journal = await open_one(url)
    assert await journal.transact(lambda recording: step(recording, 1, 2)) == [1, 2]

    def fail(recording: Recording) -> None:
        step(recording, 3, 4, 5)
        raise RuntimeError("changed its mind")

    with pytest.raises(RuntimeError, match="changed its mind"):
        await journal.transact(fail)
    assert await journal.transact(lambda recording: step(recording, 6)) == [3]
    assert [entry.body for entry in journal.entries_after(0, 10)] == [
        ClockStepped(1),
        ClockStepped(2),
        ClockStepped(6),
    ]
    await journal.close()


async def test_positions_go_on_where_the_last_run_ended(url: str) -> None:
    journal = await open_one(url)
    await journal.transact(lambda recording: step(recording, 1, 2))
    await journal.close()
    again = await open_one(url)
    assert again.position == 2
    assert await again.transact(lambda recording: step(recording, 3)) == [3]
    await again.close()


async def test_an_event_comes_back_byte_for_byte_and_is_found_by_its_key(url: str) -> None:
    store = Store()
    store.start(ulid(1))
    event = store.add(note("Kühlung 冷却"))
    journal = await open_one(url)
    body = EdgeEvent(event, event.at)
    await journal.transact(lambda recording: recording.append(body))
    assert journal.entries_after(0, 1)[0].body == body
    found = await journal.transact(lambda recording: recording.find_event(SITE, AGENT, ulid(1), 2))
    assert found == (event.hash, 1)
    assert await journal.transact(lambda r: r.load_event(SITE, AGENT, ulid(1), 2)) == event
    assert await journal.transact(lambda r: r.find_hash(SITE, AGENT, event.hash)) == event.position
    await journal.close()


async def test_the_same_key_twice_is_refused_by_the_database_itself(url: str) -> None:
    store = Store()
    event = store.start(ulid(1))
    journal = await open_one(url)
    await journal.transact(lambda recording: recording.append(EdgeEvent(event, event.at)))
    with pytest.raises(JournalLost):
        await journal.transact(lambda recording: recording.append(EdgeEvent(event, event.at)))
    assert journal.problem is not None
    await journal.close()


async def test_folds_and_listeners_hear_of_an_entry_only_after_its_commit(url: str) -> None:
    fold, heard = Counting(), list[int]()
    journal = await open_one(url, counting=fold)
    journal.subscribe(lambda entries: heard.extend(entry.position for entry in entries))

    def work(recording: Recording) -> None:
        step(recording, 1, 2)
        assert fold.count == 0
        assert heard == []

    await journal.transact(work)
    assert fold.count == 2
    assert heard == [1, 2]
    await journal.close()


async def test_what_a_failed_transaction_said_of_streams_is_forgotten_and_what_a_committed_one_said_is_not(
    url: str,
) -> None:
    store = Store()
    first, second = store.start(ulid(1)), store.add(note())
    whose = (first.site, first.agent)
    journal = await open_one(url)

    def admit(recording: Recording, *events: Event, refuse: bool = False) -> None:
        for event in events:
            recording.append(EdgeEvent(event, event.at))
        recording.append(GapFound(*whose, f"gap-{events[0].seq}", ulid(1), 7, 9, final=False, reason="late"))
        if refuse:
            raise RuntimeError("changed its mind")

    def held(recording: Recording) -> tuple[Position | None, str | None, bool, list[str]]:
        anchor = recording.boot_anchor(*whose, store.boot)
        gaps = [gap.gap for gap in recording.open_gaps(*whose)]
        return (
            recording.last_held(*whose, ulid(1)),
            recording.latest_epoch(*whose),
            anchor is not None,
            gaps,
        )

    assert await journal.transact(held) == (None, None, False, [])
    with pytest.raises(RuntimeError, match="changed its mind"):
        await journal.transact(lambda recording: admit(recording, first, second, refuse=True))
    assert await journal.transact(held) == (None, None, False, [])
    await journal.transact(lambda recording: admit(recording, first))
    assert await journal.transact(held) == (first.position, ulid(1), True, ["gap-1"])
    with pytest.raises(RuntimeError, match="changed its mind"):
        await journal.transact(lambda recording: admit(recording, second, refuse=True))
    assert await journal.transact(held) == (first.position, ulid(1), True, ["gap-1"])
    await journal.transact(lambda recording: recording.append(GapClosed(*whose, "gap-1", filled=True)))
    assert await journal.transact(held) == (first.position, ulid(1), True, [])
    await journal.close()


async def test_a_fold_that_refuses_an_entry_leaves_disk_and_memory_as_they_were(url: str) -> None:
    steady, moody = Counting(), Counting()
    journal = await open_one(url, steady=steady, moody=moody)
    await journal.transact(lambda recording: step(recording, 1))
    moody.refuse = True
    with pytest.raises(ValueError, match="refused"):
        await journal.transact(lambda recording: step(recording, 2))
    moody.refuse = False
    await journal.transact(lambda recording: step(recording, 3))
    assert (steady.count, moody.count, len(journal.entries_after(0, 10))) == (2, 2, 2)
    await journal.close()


async def test_a_caller_cancelled_during_the_commit_leaves_memory_equal_to_the_disk(url: str) -> None:
    fold = Counting()
    journal = await open_one(url, counting=fold)
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def work(recording: Recording) -> None:
        loop.call_soon_threadsafe(begun.set)
        step(recording, 1)

    task = asyncio.create_task(journal.transact(work))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fold.count == len(journal.entries_after(0, 10)) == journal.position == 1
    await journal.close()


async def test_start_is_the_snapshot_plus_the_entries_after_it(url: str) -> None:
    journal = await open_one(url, counting=Counting())
    await journal.transact(lambda recording: step(recording, 1, 2, 3))
    await journal.close()  # writes a snapshot at 3
    with disposing(open_writer(url)) as writer, writer.begin() as connection:
        before = connection.execute(select(JOURNAL.c.link).where(JOURNAL.c.position == 3)).scalar_one()
        body = StoredBody(EntryKind.CLOCK_STEPPED, b'{"step_ms":4}')
        row = {
            "position": 4,
            "recorded_at_ms": 1,
            "kind": body.kind.value,
            "payload": body.payload,
            "marks": "",
            "link": entry_link(before, 4, 1, body),
        }
        connection.execute(insert(JOURNAL), row)
    forget_note(url)
    fold = Counting()
    again = await open_one(url, counting=fold)
    assert fold.count == 4
    renamed = Counting()
    await again.close()
    third = await open_one(url, counting_2=renamed)
    assert renamed.count == 4, "a new format of snapshots folds from zero"
    await third.close()


async def test_a_fold_from_zero_equals_the_snapshot(url: str) -> None:
    journal = await open_one(url, counting=Counting())
    await journal.transact(lambda recording: step(recording, *range(2500)))
    await journal.close()
    fresh = Counting()
    with disposing(open_readers(url)) as readers, readers.connect() as connection:
        assert fold_entries(connection, {"counting": fresh}, {}) == 2500
        state = connection.execute(select(SNAPSHOTS.c.state)).scalar_one()
        assert open_snapshot(state) == str(fresh.count)


async def test_a_snapshot_that_does_not_fit_is_made_anew_from_the_journal(url: str) -> None:
    """Another version wrote it under the same name: what the journal says is all that is needed."""
    await leave_snapshot(url, seal_snapshot('{"moon":"full"}'))
    findings = OpenFindings()
    again = await open_one(url, findings=findings)
    assert [item.occurrence for item in findings.open_of(GatewayRule.QUARANTINE)] == ["gateway-1"]
    await again.close()


@pytest.mark.integration
async def test_a_damaged_snapshot_on_a_server_is_made_anew_from_the_journal(postgres_url: str) -> None:
    """A file would be moved aside whole; a server's pages are its own affair."""
    await leave_snapshot(postgres_url, seal_snapshot("[]").replace("[]", "[ ]"))
    findings = OpenFindings()
    again = await open_one(postgres_url, findings=findings)
    assert [item.occurrence for item in findings.open_of(GatewayRule.QUARANTINE)] == ["gateway-1"]
    await again.close()


async def leave_snapshot(url: str, state: str) -> None:
    """A stopped journal with one open finding, and this as the snapshot of those that are open."""
    journal = await open_one(url, findings=OpenFindings())
    subject = Subject(GatewayRule.QUARANTINE, SITE, AGENT)
    await journal.transact(
        lambda r: r.append(raise_finding(subject, r.next_position, "2026-01-01T00:00:00Z", {}))
    )
    await journal.close()
    with disposing(open_writer(url)) as writer, writer.begin() as connection:
        connection.execute(update(SNAPSHOTS).values(state=state))
    forget_note(url)


async def test_recorded_time_never_runs_back_even_if_the_clock_does(url: str) -> None:
    clock = FakeClock()
    journal = await SqlJournal.open(url, clock, {})
    await journal.lead()
    await journal.transact(lambda recording: step(recording, 1))
    clock.now_ms -= 5000
    await journal.transact(lambda recording: step(recording, 2))
    first, second = journal.entries_after(0, 2)
    assert second.recorded_at_ms == first.recorded_at_ms
    await journal.close()
    again = await SqlJournal.open(url, clock, {})
    assert again.last_recorded_ms == first.recorded_at_ms
    await again.close()


async def test_presence_is_known_after_a_restart(url: str) -> None:
    journal = await open_one(url)
    here = PresenceChanged(SITE, AGENT, online=True, epoch=ulid(1), reason="its beats rise")
    await journal.transact(lambda recording: recording.append(here))
    assert await journal.transact(lambda recording: list(recording.online_agents())) == [(SITE, AGENT)]
    gone = PresenceChanged(SITE, AGENT, online=False, epoch=None, reason="silent")
    await journal.transact(lambda recording: recording.append(gone))
    assert await journal.transact(lambda recording: list(recording.online_agents())) == []
    assert await journal.transact(lambda recording: list(recording.known_agents())) == [(SITE, AGENT)]
    await journal.close()


async def test_readers_cannot_write(url: str) -> None:
    journal = await open_one(url)
    with journal.readers.connect() as connection, pytest.raises(Exception, match=r"read-only|readonly"):
        connection.execute(text("DELETE FROM journal"))
    await journal.close()


async def test_migrations_produce_exactly_the_tables_that_the_code_declares(url: str) -> None:
    writer = open_writer(url)
    upgrade(writer, url)
    with writer.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    upgrade(writer, url)  # nothing to do, and no harm
    writer.dispose()


async def test_a_database_of_a_younger_version_is_refused(url: str) -> None:
    journal = await open_one(url)
    await journal.close()
    writer = open_writer(url)
    with writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    writer.dispose()
    forget_note(url)
    with pytest.raises(StoreError, match="younger version"):
        await open_one(url)


def files_in(folder: Path) -> list[str]:
    """What lies there: journals, copies moved aside, words of damage."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm", ".note")))


def insert_entry(url: str, kind: str, payload: bytes) -> None:
    """Append an entry as another version of the gateway would, its link and all."""
    with disposing(open_writer(url)) as writer, writer.begin() as connection:
        row = connection.execute(select(JOURNAL).order_by(JOURNAL.c.position.desc()).limit(1)).one()
        link = raw_link(row.link, row.position + 1, 1, kind, payload, None, "")
        values = {"position": row.position + 1, "recorded_at_ms": 1, "kind": kind, "payload": payload}
        connection.execute(insert(JOURNAL), {**values, "marks": "", "link": link})


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("tide_turned", b"{}"), ("clock_stepped", b'{"step_s":4}')],
    ids=["a kind", "a field"],
)
async def test_what_a_younger_version_journaled_is_refused_and_nothing_is_moved_aside(
    url: str, tmp_path: Path, kind: str, payload: bytes
) -> None:
    """A downgrade is no damage: the version that wrote it goes on where it was."""
    journal = await open_one(url)
    await journal.transact(lambda recording: step(recording, 1, 2))
    await journal.close()
    insert_entry(url, kind, payload)
    forget_note(url)
    before = files_in(tmp_path)
    with pytest.raises(StoreError, match=r"entry 3 .*younger version.* start that version"):
        await open_one(url, counting=Counting())
    assert files_in(tmp_path) == before
    with disposing(open_readers(url)) as readers, readers.connect() as connection:
        assert connection.execute(select(func.max(JOURNAL.c.position))).scalar() == 3


async def test_a_younger_database_with_other_tables_is_refused_before_anything_of_it_is_judged(
    url: str, tmp_path: Path
) -> None:
    journal = await open_one(url)
    await journal.transact(lambda recording: step(recording, 1))
    await journal.close()
    with disposing(open_writer(url)) as writer, writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("ALTER TABLE epochs RENAME COLUMN last_hash TO last_digest"))
    forget_note(url)
    before = files_in(tmp_path)
    with pytest.raises(StoreError, match="younger version"):
        await open_one(url)
    assert files_in(tmp_path) == before


async def test_sqlite_really_runs_with_a_write_ahead_log_and_full_sync(tmp_path: Path) -> None:
    writer = open_writer(f"sqlite:///{tmp_path}/gateway.db")
    with writer.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    writer.dispose()


async def test_a_journal_that_somebody_else_locks_is_unavailable_and_then_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.store_sql.engine.BUSY_TIMEOUT_MS", 50)
    journal = await open_one(f"sqlite:///{tmp_path}/gateway.db")
    other = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable):
        await journal.transact(lambda recording: step(recording, 1))
    assert journal.problem == "database is locked"
    other.execute("ROLLBACK")
    other.close()
    assert await journal.transact(lambda recording: step(recording, 2)) == [1]
    assert journal.problem is None
    await journal.close()


async def test_a_full_disk_stores_nothing_and_passes(tmp_path: Path) -> None:
    journal = await open_one(f"sqlite:///{tmp_path}/gateway.db")
    await journal.transact(lambda recording: step(recording, 1))
    with journal._writer.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(JournalUnavailable, match="full"):
        await journal.transact(lambda recording: step(recording, *range(5000)))
    with journal._writer.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 100000"))
    assert await journal.transact(lambda recording: step(recording, 2)) == [2]
    await journal.close()


def test_a_database_of_another_kind_is_refused_with_a_way_out() -> None:
    with pytest.raises(StoreError, match="use sqlite:///PATH or postgresql://"):
        open_writer("mysql://127.0.0.1/gateway")


@pytest.mark.integration
@pytest.mark.parametrize("opened", [open_writer, open_readers])
def test_a_server_that_is_cut_off_is_given_up_when_the_lease_is(
    postgres_url: str, opened: Callable[[str], Engine]
) -> None:
    """By default libpq waits a quarter of an hour for the answer to a write; what the operator sets in the URL stays."""

    def timeout_ms(url: str) -> str:
        engine = opened(url)
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            said: str = driver.info.get_parameters()["tcp_user_timeout"]
        engine.dispose()
        return said

    assert timeout_ms(postgres_url) == str(LEASE_MS)
    joint = "&" if "?" in postgres_url else "?"
    assert timeout_ms(f"{postgres_url}{joint}tcp_user_timeout=9000") == "9000"


@pytest.mark.integration
async def test_of_two_gateways_on_one_database_one_leads_and_the_other_follows(postgres_url: str) -> None:
    leader, fold = await open_one(postgres_url), Counting()
    standby = await SqlJournal.open(postgres_url, FakeClock(), {"counting": fold})
    heard: list[int] = []
    followed = asyncio.Event()

    def hear(entries: Sequence[Entry]) -> None:
        heard.extend(entry.position for entry in entries)
        followed.set()

    standby.subscribe(hear)
    waiting = asyncio.create_task(standby.lead())
    await leader.transact(lambda recording: step(recording, 1, 2))
    await asyncio.wait_for(followed.wait(), 10)
    assert (heard, fold.count) == ([1, 2], 2)
    assert not standby.is_leading
    with pytest.raises(JournalUnavailable, match="another gateway leads"):
        await standby.transact(lambda recording: step(recording, 3))
    await leader.close()  # which lets go of the lease
    await asyncio.wait_for(waiting, 10)
    assert await standby.transact(lambda recording: step(recording, 3)) == [3]
    assert fold.count == 3
    await standby.close()


@pytest.mark.integration
async def test_a_standby_that_starts_while_the_leader_journals_misses_nothing(postgres_url: str) -> None:
    leader, loop = await open_one(postgres_url), asyncio.get_running_loop()
    await leader.transact(lambda recording: step(recording, 1))

    class Slow(Counting):
        """Another entry is journaled while the standby is at the end of those that it found."""

        def adopt(self) -> None:
            super().adopt()
            if self.count == 1:
                journaling = leader.transact(lambda recording: step(recording, 2))
                asyncio.run_coroutine_threadsafe(journaling, loop).result(10)

    fold = Slow()
    standby = await SqlJournal.open(postgres_url, FakeClock(), {"counting": fold})
    await leader.close()
    await standby.lead()
    assert (fold.count, standby.position) == (2, 2)
    await standby.close()


@pytest.mark.integration
async def test_a_leader_that_was_frozen_cannot_write_after_another_took_over(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.store_sql.lease.LEASE_MS", 300)
    frozen = await open_one(postgres_url)
    heir = await open_one(postgres_url)  # returns when the lease ran out
    await heir.transact(lambda recording: step(recording, 1))
    with pytest.raises(JournalLost, match="another gateway leads"):
        await frozen.transact(lambda recording: step(recording, 2))
    assert len(heir.entries_after(0, 10)) == 1
    await heir.close()
    await frozen.close()


@pytest.mark.integration
@pytest.mark.parametrize("is_clean", [True, False])
async def test_a_leader_that_was_frozen_does_not_lead_again_after_another_has_led_and_gone(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, *, is_clean: bool
) -> None:
    """What it remembers of the journal is not so any more."""
    for module, name, value in (("lease", "LEASE_MS", 300), ("journal", "RENEW_S", 0.05)):
        monkeypatch.setattr(f"gateway.adapters.store_sql.{module}.{name}", value)
    frozen = await open_one(postgres_url)
    heir = await open_one(postgres_url)
    await heir.transact(lambda recording: step(recording, 1))
    if is_clean:
        await heir.close()
    else:
        await asyncio.sleep(0.4)  # its lease runs out, too
    with pytest.raises(JournalLost, match="another gateway"):
        await asyncio.wait_for(frozen.keep_leading(), 5)
    for journal in (frozen, *([] if is_clean else [heir])):
        await journal.close()


@pytest.mark.integration
async def test_a_leader_that_is_frozen_within_a_transaction_does_not_keep_others_from_leading(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("lease", "engine"):
        monkeypatch.setattr(f"gateway.adapters.store_sql.{module}.LEASE_MS", 300)
    frozen = await open_one(postgres_url)
    heir = await SqlJournal.open(postgres_url, FakeClock(), {})
    holds_row, thaws = threading.Event(), threading.Event()

    def freeze(recording: Recording) -> None:
        step(recording, 1)
        holds_row.set()
        thaws.wait(30)

    writing = asyncio.create_task(frozen.transact(freeze))
    await asyncio.to_thread(holds_row.wait, 10)
    try:
        await asyncio.wait_for(heir.lead(), 10)
    finally:
        thaws.set()
    assert await heir.transact(lambda recording: step(recording, 2)) == [1]
    with pytest.raises(JournalUnavailable):
        await writing
    with pytest.raises(JournalLost, match="another gateway leads"):
        await frozen.transact(lambda recording: step(recording, 3))
    assert [entry.body for entry in heir.entries_after(0, 10)] == [ClockStepped(2)]
    await heir.close()
    await frozen.close()


@pytest.mark.integration
async def test_a_leader_that_renews_keeps_the_lease(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.store_sql.journal.RENEW_S", 0.05)
    monkeypatch.setattr("gateway.adapters.store_sql.lease.LEASE_MS", 1000)
    leader = await open_one(postgres_url)
    renewing = asyncio.create_task(leader.keep_leading())
    standby = await SqlJournal.open(postgres_url, FakeClock(), {})
    waiting = asyncio.create_task(standby.lead())
    await asyncio.sleep(2.5)  # two looks of the standby, two expiries that did not happen
    assert not waiting.done()
    assert not renewing.done()
    for task in (waiting, renewing):
        task.cancel()
    await asyncio.gather(waiting, renewing, return_exceptions=True)
    await standby.close()
    await leader.close()


@pytest.fixture
def mortal_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A server of the test's own, to be killed."""
    with Postgres(tmp_path / "postgres") as server:
        yield server


async def until_usable(journal: SqlJournal) -> None:
    while journal.problem is not None:  # noqa: ASYNC110 - it says so by an attribute alone
        await asyncio.sleep(0.02)


@pytest.mark.integration
async def test_a_server_that_was_away_is_written_again_though_nobody_commits(
    mortal_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board shows UNKNOWN while the last commit failed: one that nobody repeats must not hold it there."""
    monkeypatch.setattr("gateway.adapters.store_sql.journal.RENEW_S", 0.05)
    journal = await open_one(mortal_postgres.url)
    await journal.transact(lambda recording: step(recording, 1))
    mortal_postgres.kill()
    for size in (2, 3):  # a connection that breaks, and one that nobody answers
        with pytest.raises(JournalUnavailable):
            await journal.transact(lambda recording, size=size: step(recording, size))  # type: ignore[misc]
    with pytest.raises(JournalUnavailable):
        journal.entries_after(0, 1)
    assert journal.failing_since_ms is not None
    renewing = asyncio.create_task(journal.keep_leading())
    await asyncio.sleep(0.2)  # some renewals that fail
    assert journal.problem is not None
    mortal_postgres.start()
    await asyncio.wait_for(until_usable(journal), 20)
    assert journal.failing_since_ms is None
    assert not renewing.done()
    assert await journal.transact(lambda recording: step(recording, 4)) == [2]
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    await journal.close()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)


@pytest.mark.integration
async def test_a_standby_outlasts_a_server_that_is_away_and_says_so_meanwhile(
    mortal_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.store_sql.journal.LOOK_S", 0.05)
    monkeypatch.setattr("gateway.adapters.store_sql.lease.LEASE_MS", 2000)
    leader = await open_one(mortal_postgres.url)
    standby = await SqlJournal.open(mortal_postgres.url, FakeClock(), {})
    waiting = asyncio.create_task(standby.lead())
    await leader.transact(lambda recording: step(recording, 1))
    await asyncio.wait_for(until(lambda: standby.position == 1), 20)
    mortal_postgres.kill()
    await asyncio.wait_for(until(lambda: standby.problem is not None), 20)
    mortal_postgres.start()
    await asyncio.wait_for(until_usable(standby), 20)
    await asyncio.wait_for(waiting, 20)  # the lease runs out
    assert await standby.transact(lambda recording: step(recording, 2)) == [2]
    with pytest.raises(JournalUnavailable):
        await leader.transact(lambda recording: step(recording, 3))
    for journal in (leader, standby):
        await journal.close()


@pytest.mark.integration
async def test_a_leader_that_was_frozen_leaves_the_heirs_snapshots_alone(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.store_sql.lease.LEASE_MS", 300)
    frozen = await open_one(postgres_url, counting=Counting())
    await frozen.transact(lambda recording: step(recording, 1))
    heir = await open_one(postgres_url, counting=Counting())  # returns when the lease ran out
    await heir.transact(lambda recording: step(recording, 2))
    await heir.close()
    with pytest.raises(JournalLost, match="another gateway leads"):
        await frozen.close()
    with disposing(open_readers(postgres_url)) as engine, engine.connect() as connection:
        assert connection.execute(select(SNAPSHOTS.c.position)).scalars().all() == [2]


@pytest.mark.integration
async def test_a_leader_that_cannot_renew_for_as_long_as_the_lease_lasts_makes_way(
    mortal_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gateway may lead by now, and needs the broker's session."""
    monkeypatch.setattr("gateway.adapters.store_sql.journal.RENEW_S", 0.05)
    clock = FakeClock()
    journal = await SqlJournal.open(mortal_postgres.url, clock, {})
    await journal.lead()
    renewing = asyncio.create_task(journal.keep_leading())
    await asyncio.sleep(0.1)
    mortal_postgres.kill()
    clock.now_ms += LEASE_MS
    with pytest.raises(JournalUnavailable):
        await asyncio.wait_for(renewing, 20)
    mortal_postgres.start()
    await journal.close()


@pytest.mark.integration
async def test_a_lease_that_ran_out_is_still_ours_while_nobody_else_took_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.store_sql.lease.LEASE_MS", -1)
    journal = await open_one(postgres_url)
    assert await journal.transact(lambda recording: step(recording, 1)) == [1]
    await journal.close()


async def test_text_that_holds_the_character_zero_is_poison_on_neither_database(url: str) -> None:
    """PostgreSQL's text knows none: an event with one would otherwise end the gateway at each try, for ever."""
    store = Store(boot="bo\0ot")
    store.start(ulid(1))
    store.add(raised("OCC\0"))
    store.add(cleared("OCC\0"))
    journal = await open_one(url, book=AlarmBook())
    for event in store.events:
        await journal.transact(lambda recording, event=event: recording.append(EdgeEvent(event, event.at)))  # type: ignore[misc]
    assert await journal.transact(lambda recording: recording.find_violation("OCC\0")) is False
    stored = [entry.body.event for entry in journal.entries_after(0, 10) if isinstance(entry.body, EdgeEvent)]
    assert stored == store.events
    assert SqlAlarmReads(journal.readers).violations(Query({"machine": ("no\0where",)})).items == ()
    await journal.close()
