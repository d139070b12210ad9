"""The gateway's journal on disks that are full, failing, torn out or lying: nothing acked is lost, nothing wrong is served.

Real ENOSPC on a real file system (a tmpfs of a few megabytes), and files harmed in every way that disks and people
know. A PostgreSQL journal lies on its server's disks, whose checksums and limits are that server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import text

from edge_agent.wire.event import Basis, Event, Json, Observation, Priority, ViolationRaised
from gateway.adapters.store_sql.checkpoint import COMMITS_MAX
from gateway.adapters.store_sql.engine import open_readers, open_writer
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.journal_file import JournalFile
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import EdgeEvent, Entry
from gateway.domain.plant_fold import Plant
from gateway.ports import Fold, JournalLost, JournalUnavailable, Recording
from tests.contract.test_journal_store import FakeClock, step
from tests.damage import HARM
from tests.scripted_agent import Store, note, ulid
from tests.small_disk import SmallDisk

SEEDS = 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", size_mb=6) as found:
        yield found


async def open_in(folder: Path, folds: Mapping[str, Fold] | None = None) -> SqlJournal:
    journal = await SqlJournal.open(f"sqlite:///{folder}/gateway.db", FakeClock(), folds or {})
    await journal.lead()
    return journal


async def is_kept(journal: SqlJournal, event: Event) -> bool:
    """Journal one event; False when there is no room, and nobody may be promised anything."""
    try:
        await journal.transact(lambda recording: recording.append(EdgeEvent(event, event.at)))
    except JournalUnavailable:
        return False
    return True


@pytest.mark.integration
async def test_on_a_full_disk_nothing_is_promised_and_it_goes_on_when_there_is_room(disk: SmallDisk) -> None:
    journal = await open_in(disk.folder)
    store = Store()
    events = [store.start(ulid(1)), *(store.add(long_note()) for _ in range(600))]
    disk.fill(leave_bytes=400_000)
    kept = 0
    while await is_kept(journal, events[kept]):
        kept += 1
    assert 3 < kept < 600
    assert "full" in str(journal.problem)
    assert [entry.body for entry in journal.entries_after(0, 1000)] == [
        EdgeEvent(event, event.at) for event in events[:kept]
    ]
    disk.relieve()
    assert await is_kept(journal, events[kept])
    assert (journal.position, journal.problem) == (kept + 1, None)
    await journal.close()


@pytest.mark.integration
async def test_a_full_disk_at_the_stop_costs_the_snapshot_only(disk: SmallDisk) -> None:
    journal = await open_in(disk.folder, {"findings": OpenFindings()})
    await journal.transact(lambda recording: step(recording, 1, 2))
    disk.fill()
    await journal.close()
    disk.relieve()
    again = await open_in(disk.folder)
    assert again.position == 2
    await again.close()


class Bulky:
    """A fold whose snapshots are larger than what a disk has left."""

    def stage(self, entry: Entry, recording: Recording | None) -> None:
        del entry, recording

    def adopt(self) -> None:
        pass

    discard = adopt

    def snapshot(self) -> Json:
        return "x" * 2_000_000

    def restore(self, snapshot: Json) -> None:
        del snapshot


@pytest.mark.integration
async def test_no_room_for_a_snapshot_is_no_reason_to_call_the_journal_unusable(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again later, with or without somebody who frees room; what matters goes on being journaled."""
    monkeypatch.setattr("gateway.adapters.store_sql.journal.SNAPSHOT_EVERY", 4)
    monkeypatch.setattr("gateway.adapters.store_sql.journal.SNAPSHOT_AGAIN", 2)
    journal = await open_in(disk.folder, {"bulky": Bulky()})
    disk.fill(leave_bytes=500_000)
    await journal.transact(lambda recording: step(recording, 1, 2, 3, 4))
    assert (journal.problem, journal.failing_since_ms) == (None, None)
    disk.relieve()
    await journal.transact(lambda recording: step(recording, 5))
    assert snapshot_position(journal) is None, "an attempt at each commit would hold up every one of them"
    await journal.transact(lambda recording: step(recording, 6))
    assert snapshot_position(journal) == 6
    await journal.close()


def snapshot_position(journal: SqlJournal) -> object:
    with journal.readers.connect() as connection:
        return connection.execute(text("SELECT position FROM snapshots")).scalar()


@pytest.mark.integration
async def test_a_read_only_disk_is_no_reason_to_begin_another_journal(disk: SmallDisk) -> None:
    journal = await open_in(disk.folder)
    await journal.transact(lambda recording: step(recording, 1))
    await journal.close()
    disk.remount("ro")
    with pytest.raises((JournalUnavailable, JournalLost)):
        await open_in(disk.folder)
    disk.remount("rw")
    again = await open_in(disk.folder)
    assert again.position == 1
    await again.close()


