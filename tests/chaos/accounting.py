"""The books compared: what was put in against what came out, as Jepsen's `total-queue` checker counts.

    lost          was committed, or had to be raised, and is not there
    unexpected    is there, and nothing put it in
    duplicated    is there twice
    out of order  came, but not in the order of its own chain
    recovered     came only after a fault had held it up (not a failure: the proof that something was at stake)

Pure: takes rows that others read, and returns findings. What cannot come any more and is said so (a final gap in the
journal) is excused: it is stated, not lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.oracle import Episode


class Verdict(StrEnum):
    """What may be wrong with the books."""

    LOST = "lost"
    UNEXPECTED = "unexpected"
    DUPLICATED = "duplicated"
    OUT_OF_ORDER = "out of order"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not add up, and when it happened (CLOCK_MONOTONIC seconds; None: nobody knows)."""

    verdict: Verdict
    at_s: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Committed:
    """An event in an agent's store."""

    epoch: str
    seq: int
    hash: str
    at_s: float
    prev: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What it is known by."""
        return self.epoch, self.seq


@dataclass(frozen=True, slots=True)
class Journaled:
    """An agent's event in the gateway's journal; `prev` is the hash of the one before it in its store."""

    epoch: str
    seq: int
    hash: str
    prev: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What it is known by."""
        return self.epoch, self.seq


@dataclass(frozen=True, slots=True)
class StatedGap:
    """Events that the journal says will never come. `to_seq` None: to the end of the epoch."""

    epoch: str
    from_seq: int
    to_seq: int | None

    def covers(self, epoch: str, seq: int) -> bool:
        """Whether it excuses this event."""
        return epoch == self.epoch and self.from_seq <= seq and (self.to_seq is None or seq <= self.to_seq)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A violation of the watched door, as the journal has it. `cleared_s` holds one time for each clear."""

    id: str
    raised_s: tuple[float, ...]
    cleared_s: tuple[float, ...]
    is_proven: bool

    @property
    def from_s(self) -> float:
        """When it was raised first."""
        return min(self.raised_s)

    @property
    def until_s(self) -> float:
        """When it was over; infinite while it is not."""
        return min(self.cleared_s, default=float("inf"))


def account_stream(
    stores: Sequence[Sequence[Committed]], journal: Sequence[Journaled], gaps: Sequence[StatedGap] = ()
) -> list[Finding]:
    """Every committed event is journaled once, in the order of its chain; nothing else is.

    `stores` are the chains of all stores there were, copies and replaced ones included. What a store pruned by age was in it
    all the same: its first event is linked to it.
    """
    pruned = {key for store in stores if store for key in _linked_before(store[0], journal)}
    committed = {event.key: event for store in stores for event in store}
    held = {event.key: event for event in journal}
    findings: list[Finding] = []
    for key, event in committed.items():
        if key not in held and not any(gap.covers(*key) for gap in gaps):
            findings.append(Finding(Verdict.LOST, event.at_s, f"{key} was committed and is not journaled"))
    for key, entry in held.items():
        if key not in pruned and (key not in committed or committed[key].hash != entry.hash):
            findings.append(
                Finding(Verdict.UNEXPECTED, None, f"{key} is journaled, and was never committed so")
            )
    for key, times in Counter(entry.key for entry in journal).items():
        if times > 1:
            at_s = committed[key].at_s if key in committed else None
            findings.append(Finding(Verdict.DUPLICATED, at_s, f"{key} is journaled {times} times"))
    places = {entry.key: place for place, entry in reversed(list(enumerate(journal)))}
    for store in stores:
        findings += _disorder(store, places)
    return findings


def _linked_before(first: Committed, journal: Sequence[Journaled]) -> Iterator[tuple[str, int]]:
    """The journaled events that the chain of hashes leads to from a store's first one: none other can have these hashes."""
    by_hash = {entry.hash: entry for entry in journal}
    prev = first.prev
    while (entry := by_hash.pop(prev, None)) is not None:
        yield entry.key
        prev = entry.prev


