"""Moving what SQLite's write-ahead log holds into the database, by the writer itself between two transactions.

SQLite would do it within a COMMIT, and keep an error of it to itself. Here it is seen: a disk that fails to synchronise
must not be written to any further. A full disk is no such error: the log goes on holding what it holds.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import Engine

COMMITS_MAX = 128
"""Commits between two checkpoints: some eight pages each, 4 MB of log."""

ENTRIES_MAX = 2000
"""Journal entries between two checkpoints: some two pages each, the 16 MB of log that are kept anyway. More would save
little (0.4 us an entry at twice as many), and each would hold the writer up for longer."""


class Checkpointer:
    """Counts what is committed by one SQLite writer; `run` when it `is_due`."""

    def __init__(self, writer: Engine) -> None:
        self._writer = writer
        self._commits = 0
        self._entries = 0

    def committed(self, entries: int) -> None:
        """One more transaction is in the log."""
        self._commits += 1
        self._entries += entries

    @property
    def is_due(self) -> bool:
        """Whether the log has grown enough."""
        return self._commits >= COMMITS_MAX or self._entries >= ENTRIES_MAX

    def run(self) -> None:
        """As far as readers allow; the rest comes with the next one. Raises `sqlite3.Error`."""
        self._commits = self._entries = 0
        connection = self._writer.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            cursor.close()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}:
                raise
        finally:
            connection.close()
