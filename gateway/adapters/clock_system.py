"""The system's clocks: the only place of the gateway that reads one.

Journal time is wall time that never runs back. Within a process it advances with the monotonic clock:

    wall ahead by more than a second ──▶ taken over, and reported as a step (deadlines shift by it, they do not fire)
    wall ahead by less ────────────────▶ taken over (a time server slews in such portions)
    wall behind ───────────────────────▶ time goes on 1/16 slower until the wall has caught up: it neither stands still,
                                         which would stop every deadline, nor stays wrong for ever

CLOCK_BOOTTIME serves as monotonic clock, because it goes on through a suspend.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

STEP_MIN_MS = 1000
"""A wall clock further ahead than this was stepped, not slewed."""

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
        self._now_ms = wall_ms()
        self._step_ms = 0
        self._left_out_ms = 0

    def utc_ms(self) -> int:
        """Milliseconds since 1970 UTC, never less than the last answer."""
        with self._lock:
            mono_ms, wall_ms = self._mono_ms(), self._wall_ms()
            elapsed_ms, self._read_mono_ms = mono_ms - self._read_mono_ms, mono_ms
            due_ms = self._now_ms + elapsed_ms
            if wall_ms >= due_ms:
                if wall_ms - due_ms > STEP_MIN_MS:
                    self._step_ms += wall_ms - due_ms
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

    def take_step_ms(self) -> int:
        """By how much journal time was stepped forward since this was last asked."""
        self.utc_ms()
        with self._lock:
            step_ms, self._step_ms = self._step_ms, 0
            return step_ms
