"""Small parts of the store: transactions, tables of text by key, losses joined, places told as keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from edge_agent.domain.delivery import Span
from edge_agent.ports import Loss
from edge_agent.wire.status import GoneRange, Predecessor


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of the statements within, or none. Raises what SQLite says."""
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


class KeyedTexts:
    """A table `name` of `key`, `value`."""

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        self._db = database
        self._name = name

    def get(self, key: str, default: str) -> str:
        """The text at `key`, or the default."""
        row = self._db.execute(f"SELECT value FROM {self._name} WHERE key=?", (key,)).fetchone()  # noqa: S608 — our own name
        return str(row[0]) if row else default

    def all(self) -> dict[str, str]:
        """Everything in it."""
        return dict(self._db.execute(f"SELECT key, value FROM {self._name}"))  # noqa: S608 — our own name

    def put(self, texts: Mapping[str, str | None]) -> None:
        """Set these; None deletes."""
        for key, text in texts.items():
            if text is None:
                self._db.execute(f"DELETE FROM {self._name} WHERE key=?", (key,))  # noqa: S608 — our own name
            else:
                self._db.execute(f"INSERT OR REPLACE INTO {self._name} VALUES (?, ?)", (key, text))  # noqa: S608


def join_losses(loss: Loss | None, more: Loss) -> Loss:
    """Two losses as one."""
    if loss is None:
        return more
    return Loss(loss.dropped + more.dropped, min(loss.since, more.since), max(loss.until, more.until))


def span_ranges(span: Span, starts: Sequence[tuple[str, int]], tail: int) -> Iterator[GoneRange]:
    """A span of places in keys; `starts` are the epochs with their first places, ascending, `tail` the last place."""
    ends = [first - 1 for _, first in starts[1:]] + [tail]
    before: Predecessor | None = None
    for (epoch, start), end in zip(starts, ends, strict=True):
        low, high = max(span.first, start), min(span.last, end)
        if low <= high:
            yield GoneRange(epoch, low - start + 1, high - start + 1, before if low == start else None)
        before = Predecessor(epoch, end - start + 1)
