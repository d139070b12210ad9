"""Polls that come late: judged over a full minute of one run, and not before."""

from __future__ import annotations

import pytest

from edge_agent.wire.status import Health
from gateway.domain.poll_load import WINDOW_MS, PollLoad, is_overrunning, note_beat


def beats(
    count: int, late_pct: int, load: PollLoad | None = None, epoch: str = "E", at_ms: int = 0
) -> PollLoad:
    """`count` beats, two seconds apart, of a run whose polls overran so often from its start."""
    load = load or PollLoad()
    for n in range(count):
        health = Health(online=True, epoch=epoch, boot="b", polls=n * 100, overruns=n * late_pct)
        load = note_beat(load, health, at_ms + n * 2000)
    return load


@pytest.mark.parametrize(
    ("late_pct", "was", "verdict"),
    [
        (0, False, False),
        (5, False, False),
        (6, False, True),
        (5, True, True),
        (1, True, True),
        (0, True, False),
    ],
)
def test_more_than_five_percent_raise_and_fewer_than_one_clear(
    late_pct: int,
    was: bool,
    verdict: bool,
) -> None:
    assert is_overrunning(beats(31, late_pct), was_overrunning=was) is verdict


@pytest.mark.parametrize("was", [True, False])
def test_before_a_minute_is_heard_the_verdict_stays(was: bool) -> None:
    assert is_overrunning(beats(30, 50), was_overrunning=was) is was
    assert is_overrunning(PollLoad(), was_overrunning=was) is was


def test_another_run_begins_anew_since_its_counters_do() -> None:
    load = beats(30, 0, beats(60, 50), epoch="F", at_ms=120_000)
    assert not load.is_full
    assert (load.polls, load.overruns) == (2900, 0)


def test_a_minute_without_a_beat_begins_anew() -> None:
    assert not beats(1, 0, beats(60, 50), at_ms=118_000 + WINDOW_MS).is_full


def test_what_is_kept_is_the_window_and_no_more() -> None:
    load = beats(1000, 7)
    assert (len(load.beats), load.polls, load.overruns) == (31, 3000, 210)
