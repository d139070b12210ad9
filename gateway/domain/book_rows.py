"""The rows that follow from the alarm book's changes, and the entry that they follow from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.domain.alarm import Alarm
from gateway.domain.book_state import Dating
from gateway.domain.journal import Entry
from gateway.domain.notice import DecisionRows
from gateway.domain.violation import Violation


class BookRows(DecisionRows, Protocol):
    """Where the book writes, in the transaction of the entry."""

    def put_violation(self, violation: Violation) -> None:
        """Insert or replace one row of the violation log."""
        ...

    def put_alarm(self, alarm: Alarm) -> None:
        """Insert or replace one alarm."""
        ...

    def annotate_alarm(self, alarm: int, note: str) -> None:
        """Set the note of an alarm that is history already."""
        ...

    def date_violations(self, dating: Dating, before: int) -> None:
        """Put right the times of violations told from `dating.position` up to, but not including, `before`."""
        ...


class Page(NamedTuple):
    """The entry at hand, and where its rows go (None while folding again)."""

    entry: Entry
    rows: BookRows | None

    @property
    def now_ms(self) -> int:
        """The entry's time."""
        return self.entry.recorded_at_ms
