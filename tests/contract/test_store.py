"""The store against its promises: one transaction, one chain, one owner; damage is found, named and never sent.

The cases that need no file run on a store in memory and on a file alike.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import SigningKey, is_signed
from edge_agent.adapters.store_file import IN_MEMORY, StoreRefusedError
from edge_agent.adapters.store_reading import open_snapshot
from edge_agent.adapters.store_sqlite import CHECKPOINT_PERIOD_NS, EventStore
from edge_agent.domain.delivery import Match, Span
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import NS_PER_MS, NS_PER_S, MonoNs, UtcNs
from edge_agent.domain.verification import verify_chain
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Committed, Loss, StoreBrokenError, StoreFull
from edge_agent.wire.chain import checkpoint_message, seed_hash
from edge_agent.wire.codec import PAYLOAD_MAX_BYTES, decode
from edge_agent.wire.event import (
    AgentStarted,
    Basis,
    Checkpoint,
    ClockState,
    Event,
    Json,
    Observation,
    OutboxOverflow,
    Position,
    Priority,
    ViolationRaised,
)
from edge_agent.wire.status import GoneRange, Health, Predecessor, encode_status
from tests.stored import read_entries

UTC = UtcNs(1_790_000_000 * NS_PER_S)
KEY = SigningKey.generate()
RUN = Run("site", "gw", "boot-1", "1.0", "c" * 64)


def pair(seconds: float, *, utc_offset_s: float = 0, synced: bool = True) -> WallPair:
    mono = MonoNs(round(seconds * NS_PER_S))
    return WallPair(mono, UtcNs(UTC + mono + round(utc_offset_s * NS_PER_S)), synced)


def ns(seconds: float) -> MonoNs:
    return MonoNs(round(seconds * NS_PER_S))


def fact(what: str = "test", at: float = 0, **detail: Json) -> Draft:
    return Draft(MonoNs(round(at * NS_PER_S)), Observation(what, detail))


def p1(at: float = 0) -> Draft:
    body = ViolationRaised(
        "mixer",
        "door",
        None,
        "guard_open_motion",
        Priority.P1,
        Basis.PROVEN,
        "o-1",
        "2026-01-01T00:00:00Z",
        None,
        {},
    )
    return Draft(MonoNs(round(at * NS_PER_S)), body)


def done(outcome: Committed | StoreFull) -> Committed:
    assert isinstance(outcome, Committed)
    return outcome


@dataclass
class Bench:
    """Opens stores of one file, with a deterministic draw for epochs."""

    path: Path
    draws: Iterator[int] = field(default_factory=itertools.count)

    def open(self, run: Run = RUN, *, size_max_mb: int = 16) -> EventStore:
        def draw(count: int) -> bytes:
            return next(self.draws).to_bytes(count, "big")

        return EventStore(self.path, run, size_max_mb=size_max_mb, sign=KEY.sign, draw=draw)

    def begun(self, at: float = 0, run: Run = RUN) -> EventStore:
        store = self.open(run)
        done(store.begin_epoch(pair(at)))
        return store


@pytest.fixture(params=["memory", "file"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(IN_MEMORY if request.param == "memory" else tmp_path / "gw.db")


@pytest.fixture
def on_disk(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "gw.db")


def test_a_new_store_begins_with_agent_started_after_nothing(bench: Bench) -> None:
    store = bench.open()
    (started,) = done(store.begin_epoch(pair(5))).events
    assert started.seq == 1
    assert started.body == AgentStarted(None, "1.0", "c" * 64, clean_stop=True)
    assert started.prev == seed_hash("site", "gw", started.epoch)
    assert len(started.epoch) == 26


def test_a_commit_mints_a_chain_without_holes(bench: Bench) -> None:
    store = bench.begun()
    first = done(store.commit([fact(), fact()], {}, pair(1)))
    second = done(store.commit([fact()], {}, pair(2)))
    assert (first.first, first.tail, second.first) == (2, 3, 4)
    events = [*first.events, *second.events]
    assert [event.seq for event in events] == [2, 3, 4]
    assert [event.prev for event in events[1:]] == [event.hash for event in events[:-1]]


def test_labels_an_event_by_its_own_time_and_says_whether_the_clock_was_synced(bench: Bench) -> None:
    store = bench.begun()
    (event,) = done(store.commit([fact(at=7.25)], {}, pair(9, synced=False))).events
    assert event.mono_ms == 7250
    assert event.at == "2026-09-21T14:13:27.250000Z"
    assert event.clock is ClockState.UNSYNCED


def test_at_never_goes_below_the_highest_in_the_store(on_disk: Bench) -> None:
    """A wall clock set back makes no record that runs backwards, not even over a restart."""
    store = on_disk.begun()
    (ahead,) = done(store.commit([fact(at=10)], {}, pair(10, utc_offset_s=3600))).events
    (back,) = done(store.commit([fact(at=11)], {}, pair(11))).events
    assert back.at == ahead.at
    store.close()
    (restarted,) = done(on_disk.open().begin_epoch(pair(12))).events
    assert restarted.at == ahead.at


def test_a_clock_that_was_far_ahead_leaves_events_in_order_and_says_what_it_says_now(on_disk: Bench) -> None:
    """The label stands for ten years, so it is no synchronised one; the clock's own word stands beside it."""
    ten_years_s = 10 * 365 * 86_400
    store = on_disk.begun()
    (ahead,) = done(store.commit([fact(at=10)], {}, pair(10, utc_offset_s=ten_years_s))).events
    assert (ahead.clock, ahead.wall) == (ClockState.SYNCED, None)
    (back,) = done(store.commit([fact(at=11)], {}, pair(11))).events
    assert (back.at, back.clock, back.wall) == (ahead.at, ClockState.UNSYNCED, "2026-09-21T14:13:31.000000Z")
    assert decode(back.payload) == back
    (unset,) = done(store.commit([fact(at=12)], {}, pair(12, synced=False))).events
    assert (unset.at, unset.clock, unset.wall) == (ahead.at, ClockState.UNSYNCED, None)
    (again,) = done(store.commit([fact(at=13)], {}, pair(13, utc_offset_s=ten_years_s))).events
    assert (again.at > ahead.at, again.clock, again.wall) == (True, ClockState.SYNCED, None)


