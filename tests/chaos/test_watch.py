"""What the board showed is held against what was served, and the clock of a steered process is the file's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.oracle import Sample
from tests.chaos.process import History, Span
from tests.chaos.steered import NS_PER_S, steer
from tests.chaos.watch import Look, closed_while_stale_s, recovered_at_s, time_to_unknown_s

HEARD = [Sample(step / 10, is_open=False) for step in range(101)]  # ten seconds, then silence
LATER = Sample(40.0, is_open=False)


def _looks(*states: tuple[float, str]) -> list[Look]:
    return [Look(at_s, state, None) for at_s, state in states]


def test_closed_may_be_shown_for_seven_seconds_after_the_last_answer_and_no_longer() -> None:
    assert closed_while_stale_s(_looks((5.0, "closed"), (16.9, "closed")), HEARD, []) == (0, None)
    assert closed_while_stale_s(_looks((18.5, "closed")), HEARD, [])[0] == pytest.approx(1.5)


def test_an_answer_that_could_not_come_through_makes_nothing_fresh() -> None:
    beyond_s, _ = closed_while_stale_s(_looks((12.0, "closed")), HEARD, [Span(2.05, 30.0)])
    assert beyond_s == pytest.approx(3.0)


def test_the_time_to_unknown_runs_from_the_last_answer_that_came_through() -> None:
    looks = _looks((12.0, "closed"), (15.5, "unknown"), (20.0, "unknown"))
    assert time_to_unknown_s(looks, [*HEARD, LATER], []) == pytest.approx([5.5])


def test_a_silence_in_which_the_board_did_not_answer_is_not_measured() -> None:
    looks = [Look(12.0, None, None), Look(15.5, "unknown", None)]
    assert time_to_unknown_s(looks, [*HEARD, LATER], []) == []


def test_everything_works_again_when_the_polls_rise_not_when_they_are_known() -> None:
    looks = [Look(float(at_s), None, polls) for at_s, polls in [(1, 7), (3, 7), (4, None), (5, 7), (6, 9)]]
    assert recovered_at_s(looks, 2.0) == 6.0
    assert recovered_at_s(looks[:-1], 2.0) is None


def test_an_agent_is_awake_from_start_to_end_but_for_its_freezes() -> None:
    history = History(lives=[Span(0.0, 10.0), Span(12.0)], freezes=[Span(3.0, 5.0), Span(13.0)])
    awake = [(span.from_s, span.until_s) for span in history.awake()]
    assert awake == [(0.0, 3.0), (5.0, 10.0), (12.0, 13.0)]


def test_a_steered_clock_is_ahead_by_what_stands_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("0")
    read_ns = steer(file, lambda: 100 * NS_PER_S)
    assert read_ns() == 100 * NS_PER_S
    file.write_text("-3600")
    assert read_ns() == -3500 * NS_PER_S
