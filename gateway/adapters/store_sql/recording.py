"""One transaction of the writer: entries are counted, stored, shown to the folds; rows follow through mixins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection

from edge_agent.wire.event import Unrecognised
from gateway.adapters.store_sql.alarm_rows import SqlAlarmRows
from gateway.adapters.store_sql.intake_rows import SqlIntakeRows
from gateway.adapters.store_sql.notice_rows import SqlNoticeRows
from gateway.adapters.store_sql.projection_rows import SqlProjectionRows
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.adapters.store_sql.stream_rows import SqlStreamRows, StreamMemory
from gateway.domain.journal import (
    LINK_SEED,
    EdgeEvent,
    Entry,
    EntryBody,
    StoredBody,
    entry_link,
    store_body,
)
from gateway.ports import Fold


class Head(NamedTuple):
    """The end of the journal: the newest entry's position and link."""

    position: int = 0
    link: str = LINK_SEED


class SqlRecording(SqlStreamRows, SqlIntakeRows, SqlAlarmRows, SqlNoticeRows, SqlProjectionRows):
    """`gateway.ports.Recording` over one Core connection; add a mixin by adding a base."""

    def __init__(
        self,
        connection: Connection,
        now_ms: int,
        head: Head,
        folds: Iterable[Fold],
        memory: StreamMemory,
    ) -> None:
        super().__init__(connection, now_ms, memory)
        self.head = head
        self._folds = tuple(folds)
        self.entries: list[Entry] = []
        self._unwritten: list[dict[str, object]] = []

    @property
    def next_position(self) -> int:
        """The position that the next entry takes."""
        return self.head.position + 1

    def append(self, body: EntryBody) -> Entry:
        """Put `body` at the next position and let every fold see it, in this transaction."""
        entry, stored = Entry(self.next_position, self.now_ms, body), store_body(body)
        link = entry_link(self.head.link, entry.position, entry.recorded_at_ms, stored)
        self._unwritten.append(_journal_row(entry, stored, link))
        self.head = Head(entry.position, link)
        self.note_entry(entry)
        self.entries.append(entry)
        for fold in self._folds:
            fold.stage(entry, self)
        return entry

    def flush(self) -> None:
        """Write the entries that were kept back, and what the mixins kept back."""
        super().flush()
        self._insert(JOURNAL, self._unwritten)
        self._unwritten = []


def _journal_row(entry: Entry, stored: StoredBody, link: str) -> dict[str, object]:
    """An entry as a row of the journal table: its bytes, and the columns that look-ups need."""
    body = entry.body
    edge = body.event if isinstance(body, EdgeEvent) else None
    source: object = body if edge is None else edge
    subject: object = source if edge is None else edge.body
    if isinstance(subject, Unrecognised):
        subject = None
    return {
        "position": entry.position,
        "recorded_at_ms": entry.recorded_at_ms,
        "kind": stored.kind.value,
        "payload": stored.payload,
        "occurred_at": stored.occurred_at,
        "marks": " ".join(stored.marks),
        "link": link,
        "site": getattr(source, "site", None) if edge is None else edge.site,
        "agent": getattr(source, "agent", None) if edge is None else edge.agent,
        "event_kind": None if edge is None else edge.kind,
        "epoch": None if edge is None else edge.epoch,
        "seq": None if edge is None else edge.seq,
        "hash": None if edge is None else edge.hash,
        "machine": getattr(subject, "machine", None),
        "guard": getattr(subject, "guard", None),
        "occurrence": getattr(subject, "occurrence", None),
    }