def test_two_events_out_of_order_by_a_moment_are_synchronised_still(bench: Bench) -> None:
    store = bench.begun()
    later, earlier = done(store.commit([fact(at=10), fact(at=9.5)], {}, pair(10))).events
    assert (earlier.at, earlier.clock, earlier.wall) == (later.at, ClockState.SYNCED, None)


@pytest.mark.parametrize("utc_s", [-5, 0, 2**31, 253_402_300_799, 300_000_000_000])
def test_any_wall_clock_can_be_written_down(bench: Bench, utc_s: int) -> None:
    """Before 1970, 1970, the end of 32 bits, the last second of 9999 and long after it."""
    store = bench.begun()
    stamped = done(store.commit([fact(at=5)], {}, WallPair(ns(5), UtcNs(utc_s * NS_PER_S), True))).events
    assert [decode(event.payload) for event in stamped] == list(stamped)
    later = done(store.commit([fact(at=6)], {}, WallPair(ns(6), UtcNs(utc_s * NS_PER_S), True))).events
    assert stamped[-1].at <= later[0].at <= "9999-12-31T23:59:59.999999Z"


def test_a_p1_is_signed_in_its_own_commit(bench: Bench) -> None:
    raised, checkpoint = done(bench.begun().commit([p1()], {}, pair(1))).events
    assert isinstance(checkpoint.body, Checkpoint)
    assert (checkpoint.body.upto, checkpoint.body.upto_hash) == (raised.seq, raised.hash)
    message = checkpoint_message("site", "gw", raised.epoch, raised.seq, raised.hash)
    assert is_signed(KEY.public_key, message, checkpoint.body.signature)
    assert not is_signed(SigningKey.generate().public_key, message, checkpoint.body.signature)


