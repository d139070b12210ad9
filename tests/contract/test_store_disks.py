"""The agent's store on disks that are full, torn out or lying: what is lost is said, what is wrong is never used.

Real ENOSPC on a real file system (a tmpfs of a few megabytes), kills included, and files harmed in every way that disks
and people know.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.adapters.store_note import StoreNote
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.delivery import Match, Span
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import NS_PER_S, MonoNs
from edge_agent.ports import Committed, Loss, StoreBrokenError, StoreFull
from edge_agent.wire.event import ClockState, Observation, OutboxOverflow, Position, StateReport
from tests.contract.test_store import Bench, done, fact, p1, pair, tamper
from tests.damage import HARM
from tests.small_disk import SmallDisk
from tests.stored import read_entries

SEEDS = 6


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", size_mb=24) as found:
        yield found


@pytest.fixture
def on_disk(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "gw.db")


def loss(dropped: int, since_s: int, until_s: int) -> Loss:
    return Loss(dropped, MonoNs(since_s * NS_PER_S), MonoNs(until_s * NS_PER_S))


def fill(store: EventStore) -> None:
    """Commit until the store says that there is no room."""
    outcome: Committed | StoreFull = done(store.commit([fact()], {}, pair(1)))
    for _ in range(2000):
        if isinstance(outcome, StoreFull):
            return
        outcome = store.commit([fact(text="x" * 8000)], {}, pair(2))
    raise AssertionError("this disk has no end")


def killed(store: EventStore) -> None:
    """What a kill leaves: nothing is written, the locks are the kernel's to give back."""
    assert store._lock is not None
    store._lock.release()
    store._lock = None


def told(outcome: Committed | StoreFull) -> list[object]:
    return [event.body for event in done(outcome).events]


def overflows(bodies: list[object]) -> list[OutboxOverflow]:
    return [body for body in bodies if isinstance(body, OutboxOverflow)]


def damages(bodies: list[object]) -> list[Observation]:
    return [body for body in bodies if isinstance(body, Observation) and body.what == "store_damaged"]


@pytest.mark.integration
def test_killed_on_a_full_disk_the_next_run_says_what_was_lost(disk: SmallDisk) -> None:
    bench = Bench(disk.folder / "gw.db")
    store = bench.begun()
    disk.fill(leave_bytes=700_000)
    fill(store)
    tail = store.tail
    store.note_waiting(loss(1, 5, 5), pair(5))
    assert isinstance(store.commit([fact(at=5), fact(at=6)], {}, pair(7)), StoreFull)
    store.note_waiting(loss(2, 5, 6), pair(7))
    killed(store)
    disk.relieve()
    store = bench.open()
    assert store.tail == tail, "what was committed is all there"
    (overflow,) = overflows(told(store.begin_epoch(pair(20))))
    assert overflow == OutboxOverflow(2, "2026-09-21T14:13:25.000000Z", "2026-09-21T14:13:26.000000Z")
    assert overflows(told(store.commit([fact()], {}, pair(21)))) == [], "told once"
    store.close()
    assert overflows(told(bench.open().begin_epoch(pair(30)))) == [], "and never again"


@pytest.mark.integration
def test_what_waited_and_was_stored_after_all_is_no_loss(disk: SmallDisk) -> None:
    bench = Bench(disk.folder / "gw.db")
    store = bench.begun()
    disk.fill(leave_bytes=700_000)
    fill(store)
    assert isinstance(store.commit([fact(at=5)], {}, pair(7)), StoreFull)
    store.note_waiting(loss(1, 5, 5), pair(7))
    disk.relieve()
    assert overflows(told(store.commit([fact(at=5)], {}, pair(8)))) == [], "it recovers without a restart"
    killed(store)
    assert overflows(told(bench.open().begin_epoch(pair(20)))) == []


