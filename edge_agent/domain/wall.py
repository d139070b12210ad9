"""Wall-clock labels for monotonic times.

Every decision and duration is made on the monotonic clock. UTC is a label, made from one paired reading of both
clocks: `utc(t) = pair.utc + (t − pair.mono)`. A wall clock that jumps changes labels from then on, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from edge_agent.domain.units import NS_PER_S, MonoNs, UtcNs
from edge_agent.wire.event import ClockState

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_UTC_US_MAX: Final = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z: the last time that RFC 3339 can write."""

CLOCK_STEP_NS: Final = 1 * NS_PER_S
"""A wall clock that differs by more than this from what was expected of it was stepped, not slewed (kernels slew by
0.5 ms a second)."""


@dataclass(frozen=True, slots=True)
class WallPair:
    """Both clocks read together: `mono` and `utc` in nanoseconds, and whether UTC was synchronised then."""

    mono: MonoNs
    utc: UtcNs
    synced: bool

    def utc_at(self, mono: MonoNs) -> UtcNs:
        """The wall time, in nanoseconds since 1970, that this pair gives to a monotonic time of the same boot."""
        return UtcNs(self.utc + mono - self.mono)

    def label(self, mono: MonoNs) -> str:
        """RFC 3339 text, in UTC with microseconds, of a monotonic time of the same boot."""
        return rfc3339(self.utc_at(mono))

    @property
    def clock(self) -> ClockState:
        """How events labelled by this pair say it."""
        return ClockState.SYNCED if self.synced else ClockState.UNSYNCED


def rfc3339(utc: UtcNs) -> str:
    """`2026-11-22T15:08:00.000001Z`: RFC 3339 in UTC with microseconds, truncated; no year before 1970 or after 9999."""
    moment = _EPOCH + timedelta(microseconds=min(max(utc // 1000, 0), _UTC_US_MAX))
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> UtcNs:
    """The inverse of `rfc3339`. Raises `ValueError` for anything that is no RFC 3339 time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    whole = moment - _EPOCH
    return UtcNs((whole.days * 86_400 + whole.seconds) * NS_PER_S + whole.microseconds * 1000)
