"""When an event happened, by a clock that can be believed."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.wire.event import ClockState
from gateway.domain.occurred import Anchor, anchor_of, occurred_at
from tests.scripted_agent import Store, note, ulid

RECEIVED = "2026-11-22T12:00:00.000Z"


def store(clock: ClockState) -> Store:
    made = Store(clock=clock)
    made.start(ulid(1))
    return made


def test_a_synchronised_clock_is_believed() -> None:
    event = store(ClockState.SYNCED).add(note())
    assert occurred_at(event, Anchor("2020-01-01T00:00:00Z", 0), RECEIVED) == event.at


def test_an_unsynchronised_one_is_rebuilt_from_a_synchronised_event_of_the_same_boot() -> None:
    event = store(ClockState.UNSYNCED).add(note())  # 2000 ms after boot
    assert occurred_at(event, Anchor("2026-11-22T08:00:05Z", 5000), RECEIVED) == "2026-11-22T08:00:02.000000Z"
    assert occurred_at(event, Anchor("2026-11-22T08:00:01Z", 1000), RECEIVED) == "2026-11-22T08:00:02.000000Z"


def test_without_such_an_event_it_is_the_time_of_receipt() -> None:
    assert occurred_at(store(ClockState.UNSYNCED).add(note()), None, RECEIVED) == RECEIVED


def test_a_time_beyond_the_calendar_is_the_time_of_receipt() -> None:
    event = store(ClockState.UNSYNCED).add(note())
    assert occurred_at(event, Anchor("9999-12-31T23:59:59Z", 0), RECEIVED) == RECEIVED


def test_only_synchronised_events_are_anchors() -> None:
    synced = store(ClockState.SYNCED).events[0]
    assert anchor_of(synced) == Anchor(synced.at, 1000)
    assert anchor_of(store(ClockState.UNSYNCED).events[0]) is None


def test_where_at_stands_still_because_a_clock_was_far_ahead_the_clock_of_now_is_believed() -> None:
    event = replace(
        store(ClockState.UNSYNCED).add(note()), at="2036-11-22T08:00:00Z", wall="2026-11-22T08:00:02Z"
    )
    assert occurred_at(event, Anchor("2036-11-22T08:00:00Z", 0), RECEIVED) == event.wall
    assert anchor_of(event) == Anchor("2026-11-22T08:00:02Z", event.mono_ms)
