"""Reading a store from outside, beside a running agent or after it: for `verify` and `doctor`. Opens read-only.

All is read in one transaction, so the store is seen as it was at one moment: an agent that goes on writing and pruning
meanwhile neither moves its end nor takes an entry away under the reader. The price is that the agent's write-ahead log
keeps what it writes until the reader is done (and is cut back to its usual size then); a reader that finds the log grown
beyond `LOG_MAX_BYTES` gives up rather than fill the disk.

Source: SQLite's WAL documentation (snapshot isolation, checkpoint starvation).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from edge_agent.adapters.store_file import owner_problem
from edge_agent.domain.verification import Entry

LOG_MAX_BYTES: Final = 64 * 1024 * 1024
"""An agent that writes so much while it is read writes faster than anybody reads: an eighth of a store's usual size."""

_MAGIC: Final = b"SQLite format 3\0"
_PAGE: Final = 500
"""Rows fetched at a time: 24 MB when each is as large as an event may be."""


class StoreUnreadableError(Exception):
    """The file cannot be read as a store; the text says why."""


@dataclass(frozen=True, slots=True)
class StoreEnd:
    """Where the store says that its chain ends: place and hash, kept beside the chain."""

    place: int
    hash: str


class StoreSnapshot:
    """A store as it was when it was opened; see `open_snapshot`."""

    def __init__(self, database: sqlite3.Connection, log: Path, log_max_bytes: int) -> None:
        self._db = database
        self._log = log
        self._log_max_bytes = log_max_bytes
        first = database.execute("SELECT value FROM fact WHERE key='first'").fetchone()
        try:
            self._first = int(first[0]) if first else 1
        except ValueError:
            raise StoreUnreadableError("where its chain begins cannot be read") from None

    def end(self) -> StoreEnd | None:
        """The end the store has noted, None in an empty one."""
        row = self._db.execute("SELECT value FROM fact WHERE key='end'").fetchone()
        try:
            return StoreEnd(*json.loads(row[0])) if row else None
        except (ValueError, TypeError):
            raise StoreUnreadableError("where its chain ends cannot be read") from None

    def owner(self) -> str | None:
        """Whose store it is (`site/agent`), None when nobody's yet."""
        row = self._db.execute("SELECT value FROM fact WHERE key='owner'").fetchone()
        return str(row[0]) if row else None

    def count(self) -> int:
        """About how many entries it holds (exactly, unless places were lost)."""
        query = "SELECT coalesce(max(n) - min(n) + 1, 0) FROM event WHERE n >= ?"
        return int(self._db.execute(query, (self._first,)).fetchone()[0])

    def entries(self) -> Iterator[Entry]:
        """Every stored payload in chain order, from where the chain begins on. Raises `StoreUnreadableError`."""
        place = self._first - 1
        query = "SELECT n, payload FROM event WHERE n > ? ORDER BY n LIMIT ?"
        try:
            while rows := self._db.execute(query, (place, _PAGE)).fetchall():
                for place, payload in rows:
                    # what was written was bytes: text or a number in their place is no entry
                    yield Entry(f"place {place}", payload if isinstance(payload, bytes) else b"")
                self._spare_the_disk()
        except sqlite3.Error as error:
            raise StoreUnreadableError(f"after place {place}: {error}") from error

    def _spare_the_disk(self) -> None:
        if self._log.exists() and self._log.stat().st_size > self._log_max_bytes:
            raise StoreUnreadableError(
                f"its agent has written more than {self._log_max_bytes >> 20} MB meanwhile — "
                "read it when there is less to record, or stop the agent"
            )


def is_store(path: Path) -> bool:
    """Whether the file is a database (anything else is taken for a bundle). Raises `OSError`."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


@contextmanager
def open_snapshot(path: Path, log_max_bytes: int = LOG_MAX_BYTES) -> Iterator[StoreSnapshot]:
    """The store at this moment, for as long as the context lasts. Raises `StoreUnreadableError`, within it too."""
    try:
        uri = f"file:{quote(os.fsencode(path.resolve()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as database:
            database.execute("BEGIN")
            yield StoreSnapshot(database, path.with_name(path.name + "-wal"), log_max_bytes)
    except (sqlite3.Error, StoreUnreadableError) as error:
        raise StoreUnreadableError(f"{path}: {error}") from error


def take_up_problem(path: Path, own: str) -> str | None:
    """Why the agent `own` (`site/agent`) could not take up this store, None when it could as far as can be seen."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    is_writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    if not is_writable or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        return f"{path}: cannot be written — check path and rights"
    if not path.exists():
        return None
    if not path.is_file():
        return f"{path}: is no file — name one"
    try:
        with open_snapshot(path) as store:
            return owner_problem(path, store.owner() or own, own)
    except StoreUnreadableError:
        return None  # what is damaged is moved aside
