"""Rows of violations, alarms, notices and cursors: the same on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio
from sqlalchemy import event

from edge_agent.wire.event import Basis, ClockState, Priority, ViolationRaised
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.recording import SqlRecording
from gateway.domain.alarm import Alarm
from gateway.domain.book_state import Dating
from gateway.domain.journal import EdgeEvent
from gateway.domain.notice import Alert, Notice, NoticeState, Recipient
from gateway.domain.notify import NoticeEvent, Reason
from gateway.domain.occurred import Anchor
from gateway.domain.violation import Violation
from gateway.ports import Cursor
from tests.scripted_agent import Store, ulid
from tests.unit.gateway.alerting_rig import AGENT, SITE, START_MS, Story, acknowledge, cleared, listed, raised

T = TypeVar("T")
Work = Callable[[Callable[[SqlRecording], T]], T]


class WoundClock:
    """A clock that the test winds."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def utc_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/gateway.db"


@pytest.fixture
def clock() -> WoundClock:
    return WoundClock()


@pytest_asyncio.fixture
async def journal(url: str, clock: WoundClock) -> AsyncIterator[SqlJournal]:
    opened = await SqlJournal.open(url, clock, {})
    await opened.lead()
    yield opened
    await opened.close()


def a_violation() -> Violation:
    story = Story(plan=None)
    story.take(raised(priority=Priority.P2, basis=Basis.UNKNOWN))
    evidence = {"signals": {"ch_a": 0}, "note": "检修门 ✓"}
    return replace(story.violation(), evidence=evidence)  # type: ignore[arg-type]  # nested literals widen


def an_alarm() -> Alarm:
    story = Story(plan=None)
    story.take(raised(), acknowledge(1, note="检查中"))
    return replace(story.alarm(), repeats=2, repeated_ms={"repeat/300": START_MS})


def a_notice(occurrence: str = "OCC", **changes: object) -> Notice:
    what = NoticeEvent(str(changes.get("event", "raised")))
    person, channel = str(changes.get("person", "li")), str(changes.get("channel", "hook"))
    alert = Alert(
        delivery=f"{occurrence}/{what}/1/{person}/{channel}",
        event=what,
        to=Recipient(person, "李强", "shift_manager", None, None),
        language="zh",
        title="title",
        text="text\nwith lines",
        priority=Priority(str(changes.get("priority", "P1"))),
        site=SITE,
        area=None,
        machine="mixer-18",
        guard="door-1",
        rule="guard_open_motion",
        occurrence=occurrence,
        alarm=int(str(changes.get("alarm", 1))),
        since="2026-11-22T06:03:22Z",
        at="2026-11-22T06:03:22Z",
        url="http://board.example/a/1",
    )
    not_before_ms = int(str(changes.get("not_before_ms", 0)))
    return Notice(alert, channel, Reason.FIRST, START_MS, not_before_ms)


async def decide(journal: SqlJournal, *notices: Notice) -> None:
    """Write decisions in one transaction."""

    def work(recording: SqlRecording) -> None:
        for notice in notices:
            recording.add_notice(notice)

    await journal.transact(work)


def keys(notices: object) -> list[str]:
    assert isinstance(notices, list)
    return [now.notice.key for now in notices]


async def test_a_violation_comes_back_as_it_went_in_and_is_replaced_in_place(journal: SqlJournal) -> None:
    row = a_violation()
    await journal.transact(lambda recording: recording.put_violation(row))
    assert await journal.transact(lambda recording: recording.load_violation("OCC")) == row
    closed = replace(row, cleared_at="2026-11-22T06:09:40Z", duration_ms=378_000, alarm=7)
    await journal.transact(lambda recording: recording.put_violation(closed))
    assert await journal.transact(lambda recording: recording.load_violation("OCC")) == closed
    assert SqlAlarmReads(journal.readers).violation("OCC") == closed


async def test_open_cleared_and_unknown_occurrences_are_told_apart(journal: SqlJournal) -> None:
    def work(recording: SqlRecording) -> list[bool | None]:
        recording.put_violation(a_violation())
        closed = replace(a_violation(), occurrence="OVER", cleared_at="2026-11-22T06:09:40Z")
        recording.put_violation(closed)
        return [recording.find_violation(name) for name in ("OCC", "OVER", "NEVER")]

    assert await journal.transact(work) == [True, False, None]


async def test_an_agents_open_occurrences_are_its_own_and_none_of_the_gateways(journal: SqlJournal) -> None:
    story = Story(plan=None)
    story.take(raised("TWO", hidden_by="ONE"), raised("ONE"), raised("OVER"), listed("THREE"))
    story.take(cleared("OVER"))

    def work(recording: SqlRecording) -> list[tuple[str, int, str | None]]:
        for violation in story.rows.violations.values():
            recording.put_violation(violation)
        foreign = replace(a_violation(), occurrence="FOREIGN", agent="gw-02")
        own_finding = replace(a_violation(), occurrence="gateway-1", origin="gateway")  # type: ignore[arg-type]
        recording.put_violation(foreign)
        recording.put_violation(own_finding)
        found = recording.open_occurrences(SITE, AGENT)
        return [(row.occurrence, row.raised_position, row.hidden_by) for row in found]

    assert await journal.transact(work) == [("TWO", 1, "ONE"), ("ONE", 2, None), ("THREE", 4, None)]


