"""The time-series database holds one point for each event of the journal that is worth one, and refused lines are kept.

A journal that was lost or restored leaves points of what it had said before: then more may be there, never less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge_agent.wire.event import GuardChanged, MachineChanged, ViolationCleared, ViolationRaised
from gateway.domain.journal import (
    EdgeEvent,
    Entry,
    FindingCleared,
    FindingRaised,
    ReconciledClear,
    ReconciledRaise,
)
from tests.simulation.findings import Check
from tests.simulation.historian import event_of

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    stored = auditor.gateway.points
    refused = {event_of(str(line)) for (line,) in auditor.rows("SELECT line FROM refused_lines")}
    found = Counter(stored.points.values())
    rows = {str(key) for (key,) in auditor.rows("SELECT occurrence FROM violations")}
    expected = set(_expected(auditor.entries, rows))
    for event in sorted(expected - set(found) - refused):
        auditor.find(Check.HISTORIAN_HAS_IT_ALL, f"{event} has no point")
    for event in sorted(refused - stored.refused):
        auditor.find(Check.HISTORIAN_HAS_IT_ALL, f"{event} is said to be refused")
    if auditor.journal_mishaps:
        return
    for event in sorted(set(found) - expected):
        auditor.find(Check.HISTORIAN_HAS_IT_ALL, f"{event} has a point, and is no event")
    for event, times in found.items():
        if times > 1:
            auditor.find(Check.HISTORIAN_HAS_IT_ALL, f"{event} has {times} points")
    for before, event in stored.overwritten:
        auditor.find(Check.HISTORIAN_HAS_IT_ALL, f"the point of {event} took the place of {before}")


def _expected(entries: Sequence[Entry], rows: set[str]) -> Iterator[str]:
    """The events that are worth a point."""
    for entry in entries:
        match entry.body:
            case EdgeEvent(event=event):
                if isinstance(event.body, GuardChanged | MachineChanged | ViolationRaised | ViolationCleared):
                    yield f"{event.site}/{event.agent}/{event.epoch}/{event.seq}"
            case FindingRaised() | FindingCleared() | ReconciledRaise() | ReconciledClear() as own:
                if own.occurrence in rows:
                    yield f"gateway/{entry.position}"
            case _:
                pass
