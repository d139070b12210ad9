"""Steps of the wall clock, journaled: deadlines that count in wall time are shifted by them.

Source: the outside contract's promise that time never runs back in the journal; ISA-18.2 timers count real time.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import NoReturn, Protocol

from gateway.domain.journal import ClockStepped
from gateway.ports import Journal, JournalUnavailable, Recording

WATCH_S = 1.0
"""How often the clock is asked: a step is in the journal before most deadlines notice it."""


class SteppingClock(Protocol):
    """A clock that tells its steps."""

    def take_step_ms(self) -> int:
        """By how much journal time was stepped forward since this was last asked."""
        ...


async def watch_clock(journal: Journal, clock: SteppingClock) -> NoReturn:
    """Journal every step, for ever; one that cannot be written now is written with the next."""
    waiting_ms = 0
    while True:
        await asyncio.sleep(WATCH_S)
        waiting_ms += clock.take_step_ms()
        if waiting_ms == 0:
            continue
        with contextlib.suppress(JournalUnavailable):
            await journal.transact(partial(_note, waiting_ms))
            waiting_ms = 0


def _note(step_ms: int, recording: Recording) -> None:
    recording.append(ClockStepped(step_ms))
