"""The drive's speed: run-up, coasting, and when it stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.drive import Drive

RUNUP_MS, RUNDOWN_MS = 3_000, 12_000


def coasting_from(run_ms: int) -> Drive:
    """A drive that ran for `run_ms` from standstill and was then switched off at that time."""
    drive = Drive(RUNUP_MS, RUNDOWN_MS)
    drive.power(0, on=True)
    drive.power(run_ms, on=False)
    return drive


def test_from_full_speed_it_stands_after_exactly_its_rundown_time() -> None:
    drive = coasting_from(10_000)
    assert drive.standstill_ms() == 10_000 + RUNDOWN_MS
    assert drive.speed(10_000 + RUNDOWN_MS - 1) > 0
    assert drive.speed(10_000 + RUNDOWN_MS) == 0


def test_it_runs_up_in_a_straight_line_to_its_rated_speed() -> None:
    drive = Drive(RUNUP_MS, RUNDOWN_MS)
    drive.power(0, on=True)
    assert [drive.speed(ms) for ms in (0, 1_500, 3_000, 60_000)] == [0.0, 0.5, 1.0, 1.0]
    assert drive.standstill_ms() is None


@given(run_ms=st.integers(1, 20_000), steps=st.lists(st.integers(1, 3_000), min_size=2, max_size=20))
def test_coasting_never_speeds_up_and_ends_at_zero(run_ms: int, steps: list[int]) -> None:
    drive = coasting_from(run_ms)
    at_ms, last = run_ms, drive.speed(run_ms)
    for step in steps:
        at_ms += step
        assert drive.speed(at_ms) <= last
        last = drive.speed(at_ms)
    stands_ms = drive.standstill_ms()
    assert stands_ms is not None
    assert drive.speed(stands_ms) == 0
    assert stands_ms <= run_ms + RUNDOWN_MS


@given(switches=st.lists(st.integers(0, 15_000), max_size=12))
def test_switching_never_makes_the_shaft_jump(switches: list[int]) -> None:
    """Speed right before and after each switching is the same."""
    drive = Drive(RUNUP_MS, RUNDOWN_MS)
    now_ms = 0
    for index, pause_ms in enumerate(switches):
        now_ms += pause_ms
        before = drive.speed(now_ms)
        drive.power(now_ms, on=index % 2 == 0)
        assert drive.speed(now_ms) == pytest.approx(before, abs=1e-9)
        assert 0 <= before <= 1
