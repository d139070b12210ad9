"""Watching ourselves: the wall clock, and whether every loop still advances.

A wall clock that steps by more than a second against the monotonic one is said in an observation; it changes labels
and nothing else. The supervisor's watchdog is told that all is well only when each loop has advanced since the last
time: a hung thread is not alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from edge_agent.domain.units import NS_PER_MS, NS_PER_S
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Clock

CLOCK_STEP_NS: Final = 1 * NS_PER_S
"""A difference above this between two readings is a step, not a slew (kernels slew by 0.5 ms a second)."""

CLOCK_WATCH_S: Final = 1.0

WATCHDOG_PING_S: Final = 2.0
"""Often enough for a WatchdogSec of 10."""


class Pulse:
    """Which loops have advanced since the last ping."""

    def __init__(self, loops: Iterable[str]) -> None:
        self._loops = frozenset(loops)
        self._advanced: set[str] = set()

    def advance(self, name: str) -> Callable[[], None]:
        """What a loop calls at each turn."""
        assert name in self._loops
        return lambda: self._advanced.add(name)

    def take(self) -> bool:
        """Whether all have advanced since this last said so."""
        if self._advanced != self._loops:
            return False
        self._advanced.clear()
        return True


def step_ms(before: WallPair, now: WallPair) -> int | None:
    """By how much the wall clock stepped between two readings, None when it did not."""
    step_ns = now.utc - before.utc_at(now.mono)
    return step_ns // NS_PER_MS if abs(step_ns) > CLOCK_STEP_NS else None


async def watch_clock(
    clock: Clock,
    pair: WallPair,
    on_pair: Callable[[WallPair], None],
    on_step: Callable[[int], None],
    advance: Callable[[], None],
) -> None:
    """Read both clocks for ever; `on_step` gets milliseconds, positive when the wall clock was put forward."""
    while True:
        await asyncio.sleep(CLOCK_WATCH_S)
        newer = clock.pair()
        stepped = step_ms(pair, newer)
        pair = newer
        on_pair(pair)
        if stepped is not None:
            on_step(stepped)
        advance()


async def feed_watchdog(pulse: Pulse, notify: Callable[[str], None]) -> None:
    """Ping the supervisor for ever, as long as there is life."""
    while True:
        await asyncio.sleep(WATCHDOG_PING_S)
        if pulse.take():
            notify("WATCHDOG=1")
