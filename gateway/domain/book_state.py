"""What the alarm book holds while it is open or listed, with a transaction's changes laid over it.

Closed violations are rows in the database; here only the ids of the last `CLOSED_REMEMBERED` of them are kept, in a
ring, so that a doubled raise of one opens nothing again. Deadlines follow from the alarms and the teller's plan; they
are kept beside them for speed and are no part of a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from edge_agent.wire.event import Event, Json
from edge_agent.wire.structure import plain, structure
from gateway.domain.alarm import Alarm, Letter
from gateway.domain.layer import Layer
from gateway.domain.occurred import Anchor, Undated
from gateway.domain.places import Places
from gateway.domain.violation import Violation

CLOSED_REMEMBERED: Final = 20_000
"""Closed occurrences whose ids are kept: days of a busy plant; ids are unique, so only a doubled event needs them."""


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A deadline: `what` of `alarm` at `due_ms` (gateway UTC)."""

    due_ms: int
    alarm: int
    what: str


@dataclass(frozen=True, slots=True)
class UndatedBoot:
    """A boot of an agent whose events have no time yet: the first event of a violation so, and its journal position."""

    first: Undated
    position: int


@dataclass(frozen=True, slots=True)
class Dating:
    """A boot whose time is known now: its violations from journal position `position` up to `until` are put right yet.

    `at_ms` is the journal time of the last piece of that work, 0 before the first.
    """

    site: str
    agent: str
    boot: str
    anchor: Anchor
    position: int
    until: int
    at_ms: int = 0


