"""The books closed: everything read, compared and measured, at the end of a round.

The gateway still runs, the agent is stopped, everything is healed and drained.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from tests.chaos.accounting import (
    Finding,
    Occurrence,
    Verdict,
    account_copies,
    account_messages,
    account_stream,
    account_violations,
)
from tests.chaos.books import RULE, Clocks, JournalBook, read_journal, read_samples, read_store
from tests.chaos.oracle import Episode, episodes
from tests.chaos.plant import Plant
from tests.chaos.process import ROOT, History, Span
from tests.chaos.watch import Look, closed_while_stale_s, time_to_unknown_s
from tests.servers import Influx

TELLING_S: Final = 90.0
"""A message that was refused is tried again after a minute at most (the outside contract, section 4)."""

CATCH_UP_S: Final = 90.0
READ_S: Final = 60.0

BACKLOG_MIN: Final = 50

HELD_UP_S: Final = 1.0
"""An event that took longer into the journal was held up by a fault."""


@dataclass(slots=True)
class Books:
    """What a round proves, and its figures."""

    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    musts: int = 0
    nevers: int = 0
    undecided: int = 0
    raised: int = 0
    delays: list[tuple[float, float]] = field(default_factory=list)
    """Of each event: when it happened (CLOCK_MONOTONIC s), and how long it took into the journal (s)."""
    alert_delays_s: list[float] = field(default_factory=list)
    closed_while_stale_s: float = 0.0
    stale_at_s: float | None = None
    """When that was shown, CLOCK_MONOTONIC seconds."""
    to_unknown_s: list[float] = field(default_factory=list)
    drain_rates: list[float] = field(default_factory=list)
    store_bytes: int = 0
    quarantined: int = 0
    told_again: int = 0
    oom_kills: int = 0
    parts: dict[str, History] = field(default_factory=dict)

    @property
    def recovered(self) -> list[float]:
        """When the events happened that came only after a fault had held them up."""
        return [at_s for at_s, delay_s in self.delays if delay_s > HELD_UP_S]


def close_books(plant: Plant, looks: Sequence[Look]) -> Books:
    """Read everything, compare, measure."""
    books = Books(parts={name: part.history for name, part in plant.parts.items()})
    clocks = Clocks(plant.ahead_s, plant.started_s, time.monotonic())
    samples = read_samples(plant.served_log)
    found = episodes(samples, plant.agent.history.awake(), plant.blind)
    stores = [read_store(path, clocks) for path in (*plant.stores, *plant.replaced_stores)]
    journal = read_journal(plant.journal, clocks, wall_offset_s())
    books.findings += plant.broken
    books.oom_kills = plant.oom_kills
    books.findings += account_stream(stores, journal.events, journal.gaps)
    books.findings += account_violations(found, journal.occurrences)
    books.findings += account_copies(
        "the violation log", [item.id for item in journal.occurrences], _logged(plant)
    )
    if plant.influx is not None:
        books.findings += _in_influx(plant.influx, journal.violation_events)
    books.findings += _told(plant, journal.occurrences, books)
    if not plant.replaced_stores:  # else the evidence has two ends, and says so
        books.findings += _verified(plant)
    _count(books, found, journal)
    if not plant.options.is_clock_steered:  # else the gateway's times are nobody's
        books.delays = journal.delays_s
        books.drain_rates = list(drain_rates(journal.delays_s, plant.dark))
    books.closed_while_stale_s, books.stale_at_s = closed_while_stale_s(looks, samples, plant.dark)
    books.to_unknown_s = time_to_unknown_s(looks, samples, plant.dark)
    books.store_bytes = sum(path.stat().st_size for path in plant.store.parent.glob("gw-*.db*"))
    return books


def drain_rates(delays: Sequence[tuple[float, float]], dark: Sequence[Span]) -> Iterator[float]:
    """Of each cut that left a backlog worth measuring: events per second into the journal, once they flowed."""
    for span in dark:
        journaled = sorted(at_s + delay_s for at_s, delay_s in delays if span.from_s < at_s < span.until_s)
        if len(journaled) >= BACKLOG_MIN and journaled[-1] > journaled[0]:
            yield len(journaled) / (journaled[-1] - journaled[0])


def wall_offset_s() -> float:
    """UTC minus CLOCK_MONOTONIC."""
    return time.time() - time.monotonic()


def _count(books: Books, found: Sequence[Episode], journal: JournalBook) -> None:
    books.events = len(journal.events)
    books.musts = sum(episode.must for episode in found)
    books.nevers = sum(episode.times_max == 0 for episode in found)
    books.undecided = len(found) - books.musts - books.nevers
    books.raised = len(journal.occurrences)
    books.quarantined = journal.quarantined


def _verified(plant: Plant) -> list[Finding]:
    """What the products' own verifiers say of agent's store and journal."""
    findings = []
    config = plant.gateway_disk.folder / "gateway.yaml"
    for module, evidence in (("edge_agent", plant.store), ("gateway", config)):
        command = [sys.executable, "-m", module, "verify", str(evidence)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            findings.append(
                Finding(Verdict.UNEXPECTED, None, f"{module} verify ends with {done.returncode}: {said}")
            )
    return findings


def _logged(plant: Plant) -> list[str]:
    """The occurrences of the door in the violation log, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = plant.get(f"/api/v1/violations?rule={RULE}&limit=1000{cursor}", timeout_s=READ_S)
        found += [str(row["occurrence"]) for row in cast("list[dict[str, object]]", page["items"])]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def _in_influx(influx: Influx, wanted: Sequence[str]) -> list[Finding]:
    """Wait until InfluxDB has caught up, as long as a retry may take; what is still missing is lost."""
    bucket = influx.default_bucket()
    flux = (
        f'from(bucket: "{bucket.bucket}") |> range(start: 1970-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z) '
        '|> filter(fn: (r) => r._measurement == "violation" and r._field == "event_id") |> group()'
    )
    deadline_s = time.monotonic() + CATCH_UP_S
    while True:
        found = [str(row["_value"]) for row in bucket.query_lines(flux)]
        own = [event for event in found if not event.startswith("gateway/")]
        findings = account_copies("InfluxDB", wanted, own)
        if not findings or time.monotonic() > deadline_s:
            return findings
        time.sleep(1.0)


def _told(plant: Plant, occurrences: Sequence[Occurrence], books: Books) -> list[Finding]:
    """Wait until everybody was told, as long as a retry may take; what is still untold is lost."""
    deadline_s = time.monotonic() + TELLING_S
    while True:
        told: dict[str, dict[str, float]] = defaultdict(dict)
        keys: set[str] = set()
        again = 0
        summaries = []
        for message in list(plant.mailbox.told):
            event = str(message.body["event"])
            key = str(message.body["delivery"])
            again += key in keys
            keys.add(key)
            told[str(message.body["occurrence"])].setdefault(event, message.at_s)
            if event == "summary":
                summaries.append(message.at_s)
        events = {name: frozenset(times) for name, times in told.items()}
        findings = account_messages(occurrences, events, summaries)
        if not findings or time.monotonic() > deadline_s:
            break
        time.sleep(0.5)
    books.told_again = again
    books.alert_delays_s = [
        told[item.id]["raised"] - item.from_s for item in occurrences if "raised" in told.get(item.id, {})
    ]
    return findings
