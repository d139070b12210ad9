"""Steps of the wall clock, journaled: deadlines that count in the gateway's time are shifted by them.

The clock holds back a step forward until it is journaled here, and leaps in that transaction: what was stamped before
is shifted, what is stamped after is not, and nothing is due in between. Sessions count real time, too.

Source: the outside contract's promise that time never runs back in the journal; ISA-18.2 timers count real time.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NoReturn, Protocol

from gateway.domain.journal import ClockStepped
from gateway.ports import (
    AccountsUnavailable,
    ClockStep,
    Journal,
    JournalUnavailable,
    Recording,
    SteppingClock,
)
from gateway.services.pulse import Advance

WATCH_S = 1.0
"""How often the clock is asked."""


class Sessions(Protocol):
    """Who is signed in, until when."""

    async def shift(self, leap_ms: int) -> None:
        """Gateway time leaps: what lasts goes on lasting as long. Raises `AccountsUnavailable`."""
        ...


async def watch_clock(
    journal: Journal, clock: SteppingClock, sessions: Sessions, advance: Advance
) -> NoReturn:
    """Journal every step, for ever; one that cannot be written now is written later, and the clock waits for it."""
    while True:
        await asyncio.sleep(WATCH_S)
        step = clock.step()
        if step and await _journaled(journal, clock, step) and step.leap_ms:
            with contextlib.suppress(AccountsUnavailable):  # then people have to sign in again
                await sessions.shift(step.leap_ms)
        advance()


async def follow_clock(clock: SteppingClock) -> NoReturn:
    """Follow every step without the journal, while another gateway leads it."""
    while True:
        clock.take_step(clock.step())
        await asyncio.sleep(WATCH_S)


async def _journaled(journal: Journal, clock: SteppingClock, step: ClockStep) -> bool:
    has_leapt = False

    def note(recording: Recording) -> None:
        nonlocal has_leapt
        recording.append(ClockStepped(step.wall_ms, step.leap_ms))
        recording.shift_notices(step.leap_ms)
        clock.take_step(step)
        has_leapt = True

    try:
        await journal.transact(note)
    except JournalUnavailable:
        if has_leapt:
            clock.take_step(ClockStep(-step.wall_ms, -step.leap_ms))
        return False
    return True
