"""The alarm book: one occurrence is one row and one alarm, whatever the journal holds."""

import pytest

from edge_agent.wire.event import Basis, Json, Priority
from gateway.domain.book import AlarmBook
from gateway.domain.book_state import CLOSED_REMEMBERED
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    Act,
    ClockStepped,
    Entry,
    FindingCleared,
    FindingRaised,
    GatewayRule,
    OperatorCommand,
    ReconciledChange,
    ReconciledClear,
    TimerFired,
)
from gateway.domain.violation import Origin
from tests.unit.gateway.alerting_rig import (
    AGENT,
    SITE,
    START_MS,
    Story,
    acknowledge,
    changed,
    cleared,
    event,
    listed,
    mixer_modelled,
    raised,
)


def over(occurrence: str = "OCC", continued_by: str | None = None) -> ReconciledClear:
    return ReconciledClear(SITE, AGENT, occurrence, iso_utc(START_MS + 60_000), continued_by)


def test_a_raise_is_one_row_and_one_alarm() -> None:
    story = Story()
    story.take(mixer_modelled(), raised())
    row, alarm = story.violation(), story.alarm()
    assert (row.site, row.agent, row.machine, row.guard) == (SITE, AGENT, "mixer-18", "door-1")
    assert (row.area, row.alarm, row.origin) == ("moulding", 1, Origin.AGENT)
    assert (row.received_at_ms, row.occurred_at) == (START_MS, iso_utc(START_MS))
    assert (row.is_active, row.cleared_at, row.duration_ms) == (True, None, None)
    assert (alarm.letter, alarm.occurrence, alarm.area) == ("B", "OCC", "moulding")


def test_a_second_raise_changes_nothing() -> None:
    story = Story()
    story.take(raised())
    before = story.violation()
    story.take(raised(priority=Priority.P3), after_ms=1000)
    assert story.violation() == before
    assert story.letters() == "B"


def test_a_clear_closes_the_row_with_the_agents_duration() -> None:
    story = Story()
    story.take(raised())
    story.take(cleared(duration_ms=7_321), after_ms=8_000)
    assert story.violation().cleared_at == iso_utc(START_MS + 8_000)
    assert story.violation().duration_ms == 7_321
    assert not story.violation().is_active
    assert story.letters() == "E"


def test_a_second_clear_and_a_raise_after_the_clear_change_nothing() -> None:
    story = Story()
    story.take(raised())
    story.take(cleared(duration_ms=1_000), after_ms=8_000)
    row = story.violation()
    story.take(cleared(duration_ms=9_000), raised(), after_ms=8_000)
    assert story.violation() == row
    assert story.letters() == "E"


def test_a_clear_of_an_unknown_occurrence_and_one_by_another_agent_change_nothing() -> None:
    story = Story()
    story.take(raised())
    story.take(cleared("OTHER"), event(cleared(), agent="gw-02"))
    assert list(story.rows.violations) == ["OCC"]
    assert story.letters() == "B"


def test_an_alarm_without_latch_that_was_seen_is_history_when_it_is_over() -> None:
    story = Story()
    story.take(raised(rule="estop", priority=Priority.P2))
    story.take(acknowledge(1, note="on my way"))
    assert story.letters() == "C"
    story.take(cleared(), after_ms=1000)
    assert story.letters() == "A"
    assert story.book.find_alarm(1) is None
    assert story.alarm().note == "on my way"


def test_acknowledging_an_alarm_that_is_over_only_records_that_it_was_seen() -> None:
    story = Story()
    story.take(raised(rule="estop"))
    story.take(cleared(), after_ms=1000)
    assert story.letters() == "D"
    story.take(acknowledge(1), after_ms=500)
    assert story.letters() == "A"
    seen = story.alarm().acknowledged
    assert seen is not None
    assert (seen.who, seen.role, seen.via, seen.at_ms) == (
        "li-qiang",
        "shift_manager",
        "session",
        START_MS + 1500,
    )


def test_the_first_to_acknowledge_stays_the_one_who_did() -> None:
    story = Story()
    story.take(raised())
    story.take(acknowledge(1, "li-qiang"), acknowledge(1, "wang-fang"))
    seen = story.alarm().acknowledged
    assert seen is not None
    assert seen.who == "li-qiang"


def test_a_note_reaches_listed_alarms_and_history() -> None:
    story = Story()
    note = OperatorCommand(Act.NOTE, 1, "li-qiang", "shift_manager", "session", "switch replaced")
    story.take(raised(rule="estop"), note)
    assert story.alarm().note == "switch replaced"
    story.take(acknowledge(1), cleared(), OperatorCommand(Act.NOTE, 1, "li", "admin", "cli", "report filed"))
    assert (story.letters(), story.alarm().note) == ("A", "report filed")


