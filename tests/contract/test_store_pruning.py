"""Pruning: what was acked leaves the store by age and by size, and what is left is still a chain that verifies."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.adapters.signing import is_signed
from edge_agent.adapters.store_ages import READ_EVENTS_MAX, RunningTime
from edge_agent.adapters.store_file import IN_MEMORY
from edge_agent.adapters.store_pruning import CHECKPOINT_SHARE, KEEP_MS, PRUNE_ROWS_MAX
from edge_agent.adapters.store_reading import StoreUnreadableError, open_snapshot
from edge_agent.adapters.store_sqlite import CHECKPOINT_PERIOD_NS, EventStore
from edge_agent.domain.delivery import NOT_PLACED, Match, Span
from edge_agent.domain.units import NS_PER_S
from edge_agent.domain.verification import Verdict, verify_chain
from edge_agent.wire.codec import decode
from edge_agent.wire.event import Checkpoint, Event, Observation, Position
from edge_agent.wire.status import GoneRange
from tests.contract.test_store import KEY, RUN, Bench, done, fact, p1, pair, tamper
from tests.stored import read_entries

HOUR_S = CHECKPOINT_PERIOD_NS / NS_PER_S
WEEK_S = KEEP_MS / 1000
MIB = 1024 * 1024


@pytest.fixture(params=["memory", "file"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(IN_MEMORY if request.param == "memory" else tmp_path / "gw.db")


@pytest.fixture
def on_disk(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "gw.db")


def hourly(store: EventStore, hours: int, start_h: int = 0, *, events: int = 3, synced: bool = True) -> None:
    """So many hours of history: events, then the checkpoint of the hour."""
    for hour in range(start_h, start_h + hours):
        at = hour * HOUR_S
        done(store.commit([fact(at=at, n=n) for n in range(events)], {}, pair(at, synced=synced)))
    done(store.commit([], {}, pair((start_h + hours) * HOUR_S, synced=synced)))


def flood(store: EventStore, mib: float) -> None:
    """So much, in events of 4 kB, four to a commit."""
    for _ in range(round(mib * 64)):
        done(store.commit([fact(text="x" * 3900) for _ in range(4)], {}, pair(1)))


def ack_all(store: EventStore) -> None:
    store.set_acked(store.tail, store.tail)


def prune(store: EventStore, at: float = 0, *, acked: int | None = None, synced: bool = True) -> int:
    """Steps until there is nothing to do; the count of those that did something."""
    steps = 0
    while store.prune(store.tail if acked is None else acked, pair(at, synced=synced)).is_more:
        steps += 1
    return steps


def rows(store: EventStore) -> list[int]:
    return [n for (n,) in store._db.execute("SELECT n FROM event ORDER BY n")]


def used_bytes(store: EventStore) -> int:
    """What the file holds, as SQLite tells it."""
    pages, free, size = (
        store._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int(size * (pages - free))


def verdict(path: Path) -> Verdict:
    return verify_chain(read_entries(path), lambda message, mark: is_signed(KEY.public_key, message, mark))


def test_acked_events_older_than_seven_days_go_and_the_chain_begins_with_a_signed_checkpoint(
    on_disk: Bench,
) -> None:
    store = on_disk.begun()
    hourly(store, 10)
    ack_all(store)
    prune(store, WEEK_S + 5.5 * HOUR_S)
    first = store.status().first
    assert first is not None
    event = decode(store.read([store.first]).payloads[store.first])
    assert isinstance(event, Event)
    assert isinstance(event.body, Checkpoint)
    assert event.position == first
    assert event.mono_ms == 5 * HOUR_S * 1000, "the last checkpoint that is a week old"
    assert rows(store) == list(range(store.first, store.tail + 1))
    assert (verdict(on_disk.path).flaw, verdict(on_disk.path).entries) == (None, len(rows(store)))
    store.close()
    store = on_disk.open()
    assert store.first == rows(store)[0] > 1, "and so it is remembered"


def test_nothing_goes_before_its_time(bench: Bench) -> None:
    store = bench.begun()
    hourly(store, 10)
    ack_all(store)
    assert prune(store, WEEK_S + 0.99 * HOUR_S) == 0
    assert store.first == 1


def test_by_age_nothing_goes_while_anything_is_not_acked(bench: Bench) -> None:
    """A gateway that was away, or lost its journal, finds the replay window as it was."""
    store = bench.begun()
    hourly(store, 10)
    store.set_acked(store.tail - 1, store.tail - 1)
    assert prune(store, 2 * WEEK_S) == 0
    ack_all(store)
    assert prune(store, 2 * WEEK_S, acked=3) == 0, "the ack went back a moment ago"
    store.set_acked(3, store.tail)
    assert prune(store, 2 * WEEK_S, acked=3) == 0, "and was kept"
    ack_all(store)
    assert prune(store, 2 * WEEK_S) > 0


@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize("now", [False, True])
def test_a_wall_clock_that_is_set_makes_nothing_old(bench: Bench, then: bool, now: bool) -> None:
    """Ten days ahead for some seconds, the window was gone; then the gateway's disk was lost, and nothing could refill it."""
    store = bench.begun()
    hourly(store, 10, synced=then)
    ack_all(store)
    ahead = pair(10 * HOUR_S, utc_offset_s=50 * WEEK_S, synced=now)
    assert not store.prune(store.tail, ahead).is_more
    done(store.commit([fact(at=11 * HOUR_S)], {}, pair(11 * HOUR_S, utc_offset_s=50 * WEEK_S, synced=now)))
    ack_all(store)
    assert prune(store, 12 * HOUR_S, synced=now) == 0
    assert store.first == 1
    assert prune(store, 2 * WEEK_S, synced=now) > 0


