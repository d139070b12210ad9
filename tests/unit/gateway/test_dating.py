"""Months that an agent ran without a clock are put right piece by piece, whatever happens meanwhile."""

from __future__ import annotations

from edge_agent.wire.event import ClockState, Event, Observation
from gateway.domain.book import AlarmBook
from gateway.domain.book_dating import DATED_AT_ONCE
from gateway.domain.instants import iso_utc
from gateway.domain.journal import EdgeEvent, Entry
from tests.scripted_agent import Store, note, ulid
from tests.unit.gateway.alerting_rig import START_MS, RowsInMemory, raised

FIRST, LAST = 10, 10 + 2 * DATED_AT_ONCE + 7
"""Journal positions of the first violation without a time, and of the event that brings it."""


class Tale:
    """Entries told to a book; each at a position and a journal time of the test's choice."""

    def __init__(self) -> None:
        self.book, self.rows = AlarmBook(), RowsInMemory()

    def tell(self, position: int, at_ms: int, event: Event) -> None:
        at = event.at if event.clock is ClockState.SYNCED else iso_utc(at_ms)
        self.book.stage(Entry(position, at_ms, EdgeEvent(event, at)), self.rows)
        self.book.adopt()

    def restart(self) -> None:
        snapshot = self.book.snapshot()
        self.book = AlarmBook()
        self.book.restore(snapshot)


def months_without_a_clock() -> tuple[Tale, Store]:
    tale, store = Tale(), Store(clock=ClockState.UNSYNCED)
    store.start(ulid(1))
    tale.tell(FIRST, START_MS, store.add(raised("old")))
    store.clock = ClockState.SYNCED
    tale.tell(LAST, START_MS + 1000, store.add(note()))
    return tale, store


def test_one_transaction_puts_right_one_piece() -> None:
    tale, store = months_without_a_clock()
    for position in (LAST + 1, LAST + 2):
        tale.tell(position, START_MS + 1000, store.add(Observation("test", {})))
    assert tale.rows.dated == [(FIRST, FIRST + DATED_AT_ONCE)]


def test_the_rest_follows_with_what_is_journaled_next_also_after_a_restart_and_from_another_boot() -> None:
    tale, store = months_without_a_clock()
    tale.restart()
    store.boot, store.clock = "boot-2", ClockState.UNSYNCED
    for step in range(1, 5):
        tale.tell(LAST + step, START_MS + 1000 + step, store.add(raised(f"new-{step}")))
    second, third = FIRST + DATED_AT_ONCE, FIRST + 2 * DATED_AT_ONCE
    assert tale.rows.dated == [(FIRST, second), (second, third), (third, LAST)]
