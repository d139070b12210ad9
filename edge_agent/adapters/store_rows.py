"""The rows of a store's chain: written with their commit, read back only as far as they are still sound.

A page that cannot be read is expected and answered: the rest is read around it. Any other failure of storage is
`StoreBrokenError`: the process ends, and the next one reads what is true.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from edge_agent.adapters.minting import Head
from edge_agent.adapters.store_file import is_damage
from edge_agent.domain.delivery import Span
from edge_agent.domain.units import UtcNs
from edge_agent.domain.wall import parse_rfc3339
from edge_agent.ports import StoreBrokenError
from edge_agent.wire.codec import DecodeError, decode
from edge_agent.wire.event import Checkpoint, ClockState, Event, Position
from edge_agent.wire.sealed import bears_seal

_ROW_BYTES: Final = 200
"""What a row costs beside its payload: keys, hash, index entry, page overhead."""


class EventRows:
    """The table `event`, and `cut`: the checkpoints in it, at which a pruned chain may begin."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def insert(self, first: int, events: Sequence[Event]) -> None:
        """Append these from place `first` on, within the caller's transaction."""
        rows = [
            (n, event.epoch, event.seq, event.hash, event.payload) for n, event in enumerate(events, first)
        ]
        self._db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?)", rows)
        # `at` and `synced` are for versions before, which told an age by them; here `store_ages` reads the event.
        cuts = [
            (n, event.at, event.clock is ClockState.SYNCED)
            for n, event in enumerate(events, first)
            if isinstance(event.body, Checkpoint)
        ]
        self._db.executemany("INSERT INTO cut VALUES (?, ?, ?)", cuts)

    def forget_beyond(self, tail: int) -> None:
        """What is said of places beyond the end, which others will take; within the caller's transaction.

        Tables are pages of one file: where a log was spoilt, some know more than the chain still holds.
        """
        self._db.execute("DELETE FROM cut WHERE n > ?", (tail,))
        self._db.execute("DELETE FROM epoch WHERE first_n > ?", (tail,))
        self._db.execute("DELETE FROM gone WHERE first_n > ?", (tail,))
        self._db.execute("UPDATE gone SET last_n = ? WHERE last_n > ?", (tail, tail))

    def read(self, span: Span) -> dict[int, bytes]:
        """The payloads of a span by place, each verified by its hash; what is missing cannot be read."""
        query = "SELECT n, epoch, seq, hash, payload FROM event WHERE n BETWEEN ? AND ?"
        try:
            rows = self._db.execute(query, (span.first, span.last)).fetchall()
        except sqlite3.DatabaseError as error:
            demand_damage(error)
            if span.first == span.last:
                return {}
            middle = (span.first + span.last) // 2
            return self.read(Span(span.first, middle)) | self.read(Span(middle + 1, span.last))
        return {n: payload for n, *key, payload in rows if _is_sound(payload, Position(*key))}

    def is_checkpoint(self, n: int) -> bool:
        """Whether a checkpoint can be read there: else no chain may begin there, whatever `cut` says."""
        event = decode(self.read(Span(n, n)).get(n, b""))
        return not isinstance(event, DecodeError) and isinstance(event.body, Checkpoint)

    def head(self) -> Head | None:
        """The end of the chain, None in a new store."""
        row = self._db.execute(
            "SELECT n, epoch, seq, hash, payload FROM event ORDER BY n DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        n, epoch, seq, digest, payload = row
        last = decode(payload)
        at = UtcNs(0) if isinstance(last, DecodeError) else parse_rfc3339(last.at)
        return Head(n, epoch, seq, digest, at)

    def oldest_beginning(self) -> int:
        """Where the chain begins at the earliest, by the rows themselves: at its first place, else at a checkpoint.

        For a store that says what cannot be: that something was pruned which was never acked.
        """
        oldest: int = self._db.execute("SELECT coalesce(min(n), 1) FROM event").fetchone()[0]
        if oldest == 1:
            return 1
        row = self._db.execute("SELECT coalesce(min(n), ?) FROM cut WHERE n >= ?", (oldest, oldest))
        return int(row.fetchone()[0])

    def position(self, n: int) -> Position | None:
        """What stands at place `n`, None when it is not there or cannot be read."""
        try:
            row = self._db.execute("SELECT epoch, seq, hash FROM event WHERE n=?", (n,)).fetchone()
        except sqlite3.DatabaseError as error:
            demand_damage(error)
            return None
        return Position(*row) if row else None

    def count_bytes(self, first: int, last: int | None = None) -> int:
        """The room that the events from place `first` to `last` (None: the end) take."""
        query = "SELECT coalesce(sum(length(payload) + ?), 0) FROM event WHERE n BETWEEN ? AND ?"
        try:
            (total,) = self._db.execute(query, (_ROW_BYTES, first, last or 1 << 62)).fetchone()
        except sqlite3.DatabaseError as error:
            demand_damage(error)
            return 0
        return int(total)


def event_bytes(event: Event) -> int:
    """The room that one event takes in the store."""
    return len(event.payload) + _ROW_BYTES


def demand_damage(error: sqlite3.DatabaseError) -> None:
    """Damage is expected and answered; any other failure of storage ends the process."""
    if not is_damage(error):
        raise StoreBrokenError(f"the store failed: {error}") from error


def _is_sound(payload: object, key: Position) -> bool:
    """A damaged page may hold any type in any column."""
    return isinstance(payload, bytes) and bears_seal(payload, key)