def test_age_is_running_time_over_restarts_and_boots(on_disk: Bench) -> None:
    """Four days of one boot, a restart after a day in the same, then another boot whose clock begins at zero."""
    day_s = 24 * HOUR_S
    store = on_disk.begun()
    hourly(store, 96)
    oldest = store.tail
    store.stop_clean(pair(4 * day_s))
    store.close()
    store = on_disk.open()
    done(store.begin_epoch(pair(5 * day_s)))
    store.stop_clean(pair(5 * day_s))
    ack_all(store)
    assert prune(store, 5 * day_s) == 0
    store.close()
    store = on_disk.open(replace(RUN, boot="another"))
    done(store.begin_epoch(pair(10)))
    ack_all(store)
    assert prune(store, 1.9 * day_s) == 0, "five days and those"
    assert prune(store, 6.2 * day_s) > 0
    assert oldest <= store.first <= oldest + 2


@pytest.mark.parametrize("spoilt", ["x'30b0'", "'9999-12-31'", "'1970-01-01'"])
def test_what_stands_beside_the_events_makes_nothing_old_and_spoils_nothing(
    on_disk: Bench, spoilt: str
) -> None:
    """One fallen bit in the row of a checkpoint pruned the whole window, or had the whole store moved aside."""
    store = on_disk.begun()
    hourly(store, 10)
    store.close()
    tamper(on_disk.path, f"UPDATE cut SET at = CAST({spoilt} AS TEXT), synced = 2")
    store = on_disk.open()
    done(store.begin_epoch(pair(11 * HOUR_S)))
    ack_all(store)
    assert store.tail > 30, "the same store"
    assert prune(store, WEEK_S + 0.99 * HOUR_S) == 0
    assert prune(store, WEEK_S + 5.5 * HOUR_S) > 0