def test_a_loss_taken_up_is_counted_once_wherever_the_next_run_is_killed(on_disk: Bench) -> None:
    """The note is void by the very transaction that tells of it: neither before nor after."""
    store = on_disk.begun()
    store.note_waiting(loss(3, 5, 6), pair(7))
    killed(store)
    killed(on_disk.open())  # before it could tell
    store = on_disk.open()
    assert [item.dropped for item in overflows(told(store.begin_epoch(pair(20))))] == [3]
    killed(store)
    assert overflows(told(on_disk.open().begin_epoch(pair(30)))) == []


def test_losses_of_several_runs_add_up_until_they_are_told(on_disk: Bench) -> None:
    store = on_disk.begun()
    store.note_waiting(loss(3, 5, 6), pair(7))
    killed(store)
    store = on_disk.open()
    store.note_waiting(loss(2, 8, 9), pair(9))
    killed(store)
    (overflow,) = overflows(told(on_disk.open().begin_epoch(pair(30))))
    assert overflow == OutboxOverflow(5, "2026-09-21T14:13:25.000000Z", "2026-09-21T14:13:29.000000Z")


def report(at: float) -> Draft:
    return Draft(MonoNs(round(at * NS_PER_S)), StateReport(1, 1, {}, {}, ()))


def losses(outcome: Committed | StoreFull) -> tuple[bool, bool]:
    """Whether a loss is untold, and whether it is unhealed."""
    return done(outcome).is_untold, done(outcome).is_unhealed


def test_a_loss_is_unhealed_over_kills_until_a_report_that_was_made_after_it_is_stored(
    on_disk: Bench,
) -> None:
    """The run after it would else vouch for a gateway that knows nothing of a raise that was lost."""
    store = on_disk.begun()
    while store.status().outbox_pct < 100:
        done(store.commit([fact(text="x" * 40_000) for _ in range(20)], {}, pair(1)))
    assert losses(store.commit([], {}, pair(1))) == (False, False)
    assert losses(store.commit([fact(at=2)], {}, pair(2))) == (True, True)
    assert losses(store.commit([report(3)], {}, pair(3))) == (True, True), "it found no room itself"
    killed(store)
    store = on_disk.open()
    assert losses(store.begin_epoch(pair(4))) == (True, True)
    store.set_acked(store.tail, store.tail)
    assert losses(store.commit([fact(at=5)], {}, pair(5))) == (False, True)
    killed(store)
    store = on_disk.open()
    assert losses(store.begin_epoch(pair(6))) == (False, True)
    assert losses(store.commit([report(7)], {}, pair(8), loss(1, 7, 8))) == (False, True), (
        "made before, perhaps"
    )
    assert losses(store.commit([report(9)], {}, pair(9))) == (False, False)
    killed(store)
    assert losses(on_disk.open().begin_epoch(pair(10))) == (False, False)


def test_a_report_in_the_commit_that_tells_what_was_counted_before_makes_it_good(on_disk: Bench) -> None:
    store = on_disk.begun()
    while store.status().outbox_pct < 100:
        done(store.commit([fact(text="x" * 40_000) for _ in range(20)], {}, pair(1)))
    done(store.commit([fact(at=2)], {}, pair(2)))
    store.set_acked(store.tail, store.tail)
    healing = store.commit([report(3)], {}, pair(3))
    assert [type(body) for body in told(healing)] == [OutboxOverflow, StateReport]
    assert losses(healing) == (False, False)


def test_what_a_kill_on_a_full_disk_lost_is_unhealed_when_the_next_run_has_told_it(on_disk: Bench) -> None:
    store = on_disk.begun()
    store.note_waiting(loss(3, 5, 6), pair(7))
    killed(store)
    store = on_disk.open()
    assert losses(store.begin_epoch(pair(20))) == (False, True)
    assert losses(store.commit([report(21)], {}, pair(21))) == (False, False)


