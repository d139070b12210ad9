"""What a failure of the database means for the journal: nothing was stored, or nobody knows."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from gateway.ports import JournalLost, JournalUnavailable

_PASSING = (
    "database or disk is full",
    "database is locked",
    "readonly database",
    "unable to open database file",
)
"""What SQLite says of states that pass without a restart (disk space, a long reader, a remount)."""


def judge_failure(error: DBAPIError, *, is_commit: bool) -> JournalUnavailable | JournalLost:
    """Whether nothing was stored, for certain, or nobody knows."""
    text = str(error.orig)
    if isinstance(error, IntegrityError):
        return JournalLost(f"somebody else writes this journal: {text}")
    is_server_away = error.connection_invalidated or (
        isinstance(error, OperationalError) and not isinstance(error.orig, sqlite3.Error)
    )  # PostgreSQL's operational errors: no connection, no room, shutting down, starting up
    is_passing = any(item in text for item in _PASSING) or (is_server_away and not is_commit)
    return JournalUnavailable(text) if is_passing else JournalLost(text)
