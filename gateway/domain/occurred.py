"""When an event happened, told by a clock that can be believed.

An agent's wall clock may be unset or wrong (no battery, no time server); its monotonic clock never is. So a time is
the event's `at` when its clock was synchronised (its `wall`, where a store that was once labelled by a clock far ahead
keeps `at` from going back); else it is rebuilt from the monotonic distance to a synchronised event of the same boot,
earlier or later; else it is the time of receipt.

How old it was when it came can be told even so, by what the agent's own clock said then, right or wrong: its beats carry it.

Source: the outside contract, section 5 (`occurred_at`); delivery protocol, section 3.8 (late news).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from edge_agent.wire.event import ClockState, Event
from gateway.domain.instants import parse_utc_ms

LATE_MS: Final = 5_000
"""What is older than this on arrival is late: live events take well under a second, a reconnect's first ones some."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A synchronised event of a boot: its wall time `at` (RFC 3339) and its monotonic time."""

    at: str
    mono_ms: int


def anchor_of(event: Event) -> Anchor | None:
    """The anchor that `event` gives to its boot, None when its clock was not synchronised."""
    at = _believed(event)
    return None if at is None else Anchor(at, event.mono_ms)


@dataclass(frozen=True, slots=True)
class Undated:
    """An event whose time could not be told when it came, for want of an anchor of its boot; one may come later."""

    boot: str
    mono_ms: int


def undated_of(event: Event, occurred: str, received_at: str) -> Undated | None:
    """Whether `occurred` is the time of receipt because nothing better was known."""
    if occurred != received_at or _believed(event) is not None:
        return None
    return Undated(event.boot, event.mono_ms)


def is_late(at: str, now: str) -> bool:
    """Whether what happened `at` is late news `now`, both by one clock; an unreadable time proves nothing."""
    try:
        return parse_utc_ms(now) - parse_utc_ms(at) > LATE_MS
    except (ValueError, OverflowError):
        return False


def occurred_at(event: Event, anchor: Anchor | None, received_at: str) -> str:
    """RFC 3339 time of `event`; `anchor` is one of its boot, or None where the boot has none (yet)."""
    believed = _believed(event)
    if believed is not None:
        return believed
    return received_at if anchor is None else rebuild(anchor, event.mono_ms) or received_at


def rebuild(anchor: Anchor, mono_ms: int) -> str | None:
    """RFC 3339 time of a monotonic time of the anchor's boot; None for one that no calendar has."""
    try:
        at = datetime.fromisoformat(anchor.at) + timedelta(milliseconds=mono_ms - anchor.mono_ms)
    except (ValueError, OverflowError):  # the form of `at` is checked, its sense is not
        return None
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _believed(event: Event) -> str | None:
    """What a synchronised clock said of the event, None where there was none."""
    return event.at if event.clock is ClockState.SYNCED else event.wall
