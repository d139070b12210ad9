"""One transaction of the writer: entries are counted, stored, shown to the folds; rows follow through mixins."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, insert

from edge_agent.wire.event import Unrecognised
from gateway.adapters.store_sql.alarm_rows import SqlAlarmRows
from gateway.adapters.store_sql.intake_rows import SqlIntakeRows
from gateway.adapters.store_sql.notice_rows import SqlNoticeRows
from gateway.adapters.store_sql.projection_rows import SqlProjectionRows
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.adapters.store_sql.stream_rows import SqlStreamRows
from gateway.domain.journal import EdgeEvent, Entry, EntryBody, store_body
from gateway.ports import Fold


class SqlRecording(SqlStreamRows, SqlIntakeRows, SqlAlarmRows, SqlNoticeRows, SqlProjectionRows):
    """`gateway.ports.Recording` over one Core connection; add a mixin by adding a base."""

    def __init__(self, connection: Connection, now_ms: int, position: int, folds: Iterable[Fold]) -> None:
        super().__init__(connection, now_ms)
        self._position = position
        self._folds = tuple(folds)
        self.entries: list[Entry] = []

    @property
    def next_position(self) -> int:
        """The position that the next entry takes."""
        return self._position + 1

    def append(self, body: EntryBody) -> Entry:
        """Put `body` at the next position and let every fold see it, in this transaction."""
        self._position += 1
        entry = Entry(self._position, self.now_ms, body)
        self._connection.execute(insert(JOURNAL), journal_row(entry))
        self.note_entry(entry)
        self.entries.append(entry)
        for fold in self._folds:
            fold.stage(entry, self)
        return entry


def journal_row(entry: Entry) -> dict[str, object]:
    """An entry as a row of the journal table: its bytes, and the columns that look-ups need."""
    body = entry.body
    stored = store_body(body)
    row: dict[str, object] = {
        "position": entry.position,
        "recorded_at_ms": entry.recorded_at_ms,
        "kind": stored.kind.value,
        "payload": stored.payload,
        "occurred_at": stored.occurred_at,
        "marks": " ".join(stored.marks),
    }
    subject: object = body
    if isinstance(body, EdgeEvent):
        event = body.event
        row |= {"site": event.site, "agent": event.agent, "epoch": event.epoch, "seq": event.seq}
        row |= {"hash": event.hash, "event_kind": event.kind}
        subject = None if isinstance(event.body, Unrecognised) else event.body
    else:
        row |= {"site": getattr(body, "site", None), "agent": getattr(body, "agent", None)}
        row |= {"epoch": None, "seq": None, "hash": None, "event_kind": None}
    for name in ("machine", "guard", "occurrence"):
        row[name] = getattr(subject, name, None)
    return row
