"""A hole in the stream of a store that was lost stayed an open gap for ever, and its agent degraded with it.

A straggler of the old store arrives after the new one: what lies before it never comes. The next complete report of
the new store, reached in order, proves that.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.wire.event import Event
from edge_agent.wire.topics import Channel, topic
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import GapClosed, GapFound
from gateway.services.ingest import Ingest
from gateway.services.presence import PresenceWatch
from tests.scripted_agent import AGENT, SITE, Store, note, report, ulid
from tests.unit.gateway.journal_rig import FakeIntake, Letter, WoundClock


def letters(*events: Event) -> list[Letter]:
    return [Letter(topic(SITE, AGENT, Channel.EVENTS), event.payload) for event in events]


async def test_a_gap_of_a_lost_store_ends_with_the_new_stores_report(tmp_path: Path) -> None:
    clock, findings = WoundClock(), OpenFindings()
    journal = await SqlJournal.open(f"sqlite:///{tmp_path}/g.db", clock, {"findings": findings})
    ingest = Ingest(journal, FakeIntake(), clock, findings, PresenceWatch(journal, clock, findings))
    lost, new = Store(), Store()
    lost.start(ulid(1))
    for _ in range(5):
        lost.add(note())
    new.start(ulid(2))

    await ingest.take(letters(lost.events[0], *new.events))
    await ingest.take(letters(lost.events[5]))  # a straggler: 2 to 5 never come
    clock.now_ms += 6_000
    await ingest.tick()
    new.add(report())
    await ingest.take(letters(new.events[-1]))
    clock.now_ms += 60_000
    await ingest.tick()

    entries = [entry.body for entry in journal.entries_after(0, 1000)]
    closed = {body.gap for body in entries if isinstance(body, GapClosed)}
    assert [body.gap for body in entries if isinstance(body, GapFound) and not body.final] == sorted(closed)
    assert not findings.adopted_subjects()
    await journal.close()


async def test_a_hole_of_a_run_that_an_older_image_never_had_is_forgotten_with_its_report(
    tmp_path: Path,
) -> None:
    clock, findings = WoundClock(), OpenFindings()
    journal = await SqlJournal.open(f"sqlite:///{tmp_path}/g.db", clock, {"findings": findings})
    ingest = Ingest(journal, FakeIntake(), clock, findings, PresenceWatch(journal, clock, findings))
    lost = Store()
    lost.start(ulid(1))
    for _ in range(5):
        lost.add(note())
    image = Store(events=lost.events[:1])
    image.start(ulid(2))
    image.add(report())

    await ingest.take(letters(lost.events[0], lost.events[5]))
    await ingest.take(letters(*image.events))
    clock.now_ms += 60_000
    await ingest.tick()

    assert not [entry for entry in journal.entries_after(0, 1000) if isinstance(entry.body, GapFound)]
    await journal.close()
