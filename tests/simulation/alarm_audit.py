"""Alarms, by a fold of our own: which violations are open, that all agree on it, and that people were told.

The own fold is a dictionary: a raise opens, a clear closes, a reconciled one counts the same. The product's folds,
its rows and its board must each come to the same, and folding the journal again from nothing must give what runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from edge_agent.wire.event import Priority, ViolationChanged, ViolationCleared, ViolationRaised
from gateway.adapters.store_sql.journal import fold_entries
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

TOLD: Final = frozenset({Priority.P1, Priority.P2})
"""What the simulated gateway's routes are for."""


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    parts = auditor.gateway.parts
    if parts is None:
        return
    entries = parts.journal.entries_after(0, 1_000_000)
    _audit_replay(auditor)
    _audit_open(auditor, fold_open(entries))
    _audit_told(auditor, entries)


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
    with parts.journal.readers.connect() as connection:
        fold_entries(connection, again, {})
    live: dict[str, Fold] = {"book": parts.book, "plant": parts.plant, "findings": parts.findings}
    for name, fold in live.items():
        if fold.snapshot() != again[name].snapshot():
            auditor.find(Check.REPLAY_EQUALS_LIVE, f"{name}: folded again {again[name].snapshot()}"[:600])


def _audit_open(auditor: Auditor, expected: set[str]) -> None:
    parts = auditor.gateway.parts
    assert parts is not None
    with sqlite3.connect(auditor.gateway.path) as reader:
        rows = {
            row[0] for row in reader.execute("SELECT occurrence FROM violations WHERE cleared_at IS NULL")
        }
    reader.close()
    book = set(parts.book._state.violations.adopted())
    board = set(parts.plant.state.violations)
    for name, found in (("rows", rows), ("book", book), ("board", board)):
        if found != expected:
            auditor.find(
                Check.BOARD_EQUALS_BOOK,
                f"{name}: {sorted(found - expected)} should be over, {sorted(expected - found)} should be open",
            )


def _audit_told(auditor: Auditor, entries: Sequence[Entry]) -> None:
    received, rejected = auditor.gateway.received.alerts, auditor.gateway.received.rejected
    with sqlite3.connect(auditor.gateway.path) as reader:
        states = dict(reader.execute("SELECT key, state FROM notices").fetchall())
    reader.close()
    for key, state in states.items():
        if state == "delivered" and key not in received:
            auditor.find(Check.ROUTED_ALARM_NOTIFIED, f"{key} is said to be delivered")
        if state == "pending":
            auditor.find(Check.ROUTED_ALARM_NOTIFIED, f"{key} still waits")
    for occurrence, priority in _to_tell(entries).items():
        for person in ("li-qiang", "wang-fang") if priority is Priority.P1 else ("li-qiang",):
            key = f"{occurrence}/raised/1/{person}/hook"
            was_told = key in received or key in rejected or states.get(key) in {"summarised", "withdrawn"}
            if not was_told:
                auditor.find(
                    Check.ROUTED_ALARM_NOTIFIED, f"{key} never left ({states.get(key, 'was never decided')})"
                )


def _to_tell(entries: Sequence[Entry]) -> dict[str, Priority]:
    """Violations that people must hear of, with the priority at which they were first heard here."""
    found: dict[str, Priority] = {}
    hidden: dict[str, Priority] = {}
    for entry in entries:
        match entry.body:
            case EdgeEvent(event=event):
                match event.body:
                    case ViolationRaised() as raised:
                        bag = found if raised.hidden_by is None else hidden
                        bag.setdefault(raised.occurrence, raised.priority)
                    case ViolationChanged() as changed if changed.occurrence in hidden:
                        if changed.hidden_by is None and hidden.pop(changed.occurrence):
                            found.setdefault(changed.occurrence, changed.priority)
                    case _:
                        pass
            case FindingRaised(occurrence=occurrence, priority=priority):
                found.setdefault(occurrence, priority)
            case _:
                pass
    return {occurrence: priority for occurrence, priority in found.items() if priority in TOLD}