def test_a_new_store_beside_an_old_note_tells_no_loss_that_was_told(on_disk: Bench) -> None:
    store = on_disk.begun()
    store.note_waiting(loss(3, 5, 6), pair(7))
    killed(store)
    store = on_disk.open()
    assert len(overflows(told(store.begin_epoch(pair(20))))) == 1
    store.note_waiting(loss(2, 25, 26), pair(27))
    done(store.commit([fact(at=25), fact(at=26)], {}, pair(28)))
    store.close()
    on_disk.path.unlink()
    assert overflows(told(on_disk.open().begin_epoch(pair(30)))) == [], "all of it was told or stored"


def test_a_new_note_beside_an_old_store_counts_on_from_what_was_taken_up(on_disk: Bench) -> None:
    """A store that was copied without its note."""
    store = on_disk.begun()
    for second in range(5):
        store.note_waiting(loss(1, 5, 5 + second), pair(10))
    done(store.commit([fact()], {}, pair(11)))
    store.close()
    on_disk.path.with_name("gw.db.note").unlink()
    store = on_disk.begun(20)
    store.note_waiting(loss(2, 25, 26), pair(27))
    killed(store)
    assert [item.dropped for item in overflows(told(on_disk.open().begin_epoch(pair(30))))] == [2]


@pytest.mark.integration
def test_a_note_that_finds_no_room_for_hours_keeps_no_file_open(disk: SmallDisk) -> None:
    store = Bench(disk.folder / "gw.db").begun()
    store.close()
    disk.folder.joinpath("gw.db.note").unlink()
    disk.fill()
    note = StoreNote(disk.folder / "gw.db")
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(10):
        note.open()
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(before)
    note.note_loss(1, "a", "b")
    disk.relieve()
    note.open()
    note.note_loss(2, "a", "b")
    note.close()
    assert StoreNote(disk.folder / "gw.db").loss.dropped == 2


def test_findings_that_waited_for_room_keep_their_times_beside_what_was_dropped(on_disk: Bench) -> None:
    store = on_disk.begun()
    outcome = store.commit([fact(at=10), fact(at=20)], {}, pair(600), loss(1, 30, 590))
    told_at = [(event.body, event.at, event.clock) for event in done(outcome).events]
    (overflow,) = overflows([body for body, _, _ in told_at])
    assert overflow.dropped == 1
    facts = [(at, clock) for body, at, clock in told_at if isinstance(body, Observation)]
    assert facts == [
        ("2026-09-21T14:13:30.000000Z", ClockState.SYNCED),
        ("2026-09-21T14:13:40.000000Z", ClockState.SYNCED),
    ]


@pytest.mark.integration
def test_damage_found_on_a_full_disk_is_named_when_there_is_room_again(disk: SmallDisk) -> None:
    bench = Bench(disk.folder / "gw.db")
    store = bench.begun()
    done(store.commit([fact()] * 3000, {}, pair(1)))
    tamper(bench.path, "UPDATE event SET payload = x'00' WHERE n % 2 = 0")
    disk.fill(leave_bytes=700_000)
    fill(store)
    disk.fill()
    reading = store.read(range(1, 3001))
    assert (len(reading.payloads), reading.damaged) == (1500, ())
    disk.relieve()
    assert len(store.read(range(1, 3001)).damaged) == len(store.gone) == 1500


def test_a_torn_note_leaves_the_one_before_it(tmp_path: Path) -> None:
    note = StoreNote(tmp_path / "gw.db")
    note.open()
    note.note_loss(1, "a", "b")
    note.note_loss(2, "a", "c")
    note.close()
    path = tmp_path / "gw.db.note"
    data = bytearray(path.read_bytes())
    data[1 * 4096 + 20] ^= 1  # the second went into the first of the two places
    path.write_bytes(data)
    assert StoreNote(tmp_path / "gw.db").loss.dropped == 1