class _Part(Protocol):
    def adopt(self) -> None: ...
    def discard(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Snapshot:
    places: Json
    violations: tuple[Violation, ...]
    alarms: tuple[Alarm, ...]
    renamed: Mapping[str, str]
    passing: Mapping[str, int]
    closed: Mapping[str, str]
    counts: Mapping[str, int]
    undated: Mapping[str, UndatedBoot] = field(default_factory=dict)
    datings: tuple[Dating, ...] = ()


class BookState:
    """Open violations, listed alarms and their timers, staged and adopted together.

    `next_timer` gives an alarm's next deadline, or None.
    """

    def __init__(self, next_timer: Callable[[Alarm, Places], DueTimer | None]) -> None:
        self._next_timer = next_timer
        self.places = Places()
        self.violations: Layer[str, Violation] = Layer()
        self.alarms: Layer[int, Alarm] = Layer()
        self.renamed: Layer[str, str] = Layer()
        """An agent's occurrence → the id it goes on under here."""
        self.passing: Layer[str, int] = Layer()
        """An occurrence still to be raised → the alarm that passes on to it."""
        self.timers: Layer[int, DueTimer] = Layer()
        """Each calling alarm's next deadline."""
        self.undated: Layer[str, UndatedBoot] = Layer()
        """Site/agent → its newest boot that has no time yet: no event of an older one can come after it."""
        self.datings: Layer[int, Dating] = Layer()
        """What is being put right, by its `until`."""
        self._closed: Layer[str, str] = Layer()
        self._closed_slots: Layer[str, str] = Layer()
        self._counts: Layer[str, int] = Layer()

    def adopt(self) -> None:
        """The transaction committed."""
        for part in self._parts():
            part.adopt()

    def discard(self) -> None:
        """The transaction failed."""
        for part in self._parts():
            part.discard()

    def snapshot(self) -> Json:
        """The adopted state as JSON."""
        return plain(
            _Snapshot(
                self.places.snapshot(),
                tuple(sorted(self.violations.adopted().values(), key=lambda item: item.raised_position)),
                tuple(sorted(self.alarms.adopted().values(), key=lambda item: item.id)),
                self.renamed.adopted(),
                self.passing.adopted(),
                self._closed.adopted(),
                self._counts.adopted(),
                self.undated.adopted(),
                tuple(self.datings.adopted().values()),
            )
        )

    def restore(self, snapshot: Json) -> None:
        """Adopt what `snapshot` gave. Raises `MisfitError` for what it never gave."""
        kept = cast("_Snapshot", structure(_Snapshot, snapshot, "alarm book"))
        self.places.restore(kept.places)
        self.violations.replace({violation.occurrence: violation for violation in kept.violations})
        self.alarms.replace({alarm.id: alarm for alarm in kept.alarms})
        self.renamed.replace(kept.renamed)
        self.passing.replace(kept.passing)
        self._closed.replace(kept.closed)
        self._closed_slots.replace({occurrence: slot for slot, occurrence in kept.closed.items()})
        self._counts.replace(kept.counts)
        self.undated.replace(kept.undated)
        self.datings.replace({dating.until: dating for dating in kept.datings})
        timers = (self._next_timer(alarm, self.places) for alarm in kept.alarms)
        self.timers.replace({timer.alarm: timer for timer in timers if timer is not None})

    def next_alarm_id(self) -> int:
        """Alarms are numbered from 1, in the journal's order."""
        return self._count("alarms") + 1

    def area(self, site: str | None, machine: str | None) -> str | None:
        """The area of a machine, as far as its birth certificate came."""
        place = self.places.machine(site, machine)
        return place.area if place else None

    def is_known(self, occurrence: str) -> bool:
        """Whether it is open here, or is one of the last that were closed."""
        return self.violations.get(occurrence) is not None or self._closed_slots.get(occurrence) is not None

    def put_alarm(self, alarm: Alarm) -> None:
        """Keep an alarm as long as it is listed, with its next deadline."""
        self._counts.put("alarms", max(alarm.id, self._count("alarms")))
        if alarm.letter is Letter.NORMAL:
            self.alarms.drop(alarm.id)
        else:
            self.alarms.put(alarm.id, alarm)
        timer = self._next_timer(alarm, self.places)
        if timer is None:
            self.timers.drop(alarm.id)
        else:
            self.timers.put(alarm.id, timer)

    def close(self, occurrence: str) -> None:
        """A violation is over: remember its id only."""
        self.violations.drop(occurrence)
        base = occurrence.rpartition(".")[0]
        if base and self.renamed.get(base) == occurrence:
            self.renamed.drop(base)
        count = self._count("closed")
        self._counts.put("closed", count + 1)
        slot = str(count % CLOSED_REMEMBERED)
        forgotten = self._closed.get(slot)
        if forgotten is not None:
            self._closed_slots.drop(forgotten)
        self._closed.put(slot, occurrence)
        self._closed_slots.put(occurrence, slot)

    def note_undated(self, event: Event, first: Undated, position: int) -> None:
        """The boot of this event has no time yet."""
        key = _agent_key(event)
        known = self.undated.get(key)
        if known is None or known.first.boot != first.boot:
            self.undated.put(key, UndatedBoot(first, position))

    def take_undated(self, event: Event) -> UndatedBoot | None:
        """The boot of this event, if it had no time so far; from now on it has."""
        key = _agent_key(event)
        known = self.undated.get(key)
        if known is None or known.first.boot != event.boot:
            return None
        self.undated.drop(key)
        return known

    def next_dating(self, now_ms: int) -> Dating | None:
        """What is put right now: one piece of one boot at a journal time, so that no transaction grows beyond measure."""
        if self.datings.is_empty:
            return None
        oldest = min(self.datings.values(), key=lambda dating: dating.until, default=None)
        return None if oldest is None or oldest.at_ms >= now_ms else oldest

    def undated_violations(self, event: Event) -> list[Violation]:
        """The open violations of this event's agent and boot that have no time yet."""
        return [
            violation
            for violation in self.violations.values()
            if (violation.site, violation.agent) == (event.site, event.agent)
            and violation.undated is not None
            and violation.undated.boot == event.boot
        ]

    def _count(self, what: str) -> int:
        return self._counts.get(what) or 0

    def _parts(self) -> tuple[_Part, ...]:
        return (
            self.places,
            self.violations,
            self.alarms,
            self.renamed,
            self.passing,
            self.timers,
            self._closed,
            self._closed_slots,
            self._counts,
            self.undated,
            self.datings,
        )


def _agent_key(event: Event) -> str:
    return f"{event.site}/{event.agent}"
