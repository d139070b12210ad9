"""Pruning: what the receiver holds leaves the store, oldest first and a little at a time.

Theory of operation. The kept chain begins with a checkpoint, whose signature vouches for all that stood before it, so
whoever verifies a pruned chain sees that its beginning was not cut by somebody else. `cut` lists the checkpoints. A
step moves `first` to one of them, or, when that left rows behind, deletes up to `PRUNE_ROWS_MAX` of these, so that no
commit waits long for its turn:

    step ─┬─ rows before `first` are left ─▶ delete some of them
          ├─ by age:   nothing is un-acked                    ─▶ `first` = the last checkpoint older than `KEEP_MS`
          ├─ by size:  the file holds more than `size_max_mb` ─▶ `first` = the last checkpoint within a 16th, or the next
          └─ nothing to do

By age only what is acked goes, and nothing while anything is un-acked: a gateway that was away, or lost its journal,
finds the window as it was. By size everything goes that was acked once, wherever the ack stands now; the rest is the
outbox, which has a limit of its own. An age is running time (`store_ages`), never told from `at`: a clock that finds its
time after weeks in 1970, or is set wrong for a moment, would else prune the whole window at once.

The file does not shrink: SQLite uses freed pages again, so that it never grows beyond what it once had to hold, which
is `size_max_mb` and what is never acked. What lies on a spoilt page cannot be deleted: `first` passes it, the rows beside
it go, and `swept` notes how far it was tried, so that it stays behind as so much lost room and nothing else.

Source: the delivery protocol §2.5; reliability invariant I-4.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from edge_agent.adapters.store_ages import CheckpointAges
from edge_agent.adapters.store_file import is_damage, is_full
from edge_agent.adapters.store_rows import EventRows
from edge_agent.adapters.store_tables import KeyedTexts, transaction
from edge_agent.domain.delivery import Span
from edge_agent.domain.units import NS_PER_MS, MonoNs

KEEP_MS: Final = 7 * 86_400_000
"""The replay window: so long acked events are kept for a gateway that lost its journal."""

PRUNE_ROWS_MAX: Final = 256
"""Rows deleted in one step: milliseconds, also when each is as large as an event may be (48 KiB)."""

CHECKPOINT_SHARE: Final = 16
"""A checkpoint is made at least once in this part of `size_max_mb`: pruning by size takes no more than that at once."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The places up to which may be pruned: `acked` by age, `ever_acked` by size; `tail` is the last."""

    acked: int
    ever_acked: int
    tail: int


class Pruner:
    """Prunes one store. `first` is the place at which its chain begins."""

    def __init__(
        self, database: sqlite3.Connection, rows: EventRows, facts: KeyedTexts, boot: str, size_max_bytes: int
    ) -> None:
        self._db = database
        self._rows = rows
        self._ages = CheckpointAges(database, rows, boot)
        self._facts = facts
        self._size_max_bytes = size_max_bytes
        self.first = int(facts.get("first", "1"))
        self._swept = min(int(facts.get("swept", "0")), self.first - 1)

    @property
    def last_cut(self) -> int:
        """The place of the last checkpoint, or of the chain's beginning."""
        return self._ask("SELECT max(n) FROM cut") or self.first

    def step(self, bounds: Bounds, mono: MonoNs) -> bool:
        """Do a little of what there is to do; False when there was nothing, or it cannot be done."""
        try:
            oldest = self._oldest()
            if oldest is None:
                return False
            first = self.first if oldest < self.first else self._choose(bounds, mono)
            if first is not None:
                self._cut(first, oldest)
        except sqlite3.Error as error:
            if is_damage(error) or is_full(error):
                return False
            raise
        return first is not None

    def _cut(self, first: int, oldest: int) -> None:
        """Let the chain begin at `first`, and delete some of what lies before it."""
        if first != self.first and not self._rows.is_checkpoint(first):
            with transaction(self._db):
                self._db.execute("DELETE FROM cut WHERE n = ?", (first,))
            return
        self._sweep(first, Span(oldest, min(first, oldest + PRUNE_ROWS_MAX) - 1))

    def _sweep(self, first: int, span: Span) -> None:
        """Delete these rows, in halves around those whose pages, or the pages beside them, cannot be read."""
        try:
            self._commit(first, span, is_sound=True)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            if span.first >= span.last:
                self._commit(first, span, is_sound=False)
                return
            middle = (span.first + span.last) // 2
            self._sweep(first, Span(span.first, middle))
            self._sweep(first, Span(middle + 1, span.last))

    def _commit(self, first: int, span: Span, *, is_sound: bool) -> None:
        is_moved = first != self.first
        with transaction(self._db):
            if is_sound:
                self._db.execute("DELETE FROM event WHERE n BETWEEN ? AND ?", (span.first, span.last))
            self._facts.put({"swept": str(span.last)} | ({"first": str(first)} if is_moved else {}))
        self.first, self._swept = first, span.last
        if is_moved:
            self._forget("DELETE FROM cut WHERE n < ?")
            self._forget("DELETE FROM gone WHERE last_n < ?")

    def _forget(self, statement: str) -> None:
        """Delete what is said of places before `first`. Where a page of that is spoilt it stays: nobody asks for it."""
        try:
            with transaction(self._db):
                self._db.execute(statement, (self.first,))
        except sqlite3.Error as error:
            if not is_damage(error):
                raise

    def _oldest(self) -> int | None:
        """The first place beyond those swept that holds a row, or may: nobody knows what is on a spoilt page."""
        try:
            return self._ask("SELECT min(n) FROM event WHERE n > ?", self._swept)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            return self._swept + 1

    def _choose(self, bounds: Bounds, mono: MonoNs) -> int | None:
        """Where the chain is to begin, None where it begins now."""
        if bounds.acked == bounds.tail:
            acked = Span(self.first + 1, bounds.acked)
            by_age = self._ages.last_older_than(KEEP_MS, mono // NS_PER_MS, acked)
            if by_age is not None:
                return by_age
        if self._used_bytes() <= self._size_max_bytes:
            return None
        soon = self.first + (bounds.ever_acked - self.first) // CHECKPOINT_SHARE
        return self._ask("SELECT max(n) FROM cut WHERE n > ? AND n <= ?", self.first, soon) or self._ask(
            "SELECT min(n) FROM cut WHERE n > ? AND n <= ?", self.first, bounds.ever_acked
        )

    def _used_bytes(self) -> int:
        """What the file holds, without the pages that are free to be used again."""
        used = self._pragma("page_count") - self._pragma("freelist_count")
        return used * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _ask(self, query: str, *values: int | str) -> int | None:
        found: int | None = self._db.execute(query, values).fetchone()[0]
        return found
