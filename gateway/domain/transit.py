"""How long was a beat on its way? What an agent says is as old as that when it is read.

Theory of operation. A beat names the moment when it was made, on its agent's monotonic clock. Two monotonic clocks
differ by an unknown constant, so receipt minus making is that constant and the way; the least that was seen stands for
the quickest way, and what a beat takes beyond it is how late it came. It may have lain in the broker while nothing could
be journaled, in a socket while a process stood still, or behind a window of events on a slow line: read as of now, it
would vouch for an agent that has been silent since.

    receipt − making:   1007  1003  1005  …  1004   9204  7203  5204
    late:                  4     0     2  …     1   8201  6200  4201     (the least of the last one to two windows: 1003)

The least is forgotten after one to two windows in which beats came: quartzes drift, and a virtual machine that was paused comes
back with a clock that lags. A way that has been even for so long is the way it is.

Times are milliseconds; `now_ms` of the gateway's monotonic clock, `mono_ms` of the agent's.

Source: the minimum filter of NTP's clock filter algorithm (RFC 5905, section 10): the least delay is the truest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW_MS: Final = 60_000
"""Thirty beats: within twice as long two quartzes drift apart by some 12 ms (100 ppm)."""


@dataclass(frozen=True, slots=True)
class Transit:
    """What the beats of one boot took. `least_ms`: receipt minus making, in this window and in the one before."""

    boot: str
    late_ms: int
    turned_ms: int
    least_ms: int
    before_ms: int


def note_transit(known: Transit | None, boot: str, mono_ms: int, now_ms: int) -> Transit:
    """What is known after one more beat; its `late_ms` is that beat's. Another boot's clock begins anew."""
    took_ms = now_ms - mono_ms
    if known is None or known.boot != boot:
        return Transit(boot, 0, now_ms, took_ms, took_ms)
    if now_ms - known.turned_ms >= WINDOW_MS:
        turned_ms, least_ms, before_ms = now_ms, took_ms, known.least_ms
    else:
        turned_ms, least_ms, before_ms = known.turned_ms, min(known.least_ms, took_ms), known.before_ms
    return Transit(boot, took_ms - min(least_ms, before_ms), turned_ms, least_ms, before_ms)
