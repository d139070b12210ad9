"""Watching ourselves: the wall clock, and whether every loop still advances.

A wall clock that steps by more than a second against the monotonic one is said in an observation; it changes labels
and nothing else. All is well only while each loop advances: a hung thread is not alive. A loop that waits for a device may
take as long as its read may, and no longer. Supervisor (watchdog) and gateway (beats) are told so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final

from edge_agent.domain.units import NS_PER_MS
from edge_agent.domain.wall import CLOCK_STEP_NS, WallPair
from edge_agent.ports import Clock

CLOCK_WATCH_S: Final = 1.0

WATCHDOG_PING_S: Final = 2.0
"""Often enough for a WatchdogSec of 10; the unit file has 30, which also covers a reload."""


class Pulse:
    """Which loops advance. `loops` with how long (ms) one turn of each may take of right, beyond a moment.

    `beats`: at how many looks all were alive.
    """

    def __init__(self, loops: Mapping[str, int]) -> None:
        look_ms = WATCHDOG_PING_S * 1000
        self._patience = {name: 1 + math.ceil(turn_ms / look_ms) for name, turn_ms in loops.items()}
        self._missed = dict.fromkeys(loops, 0)
        self._advanced: set[str] = set()
        self.beats = 0

    def advance(self, name: str) -> Callable[[], None]:
        """What a loop calls at each turn."""
        assert name in self._patience
        return lambda: self._advanced.add(name)

    def look(self) -> bool:
        """Whether all are alive: have advanced since the last look, or may yet take longer. Every `WATCHDOG_PING_S`."""
        for name, missed in self._missed.items():
            self._missed[name] = 0 if name in self._advanced else missed + 1
        self._advanced.clear()
        is_alive = all(missed <= self._patience[name] for name, missed in self._missed.items())
        self.beats += is_alive
        return is_alive


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
        if pulse.look():
            notify("WATCHDOG=1")