async def test_an_alarm_comes_back_as_it_went_in_and_can_be_annotated_as_history(journal: SqlJournal) -> None:
    alarm = an_alarm()
    await journal.transact(lambda recording: recording.put_alarm(alarm))
    assert await journal.transact(lambda recording: recording.find_alarm(1)) == alarm
    await journal.transact(lambda recording: recording.annotate_alarm(1, "replaced"))
    assert await journal.transact(lambda recording: recording.find_alarm(1)) == replace(
        alarm, note="replaced"
    )
    await journal.transact(lambda recording: recording.annotate_alarm(99, "nothing"))
    assert await journal.transact(lambda recording: recording.find_alarm(99)) is None


async def test_a_decision_stands_once_whatever_is_decided_again(journal: SqlJournal) -> None:
    first, again = a_notice(), replace(a_notice(), reason=Reason.PLACE_KNOWN)
    await decide(journal, first, again)
    (now,) = await journal.transact(lambda recording: recording.notices_of(1))
    assert now.notice == first
    assert (now.state, now.attempts, now.next_try_ms, now.outcome) == (NoticeState.PENDING, 0, 0, None)


async def test_due_are_the_urgent_first_each_channels_own_and_none_before_its_time(
    journal: SqlJournal, clock: WoundClock
) -> None:
    def add(recording: SqlRecording) -> None:
        recording.add_notice(a_notice("LOW", alarm=1, priority="P3"))
        recording.add_notice(a_notice("HIGH", alarm=2, priority="P1"))
        recording.add_notice(a_notice("OTHER", alarm=3, channel="mail"))
        recording.add_notice(a_notice("HELD", alarm=4, not_before_ms=START_MS + 2_000))

    await journal.transact(add)
    due = await journal.transact(lambda recording: recording.due_notices("hook", 10))
    assert keys(due) == ["HIGH/raised/1/li/hook", "LOW/raised/1/li/hook"]
    assert await journal.transact(lambda recording: recording.next_try_ms("hook")) == START_MS + 2_000
    assert await journal.transact(lambda recording: recording.next_try_ms("mail")) is None
    assert await journal.transact(lambda recording: recording.pending_channels()) == ["hook", "mail"]
    assert len(await journal.transact(lambda recording: recording.due_notices("hook", 1))) == 1
    clock.now_ms += 2_000
    due = await journal.transact(lambda recording: recording.due_notices("hook", 10))
    assert "HELD/raised/1/li/hook" in keys(due)


async def test_of_one_alarm_and_person_only_the_earliest_pending_is_due(
    journal: SqlJournal, clock: WoundClock
) -> None:
    first, second = a_notice(event="raised"), a_notice(event="cleared")
    other = a_notice(event="raised", person="wang")
    await decide(journal, first, second, other)
    due = await journal.transact(lambda recording: recording.due_notices("hook", 10))
    assert keys(due) == [first.key, other.key]
    await journal.transact(lambda recording: recording.note_retry(first.key, START_MS + 1_000, "HTTP 503"))
    due = await journal.transact(lambda recording: recording.due_notices("hook", 10))
    assert keys(due) == [other.key]
    assert await journal.transact(lambda recording: recording.next_try_ms("hook")) == START_MS + 1_000
    clock.now_ms += 1_000
    (again, _) = await journal.transact(lambda recording: recording.due_notices("hook", 10))
    assert (again.notice.key, again.attempts, again.outcome) == (first.key, 1, "HTTP 503")
    await journal.transact(lambda recording: recording.note_delivered(first.key))
    due = await journal.transact(lambda recording: recording.due_notices("hook", 10))
    assert keys(due) == [second.key, other.key]


async def test_what_is_due_is_found_by_indices_however_many_wait(tmp_path: Path) -> None:
    """A flood of thousands is neither read nor sorted for each batch that is sent, nor compared with itself."""
    opened = await SqlJournal.open(f"sqlite:///{tmp_path}/gateway.db", WoundClock(), {})
    asked: list[tuple[str, object]] = []

    @event.listens_for(opened._writer, "before_cursor_execute")
    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        asked.append((statement, parameters))

    await opened.transact(lambda recording: recording.due_notices("hook", 10))
    statement, parameters = next(item for item in asked if item[0].startswith("SELECT notices"))
    with opened.readers.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()  # type: ignore[arg-type]
    plan = "\n".join(row.detail for row in rows)
    assert "SEARCH notices USING INDEX ix_notices_state_channel_priority_number" in plan, plan
    assert "SEARCH earlier USING INDEX ix_notices_alarm" in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    await opened.close()