@pytest.mark.integration
def test_a_disk_that_fills_up_is_alarmed_before_it_is_full(disk: SmallDisk) -> None:
    store = Bench(disk.folder / "gw.db").begun()
    assert store.status().outbox_pct == 0
    disk.fill(leave_bytes=6_000_000)
    assert store.status().outbox_pct == 80, "little room is alarmed, however little waits"
    for _ in range(500):
        if store.status().outbox_pct > 90:
            break
        done(store.commit([fact(text="x" * 20_000)], {}, pair(2)))
    assert 90 < store.status().outbox_pct <= 100, "never-acked events against the room there is"
    store.close()


@pytest.mark.integration
def test_a_disk_torn_out_ends_the_process(disk: SmallDisk) -> None:
    store = Bench(disk.folder / "gw.db").begun()
    store.status()
    disk.tear_out()
    with pytest.raises(StoreBrokenError, match="unmounted, deleted or replaced"):
        store.status()


@pytest.mark.integration
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_run_begins_on_a_disk_that_is_full(disk: SmallDisk, is_killed: bool) -> None:
    """It watches, and what it finds waits for room; one that could not begin would see nothing at all."""
    bench = Bench(disk.folder / "gw.db")
    store = bench.begun()
    disk.fill(leave_bytes=700_000)
    fill(store)
    if is_killed:
        killed(store)
    else:
        store.stop_clean(pair(8))
        store.close()
    store = bench.open()
    done(store.begin_epoch(pair(20)))
    fill(store)
    disk.relieve()
    done(store.commit([fact()], {}, pair(30)))
    store.status()


@pytest.mark.integration
def test_a_run_begins_on_a_disk_that_was_filled_up_while_none_was_there(disk: SmallDisk) -> None:
    bench = Bench(disk.folder / "gw.db")
    bench.begun().close()
    disk.fill()
    done(bench.open().begin_epoch(pair(20)))


@pytest.mark.integration
def test_a_store_that_a_full_disk_cannot_open_is_not_refused_for_good(disk: SmallDisk) -> None:
    bench = Bench(disk.folder / "gw.db")
    bench.begun().close()
    for reserve in disk.folder.glob("*.reserve"):
        reserve.unlink()
    disk.fill()
    with pytest.raises(StoreBrokenError):
        bench.open()
    disk.relieve()
    assert bench.open().tail == 1


@pytest.mark.integration
def test_a_spoilt_store_on_a_full_disk_is_moved_aside_and_the_new_one_waits_for_room(disk: SmallDisk) -> None:
    bench = Bench(disk.folder / "gw.db")
    bench.begun().close()
    bench.path.write_bytes(b"no database" * 1000)
    for reserve in disk.folder.glob("*.reserve"):
        reserve.unlink()
    disk.fill()
    with pytest.raises(StoreBrokenError):
        bench.open()
    disk.relieve()
    assert damages(told(bench.open().begin_epoch(pair(20))))


def test_the_log_stays_small_and_the_only_writer_empties_it(on_disk: Bench) -> None:
    store = on_disk.begun()
    for number in range(500):
        done(store.commit([fact(n=number)], {"last": number}, pair(1)))
    assert on_disk.path.with_name("gw.db-wal").stat().st_size < 8 * 1024 * 1024
    for pragma, value in {"wal_autocheckpoint": 0, "mmap_size": 0, "synchronous": 2}.items():
        assert store._db.execute(f"PRAGMA {pragma}").fetchone() == (value,)
    before = on_disk.path.with_name("gw.db-wal").read_bytes()
    assert len(list(read_entries(on_disk.path))) == store.tail
    assert on_disk.path.with_name("gw.db-wal").read_bytes() == before, "a reader leaves the log alone"
    store.close()


def test_an_older_copy_in_its_place_is_said(on_disk: Bench) -> None:
    store = on_disk.begun()
    store.close()
    shutil.copy(on_disk.path, on_disk.path.with_name("older"))
    store = on_disk.begun(2)
    done(store.commit([fact(), fact()], {}, pair(3)))
    store.close()
    shutil.copy(on_disk.path.with_name("older"), on_disk.path)
    (damage,) = damages(told(on_disk.open().begin_epoch(pair(9))))
    assert damage.detail == {"lost_end": "it ends at place 1; places up to 4 were in it"}