def test_the_ages_of_a_long_history_are_read_a_step_at_a_time(on_disk: Bench) -> None:
    store = on_disk.begun()
    hourly(store, 2 * READ_EVENTS_MAX + 10, events=1)
    ack_all(store)
    store.close()
    store = on_disk.open()
    now_s = WEEK_S + 2 * READ_EVENTS_MAX * HOUR_S
    assert [store.prune(store.tail, pair(now_s)).is_more for _ in range(3)] == [False, False, True]


def test_an_event_that_cannot_be_read_is_no_measure_of_age(on_disk: Bench) -> None:
    store = on_disk.begun()
    hourly(store, 10)
    ack_all(store)
    store.close()
    tamper(on_disk.path, "UPDATE event SET payload = x'00' WHERE n IN (SELECT n FROM cut ORDER BY n LIMIT 8)")
    store = on_disk.open()
    assert prune(store, WEEK_S + 8.5 * HOUR_S) == 0
    assert prune(store, WEEK_S + 9.5 * HOUR_S) > 0


def test_boots_that_end_in_power_cuts_count_to_their_last_event(on_disk: Bench) -> None:
    """Nothing was counted of a boot without two checkpoints: what came after the last one was not looked at."""
    count = round(1.1 * WEEK_S / HOUR_S)
    for number in range(count):
        store = on_disk.open(replace(RUN, boot=f"boot-{number}"))
        store._db.execute("PRAGMA synchronous=OFF")
        done(store.begin_epoch(pair(0)))
        if number % 10 == 0:
            done(store.commit([p1(at=60)], {}, pair(60)))
        done(store.commit([fact(at=0.98 * HOUR_S)], {}, pair(0.98 * HOUR_S)))
        if number < count - 1:
            store.close()
    ack_all(store)
    for _ in range(3 * count // READ_EVENTS_MAX + 1):
        prune(store, HOUR_S)
    assert store.first > 10


def test_running_time_adds_up_boots_and_never_runs_back() -> None:
    time = RunningTime()
    moments = [
        ("one", 50),
        ("one", 70),
        ("one", 60),
        ("one", 75),
        ("two", 5),
        ("two", 9),
        ("one", 500),
        ("one", 501),
    ]
    assert [time.reach(*moment) for moment in moments] == [0, 20, 20, 25, 25, 29, 29, 30]


def test_above_the_size_the_oldest_acked_events_go_and_the_file_stops_growing(on_disk: Bench) -> None:
    store = on_disk.open(size_max_mb=1)
    done(store.begin_epoch(pair(0)))
    for _ in range(6):
        flood(store, 0.5)
        ack_all(store)
        prune(store)
        assert used_bytes(store) <= MIB
    assert used_bytes(store) > MIB * (1 - 3 / CHECKPOINT_SHARE), "and no more than that"
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert on_disk.path.stat().st_size < 1.7 * MIB, "freed pages are used again"
    assert verdict(on_disk.path).flaw is None


def test_what_was_never_acked_stays_whatever_the_size(bench: Bench) -> None:
    store = bench.open(size_max_mb=1)
    done(store.begin_epoch(pair(0)))
    flood(store, 0.5)
    ack_all(store)
    acked = store.tail
    flood(store, 0.9)
    prune(store)
    assert 1 < store.first <= acked
    assert rows(store)[-1] == store.tail
    assert used_bytes(store) > MIB
    assert prune(store) == 0


def test_what_was_acked_once_stays_prunable_by_size_when_the_ack_goes_back(bench: Bench) -> None:
    store = bench.open(size_max_mb=1)
    done(store.begin_epoch(pair(0)))
    flood(store, 1.5)
    ack_all(store)
    store.set_acked(5, store.tail)
    prune(store, acked=5)
    assert store.first > 5
    assert used_bytes(store) <= MIB
    assert store.set_acked(5, store.tail) is None, "health cannot show what is no more"


def test_a_restart_forgets_neither_what_was_acked_once_nor_where_the_chain_begins(on_disk: Bench) -> None:
    store = on_disk.open(size_max_mb=1)
    done(store.begin_epoch(pair(0)))
    flood(store, 1.5)
    ack_all(store)
    store.set_acked(0, store.tail)
    store.close()
    store = on_disk.open(size_max_mb=1)
    store.set_acked(0, 0)
    assert store.status().outbox_pct == 0
    prune(store, acked=0)
    assert store.first > 1
    first = store.first
    store.close()
    store = on_disk.open(size_max_mb=1)
    assert store.first == first
    flood(store, 0.1)
    ack_all(store)
    flood(store, 0.1)
    assert store.status().outbox_pct > 5, "what was acked was counted off once"


def test_a_step_deletes_no_more_than_its_share_and_the_chain_is_whole_between_two(on_disk: Bench) -> None:
    store = on_disk.begun()
    hourly(store, 1, events=5 * PRUNE_ROWS_MAX)
    ack_all(store)
    before = len(rows(store))
    while store.prune(store.tail, pair(2 * WEEK_S)).is_more:
        assert before - len(rows(store)) <= PRUNE_ROWS_MAX
        before = len(rows(store))
        assert verdict(on_disk.path).flaw is None
    assert rows(store)[0] == store.first


def test_a_kill_between_two_steps_leaves_the_rest_to_the_next_run(on_disk: Bench) -> None:
    store = on_disk.begun()
    hourly(store, 1, events=3 * PRUNE_ROWS_MAX)
    ack_all(store)
    assert store.prune(store.tail, pair(2 * WEEK_S)).is_more
    store.close()
    store = on_disk.begun(2 * WEEK_S)
    assert rows(store)[0] < store.first
    prune(store, 2 * WEEK_S, acked=0)
    assert rows(store)[0] == store.first
    assert verdict(on_disk.path).flaw is None


def test_a_reader_beside_a_pruning_agent_sees_the_store_as_it_was_when_it_began(on_disk: Bench) -> None:
    """What is pruned or written under it is neither a removed entry nor another end."""
    store = on_disk.begun()
    hourly(store, 8, events=300)
    ack_all(store)
    tail = store.tail
    with open_snapshot(on_disk.path) as snapshot:
        entries = snapshot.entries()
        read = [next(entries)]
        prune(store, WEEK_S + 6 * HOUR_S)
        done(store.commit([fact()], {}, pair(9 * HOUR_S)))
        store._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert store.first > 1000, "far beyond the chunk that was read first"
        verdict = verify_chain(itertools.chain(read, entries), None)
        end = snapshot.end()
        assert snapshot.count() == tail
    assert (verdict.flaw, verdict.entries) == (None, tail)
    assert end is not None
    assert end.place == tail
    with open_snapshot(on_disk.path) as snapshot:
        assert len(list(snapshot.entries())) == snapshot.count() == len(rows(store))


def test_a_reader_gives_up_before_the_log_that_it_keeps_fills_the_disk(on_disk: Bench) -> None:
    store = on_disk.begun()
    flood(store, 3)
    with pytest.raises(StoreUnreadableError, match="its agent has written more than 1 MB meanwhile"):
        read_with_a_limit(store, on_disk.path)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert on_disk.path.with_name("gw.db-wal").stat().st_size == 0, "and lets go of it"


def read_with_a_limit(store: EventStore, path: Path) -> None:
    """Read while the agent writes more than this reader allows for."""
    with open_snapshot(path, log_max_bytes=MIB) as snapshot:
        entries = snapshot.entries()
        next(entries)
        flood(store, 3)
        list(entries)


def test_what_was_pruned_is_neither_placed_nor_read_nor_called_damaged(bench: Bench) -> None:
    store = bench.begun()
    hourly(store, 1, events=2 * PRUNE_ROWS_MAX)
    still_there = PRUNE_ROWS_MAX + 20
    old = store.set_acked(still_there, still_there)
    assert old is not None
    ack_all(store)
    assert store.prune(store.tail, pair(2 * WEEK_S)).is_more
    assert still_there in rows(store)
    assert store.place(old) == NOT_PLACED
    reading = store.read([store.first - 1, store.first])
    assert (list(reading.payloads), reading.damaged) == ([store.first], ())
    assert store.set_acked(still_there, store.tail) is None


def test_epochs_are_remembered_after_their_events_are_gone(on_disk: Bench) -> None:
    """So that positions of later epochs are still found, and those of the pruned are known to lie before."""
    store = on_disk.begun()
    former = store.epoch
    hourly(store, 2)
    store.close()
    store = on_disk.begun(3 * HOUR_S)
    hourly(store, 3, 3)
    ack_all(store)
    prune(store, 2 * WEEK_S)
    first = store.status().first
    assert first is not None
    assert first.epoch == store.epoch
    placed = store.place(first)
    assert (placed.match, placed.n) == (Match.HELD, store.first)
    assert store.place(Position(former, 1, "0" * 64)) == NOT_PLACED


def test_damage_that_was_pruned_is_forgotten_and_verifies_again(on_disk: Bench) -> None:
    store = on_disk.begun()
    hourly(store, 4)
    tamper(on_disk.path, "UPDATE event SET payload = CAST('x' AS BLOB) WHERE n IN (3, ?)", store.tail - 1)
    assert store.read(list(range(1, store.tail + 1))).damaged == (
        Span(3, 3),
        Span(store.tail - 1, store.tail - 1),
    )
    ack_all(store)
    prune(store, WEEK_S + 2 * HOUR_S)
    seq = store.tail - 1
    assert store.first > 3
    assert store.status().gone == (GoneRange(store.epoch, seq, seq),)


def test_a_checkpoint_that_cannot_be_read_begins_no_chain(bench: Bench) -> None:
    store = bench.begun()
    hourly(store, 3)
    ack_all(store)
    (damaged,) = store._db.execute("SELECT max(n) FROM cut WHERE n < ?", (store.tail,)).fetchone()
    store._db.execute("UPDATE event SET payload = CAST('x' AS BLOB) WHERE n = ?", (damaged,))
    prune(store, WEEK_S + 2 * HOUR_S)
    assert 1 < store.first < damaged


def test_health_never_shows_a_damaged_event_as_the_first(bench: Bench) -> None:
    """A gateway would wait for it for ever."""
    store = bench.begun()
    done(store.commit([fact(), fact()], {}, pair(1)))
    store._db.execute("UPDATE event SET payload = CAST('x' AS BLOB) WHERE n IN (1, 2)")
    store.read([1, 2, 3])
    first = store.status().first
    assert first is not None
    assert first.seq == 3


TABLE_LEAF, INDEX_LEAF = 13, 10


def spoil_page(path: Path, kind: int, mark: bytes) -> None:
    """Overwrite the first page of this kind that says `mark`, an index of events as many times as there are."""
    data = path.read_bytes()
    size = int.from_bytes(data[16:18], "big")
    starts = range(0, len(data), size)
    start = next(at for at in starts if data[at] == kind and data[at : at + size].count(mark) >= 14 - kind)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * size)


