"""One interpreted point: its accepted value, its quality, its debouncing.

A signal's value is what the rules see: None while unknown. Debouncing is driven by samples: a new value is accepted
at the first sample at which the content has differed from the accepted value for its debouncing time, which may differ
for changes to true and to false. From unknown, the
first good content is accepted at once, because there is no value to protect from bouncing; content that the decoder
refuses (None) makes the signal unknown at once, because the last value must not outlive a reply that contradicts it.
So does a presence check that does not hold: content of something that may be absent says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from edge_agent.domain.decode import Value
from edge_agent.domain.plan import SignalPlan
from edge_agent.domain.quality import BlockState, worst
from edge_agent.domain.units import NS_PER_MS, MonoNs
from edge_agent.wire.event import Quality


class Proof(Protocol):
    """A presence check, as what it covers sees it."""

    @property
    def signal(self) -> Signal:
        """The coded bit that proves."""
        ...

    def doubt(self, block: BlockState) -> Quality | None:
        """What content of `block` is worth because of this check; None when nothing is against it."""
        ...


class Signal:
    """The present state of one signal; `fell_at` is when it last went from true to false with nothing unknown between.

    `since` is from when its value counts: the sample that brought it, or the end of its debouncing, which may lie up to a
    poll before the sample that accepted it; None where its block's content may not be used.
    """

    __slots__ = (
        "_differs_since",
        "_offered",
        "block",
        "checks",
        "fell_at",
        "plan",
        "quality",
        "since",
        "value",
    )

    def __init__(self, plan: SignalPlan, block: BlockState) -> None:
        self.plan = plan
        self.block = block
        self.checks: tuple[Proof, ...] = ()
        self.value: Value = None
        self.quality = block.quality
        self.fell_at: MonoNs | None = None
        self.since: MonoNs | None = None
        self._differs_since: MonoNs | None = None
        self._offered: Value = None

    @property
    def is_good(self) -> bool:
        """Whether its value may be believed."""
        return self.quality is Quality.GOOD

    @property
    def is_pending(self) -> bool:
        """Whether a block that it needs has neither had a reply nor waited long enough for one."""
        return any(block.is_pending for block in self.sources())

    def sources(self) -> Iterator[BlockState]:
        """The blocks that it needs: its own, and those of what proves it."""
        yield self.block
        for check in self.checks:
            yield check.signal.block

    @property
    def truth(self) -> bool | None:
        """Its value as three-valued truth; None when unknown."""
        return None if self.value is None else bool(self.value)

    def take(self, content: Value, now: MonoNs) -> bool:
        """New content from a good reply. Says whether value or quality changed."""
        if self.checks:
            doubts = [doubt for check in self.checks if (doubt := check.doubt(self.block)) is not None]
            if doubts:
                return self.blind(worst(doubts))
        self._offered = content
        if content is None:
            return self._become(None, Quality.CONFIG_BAD, now)
        if self.value is None or not self._debounce_ns(content):
            return self._become(content, Quality.GOOD, now)
        if content == self.value:
            self._end_debouncing()
            return False
        if self._differs_since is None:
            self._differs_since = now
            self.block.debouncing += 1
            return False
        return self.ripen(now)

    def ripen(self, now: MonoNs) -> bool:
        """A further sample with the same content: accept it when it has differed long enough."""
        if self._differs_since is None:
            return False
        counts_from = MonoNs(self._differs_since + self._debounce_ns(self._offered))
        if now < counts_from:
            return False
        changed = self._become(self._offered, Quality.GOOD, now)
        self.since = counts_from
        return changed

    def _debounce_ns(self, content: Value) -> int:
        coding = self.plan.coding
        return (coding.debounce_off_ms if content is False else coding.debounce_on_ms) * NS_PER_MS

    def blind(self, quality: Quality) -> bool:
        """Its block's content may no longer be used. Says whether value or quality changed."""
        self._end_debouncing()
        changed = self.value is not None or quality is not self.quality
        self.value, self.quality, self.since = None, quality, None
        return changed

    def move(self, block: BlockState) -> None:
        """Its content comes with `block` from now on; what is under way goes on."""
        if self._differs_since is not None:
            self.block.debouncing -= 1
            block.debouncing += 1
        self.block = block

    def _become(self, value: Value, quality: Quality, now: MonoNs) -> bool:
        self._end_debouncing()
        if value == self.value and quality is self.quality:
            return False
        if value is False and self.value is True:
            self.fell_at = now
        self.value, self.quality, self.since = value, quality, now
        return True

    def _end_debouncing(self) -> None:
        if self._differs_since is not None:
            self._differs_since = None
            self.block.debouncing -= 1
