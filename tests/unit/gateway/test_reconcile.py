"""What a state report heals, one test for each line of the table in `gateway.domain.reconcile`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from edge_agent.wire.event import Basis, Priority, StateReport
from gateway.domain.reconcile import Change, Clear, OpenHere, Raise, reconcile
from tests.scripted_agent import listed, report


def here(occurrence: str, guard: str = "door-1", *, old_store: bool = False) -> OpenHere:
    rule = "guard_open_motion"
    return OpenHere(
        occurrence,
        rule,
        "mixer-18",
        guard,
        None,
        Priority.P1,
        Basis.PROVEN,
        None,
        is_of_older_store=old_store,
    )


def known(states: Mapping[str, bool]) -> Callable[[str], bool | None]:
    """What is open (True) or cleared (False) here; anything else is unknown."""
    return states.get


def test_nothing_differs_so_nothing_is_done() -> None:
    assert reconcile([report(listed("X"))], [here("X")], known({"X": True})) == []


def test_a_listed_occurrence_that_is_unknown_here_is_raised() -> None:
    assert reconcile([report(listed("X"))], [], known({})) == [Raise("X", listed("X"), None)]


def test_a_listed_occurrence_that_was_cleared_here_goes_on_under_a_new_number() -> None:
    assert reconcile([report(listed("X"))], [], known({"X": False})) == [Raise("X.2", listed("X"), None)]
    assert reconcile([report(listed("X"))], [], known({"X": False, "X.2": False})) == [
        Raise("X.3", listed("X"), None)
    ]


def test_one_that_goes_on_under_a_new_number_is_not_raised_again_by_the_next_report() -> None:
    assert reconcile([report(listed("X"))], [here("X.2")], known({"X": False, "X.2": True})) == []


def test_an_occurrence_open_here_that_is_not_listed_is_cleared() -> None:
    assert reconcile([report()], [here("X")], known({"X": True})) == [Clear("X", None)]


def test_a_change_that_was_lost_is_made_up_for() -> None:
    raised = replace(listed("X"), priority=Priority.P2)
    assert reconcile([report(raised)], [here("X")], known({"X": True})) == [Change("X", raised)]


def test_hiding_is_told_in_the_names_that_hold_here() -> None:
    child = replace(listed("C", guard="door-2"), hidden_by="P")
    healings = reconcile([report(child, listed("P"))], [], known({"P": False}))
    assert healings == [Raise("P.2", listed("P"), None), Raise("C", replace(child, hidden_by="P.2"), None)]


def test_an_alarm_passes_on_to_the_same_finding_under_a_new_name() -> None:
    healings = reconcile([report(listed("NEW"))], [here("OLD")], known({"OLD": True}))
    assert healings == [Raise("NEW", listed("NEW"), "OLD"), Clear("OLD", "NEW")]


def test_of_two_old_alarms_only_one_passes_on() -> None:
    healings = reconcile([report(listed("NEW"))], [here("A"), here("B")], known({"A": True, "B": True}))
    assert healings == [Raise("NEW", listed("NEW"), "A"), Clear("A", "NEW"), Clear("B", "NEW")]


def test_another_guards_finding_is_no_heir() -> None:
    healings = reconcile([report(listed("NEW", guard="door-2"))], [here("OLD")], known({"OLD": True}))
    assert healings == [Raise("NEW", listed("NEW", guard="door-2"), None), Clear("OLD", None)]


def test_what_an_older_store_left_open_is_cleared_only_where_the_guard_is_known_now() -> None:
    assert reconcile([report(door="u--s")], [here("X", old_store=True)], known({"X": True})) == []
    assert reconcile([report(door="o--g")], [here("X", old_store=True)], known({"X": True})) == [
        Clear("X", None)
    ]


def test_what_this_store_does_not_list_is_over_even_where_the_guard_is_unknown() -> None:
    assert reconcile([report(door="u--s")], [here("X")], known({"X": True})) == [Clear("X", None)]


def test_a_guard_that_left_the_configuration_takes_its_old_occurrences_along() -> None:
    gone = here("X", guard="door-9", old_store=True)
    assert reconcile([report(door="u--s")], [gone], known({"X": True})) == [Clear("X", None)]


def test_a_machines_own_old_occurrence_waits_until_its_motion_is_known() -> None:
    own = replace(here("X", old_store=True), guard=None)
    still = StateReport(1, 1, {}, {"mixer-18": (None, None)}, ())
    seen = StateReport(1, 1, {}, {"mixer-18": (True, None)}, ())
    assert reconcile([still], [own], known({"X": True})) == []
    assert reconcile([seen], [own], known({"X": True})) == [Clear("X", None)]


def test_all_parts_of_a_report_count_together() -> None:
    parts = [report(listed("X"), part=1, parts=2), report(listed("Y", guard="door-2"), part=2, parts=2)]
    both = [here("X"), here("Y", guard="door-2")]
    assert reconcile(parts, both, known({"X": True, "Y": True})) == []