def test_an_hour_without_a_checkpoint_brings_one_also_when_nothing_happens(bench: Bench) -> None:
    store = bench.begun()
    hour_s = CHECKPOINT_PERIOD_NS / NS_PER_S
    assert done(store.commit([], {}, pair(hour_s - 1))).events == ()
    (checkpoint,) = done(store.commit([], {}, pair(hour_s))).events
    assert isinstance(checkpoint.body, Checkpoint)
    assert done(store.commit([], {}, pair(hour_s + 1))).events == ()


def test_a_clean_stop_is_signed_and_told_by_the_next_run(on_disk: Bench) -> None:
    for is_clean in (True, False, True):
        store = on_disk.begun(1)
        if is_clean:
            (last,) = done(store.stop_clean(pair(2))).events
            assert isinstance(last.body, Checkpoint)
        store.close()
        store = on_disk.open()
        (started,) = done(store.begin_epoch(pair(3))).events
        store.close()
        assert isinstance(started.body, AgentStarted)
        assert started.body.clean_stop is is_clean


def test_each_run_is_an_epoch_that_names_the_event_before_it(on_disk: Bench) -> None:
    store = on_disk.begun()
    (last,) = done(store.commit([fact()], {}, pair(1))).events
    store.close()
    store = on_disk.open()
    (started,) = done(store.begin_epoch(pair(2))).events
    assert isinstance(started.body, AgentStarted)
    assert (started.body.after, started.prev, started.seq) == (last.position, last.hash, 1)
    assert started.epoch != last.epoch


def test_memory_commits_with_its_events_and_survives(on_disk: Bench) -> None:
    store = on_disk.begun()
    store.commit([fact()], {"a": {"x": [1, None, "门"]}, "b": 2}, pair(1))
    store.commit([], {"b": None}, pair(2))
    store.close()
    assert on_disk.open().memory == {"a": {"x": [1, None, "门"]}}


def test_a_commit_that_cannot_be_sealed_changes_nothing(bench: Bench) -> None:
    store = bench.begun()
    too_large = fact(text="x" * 60_000)
    with pytest.raises(ValueError, match="exceeds"):
        store.commit([fact(), too_large], {"a": 1}, pair(1))
    assert (store.tail, store.memory) == (1, {})
    assert [event.seq for event in done(store.commit([fact()], {}, pair(2))).events] == [2]


def test_belongs_to_one_site_and_agent(on_disk: Bench) -> None:
    on_disk.begun().close()
    other = Run("site", "gw-2", "b", "1.0", "c")
    with pytest.raises(
        StoreRefusedError, match=r"belongs to site/gw, not site/gw-2 — drain it first, or name"
    ):
        on_disk.open(other)
    on_disk.open().close()


def test_keeps_a_second_agent_out(on_disk: Bench) -> None:
    store = on_disk.begun()
    with pytest.raises(StoreRefusedError, match="another agent has this store open"):
        on_disk.open()
    store.close()
    on_disk.open().close()


def test_is_durable_by_its_own_word(on_disk: Bench) -> None:
    store = on_disk.begun()
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_places_positions_in_its_chain(bench: Bench) -> None:
    store = bench.begun()
    one, two = done(store.commit([fact(), fact()], {}, pair(1))).events
    other = Position(two.epoch, two.seq, "0" * 64)
    placed = [store.place(position) for position in (one.position, two.position, other)]
    assert [(found.match, found.n) for found in placed] == [
        (Match.HELD, 2),
        (Match.HELD, 3),
        (Match.OTHER_HASH, 3),
    ]
    for seq in (4, 10**30):
        beyond = store.place(Position(two.epoch, seq, two.hash))
        assert (beyond.match, beyond.n) == (Match.BEYOND, 3)
    for unknown in (Position("01OTHER000", 1, one.hash), Position(one.epoch, 0, one.hash)):
        assert store.place(unknown).match is Match.UNKNOWN


