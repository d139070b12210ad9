"""What a timed rule needs: HELD, the clock of a raise on unknown, and the run of good samples that clears.

HELD(c, t) adds up the time between consecutive samples that are both true. False ends it. A lost reply or an unknown
adds nothing for the interval it touches and resets nothing, for at most `hold_gap_ms` since the last true sample;
after that it starts anew. A source that is unknown already loses no replies: what is true in spite of it, is proven. It fires at the first true sample with sum ≥ t, so t = 0 is the first good sample.
(One lost reply every 0.9 s would otherwise silence a 1 s rule for ever.) Replies of what is not needed to prove the
condition may be lost: an open contact proves an open door, whatever becomes of the other one.

Debouncing ends between two samples, and both of them say that the condition is true: the time from there to the sample
that accepts it is held already. (Waiting for whole polls twice would break the promise of worst-case detection.)

The clock of a U-raise runs on time, not on samples: there may be none. Clearing runs on samples: only data that says
"over" may end a violation.

Source: the rule catalogue's evaluation semantics, HELD, G2–G4 (README, map of rules).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from edge_agent.domain.kleene import Tri
from edge_agent.domain.quality import BlockState
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, MonoNs

Grounds: TypeAlias = "tuple[tuple[Signal, ...], ...]"
"""What proves a condition: of each group one signal."""


def latest(*times: MonoNs | None) -> MonoNs | None:
    """When the last of several conditions began; None where that of one is not known."""
    known = [time for time in times if time is not None]
    return max(known) if len(known) == len(times) else None


def one_of(signals: Iterable[Signal]) -> Grounds:
    """Any one of these proves."""
    return (tuple(signals),)


def each_of(signals: Iterable[Signal]) -> Grounds:
    """All of these are needed."""
    return tuple((signal,) for signal in signals)


class Held:
    """HELD(c, t) over the samples of what some signals are read from; `first` is when it began, `sum_ns` the proven time since."""

    __slots__ = ("_gap_ns", "_inputs", "_interrupted", "_last", "_need_ns", "first", "met_unknown", "sum_ns")

    def __init__(self, need_ms: int, gap_ms: int, inputs: Sequence[Signal]) -> None:
        self._need_ns = need_ms * NS_PER_MS
        self._gap_ns = gap_ms * NS_PER_MS
        self._inputs = inputs
        self.reset()

    def reset(self) -> None:
        """Forget everything: the condition was false."""
        self.first: MonoNs | None = None
        self.sum_ns = 0
        self.met_unknown = False
        self._last: MonoNs | None = None
        self._interrupted = False

    def step(
        self,
        condition: Tri,
        now: MonoNs,
        *,
        sampled: bool,
        begun: MonoNs | None = None,
        grounds: Grounds | None = None,
    ) -> bool:
        """The condition as it stands now, `sampled` when a good reply brought it. Says whether it fires here.

        `begun` is from when a true one counts, where that is known (`Signal.since`). `grounds` are what proves it, by
        default all of the inputs.
        """
        if condition is False:
            self.reset()
            return False
        if condition is None:
            self._interrupted = self.met_unknown = self._last is not None
            return False
        if not sampled:
            return False
        proof = each_of(self._inputs) if grounds is None else grounds
        self._add(now, now if begun is None else min(begun, now), proof)
        return self.sum_ns >= self._need_ns

    def _add(self, now: MonoNs, begun: MonoNs, grounds: Grounds) -> None:
        is_overdue = _is_shaken(grounds, lambda block: block.is_overdue)
        if self._last is None:
            lost = is_overdue or _is_shaken(grounds, lambda block: block.missed_since(begun))
            self.first = now if lost else begun
            self.sum_ns = now - self.first
        else:
            last = self._last
            lost = self._interrupted or _is_shaken(grounds, lambda block: block.missed_since(last))
            if not lost:
                self.sum_ns += now - last
            elif now - last > self._gap_ns:
                self.reset()
        if self.first is None:
            self.first = now
        self._last = now
        # A block that is still failing has not yet ended its gap: the next interval does not count either.
        self._interrupted = is_overdue

    def known_ns(self, now: MonoNs) -> int:
        """How much of the time since `first` is known: all of it, unless something was unknown in between."""
        if self.first is None:
            return 0
        return self.sum_ns if self.met_unknown else now - self.first


def _is_shaken(grounds: Grounds, is_lost: Callable[[BlockState], bool]) -> bool:
    """Whether something that is needed has nothing left that proves it."""
    return any(all(any(map(is_lost, signal.sources())) for signal in group) for group in grounds)


class UnknownClock:
    """How long a result has been unknown in a row of its truth table that raises."""

    __slots__ = ("since",)

    def __init__(self) -> None:
        self.since: MonoNs | None = None

    def step(self, delay_ms: int | None, now: MonoNs) -> MonoNs | None:
        """When to raise, or None in no raising row. A change between raising rows keeps the clock."""
        if delay_ms is None:
            self.since = None
            return None
        if self.since is None:
            self.since = now
        return MonoNs(self.since + delay_ms * NS_PER_MS)


class ClearRun:
    """A run of samples that all say "over"; true or unknown interrupts it."""

    __slots__ = ("_first", "_need_ns")

    def __init__(self, need_ms: int) -> None:
        self._need_ns = need_ms * NS_PER_MS
        self._first: MonoNs | None = None

    def step(self, condition: Tri, now: MonoNs, *, sampled: bool) -> bool:
        """Says whether this is the first sample with `off_delay_ms` since the first false one of the run."""
        if condition is not False:
            self._first = None
            return False
        if not sampled:
            return False
        if self._first is None:
            self._first = now
        return now - self._first >= self._need_ns
