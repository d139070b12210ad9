"""Engines: one that writes, one that only reads, for SQLite and PostgreSQL.

SQLAlchemy's SQLite defaults lose updates silently (the driver begins a transaction at the first write, after the
read), and a half-failed migration is not rolled back. Therefore the driver's own transaction handling is switched off
and every transaction begins here: `BEGIN IMMEDIATE` for the writer, plain `BEGIN` for readers.

One connection alone checkpoints SQLite's write-ahead log, the writer's, and by itself only when it is closed last
(`checkpoint.py` does it in between): two that write or checkpoint at the same moment can corrupt the file (SQLite before
3.51.3). Readers open the file read-only, so that closing the last of them cannot checkpoint either. No memory mapping:
there an I/O error is a signal that kills, and a stray write goes to disk.

PostgreSQL's text has no U+0000, which JSON has, and with it an agent's event, or what somebody asks for: one would be an
error that no later try mends. It is stored, and looked for, as U+FFFD; the event's own bytes are kept as they came.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from psycopg.adapt import AdaptersMap, Buffer
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import URL, Connection, Engine, ExceptionContext, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import OperationalError

from gateway.adapters.store_sql.lease import LEASE_MS
from gateway.ports import JournalUnavailable

BUSY_TIMEOUT_MS = 500
"""How long the writer waits for SQLite's lock: a reader's checkpoint or `verify` beside it lasts milliseconds. Whoever holds it
longer is waited for by trying again; the services do that one after the other, and each says in between that it is alive."""

LOG_KEPT_BYTES = 16 * 1024 * 1024
"""A write-ahead log that had grown beyond this (a long reader beside the writer) is cut back to it."""

_SERVER_LINE: Mapping[str, int] = {
    "connect_timeout": 5,  # seconds, of each address
    "keepalives_idle": 2,  # seconds of silence until it is asked
    "keepalives_interval": 1,
    "keepalives_count": 4,
    "tcp_user_timeout": LEASE_MS,  # of what was sent and is not acknowledged
}
"""libpq's own settings for a server that is cut off without a word: by default a write waits a quarter of an hour for it, a
connection two minutes. What the URL itself sets counts. Source: PostgreSQL's manual, 34.1.2 (parameter key words)."""

_WRITER_PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": "2",  # FULL: with NORMAL a power cut takes every commit since the last checkpoint
    "wal_autocheckpoint": "0",
    "journal_size_limit": str(LOG_KEPT_BYTES),
    "mmap_size": "0",
}


_NUL, _REPLACEMENT = "\x00", "\ufffd"


class StoreError(Exception):
    """The database is not what a journal needs; the text says why and how to mend it."""


class _Cursor(Protocol):
    def execute(self, statement: str, /) -> object: ...
    def fetchone(self) -> tuple[object, ...] | None: ...
    def close(self) -> None: ...


class _DriverConnection(Protocol):
    isolation_level: str | None

    def cursor(self) -> _Cursor: ...
    def commit(self) -> None: ...


class _ServerConnection(Protocol):
    @property
    def adapters(self) -> AdaptersMap: ...


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace(_NUL, _REPLACEMENT))


def open_writer(url: str) -> Engine:
    """The engine of the writer thread: one connection. Raises `StoreError` for an unknown kind of database."""
    target = _with_driver(url)
    if target.get_backend_name() == "sqlite":
        if target.database:
            Path(target.database).parent.mkdir(parents=True, exist_ok=True)
        return _sqlite(target, "BEGIN IMMEDIATE", _WRITER_PRAGMAS, pool_size=1, mode="rwc")
    writer = create_engine(
        target, pool_size=1, max_overflow=0, pool_pre_ping=False, connect_args=line_to(target)
    )
    event.listen(writer, "connect", _bound_idling)
    event.listen(writer, "connect", take_any_text)
    return writer


def open_readers(url: str) -> Engine:
    """An engine that cannot write; a server that is away makes its reads raise `JournalUnavailable`.

    Raises `StoreError` for an unknown kind of database.
    """
    target = _with_driver(url)
    if target.get_backend_name() == "sqlite":
        return _sqlite(target, "BEGIN", {"query_only": "1", "mmap_size": "0"}, pool_size=8, mode="ro")
    readers = create_engine(target, pool_size=8, pool_pre_ping=True, connect_args=line_to(target))
    event.listen(readers, "handle_error", _translate)
    event.listen(readers, "connect", take_any_text)
    return readers.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def line_to(target: URL) -> dict[str, int]:
    """What psycopg is told of the line to a server, so that one that is cut off is noticed within `LEASE_MS`."""
    return {name: value for name, value in _SERVER_LINE.items() if name not in target.query}


def take_any_text(connection: _ServerConnection, _record: object) -> None:
    """Let a connection to a server take text with U+0000 in it."""
    connection.adapters.register_dumper(str, _TextDumper)


def _bound_idling(connection: _DriverConnection, _record: object) -> None:
    """Let the server end a transaction of ours that stands still for as long as the lease lasts.

    One holds the lease's row: a leader that is frozen, or cut off, in the middle of it would keep every other from leading.
    """
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {LEASE_MS}")
    cursor.close()
    connection.commit()


def _translate(context: ExceptionContext) -> None:
    if isinstance(context.sqlalchemy_exception, OperationalError):
        raise JournalUnavailable(str(context.original_exception)) from context.original_exception


def _with_driver(url: str) -> URL:
    target = make_url(url)
    match target.get_backend_name():
        case "sqlite":
            return target.set(drivername="sqlite")
        case "postgresql":
            return target.set(drivername="postgresql+psycopg")
        case other:
            raise StoreError(
                f"a journal in {other} is not known — use sqlite:///PATH or postgresql://HOST/NAME"
            )


def _sqlite(target: URL, begin: str, pragmas: Mapping[str, str], pool_size: int, mode: str) -> Engine:
    name = f"file:{quote(str(Path(target.database or '').absolute()))}?mode={mode}"
    engine = create_engine(
        target,
        creator=lambda: sqlite3.connect(name, uri=True, check_same_thread=False),
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
    )

    def prepare(connection: _DriverConnection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below, not when the driver thinks so
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        for name, wanted in pragmas.items():
            cursor.execute(f"PRAGMA {name}={wanted}")
            cursor.execute(f"PRAGMA {name}")
            found = cursor.fetchone()
            if found is None or str(found[0]) != wanted:
                raise StoreError(
                    f"SQLite does not keep {name}={wanted} for {target.database} (it says {found}) — put the"
                    " journal on a local disk"
                )
        cursor.close()

    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin_transaction)
    return engine