def test_places_what_lies_beyond_a_former_epoch_at_its_end(on_disk: Bench) -> None:
    store = on_disk.begun()
    (event,) = done(store.commit([fact()], {}, pair(1))).events
    store.close()
    store = on_disk.begun(2)
    placed = store.place(Position(event.epoch, 9, event.hash))
    assert (placed.match, placed.n) == (Match.BEYOND, 2)


def test_reads_back_the_very_bytes(bench: Bench) -> None:
    store = bench.begun()
    events = done(store.commit([fact(text="门"), fact()], {}, pair(1))).events
    assert store.read([2, 3]).payloads == {2: events[0].payload, 3: events[1].payload}


def test_remembers_how_far_the_receiver_got(on_disk: Bench) -> None:
    store = on_disk.begun()
    (event,) = done(store.commit([fact()], {}, pair(1))).events
    assert store.set_acked(2, 2) == event.position
    assert store.set_acked(0, 2) is None
    store.close()
    assert on_disk.open().acked == 0


def tamper(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement, values)


def test_a_row_that_does_not_hash_is_gone_and_the_rest_is_read(on_disk: Bench) -> None:
    store = on_disk.begun()
    events = done(store.commit([fact(n=n) for n in range(4)], {}, pair(1))).events
    tamper(
        on_disk.path, "UPDATE event SET payload = CAST(replace(payload, 'test', 'tset') AS BLOB) WHERE n = 3"
    )
    reading = store.read([2, 3, 4, 5])
    assert sorted(reading.payloads) == [2, 4, 5]
    assert reading.damaged == (Span(3, 3),)
    epoch = events[0].epoch
    assert store.status().gone == (GoneRange(epoch, 3, 3),)
    store.close()
    assert on_disk.open().gone == [Span(3, 3)]


def test_a_gone_span_over_two_epochs_is_told_in_each(on_disk: Bench) -> None:
    store = on_disk.begun()
    first = done(store.commit([fact()], {}, pair(1))).events[0].epoch
    store.close()
    store = on_disk.begun(2)
    tamper(on_disk.path, "DELETE FROM event WHERE n IN (2, 3)")
    assert store.read([1, 2, 3]).damaged == (Span(2, 3),)
    assert store.status().gone == (
        GoneRange(first, 2, 2),
        GoneRange(store.epoch, 1, 1, after=Predecessor(first, 2)),
    )


def test_a_health_names_what_is_gone_within_a_payload_however_much_it_is(on_disk: Bench) -> None:
    """A receiver refuses what is too large, and would never hear of any of it."""
    store = on_disk.begun()
    for n in range(20):
        done(store.commit([fact(n=n)] * 100, {}, pair(n)))
    tamper(on_disk.path, "UPDATE event SET payload = zeroblob(99) WHERE n % 3 = 0")
    met, acked = list[int](), 0
    while acked < store.tail:
        store.read(list(range(acked + 1, min(acked + 400, store.tail) + 1)))
        gone = store.status().gone
        health = Health(online=True, epoch=store.epoch, boot="b", first=store.status().first, gone=gone)
        assert len(encode_status(health)) < PAYLOAD_MAX_BYTES
        assert gone[0].from_seq == acked // 3 * 3 + 3
        next_gone = [item.from_seq for item in gone if item.from_seq > acked]
        met += next_gone
        acked = min(next_gone[-1] + 1, store.tail)
        store.set_acked(acked, acked)
    assert met == list(range(3, store.tail + 1, 3))


