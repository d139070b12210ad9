"""Journal time: never back, never standing, told when it leapt."""

from __future__ import annotations

from gateway.adapters.clock_system import SLOW_PARTS, SystemClock


class Hands:
    """A wall clock and a monotonic one, wound apart."""

    def __init__(self) -> None:
        self.wall_ms = 1_000_000
        self.mono_ms = 50_000

    def run(self, ms: int) -> None:
        self.wall_ms += ms
        self.mono_ms += ms

    def clock(self) -> SystemClock:
        return SystemClock(wall_ms=lambda: self.wall_ms, mono_ms=lambda: self.mono_ms)


def test_time_is_wall_time_while_both_clocks_agree() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.run(1234)
    assert clock.utc_ms() == 1_001_234
    assert clock.monotonic_ms() == 51_234
    assert clock.take_step_ms() == 0


def test_a_step_forward_is_taken_over_and_told_once() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.run(100)
    hands.wall_ms += 3_600_000
    assert clock.utc_ms() == hands.wall_ms
    assert clock.take_step_ms() == 3_600_000
    assert clock.take_step_ms() == 0


def test_a_small_step_forward_is_slewing_and_is_not_told() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall_ms += 900
    assert clock.utc_ms() == hands.wall_ms
    assert clock.take_step_ms() == 0


def test_a_step_back_slows_time_down_until_the_wall_has_caught_up() -> None:
    hands = Hands()
    clock = hands.clock()
    before = clock.utc_ms()
    hands.wall_ms -= 10_000
    readings = []
    for _ in range(10_000 * SLOW_PARTS // 100):
        hands.run(100)
        readings.append(clock.utc_ms())
    assert readings == sorted(readings)
    assert readings[0] > before
    assert readings[-1] == hands.wall_ms
    assert clock.take_step_ms() == 0


def test_asking_often_does_not_keep_it_from_slowing_down() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall_ms -= 1000
    for _ in range(1600):
        hands.run(1)
        clock.utc_ms()
    assert clock.utc_ms() == 1_000_000 + 1600 - 1600 // SLOW_PARTS


def test_it_begins_no_earlier_than_the_journal_ends() -> None:
    hands = Hands()
    clock = hands.clock()
    clock.not_before(2_000_000)
    hands.run(160)
    assert clock.utc_ms() == 2_000_000 + 150
