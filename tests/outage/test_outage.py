"""The short form of `python -m tests.outage`: a tenth of the virtual day, some seconds of the real one, books that can fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.accounting import Committed, Verdict
from tests.outage import real, virtual
from tests.outage.books import Journal, Told, account
from tests.outage.hall import HOLD, RATE, TURN, Hall
from tests.simulation.runs import scratch

TENTH_H = 2.4
REAL_H = 0.4
FULL_SHARE = 0.9
"""At first nothing closes at running machines: a short day has somewhat fewer events than its rate says."""


@pytest.mark.thorough
def test_after_hours_without_a_link_everything_comes_once_in_order_and_within_two_minutes() -> None:
    with scratch() as folder:
        outcome = virtual.live_through(TENTH_H, folder, print)
    assert outcome.problems == []
    assert outcome.drain.waiting >= FULL_SHARE * TENTH_H * 3600 * RATE
    assert outcome.drain.live > 0


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_the_same_holds_for_real_processes_at_a_hundred_times_the_speed(tmp_path: Path) -> None:
    outcome = real.live_through(real.Scale(hours=REAL_H), tmp_path / "outage", print)
    assert outcome.problems == []
    assert outcome.drain.waiting >= FULL_SHARE * REAL_H * 3600 * RATE


def journal_of(hall: Hall) -> list[Told]:
    """What an agent must tell of a hall that it sees at once."""
    told = []
    for door, turns in hall.turns.items():
        for number, turn in enumerate(turns):
            state = "closed" if turn.is_closed else "open"
            told.append(_told("guard_changed", door, state, "", turn.at_ms))
            if door.startswith("run-") and not turn.is_closed:
                told.append(_told("violation_raised", door, "", f"{door}-{number}", turn.at_ms + 1000))
            elif door.startswith("run-") and number:
                told.append(_told("violation_cleared", door, "", f"{door}-{number - 1}", turn.at_ms + 2000))
    told.sort(key=lambda item: item.at_ms)
    return [replace(item, key=("e", seq), hash=f"h{seq}") for seq, item in enumerate(told, 1)]


def _told(kind: str, door: str, state: str, occurrence: str, at_ms: int) -> Told:
    return Told(("", 0), "", kind, door, state, occurrence, at_ms, at_ms)


def verdicts(hall: Hall, told: Sequence[Told], store: Sequence[Told]) -> set[Verdict]:
    """What the books say of a journal that holds `told`, with a store that holds `store`."""
    raised = sum(item.kind == "violation_raised" for item in told)
    journal = Journal(told, 0, 0, frozenset(), raised)
    committed = [Committed(*item.key, item.hash, 0.0) for item in store]
    return {finding.verdict for finding in account(hall.turns, journal, committed)}


@pytest.fixture
def hall() -> Hall:
    """A hall in which every door has turned, and those at running machines have closed again."""
    hall = Hall(0)
    for beat in range(2 * HOLD + TURN):
        hall.beat(10_000 + 1000 * beat)
    return hall


def test_what_every_door_did_told_once_in_order_is_right(hall: Hall) -> None:
    told = journal_of(hall)
    assert verdicts(hall, told, told) == set()


@pytest.mark.parametrize("kind", ["guard_changed", "violation_raised", "violation_cleared"])
def test_what_is_missing_in_store_and_journal_alike_is_lost(hall: Hall, kind: str) -> None:
    told = journal_of(hall)
    missing = next(item for item in told[600:] if item.kind == kind)
    left = [item for item in told if item is not missing]
    assert Verdict.LOST in verdicts(hall, left, left)


def test_what_is_missing_in_the_journal_alone_is_lost(hall: Hall) -> None:
    told = journal_of(hall)
    assert Verdict.LOST in verdicts(hall, told[:-1], told)


def test_what_no_door_did_is_unexpected_though_store_and_journal_agree(hall: Hall) -> None:
    told = journal_of(hall)
    made_up = replace(told[700], key=("e", 100_000), hash="made up")
    assert verdicts(hall, [*told, made_up], [*told, made_up]) == {Verdict.UNEXPECTED}


def test_what_stands_twice_in_the_journal_is_duplicated(hall: Hall) -> None:
    told = journal_of(hall)
    assert Verdict.DUPLICATED in verdicts(hall, [*told[:700], told[699], *told[700:]], told)


def test_what_changed_places_is_out_of_order(hall: Hall) -> None:
    told = journal_of(hall)
    changed = [*told[:700], told[701], told[700], *told[702:]]
    assert Verdict.OUT_OF_ORDER in verdicts(hall, changed, told)
