"""The journal: one writer thread, one transaction at a time; commit, then adopt, then tell.

    transact(work) ── turn ──▶ writer thread: BEGIN, work(recording), COMMIT (fsync)
                                   │ failure: ROLLBACK, folds discard, nothing was stored
                                   ▼ success, back on the loop thread
                               folds adopt ──▶ listeners get the entries ──▶ the next transaction may begin

Failures, told apart because each calls for something else:

    work raises ────────────────────────────────▶ the same, after ROLLBACK
    database full, busy, away before COMMIT ────▶ JournalUnavailable: nothing was stored, try again
    I/O error, a second writer, or COMMIT fails ▶ JournalLost: what is stored is not known; the process ends, and the
                                                  next start reads it (an fsync error is never retried: fsyncgate)

Several gateways may share one PostgreSQL: `lead` returns when this one holds the lease; until then it follows what the
leader journals, so that its folds and listeners serve reads. SQLite has one process, which always leads.

A journal that is a file is checked before it is used (`soundness.py`); one that fails is moved aside and a new one begun,
which the agents fill again.

A commit under way cannot be recalled: a cancelled caller waits for it, so that memory and disk stay equal.
Start is the newest snapshot of each fold plus the entries after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, Self, TypeVar

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError

from edge_agent.wire.event import Json
from gateway.adapters.migrations import upgrade
from gateway.adapters.store_sql.checkpoint import Checkpointer
from gateway.adapters.store_sql.engine import open_readers, open_writer
from gateway.adapters.store_sql.entries import AFTER, READ_CHUNK, entries_after, load_entry
from gateway.adapters.store_sql.failures import judge_failure
from gateway.adapters.store_sql.folding import fold_entries, replace_snapshots, restore_snapshot
from gateway.adapters.store_sql.journal_file import JournalFile
from gateway.adapters.store_sql.lease import LEASE_MS, LOOK_S, RENEW_S, Lease
from gateway.adapters.store_sql.recording import Head, SqlRecording
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.adapters.store_sql.soundness import make_sound
from gateway.adapters.store_sql.stream_rows import StreamMemory
from gateway.domain.journal import Entry
from gateway.ports import Clock, Fold, JournalLost, JournalUnavailable

T = TypeVar("T")
Listener = Callable[[Sequence[Entry]], None]

log = logging.getLogger("guardwatch.journal")

SNAPSHOT_EVERY = 50_000
"""Entries between snapshots: folding so many at start takes some four seconds; a snapshot of 25 600 guards takes one, in
which nothing is journaled, so that a flood pays 20 us an entry for it."""

SNAPSHOT_AGAIN = 5000
"""Entries until a snapshot that found no room is tried again: at each commit it would hold up every one of them."""

STOP_MS = 2500
"""Half of the 5 s in which a gateway stops (the outside contract, section 1) is for the journal; its seal gets what is left."""


class SqlJournal:
    """`gateway.ports.Journal` over SQLite or PostgreSQL. `await SqlJournal.open(…)`, and `close` it."""

    def __init__(
        self,
        writer: Engine,
        readers: Engine,
        clock: Clock,
        folds: Mapping[str, Fold],
        file: JournalFile | None = None,
    ) -> None:
        self.readers = readers
        self.file = file
        self.problem: str | None = None
        self.failing_since_ms: int | None = None
        self._lost: JournalLost | None = None
        self._writer = writer
        self._checkpointer = None if file is None else Checkpointer(writer)
        self._lease = Lease(writer) if writer.dialect.name == "postgresql" else None
        self._is_leading = self._lease is None
        self._clock = clock
        self._folds = dict(folds)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._turn = asyncio.Lock()
        self._listeners: list[Listener] = []
        self._head = Head()
        self._streams = StreamMemory()
        self._snapshot_position = 0
        self._snapshot_due = SNAPSHOT_EVERY
        self._recorded_ms = 0

    @classmethod
    async def open(cls, url: str, clock: Clock, folds: Mapping[str, Fold]) -> Self:
        """Bring the database up to date and the folds up to its last entry.

        A fold's name stands for the format of its snapshots: name it anew when that changes. Raises `StoreError` for
        a database that cannot keep a journal, `JournalUnavailable` or `JournalLost` for one that cannot be used now.
        """
        journal = cls(*cls._open_engines(url), clock, folds, JournalFile.of(url))
        try:
            await asyncio.get_running_loop().run_in_executor(journal._thread, journal._start, url)
        except BaseException as error:
            journal._let_go(clock.monotonic_ms())
            if isinstance(error, DBAPIError):
                raise judge_failure(error, is_commit=False) from error
            if isinstance(error, OSError):
                raise JournalUnavailable(f"{error.filename or url}: {error.strerror}") from error
            raise
        return journal

    @classmethod
    def _open_engines(cls, url: str) -> tuple[Engine, Engine]:
        """The writer's and the readers'."""
        return open_writer(url), open_readers(url)

    @property
    def position(self) -> int:
        """The newest entry that the folds have adopted; 0 in an empty journal."""
        return self._head.position

    @property
    def last_recorded_ms(self) -> int:
        """The time of the newest entry: the gateway's clock must not begin before it; 0 in an empty journal."""
        return self._recorded_ms

    @property
    def is_leading(self) -> bool:
        """Whether this process may write; a standby serves reads."""
        return self._is_leading

    async def lead(self) -> None:
        """Follow the leader until this process leads itself, however long the server is away; returns at once on SQLite."""
        while not self._is_leading:
            assert self._lease is not None, "without a lease there is nobody to wait for"
            try:
                has_lease = await self._in_thread(self._lease.take)
                await self._follow()
            except JournalUnavailable as error:
                self._note_failure(error)
            else:
                self._is_leading = has_lease
                self.problem = self.failing_since_ms = None
            if not self._is_leading:
                await asyncio.sleep(LOOK_S)

    async def keep_leading(self) -> NoReturn:
        """Renew the lease for ever, which proves that a server can be written, though nobody else writes.

        Raises `JournalLost` when another gateway took it, or the journal was lost; `JournalUnavailable` when the server
        was away for as long as the lease lasts: another gateway may lead by now, and needs the broker's session.
        """
        renewed_ms = self._clock.monotonic_ms()
        while True:
            await asyncio.sleep(RENEW_S)
            if self._lost is not None:
                raise self._lost  # whoever met it may have answered somebody, and gone on
            try:
                if self._lease is not None and self._is_leading:
                    await self._renew(self._lease)
                renewed_ms = self._clock.monotonic_ms()
            except JournalUnavailable:
                if self._clock.monotonic_ms() - renewed_ms >= LEASE_MS:
                    raise

    async def _renew(self, lease: Lease) -> None:
        async with self._turn:
            try:
                is_ours = await self._in_thread(lease.renew)
            except JournalUnavailable as error:
                self._note_failure(error)
                raise
            if not is_ours:
                raise JournalLost("another gateway leads this journal, or has led it")
            self.problem = self.failing_since_ms = None

    async def transact(self, work: Callable[[SqlRecording], T]) -> T:
        """Run `work` in the writer thread in one transaction; returns after COMMIT.

        Raises what `work` raises, `JournalUnavailable` or `JournalLost`, all after ROLLBACK.
        """
        if not self._is_leading:
            raise JournalUnavailable("another gateway leads: this one serves reads only")
        async with self._turn:
            if self._lost is not None:
                raise self._lost
            task = asyncio.ensure_future(self._execute(work))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task])
                raise

    async def touch(self) -> None:
        """Return as soon as the writer thread has done what it was asked before."""
        await asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)

    def entries_after(self, position: int, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries after `position`, in order (blocking; call in a thread)."""
        with self.readers.connect() as connection:
            return entries_after(connection, position, limit)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the entries of each commit, after adoption, on the event loop; returns the way to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def close(self) -> None:
        """Store a snapshot and let go of the database. Raises `JournalLost` when storage fails at that."""
        begun_ms = self._clock.monotonic_ms()
        async with self._turn:
            try:
                await self._store_last()
            finally:
                self._let_go(begun_ms)

    async def _store_last(self) -> None:
        loop = asyncio.get_running_loop()
        if self._is_leading and self.problem is None and self.position > self._snapshot_position:
            await loop.run_in_executor(self._thread, self._store_snapshots, self._snapshots(), self.position)
        if self._checkpointer is not None and self.problem is None:
            await loop.run_in_executor(self._thread, self._checkpoint)
        if self._lease is not None and self._is_leading:
            with contextlib.suppress(DBAPIError):  # it expires by itself
                await loop.run_in_executor(self._thread, self._lease.release)

    def _let_go(self, begun_ms: int) -> None:
        self._thread.shutdown()
        self.readers.dispose()
        self._writer.dispose()  # the last to close: it empties the log
        if self.file is not None:
            self.file.close(lambda: self._clock.monotonic_ms() - begun_ms >= STOP_MS)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """A piece of the lease's work. Raises `JournalUnavailable` when the database is away."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except DBAPIError as error:
            raise JournalUnavailable(str(error.orig)) from error

    async def _follow(self) -> None:
        """Adopt what the leader has journaled since."""
        while True:
            entries, head = await self._in_thread(self._stage_tail)
            if not entries:
                return
            self._adopt(entries, head)

    def _stage_tail(self) -> tuple[Sequence[Entry], Head]:
        """In the writer thread: stage the next entries that another process wrote."""
        with self._writer.connect() as connection:
            rows = connection.execute(AFTER, {"after": self.position, "limit": READ_CHUNK}).all()
        entries = [load_entry(row) for row in rows]
        for entry in entries:
            for fold in self._folds.values():
                fold.stage(entry, None)
        return entries, Head(rows[-1].position, rows[-1].link) if rows else self._head

    def _adopt(self, entries: Sequence[Entry], head: Head) -> None:
        """On the loop thread: the entries are committed; memory follows, listeners hear."""
        self._head = head
        self._recorded_ms = entries[-1].recorded_at_ms if entries else self._recorded_ms
        for fold in self._folds.values():
            fold.adopt()
        for listener in tuple(self._listeners):
            listener(entries)

    async def _execute(self, work: Callable[[SqlRecording], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            result, recording = await loop.run_in_executor(self._thread, self._commit, work)
        except BaseException as error:
            for fold in self._folds.values():
                fold.discard()
            self._streams.forget()
            self._note_failure(error)
            raise
        self.problem = self.failing_since_ms = None
        self._adopt(recording.entries, recording.head)
        self._streams.forget_some()
        if self.position >= self._snapshot_due:
            snapshots = self._snapshots()
            await loop.run_in_executor(self._thread, self._store_snapshots, snapshots, self.position)
        return result

    def _note_failure(self, error: BaseException) -> None:
        if not isinstance(error, JournalUnavailable | JournalLost):
            return  # the work changed its mind
        self.problem = str(error)
        self.failing_since_ms = self.failing_since_ms or self._clock.utc_ms()
        if isinstance(error, JournalLost):
            self._lost = error

    def _commit(self, work: Callable[[SqlRecording], T]) -> tuple[T, SqlRecording]:
        """In the writer thread: one transaction, and the checkpoint that may be due after it."""
        try:
            with self._writer.connect() as connection:
                now_ms = max(self._recorded_ms, self._clock.utc_ms())
                folds = self._folds.values()
                recording = SqlRecording(connection, now_ms, self._head, folds, self._streams)
                if self._lease is not None:
                    self._lease.demand(connection)
                result = work(recording)
                recording.flush()
                try:
                    connection.commit()
                except DBAPIError as error:
                    raise judge_failure(error, is_commit=True) from error
        except DBAPIError as error:
            raise judge_failure(error, is_commit=False) from error
        self._note_end(recording)
        return result, recording

    def _note_end(self, recording: SqlRecording) -> None:
        """In the writer thread: the transaction is on disk."""
        if self.file is None or self._checkpointer is None or not recording.entries:
            return
        try:
            self.file.note(recording.head.position, recording.head.link)
        except OSError as error:
            raise JournalLost(f"the note beside the journal: {error}") from error
        self._checkpointer.committed(len(recording.entries))
        if self._checkpointer.is_due:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """In the writer thread: empty the log. An I/O error of it is as bad as one of a commit."""
        assert self._checkpointer is not None, "a server keeps its own log"
        try:
            self._checkpointer.run()
        except sqlite3.Error as error:
            raise JournalLost(f"the checkpoint failed: {error}") from error

    def _start(self, url: str) -> None:
        """In the writer thread: check, migrate, restore snapshots, fold what came after them."""
        if self.file is not None:
            self.file.path.parent.mkdir(parents=True, exist_ok=True)
            make_sound(self.file, self._writer, url)
            self.file.begin()
        upgrade(self._writer, url)
        if self.file is not None:
            self.file.watch()
            self.file.take_reserve()
        with self._writer.connect() as connection:
            positions = {name: restore_snapshot(connection, name, fold) for name, fold in self._folds.items()}
            position = fold_entries(connection, self._folds, positions)
            self._snapshot_position = min(positions.values(), default=position)
            self._snapshot_due = self._snapshot_position + SNAPSHOT_EVERY
            # not the newest row: a leader may have journaled meanwhile what is to be followed yet
            row = connection.execute(select(JOURNAL).where(JOURNAL.c.position == position)).first()
            if row is not None:
                self._head, self._recorded_ms = Head(row.position, row.link), row.recorded_at_ms

    def _snapshots(self) -> Mapping[str, Json]:
        return {name: fold.snapshot() for name, fold in self._folds.items()}

    def _store_snapshots(self, snapshots: Mapping[str, Json], position: int) -> None:
        """In the writer thread: no room costs only time at the next start, which reads an older snapshot."""
        try:
            with self._writer.begin() as connection:
                if self._lease is not None:
                    self._lease.demand(connection)
                replace_snapshots(connection, snapshots, position)
        except JournalLost as lost:
            self.problem, self._lost = str(lost), lost
            raise
        except DBAPIError as error:
            failure = judge_failure(error, is_commit=True)
            if isinstance(failure, JournalLost):
                self.problem, self._lost = str(failure), failure
                raise failure from error
            log.warning("no snapshot at %s, the next start takes longer: %s", position, failure)
            self._snapshot_due = position + SNAPSHOT_AGAIN
            return
        self._snapshot_position, self._snapshot_due = position, position + SNAPSHOT_EVERY