@pytest.mark.integration
async def test_a_disk_torn_out_is_noticed(disk: SmallDisk) -> None:
    journal = await open_in(disk.folder)
    assert journal.file is not None
    assert journal.file.is_in_place()
    disk.tear_out()
    assert not journal.file.is_in_place()
    await journal.close()


async def test_a_lost_journal_is_not_written_again_even_if_somebody_swallows_the_first_word(
    tmp_path: Path,
) -> None:
    """What a failed synchronisation left is unknown: the next commit would build on it."""
    journal = await open_in(tmp_path)
    await journal.transact(lambda recording: step(recording, 1))
    with journal._writer.connect() as connection:
        connection.execute(text("DROP TABLE journal"))
        connection.commit()
    for _ in range(2):
        with pytest.raises(JournalLost):
            await journal.transact(lambda recording: step(recording, 2))
    await journal.close()


async def test_every_writer_is_durable_and_no_reader_can_checkpoint(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/gateway.db"
    journal = await open_in(tmp_path)
    await journal.transact(lambda recording: step(recording, 1))
    log = tmp_path / "gateway.db-wal"
    before = log.stat().st_size
    writer, readers = open_writer(url), open_readers(url)
    for engine, wanted in (
        (writer, {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0, "mmap_size": 0}),
        (readers, {"query_only": 1, "mmap_size": 0}),
    ):
        with engine.connect() as connection:
            for name, value in wanted.items():
                assert connection.execute(text(f"PRAGMA {name}")).scalar() == value
    with readers.connect() as connection, pytest.raises(sqlite3.OperationalError):
        connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal._writer.dispose()
    writer.dispose()
    readers.dispose()  # the last connections to close are readers'
    journal.readers.dispose()
    assert log.stat().st_size == before, "a reader that closes last leaves the log alone"


async def test_the_log_stays_small_however_much_is_written(tmp_path: Path) -> None:
    journal = await open_in(tmp_path)
    for number in range(3 * COMMITS_MAX):
        await journal.transact(lambda recording, number=number: step(recording, number))  # type: ignore[misc]
    assert (tmp_path / "gateway.db-wal").stat().st_size < 8 * 1024 * 1024
    with sqlite3.connect(f"file:{tmp_path}/gateway.db?mode=ro&immutable=1", uri=True) as database:
        assert database.execute("SELECT count(*) FROM journal").fetchone()[0] >= 2 * COMMITS_MAX
    await journal.close()


def fresh_folds() -> dict[str, Fold]:
    return {"plant": Plant(), "findings": OpenFindings(), "book": AlarmBook(None)}


def served(journal: SqlJournal, folds: Mapping[str, Fold]) -> dict[str, object]:
    """Everything that anybody is told from this journal."""
    with journal.readers.connect() as connection:
        rows = {
            table: connection.execute(text(f"SELECT * FROM {table}")).all()
            for table in ("epochs", "violations", "alarms", "boots", "gaps")
        }
    entries = [(entry.position, entry.recorded_at_ms, entry.body) for entry in journal.entries_after(0, 9999)]
    return {"entries": entries, **rows, **{name: fold.snapshot() for name, fold in folds.items()}}


def long_note() -> Observation:
    return Observation("test", {"text": "x" * 4000})


async def write_some(folder: Path) -> SqlJournal:
    journal = await open_in(folder, fresh_folds())
    store = Store()
    events = [store.start(ulid(1))]
    for number in range(30):
        body = ViolationRaised(
            "mixer",
            "door",
            None,
            "guard_open_motion",
            Priority.P1,
            Basis.PROVEN,
            f"o-{number}",
            events[-1].at,
            None,
            {"text": "x" * 300},
        )
        events += [store.add(body), store.add(note("y" * 200))]
    for event in events:
        await journal.transact(lambda r, event=event: r.append(EdgeEvent(event, event.at)))  # type: ignore[misc]
    return journal


@pytest.mark.thorough
@pytest.mark.parametrize("ended", ["stopped", "killed"])
async def test_whatever_happens_to_the_file_what_is_served_is_true_or_the_damage_is_told(
    tmp_path: Path, ended: str
) -> None:
    before, truth_folds = tmp_path / "before", fresh_folds()
    journal = await write_some(tmp_path / "written")
    if ended == "stopped":
        await journal.close()
    shutil.copytree(tmp_path / "written", before)
    if ended == "killed":
        await journal.close()
    shutil.copytree(before, tmp_path / "truth")
    journal = await open_in(tmp_path / "truth", truth_folds)
    assert journal.file is not None
    assert journal.file.untold_damage() == [], "no cry of wolf"
    truth = served(journal, truth_folds)
    await journal.close()
    told = 0
    for seed in range(SEEDS):
        for name, harm in HARM.items():
            folder, folds = tmp_path / f"{name} {seed}", fresh_folds()
            shutil.copytree(before, folder)
            harm(folder / "gateway.db", random.Random(f"{seed} {name} {ended}"))
            journal = await open_in(folder, folds)
            assert journal.file is not None
            if journal.file.untold_damage():
                told += 1
            else:
                assert served(journal, folds) == truth, f"silently wrong after: {name}, seed {seed}, {ended}"
            await journal.close()
    assert told >= 3 * SEEDS, "most of it does harm"


async def test_a_journal_moved_aside_is_kept_whole_and_told_until_the_journal_tells_of_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(b"\x07" * 50_000)
    journal = await open_in(tmp_path)
    assert journal.position == 0
    assert (tmp_path / "gateway.db.damaged-1").read_bytes() == b"\x07" * 50_000
    await journal.close()
    journal = await open_in(tmp_path)  # killed before anybody was told: it is told by the next run
    assert journal.file is not None
    (damage,) = journal.file.untold_damage()
    assert damage.text == "gateway.db.damaged-1: file is not a database"
    journal.file.forget_damage(damage)
    assert journal.file.untold_damage() == []
    await journal.close()


class Dragging(FakeClock):
    """A clock by which every look at it, and whatever lies between, takes a second."""

    def monotonic_ms(self) -> int:
        self.now_ms += 1000
        return self.now_ms


@pytest.mark.parametrize(("clock", "is_sealed"), [(FakeClock(), True), (Dragging(), False)])
async def test_a_stop_reads_the_file_for_its_seal_only_while_there_is_time(
    tmp_path: Path, clock: FakeClock, is_sealed: bool
) -> None:
    """A stop is promised within 5 s; without a seal the next start checks pages, links and epochs as after a kill."""
    journal = await SqlJournal.open(f"sqlite:///{tmp_path}/gateway.db", clock, fresh_folds())
    payload = "x" * 40_000
    store = Store()
    for event in [store.start(ulid(1)), *(store.add(note(payload)) for _ in range(500))]:
        assert await is_kept(journal, event)
    await journal.close()
    file = JournalFile(tmp_path / "gateway.db")
    assert (file.noted().seal is not None) is is_sealed
    again = await open_in(tmp_path, fresh_folds())
    assert again.file is not None
    assert (again.position, again.file.untold_damage()) == (501, [])
    await again.close()


async def test_an_older_copy_in_its_place_is_gone_on_with_and_told(tmp_path: Path) -> None:
    """A restored backup: agents fill what is missing, people hear that something was."""
    journal = await open_in(tmp_path)
    await journal.transact(lambda recording: step(recording, 1))
    await journal.close()
    shutil.copy(tmp_path / "gateway.db", tmp_path / "older")
    journal = await open_in(tmp_path)
    await journal.transact(lambda recording: step(recording, 2, 3))
    await journal.close()
    shutil.copy(tmp_path / "older", tmp_path / "gateway.db")
    journal = await open_in(tmp_path)
    assert journal.position == 1
    assert journal.file is not None
    (damage,) = journal.file.untold_damage()
    assert damage.text == "gateway.db: it ends at entry 1; entries up to 3 were in it"
    await journal.close()


def vacuum(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("VACUUM")


def replace_by_backup(path: Path) -> None:
    copy = path.with_name("copy")
    opened = sqlite3.connect(path), sqlite3.connect(copy)
    with contextlib.closing(opened[0]) as database, contextlib.closing(opened[1]) as target:
        database.backup(target)
    copy.replace(path)


def go_on_with_an_older_gateway(path: Path) -> None:
    """One that writes no note."""
    note = path.with_name(path.name + ".note")
    kept = note.read_bytes()

    async def go_on() -> None:
        journal = await open_in(path.parent, fresh_folds())
        await journal.transact(lambda recording: step(recording, 7))
        await journal.close()

    asyncio.run(go_on())
    note.write_bytes(kept)


@pytest.mark.parametrize("do", [vacuum, replace_by_backup, go_on_with_an_older_gateway])
def test_what_somebody_does_to_a_stopped_journal_through_sqlite_is_no_damage(
    tmp_path: Path, do: Callable[[Path], None]
) -> None:
    async def write() -> int:
        journal = await write_some(tmp_path)
        await journal.close()
        return journal.position

    async def read() -> int:
        journal = await open_in(tmp_path, fresh_folds())
        assert journal.file is not None
        assert journal.file.untold_damage() == []
        await journal.close()
        return journal.position

    written = asyncio.run(write())
    before = (tmp_path / "gateway.db").read_bytes()
    do(tmp_path / "gateway.db")
    assert (tmp_path / "gateway.db").read_bytes() != before
    assert asyncio.run(read()) >= written
