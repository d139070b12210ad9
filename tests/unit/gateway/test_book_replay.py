"""The alarm book is a function of the journal: however it was staged, split, failed, restarted."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.wire.event import Json, Priority
from gateway.domain.book import AlarmBook
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    ClockStepped,
    Entry,
    EntryBody,
    FindingCleared,
    FindingRaised,
    GatewayRule,
    ReconciledClear,
    TimerFired,
)
from gateway.domain.teller import Teller
from tests.unit.gateway.alerting_rig import (
    AGENT,
    EVERYTHING_TO_LI,
    SITE,
    START_MS,
    VOICE,
    RowsInMemory,
    acknowledge,
    changed,
    cleared,
    event,
    listed,
    mixer_modelled,
    raised,
)

pytestmark = pytest.mark.thorough

names = st.sampled_from(["A", "B", "C"])
maybe_names = st.none() | names
priorities = st.sampled_from(list(Priority))
rules = st.sampled_from(["guard_open_motion", "estop"])

bodies: st.SearchStrategy[EntryBody] = st.one_of(
    st.builds(
        lambda o, r, p, h: event(raised(o, rule=r, priority=p, hidden_by=h)),
        names,
        rules,
        priorities,
        maybe_names,
    ),
    st.builds(lambda o, p, h: event(changed(o, priority=p, hidden_by=h)), names, priorities, maybe_names),
    st.builds(lambda o: event(cleared(o)), names),
    st.builds(
        lambda o, here, c: listed(o, here=f"{o}.2" if here else o, continues=c),
        names,
        st.booleans(),
        maybe_names,
    ),
    st.builds(lambda o, c: ReconciledClear(SITE, AGENT, o, iso_utc(START_MS), c), names, maybe_names),
    st.builds(
        lambda n: FindingRaised(
            f"gateway-{n}", GatewayRule.STREAM_GAP, Priority.P2, SITE, AGENT, iso_utc(START_MS)
        ),
        st.integers(1, 2),
    ),
    st.builds(lambda n: FindingCleared(f"gateway-{n}", iso_utc(START_MS), "filled"), st.integers(1, 2)),
    st.builds(acknowledge, st.integers(1, 4)),
    st.builds(lambda a: TimerFired(a, "repeat/300", 1), st.integers(1, 4)),
    st.builds(mixer_modelled, st.sampled_from([None, "moulding"])),
    st.builds(ClockStepped, st.sampled_from([-5000, 5000])),
)


def entries_of(journal: list[EntryBody]) -> list[Entry]:
    return [Entry(number, START_MS + 1000 * number, body) for number, body in enumerate(journal, start=1)]


def folded_from_zero(entries: list[Entry]) -> str:
    book = AlarmBook()
    for entry in entries:
        book.stage(entry, None)
    book.adopt()
    return text(book.snapshot())


def text(snapshot: Json) -> str:
    return json.dumps(snapshot, sort_keys=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(bodies, max_size=25), st.data())
def test_a_live_book_with_failed_commits_and_restarts_equals_one_folded_from_zero(
    journal: list[EntryBody], data: st.DataObject
) -> None:
    entries, rows = entries_of(journal), RowsInMemory()
    book, done = AlarmBook(Teller(EVERYTHING_TO_LI, VOICE)), 0
    while done < len(entries):
        size = data.draw(st.integers(1, len(entries) - done))
        if data.draw(st.booleans()):  # a transaction that fails: its rows are rolled back with it
            rolled_back = RowsInMemory()
            for entry in entries[done : done + size]:
                book.stage(entry, rolled_back)
            book.discard()
        for entry in entries[done : done + size]:
            book.stage(entry, rows)
        book.adopt()
        done += size
        if data.draw(st.booleans()):  # a restart: snapshot, then on
            snapshot = book.snapshot()
            book = AlarmBook(Teller(EVERYTHING_TO_LI, VOICE))
            book.restore(snapshot)
    assert text(book.snapshot()) == folded_from_zero(entries)


@settings(max_examples=200, deadline=None)
@given(st.lists(bodies, max_size=25))
def test_rows_never_contradict_each_other(journal: list[EntryBody]) -> None:
    rows, book = RowsInMemory(), AlarmBook(Teller(EVERYTHING_TO_LI, VOICE))
    for entry in entries_of(journal):
        book.stage(entry, rows)
        book.adopt()
    assert sorted(rows.alarms) == list(range(1, len(rows.alarms) + 1))
    for number, alarm in rows.alarms.items():
        assert (book.find_alarm(number) is None) == (alarm.letter == "A")
        stands_for = rows.violations[alarm.occurrence]
        if stands_for.is_active:
            assert alarm.state.condition == "active"
    for violation in rows.violations.values():
        if violation.hidden_by is None:
            assert violation.alarm is not None
