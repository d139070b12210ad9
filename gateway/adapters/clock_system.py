"""The system's clocks: the only place of the gateway that reads one.

Journal time is wall time that never runs back. Within a process it advances with the monotonic clock:

    wall ahead by more than a second ──▶ a step: time goes on as it was until the journal has an entry that says so, and
                                         leaps in that very transaction (deadlines shift by it, they do not fire)
    wall ahead by less ────────────────▶ taken over (a time server slews in such portions)
    wall behind ───────────────────────▶ time goes on 1/16 slower until the wall has caught up: it neither stands still,
                                         which would stop every deadline, nor stays wrong for ever

Every step of the wall clock against the monotonic one is told, backwards too. CLOCK_BOOTTIME serves as monotonic clock,
because it goes on through a suspend.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from gateway.ports import ClockStep

STEP_MIN_MS = 1000
"""A wall clock that differs by more than this was stepped, not slewed."""

SLOW_PARTS = 16
"""While the wall clock is behind, each so-many-th millisecond is left out: an hour is made good in 16 hours."""


class SystemClock:
    """`gateway.ports.Clock`."""

    def __init__(
        self,
        *,
        wall_ms: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) // 1_000_000,
        mono_ms: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
    ) -> None:
        self._wall_ms = wall_ms
        self._mono_ms = mono_ms
        self._lock = Lock()  # the writer thread and the event loop both ask
        self._read_mono_ms = mono_ms()
        self._read_wall_ms = self._now_ms = wall_ms()
        self._step_ms = 0
        self._left_out_ms = 0

    def utc_ms(self) -> int:
        """Milliseconds since 1970 UTC, never less than the last answer."""
        with self._lock:
            return self._advance()

    def _advance(self) -> int:
        mono_ms, wall_ms = self._mono_ms(), self._wall_ms()
        elapsed_ms, self._read_mono_ms = mono_ms - self._read_mono_ms, mono_ms
        step_ms, self._read_wall_ms = wall_ms - self._read_wall_ms - elapsed_ms, wall_ms
        if abs(step_ms) > STEP_MIN_MS:
            self._step_ms += step_ms
        due_ms = self._now_ms + elapsed_ms
        if wall_ms - due_ms > STEP_MIN_MS:
            self._now_ms = due_ms
        elif wall_ms >= due_ms:
            self._now_ms = wall_ms
        else:
            self._left_out_ms += elapsed_ms
            left_out_ms, self._left_out_ms = divmod(self._left_out_ms, SLOW_PARTS)
            self._now_ms = max(wall_ms, due_ms - left_out_ms)
        return self._now_ms

    def not_before(self, utc_ms: int) -> None:
        """Begin no earlier than this: the time of the journal's last entry."""
        with self._lock:
            self._now_ms = max(self._now_ms, utc_ms)

    def monotonic_ms(self) -> int:
        """Milliseconds of a clock that never steps."""
        return self._mono_ms()

    def step(self) -> ClockStep:
        """What has to be journaled: by how much the wall clock stepped, and journal time has to leap."""
        with self._lock:
            now_ms = self._advance()
            ahead_ms = self._read_wall_ms - now_ms
            return ClockStep(self._step_ms, ahead_ms if ahead_ms > STEP_MIN_MS else 0)

    def take_step(self, step: ClockStep) -> None:
        """It is in the journal: leap."""
        with self._lock:
            self._step_ms -= step.wall_ms
            self._now_ms += step.leap_ms
