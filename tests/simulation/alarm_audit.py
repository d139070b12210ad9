"""Alarms, by a fold of our own: which violations are open, and that all agree on it.

The own fold is a dictionary: a raise opens, a clear closes, a reconciled one counts the same. The product's folds,
its rows and its board must each come to the same, and folding the journal again from nothing must give what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_agent.wire.event import ViolationCleared, ViolationRaised
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import (
    EdgeEvent,
    Entry,
    FindingCleared,
    FindingRaised,
    ReconciledClear,
    ReconciledRaise,
)
from gateway.domain.plant_fold import Plant
from gateway.ports import Fold
from tests.simulation.findings import Check

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    parts = auditor.gateway.parts
    if parts is None:
        return
    _audit_replay(auditor)
    _audit_open(auditor, fold_open(auditor.entries))


def fold_open(entries: Sequence[Entry]) -> set[str]:
    """The occurrences open after these entries."""
    names: dict[str, str] = {}
    seen: set[str] = set()
    opened: set[str] = set()
    for entry in entries:
        match entry.body:
            case EdgeEvent(event=event):
                match event.body:
                    case ViolationRaised(occurrence=occurrence) if occurrence not in seen:
                        seen.add(occurrence)
                        opened.add(occurrence)
                    case ViolationCleared(occurrence=occurrence):
                        opened.discard(occurrence if occurrence in opened else names.get(occurrence, ""))
                    case _:
                        pass
            case ReconciledRaise(occurrence=occurrence, listed=listed) if occurrence not in seen:
                seen.add(occurrence)
                names[listed.occurrence] = occurrence
                opened.add(occurrence)
            case FindingRaised(occurrence=occurrence):
                opened.add(occurrence)
            case FindingCleared(occurrence=occurrence) | ReconciledClear(occurrence=occurrence):
                opened.discard(occurrence)
            case _:
                pass
    return opened


def _audit_replay(auditor: Auditor) -> None:
    parts = auditor.gateway.parts
    assert parts is not None
    again: dict[str, Fold] = {"book": AlarmBook(), "plant": Plant(), "findings": OpenFindings()}
    for entry in auditor.entries:
        for fold in again.values():
            fold.stage(entry, None)
    for fold in again.values():
        fold.adopt()
    live: dict[str, Fold] = {"book": parts.book, "plant": parts.plant, "findings": parts.findings}
    for name, fold in live.items():
        if fold.snapshot() != again[name].snapshot():
            auditor.find(Check.REPLAY_EQUALS_LIVE, f"{name}: folded again {again[name].snapshot()}"[:600])


def _audit_open(auditor: Auditor, expected: set[str]) -> None:
    parts = auditor.gateway.parts
    assert parts is not None
    open_rows = auditor.rows("SELECT occurrence FROM violations WHERE cleared_at IS NULL")
    rows = {str(occurrence) for (occurrence,) in open_rows}
    book = set(parts.book._state.violations.adopted())
    board = set(parts.plant.state.violations)
    for name, found in (("rows", rows), ("book", book), ("board", board)):
        if found != expected:
            auditor.find(
                Check.BOARD_EQUALS_BOOK,
                f"{name}: {sorted(found - expected)} should be over, {sorted(expected - found)} should be open",
            )