def test_health_shows_what_was_acked_also_when_its_row_cannot_be_read_any_more(on_disk: Bench) -> None:
    """A gateway that lost its journal must learn that it owes an answer: nothing else would make it ask."""
    store = on_disk.begun()
    acked = done(store.commit([fact(), fact()], {}, pair(1))).events[0].position
    assert store.set_acked(2, 2) == acked
    tamper(on_disk.path, "DELETE FROM event WHERE n = 2")
    assert store.set_acked(2, 2) == acked
    store.close()
    store = on_disk.begun(2)
    assert store.set_acked(2, 2) == acked
    assert store.set_acked(0, 2) is None


def test_a_store_whose_end_was_cut_off_takes_nothing_as_acked_that_is_stored_in_its_place(
    on_disk: Bench,
) -> None:
    store = on_disk.begun()
    store.commit([fact()] * 5, {}, pair(1))
    store.set_acked(6, 6)
    store.close()
    tamper(on_disk.path, "DELETE FROM event WHERE n > 2")
    store = on_disk.open()
    begun = done(store.begin_epoch(pair(2)))
    assert (store.acked, begun.first) == (2, 3)


def overwrite_pages(path: Path) -> None:
    """Fill the middle of the file with noise, as a dying flash does."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size // 4))


def test_spoilt_pages_cost_only_what_lies_on_them(on_disk: Bench) -> None:
    store = on_disk.begun()
    for n in range(200):
        store.commit([fact(text="x" * 1000, n=n)], {}, pair(n))
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    overwrite_pages(on_disk.path)
    store = on_disk.open()
    reading = store.read(list(range(1, 202)))
    assert 20 < len(reading.payloads) < 200
    assert sum(span.last - span.first + 1 for span in reading.damaged) == 201 - len(reading.payloads)


def test_a_file_that_is_no_database_is_moved_aside_and_said(on_disk: Bench) -> None:
    on_disk.path.write_bytes(os.urandom(40_000))
    store = on_disk.open()
    started, damaged = done(store.begin_epoch(pair(1))).events
    assert isinstance(started.body, AgentStarted)
    assert started.body.after is None
    assert isinstance(damaged.body, Observation)
    assert damaged.body.what == "store_damaged"
    assert "gw.db.damaged-1" in str(damaged.body.detail["moved_aside"])
    assert on_disk.path.with_name("gw.db.damaged-1").stat().st_size == 40_000


def test_a_store_of_a_younger_version_is_refused(on_disk: Bench) -> None:
    on_disk.begun().close()
    tamper(on_disk.path, "PRAGMA user_version = 99")
    with pytest.raises(StoreRefusedError, match="younger version"):
        on_disk.open()


def test_what_does_not_fit_is_counted_and_told_when_there_is_room_again(on_disk: Bench) -> None:
    store = on_disk.begun()
    while store.status().outbox_pct < 100:
        done(store.commit([fact(text="x" * 40_000) for _ in range(20)], {}, pair(1)))
    tail = store.tail
    full = done(store.commit([fact(at=5), fact(at=6)], {"open": 1}, pair(7)))
    assert (full.events, store.tail) == ((), tail)
    assert store.memory == {"open": 1}, "memory goes on: the next state report heals the rest"
    store.close()
    store = on_disk.open()
    assert done(store.begin_epoch(pair(8))).events, "a new run still gets its first event"
    store.commit([fact(at=9)], {}, pair(9))
    store.set_acked(tail, tail)
    overflow, _ = done(store.commit([fact(at=10)], {}, pair(10))).events
    assert overflow.body == OutboxOverflow(3, "2026-09-21T14:13:25.000000Z", "2026-09-21T14:13:29.000000Z")
    assert len(done(store.commit([fact()], {}, pair(11))).events) == 1, "told once"


def test_only_never_acked_events_fill_the_outbox(bench: Bench) -> None:
    store = bench.begun()
    done(store.commit([fact(text="x" * 40_000) for _ in range(100)], {}, pair(1)))
    filled = store.status().outbox_pct
    assert 20 < filled < 40
    store.set_acked(store.tail, store.tail)
    assert store.status().outbox_pct == 0
    store.set_acked(0, store.tail)
    assert store.status().outbox_pct == 0, "what was acked once is the gateway's to ask for"


def test_a_loss_before_the_store_is_told_too(bench: Bench) -> None:
    store = bench.begun()
    loss = Loss(7, MonoNs(2 * NS_PER_S), MonoNs(3 * NS_PER_S))
    overflow, _ = done(store.commit([fact()], {}, pair(4), loss)).events
    assert isinstance(overflow.body, OutboxOverflow)
    assert overflow.body.dropped == 7


def limit_pages(store: EventStore, pages: int) -> None:
    """A disk with room for this many pages: SQLite answers as it does when the file system says ENOSPC."""
    store._db.execute(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_is_an_outcome_and_heals(on_disk: Bench) -> None:
    store = on_disk.begun()
    ballast = on_disk.path.with_name("gw.db.reserve")
    assert ballast.stat().st_size == 256 * 1024
    limit_pages(store, 100)
    outcome: Committed | StoreFull = done(store.commit([fact()], {}, pair(1)))
    while isinstance(outcome, Committed):
        outcome = store.commit([fact(text="x" * 40_000)], {"last": store.tail}, pair(2))
    tail = store.tail
    assert not ballast.exists(), "the ballast was given up"
    assert len(store.read(list(range(1, tail + 1))).payloads) == tail, "what was committed is all there"
    assert store.memory["last"] == tail - 1, "and nothing of what was refused"
    limit_pages(store, 1_000_000)
    assert done(store.commit([fact(text="y" * 40_000)], {}, pair(4))).tail == tail + 1
    store.set_acked(1, 1)
    assert ballast.exists(), "and is taken again when there is room"


def test_any_other_failure_of_storage_ends_the_process(on_disk: Bench) -> None:
    """Unknown what is on disk: nothing may be tried again on this connection."""
    store = on_disk.begun()
    store._db.execute("PRAGMA query_only=1")
    with pytest.raises(StoreBrokenError):
        store.commit([fact()], {}, pair(1))


KILLED = """
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from tests.contract.test_store import Bench, fact, pair, done
store = Bench(Path(sys.argv[1])).begun(1)
for n in range(10_000):
    done(store.commit([fact(n=n)], {"last": n}, pair(n)))
    print(n, flush=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize("commits", [1, 37, 150])
def test_what_was_committed_survives_a_kill(on_disk: Bench, commits: int) -> None:
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(on_disk.path), root], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(commits)]
        child.kill()
        told += [int(line) for line in child.stdout.read().split()]
    store = on_disk.open()
    assert store.tail >= 1 + len(told)
    assert store.memory["last"] == store.tail - 2, "memory and events are of one commit"
    done(store.begin_epoch(pair(99_999)))
    store.close()
    verdict = verify_chain(read_entries(on_disk.path), None)
    assert verdict.flaw is None
    with open_snapshot(on_disk.path) as snapshot:
        end = snapshot.end()
    assert end is not None
    assert verdict.last is not None
    assert (end.place, end.hash) == (verdict.entries, verdict.last.hash)


def test_epochs_are_ulids_of_time_and_chance(on_disk: Bench) -> None:
    first = on_disk.begun()
    one = first.epoch
    first.close()
    two = on_disk.begun().epoch
    assert one[:10] == two[:10], "the same millisecond"
    assert one != two
    assert set(one + two) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def test_mono_ms_is_whole_milliseconds(bench: Bench) -> None:
    draft = Draft(MonoNs(1_999_999), Observation("x"))
    (event,) = done(bench.begun().commit([draft], {}, WallPair(MonoNs(2 * NS_PER_MS), UTC, True))).events
    assert isinstance(event, Event)
    assert event.mono_ms == 1
