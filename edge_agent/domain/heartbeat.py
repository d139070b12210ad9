"""The proof that a controller's program runs: a free-running counter that must be seen to move.

A controller in STOP goes on answering with old data, and so does a gateway that answers from its cache; only the counter
tells. It is judged at samples:

    AWAITED ──moves──▶ BEATING ──a gap in its reading──▶ AWAITED
       │                  │
       └── stale_ms ──────┴── unmoved for stale_ms ──▶ STANDING ──moves──▶ BEATING

Nobody watched the counter before the start and during a gap, so what is read then proves nothing: until it has been
seen to move nothing of the device is believed, and its blocks stay as unknown as they were. Content that differs from
the last one before a gap has moved; after a start the first change counts. A block that is good already stays so for
`stale_ms` after the last movement, also when the counter itself can no longer be read.

Source: the rule catalogue, quality FROZEN; the outside contract, section 2 ("Unknown").
"""

from __future__ import annotations

from enum import Enum, auto

from edge_agent.domain.decode import Value
from edge_agent.domain.quality import BlockState, Supply
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, MonoNs


class Pulse(Enum):
    """What is known of the counter."""

    AWAITED = auto()
    BEATING = auto()
    STANDING = auto()


class Heartbeat:
    """One device's counter. `moved_at` is when it was last seen to move (before that: the start)."""

    __slots__ = ("_content", "_heard_at", "_stale_ns", "_waits_since", "moved_at", "pulse", "signal")

    def __init__(self, signal: Signal, stale_ms: int) -> None:
        self.signal = signal
        self.moved_at = signal.block.requested_at
        self.pulse = Pulse.AWAITED
        self._stale_ns = stale_ms * NS_PER_MS
        self._content: Value = None
        self._heard_at: MonoNs | None = None
        self._waits_since = self.moved_at

    @property
    def home(self) -> BlockState:
        """The block that it is read in."""
        return self.signal.block

    @property
    def content(self) -> Value:
        """What it said last."""
        return self._content

    def hear(self, content: Value, now: MonoNs) -> None:
        """Its content in a good reply; None where that says nothing."""
        was_away = self._heard_at is None or now - self._heard_at >= self.home.stale_ns
        self._heard_at = now
        if content is not None and content != self._content:
            is_first = self._content is None
            self._content = content
            if not is_first:
                self.moved_at, self.pulse = now, Pulse.BEATING
                return
        if was_away and self.pulse is not Pulse.STANDING:
            self.pulse, self._waits_since = Pulse.AWAITED, now
        elif now - (self.moved_at if self.pulse is Pulse.BEATING else self._waits_since) > self._stale_ns:
            self.pulse = Pulse.STANDING

    def supply_of(self, block: BlockState, now: MonoNs) -> Supply:
        """What a good reply of `block` makes of its supply; as it was, while the counter has yet to prove anything."""
        if self.pulse is Pulse.STANDING:
            return Supply.FROZEN
        is_fresh = now - self.moved_at <= self._stale_ns
        if block.supply is Supply.GOOD:
            return Supply.GOOD if is_fresh else Supply.FROZEN
        is_watched = block is self.home or self.home.supply is Supply.GOOD
        return Supply.GOOD if self.pulse is Pulse.BEATING and is_fresh and is_watched else block.supply
