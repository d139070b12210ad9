"""What had to be raised: a rule of its own over what the controllers' stand-in really answered.

It shares nothing with the product. Input are the answers to reads of the mixer's discrete inputs (bits 0 and 1 the two
channels of the door, 1 = closed; bit 4 running), each with its time, and the spans in which the agent was awake and
its sight clear. The door is *found open* by an answer with a channel at 0 while the mixer runs.

    an episode     answers that find it open, one after the other, until the first that does not; two with too short
                   a closed time between them for the agent to clear are one
    must be raised found open for T_allow + SURE_S by answers not more than GAP_S apart, the agent awake all the time,
                   its sight clear: a blind interval starts the count anew
    may be raised  found open for T_allow - NEVER_S at least, first answer to last: what the agent was blind for may
                   be held against the door or not, so a blind interval leaves the raise open, and only delays it
    never          shorter

The bounds on time are wide (a shared machine may hold up any process for some tenths of a second); those on counts are
not: an episode that must be raised is raised, and one without a clear time within it at most once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.process import Span

T_ALLOW_S: Final = 1.0
"""Default of an interlocked door without locking."""

OFF_DELAY_S: Final = 2.0
"""Closed for so long clears it."""

SURE_S: Final = 0.7
NEVER_S: Final = 0.15
GAP_S: Final = 0.8
"""Eight polls: an agent that asks so seldom is starved, and proves nothing."""

TELL_S: Final = 1.5
"""How long after the answer that ended an episode its raise may carry a time: the agent judges when it gets round to it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: when it was served (CLOCK_MONOTONIC seconds), and whether it finds the door open on a running mixer."""

    at_s: float
    is_open: bool


@dataclass(frozen=True, slots=True)
class Episode:
    """Answers that found the door open, `from_s` to `until_s`; the first that did not came at `closed_s`.

    `must`: it had to be raised; `times_max`: how often at most.
    """

    from_s: float
    until_s: float
    closed_s: float
    must: bool
    times_max: int
    is_whole: bool

    def could_raise(self, at_s: float) -> bool:
        """Whether a raise at that time is this episode's."""
        first = self.from_s + T_ALLOW_S - NEVER_S
        return self.times_max > 0 and first <= at_s <= self.closed_s + TELL_S

    def is_plainly_open(self, at_s: float) -> bool:
        """Whether something cleared then was cleared with the door open: well within one unbroken opening."""
        return self.is_whole and self.from_s + TELL_S < at_s < self.until_s - GAP_S

    def __str__(self) -> str:
        return f"the opening from {self.from_s:.2f} to {self.until_s:.2f} s"


def episodes(samples: Sequence[Sample], awake: Sequence[Span], blind: Sequence[Span]) -> list[Episode]:
    """All episodes. `awake`: when the agent ran; `blind`: when a fault kept answers from it."""
    runs = _runs(samples)
    found: list[Episode] = []
    group: list[tuple[int, int]] = []
    for first, last in runs:
        if group and _clears(samples, group[-1][1] + 1, first, awake, blind):
            found.append(_episode(samples, group, awake, blind))
            group = []
        group.append((first, last))
    if group:
        found.append(_episode(samples, group, awake, blind))
    return found


def _runs(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """First and last index of each run of open samples."""
    runs: list[tuple[int, int]] = []
    for index, sample in enumerate(samples):
        if not sample.is_open:
            continue
        if runs and runs[-1][1] == index - 1:
            runs[-1] = runs[-1][0], index
        else:
            runs.append((index, index))
    return runs


def _clears(
    samples: Sequence[Sample], first: int, end: int, awake: Sequence[Span], blind: Sequence[Span]
) -> bool:
    """Whether the closed samples from `first` up to `end` were surely seen for long enough to clear."""
    return _longest_seen_s(samples[first:end], awake, blind) >= OFF_DELAY_S + SURE_S


def _episode(
    samples: Sequence[Sample],
    group: Sequence[tuple[int, int]],
    awake: Sequence[Span],
    blind: Sequence[Span],
) -> Episode:
    opened = [samples[first : last + 1] for first, last in group]
    lengths = [part[-1].at_s - part[0].at_s for part in opened]
    closed = group[-1][1] + 1
    return Episode(
        from_s=opened[0][0].at_s,
        until_s=opened[-1][-1].at_s,
        closed_s=samples[closed].at_s if closed < len(samples) else float("inf"),
        must=any(_longest_seen_s(part, awake, blind) >= T_ALLOW_S + SURE_S for part in opened),
        times_max=_times_max(lengths),
        is_whole=len(group) == 1,
    )


def _times_max(lengths: Sequence[float]) -> int:
    """How many raises the openings of one episode allow: each that was long enough, and one for the short ones together.

    (Held time is added up over lost answers, so several short openings may make one long one.)
    """
    long_enough = sum(1 for length in lengths if length >= T_ALLOW_S - NEVER_S)
    return max(long_enough, 1 if sum(lengths) >= T_ALLOW_S - NEVER_S else 0)


def _longest_seen_s(samples: Sequence[Sample], awake: Sequence[Span], blind: Sequence[Span]) -> float:
    """The longest stretch of these samples that one awake agent with clear sight got without a gap."""
    longest = 0.0
    start: Sample | None = None
    last: Sample | None = None
    for sample in samples:
        if not _is_seen(sample.at_s, awake, blind):
            start = last = None
            continue
        if start is None or last is None or not _is_one_sight(last.at_s, sample.at_s, awake, blind):
            start = sample
        last = sample
        longest = max(longest, sample.at_s - start.at_s)
    return longest


def _is_seen(at_s: float, awake: Sequence[Span], blind: Sequence[Span]) -> bool:
    is_awake = any(span.from_s <= at_s <= span.until_s for span in awake)
    return is_awake and not any(span.from_s <= at_s <= span.until_s for span in blind)


def _is_one_sight(one_s: float, next_s: float, awake: Sequence[Span], blind: Sequence[Span]) -> bool:
    """Whether nothing came between two answers: no gap, no other life, no blind moment."""
    if next_s - one_s > GAP_S:
        return False
    is_one_life = any(span.from_s <= one_s and next_s <= span.until_s for span in awake)
    return is_one_life and not any(span.from_s < next_s and span.until_s > one_s for span in blind)
