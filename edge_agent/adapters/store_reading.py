"""Reading a store from outside, beside a running agent or after it: for `verify` and `doctor`. Opens read-only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from edge_agent.domain.verification import Entry

_MAGIC: Final = b"SQLite format 3\0"
_PAGE: Final = 500
"""Rows fetched at a time: no read transaction stays open over a whole store, which would let its log grow."""


class StoreUnreadableError(Exception):
    """The file cannot be read as a store; the text says why."""


@dataclass(frozen=True, slots=True)
class StoreEnd:
    """Where the store says that its chain ends: place and hash, kept beside the chain."""

    place: int
    hash: str


def is_store(path: Path) -> bool:
    """Whether the file is a database (anything else is taken for a bundle). Raises `OSError`."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_end(path: Path) -> StoreEnd | None:
    """The end the store has noted, None in an empty one. Raises `StoreUnreadableError`."""
    try:
        with closing(_open(path)) as database:
            row = database.execute("SELECT value FROM fact WHERE key='end'").fetchone()
    except sqlite3.Error as error:
        raise StoreUnreadableError(f"{path}: {error}") from error
    return StoreEnd(*json.loads(row[0])) if row else None


def count_entries(path: Path) -> int:
    """About how many entries a store holds (exactly, unless places were lost). Raises `StoreUnreadableError`."""
    try:
        with closing(_open(path)) as database:
            row = database.execute("SELECT coalesce(max(n) - min(n) + 1, 0) FROM event").fetchone()
    except sqlite3.Error as error:
        raise StoreUnreadableError(f"{path}: {error}") from error
    return int(row[0])


def read_entries(path: Path) -> Iterator[Entry]:
    """Every stored payload in chain order, from where the chain begins on. Raises `StoreUnreadableError`."""
    place = 0
    try:
        with closing(_open(path)) as database:
            first = database.execute("SELECT value FROM fact WHERE key='first'").fetchone()
            place = int(first[0]) - 1 if first else 0
            while True:
                query = "SELECT n, payload FROM event WHERE n > ? ORDER BY n LIMIT ?"
                rows = database.execute(query, (place, _PAGE)).fetchall()
                for place, payload in rows:
                    yield Entry(f"place {place}", payload)
                if not rows:
                    return
    except sqlite3.Error as error:
        raise StoreUnreadableError(f"{path}: after place {place}: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
