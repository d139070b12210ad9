"""Whether every loop still advances: a hung thread is not alive.

Each loop joins under a name and says so at every turn; one that waits for news wakes at least every `NAP_S`, so that
"nothing to do" and "hung" are told apart. Once every `LOOK_S` somebody looks: a loop that has not advanced for two
looks in a row, beyond what one of its turns may take of right, is late. Then the supervisor gets no ping any more, and
readiness names it. The pattern is the agent's; the two programs share only what is on the wire.

Source: sd_notify(3); IEC 61508-2's requirement that a watchdog is triggered by the logic it watches, not beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeAlias

LOOK_S: Final = 2.0
"""Often enough for a WatchdogSec of 10."""

NAP_S: Final = 1.0
"""No loop waits longer without saying that it is alive: half of a look."""

COMMIT_MS: Final = 10_000
"""What a turn that writes to the journal may take: the longest commits (a snapshot, a day's backlog) take seconds."""

Advance: TypeAlias = Callable[[], None]
"""What a loop calls at each turn."""


def unwatched() -> None:
    """The `Advance` of a loop that nobody watches."""


class Pulse:
    """Which loops advance."""

    def __init__(self) -> None:
        self._patience: dict[str, int] = {}
        self._missed: dict[str, int] = {}
        self._advanced: set[str] = set()

    def join(self, name: str, turn_ms: int = 0) -> Advance:
        """Watch a loop from now on; `turn_ms`: how long one turn of it may take of right, beyond a moment."""
        self._patience[name] = 1 + math.ceil(turn_ms / (LOOK_S * 1000))
        self._missed[name] = 0
        return lambda: self._advanced.add(name)

    @property
    def late(self) -> list[str]:
        """The loops that do not advance, as of the last look."""
        return sorted(name for name, missed in self._missed.items() if missed > self._patience[name])

    def look(self) -> bool:
        """Whether all advance. Every `LOOK_S`."""
        for name, missed in self._missed.items():
            self._missed[name] = 0 if name in self._advanced else missed + 1
        self._advanced.clear()
        return not self.late


async def feed_watchdog(pulse: Pulse, notify: Callable[[str], None]) -> NoReturn:
    """Ping the supervisor for ever, as long as every loop advances."""
    while True:
        await asyncio.sleep(LOOK_S)
        if pulse.look():
            notify("WATCHDOG=1")


async def probe(touch: Callable[[], Awaitable[None]], advance: Advance) -> NoReturn:
    """Advance as long as `touch` comes back: for a thread that has nothing to do for hours."""
    while True:
        await touch()
        advance()
        await asyncio.sleep(NAP_S)


async def wait_alive(event: asyncio.Event, seconds: float | None, advance: Advance) -> None:
    """Wait for an event, or until it is time (None: whenever), and say once a nap that the loop is alive."""
    loop = asyncio.get_running_loop()
    end_s = math.inf if seconds is None else loop.time() + seconds
    while not event.is_set() and (left_s := end_s - loop.time()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, NAP_S)):
                await event.wait()
        advance()