def test_what_lay_beyond_a_cut_off_end_says_nothing_of_what_takes_its_place(on_disk: Bench) -> None:
    """Pages of one file need not be of one age: a spoilt log may leave tables that know more than the chain holds."""
    store = on_disk.begun()
    done(store.commit([fact()] * 5, {}, pair(1)))
    store.close()
    store = on_disk.begun(2)
    old = store.epoch
    done(store.stop_clean(pair(3)))
    store.set_acked(8, 8)
    store.close()
    tamper(on_disk.path, "INSERT INTO gone VALUES (2, 4)")
    tamper(on_disk.path, "DELETE FROM event WHERE n > 3")
    killed(on_disk.open())
    store = on_disk.begun(10)
    for second in range(11, 20):
        done(store.commit([p1(second)], {}, pair(second)))
    assert store.place(Position(old, 1, "")).match is Match.UNKNOWN
    assert (store.gone, store.acked) == ([Span(2, 3)], 3)
    last = done(store.stop_clean(pair(21))).events[-1]
    assert store.place(last.position).match is Match.HELD
    store.close()
    assert on_disk.open().acked == 3, "also when the next run asks"


def test_a_store_that_can_be_read_and_not_written_is_moved_aside_for_the_next_run(on_disk: Bench) -> None:
    store = on_disk.begun()
    for number in range(200):
        done(store.commit([fact(n=number)], {}, pair(number)))
    done(store.stop_clean(pair(300)))
    index = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_event_1'"
    (page,) = store._db.execute(index).fetchone()
    store.close()
    data = bytearray(on_disk.path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    on_disk.path.write_bytes(data)
    store = on_disk.open()
    with pytest.raises(StoreBrokenError):
        store.begin_epoch(pair(400))
    killed(store)
    store = on_disk.open()
    assert len(damages(told(store.begin_epoch(pair(500))))) == 1
    assert on_disk.path.with_name("gw.db.damaged-1").exists()


def write_some(bench: Bench) -> EventStore:
    store = bench.begun(1)
    for number in range(40):
        text = "x" * 900
        done(
            store.commit([fact(text=text, n=number)], {"last": number, f"k{number % 7}": text}, pair(number))
        )
        store.set_acked(number // 2, number // 2)
    return store


def used(store: EventStore) -> tuple[list[bytes | None], str]:
    """All that is sent, None for what is said to be gone, and what is remembered."""
    reading = store.read(list(range(1, store.tail + 1)))
    sent = [reading.payloads.get(place) for place in range(1, store.tail + 1)]
    return sent, json.dumps(store.memory, sort_keys=True)


@pytest.mark.thorough
@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_whatever_happens_to_the_file_what_is_used_is_true_or_the_damage_is_said(
    tmp_path: Path, ended: str
) -> None:
    before = tmp_path / "before"
    store = write_some(Bench(tmp_path / "written" / "gw.db"))
    truth = used(store)
    if ended == "stopped":
        store.close()
    shutil.copytree(tmp_path / "written", before)
    said, wrong = 0, list[str]()
    for seed in range(SEEDS):
        for name, harm in HARM.items():
            bench = Bench(tmp_path / f"{name} {seed}" / "gw.db")
            shutil.copytree(before, bench.path.parent)
            harm(bench.path, random.Random(f"{seed} {name} {ended}"))
            store = bench.open()
            bodies = told(store.begin_epoch(pair(100)))
            sent, memory = used(store)
            is_said = bool(damages(bodies))
            was_kept = len(sent) - len(bodies)
            if not is_said:
                rows = [row == true or row is None for row, true in zip(sent, truth[0], strict=False)]
                if not all(rows) or was_kept < len(truth[0]) or memory != truth[1]:
                    wrong.append(f"{name} {seed} {ended}")
            said += is_said
            store.close()
    assert wrong == []
    assert said >= 2 * SEEDS, "most of it does harm"


def spoil_fact(path: Path, key: str, text: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, text))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("acked", "2q"),
        ("ever_acked", ""),
        ("first", "-"),
        ("swept", "z"),
        ("loss_taken", "1.0"),
        ("overflow", '[3, "2026"]'),
        ("overflow", "{"),
        ("end", "5"),
        ("acked_at", "null"),
    ],
)
def test_a_fact_that_lost_its_form_is_damage_and_no_reason_never_to_start_again(
    on_disk: Bench, key: str, text: str
) -> None:
    write_some(on_disk).close()
    spoil_fact(on_disk.path, key, text)
    with closing(on_disk.open()) as store:
        (damage,) = damages(told(store.begin_epoch(pair(100))))
        assert key in str(damage.detail["moved_aside"])
        assert store.commit([fact()], {"more": 1}, pair(101), loss(1, 100, 101)) is not None
        assert store.memory == {"more": 1}