def _disorder(store: Sequence[Committed], places: Mapping[tuple[str, int], int]) -> Iterator[Finding]:
    last = -1
    for event in store:
        place = places.get(event.key)
        if place is None:
            continue
        if place < last:
            yield Finding(
                Verdict.OUT_OF_ORDER, event.at_s, f"{event.key} is journaled before what it follows"
            )
        last = max(last, place)


def account_violations(episodes: Sequence[Episode], occurrences: Sequence[Occurrence]) -> list[Finding]:
    """Every episode that had to be raised was, as often as it may, and cleared once; nothing was made up."""
    findings = [finding for occurrence in occurrences for finding in _own_faults(occurrence)]
    for episode in episodes:
        raised = [item for item in occurrences if episode.could_raise(item.from_s)]
        is_covered = any(
            item.from_s <= episode.until_s and item.until_s >= episode.from_s for item in occurrences
        )
        if episode.must and not is_covered:
            findings.append(Finding(Verdict.LOST, episode.from_s, f"{episode} was not raised"))
        if len(raised) > episode.times_max:
            names = ", ".join(item.id for item in raised)
            findings.append(Finding(Verdict.DUPLICATED, episode.from_s, f"{episode} was raised as {names}"))
    for item in occurrences:
        if item.is_proven and not any(episode.could_raise(item.from_s) for episode in episodes):
            text = f"{item.id} was raised at {item.from_s:.2f} s, and no door was open for long enough"
            findings.append(Finding(Verdict.UNEXPECTED, item.from_s, text))
        for episode in episodes:
            if episode.is_plainly_open(item.until_s):
                text = f"{item.id} was cleared at {item.until_s:.2f} s, with the door open: {episode}"
                findings.append(Finding(Verdict.UNEXPECTED, item.until_s, text))
    return findings


def _own_faults(occurrence: Occurrence) -> Iterator[Finding]:
    if len(occurrence.raised_s) > 1:
        text = f"{occurrence.id} is raised {len(occurrence.raised_s)} times"
        yield Finding(Verdict.DUPLICATED, occurrence.from_s, text)
    if len(occurrence.cleared_s) > 1:
        text = f"{occurrence.id} is cleared {len(occurrence.cleared_s)} times"
        yield Finding(Verdict.DUPLICATED, occurrence.from_s, text)
    if not occurrence.cleared_s:
        text = f"{occurrence.id} was raised, and never cleared though the door is shut"
        yield Finding(Verdict.LOST, occurrence.from_s, text)


def account_copies(what: str, wanted: Sequence[str], found: Sequence[str]) -> list[Finding]:
    """A projection of the journal (violation log, InfluxDB) has each of `wanted` once, and nothing else."""
    counted = Counter(found)
    missing = [
        Finding(Verdict.LOST, None, f"{key} is missing in {what}") for key in wanted if not counted[key]
    ]
    twice = [
        Finding(Verdict.DUPLICATED, None, f"{key} stands {times} times in {what}")
        for key, times in counted.items()
        if times > 1
    ]
    known = set(wanted)
    made_up = [
        Finding(Verdict.UNEXPECTED, None, f"{key} stands in {what}, and not in the journal")
        for key in counted
        if key not in known
    ]
    return missing + twice + made_up


def account_messages(
    occurrences: Sequence[Occurrence],
    told: Mapping[str, frozenset[str]],
    summaries_s: Sequence[float],
) -> list[Finding]:
    """Of each proven occurrence people were told its raise and its clear; `told` are the events by occurrence.

    What was over before it could be told is told in a summary: one that came after its raise.
    """
    findings = []
    for item in occurrences:
        is_summarised = any(at_s >= item.from_s for at_s in summaries_s)
        missing = {"raised", "cleared"} - told.get(item.id, frozenset())
        if item.is_proven and missing and not is_summarised:
            text = f"nobody was told that {item.id} was {' and '.join(sorted(missing))}"
            findings.append(Finding(Verdict.LOST, item.from_s, text))
    return findings
