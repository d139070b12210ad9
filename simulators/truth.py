"""What really happened: every fact of the cell with its spans of time, for auditors of what the product said.

A fact is (machine, guard or "", name) with a boolean value; the log keeps when each value began and ended. From two
facts comes what rules are about: `both(open, moving)` are the exact spans a door stood open on a moving machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

SPANS_MAX: Final = 200_000  # some weeks of a busy shift, ~30 MB; the oldest go first


class Fact(NamedTuple):
    """Which truth: of a machine (`guard` empty), of a guard, or of a device (`machine` is its id)."""

    machine: str
    guard: str
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """A fact had `value` from `from_ms` until just before `until_ms` (null: still)."""

    fact: Fact
    value: bool
    from_ms: int
    until_ms: int | None

    def length_ms(self, now_ms: int) -> int:
        """How long it lasted, up to `now_ms` at most."""
        return (now_ms if self.until_ms is None else self.until_ms) - self.from_ms


@dataclass(frozen=True, slots=True)
class GuardTruth:
    """A guard as it is: the leaf itself, its bolt (null without a lock), what its channels say, its key."""

    closed: bool
    bolted: bool | None
    channels: tuple[bool, ...]
    bypassed: bool


@dataclass(frozen=True, slots=True)
class MachineTruth:
    """A machine as it is; `speed_rpm` and `moving` are the shaft's, not a sensor's."""

    moving: bool
    powered: bool
    speed_rpm: float
    mode: str
    guards: dict[str, GuardTruth]


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything at one instant; `devices` says who answers with live data."""

    at_ms: int
    machines: dict[str, MachineTruth]
    devices: dict[str, bool]


class TruthLog:
    """The spans of every fact, in the order they ended; open ones last."""

    def __init__(self) -> None:
        self._ended: deque[Span] = deque(maxlen=SPANS_MAX)
        self._open: dict[Fact, Span] = {}

    def note(self, fact: Fact, now_ms: int, *, value: bool) -> None:
        """The fact has `value` from `now_ms` on; noting what already holds changes nothing."""
        last = self._open.get(fact)
        if last is not None:
            if last.value == value:
                return
            if last.from_ms < now_ms:
                self._ended.append(Span(fact, last.value, last.from_ms, now_ms))
        self._open[fact] = Span(fact, value, now_ms, None)

    def spans(self) -> Iterator[Span]:
        """Every span known."""
        yield from self._ended
        yield from self._open.values()

    def of(self, fact: Fact, *, value: bool) -> list[Span]:
        """The spans in which `fact` had `value`, in order of time."""
        return [span for span in self.spans() if span.fact == fact and span.value == value]

    def open_while_moving(self, machine: str, guard: str) -> list[tuple[int, int | None]]:
        """The spans in which the guard was really open and the machine really moving."""
        return overlaps(
            self.of(Fact(machine, guard, "closed"), value=False),
            self.of(Fact(machine, "", "moving"), value=True),
        )


def overlaps(one: Iterable[Span], other: Iterable[Span]) -> list[tuple[int, int | None]]:
    """Where spans of both lists hold at once, as (from_ms, until_ms), in order of time."""
    others = list(other)
    found: list[tuple[int, int | None]] = []
    for a in one:
        for b in others:
            start = max(a.from_ms, b.from_ms)
            ends = [end for end in (a.until_ms, b.until_ms) if end is not None]
            end = min(ends) if ends else None
            if end is None or start < end:
                found.append((start, end))
    return sorted(found, key=lambda span: span[0])
