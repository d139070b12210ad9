"""The journal: one writer thread, one transaction at a time; commit, then adopt, then tell.

transact(work) ── lock ──▶ writer thread: BEGIN, work(recording), COMMIT (fsync)
                               │ failure: ROLLBACK, folds discard, nothing was stored
                               ▼ success, back on the loop thread
                           folds adopt ──▶ listeners get the entries ──▶ the next transaction may begin
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Engine, Row, func, select

from gateway.adapters.store_sql.engine import open_readers, open_writer
from gateway.adapters.store_sql.recording import SqlRecording
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.domain.journal import Entry, EntryKind, Mark, StoredBody, load_body
from gateway.ports import Clock, Fold

T = TypeVar("T")
Listener = Callable[[Sequence[Entry]], None]


class SqlJournal:
    """`gateway.ports.Journal` over SQLite or PostgreSQL. Make it with `SqlJournal.open`, end it with `close`."""

    def __init__(self, url: str, clock: Clock, folds: Mapping[str, Fold]) -> None:
        self._clock = clock
        self._folds = dict(folds)
        self._writer = open_writer(url)
        self.readers: Engine = open_readers(url)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._turn = asyncio.Lock()
        self._listeners: list[Listener] = []
        self._position = 0

    async def transact(self, work: Callable[[SqlRecording], T]) -> T:
        """Run `work` in the writer thread in one transaction; returns after COMMIT."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            try:
                result, entries = await loop.run_in_executor(self._thread, self._commit, work)
            except BaseException:
                for fold in self._folds.values():
                    fold.discard()
                raise
            self._position += len(entries)
            for fold in self._folds.values():
                fold.adopt()
            for listener in tuple(self._listeners):
                listener(entries)
            return result

    def _commit(self, work: Callable[[SqlRecording], T]) -> tuple[T, Sequence[Entry]]:
        with self._writer.begin() as connection:
            recording = SqlRecording(connection, self._clock.utc_ms(), self._position, self._folds.values())
            result = work(recording)
        return result, recording.entries

    def entries_after(self, position: int, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries after `position`, in order (blocking; call in a thread)."""
        query = select(JOURNAL).where(JOURNAL.c.position > position).order_by(JOURNAL.c.position).limit(limit)
        with self.readers.connect() as connection:
            return [load_entry(row) for row in connection.execute(query)]

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the entries of each commit, after adoption, on the event loop; returns the way to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def last_position(self) -> int:
        """The position of the newest entry, 0 in an empty journal (blocking)."""
        with self.readers.connect() as connection:
            return connection.execute(select(func.max(JOURNAL.c.position))).scalar() or 0


def load_entry(row: Row[tuple[object, ...]]) -> Entry:
    """The entry that a row of the journal table holds. Raises `ValueError` for a row that was never written here."""
    marks = tuple(Mark(mark) for mark in row.marks.split())
    stored = StoredBody(EntryKind(row.kind), row.payload, row.occurred_at, marks)
    return Entry(row.position, row.recorded_at_ms, load_body(stored))
