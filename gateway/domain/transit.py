"""How long was a beat on its way? What an agent says is as old as that when it is read.

Theory of operation. A beat names the moment when it was counted, on its agent's monotonic clock. Two monotonic clocks
differ by an unknown constant, so receipt minus that moment is the constant and the way; the least that was seen stands
for the quickest way, and what a beat takes beyond it is how late it came. It may have lain in the broker while nothing
could be journaled, in a socket while a process stood still, or behind a window of events on a slow line: read as of now,
it would vouch for an agent that has been silent since.

    receipt − counted:   1007  1003  1005  …  1004   9204  7203  5204
    late:                   4     0     2  …     1   8201  6200  4201     (the least of the last one or two windows: 1003)

A least is forgotten after one to two windows of beats. A window ages only by what beats have in time of their own: silence
ages it by one pause, and whatever comes at once after it, not at all; so what was held up is never the measure of itself.

What follows from the window's length: a clock that a time server slews as fast as any does (chrony: a twelfth) looks late
by 2 s at most, which ends no presence; a virtual machine that was paused comes back with a clock that lags, and quartzes
drift by some seconds in a day of silence: either looks late until the window has turned twice; a way that has been evenly
slow for so long is the way it is.

Times are milliseconds; `now_ms` of the gateway's monotonic clock, `mono_ms` of the agent's.

Source: the minimum filter of NTP's clock filter algorithm (RFC 5905, section 10): the least delay is the truest;
chrony.conf(5), maxslewrate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_agent.wire.status import HEALTH_PERIOD_MS

WINDOW_MS: Final = 12_000
"""Six beats: enough for a least among them, and a living agent whose clock lags is believed again after twice this."""

PAUSE_MS: Final = 2 * HEALTH_PERIOD_MS
"""By no more than this does one beat age a window."""


@dataclass(frozen=True, slots=True)
class Transit:
    """What the beats of one boot took. `least_ms`: receipt minus counted, in this window (`before_ms`: in the one before).

    `late_ms` is the newest beat's, received at `received_ms`; `age_ms`: how much of this window is over.
    """

    boot: str
    late_ms: int
    received_ms: int
    age_ms: int
    least_ms: int
    before_ms: int


def note_transit(known: Transit | None, boot: str, mono_ms: int, now_ms: int) -> Transit:
    """What is known after one more beat. Another boot's clock begins anew."""
    took_ms = now_ms - mono_ms
    if known is None or known.boot != boot:
        return Transit(boot, 0, now_ms, 0, took_ms, took_ms)
    age_ms = known.age_ms + min(now_ms - known.received_ms, PAUSE_MS)
    least_ms, before_ms = min(known.least_ms, took_ms), known.before_ms
    if age_ms >= WINDOW_MS:
        age_ms, least_ms, before_ms = 0, took_ms, known.least_ms
    return Transit(boot, took_ms - min(least_ms, before_ms), now_ms, age_ms, least_ms, before_ms)