def flip_bit(path: Path, offset: int, bit: int) -> None:
    """One bit of a file falls over."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize(
    ("kind", "mark"),
    [(TABLE_LEAF, b'"kind":"agent_started"'), (TABLE_LEAF, b'"n":150'), (INDEX_LEAF, b"")],
    ids=["the first rows", "rows in the midst", "an index"],
)
def test_pages_that_cannot_be_read_are_gone_around(on_disk: Bench, kind: int, mark: bytes) -> None:
    store = on_disk.begun()
    hourly(store, 3, events=400)
    ack_all(store)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before, epoch = used_bytes(store), store.epoch
    store.close()
    spoil_page(on_disk.path, kind, mark or epoch.encode())
    store = on_disk.begun(3 * HOUR_S)
    hourly(store, 2, 3)
    ack_all(store)
    prune(store, WEEK_S + 4.5 * HOUR_S)
    first = store.first
    assert first > 1200
    assert used_bytes(store) < before / 3, "all the others are gone"
    assert verdict(on_disk.path).flaw is None
    store.close()
    store = on_disk.begun(6 * HOUR_S)
    ack_all(store)
    assert prune(store, WEEK_S + 4.5 * HOUR_S) == 0, "they are not tried again"
    hourly(store, 2, 7)
    ack_all(store)
    prune(store, 2 * WEEK_S)
    assert store.first > first, "and it goes on"
    assert verdict(on_disk.path).flaw is None


@pytest.mark.parametrize("offset", range(8, 96, 8))
def test_a_bit_that_fell_over_among_the_checkpoints_does_not_end_pruning(on_disk: Bench, offset: int) -> None:
    """Rows of `cut` that could not be deleted kept `first` where it was, for ever, by age and by size."""
    store = on_disk.begun()
    hourly(store, 60)
    ack_all(store)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page,) = store._db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'cut'").fetchone()
    (size,) = store._db.execute("PRAGMA page_size").fetchone()
    store.close()
    flip_bit(on_disk.path, (page - 1) * size + offset, 7)
    store = on_disk.open()
    begun = done(store.begin_epoch(pair(61 * HOUR_S))).events
    if any(isinstance(event.body, Observation) for event in begun):
        return  # found at the start, and said: `store_damaged`
    hourly(store, 3, 61)
    ack_all(store)
    prune(store, WEEK_S + 63.5 * HOUR_S)
    assert store.first > 180


@pytest.mark.parametrize("why", ["age", "size"])
def test_no_chain_begins_where_no_checkpoint_is_whatever_is_said_beside_the_events(
    on_disk: Bench, why: str
) -> None:
    store = on_disk.begun()
    hourly(store, 10)
    ack_all(store)
    store.close()
    tamper(on_disk.path, "UPDATE cut SET n = n - 2 WHERE n > 8")
    store = on_disk.open()
    store._pruner._size_max_bytes = 1 if why == "size" else 1 << 30
    prune(store, 2 * WEEK_S if why == "age" else 0)
    assert store.first == 8, "the only one that is a checkpoint"
    assert verdict(on_disk.path).flaw is None


@pytest.mark.parametrize("swept", ["35", "9" * 25])
def test_a_spoilt_note_of_how_far_was_swept_holds_nothing_up(on_disk: Bench, swept: str) -> None:
    store = on_disk.begun()
    hourly(store, 10)
    ack_all(store)
    store.close()
    tamper(on_disk.path, "INSERT OR REPLACE INTO fact VALUES ('swept', ?)", swept)
    store = on_disk.open()
    assert prune(store, 2 * WEEK_S) > 0
    assert rows(store)[0] == store.first > 30


def test_a_flood_brings_checkpoints_so_that_size_never_takes_the_whole_window(bench: Bench) -> None:
    store = bench.open(size_max_mb=1)
    done(store.begin_epoch(pair(0)))
    flood(store, 0.9)
    (cuts,) = store._db.execute("SELECT count(*) FROM cut").fetchone()
    assert cuts >= CHECKPOINT_SHARE * 0.6


def test_a_store_of_the_version_before_is_taken_up_and_pruned_from_its_next_checkpoint_on(
    on_disk: Bench,
) -> None:
    store = on_disk.begun()
    hourly(store, 3)
    tail = store.tail
    store.close()
    tamper(on_disk.path, "DROP TABLE cut")
    tamper(on_disk.path, "PRAGMA user_version = 1")
    store = on_disk.begun(3 * HOUR_S)
    hourly(store, 2, 4)
    ack_all(store)
    prune(store, 2 * WEEK_S)
    assert store.first > tail
    assert verdict(on_disk.path).flaw is None
