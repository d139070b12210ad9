"""Watching ourselves: clock steps are told, slews are not; a hung loop silences the watchdog."""

from __future__ import annotations

import asyncio

import pytest

from edge_agent.domain.units import NS_PER_MS, NS_PER_S, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.runtime.watch import Pulse, feed_watchdog, step_ms
from tests.simulation.virtual_loop import run_virtual, virtual_loop


def pair(mono_s: float, utc_s: float) -> WallPair:
    return WallPair(MonoNs(round(mono_s * NS_PER_S)), UtcNs(round(utc_s * NS_PER_S)), synced=True)


@pytest.mark.parametrize(
    ("stepped_s", "told_ms"),
    [
        (0, None),
        (0.9, None),
        (-1.0, None),
        (1.5, 1500),
        (-3600, -3_600_000),
        (10 * 365 * 86400, 315_360_000_000),
    ],
)
def test_only_a_step_of_more_than_a_second_is_a_step(stepped_s: float, told_ms: int | None) -> None:
    assert step_ms(pair(100, 5000), pair(101, 5001 + stepped_s)) == told_ms


def test_a_suspended_machine_is_no_step() -> None:
    """CLOCK_BOOTTIME goes on while suspended, as the wall clock does."""
    assert step_ms(pair(100, 5000), pair(7300, 12_200)) is None


def looks(pulse: Pulse, *advancing: str, count: int = 1) -> list[bool]:
    """What so many looks find while these loops advance and the others hang."""
    found = []
    for _ in range(count):
        for name in advancing:
            pulse.advance(name)()
        found.append(pulse.look())
    return found


def test_a_loop_that_hangs_is_noticed_at_the_second_look() -> None:
    pulse = Pulse({"poll a": 0, "poll b": 0, "pump": 0})
    assert looks(pulse, "poll a", "poll b", "pump") == [True]
    assert looks(pulse, "poll a", "pump", count=3) == [True, False, False]
    assert looks(pulse, "poll a", "poll b", "pump") == [True]


def test_a_loop_whose_reads_may_take_long_is_alive_for_as_long_as_that() -> None:
    pulse = Pulse({"slow line": 9_000, "pump": 0})
    assert looks(pulse, "pump", count=8) == [True] * 6 + [False] * 2
    assert looks(pulse, "slow line", count=2) == [True, False]


def test_beats_rise_only_with_life() -> None:
    pulse = Pulse({"poll a": 0})
    looks(pulse, "poll a", count=3)
    assert pulse.beats == 3
    looks(pulse, count=5)
    assert pulse.beats == 4


def test_a_loop_without_a_name_cannot_vouch() -> None:
    with pytest.raises(AssertionError):
        Pulse({"pump": 0}).advance("bystander")


def test_a_step_is_whole_milliseconds() -> None:
    later = WallPair(MonoNs(NS_PER_S), UtcNs(3 * NS_PER_S + NS_PER_MS // 2), synced=True)
    assert step_ms(pair(0, 0), later) == 2000


def test_the_supervisor_gets_no_ping_while_a_loop_hangs_though_all_others_go_on() -> None:
    pings: list[float] = []

    async def main() -> None:
        pulse = Pulse({"poll a": 0, "pump": 0})
        feeding = asyncio.create_task(feed_watchdog(pulse, lambda _: pings.append(virtual_loop().time())))
        for second in range(60):
            pulse.advance("pump")()
            if not 20 <= second < 40:
                pulse.advance("poll a")()
            await asyncio.sleep(1)
        feeding.cancel()

    run_virtual(main)
    assert [at for at in pings if at < 20] == [2.0 * n for n in range(1, 10)]
    assert not [at for at in pings if 24 < at < 40]
    assert [at for at in pings if at > 42]
