"""Entries as they lie in the journal table, read back.

What this version does not know is damage, or was written by a younger one; who can tell (`soundness.py`, by links)
does. Either way nothing may be built on the rest: the gateway refuses to go on.
"""

from __future__ import annotations

from sqlalchemy import Row

from gateway.adapters.store_sql.engine import StoreError
from gateway.domain.journal import Entry, EntryKind, Mark, StoredBody, load_body, raw_link


def load_entry(row: Row[tuple[object, ...]]) -> Entry:
    """The entry that a row of the journal table holds. Raises `StoreError` for a row that was never written here."""
    try:
        stored = StoredBody(EntryKind(row.kind), bytes(row.payload), row.occurred_at, _marks(row))
        return Entry(row.position, row.recorded_at_ms, load_body(stored))
    except ValueError as error:
        raise StoreError(
            f"entry {row.position} of the journal cannot be read: {error}. It is damaged, or a younger version wrote it"
            " — start that version, or restore a backup; `verify` says more"
        ) from error


def refuse_unknown(row: Row[tuple[object, ...]]) -> None:
    """Raises `StoreError` for a sound row that this version does not know."""
    try:
        EntryKind(row.kind), _marks(row)
    except ValueError as error:
        raise StoreError(
            f"entry {row.position} of the journal was written by a younger version ({error}) — start that version,"
            " or restore a backup"
        ) from error


def link_after(before: str, row: Row[tuple[object, ...]]) -> str | None:
    """The link that a row should have, whatever its kind; None for values of which no version made one."""
    try:
        body = bytes(row.payload)
        return raw_link(before, row.position, row.recorded_at_ms, row.kind, body, row.occurred_at, row.marks)
    except (TypeError, ValueError):  # another type is possible in a file that somebody changed
        return None


def _marks(row: Row[tuple[object, ...]]) -> tuple[Mark, ...]:
    return tuple(Mark(mark) for mark in row.marks.split())
