"""The books can fail: each thing that may be wrong with a journal is found, and named for what it is."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.accounting import (
    Committed,
    Journaled,
    Occurrence,
    StatedGap,
    Verdict,
    account_copies,
    account_messages,
    account_stream,
    account_violations,
)
from tests.chaos.oracle import Episode, Sample, episodes
from tests.chaos.process import Span

STORE = [Committed("A", 1, "h1", 1.0), Committed("A", 2, "h2", 2.0), Committed("B", 1, "h3", 3.0)]
JOURNAL = [Journaled(event.epoch, event.seq, event.hash) for event in STORE]
ALWAYS = [Span(0.0, 1000.0)]


def _answers(*openings: tuple[float, float], until_s: float = 60.0) -> list[Sample]:
    """An answer every tenth of a second, open within the openings."""
    times = [step / 10 for step in range(int(until_s * 10))]
    return [Sample(at_s, any(start <= at_s < end for start, end in openings)) for at_s in times]


def _episode(*openings: tuple[float, float]) -> list[Episode]:
    return episodes(_answers(*openings), ALWAYS, [])


OPENED = _episode((10.0, 14.0))
RAISED = Occurrence("one", (11.1,), (16.0,), is_proven=True)


def _verdicts(*occurrences: Occurrence) -> list[Verdict]:
    return [finding.verdict for finding in account_violations(OPENED, occurrences)]


# the stream


def test_a_journal_that_holds_all_in_order_is_clean() -> None:
    assert account_stream([STORE], JOURNAL) == []


def test_a_row_deleted_from_the_journal_is_lost() -> None:
    (finding,) = account_stream([STORE], [JOURNAL[0], JOURNAL[2]])
    assert (finding.verdict, finding.at_s) == (Verdict.LOST, 2.0)


def test_what_a_stated_gap_covers_is_not_lost_and_its_neighbours_are() -> None:
    assert account_stream([STORE], JOURNAL[:2], [StatedGap("B", 1, None)]) == []
    assert account_stream([STORE], [JOURNAL[0], JOURNAL[2]], [StatedGap("A", 2, 2)]) == []
    assert account_stream([STORE], [JOURNAL[0], JOURNAL[2]], [StatedGap("A", 3, 9)]) != []
    assert account_stream([STORE], JOURNAL[:2], [StatedGap("A", 1, None)]) != []


def test_an_invented_row_is_unexpected() -> None:
    (finding,) = account_stream([STORE], [*JOURNAL, Journaled("B", 2, "h4")])
    assert finding.verdict is Verdict.UNEXPECTED


def test_what_a_store_pruned_was_committed_as_the_chain_of_its_first_event_shows() -> None:
    journal = [
        Journaled("A", 1, "h1", prev="seed"),
        Journaled("A", 2, "h2", prev="h1"),
        Journaled("B", 1, "h3", prev="h2"),
    ]
    assert account_stream([[Committed("B", 1, "h3", 3.0, prev="h2")]], journal) == []
    (finding,) = account_stream(
        [[Committed("B", 1, "h3", 3.0, prev="h2")]], [*journal, Journaled("A", 3, "x", "h2")]
    )
    assert finding.verdict is Verdict.UNEXPECTED


def test_a_row_with_another_hash_than_was_committed_is_unexpected() -> None:
    (finding,) = account_stream([STORE], [replace(JOURNAL[0], hash="forged"), *JOURNAL[1:]])
    assert finding.verdict is Verdict.UNEXPECTED


def test_a_row_that_stands_twice_is_duplicated() -> None:
    verdicts = [finding.verdict for finding in account_stream([STORE], [*JOURNAL, JOURNAL[2]])]
    assert verdicts == [Verdict.DUPLICATED]


def test_rows_that_changed_places_are_out_of_order() -> None:
    verdicts = [finding.verdict for finding in account_stream([STORE], [JOURNAL[1], JOURNAL[0], JOURNAL[2]])]
    assert verdicts == [Verdict.OUT_OF_ORDER]


def test_epochs_of_one_store_that_changed_places_are_out_of_order() -> None:
    verdicts = [finding.verdict for finding in account_stream([STORE], [JOURNAL[2], *JOURNAL[:2]])]
    assert verdicts == [Verdict.OUT_OF_ORDER]


def test_what_only_a_replaced_store_held_is_demanded_too() -> None:
    replaced = [*STORE[:2], Committed("A", 3, "gone", 9.0)]
    (finding,) = account_stream([STORE, replaced], JOURNAL)
    assert finding.verdict is Verdict.LOST


# violations


def test_an_opening_raised_and_cleared_once_is_clean() -> None:
    assert _verdicts(RAISED) == []


def test_an_opening_that_nobody_raised_is_lost() -> None:
    assert _verdicts() == [Verdict.LOST]


def test_an_opening_raised_twice_is_duplicated() -> None:
    assert _verdicts(RAISED, replace(RAISED, id="two", raised_s=(13.0,))) == [Verdict.DUPLICATED]


def test_one_occurrence_that_is_raised_twice_is_duplicated() -> None:
    assert _verdicts(replace(RAISED, raised_s=(11.1, 11.2))) == [Verdict.DUPLICATED]


def test_one_occurrence_that_is_cleared_twice_is_duplicated() -> None:
    assert _verdicts(replace(RAISED, cleared_s=(16.0, 16.1))) == [Verdict.DUPLICATED]


def test_an_occurrence_that_is_never_cleared_is_lost() -> None:
    assert _verdicts(replace(RAISED, cleared_s=())) == [Verdict.LOST]


def test_a_raise_while_the_door_is_shut_is_unexpected() -> None:
    assert _verdicts(RAISED, Occurrence("two", (30.0,), (31.0,), is_proven=True)) == [Verdict.UNEXPECTED]


def test_a_raise_before_its_time_is_unexpected() -> None:
    assert _verdicts(replace(RAISED, raised_s=(10.3,))) == [Verdict.UNEXPECTED]


def test_a_clear_while_the_door_is_open_is_unexpected() -> None:
    assert _verdicts(replace(RAISED, cleared_s=(12.9,))) == [Verdict.UNEXPECTED]


def test_an_opening_shorter_than_t_allow_may_not_be_raised() -> None:
    short = _episode((10.0, 10.7))
    assert [(episode.must, episode.times_max) for episode in short] == [(False, 0)]
    findings = account_violations(short, [replace(RAISED, raised_s=(10.6,), cleared_s=(13.0,))])
    assert [finding.verdict for finding in findings] == [Verdict.UNEXPECTED]


# what had to be found


def test_an_agent_that_was_down_for_most_of_an_opening_owes_nothing() -> None:
    awake = [Span(0.0, 10.9), Span(13.0, 1000.0)]
    (episode,) = episodes(_answers((10.0, 14.0)), awake, [])
    assert (episode.must, episode.times_max) == (False, 1)


def test_an_agent_that_came_back_in_time_owes_the_raise() -> None:
    awake = [Span(0.0, 10.9), Span(12.0, 1000.0)]
    (episode,) = episodes(_answers((10.0, 14.0)), awake, [])
    assert episode.must


def test_an_agent_whose_wire_was_spoilt_owes_nothing() -> None:
    (episode,) = episodes(_answers((10.0, 14.0)), ALWAYS, [Span(11.0, 13.0)])
    assert not episode.must


def test_two_openings_with_too_short_a_time_between_them_are_one() -> None:
    assert len(_episode((10.0, 13.0), (14.0, 17.0))) == 1
    assert len(_episode((10.0, 13.0), (17.0, 20.0))) == 2


# copies and messages


def test_copies_of_the_journal_are_compared_row_by_row() -> None:
    assert account_copies("the log", ["a", "b"], ["b", "a"]) == []
    verdicts = [finding.verdict for finding in account_copies("the log", ["a", "b"], ["b", "b", "c"])]
    assert verdicts == [Verdict.LOST, Verdict.DUPLICATED, Verdict.UNEXPECTED]


def test_a_violation_of_which_nobody_was_told_is_lost() -> None:
    told = {"one": frozenset({"raised", "cleared"})}
    assert account_messages([RAISED], told, []) == []
    assert account_messages([RAISED], {}, []) != []
    assert account_messages([RAISED], {"one": frozenset({"raised"})}, []) != []


def test_a_summary_tells_of_what_was_raised_before_it_only() -> None:
    assert account_messages([RAISED], {}, [20.0]) == []
    assert account_messages([RAISED], {}, [5.0]) != []