def test_a_hidden_raise_is_a_row_without_alarm_until_it_is_hidden_no_more() -> None:
    story = Story()
    story.take(raised("CHILD", hidden_by="PARENT", priority=Priority.P2))
    assert (story.violation("CHILD").alarm, story.violation("CHILD").hidden_by) == (None, "PARENT")
    assert story.letters() == ""
    story.take(changed("CHILD", priority=Priority.P2), after_ms=3000)
    assert (story.violation("CHILD").alarm, story.violation("CHILD").hidden_by) == (1, None)
    assert story.letters() == "B"
    assert story.alarm().alarmed_ms == START_MS + 3000


def test_a_hidden_raise_that_ends_hidden_never_is_an_alarm() -> None:
    story = Story()
    story.take(raised("CHILD", hidden_by="PARENT"))
    story.take(cleared("CHILD"), after_ms=1000)
    assert not story.violation("CHILD").is_active
    assert story.letters() == ""


def test_a_higher_priority_makes_an_acknowledged_alarm_call_again() -> None:
    story = Story()
    story.take(raised(priority=Priority.P2, basis=Basis.UNKNOWN))
    story.take(acknowledge(1))
    story.take(changed(priority=Priority.P1), after_ms=5000)
    assert story.letters() == "B"
    assert (story.alarm().priority, story.alarm().basis) == (Priority.P1, Basis.PROVEN)
    assert (story.alarm().raised_n, story.alarm().acknowledged) == (2, None)
    assert (story.violation().priority, story.violation().raised_priority) == (Priority.P1, Priority.P2)


def test_a_lower_priority_or_a_proof_alone_leaves_the_acknowledgement() -> None:
    story = Story()
    story.take(raised(priority=Priority.P2, basis=Basis.UNKNOWN))
    story.take(acknowledge(1))
    story.take(changed(priority=Priority.P2))
    story.take(changed(priority=Priority.P3))
    assert story.letters() == "C"
    assert story.alarm().basis is Basis.PROVEN


def test_an_occurrence_that_a_report_lists_is_raised_as_of_now() -> None:
    story = Story()
    story.take(listed(), after_ms=600_000)
    assert story.violation().since == iso_utc(START_MS)
    assert story.violation().occurred_at == iso_utc(START_MS + 600_000)
    assert story.letters() == "B"


def test_what_a_report_does_not_list_is_cleared_with_the_duration_as_known_here() -> None:
    story = Story()
    story.take(raised())
    story.take(over())
    assert story.violation().duration_ms == 60_000
    assert story.letters() == "E"


def test_an_occurrence_cleared_here_goes_on_under_a_new_id_which_the_agents_next_clear_ends() -> None:
    story = Story()
    story.take(raised())
    story.take(cleared())
    story.take(listed("OCC", here="OCC.2"))
    assert story.violation("OCC.2").is_active
    story.take(changed("OCC", priority=Priority.P2))
    assert story.violation("OCC.2").priority is Priority.P2
    story.take(cleared("OCC"), after_ms=1000)
    assert not story.violation("OCC.2").is_active
    assert story.letters() == "EE"


def test_the_alarm_passes_on_to_the_occurrence_that_continues_whichever_entry_comes_first() -> None:
    raise_first, clear_first = Story(), Story()
    for story in (raise_first, clear_first):
        story.take(raised("OLD"))
        story.take(acknowledge(1))
    raise_first.take(listed("NEW", continues="OLD"), over("OLD", continued_by="NEW"))
    clear_first.take(over("OLD", continued_by="NEW"), listed("NEW", continues="OLD"))
    for story in (raise_first, clear_first):
        assert story.letters() == "C"
        assert story.alarm().occurrence == "NEW"
        assert (story.violation("NEW").alarm, story.violation("OLD").alarm) == (1, 1)
        assert (story.violation("NEW").is_active, story.violation("OLD").is_active) == (True, False)
        story.take(cleared("NEW"), after_ms=1000)
        assert story.letters() == "F"


def test_an_alarm_passes_on_to_a_hidden_occurrence_too() -> None:
    story = Story()
    story.take(raised("OLD"), raised("NEW", hidden_by="PARENT"))
    story.take(over("OLD", continued_by="NEW"))
    assert (story.letters(), story.alarm().occurrence, story.violation("NEW").alarm) == ("B", "NEW", 1)


def test_where_the_continuing_occurrence_has_an_alarm_already_the_old_one_returns_quietly() -> None:
    story = Story()
    story.take(raised("OLD"), raised("NEW"))
    told = story.rows.told()
    story.take(over("OLD", continued_by="NEW"))
    assert story.letters() == "EB"
    assert story.rows.told() == told


