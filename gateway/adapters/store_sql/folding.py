"""Folds at start: the newest snapshot of each, and the entries after it.

A snapshot is text with its digest before it. One that cannot be used, or was never stored, costs time only: the journal
has it all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import sha256

from sqlalchemy import Connection, delete, func, insert, select

from edge_agent.wire.event import Json
from gateway.adapters.store_sql.entries import READ_CHUNK, all_after
from gateway.adapters.store_sql.schema import JOURNAL, SNAPSHOTS
from gateway.ports import Fold

log = logging.getLogger("guardwatch.journal")


def seal_snapshot(state: str) -> str:
    """A snapshot's JSON with its digest before it."""
    return f"{sha256(state.encode()).hexdigest()}\n{state}"


def open_snapshot(sealed: str) -> str:
    """The JSON of a snapshot. Raises `ValueError` when it is not what was stored."""
    digest, newline, state = sealed.partition("\n")
    if not newline:
        return sealed  # written before snapshots had digests
    if digest != sha256(state.encode()).hexdigest():
        raise ValueError("a snapshot is not what was stored")
    return state


def restore_snapshot(connection: Connection, name: str, fold: Fold) -> int:
    """Let a fold adopt its snapshot; returns its position, 0 where there is none that can be used: the journal has it all."""
    row = connection.execute(select(SNAPSHOTS).where(SNAPSHOTS.c.fold == name)).first()
    if row is None:
        return 0
    try:
        fold.restore(json.loads(open_snapshot(row.state)))
    except ValueError as error:
        log.warning(
            "the snapshot of %s cannot be used, the journal is folded from its beginning: %s", name, error
        )
        return 0
    position: int = row.position
    return position


def replace_snapshots(connection: Connection, snapshots: Mapping[str, Json], position: int) -> None:
    """Store these at `position` in place of all that there are, of other formats, too."""
    rows = [
        {
            "fold": name,
            "position": position,
            "state": seal_snapshot(json.dumps(state, separators=(",", ":"))),
        }
        for name, state in snapshots.items()
    ]
    connection.execute(delete(SNAPSHOTS))
    if rows:
        connection.execute(insert(SNAPSHOTS), rows)


def fold_entries(connection: Connection, folds: Mapping[str, Fold], positions: Mapping[str, int]) -> int:
    """Let each fold adopt the entries after its position; returns the last position.

    With fresh folds and no positions this is the fold from zero that a deep verification compares with.
    """
    last = min(positions.values(), default=0) if positions else 0
    if not folds:
        newest: int | None = connection.execute(select(func.max(JOURNAL.c.position))).scalar()
        return newest or 0
    for entry in all_after(connection, last):
        for name, fold in folds.items():
            if entry.position > positions.get(name, 0):
                fold.stage(entry, None)
        last = entry.position
        if last % READ_CHUNK == 0:
            _adopt(folds)
    _adopt(folds)
    return last


def _adopt(folds: Mapping[str, Fold]) -> None:
    for fold in folds.values():
        fold.adopt()
