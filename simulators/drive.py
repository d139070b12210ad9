"""A motor and what it turns, in closed form: speed at any time without stepping.

Powered, the shaft runs up in a straight line. Unpowered it coasts against viscous and dry friction,

    v(t) = (v0 + c) * exp(-t / tau) - c,

which falls fast at first, never rises and reaches exactly zero, `rundown_ms` after full speed. `c` is the share of
dry friction; at 0.15 two thirds of the speed are gone after about the first half of the run-down, as with a loaded
muller. Speeds are shares of the rated speed.
"""

from __future__ import annotations

import math
from typing import Final

DRY_FRICTION: Final = 0.15


class Drive:
    """Speed of one shaft as a function of time; `power` bends the curve from `now_ms` on."""

    __slots__ = ("_from_ms", "_from_speed", "_powered", "_runup_ms", "_tau_ms")

    def __init__(self, runup_ms: int, rundown_ms: int) -> None:
        self._runup_ms = runup_ms
        self._tau_ms = rundown_ms / math.log((1 + DRY_FRICTION) / DRY_FRICTION)
        self._powered = False
        self._from_ms = 0
        self._from_speed = 0.0

    @property
    def powered(self) -> bool:
        """Whether the motor drives."""
        return self._powered

    def power(self, now_ms: int, *, on: bool) -> None:
        """Switch the motor; the shaft goes on from the speed it has."""
        self._from_speed = self.speed(now_ms)
        self._from_ms = now_ms
        self._powered = on

    def speed(self, now_ms: int) -> float:
        """Share of the rated speed, 0 to 1, at `now_ms` (not before the last `power`)."""
        elapsed = now_ms - self._from_ms
        if self._powered:
            return min(1.0, self._from_speed + elapsed / self._runup_ms)
        if elapsed >= self._coasting_ms():
            return 0.0
        return max(0.0, (self._from_speed + DRY_FRICTION) * math.exp(-elapsed / self._tau_ms) - DRY_FRICTION)

    def standstill_ms(self) -> int | None:
        """When the shaft stands, null while the motor drives."""
        return None if self._powered else self._from_ms + self._coasting_ms()

    def _coasting_ms(self) -> int:
        return math.ceil(self._tau_ms * math.log((self._from_speed + DRY_FRICTION) / DRY_FRICTION))
