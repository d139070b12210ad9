"""What tests of services over a real journal (SQLite in a temporary folder) stand on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.journal import Entry
from gateway.ports import JournalUnavailable, Message, Recording

T = TypeVar("T")


class WoundClock:
    """A clock that the test winds; both its hands move together."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def utc_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


class AwayJournal:
    """A journal that cannot be written while `is_away`."""

    def __init__(self, journal: SqlJournal) -> None:
        self._journal = journal
        self.is_away = True

    @property
    def problem(self) -> str | None:
        return "away" if self.is_away else None

    @property
    def failing_since_ms(self) -> int | None:
        return 0 if self.is_away else None

    @property
    def position(self) -> int:
        return self._journal.position

    async def transact(self, work: Callable[[Recording], T]) -> T:
        if self.is_away:
            raise JournalUnavailable("away")
        return await self._journal.transact(work)

    def entries_after(self, position: int, limit: int) -> Sequence[Entry]:
        return self._journal.entries_after(position, limit)

    def subscribe(self, listener: Callable[[Sequence[Entry]], None]) -> Callable[[], None]:
        return self._journal.subscribe(listener)


@dataclass(frozen=True)
class Letter:
    """A message."""

    topic: str
    payload: bytes
    retain: bool = False


class FakeIntake:
    """A broker that the test plays."""

    def __init__(self) -> None:
        self.waiting: deque[Letter] = deque()
        self.acknowledged: list[Message] = []
        self.published: list[tuple[str, bytes]] = []

    async def batch(self) -> Sequence[Message]:
        taken = list(self.waiting)
        self.waiting.clear()
        return taken

    def done(self, messages: Iterable[Message]) -> None:
        self.acknowledged += messages

    def publish_retained(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))
