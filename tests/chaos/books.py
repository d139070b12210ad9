"""Reads the books: served responses, the agents' stores, the gateway's journal. Plain SQLite and JSON, no product code."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.accounting import Committed, Journaled, Occurrence, StatedGap
from tests.chaos.oracle import Sample

RULE: Final = "guard_open_motion"
MIXER_UNIT, READ_INPUTS = 1, 2
CHANNEL_A, CHANNEL_B, RUNNING = 0, 1, 4
FIRST_DELAY_S: Final = 1.0
"""An event that took longer into the journal was held up by something."""


def read_samples(served_log: Path) -> list[Sample]:
    """What the mixer's controller answered about its door, in order of time."""
    samples = []
    for line in served_log.read_text().splitlines():
        if not line.endswith("}"):
            continue  # the stand-in was stopped while it wrote
        served = json.loads(line)
        values = served["values"]
        if (served["unit"], served["fc"]) != (MIXER_UNIT, READ_INPUTS) or values is None:
            continue
        if served["address"] != 0 or len(values) <= RUNNING:
            continue  # a probe of one input
        is_closed = values[CHANNEL_A] and values[CHANNEL_B]
        samples.append(Sample(served["mono_ms"] / 1000, not is_closed and bool(values[RUNNING])))
    return samples


def read_store(path: Path, clocks: Clocks) -> list[Committed]:
    """An agent's whole chain."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT epoch, seq, hash, payload FROM event ORDER BY n").fetchall()
    events = [(epoch, seq, digest, json.loads(payload)) for epoch, seq, digest, payload in rows]
    return [
        Committed(epoch, seq, digest, _when_s(event, clocks), event["prev"])
        for epoch, seq, digest, event in events
    ]


@dataclass(frozen=True, slots=True)
class Clocks:
    """The monotonic clocks that agents of one round had: each ahead of the real one by one of `ahead_s`.

    They lie further apart than a round, from `from_s` to `until_s`, is long: a time says itself which of them told it.
    """

    ahead_s: Sequence[float]
    from_s: float
    until_s: float

    def real_s(self, told_s: float) -> float:
        """The CLOCK_MONOTONIC seconds of a time that an agent told."""
        fitting = [told_s - ahead_s for ahead_s in self.ahead_s]
        return min(fitting, key=lambda real_s: abs(real_s - (self.from_s + self.until_s) / 2))


@dataclass(slots=True)
class JournalBook:
    """The journal, as far as accounts need it. Times are CLOCK_MONOTONIC seconds; delays come of both wall clocks."""

    events: list[Journaled] = field(default_factory=list)
    gaps: list[StatedGap] = field(default_factory=list)
    occurrences: list[Occurrence] = field(default_factory=list)
    delays_s: list[tuple[float, float]] = field(default_factory=list)
    """Of each event: when it happened, and how long it took into the journal."""
    recorded: list[int] = field(default_factory=list)
    """Of each event: the gateway's clock, epoch milliseconds."""
    quarantined: int = 0
    violation_events: list[str] = field(default_factory=list)
    """`site/agent/epoch/seq` of each raise and clear by an agent: what InfluxDB must have."""
    reconciled: int = 0


def read_journal(path: Path, clocks: Clocks, wall_offset_s: float) -> JournalBook:
    """The gateway's book. `wall_offset_s`: UTC minus CLOCK_MONOTONIC."""
    book = JournalBook()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        rows = journal.execute(
            "SELECT recorded_at_ms, kind, payload FROM journal ORDER BY position"
        ).fetchall()
        gaps = journal.execute("SELECT epoch, from_seq, to_seq FROM gaps WHERE final_at_ms IS NOT NULL")
        book.gaps = [StatedGap(*gap) for gap in gaps]
        book.quarantined = journal.execute("SELECT count(*) FROM quarantine").fetchone()[0]
    events = []
    for recorded_ms, kind, payload in rows:
        if kind != "edge_event":
            book.reconciled += kind.startswith("reconciled")
            continue
        event = json.loads(payload)
        events.append(event)
        at_s = _when_s(event, clocks)
        book.events.append(Journaled(event["epoch"], event["seq"], event["hash"], event["prev"]))
        book.recorded.append(recorded_ms)
        book.delays_s.append((at_s, max(0.0, recorded_ms / 1000 - wall_offset_s - at_s)))
        if event["kind"] in {"violation_raised", "violation_cleared"}:
            book.violation_events.append("{site}/{agent}/{epoch}/{seq}".format(**event))
    book.occurrences = list(_occurrences(events, clocks))
    return book


def _occurrences(events: Iterable[Mapping[str, object]], clocks: Clocks) -> Iterator[Occurrence]:
    raised: dict[str, list[float]] = defaultdict(list)
    cleared: dict[str, list[float]] = defaultdict(list)
    proven = set()
    for event in events:
        if event.get("rule") != RULE:
            continue
        name = str(event["occurrence"])
        if event["kind"] == "violation_raised":
            raised[name].append(_when_s(event, clocks))
        if event["kind"] == "violation_cleared":
            cleared[name].append(_when_s(event, clocks))
        if event["kind"] == "violation_raised" and event["basis"] == "proven":
            proven.add(name)
    for name, times in raised.items():
        yield Occurrence(name, tuple(times), tuple(cleared[name]), name in proven)


def _when_s(event: Mapping[str, object], clocks: Clocks) -> float:
    mono_ms = event["mono_ms"]
    assert isinstance(mono_ms, int)
    return clocks.real_s(mono_ms / 1000)
