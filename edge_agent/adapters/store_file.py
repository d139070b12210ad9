"""The store as a file: who may open it, how durable it is, what happens to one that is damaged.

SQLite promises what its pragmas say, so they are read back: with `synchronous=NORMAL` a power cut takes every commit
since the last checkpoint, and a file system that cannot do WAL silently keeps another journal. The lock is a file of
its own, because closing any descriptor of the database would drop SQLite's own POSIX locks on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_agent.ports import StoreBrokenError

SCHEMA_VERSION: Final = 2
"""2: with `cut`, so that chains may be pruned. A store of version 1 can be pruned from its next checkpoint on."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS event (
    n INTEGER PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL, payload BLOB NOT NULL,
    UNIQUE (epoch, seq)
) STRICT;
CREATE TABLE IF NOT EXISTS cut (n INTEGER PRIMARY KEY, at TEXT NOT NULL, synced INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS epoch (epoch TEXT PRIMARY KEY, first_n INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS gone (first_n INTEGER PRIMARY KEY, last_n INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""

_SYNCHRONOUS_FULL: Final = 2

_COMMITS_DUE: Final = 128
"""Commits after which a checkpoint is made when nobody waits for it: some eight pages each, 4 MB of log …"""

_COMMITS_MAX: Final = 2 * _COMMITS_DUE
"""… and after which it is made within the commit, so that the log stays bounded."""

_LOGGED_DUE_BYTES: Final = 2 * 1024 * 1024
"""Payloads after which it is due: in the log they take twice that with their index and half filled pages …"""

_LOGGED_MAX_BYTES: Final = 2 * _LOGGED_DUE_BYTES
"""… and after which nothing is put off."""

_LOG_KEPT_BYTES: Final = 16 * 1024 * 1024
"""A log that had grown beyond this (a long reader beside us) is cut back to it."""

START_BYTES: Final = 128 * 1024
"""What a run needs to begin: SQLite's index of its log, the first event, and room to spare."""

_RESERVES: Final = {".reserve": 256 * 1024, ".start.reserve": START_BYTES}
"""Given up when the disk is full: room for the record of the loss and a few hundred events; and, only to a run that begins."""

_COUNTS: Final = ("first", "swept", "acked", "ever_acked", "loss_taken")
_ARRAYS: Final = {"acked_at": 3, "end": 2, "overflow": 3}
"""Facts that are whole numbers, and JSON arrays of so many items: a bit that fell over in one spoils no page that SQLite sees."""

_FAILING_CODES: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_DAMAGE_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
IN_MEMORY: Final = Path(":memory:")
"""A store without a file, for simulation."""


class StoreRefusedError(Exception):
    """The store cannot be used by this agent; the text says why, and how to mend it."""


def _primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension (the low byte), 0 when the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is spoilt: SQLite says so, or Python could make no value of what it read (no code)."""
    return _primary_code(error) in _DAMAGE_CODES or "decode to UTF-8" in str(error)


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room on the disk."""
    return _primary_code(error) == sqlite3.SQLITE_FULL


class _SpoiltFactError(sqlite3.DatabaseError):
    """A fact says nothing any more: damage, as a page is that cannot be read."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class FileLock:
    """Keeps a second agent out of the same store, for as long as the process lives."""

    def __init__(self, store: Path) -> None:
        path = store.with_name(store.name + ".lock")
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise StoreRefusedError(f"{store}: another agent has this store open — stop it first") from None

    def release(self) -> None:
        """Let others in."""
        os.close(self._handle)


class Ballast:
    """Files that only take up room, to be given up when the disk is full; the last of them waits for the start of a run."""

    def __init__(self, store: Path) -> None:
        self._files = {store.with_name(store.name + suffix): size for suffix, size in _RESERVES.items()}

    def fill(self) -> None:
        """Take the room, as far as it is there to be had."""
        for path, size in self._files.items():
            if not path.exists():
                _allocate(path, size)

    def release(self, *, is_start: bool) -> bool:
        """Give up the next file; False when what may be given up was given up before."""
        for path in list(self._files)[: None if is_start else -1]:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                return True
        return False


def _allocate(path: Path, size: int) -> None:
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise


class LogKeeper:
    """Moves what the write-ahead log holds into the database, between two transactions of the one connection.

    SQLite would do it within a COMMIT and keep an error of it to itself; a disk that fails to synchronise must not be
    written to any further. A full disk is no such error: the log goes on holding what it holds. A checkpoint takes tens of
    milliseconds, so it is made when nobody waits for an event to be stored, as long as there are such moments.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._commits = 0
        self._bytes = 0

    def committed(self, payload_bytes: int = 0) -> None:
        """One more transaction is in the log; a checkpoint follows when it must not grow further. Raises `sqlite3.Error`."""
        self._commits += 1
        self._bytes += payload_bytes
        if self._commits >= _COMMITS_MAX or self._bytes >= _LOGGED_MAX_BYTES:
            self.checkpoint()

    def tend(self) -> None:
        """Nobody waits now: a checkpoint if one is due. Raises `sqlite3.Error`."""
        if self._commits >= _COMMITS_DUE or self._bytes >= _LOGGED_DUE_BYTES:
            self.checkpoint()

    def checkpoint(self) -> None:
        """As far as a reader beside us allows; the rest comes with the next one. Raises `sqlite3.Error`."""
        self._commits = self._bytes = 0
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            if not is_full(error) and _primary_code(error) != sqlite3.SQLITE_BUSY:
                raise


def owner_problem(path: Path, owner: str, own: str) -> str | None:
    """What is wrong when a store belongs to `owner` (`site/agent`) and `own` opens it; None when they are one."""
    if owner == own:
        return None
    return f"{path}: this store belongs to {owner}, not {own} — drain it first, or name a new store"


def identity(path: Path) -> tuple[int, int] | None:
    """Which file a name leads to; None when to none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def free_bytes(folder: Path) -> int:
    """The room that its file system has left for us. Raises `OSError`."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def open_connection(path: Path) -> tuple[sqlite3.Connection, str | None]:
    """The store's one connection, and what had to be moved aside to get it (None: nothing).

    Raises `StoreRefusedError` when the file cannot be opened, written, or made durable, `StoreBrokenError` when its disk is
    full or fails.
    """
    try:
        return _connect(path), None
    except sqlite3.Error as error:
        if not is_damage(error):
            raise _why_not(path, error) from error
        moved = f"{move_aside(path).name}: {error}"
    try:
        return _connect(path), moved
    except sqlite3.Error as error:
        raise _why_not(path, error) from error


def _why_not(path: Path, error: sqlite3.Error) -> Exception:
    if _primary_code(error) in _FAILING_CODES:
        return StoreBrokenError(f"{path}: cannot open the store now: {error}")
    return StoreRefusedError(f"{path}: cannot open the store: {error} — check path and rights")


def move_aside(path: Path) -> Path:
    """Rename a damaged store, its log with it, so that nothing is thrown away; its new path."""
    number = 1
    while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(target)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return target


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _make_durable(database, path)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        _refuse_younger(path, version)
        if version < SCHEMA_VERSION:
            database.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        database.execute("SELECT * FROM event ORDER BY n DESC LIMIT 1").fetchone()
        for columns in ("n FROM cut", "* FROM epoch", "* FROM memory", "* FROM gone"):
            database.execute(f"SELECT {columns}").fetchall()
        _demand_facts(dict(database.execute("SELECT key, value FROM fact")))
    except BaseException:
        database.close()
        raise
    return database


def _demand_facts(facts: Mapping[str, str]) -> None:
    """Raises `_SpoiltFactError` for the first that has lost its form."""
    for key in facts.keys() & {*_COUNTS}:
        if not (facts[key].isascii() and facts[key].isdigit()):
            raise _SpoiltFactError(f"the fact {key} is no number")
    for key in facts.keys() & _ARRAYS.keys():
        try:
            items = json.loads(facts[key])
        except ValueError:
            items = None
        if not isinstance(items, list) or len(items) != _ARRAYS[key]:
            raise _SpoiltFactError(f"the fact {key} cannot be read")


def _refuse_younger(path: Path, version: int) -> None:
    if version > SCHEMA_VERSION:
        raise StoreRefusedError(f"{path}: written by a younger version ({version}) — start that one")


def _make_durable(database: sqlite3.Connection, path: Path) -> None:
    (journal,) = database.execute("PRAGMA journal_mode=WAL").fetchone()
    database.execute("PRAGMA synchronous=FULL")
    (synchronous,) = database.execute("PRAGMA synchronous").fetchone()
    database.execute("PRAGMA wal_autocheckpoint=0")  # `LogKeeper` does it
    database.execute(f"PRAGMA journal_size_limit={_LOG_KEPT_BYTES}")
    database.execute("PRAGMA mmap_size=0")  # there an I/O error is a signal that kills
    if path == IN_MEMORY:
        return
    if journal != "wal" or synchronous != _SYNCHRONOUS_FULL:
        raise StoreRefusedError(
            f"{path}: this file system keeps no durable log (journal {journal}, synchronous {synchronous}) — "
            "name a store on a local disk"
        )
