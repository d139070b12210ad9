"""Entries as they lie in the journal table, read back.

What this version does not know is damage, or was written by a younger one; who can tell (`soundness.py`, by links)
does. Either way nothing may be built on the rest: the gateway refuses to go on.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, Integer, Row, bindparam, select

from gateway.adapters.store_sql.engine import StoreError
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.domain.journal import Entry, EntryKind, Mark, StoredBody, load_body, raw_link

READ_CHUNK = 1000
"""Entries read at once where all are: bounds memory, not speed."""

AFTER = (
    select(JOURNAL)
    .where(JOURNAL.c.position > bindparam("after"))
    .order_by(JOURNAL.c.position)
    .limit(bindparam("limit", type_=Integer))
)
"""Built once: whoever projects the journal asks this after every commit."""


def load_entry(row: Row[tuple[object, ...]]) -> Entry:
    """The entry that a row of the journal table holds. Raises `StoreError` for a row that was never written here."""
    try:
        stored = StoredBody(EntryKind(row.kind), payload_bytes(row.payload), row.occurred_at, _marks(row))
        return Entry(row.position, row.recorded_at_ms, load_body(stored))
    except ValueError as error:
        raise StoreError(
            f"entry {row.position} of the journal cannot be read: {error}. It is damaged, or a younger version wrote it"
            " — start that version, or restore a backup; `verify` says more"
        ) from error


def entries_after(connection: Connection, position: int, limit: int) -> list[Entry]:
    """Up to `limit` entries after `position`, in order."""
    rows = connection.execute(AFTER, {"after": position, "limit": limit})
    return [load_entry(row) for row in rows]


def all_after(connection: Connection, position: int) -> Iterator[Entry]:
    """Every entry after `position`, in order."""
    while True:
        entries = entries_after(connection, position, READ_CHUNK)
        yield from entries
        if len(entries) < READ_CHUNK:
            return
        position = entries[-1].position


def payload_bytes(value: object) -> bytes:
    """A payload as it was stored. Raises `ValueError` for another type, which one flipped bit makes of it in SQLite."""
    if not isinstance(value, bytes):
        raise ValueError("a payload that is no bytes")
    return value


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
        body = payload_bytes(row.payload)
        return raw_link(before, row.position, row.recorded_at_ms, row.kind, body, row.occurred_at, row.marks)
    except (TypeError, ValueError):  # another type is possible in a file that somebody changed
        return None


def _marks(row: Row[tuple[object, ...]]) -> tuple[Mark, ...]:
    return tuple(Mark(mark) for mark in row.marks.split())