def test_memory_that_lost_its_form_is_forgotten_and_said_once(on_disk: Bench) -> None:
    store = on_disk.begun()
    done(store.commit([fact()], {"good": {"a": 1}, "spoilt": [1]}, pair(1)))
    tail = store.tail
    store.close()
    with closing(sqlite3.connect(on_disk.path)) as database, database:
        database.execute("UPDATE memory SET value = '{1]' WHERE key = 'spoilt'")
    with closing(on_disk.open()) as store:
        assert store.memory == {"good": {"a": 1}}
        (damage,) = damages(told(store.begin_epoch(pair(100))))
        assert damage.detail == {"forgotten": ["spoilt"], "forgotten_count": 1}
        assert store.memory == {"good": {"a": 1}}
        assert len(store.read(list(range(1, tail + 1))).payloads) == tail, "no event is lost for it"
    with closing(on_disk.open()) as store:
        assert not damages(told(store.begin_epoch(pair(200))))


def test_a_beginning_beyond_what_was_ever_acked_hides_no_event(on_disk: Bench) -> None:
    """What is not acked is never pruned: a beginning that says so was spoilt, or its acks were lost with the end."""
    with closing(on_disk.begun()) as store:
        for n in range(5):
            done(store.commit([fact(n=n)], {}, pair(n)))
        store.set_acked(2, 2)
        tail = store.tail
    spoil_fact(on_disk.path, "first", "999")
    spoil_fact(on_disk.path, "swept", "998")
    with closing(on_disk.open()) as store:
        done(store.begin_epoch(pair(100)))
        unacked = list(range(store.acked + 1, store.tail + 1))
        assert store.tail > tail
        assert [*store.read(unacked).payloads] == unacked
        assert store.status().first is not None


def moved_in(path: Path) -> int:
    """Events that lie in the database itself, not in its log alone."""
    alone = path.with_name("alone.db")
    shutil.copyfile(path, alone)
    with closing(sqlite3.connect(alone)) as database:
        found: int = database.execute("SELECT count(*) FROM event").fetchone()[0]
    return found


def test_the_log_is_moved_into_the_database_when_no_event_waits_for_it(on_disk: Bench) -> None:
    with closing(on_disk.begun()) as store:
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = moved_in(on_disk.path)
        for number in range(200):
            done(store.commit([fact(number=number)], {}, pair(number)))
        assert moved_in(on_disk.path) == before, "no commit waited for it"
        store.set_acked(100, 100)
        assert moved_in(on_disk.path) > before


def test_the_log_stays_small_though_events_wait_all_the_time(on_disk: Bench) -> None:
    with closing(on_disk.begun()) as store:
        for number in range(1000):
            done(store.commit([fact(number=number)], {}, pair(number)))
        assert on_disk.path.with_name("gw.db-wal").stat().st_size < 16 * 1024 * 1024
        assert moved_in(on_disk.path) > 500