async def test_a_leap_of_time_shifts_what_was_decided_in_its_own_transaction_too(journal: SqlJournal) -> None:
    early, late = (
        a_notice("EARLY", alarm=1, not_before_ms=START_MS),
        a_notice("LATE", alarm=2, not_before_ms=START_MS),
    )
    await decide(journal, early)

    def leap(recording: SqlRecording) -> None:
        recording.add_notice(late)
        recording.shift_notices(3_600_000)

    await journal.transact(leap)
    for alarm in (1, 2):
        (now,) = await journal.transact(lambda recording, alarm=alarm: recording.notices_of(alarm))  # type: ignore[misc]
        assert (now.next_try_ms, now.notice.not_before_ms) == (START_MS + 3_600_000,) * 2


async def test_times_put_right_are_those_of_violations_told_in_the_same_transaction_too(
    journal: SqlJournal,
) -> None:
    store = Store(clock=ClockState.UNSYNCED)
    store.start(ulid(1))
    told = store.add(
        ViolationRaised(
            "mixer-18",
            "door-1",
            None,
            "guard_open_motion",
            Priority.P1,
            Basis.PROVEN,
            "OCC",
            "1970-01-01T00:00:00.000000Z",
            None,
            {},
        )
    )
    receipt = "2026-11-22T06:03:22.000000Z"

    def work(recording: SqlRecording) -> None:
        position = recording.append(EdgeEvent(told, receipt)).position
        row = replace(a_violation(), raised_position=position, occurred_at=receipt, raised_at=receipt)
        recording.put_violation(row)
        anchor = Anchor("2026-11-22T07:00:00.000000Z", told.mono_ms + 60_000)
        dating = Dating(told.site, told.agent, told.boot, anchor, position, position + 1)
        recording.date_violations(dating, position + 1)

    await journal.transact(work)
    found = await journal.transact(lambda recording: recording.load_violation("OCC"))
    assert found is not None
    assert (found.occurred_at, found.raised_at) == ("2026-11-22T06:59:00.000000Z",) * 2


async def test_a_dead_letter_keeps_why_and_makes_way(journal: SqlJournal) -> None:
    first, second = a_notice(event="raised"), a_notice(event="cleared")
    await decide(journal, first, second)
    await journal.transact(lambda recording: recording.note_dead(first.key, "HTTP 400: " + "x" * 10_000))
    dead, _ = await journal.transact(lambda recording: recording.notices_of(1))
    assert dead.state is NoticeState.DEAD
    assert dead.outcome is not None
    assert len(dead.outcome) == 500
    assert keys(await journal.transact(lambda recording: recording.due_notices("hook", 10))) == [second.key]


async def test_withdrawn_notices_wait_for_their_summary(journal: SqlJournal, clock: WoundClock) -> None:
    notices = [a_notice(f"OCC-{n}", alarm=n, not_before_ms=START_MS + 2_000) for n in (1, 2)]
    await decide(journal, *notices)
    assert await journal.transact(lambda recording: recording.oldest_withdrawn_ms()) is None
    for notice in notices:
        clock.now_ms += 100
        await journal.transact(lambda recording, key=notice.key: recording.withdraw_notice(key))  # type: ignore[misc]
    assert await journal.transact(lambda recording: recording.oldest_withdrawn_ms()) == START_MS + 100
    withdrawn = await journal.transact(lambda recording: recording.withdrawn_notices())
    assert keys(withdrawn) == [notice.key for notice in notices]
    for notice in notices:
        await journal.transact(lambda recording, key=notice.key: recording.note_summarised(key))  # type: ignore[misc]
    assert await journal.transact(lambda recording: recording.withdrawn_notices()) == []
    clock.now_ms += 10_000
    assert await journal.transact(lambda recording: recording.due_notices("hook", 10)) == []


async def test_a_channel_can_be_buried_whole(journal: SqlJournal) -> None:
    notices = [a_notice("A", alarm=1), a_notice("B", alarm=2), a_notice("C", alarm=3, channel="mail")]
    await decide(journal, *notices)
    await journal.transact(lambda recording: recording.bury_channel("hook", "gone"))
    assert await journal.transact(lambda recording: recording.pending_channels()) == ["mail"]


async def test_a_cursor_keeps_position_and_state(journal: SqlJournal) -> None:
    assert await journal.transact(lambda recording: recording.find_cursor("influxdb")) is None
    for position in (5, 9):
        state = {"gw": {"at_us": 2**60, "names": ["检修门"]}}
        await journal.transact(
            lambda recording, at=position, kept=state: recording.move_cursor("influxdb", at, kept)  # type: ignore[misc]
        )
        found = await journal.transact(lambda recording: recording.find_cursor("influxdb"))
        assert found == Cursor(position, state)  # type: ignore[arg-type]  # nested literals widen


async def test_refused_lines_are_kept_and_counted(journal: SqlJournal) -> None:
    for _ in range(2):
        await journal.transact(lambda recording: recording.add_refused_line("violation x=1i", "HTTP 422"))
    assert await journal.transact(lambda recording: recording.count_refused_lines()) == 2
