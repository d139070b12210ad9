"""The rows that follow from the alarm book's changes."""

from __future__ import annotations

from typing import Protocol

from gateway.domain.alarm import Alarm
from gateway.domain.book_state import UndatedBoot
from gateway.domain.notice import DecisionRows
from gateway.domain.occurred import Anchor
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

    def date_violations(self, site: str, agent: str, since: UndatedBoot, anchor: Anchor) -> None:
        """Put right the times of this agent's violations that happened in a boot whose time is known only now."""
        ...
