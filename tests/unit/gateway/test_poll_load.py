"""Polls that come late: judged over a full minute of one run, and not before."""

from __future__ import annotations

import pytest

from edge_agent.wire.status import DeviceHealth, Health
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


def of_devices(late: int, others: int, polls_each: int = 10) -> PollLoad:
    """A minute of one device with `late` overruns in all, among `others` that keep up."""
    load = PollLoad()
    for n in range(31):
        polls = polls_each * n
        slow = DeviceHealth(up=True, age_ms=10, polls=polls, errors=0, overruns=late * n // 30)
        well = DeviceHealth(up=True, age_ms=10, polls=polls, errors=0)
        devices = {"slow": slow, **{f"d{k}": well for k in range(others)}}
        total = Health(
            online=True,
            epoch="E",
            boot="b",
            polls=polls * (others + 1),
            overruns=slow.overruns,
            devices=devices,
        )
        load = note_beat(load, total, n * 2000)
    return load


def test_one_bus_that_cannot_keep_up_is_not_made_good_by_many_that_can() -> None:
    load = of_devices(150, others=40)
    assert is_overrunning(load, was_overrunning=False)
    assert load.late_devices == ["slow"]
    assert not is_overrunning(of_devices(10, others=40), was_overrunning=False)


def test_a_hiccup_of_a_device_that_is_polled_seldom_is_no_finding() -> None:
    assert not is_overrunning(of_devices(2, others=40, polls_each=1), was_overrunning=False)
    assert is_overrunning(of_devices(6, others=40, polls_each=1), was_overrunning=False)