def test_a_change_that_only_a_report_shows_is_taken_over() -> None:
    story = Story()
    story.take(raised(hidden_by="PARENT"))
    story.take(ReconciledChange(SITE, AGENT, "OCC", listed().listed))
    assert story.letters() == "B"


def test_a_finding_of_the_gateway_is_a_violation_of_its_own_origin() -> None:
    story = Story()
    detail: dict[str, Json] = {"channel": "hook"}
    story.take(
        FindingRaised(
            "gateway-1", GatewayRule.ALERT_FAILING, Priority.P2, None, None, iso_utc(START_MS), detail
        )
    )
    row = story.violation("gateway-1")
    assert (row.origin, row.site, row.machine, row.rule) == (Origin.GATEWAY, None, None, "alert_failing")
    assert row.evidence == detail
    story.take(FindingCleared("gateway-1", iso_utc(START_MS + 5000), "delivers again"))
    assert story.violation("gateway-1").duration_ms == 5000
    assert story.letters() == "D"


def test_what_was_raised_before_its_machine_was_known_gets_its_area_with_the_birth_certificate() -> None:
    story = Story()
    story.take(raised())
    assert story.violation().area is None
    story.take(mixer_modelled("moulding"))
    assert (story.violation().area, story.alarm().area) == ("moulding", "moulding")
    story.take(mixer_modelled("core-shop"))
    assert story.violation().area == "moulding"


def test_times_that_are_none_do_not_stop_the_book() -> None:
    story = Story()
    story.take(FindingRaised("gateway-1", GatewayRule.QUARANTINE, Priority.P3, None, None, "some day"))
    story.take(FindingCleared("gateway-1", iso_utc(START_MS), "seen"))
    assert story.violation("gateway-1").duration_ms is None


def test_repeats_are_due_until_somebody_acknowledges() -> None:
    story = Story()
    assert story.book.next_deadline_ms() is None
    story.take(raised())
    assert story.book.next_deadline_ms() == START_MS + 300_000
    assert story.book.due_timers(START_MS + 299_999) == []
    (timer,) = story.book.due_timers(START_MS + 300_000)
    assert (timer.alarm, timer.what) == (1, "repeat/300")
    story.take(TimerFired(1, "repeat/300", 1), after_ms=301_000)
    assert story.book.next_deadline_ms() == START_MS + 601_000
    story.take(acknowledge(1))
    assert story.book.next_deadline_ms() is None


def test_an_alarm_that_is_over_is_not_repeated() -> None:
    story = Story()
    story.take(raised())
    story.take(cleared())
    assert story.book.next_deadline_ms() is None


def test_a_clock_that_jumps_ahead_makes_nothing_due() -> None:
    story = Story()
    story.take(raised())
    story.take(ClockStepped(3_600_000), after_ms=3_600_000)
    assert story.book.next_deadline_ms() == START_MS + 3_900_000
    story.take(ClockStepped(-3_600_000))
    assert story.book.next_deadline_ms() == START_MS + 3_900_000


def test_without_a_teller_nothing_is_due_and_nobody_is_told() -> None:
    story = Story(plan=None)
    story.take(raised())
    assert story.letters() == "B"
    assert story.book.next_deadline_ms() is None
    assert story.rows.notices == {}


def test_a_discarded_transaction_leaves_nothing_behind() -> None:
    story = Story()
    story.take(raised())
    before = story.book.snapshot()
    for body in (event(cleared()), event(raised("NEW")), acknowledge(1), mixer_modelled()):
        story.book.stage(Entry(2, story.now_ms, body), None)
    assert story.book.find_alarm(2) is not None
    story.book.discard()
    assert story.book.snapshot() == before
    assert story.book.next_deadline_ms() == START_MS + 300_000


def test_a_restored_book_is_the_book_that_was() -> None:
    story = Story()
    story.take(mixer_modelled(), raised("ONE"), raised("TWO", hidden_by="ONE"), raised("THREE"))
    story.take(cleared("THREE"), listed("THREE", here="THREE.2"), over("ONE", continued_by="FOUR"))
    snapshot = story.book.snapshot()
    other = AlarmBook()
    other.restore(snapshot)
    assert other.snapshot() == snapshot


@pytest.mark.thorough
def test_ids_of_closed_occurrences_are_forgotten_in_the_end() -> None:
    story = Story(plan=None)
    for number in range(CLOSED_REMEMBERED + 1):
        entry = event(raised("SAME" if number == 0 else f"OCC-{number}", rule="estop"))
        story.book.stage(Entry(2 * number + 1, START_MS, entry), None)
        end = event(cleared("SAME" if number == 0 else f"OCC-{number}"))
        story.book.stage(Entry(2 * number + 2, START_MS, end), None)
    story.take(raised("SAME"), raised(f"OCC-{CLOSED_REMEMBERED}"))
    assert list(story.rows.violations) == ["SAME"]
